//! What a score of each of many entities would read of the store: their values as columns.
//!
//! The same functions as for one entity find the values, so that [`assemble_columns`] makes of these columns
//! the batch that `/v1/score` makes at the same time.
//!
//! [`assemble_columns`]: super::assemble::assemble_columns

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::nullif;
use serde::{Deserialize, Serialize};

use super::ScoreError;
use super::assemble::{Assembled, RowInput, Source, assemble};
use super::related::{Related, Wanted};
use crate::features::value::Value;
use crate::features::view::{Role, View};
use crate::store::{OnlineStore, Snapshot};

/// Related entities that are read in one round trip, each of which is to end within the time of a read.
const RELATED_AT_ONCE: usize = 512;

/// The values of many entities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// By column of the view; null where a value is missing, and its default would be used. None of
    /// request and derived features, and of those that were not needed.
    pub columns: Vec<Option<ArrayRef>>,
    /// By column of the view.
    pub notes: Vec<Notes>,
}

/// How many values of a column are unusual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Not among the declared ones.
    pub unknown: u64,
    pub out_of_range: u64,
    /// Older than the feature's `max_age`.
    pub stale: u64,
}

/// The values of `entities` at `at_us` for the columns marked in `needed`, which are closed over their
/// inputs.
///
/// # Errors
/// When the store fails.
pub async fn given_of(
    store: &dyn OnlineStore,
    view: &View,
    entities: &[(String, Snapshot)],
    needed: &[bool],
    at_us: i64,
) -> Result<Given, ScoreError> {
    let context: Vec<(usize, Value)> = view.request_time(at_us).collect();
    let rows: Vec<RowInput<'_>> = entities
        .iter()
        .map(|(key, snapshot)| RowInput {
            key,
            profile: Some(&snapshot.profile),
            overrides: &[],
            context: &context,
            windows: &snapshot.windows,
        })
        .collect();
    let wanted = Wanted::of(view, &rows, needed);
    let related = match wanted.is_empty() {
        true => Related::default(),
        false => {
            let mut found = Vec::new();
            for some in wanted.entities().chunks(RELATED_AT_ONCE) {
                found.extend(store.read(some, at_us).await?);
            }
            wanted.assemble(view, &found, at_us)?
        }
    };
    // Derived features are computed by whoever scores.
    let derived = view.derived_columns().start;
    let given = |column: usize| needed[column] && column < derived;
    let only_given: Vec<bool> = (0..needed.len()).map(given).collect();
    let assembled = assemble(view, &rows, &related, &only_given)?;
    let mut found = Given {
        columns: vec![None; needed.len()],
        notes: vec![Notes::default(); needed.len()],
    };
    for column in (0..derived).filter(|column| needed[*column]) {
        if view.features()[column].role == Role::Request {
            continue;
        }
        found.notes[column] = notes(view, &assembled, column, at_us);
        found.columns[column] = Some(without_defaults(&assembled, column)?);
    }
    Ok(found)
}

fn notes(view: &View, assembled: &Assembled, column: usize, at_us: i64) -> Notes {
    let feature = &view.features()[column];
    let mut notes = Notes::default();
    for row in 0..assembled.batch.num_rows() {
        let Some(origin) = assembled.origin(row, column) else {
            continue;
        };
        let is_missing = matches!(origin.source, Source::Default | Source::Missing);
        let age_us = origin
            .as_of_us
            .map(|as_of_us| at_us.saturating_sub(as_of_us));
        let is_stale = !is_missing && age_us.is_some_and(|age_us| feature.is_stale(age_us));
        notes.stale += u64::from(is_stale);
        notes.unknown += u64::from(origin.unknown);
        notes.out_of_range += u64::from(origin.out_of_range);
    }
    notes
}

fn without_defaults(
    assembled: &Assembled,
    column: usize,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let array = assembled.batch.column(column);
    let is_default = |row| {
        let origin = assembled.origin(row, column);
        origin.is_some_and(|origin| origin.source == Source::Default)
    };
    let rows = 0..assembled.batch.num_rows();
    let defaults: BooleanArray = rows.map(|row| Some(is_default(row))).collect();
    match defaults.true_count() {
        0 => Ok(Arc::clone(array)),
        _ => nullif(array, &defaults),
    }
}
