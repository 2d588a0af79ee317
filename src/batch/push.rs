//! Loading a table into the online store.
//!
//! Columns are matched to features by name, ignoring case and underscores, so that
//! `SeniorCitizen` is `senior_citizen`. Every column must be matched or ignored by name: nothing
//! is dropped silently. A row with a value that does not fit its feature is rejected with its
//! line and reason; the others are written.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;

use crate::features::value::{FeatureType, Value};
use crate::features::view::{View, suggestion};
use crate::score::assemble::value_at;
use crate::store::{OnlineStore, StoredValue, Update};

/// Where each column of a table goes.
#[derive(Debug)]
pub struct ColumnMap {
    key: usize,
    /// Column of the table, feature of the view.
    features: Vec<(usize, usize)>,
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
    /// No key column, a column that matches nothing and is not in `ignored`, or two columns for
    /// one feature.
    pub fn new(schema: &Schema, view: &View, ignored: &[String]) -> Result<ColumnMap, String> {
        let mut key = None;
        let mut features: Vec<(usize, usize)> = Vec::new();
        let mut unmatched = Vec::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            if ignored.contains(name) {
                continue;
            }
            let plain = plain_name(name);
            if plain == plain_name(&view.entity) {
                key = Some(column);
                continue;
            }
            let found = view
                .features()
                .iter()
                .position(|f| plain_name(&f.name) == plain);
            match found {
                Some(feature) if view.features()[feature].expression.is_some() => {
                    return Err(format!(
                        "column {name:?}: the feature is derived and cannot be stored; add --ignore {name}"
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
        let key =
            key.ok_or_else(|| format!("no key column; expected one called {}", view.entity))?;
        Ok(ColumnMap { key, features })
    }

    /// The rows of `batch` as updates as of `as_of_us`; `first_row` is the 1-based number of its
    /// first row. Rows that do not fit are put into `rejected`.
    ///
    /// # Errors
    /// When a column cannot be read as its feature's type at all.
    pub fn updates(
        &self,
        batch: &RecordBatch,
        view: &View,
        as_of_us: i64,
        first_row: u64,
        rejected: &mut Vec<RejectedRow>,
    ) -> Result<Vec<Update>, String> {
        let as_text = |column: usize| {
            let name = batch.schema_ref().field(column).name().clone();
            cast(batch.column(column), &DataType::Utf8).map_err(|e| format!("column {name:?}: {e}"))
        };
        let keys = as_text(self.key)?;
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
            match read_row(&keys, &readers, view, row, as_of_us) {
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

fn read_row(
    keys: &ArrayRef,
    readers: &[(ArrayRef, usize)],
    view: &View,
    row: usize,
    as_of_us: i64,
) -> Result<Update, String> {
    let key = keys
        .as_string_opt::<i32>()
        .filter(|keys| keys.is_valid(row))
        .map(|keys| keys.value(row));
    let key = key
        .filter(|key| !key.is_empty())
        .ok_or_else(|| format!("{}: missing", view.entity))?;
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
        features.push((feature.name.clone(), StoredValue { value, as_of_us }));
    }
    Ok(Update {
        key: key.to_owned(),
        features,
    })
}

/// Whether Arrow's cast from `from` keeps every value of the column exactly.
fn widens(from: &DataType, to: FeatureType) -> bool {
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

fn plain_name(name: &str) -> String {
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
    store: &dyn OnlineStore,
    view: &View,
    map: &ColumnMap,
    batch: &RecordBatch,
    first_row: u64,
    rejected: &mut Vec<RejectedRow>,
) -> Result<u64, String> {
    let updates = map.updates(batch, view, crate::clock::now_us(), first_row, rejected)?;
    let written = updates.len() as u64;
    store
        .update(&view.name, updates)
        .await
        .map_err(|error| error.to_string())?;
    Ok(written)
}
