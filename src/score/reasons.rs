//! Reasons: how much each feature moved a score away from the reference customer's.
//!
//! The reference customer is the model's declared baseline. A feature's contribution is the raw
//! score of the baseline with only that feature's value taken from the customer, minus the raw
//! score of the baseline ("one feature at a time", also called marginal contribution). For a model
//! that is additive in its features, as every linear model is, these contributions are exact:
//! they are coefficient × (value − baseline value), and base + contributions is the raw score.
//! For other models the part that only combinations of features explain is put into `other`, so
//! that base + contributions + other is always the raw score.
//!
//! All variants are scored as one batch, so that reasons cost one run of the graph.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::error::ArrowError;

use crate::features::column::{to_array, value_at};
use crate::features::value::Value;
use crate::models::scoring::{Scored, Scoring};

/// Why one score is what it is; all numbers in the unit of the raw score.
#[derive(Debug, Clone, PartialEq)]
pub struct Reasons {
    /// The raw score of the reference customer.
    pub base: f64,
    /// The largest contributions, by absolute size, largest first.
    pub contributions: Vec<Contribution>,
    /// The raw score minus base minus the listed contributions.
    pub other: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    pub feature: String,
    pub value: Value,
    pub contribution: f64,
}

/// The reasons for `scored`, the answer for row 0 of `columns` (one row, the view's columns),
/// with at most `limit` contributions. `None` when there is no raw score to explain.
///
/// # Errors
/// A message when the variants cannot be built or scored.
pub fn explain(
    scoring: &Scoring,
    graph: &onnx_ml::Model,
    columns: &[ArrayRef],
    scored: &Scored,
    limit: usize,
) -> Result<Option<Reasons>, String> {
    let Some(raw) = scored.raw else {
        return Ok(None);
    };
    let variants = variants(scoring, columns).map_err(|error| error.to_string())?;
    let varied = &scoring.input_features;
    let raws = scoring.score_raw(graph, &variants, varied.len() + 1, scored.choice)?;
    let base = raws[0];
    let mut contributions: Vec<Contribution> = varied
        .iter()
        .zip(&raws[1..])
        .map(|(&column, variant)| Contribution {
            feature: scoring.view.features()[column].name.clone(),
            value: value_at(&columns[column], 0),
            contribution: variant - base,
        })
        .collect();
    // Equal sizes keep the order of the view, so that the answer is the same every time.
    contributions
        .sort_by(|left, right| right.contribution.abs().total_cmp(&left.contribution.abs()));
    contributions.truncate(limit);
    let listed: f64 = contributions.iter().map(|reason| reason.contribution).sum();
    Ok(Some(Reasons {
        base,
        contributions,
        other: raw - base - listed,
    }))
}

/// Row 0 is the baseline; row 1 + i is the baseline with the i-th input feature of the customer.
fn variants(scoring: &Scoring, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, ArrowError> {
    let rows = scoring.input_features.len() + 1;
    let all_baseline = UInt32Array::from(vec![1; rows]);
    let mut variants = Vec::with_capacity(columns.len());
    for (column, feature) in scoring.view.features().iter().enumerate() {
        let position = scoring
            .input_features
            .iter()
            .position(|&input| input == column);
        let baseline = to_array(feature.kind, &[&scoring.baseline[column]]);
        let both = concat(&[&columns[column] as &dyn Array, &baseline as &dyn Array])?;
        let picked = match position {
            Some(position) => {
                let mut picks = vec![1; rows];
                picks[position + 1] = 0;
                take(&both, &UInt32Array::from(picks), None)?
            }
            None => take(&both, &all_baseline, None)?,
        };
        variants.push(Arc::clone(&picked));
    }
    Ok(variants)
}
