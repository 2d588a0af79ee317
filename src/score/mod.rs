//! Scoring one customer: read the profile, assemble features, run the models, explain, record.
//!
//! [`Scorer::score`] is the one function behind every scoring endpoint. It answers only what has
//! been handed to the ledger: a prediction that cannot be recorded is an error, never an answer.
//!
//! * [`assemble`] – profiles and overrides to an Arrow batch.
//! * [`reasons`] – contributions of features to a score.

pub mod assemble;
pub mod reasons;

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::clock;
use crate::features::value::Value;
use crate::features::view::{ValueError, View};
use crate::features::views::Views;
use crate::ledger::{self, AppendError, Ledger};
use crate::models::catalog::FindError;
use crate::models::repository::Repository;
use crate::models::scoring::{Scored, Scoring};
use crate::models::version::ModelVersion;
use crate::store::{OnlineStore, StoreError};
use crate::telemetry::{FeatureCounters, StageTimers};
use assemble::{Assembled, RowInput, Source, assemble, value_at};
use reasons::{Reasons, explain};

/// The entity that `/v1/score` and `/v1/customers` are about.
pub const CUSTOMER: &str = "customer_id";

/// A request to score one customer.
#[derive(Debug, Default)]
pub struct ScoreRequest {
    pub customer_id: String,
    /// The models asked for; `None` means every champion that binds to the customer's view.
    pub models: Option<Vec<String>>,
    /// Values to use instead of stored ones, by feature name.
    pub overrides: Map<String, Json>,
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
}

/// What a caller should know about the features that were used.
#[derive(Debug, Default)]
pub struct FeatureQuality {
    /// Stored, but older than the feature's `max_age`.
    pub stale: Vec<String>,
    /// Without a value: the default was used, or missing passed on.
    pub missing: Vec<String>,
    /// With a value that is not among the declared ones.
    pub unknown: Vec<String>,
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
    Override(#[from] ValueError),
    #[error("no feature view has the entity {CUSTOMER}")]
    NoView,
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
    pub views: Views,
    pub repository: Arc<Repository>,
    pub store: Arc<dyn OnlineStore>,
    pub ledger: Arc<Ledger>,
    timers: StageTimers,
    counters: FeatureCounters,
}

impl Scorer {
    pub fn new(
        views: Views,
        repository: Arc<Repository>,
        store: Arc<dyn OnlineStore>,
        ledger: Arc<Ledger>,
    ) -> Scorer {
        let timers = StageTimers::default();
        let counters = FeatureCounters::new(&views, CUSTOMER);
        Scorer {
            views,
            repository,
            store,
            ledger,
            timers,
            counters,
        }
    }

    /// The view of customers.
    ///
    /// # Errors
    /// When no view has the entity `customer_id`.
    pub fn customer_view(&self) -> Result<&Arc<View>, ScoreError> {
        self.views.of_entity(CUSTOMER).ok_or(ScoreError::NoView)
    }

    /// Scores one customer and records the prediction.
    ///
    /// # Errors
    /// See [`ScoreError`]; nothing is recorded then.
    pub async fn score(&self, request: &ScoreRequest) -> Result<ScoreAnswer, ScoreError> {
        let view = self.customer_view()?;
        let models = self.choose_models(request, view)?;
        let mut overrides = Vec::with_capacity(request.overrides.len());
        for (name, json) in &request.overrides {
            let (column, value, _) = view.read_value(name, json)?;
            overrides.push((column, value));
        }

        let started = Instant::now();
        let profile = self.store.read(&view.name, &request.customer_id).await?;
        let profile = profile.ok_or_else(|| ScoreError::UnknownCustomer {
            customer_id: crate::features::value::shorten(&request.customer_id, 128),
        })?;
        let read = self.timers.store(started);

        let now_us = clock::now_us();
        let mut needed = vec![false; view.features().len()];
        for version in &models {
            let scoring =
                scoring_over(version, view).map_err(|problem| failed(version, problem))?;
            for &column in &scoring.features {
                needed[column] = true;
            }
        }
        view.close_over_inputs(&mut needed);
        let row = RowInput {
            profile: Some(&profile),
            overrides: &overrides,
        };
        let assembled = assemble(view, &[row], &needed)?;
        let quality = self.judge(view, &assembled, &needed, now_us);
        let mut mark = self.timers.features(read);

        let mut predictions = Vec::with_capacity(models.len());
        for version in models {
            let failed = |problem| failed(&version, problem);
            let scoring = scoring_over(&version, view).map_err(failed)?;
            let mut rows = scoring
                .score(&version.graph, &assembled.batch)
                .map_err(failed)?;
            let scored = rows
                .pop()
                .ok_or_else(|| failed("gave no score".to_owned()))?;
            if !scored.score.is_finite() {
                return Err(failed(format!(
                    "the score is {}, not a number",
                    scored.score
                )));
            }
            let reasons = match request.explain {
                Some(limit) if limit > 0 => {
                    let columns = assembled.batch.columns();
                    explain(scoring, &version.graph, columns, &scored, limit).map_err(failed)?
                }
                _ => None,
            };
            mark = self.timers.model(&version, mark);
            predictions.push(Prediction {
                version,
                scored,
                reasons,
            });
        }

        let prediction_id = clock::new_id_at(now_us);
        let answer = ScoreAnswer {
            prediction_id,
            predictions,
            quality,
        };
        let record = record(view, request, &assembled, &needed, &answer, now_us);
        self.ledger.append_prediction(record)?;
        self.timers.ledger(mark);
        Ok(answer)
    }

    /// The versions to run, each of which binds to `view`. They are held by this request: a
    /// version that is replaced meanwhile goes on to answer it.
    fn choose_models(
        &self,
        request: &ScoreRequest,
        view: &Arc<View>,
    ) -> Result<Vec<Arc<ModelVersion>>, ScoreError> {
        let Some(names) = &request.models else {
            let catalog = self.repository.catalog();
            let champions = catalog.champions().iter();
            let bound = champions.filter(|version| scoring_over(version, view).is_ok());
            let chosen: Vec<Arc<ModelVersion>> = bound.cloned().collect();
            return if chosen.is_empty() {
                Err(ScoreError::NoModels)
            } else {
                Ok(chosen)
            };
        };
        let mut chosen = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let version = self
                .repository
                .find(name, None)
                .map_err(|problem| ScoreError::UnknownModel { index, problem })?;
            if let Err(problems) = scoring_over(&version, view) {
                return Err(ScoreError::Unbound {
                    index,
                    name: version.name.clone(),
                    version: version.version.clone(),
                    problems,
                });
            }
            chosen.push(version);
        }
        Ok(chosen)
    }

    fn judge(
        &self,
        view: &View,
        assembled: &Assembled,
        needed: &[bool],
        now_us: i64,
    ) -> FeatureQuality {
        let mut quality = FeatureQuality::default();
        for (column, feature) in view.stored_features().iter().enumerate() {
            let Some(origin) = assembled.origin(0, column).filter(|_| needed[column]) else {
                continue;
            };
            if matches!(origin.source, Source::Default | Source::Missing) {
                self.counters.missing(column);
                quality.missing.push(feature.name.clone());
            } else if let (Some(max_age), Some(as_of_us)) = (feature.max_age, origin.as_of_us)
                && now_us.saturating_sub(as_of_us) as u128 > max_age.as_micros()
            {
                self.counters.stale(column);
                quality.stale.push(feature.name.clone());
            }
            if origin.unknown {
                self.counters.unknown(column);
                quality.unknown.push(feature.name.clone());
            }
        }
        quality
    }
}

/// How a version is scored over `view`.
///
/// # Errors
/// Why it is not.
fn scoring_over<'a>(version: &'a ModelVersion, view: &View) -> Result<&'a Scoring, String> {
    match &version.scoring {
        Ok(scoring) if scoring.view.name == view.name => Ok(scoring),
        Ok(scoring) => Err(format!("it reads view {}", scoring.view.name)),
        Err(problems) => Err(problems.join("; ")),
    }
}

fn failed(version: &ModelVersion, problem: String) -> ScoreError {
    ScoreError::Model {
        name: version.name.clone(),
        version: version.version.clone(),
        problem,
    }
}

/// The ledger row of an answer: the values as served, where they came from, and every score.
fn record(
    view: &View,
    request: &ScoreRequest,
    assembled: &Assembled,
    needed: &[bool],
    answer: &ScoreAnswer,
    at_us: i64,
) -> ledger::Prediction {
    let mut features = Vec::with_capacity(needed.len());
    for (column, feature) in view
        .features()
        .iter()
        .enumerate()
        .filter(|(column, _)| needed[*column])
    {
        let origin = assembled.origin(0, column);
        let source = match origin.map(|origin| origin.source) {
            Some(Source::Stored) => ledger::FeatureSource::Stored,
            Some(Source::Override) => ledger::FeatureSource::Override,
            Some(Source::Default) => ledger::FeatureSource::Default,
            Some(Source::Missing) => ledger::FeatureSource::Missing,
            None => ledger::FeatureSource::Derived,
        };
        features.push(ledger::Feature {
            name: feature.name.clone(),
            value: match value_at(assembled.batch.column(column), 0) {
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
        customer_id: request.customer_id.clone(),
        at_us,
        view: view.name.clone(),
        view_digest: view.digest.to_vec().into(),
        features,
        scores: scores.collect(),
    }
}
