//! Loading a table into the online store.
//!
//! Columns are matched to features by name, ignoring case and underscores, so that
//! `SeniorCitizen` is `senior_citizen`. Every column must be matched or ignored by name: nothing
//! is dropped silently. A row with a value that does not fit its feature is rejected with its
//! line and reason; the others are written.
//!
//! A table may say since when its values hold and when they were learned, for history; otherwise both is
//! when it is loaded.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;

use super::times::{KnownAt, Times};
use crate::features::change::{Change, KEY_SEPARATOR, ProfileUpdate, What};
use crate::features::column::value_at;
use crate::features::value::{FeatureType, Value};
use crate::features::view::{Role, View, suggestion};
use crate::ingest::Ingest;
use crate::store::entity::named_value;

/// Where each column of a table goes.
#[derive(Debug)]
pub struct ColumnMap {
    /// Columns of the table, in the order of the view's key columns.
    keys: Vec<usize>,
    /// Column of the table, feature of the view.
    features: Vec<(usize, usize)>,
    occurred_at: Option<usize>,
    known_at: KnownAtColumn,
}

/// Which columns of a table are times.
#[derive(Debug, Clone, Default)]
pub struct TimeColumns {
    /// Since when the values of a row hold; since it is loaded when left out.
    pub occurred_at: Option<String>,
    pub known_at: KnownAt,
}

#[derive(Debug)]
enum KnownAtColumn {
    Now,
    Occurred,
    Column(usize),
}

/// A row that was not written.
#[derive(Debug, Clone)]
pub struct RejectedRow {
    /// 1-based number of the row among the data rows.
    pub row: u64,
    pub reason: String,
}

impl ColumnMap {
    /// Matches the table's columns to the view's key and stored features.
    ///
    /// # Errors
    /// No key column, a column that matches nothing and is not in `ignored`, two columns for one
    /// feature, or no column of times that is asked for.
    pub fn new(
        schema: &Schema,
        view: &View,
        ignored: &[String],
        times: &TimeColumns,
    ) -> Result<ColumnMap, String> {
        let find = |option: &str, name: &String| {
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let found = names().position(|known| known == name);
            found.ok_or_else(|| {
                let like = suggestion(name, names());
                format!("{option}: the table has no column {name:?}{like}")
            })
        };
        let occurred_at = times.occurred_at.as_ref();
        let occurred_at = occurred_at
            .map(|name| find("--occurred-at", name))
            .transpose()?;
        let known_at = match &times.known_at {
            KnownAt::Now => KnownAtColumn::Now,
            KnownAt::Occurred if occurred_at.is_none() => {
                return Err(
                    "--known-at occurred: say with --occurred-at COLUMN when that was".to_owned(),
                );
            }
            KnownAt::Occurred => KnownAtColumn::Occurred,
            KnownAt::Column(name) => KnownAtColumn::Column(find("--known-at", name)?),
        };
        let is_time = |column: usize| {
            occurred_at == Some(column)
                || matches!(known_at, KnownAtColumn::Column(known_at) if known_at == column)
        };
        let mut keys: Vec<Option<usize>> = vec![None; view.key_columns().len()];
        let mut features: Vec<(usize, usize)> = Vec::new();
        let mut unmatched = Vec::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            if ignored.contains(name) || is_time(column) {
                continue;
            }
            let plain = plain_name(name);
            let mut parts = view.key_columns().iter();
            if let Some(part) = parts.position(|part| plain_name(part) == plain) {
                keys[part] = Some(column);
                continue;
            }
            let found = view
                .features()
                .iter()
                .position(|f| plain_name(&f.name) == plain);
            match found {
                Some(feature) if view.features()[feature].role != Role::Stored => {
                    return Err(format!(
                        "column {name:?}: it is {} and cannot be stored; add --ignore {name}",
                        view.features()[feature].role.as_phrase()
                    ));
                }
                Some(feature) if features.iter().any(|(_, taken)| *taken == feature) => {
                    let feature = &view.features()[feature].name;
                    return Err(format!(
                        "column {name:?}: feature {feature} has a column already"
                    ));
                }
                Some(feature) => features.push((column, feature)),
                None => {
                    let names = view.features().iter().map(|f| f.name.as_str());
                    unmatched.push(format!("{name}{}", suggestion(name, names)));
                }
            }
        }
        if !unmatched.is_empty() {
            return Err(format!(
                "columns that are no feature of view {}: {}; rename them or add --ignore COLUMN for each",
                view.name,
                unmatched.join(", ")
            ));
        }
        let found: Vec<usize> = keys.iter().flatten().copied().collect();
        if let Some(part) = keys.iter().position(Option::is_none) {
            let name = &view.key_columns()[part];
            return Err(format!("no key column; expected one called {name}"));
        }
        Ok(ColumnMap {
            keys: found,
            features,
            occurred_at,
            known_at,
        })
    }

    /// The rows of `batch` as updates, as of `now_us` unless the table says otherwise; `first_row` is the
    /// 1-based number of its first row. Rows that do not fit are put into `rejected`.
    ///
    /// # Errors
    /// When a column cannot be read as its feature's type at all.
    pub fn updates(
        &self,
        batch: &RecordBatch,
        view: &View,
        now_us: i64,
        first_row: u64,
        rejected: &mut Vec<RejectedRow>,
    ) -> Result<Vec<Change>, String> {
        let times = |column: usize| {
            let name = batch.schema_ref().field(column).name();
            Times::new(name, batch.column(column))
        };
        let occurred_at = self.occurred_at.map(times).transpose()?;
        let known_at = match self.known_at {
            KnownAtColumn::Now | KnownAtColumn::Occurred => None,
            KnownAtColumn::Column(column) => Some(times(column)?),
        };
        let as_text = |column: usize| {
            let name = batch.schema_ref().field(column).name().clone();
            cast(batch.column(column), &DataType::Utf8).map_err(|e| format!("column {name:?}: {e}"))
        };
        let keys: Vec<ArrayRef> = self
            .keys
            .iter()
            .map(|&column| as_text(column))
            .collect::<Result<_, _>>()?;
        let mut readers = Vec::with_capacity(self.features.len());
        for &(column, feature) in &self.features {
            let kind = view.features()[feature].kind;
            let array = batch.column(column);
            let reader = if widens(array.data_type(), kind) {
                cast(array, &kind.arrow()).map_err(|error| error.to_string())?
            } else {
                as_text(column)?
            };
            readers.push((reader, feature));
        }
        let mut updates = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let read = || {
                let at = |times: &Times| past(times, row, now_us);
                let as_of_us = occurred_at.as_ref().map_or(Ok(now_us), at)?;
                let mut update = read_row(&keys, &readers, view, row, as_of_us)?;
                update.known_at_us = match (&self.known_at, &known_at) {
                    (KnownAtColumn::Occurred, _) => Some(as_of_us),
                    (_, known_at) => known_at.as_ref().map(at).transpose()?,
                };
                Ok(update)
            };
            match read() {
                Ok(update) => updates.push(update),
                Err(reason) => rejected.push(RejectedRow {
                    row: first_row + row as u64,
                    reason,
                }),
            }
        }
        Ok(updates)
    }
}

/// The time in a row, which is not in the future.
fn past(times: &Times, row: usize, now_us: i64) -> Result<i64, String> {
    let time_us = times.at(row)?;
    if time_us > now_us {
        let time = crate::clock::to_rfc3339(time_us);
        return Err(format!("{}: {time} is in the future", times.name()));
    }
    Ok(time_us)
}

fn read_row(
    keys: &[ArrayRef],
    readers: &[(ArrayRef, usize)],
    view: &View,
    row: usize,
    as_of_us: i64,
) -> Result<Change, String> {
    let mut key = String::new();
    for (index, (column, name)) in keys.iter().zip(view.key_columns()).enumerate() {
        let part = column
            .as_string_opt::<i32>()
            .filter(|texts| texts.is_valid(row))
            .map(|texts| texts.value(row))
            .filter(|part| !part.is_empty())
            .ok_or_else(|| format!("{name}: missing"))?;
        if part.contains(KEY_SEPARATOR) {
            return Err(format!("{name}: holds control characters"));
        }
        if index > 0 {
            key.push(KEY_SEPARATOR);
        }
        key.push_str(part);
    }
    let mut features = Vec::with_capacity(readers.len());
    for (array, index) in readers {
        let feature = &view.features()[*index];
        let value = match (value_at(array, row), feature.kind) {
            (Value::String(text), kind) => Value::from_text(&text, kind)
                .map_err(|problem| format!("{}: {problem}", feature.name))?,
            (Value::Float64(float), _) if !float.is_finite() => Value::Null,
            (value, _) => value,
        };
        feature.check(&value).map_err(|error| error.to_string())?;
        features.push(named_value(&feature.name, &value));
    }
    let update = ProfileUpdate {
        view: view.name.clone(),
        key,
        occurred_at_us: as_of_us,
        features,
    };
    Ok(Change {
        known_at_us: None,
        what: Some(What::Update(update)),
    })
}

/// Whether Arrow's cast from `from` keeps every value of the column exactly.
pub(super) fn widens(from: &DataType, to: FeatureType) -> bool {
    use DataType::{Boolean, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
    match to {
        FeatureType::Int64 => {
            matches!(from, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32)
        }
        FeatureType::Float64 => {
            matches!(
                from,
                Float32 | Float64 | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32
            )
        }
        FeatureType::Bool => from == &Boolean,
        FeatureType::String => false,
    }
}

/// A name without what spellings differ in: case, underscores and spaces.
pub(super) fn plain_name(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_' && *c != ' ')
        .flat_map(char::to_lowercase)
        .collect()
}

/// Writes the rows of `batch` and returns how many were written.
///
/// # Errors
/// When a column cannot be read or the store fails; earlier batches stay written.
pub async fn push_batch(
    ingest: &Ingest,
    view: &View,
    map: &ColumnMap,
    batch: &RecordBatch,
    first_row: u64,
    rejected: &mut Vec<RejectedRow>,
) -> Result<u64, String> {
    let updates = map.updates(batch, view, crate::clock::now_us(), first_row, rejected)?;
    let written = updates.len() as u64;
    ingest
        .submit(updates)
        .await
        .map_err(|error| error.to_string())?;
    Ok(written)
}
