//! Scoring one customer: read the profile, assemble features, run the models, explain, record.
//!
//! [`Scorer::score`] is the one function behind every scoring endpoint. It answers only what has
//! been handed to the ledger: a prediction that cannot be recorded is an error, never an answer.
//!
//! * [`bulk`] – many customers at once, with the same answers.
//! * [`choose`] – the versions that a request asks for.
//! * [`shadow`] – versions that are run beside, after the answer.
//! * [`assemble`] – what is known and what is overridden to an Arrow batch.
//! * [`given`] – what is known of many entities, as columns; [`given_page`] – the same on its way from a
//!   server.
//! * [`related`] – the entities that an entity points to.
//! * [`quality`] – what to know about the values that were used.
//! * [`reasons`] – contributions of features to a score.

pub mod assemble;
pub mod bulk;
pub mod choose;
pub mod given;
pub mod given_page;
pub mod quality;
pub mod reasons;
pub mod related;
pub mod shadow;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::clock;
use crate::config::OnFailure;
use crate::features::value::Value;
use crate::features::view::{ValueError, View};
use crate::features::views::Views;
use crate::ledger::{self, AppendError, Ledger};
use crate::models::catalog::{Chosen, FindError};
use crate::models::comparison::canary::Side;
use crate::models::repository::Repository;
use crate::models::scoring::Scored;
use crate::models::version::ModelVersion;
use crate::store::{OnlineStore, Snapshot, StoreError, read_one};
use crate::telemetry::{FeatureCounters, StageTimers};
use assemble::{Assembled, RowInput, Source, assemble, value_at};
use choose::{choose_models, failed, need, predict};
use quality::{FeatureQuality, judge};
use reasons::Reasons;
use related::{Related, Wanted};
use shadow::{Served as ServedScore, ShadowJob, Shadows};

/// The entity that `/v1/score` and `/v1/customers` are about.
pub const CUSTOMER: &str = "customer_id";

/// How often a request looks again, a millisecond apart, while views are replaced.
const REPLACING_TRIES: usize = 100;

/// A request to score one customer.
#[derive(Debug, Default)]
pub struct ScoreRequest {
    pub customer_id: String,
    /// The models asked for; `None` means every champion that binds to the customer's view.
    pub models: Option<Vec<String>>,
    /// Values to use instead of stored ones, by feature name.
    pub overrides: Map<String, Json>,
    /// What is known of the request itself: values of request features, by name.
    pub context: Map<String, Json>,
    /// How many contributions to give with each prediction; none when `None`.
    pub explain: Option<usize>,
}

/// The answer to a [`ScoreRequest`].
#[derive(Debug)]
pub struct ScoreAnswer {
    pub prediction_id: Uuid,
    pub predictions: Vec<Prediction>,
    pub quality: FeatureQuality,
}

/// What one model version said.
#[derive(Debug)]
pub struct Prediction {
    pub version: Arc<ModelVersion>,
    pub scored: Scored,
    pub reasons: Option<Reasons>,
    /// When the score was there and the reasons were begun; absent without reasons.
    pub scored_at: Option<Instant>,
}

/// Why a customer was not scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error(
        "customer_id {customer_id:?}: no such customer; write features with PUT /v1/customers/{{id}} first"
    )]
    UnknownCustomer { customer_id: String },
    #[error("models[{index}]: {problem}")]
    UnknownModel { index: usize, problem: FindError },
    #[error(
        "models[{index}]: model {name} version {version} does not bind to a customer view: {problems}"
    )]
    Unbound {
        index: usize,
        name: String,
        version: String,
        problems: String,
    },
    #[error("models: no model is ready that binds to a view of {CUSTOMER}")]
    NoModels,
    #[error("features.{0}")]
    Override(ValueError),
    #[error("context.{0}")]
    Context(ValueError),
    #[error("no feature view has the entity {CUSTOMER}")]
    NoView,
    #[error("the feature views are being replaced; try again")]
    Replacing,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("model {name} version {version}: {problem}")]
    Model {
        name: String,
        version: String,
        problem: String,
    },
    #[error("the prediction cannot be recorded now: {0}; try again shortly")]
    Ledger(#[from] AppendError),
    #[error("features: {0}")]
    Assemble(#[from] arrow::error::ArrowError),
}

/// Everything a score needs.
pub struct Scorer {
    in_force: ArcSwap<InForce>,
    pub repository: Arc<Repository>,
    pub store: Arc<dyn OnlineStore>,
    pub ledger: Arc<Ledger>,
    /// What to answer while the store is lost.
    pub on_store_failure: OnFailure,
    /// The versions in shadow are run there.
    pub shadows: Shadows,
    /// How long the stages of its scores took.
    pub timers: StageTimers,
}

/// The views that are in force, and what is counted by their columns.
struct InForce {
    views: Arc<Views>,
    counters: FeatureCounters,
}

impl InForce {
    fn new(views: Arc<Views>) -> InForce {
        InForce {
            counters: FeatureCounters::new(&views, CUSTOMER),
            views,
        }
    }
}

impl Scorer {
    pub fn new(
        views: Views,
        repository: Arc<Repository>,
        store: Arc<dyn OnlineStore>,
        ledger: Arc<Ledger>,
    ) -> Scorer {
        let timers = StageTimers::default();
        let in_force = InForce::new(Arc::new(views));
        Scorer {
            in_force: ArcSwap::from_pointee(in_force),
            repository,
            store,
            ledger,
            on_store_failure: OnFailure::default(),
            shadows: Shadows::default(),
            timers,
        }
    }

    /// The view of customers.
    ///
    /// # Errors
    /// When no view has the entity `customer_id`.
    pub fn customer_view(&self) -> Result<Arc<View>, ScoreError> {
        let views = self.views();
        views.of_entity(CUSTOMER).cloned().ok_or(ScoreError::NoView)
    }

    /// The views that are in force.
    pub fn views(&self) -> Arc<Views> {
        Arc::clone(&self.in_force.load().views)
    }

    /// Puts other views in force: those that the repository's versions are bound to from now on.
    pub fn replace_views(&self, views: Arc<Views>) {
        self.in_force.store(Arc::new(InForce::new(views)));
    }

    /// The views in force, the customers' among them, and the versions to run, which are bound to it.
    async fn choose(
        &self,
        models: Option<&[String]>,
        key: &str,
    ) -> Result<(Arc<InForce>, Arc<View>, Vec<Chosen>), ScoreError> {
        for _ in 0..REPLACING_TRIES {
            let in_force = self.in_force.load_full();
            let view = in_force.views.of_entity(CUSTOMER);
            let view = Arc::clone(view.ok_or(ScoreError::NoView)?);
            match choose_models(&self.repository.catalog(), models, key, &view) {
                // Versions are bound to other views than those looked at: a moment later they are not.
                Err(ScoreError::Replacing) => {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                chosen => return Ok((in_force, view, chosen?)),
            }
        }
        Err(ScoreError::Replacing)
    }

    /// Scores one customer and records the prediction.
    ///
    /// # Errors
    /// See [`ScoreError`]; nothing is recorded then.
    pub async fn score(&self, request: &ScoreRequest) -> Result<ScoreAnswer, ScoreError> {
        let (in_force, view, models) = self
            .choose(request.models.as_deref(), &request.customer_id)
            .await?;
        let (view, counters) = (&view, &in_force.counters);
        let mut overrides = Vec::with_capacity(request.overrides.len());
        for (name, json) in &request.overrides {
            let read = view.read_override(name, json);
            let (column, value, _) = read.map_err(ScoreError::Override)?;
            overrides.push((column, value));
        }
        let mut context = Vec::with_capacity(request.context.len());
        for (name, json) in &request.context {
            let read = view.read_context(name, json);
            let (column, value, _) = read.map_err(ScoreError::Context)?;
            context.push((column, value));
        }

        let started = Instant::now();
        let now_us = clock::now_us();
        // Behind those that the caller sent: the first of a column is taken.
        context.extend(view.request_time(now_us));
        let found = read_one(&*self.store, view, &request.customer_id, now_us).await;
        let snapshot = self.unless_lost(found.map_err(ScoreError::from))?;
        let mut store_lost = snapshot.is_none();
        let snapshot = snapshot.unwrap_or_else(|| Some(Snapshot::without_values(view)));
        let snapshot = snapshot.ok_or_else(|| ScoreError::UnknownCustomer {
            customer_id: crate::features::value::shorten(&request.customer_id, 128),
        })?;
        let mut needed = vec![false; view.features().len()];
        for chosen in &models {
            need(&mut needed, &chosen.version, view)?;
        }
        view.close_over_inputs(&mut needed);
        // What a champion needs to answer in a canary's place is at hand too.
        let mut at_hand = needed.clone();
        let fallbacks = models.iter().filter_map(|chosen| chosen.fallback.as_ref());
        for champion in fallbacks {
            need(&mut at_hand, champion, view)?;
            view.close_over_inputs(&mut at_hand);
        }
        let row = RowInput {
            key: &request.customer_id,
            profile: Some(&snapshot.profile),
            overrides: &overrides,
            context: &context,
            windows: &snapshot.windows,
        };
        let related = if store_lost {
            Related::default()
        } else {
            let found = read_related(&*self.store, view, &row, &at_hand, now_us).await;
            let related = self.unless_lost(found)?;
            store_lost = related.is_none();
            related.unwrap_or_default()
        };
        if store_lost {
            counters.store_lost();
        }
        let read = self.timers.store(started);
        let assembled = assemble(view, &[row], &related, &at_hand)?;
        let mut quality = judge(view, &assembled, 0, &needed, now_us, counters);
        quality.store_lost = store_lost;
        let mut mark = self.timers.features(read);

        let mut predictions = Vec::with_capacity(models.len());
        let mut shadowed = Vec::new();
        let mut fell_back = false;
        for chosen in models {
            let side = match chosen.fallback {
                Some(_) => Side::Canary,
                None => Side::Champion,
            };
            let mut run = |version: &Arc<ModelVersion>, side: Side| {
                let told = self.run(version, view, &assembled, request.explain, &mut mark);
                if let Some(watch) = &chosen.watch {
                    match &told {
                        Ok((told, took)) => {
                            let customer = &request.customer_id;
                            watch.success(side, customer, told.scored.score, *took);
                        }
                        Err(problem) => watch.failure(side, problem),
                    }
                }
                told.map_err(|problem| failed(version, problem))
            };
            let mut told = run(&chosen.version, side);
            if let (Err(_), Some(champion)) = (&told, &chosen.fallback) {
                told = run(champion, Side::Champion);
                fell_back = true;
            }
            let (prediction, took) = told?;
            if let Some(shadows) = chosen.shadows {
                shadowed.push(ServedScore {
                    shadows,
                    version: Arc::clone(&prediction.version),
                    score: prediction.scored.score,
                    took,
                });
            }
            predictions.push(prediction);
        }
        if fell_back {
            // The features of two versions were used, and are counted for both.
            needed = at_hand.clone();
            quality = judge(view, &assembled, 0, &needed, now_us, counters);
            quality.store_lost = store_lost;
        }

        let prediction_id = clock::new_id_at(now_us);
        let answer = ScoreAnswer {
            prediction_id,
            predictions,
            quality,
        };
        let served = Served {
            customer_id: &request.customer_id,
            assembled: &assembled,
            row: 0,
            needed: &needed,
            applied: snapshot.applied,
        };
        let record = record(view, &served, &answer, now_us);
        self.ledger.append_prediction(record)?;
        self.timers.ledger(mark);
        if !shadowed.is_empty() {
            self.shadows.offer(ShadowJob {
                prediction_id,
                at_us: now_us,
                customer_id: request.customer_id.clone(),
                view: Arc::clone(view),
                at_hand,
                snapshot,
                overrides,
                context,
                related,
                served: shadowed,
            });
        }
        Ok(answer)
    }

    /// What one version says of the assembled row and how long it took without the reasons, counted as its
    /// answer or its failure. `mark` is when that begins, and then when it ended.
    fn run(
        &self,
        version: &Arc<ModelVersion>,
        view: &View,
        assembled: &Assembled,
        explain_limit: Option<usize>,
        mark: &mut Instant,
    ) -> Result<(Prediction, Duration), String> {
        let told = predict(version, view, assembled, explain_limit);
        let ended = self.timers.model(version, *mark);
        let took = ended.duration_since(*mark);
        let began = std::mem::replace(mark, ended);
        let scores = &version.statistics.scores;
        match told {
            Ok(prediction) => {
                scores.answered(took);
                let scored_at = prediction.scored_at.unwrap_or(ended);
                Ok((prediction, scored_at.duration_since(began)))
            }
            Err(problem) => {
                scores.failed(&problem, took);
                Err(problem)
            }
        }
    }

    /// What the store found; `None` when it is out of reach and defaults are to be used then.
    fn unless_lost<T>(&self, found: Result<T, ScoreError>) -> Result<Option<T>, ScoreError> {
        let may_do_without = self.on_store_failure == OnFailure::Defaults;
        match found {
            Err(ScoreError::Store(StoreError::Unavailable(_))) if may_do_without => Ok(None),
            found => found.map(Some),
        }
    }
}

/// What is known of the entities that a row points to: one round trip, none when nothing that is
/// needed is related.
///
/// # Errors
/// When the store fails.
pub async fn read_related(
    store: &dyn OnlineStore,
    view: &View,
    row: &RowInput<'_>,
    needed: &[bool],
    at_us: i64,
) -> Result<Related, ScoreError> {
    let wanted = Wanted::of(view, std::slice::from_ref(row), needed);
    if wanted.is_empty() {
        return Ok(Related::default());
    }
    let snapshots = store.read(&wanted.entities(), at_us).await?;
    Ok(wanted.assemble(view, &snapshots, at_us)?)
}

/// The feature values of an answer: those of one row.
struct Served<'a> {
    customer_id: &'a str,
    assembled: &'a Assembled,
    row: usize,
    needed: &'a [bool],
    /// The number of the last change that went into them.
    applied: u64,
}

/// The ledger row of an answer: the values as served, where they came from, and every score.
fn record(
    view: &View,
    served: &Served<'_>,
    answer: &ScoreAnswer,
    at_us: i64,
) -> ledger::Prediction {
    let Served {
        assembled,
        row,
        needed,
        ..
    } = *served;
    let mut features = Vec::with_capacity(needed.len());
    for (column, feature) in view
        .features()
        .iter()
        .enumerate()
        .filter(|(column, _)| needed[*column])
    {
        let origin = assembled.origin(row, column);
        let source = match origin.map(|origin| origin.source) {
            Some(Source::Stored) => ledger::FeatureSource::Stored,
            Some(Source::Override) => ledger::FeatureSource::Override,
            Some(Source::Request) => ledger::FeatureSource::Request,
            Some(Source::Window) => ledger::FeatureSource::Window,
            Some(Source::Related) => ledger::FeatureSource::Related,
            Some(Source::Default) => ledger::FeatureSource::Default,
            Some(Source::Missing) => ledger::FeatureSource::Missing,
            None => ledger::FeatureSource::Derived,
        };
        features.push(ledger::Feature {
            name: feature.name.clone(),
            value: match value_at(assembled.batch.column(column), row) {
                Value::Null => None,
                Value::Bool(flag) => Some(ledger::FeatureValue::Bool(flag)),
                Value::Int64(integer) => Some(ledger::FeatureValue::Int64(integer)),
                Value::Float64(float) => Some(ledger::FeatureValue::Float64(float)),
                Value::String(text) => Some(ledger::FeatureValue::String(text)),
            },
            as_of_us: origin.and_then(|origin| origin.as_of_us),
            source: source.into(),
        });
    }
    let scores = answer.predictions.iter().map(|prediction| ledger::Score {
        model: prediction.version.name.clone(),
        version: prediction.version.version.clone(),
        digest: prediction.version.digest.to_vec().into(),
        score: prediction.scored.score,
        label: prediction.scored.label.clone(),
        log_odds: prediction.scored.raw,
        reasons: prediction.reasons.as_ref().map(|reasons| ledger::Reasons {
            base: reasons.base,
            contributions: reasons
                .contributions
                .iter()
                .map(|reason| ledger::Contribution {
                    feature: reason.feature.clone(),
                    contribution: reason.contribution,
                })
                .collect(),
            other: reasons.other,
        }),
    });
    ledger::Prediction {
        prediction_id: answer.prediction_id.into_bytes().to_vec().into(),
        customer_id: served.customer_id.to_owned(),
        at_us,
        view: view.name.clone(),
        view_digest: view.digest.to_vec().into(),
        features,
        scores: scores.collect(),
        applied: (served.applied > 0).then_some(served.applied),
    }
}
