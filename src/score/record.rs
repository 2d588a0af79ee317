//! The ledger row of an answer: the values as they were served, where each came from, and every score with
//! its reasons.

use super::ScoreAnswer;
use super::assemble::{Assembled, Source};
use crate::features::column::value_at;
use crate::features::value::Value;
use crate::features::view::View;
use crate::ledger;

/// The feature values of an answer: those of one row.
pub(super) struct Served<'a> {
    pub(super) customer_id: &'a str,
    pub(super) assembled: &'a Assembled,
    pub(super) row: usize,
    pub(super) needed: &'a [bool],
    /// The number of the last change that went into them.
    pub(super) applied: u64,
}

/// The ledger row of an answer: the values as served, where they came from, and every score.
pub(super) fn record(
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
