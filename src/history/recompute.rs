//! Feature values from what was seen of entities, by the code that assembles for a score.

use arrow::record_batch::RecordBatch;

use super::error::HistoryError;
use crate::features::value::Value;
use crate::features::view::View;
use crate::score::assemble::{RowInput, assemble};
use crate::score::related::{Related, key_of};
use crate::store::Snapshot;

/// One row to assemble.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The entity's key.
    pub key: String,
    /// What was seen of it; `None` when nothing was known.
    pub seen: Option<Snapshot>,
    /// Values that take the place of what is known, by column.
    pub overrides: Vec<(usize, Value)>,
    /// Values of request features, by column; the time is added.
    pub context: Vec<(usize, Value)>,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Row {
    fn input<'a>(&'a self, context: &'a [(usize, Value)]) -> RowInput<'a> {
        let seen = self.seen.as_ref();
        RowInput {
            key: &self.key,
            profile: seen.map(|seen| &seen.profile),
            overrides: &self.overrides,
            context,
            windows: seen.map(|seen| &*seen.windows).unwrap_or_default(),
        }
    }
}

/// Assembles `rows`; only the columns marked in `wanted` and what they are computed from have values.
/// `related` is what was seen of the related entities, by relation and row; without relations it is
/// empty.
///
/// # Errors
/// When the view is at odds with itself, which loading excludes.
pub fn recompute(
    view: &View,
    rows: &[Row],
    related: &[Vec<Option<Snapshot>>],
    wanted: &[bool],
) -> Result<RecordBatch, HistoryError> {
    let at_odds = |error: arrow::error::ArrowError| HistoryError::Plan(error.to_string());
    let needed = closed(view, wanted);
    let contexts = contexts(view, rows);
    let inputs: Vec<RowInput<'_>> = rows
        .iter()
        .zip(&contexts)
        .map(|(row, context)| row.input(context))
        .collect();
    let times: Vec<i64> = rows.iter().map(|row| row.at_us).collect();
    let related = Related::of_rows(view, related, &times).map_err(at_odds)?;
    let assembled = assemble(view, &inputs, &related, &needed).map_err(at_odds)?;
    Ok(assembled.batch)
}

/// The keys of the entities that `rows` point to through relation number `relation`.
pub fn related_keys(view: &View, relation: usize, rows: &[Row]) -> Vec<Option<String>> {
    let relation = &view.relations()[relation];
    let contexts = contexts(view, rows);
    let keys = rows.iter().zip(&contexts);
    keys.map(|(row, context)| key_of(view, relation, &row.input(context)))
        .collect()
}

/// `wanted` and all that it is computed from.
pub fn closed(view: &View, wanted: &[bool]) -> Vec<bool> {
    let mut needed = wanted.to_vec();
    view.close_over_inputs(&mut needed);
    needed
}

/// What came with each row's request, and behind it the time.
fn contexts(view: &View, rows: &[Row]) -> Vec<Vec<(usize, Value)>> {
    let of = |row: &Row| {
        let mut context = row.context.clone();
        context.extend(view.request_time(row.at_us));
        context
    };
    rows.iter().map(of).collect()
}
