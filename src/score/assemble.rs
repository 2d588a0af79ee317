//! From what is known of some entities to one Arrow batch of the view's schema.
//!
//! For every feature of every row that is not derived: the request's override, else the value of its
//! role (stored, of the request's context, of the windows, of the related entity), else the declared
//! default, else null. Derived features are then computed on the batch. Where each value came from and
//! how old it is stays with the batch, because the ledger records it.
//!
//! One row online and a million offline go through the same code, column by column. A whole table has
//! columns already: [`assemble_columns`] takes them as they are.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, Scalar, StringArray, UInt32Array,
    new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{is_not_null, take};
use arrow::record_batch::RecordBatch;

use super::related::Related;
use crate::features::value::{FeatureType, Value};
use crate::features::view::{Feature, Role, View};
use crate::store::Profile;

const NULL: Value = Value::Null;

/// What is known of one row before assembly.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowInput<'a> {
    /// The entity's key; relations may read its parts.
    pub key: &'a str,
    pub profile: Option<&'a Profile>,
    /// Checked values by column, replacing what is known.
    pub overrides: &'a [(usize, Value)],
    /// Checked values of request features by column, those of [`View::request_time`] among them.
    pub context: &'a [(usize, Value)],
    /// The values of the window features, as a snapshot has them; none when nothing is known.
    pub windows: &'a [Value],
}

/// Where a served value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stored,
    Override,
    Request,
    Window,
    Related,
    Default,
    Missing,
}

/// The origin of one served value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub source: Source,
    /// When a stored value was written, microseconds since the Unix epoch; of a related one, there.
    pub as_of_us: Option<i64>,
    /// The value is not among those the feature declares.
    pub unknown: bool,
    /// The value lies outside the feature's range.
    pub out_of_range: bool,
}

/// An assembled batch: every feature of the view, and the origin of all but the derived ones.
#[derive(Debug)]
pub struct Assembled {
    pub batch: RecordBatch,
    derived: usize,
    origins: Vec<Origin>,
}

impl Assembled {
    /// The origin of the value in `row` and `column`; `None` for a derived feature.
    pub fn origin(&self, row: usize, column: usize) -> Option<&Origin> {
        if column >= self.derived {
            return None;
        }
        self.origins.get(column * self.batch.num_rows() + row)
    }
}

/// Assembles `rows`; derived features are computed only where `needed` (by column) is true. `related`
/// is what is known of the related entities of these rows.
///
/// # Errors
/// Only when the view's schema is at odds with its own features, which loading excludes.
pub fn assemble(
    view: &View,
    rows: &[RowInput<'_>],
    related: &Related,
    needed: &[bool],
) -> Result<Assembled, arrow::error::ArrowError> {
    let derived = view.derived_columns().start;
    let mut origins = Vec::with_capacity(derived * rows.len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.features().len());
    let mut values: Vec<&Value> = Vec::with_capacity(rows.len());
    for (column, feature) in view.features()[..derived].iter().enumerate() {
        values.clear();
        for (index, row) in rows.iter().enumerate() {
            let found = match feature.role {
                Role::Related => related.value(column - view.related_columns().start, index),
                _ => find(view, column, feature, row),
            };
            let (value, origin) = resolve(column, feature, row, found);
            values.push(value);
            origins.push(origin);
        }
        columns.push(to_array(feature.kind, &values));
    }
    let batch = view.derive(columns, rows.len(), |column| needed[column])?;
    Ok(Assembled {
        batch,
        derived,
        origins,
    })
}

/// Assembles a table: by column what is given of it, of the feature's type, where null stands for a value
/// that is missing; `None` where nothing is. What is missing becomes the declared default, and derived
/// features are computed where `needed` (by column) is true. A row has the values that [`assemble`] gives
/// it.
///
/// # Errors
/// When a column does not have the feature's type or `rows` rows.
pub fn assemble_columns(
    view: &View,
    given: &[Option<ArrayRef>],
    rows: usize,
    needed: &[bool],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let derived = view.derived_columns().start;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(view.features().len());
    for (column, feature) in view.features()[..derived].iter().enumerate() {
        let given = given.get(column).and_then(Option::as_ref);
        let default = || to_array(feature.kind, &[feature.default.as_ref().unwrap_or(&NULL)]);
        let array = match given {
            None if !needed[column] => new_null_array(&feature.kind.arrow(), rows),
            None => take(&default(), &UInt32Array::from(vec![0; rows]), None)?,
            Some(given) if given.null_count() > 0 && feature.default.is_some() => {
                zip(&is_not_null(given)?, given, &Scalar::new(default()))?
            }
            Some(given) => Arc::clone(given),
        };
        columns.push(array);
    }
    view.derive(columns, rows, |column| needed[column])
}

/// The value of a feature that is neither related nor derived, as far as the row has one.
fn find<'a>(
    view: &View,
    column: usize,
    feature: &Feature,
    row: &RowInput<'a>,
) -> Option<(&'a Value, Source, Option<i64>)> {
    match feature.role {
        Role::Stored => {
            let stored = row.profile?.get(&feature.name)?;
            Some((&stored.value, Source::Stored, Some(stored.as_of_us)))
        }
        Role::Request => {
            let (_, value) = row.context.iter().find(|(index, _)| *index == column)?;
            Some((value, Source::Request, None))
        }
        Role::Window => {
            let value = row.windows.get(column - view.window_columns().start)?;
            Some((value, Source::Window, None))
        }
        Role::Related | Role::Derived => None,
    }
}

fn resolve<'a>(
    column: usize,
    feature: &'a Feature,
    row: &RowInput<'a>,
    found: Option<(&'a Value, Source, Option<i64>)>,
) -> (&'a Value, Origin) {
    let overridden = row.overrides.iter().find(|(index, _)| *index == column);
    let (value, source, as_of_us) = match (overridden, found) {
        (Some((_, value)), _) => (value, Source::Override, None),
        (None, Some(found)) => found,
        (None, None) => (&NULL, Source::Missing, None),
    };
    if fits(value, feature.kind) {
        let origin = Origin {
            source,
            as_of_us,
            unknown: feature.is_unknown(value),
            out_of_range: feature.is_out_of_range(value),
        };
        return (value, origin);
    }
    let (value, source) = match &feature.default {
        Some(default) => (default, Source::Default),
        None => (&NULL, Source::Missing),
    };
    let origin = Origin {
        source,
        as_of_us,
        unknown: false,
        out_of_range: false,
    };
    (value, origin)
}

/// Whether a value is one of the feature's type. One that was written under an earlier type of the
/// feature counts as missing, and so does null.
fn fits(value: &Value, kind: FeatureType) -> bool {
    match (value, kind) {
        (Value::Int64(_), FeatureType::Float64) => true,
        (Value::Float64(float), FeatureType::Float64) => float.is_finite(),
        (value, kind) => value.feature_type() == Some(kind),
    }
}

/// The value of the stored or request feature in `column`, as [`assemble`] gives it.
pub fn resolved<'a>(view: &'a View, column: usize, row: &RowInput<'a>) -> &'a Value {
    let feature = &view.features()[column];
    resolve(column, feature, row, find(view, column, feature, row)).0
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
    use arrow::array::AsArray;
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
                ..RowInput::default()
            },
            RowInput::default(),
        ];
        let assembled = assemble(&view, &rows, &Related::default(), &[true; 4]).unwrap();
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
                unknown: true,
                out_of_range: false,
            }
        );
        assert_eq!(origin(0, 1).source, Source::Override);
        assert_eq!(origin(1, 0).source, Source::Default);
        assert_eq!(origin(1, 1).source, Source::Missing);
        assert_eq!(assembled.origin(0, 3), None);
    }

    const ALL_ROLES: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "channel"
type = "string"
source = "request"
default = "app"
[[feature]]
name = "tickets"
type = "int64"
max = 5
aggregate = { event = "ticket", function = "count", window = "30d" }
[[feature]]
name = "longest"
type = "float64"
default = 1.5
aggregate = { event = "call", function = "max", window = "7d", value = "minutes" }
[[feature]]
name = "sum"
type = "float64"
expression = "tickets + longest + request_hour + case when channel = 'app' then 100 else 0 end"
"#;

    #[test]
    fn windows_and_requests_have_values_overrides_and_defaults_like_stored_features() {
        let view = View::parse(ALL_ROLES).unwrap();
        let column = |name: &str| view.index_of(name).unwrap();
        let windows = [Value::Int64(7), Value::Null];
        let phone = (column("channel"), Value::String("phone".into()));
        // 1970-01-01T02:00 is hour 2.
        let mut context = vec![phone];
        context.extend(view.request_time(2 * 3_600_000_000));
        let overrides = [(column("tickets"), Value::Int64(1))];
        let known = RowInput {
            context: &context,
            windows: &windows,
            ..RowInput::default()
        };
        let overridden = RowInput {
            overrides: &overrides,
            ..known
        };
        let rows = [known, overridden, RowInput::default()];
        let needed = vec![true; view.features().len()];
        let assembled = assemble(&view, &rows, &Related::default(), &needed).unwrap();
        let value = |row, name: &str| value_at(assembled.batch.column(column(name)), row);
        let source = |row, name: &str| assembled.origin(row, column(name)).unwrap().source;
        assert_eq!(value(0, "sum"), Value::Float64(7.0 + 1.5 + 2.0));
        assert_eq!(source(0, "channel"), Source::Request);
        assert_eq!(source(0, "tickets"), Source::Window);
        assert!(assembled.origin(0, column("tickets")).unwrap().out_of_range);
        assert_eq!(source(0, "longest"), Source::Default);
        assert_eq!(value(1, "sum"), Value::Float64(1.0 + 1.5 + 2.0));
        assert_eq!(source(1, "tickets"), Source::Override);
        assert!(!assembled.origin(1, column("tickets")).unwrap().out_of_range);
        // Nothing known: counts are 0, and without a time there is no hour.
        assert_eq!(value(2, "tickets"), Value::Int64(0));
        assert_eq!(value(2, "channel"), Value::String("app".into()));
        assert_eq!(value(2, "sum"), Value::Null);
        assert_eq!(source(2, "request_hour"), Source::Missing);
    }

    /// Window values and context of a row.
    type Known = (Vec<Value>, Vec<(usize, Value)>);

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn a_row_alone_and_among_others_has_the_same_values(
            rows in proptest::collection::vec(
                (
                    proptest::option::of(-9_i64..9),
                    proptest::option::of(proptest::num::f64::ANY),
                    0_i64..4_000_000_000_000_000,
                    proptest::option::of("[a-z]{0,3}|app"),
                ),
                1..20,
            ),
        ) {
            let view = View::parse(ALL_ROLES).unwrap();
            let channel = view.index_of("channel").unwrap();
            let needed = vec![true; view.features().len()];
            let known: Vec<Known> = rows
                .into_iter()
                .map(|(tickets, longest, at_us, text)| {
                    let mut context: Vec<(usize, Value)> = view.request_time(at_us).collect();
                    context.extend(text.map(|text| (channel, Value::String(text))));
                    let tickets = tickets.map_or(Value::Null, Value::Int64);
                    (vec![tickets, longest.map_or(Value::Null, Value::Float64)], context)
                })
                .collect();
            let inputs: Vec<RowInput<'_>> = known
                .iter()
                .map(|(windows, context)| RowInput { context, windows, ..RowInput::default() })
                .collect();
            let none = Related::default();
            let together = assemble(&view, &inputs, &none, &needed).unwrap();
            // And as a table: what the rows know, column by column.
            let tickets: Vec<&Value> = known.iter().map(|(windows, _)| &windows[0]).collect();
            let longest: Vec<&Value> = known
                .iter()
                .map(|(windows, _)| match &windows[1] {
                    Value::Float64(float) if !float.is_finite() => &NULL,
                    value => value,
                })
                .collect();
            let mut given: Vec<Option<ArrayRef>> = vec![None; needed.len()];
            for (column, feature) in view.features().iter().enumerate() {
                let context = |(_, context): &'_ Known| {
                    let found = context.iter().find(|(index, _)| *index == column);
                    found.map_or(Value::Null, |(_, value)| value.clone())
                };
                given[column] = match feature.role {
                    Role::Window if feature.name == "tickets" => {
                        Some(to_array(feature.kind, &tickets))
                    }
                    Role::Window => Some(to_array(feature.kind, &longest)),
                    Role::Request => {
                        let values: Vec<Value> = known.iter().map(context).collect();
                        Some(to_array(feature.kind, &values.iter().collect::<Vec<_>>()))
                    }
                    _ => None,
                };
            }
            let table = assemble_columns(&view, &given, inputs.len(), &needed).unwrap();
            proptest::prop_assert_eq!(&table, &together.batch);
            for (row, input) in inputs.iter().enumerate() {
                let alone = assemble(&view, std::slice::from_ref(input), &none, &needed).unwrap();
                for column in 0..needed.len() {
                    let expected = together.batch.column(column).slice(row, 1).to_data();
                    proptest::prop_assert_eq!(alone.batch.column(column).to_data(), expected);
                    let origin = alone.origin(0, column).copied();
                    proptest::prop_assert_eq!(origin, together.origin(row, column).copied());
                }
            }
        }
    }
}
