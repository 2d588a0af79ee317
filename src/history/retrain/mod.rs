//! A new candidate version of a model from what was served and what came of it.
//!
//! The predictions of the ledgers that are old enough to have a label are put in the order of time
//! and split there: the model is fitted on the earlier three quarters and judged, beside the
//! champion, on the last one. Both are run on the values that were served. The result is written as
//! the next version of the model, as a candidate: it is loaded, and answers only when it is named.
//!
//! Only binary models are fitted, by logistic regression on the features that the champion reads;
//! see `bellwether_training::candidate`. The same ledgers, champion and moment give the same files.
//!
//! * [`collect`] – the rows: from the ledgers to a table, in the order of time.
//! * [`report`] – `report.json` and `report.md`.
//! * [`write`](mod@write) – the version folder, checked before it gets its name.

pub mod collect;
pub mod report;
pub mod write;

use std::path::Path;

use bellwether_training::candidate::{self, HoldoutRows, LabelledRows};

use self::collect::{Collected, Rows, collect};
use self::report::{Report, SplitReport};
use super::labelled::{Question, labelled_champion};
use super::outcomes::LabelRule;
use crate::clock;
use crate::features::views::Views;
use crate::models::manifest::TaskKind;
use crate::models::repository::Repository;

/// Rows that are needed when nothing else is said.
pub const DEFAULT_MIN_ROWS: usize = 200;
/// Rows of each class that are needed to fit, and to compare.
const LEAST_TO_FIT: usize = 10;
const LEAST_TO_COMPARE: usize = 5;

/// What to say when there is not enough to learn from.
const WHAT_TO_DO: &str = "wait until more predictions are mature, or name the ledgers of further \
                          replicas with --data-dir";

/// The part of the rows that is held out: the last quarter.
const HOLDOUT_PARTS: usize = 4;

/// Fits a candidate version of the model that `question` names and writes it into `models`.
///
/// # Errors
/// There is no champion, it is not a binary model or has no label; there are too few rows, or too
/// few of one class; a ledger cannot be read or the folder not written. Nothing is left behind then.
pub fn retrain(
    question: &Question,
    min_rows: usize,
    models: &Path,
    views: &Views,
    repository: &Repository,
) -> Result<Report, String> {
    let name = &question.model;
    let catalog = repository.catalog();
    let (champion, label) = labelled_champion(&catalog, name)?;
    let scoring = champion.scoring.as_ref().map_err(|problems| {
        let version = &champion.version;
        format!("model {name} version {version}: {}", problems.join("; "))
    })?;
    if scoring.task != TaskKind::Binary {
        return Err(format!(
            "model {name} version {}: its task is {}; only binary models can be trained from the \
             ledger",
            champion.version,
            match scoring.task {
                TaskKind::Affinity => "affinity",
                _ => "regression",
            }
        ));
    }
    let rule = LabelRule::new(label);
    let collected = collect(question, &rule, champion, scoring)?;
    check_enough(&collected, min_rows)?;

    let Collected { rows, .. } = &collected;
    let cut = holdout_start(&rows.at_us).ok_or_else(|| {
        format!("the predictions cannot be split by time: all but a few were made at one moment; {WHAT_TO_DO}")
    })?;
    let (training, holdout) = (0..cut, cut..rows.len());
    check_classes("training", &rows.labels[training.clone()], LEAST_TO_FIT)?;
    check_classes("hold-out", &rows.labels[holdout.clone()], LEAST_TO_COMPARE)?;
    let split = SplitReport::new(rows, cut, &rule);
    let holdout_rows = HoldoutRows {
        rows: part(rows, holdout.clone()),
        customers: rows.customers[holdout.clone()].to_vec(),
        champion_scores: rows.champion_scores[holdout].to_vec(),
    };
    let label_report = report::LabelReport::new(label);
    let description = label_report.description();
    let candidate = candidate::fit(name, &description, &part(rows, training), &holdout_rows)
        .map_err(|error| error.to_string())?;

    let version = write::next_version(models, name)?;
    let mut report = Report {
        model: name.clone(),
        version,
        champion: champion.version.clone(),
        method: format!(
            "Logistic regression (L2 penalty 1) on the {} features that version {} reads, as they \
             were served.",
            candidate.inputs.len(),
            champion.version
        ),
        ledgers: question.data_dirs.len(),
        as_of: clock::to_rfc3339(question.as_of_us),
        since: question.since_us.map(clock::to_rfc3339),
        label: label_report,
        predictions: collected.counts,
        incomplete: collected.incomplete.clone(),
        split,
        comparison: candidate.comparison.clone(),
        reproduced: collected.reproduced,
        features: Vec::new(),
        notes: Vec::new(),
        folder: Default::default(),
    };
    report.features = collected.features_of(&candidate.inputs);
    report.notes = report::notes(&report, &collected, &candidate);
    report.folder = write::write(
        &report,
        &candidate,
        &collected.inputs,
        champion,
        models,
        views,
    )?;
    Ok(report)
}

/// Where the hold-out begins: the rows from the moment on at which the last quarter of them begins.
/// Rows of one moment stay together. Nothing when none would be left to fit on.
fn holdout_start(at_us: &[i64]) -> Option<usize> {
    let first = at_us.get(at_us.len() - at_us.len() / HOLDOUT_PARTS)?;
    let start = at_us.partition_point(|at| at < first);
    (start > 0).then_some(start)
}

fn part(rows: &Rows, range: std::ops::Range<usize>) -> LabelledRows {
    let positions: Vec<usize> = range.clone().collect();
    LabelledRows {
        features: rows.features.select(&positions),
        labels: rows.labels[range].to_vec(),
    }
}

fn check_enough(collected: &Collected, min_rows: usize) -> Result<(), String> {
    let found = collected.rows.len();
    if found >= min_rows.max(HOLDOUT_PARTS) {
        return Ok(());
    }
    let counts = &collected.counts;
    let mut problem = format!(
        "there are {found} mature predictions to learn from, expected at least {} (--min-rows); of \
         {} predictions {} are too young",
        min_rows.max(HOLDOUT_PARTS),
        counts.predictions,
        counts.unmatured
    );
    if let Some(incomplete) = &collected.incomplete {
        problem.push_str(&format!(
            ", and {} were served without a feature that is needed ({})",
            incomplete.predictions, incomplete.feature
        ));
    }
    Err(format!("{problem}; {WHAT_TO_DO}"))
}

fn check_classes(part: &str, labels: &[bool], least: usize) -> Result<(), String> {
    let positives = labels.iter().filter(|label| **label).count();
    let negatives = labels.len() - positives;
    for (count, class) in [(positives, "positive"), (negatives, "negative")] {
        if count < least {
            return Err(format!(
                "{count} of the {} {part} rows are {class}, expected at least {least}; {WHAT_TO_DO}",
                labels.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_quarter_of_time_is_held_out_and_one_moment_is_not_split() {
        let rising: Vec<i64> = (0..100).collect();
        assert_eq!(holdout_start(&rising), Some(75));
        assert_eq!(holdout_start(&[1, 2, 3, 4]), Some(3));
        // The moment at which the last quarter begins began earlier.
        assert_eq!(holdout_start(&[1, 2, 3, 3, 3, 3, 3, 4]), Some(2));
        for at_us in [vec![], vec![1, 2, 3], vec![5; 100]] {
            assert_eq!(holdout_start(&at_us), None, "{at_us:?}");
        }
    }

    #[test]
    fn too_few_of_a_class_are_refused_with_the_number() {
        let labels = [vec![true; 3], vec![false; 97]].concat();
        let problem = check_classes("training", &labels, 10).unwrap_err();
        assert!(
            problem.starts_with("3 of the 100 training rows are positive, expected at least 10"),
            "{problem}"
        );
        let problem = check_classes("hold-out", &[true; 20], 5).unwrap_err();
        assert!(
            problem.starts_with("0 of the 20 hold-out rows are negative"),
            "{problem}"
        );
        check_classes("hold-out", &labels, 3).unwrap();
    }
}
