//! What an affinity model chooses from: a label for every column of its output, and perhaps a rule in
//! SQL over the view that takes the choice away from a row.

use std::cell::OnceCell;

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;

use super::Picked;
use crate::features::expression::Expression;
use crate::features::value::FeatureType;
use crate::features::view::View;
use crate::models::manifest::Manifest;

#[derive(Debug)]
pub(super) struct BoundChoice {
    pub(super) label: String,
    pub(super) unless: Option<Expression>,
}

/// The choices of a manifest; what is wrong with their rules goes to `problems`.
pub(super) fn bind_choices(
    manifest: Option<&Manifest>,
    view: &View,
    problems: &mut Vec<String>,
) -> Vec<BoundChoice> {
    let mut choices = Vec::new();
    for choice in manifest.into_iter().flat_map(|manifest| &manifest.choice) {
        let unless = choice.unless.as_ref().and_then(|sql| {
            let data_type = FeatureType::Bool.arrow();
            Expression::compile(sql, view.schema(), &data_type)
                .map_err(|problem| {
                    problems.push(format!(
                        "choice {}: unless {sql:?}: {problem}",
                        choice.label
                    ));
                })
                .ok()
        });
        choices.push(BoundChoice {
            label: choice.label.clone(),
            unless,
        });
    }
    choices
}

/// The best choice that is left of each row, and its score: 0 where none is left. `scores` has the view's
/// rows of `batch`, each with a score for every choice.
pub(super) fn best_left(choices: &[BoundChoice], scores: &[f64], batch: &RecordBatch) -> Picked {
    let (rows, width) = (batch.num_rows(), choices.len());
    // A rule is evaluated when the first row needs it: one row rarely gets beyond its second
    // choice, and for many rows every rule still runs once over all of them.
    let excluded: Vec<OnceCell<Option<BooleanArray>>> = vec![OnceCell::new(); width];
    let is_left = |row: usize, column: usize| {
        let unless = &choices[column].unless;
        let flags =
            excluded[column].get_or_init(|| unless.as_ref().map(|unless| unless.holds(batch)));
        flags.as_ref().is_none_or(|flags| !flags.value(row))
    };
    let mut was_tried = vec![false; width];
    let mut picked = Picked {
        scores: Vec::with_capacity(rows),
        choices: Vec::with_capacity(rows),
    };
    for (row, scores) in scores.chunks_exact(width).enumerate() {
        was_tried.fill(false);
        let mut chosen = None;
        while let Some(column) = best_of(scores, &was_tried) {
            if is_left(row, column) {
                chosen = Some(column);
                break;
            }
            was_tried[column] = true;
        }
        picked
            .scores
            .push(chosen.map_or(0.0, |column| scores[column]));
        picked.choices.push(chosen);
    }
    picked
}

/// The largest score that was not tried; of equal ones the first.
fn best_of(scores: &[f64], was_tried: &[bool]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for column in (0..scores.len()).filter(|column| !was_tried[*column]) {
        if best.is_none_or(|best| scores[column].total_cmp(&scores[best]).is_gt()) {
            best = Some(column);
        }
    }
    best
}
