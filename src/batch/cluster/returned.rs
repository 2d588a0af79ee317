//! Rows as they come back from a cluster: scored, or rejected with the reason.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{filter, is_null};
use arrow::record_batch::RecordBatch;

use crate::batch::score::plan::Plan;
use crate::batch::score::rows::Scored;
use crate::batch::score::source::Position;
use crate::batch::score::statistics::Statistics;
use crate::batch::score::table::{Reject, batch_of};

/// Reads what `predict` gave for some rows, the only column of `batch`. `names` has what each file is called
/// here, by what it is called there.
///
/// # Errors
/// When it is not what the function gives.
pub fn read(
    plan: &Plan,
    names: &HashMap<String, String>,
    batch: &RecordBatch,
) -> Result<Scored, String> {
    let unexpected = || "the cluster answered with other columns than were asked for".to_owned();
    let failed = |error: arrow::error::ArrowError| error.to_string();
    let rows = batch.columns().first().ok_or_else(unexpected)?;
    let rows = rows.as_struct_opt().ok_or_else(unexpected)?;
    let width = plan.schema.fields().len();
    let [output @ .., rejected, counts] = rows.columns() else {
        return Err(unexpected());
    };
    if output.len() != width {
        return Err(unexpected());
    }
    let rejected = rejected.as_string_opt::<i32>().ok_or_else(unexpected)?;
    let counts = counts.as_string_opt::<i32>().ok_or_else(unexpected)?;

    let mut statistics = Statistics::new(plan);
    for text in counts.iter().flatten() {
        let counts: Statistics = serde_json::from_str(text).map_err(|error| error.to_string())?;
        statistics.merge(&counts);
    }
    let mut rejects: Vec<Reject> = Vec::new();
    let mut blank = 0;
    for text in rejected.iter().flatten() {
        if text.is_empty() {
            blank += 1;
            continue;
        }
        let mut reject: Reject = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if let Some(name) = names.get(&reject.file) {
            reject.file.clone_from(name);
        }
        rejects.push(reject);
    }
    let is_scored: BooleanArray = is_null(rejected).map_err(failed)?;
    let mut columns = Vec::with_capacity(width);
    for column in output {
        columns.push(match rejected.null_count() == rejected.len() {
            true => Arc::clone(column),
            false => filter(column, &is_scored).map_err(failed)?,
        });
    }
    let read = rows.len() - blank;
    Ok(Scored {
        rows: read as u64,
        end: Position::default(),
        batch: batch_of(&plan.schema, columns, read - rejects.len())?,
        rejects,
        statistics,
    })
}
