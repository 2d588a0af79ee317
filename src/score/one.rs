//! A score of one customer, from its profile to its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assemble::{Assembled, RowInput, assemble};
use super::choose::{failed, need, predict};
use super::quality::judge;
use super::record::{Served, record};
use super::related::{Related, Wanted};
use super::shadow::{Served as ServedScore, ShadowJob};
use super::{Prediction, ScoreAnswer, ScoreError, ScoreRequest, Scorer};
use crate::clock;
use crate::features::value::shorten;
use crate::features::view::View;
use crate::models::comparison::canary::Side;
use crate::models::version::ModelVersion;
use crate::store::{OnlineStore, Snapshot, read_one};

impl Scorer {
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
            customer_id: shorten(&request.customer_id, 128),
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
