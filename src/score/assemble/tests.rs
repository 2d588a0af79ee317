//! What an assembled batch holds, row by row and as a table.

use super::*;
use crate::features::column::value_at;
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
