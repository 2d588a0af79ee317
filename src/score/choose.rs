//! Which versions answer a request, and what one of them says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;

use super::assemble::Assembled;
use super::reasons::explain;
use super::{Prediction, ScoreError};
use crate::features::view::View;
use crate::models::catalog::{Catalog, Chosen};
use crate::models::comparison::canary::Side;
use crate::models::scoring::Scoring;
use crate::models::version::ModelVersion;

/// The versions to run for the customer of that key, each of which binds to `view`: of the `models` that
/// are named, or of all that bind. They are held by the request: a version that is replaced meanwhile goes
/// on to answer it.
///
/// # Errors
/// A model that is unknown, not ready or not of this view; [`ScoreError::Replacing`] when a version is
/// bound to another definition of the view.
pub fn choose_models(
    catalog: &Catalog,
    models: Option<&[String]>,
    key: &str,
    view: &View,
) -> Result<Vec<Chosen>, ScoreError> {
    let Some(names) = models else {
        let answering = catalog.answering();
        let mut chosen = Vec::with_capacity(answering.len());
        for versions in answering.iter().filter_map(|model| model.for_customer(key)) {
            if let Ok(versions) = bound_over(versions, view)? {
                chosen.push(versions);
            }
        }
        return if chosen.is_empty() {
            Err(ScoreError::NoModels)
        } else {
            Ok(chosen)
        };
    };
    let mut chosen = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let versions = catalog
            .for_customer(name, key)
            .map_err(|problem| ScoreError::UnknownModel { index, problem })?;
        let bound = bound_over(versions, view)?;
        chosen.push(bound.map_err(|unbound| ScoreError::Unbound {
            index,
            name: unbound.version.name.clone(),
            version: unbound.version.version.clone(),
            problems: unbound.problems,
        })?);
    }
    Ok(chosen)
}

/// A version that does not bind to the view of the request.
struct Unbound {
    version: Arc<ModelVersion>,
    problems: String,
}

/// What was chosen, if the champion binds to `view`. A canary that does not is passed over, which
/// counts as its failure.
///
/// # Errors
/// [`ScoreError::Replacing`] when a version is bound to another definition of the view.
fn bound_over(chosen: Chosen, view: &View) -> Result<Result<Chosen, Unbound>, ScoreError> {
    let champion = chosen.fallback.as_ref().unwrap_or(&chosen.version);
    if is_of_another_view(champion, view) || is_of_another_view(&chosen.version, view) {
        return Err(ScoreError::Replacing);
    }
    if let Err(problems) = scoring_over(champion, view) {
        return Ok(Err(Unbound {
            version: Arc::clone(champion),
            problems,
        }));
    }
    let Err(problems) = scoring_over(&chosen.version, view) else {
        return Ok(Ok(chosen));
    };
    let scores = &chosen.version.statistics.scores;
    scores.failed(&problems, Duration::ZERO);
    if let Some(watch) = &chosen.watch {
        watch.failure(Side::Canary, &problems);
    }
    Ok(Ok(Chosen {
        version: Arc::clone(champion),
        fallback: None,
        shadows: None,
        watch: chosen.watch,
    }))
}

/// Marks the features that a version reads.
///
/// # Errors
/// When it is not bound to the view.
pub fn need(needed: &mut [bool], version: &ModelVersion, view: &View) -> Result<(), ScoreError> {
    let scoring = scoring_over(version, view).map_err(|problem| failed(version, problem))?;
    for &column in &scoring.features {
        needed[column] = true;
    }
    Ok(())
}

/// What one version says of the assembled row.
///
/// # Errors
/// Why it says nothing.
pub fn predict(
    version: &Arc<ModelVersion>,
    view: &View,
    assembled: &Assembled,
    explain_limit: Option<usize>,
) -> Result<Prediction, String> {
    let scoring = scoring_over(version, view)?;
    let mut rows = scoring.score(&version.graph, &assembled.batch)?;
    let scored = rows.pop().ok_or("gave no score")?;
    if !scored.score.is_finite() {
        return Err(format!("the score is {}, not a number", scored.score));
    }
    let mut scored_at = None;
    let reasons = match explain_limit {
        Some(limit) if limit > 0 => {
            scored_at = Some(Instant::now());
            let columns = assembled.batch.columns();
            explain(scoring, &version.graph, columns, &scored, limit)?
        }
        _ => None,
    };
    Ok(Prediction {
        version: Arc::clone(version),
        scored,
        reasons,
        scored_at,
    })
}

/// What one version says of every row of `batch`, counted as its answers and failures.
pub fn predict_rows(
    version: &Arc<ModelVersion>,
    view: &View,
    batch: &RecordBatch,
    explain_limit: Option<usize>,
) -> Vec<Result<Prediction, String>> {
    let rows = batch.num_rows();
    let began = Instant::now();
    let mut told: Vec<Result<Prediction, String>> = Vec::with_capacity(rows);
    // Ranges that are still to be scored, the first on top.
    let mut ranges = vec![(0, rows)];
    while let Some((start, length)) = ranges.pop() {
        if length == 0 {
            continue;
        }
        let slice = batch.slice(start, length);
        let scored = scoring_over(version, view).and_then(|scoring| {
            let scored = scoring.score(&version.graph, &slice)?;
            Ok((scoring, scored))
        });
        match scored {
            Ok((scoring, scored)) if scored.len() == length => {
                for (row, scored) in scored.into_iter().enumerate() {
                    if !scored.score.is_finite() {
                        let score = scored.score;
                        told.push(Err(format!("the score is {score}, not a number")));
                        continue;
                    }
                    let reasons = match explain_limit {
                        Some(limit) if limit > 0 => {
                            let one = slice.slice(row, 1);
                            explain(scoring, &version.graph, one.columns(), &scored, limit)
                        }
                        _ => Ok(None),
                    };
                    told.push(reasons.map(|reasons| Prediction {
                        version: Arc::clone(version),
                        scored,
                        reasons,
                        scored_at: None,
                    }));
                }
            }
            _ if length > 1 => {
                let half = length / 2;
                ranges.push((start + half, length - half));
                ranges.push((start, half));
            }
            Ok(_) => told.push(Err("gave no score".to_owned())),
            Err(problem) => told.push(Err(problem)),
        }
    }
    let took = began.elapsed() / u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
    for told in &told {
        match told {
            Ok(_) => version.statistics.scores.answered(took),
            Err(problem) => version.statistics.scores.failed(problem, took),
        }
    }
    told
}

/// That a version says nothing, and why.
pub fn failed(version: &ModelVersion, problem: String) -> ScoreError {
    ScoreError::Model {
        name: version.name.clone(),
        version: version.version.clone(),
        problem,
    }
}

/// Whether a version is bound to another definition of `view`, whose columns may be others.
fn is_of_another_view(version: &ModelVersion, view: &View) -> bool {
    let scoring = version.scoring.as_ref();
    scoring
        .is_ok_and(|scoring| scoring.view.name == view.name && scoring.view.digest != view.digest)
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
