//! From stored profiles and request overrides to one Arrow batch of the view's schema.
//!
//! For every stored feature of every row: the request's override, else the stored value, else the
//! declared default, else null. Derived features are then computed on the batch. Where each value
//! came from and how old it is stays with the batch, because the ledger records it.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use crate::features::value::{FeatureType, Value};
use crate::features::view::{Feature, View};
use crate::store::Profile;

/// What is known of one row before assembly.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowInput<'a> {
    pub profile: Option<&'a Profile>,
    /// Checked values by column, replacing what is stored.
    pub overrides: &'a [(usize, Value)],
}

/// Where a served value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stored,
    Override,
    Default,
    Missing,
}

/// The origin of one served value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: Source,
    /// When a stored value was written, microseconds since the Unix epoch.
    pub as_of_us: Option<i64>,
    /// The value is not among those the feature declares.
    pub unknown: bool,
}

/// An assembled batch: every feature of the view, and the origin of the stored ones.
#[derive(Debug)]
pub struct Assembled {
    pub batch: RecordBatch,
    stored: usize,
    origins: Vec<Origin>,
}

impl Assembled {
    /// The origin of the value in `row` and `column`; `None` for a derived feature.
    pub fn origin(&self, row: usize, column: usize) -> Option<&Origin> {
        if column >= self.stored {
            return None;
        }
        self.origins.get(column * self.batch.num_rows() + row)
    }
}

/// Assembles `rows`; derived features are computed only where `needed` (by column) is true.
///
/// # Errors
/// Only when the view's schema is at odds with its own features, which loading excludes.
pub fn assemble(
    view: &View,
    rows: &[RowInput<'_>],
    needed: &[bool],
) -> Result<Assembled, arrow::error::ArrowError> {
    let stored = view.stored_features();
    let mut origins = Vec::with_capacity(stored.len() * rows.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.features().len());
    let mut values: Vec<&Value> = Vec::with_capacity(rows.len());
    for (column, feature) in stored.iter().enumerate() {
        values.clear();
        for row in rows {
            let (value, origin) = resolve(column, feature, row);
            values.push(value);
            origins.push(origin);
        }
        columns.push(to_array(feature.kind, &values));
    }
    let batch = view.derive(columns, rows.len(), |column| needed[column])?;
    Ok(Assembled {
        batch,
        stored: stored.len(),
        origins,
    })
}

fn resolve<'a>(column: usize, feature: &'a Feature, row: &RowInput<'a>) -> (&'a Value, Origin) {
    const NULL: Value = Value::Null;
    let overridden = row.overrides.iter().find(|(index, _)| *index == column);
    let stored = row.profile.and_then(|profile| profile.get(&feature.name));
    let (value, source, as_of_us) = match (overridden, stored) {
        (Some((_, value)), _) => (value, Source::Override, None),
        (None, Some(stored)) => (&stored.value, Source::Stored, Some(stored.as_of_us)),
        (None, None) => (&NULL, Source::Missing, None),
    };
    // A value written under an earlier type of the feature counts as missing.
    let fits = match (value, feature.kind) {
        (Value::Int64(_), FeatureType::Float64) => true,
        (value, kind) => value.feature_type() == Some(kind),
    };
    if fits {
        let unknown = !feature.values.is_empty() && !feature.values.contains(value);
        return (
            value,
            Origin {
                source,
                as_of_us,
                unknown,
            },
        );
    }
    match &feature.default {
        Some(default) => (
            default,
            Origin {
                source: Source::Default,
                as_of_us,
                unknown: false,
            },
        ),
        None => (
            &NULL,
            Origin {
                source: Source::Missing,
                as_of_us,
                unknown: false,
            },
        ),
    }
}

/// A column of `kind` from values that fit it or are null.
pub fn to_array(kind: FeatureType, values: &[&Value]) -> ArrayRef {
    match kind {
        FeatureType::String => {
            let texts = values.iter().map(|value| match value {
                Value::String(text) => Some(text.as_str()),
                _ => None,
            });
            Arc::new(texts.collect::<StringArray>())
        }
        FeatureType::Int64 => {
            let integers = values.iter().map(|value| match value {
                Value::Int64(integer) => Some(*integer),
                _ => None,
            });
            Arc::new(integers.collect::<Int64Array>())
        }
        FeatureType::Float64 => {
            let floats = values.iter().map(|value| match value {
                Value::Float64(float) => Some(*float),
                Value::Int64(integer) => Some(*integer as f64),
                _ => None,
            });
            Arc::new(floats.collect::<Float64Array>())
        }
        FeatureType::Bool => {
            let flags = values.iter().map(|value| match value {
                Value::Bool(flag) => Some(*flag),
                _ => None,
            });
            Arc::new(flags.collect::<BooleanArray>())
        }
    }
}

/// The value in `row` of an assembled column.
pub fn value_at(column: &ArrayRef, row: usize) -> Value {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    if column.is_null(row) {
        return Value::Null;
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Value::String(texts.value(row).to_owned());
    }
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        return Value::Int64(integers.value(row));
    }
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return Value::Float64(floats.value(row));
    }
    column
        .as_boolean_opt()
        .map_or(Value::Null, |flags| Value::Bool(flags.value(row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoredValue;

    const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "tenure"
type = "int64"
default = 0
[[feature]]
name = "total"
type = "float64"
[[feature]]
name = "contract"
type = "string"
default = "Month-to-month"
values = ["Month-to-month", "One year"]
[[feature]]
name = "per_month"
type = "float64"
expression = "total / greatest(tenure, 1)"
"#;

    #[test]
    fn override_then_stored_then_default_then_missing() {
        let view = View::parse(VIEW).unwrap();
        let mut profile = Profile::default();
        let stored = |value| StoredValue { value, as_of_us: 7 };
        profile.set("tenure".into(), stored(Value::Int64(4)));
        profile.set("contract".into(), stored(Value::String("Weekly".into())));
        let overrides = [(1, Value::Float64(20.0))];
        let rows = [
            RowInput {
                profile: Some(&profile),
                overrides: &overrides,
            },
            RowInput::default(),
        ];
        let assembled = assemble(&view, &rows, &[true; 4]).unwrap();
        let row = |row: usize| -> Vec<Value> {
            assembled
                .batch
                .columns()
                .iter()
                .map(|column| value_at(column, row))
                .collect()
        };
        assert_eq!(
            row(0),
            [
                Value::Int64(4),
                Value::Float64(20.0),
                Value::String("Weekly".into()),
                Value::Float64(5.0)
            ]
        );
        assert_eq!(
            row(1),
            [
                Value::Int64(0),
                Value::Null,
                Value::String("Month-to-month".into()),
                Value::Null
            ]
        );
        let origin = |row, column| *assembled.origin(row, column).unwrap();
        assert_eq!(
            origin(0, 2),
            Origin {
                source: Source::Stored,
                as_of_us: Some(7),
                unknown: true
            }
        );
        assert_eq!(origin(0, 1).source, Source::Override);
        assert_eq!(origin(1, 0).source, Source::Default);
        assert_eq!(origin(1, 1).source, Source::Missing);
        assert_eq!(assembled.origin(0, 3), None);
    }
}
