//! What is in a view that is right: its columns, what is inherited, what is needed for what.

use arrow::array::{AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::json;

use super::*;

#[test]
fn derived_features_may_build_on_each_other_in_any_order() {
    let view = View::parse(VIEW).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![4])),
        Arc::new(Float64Array::from(vec![Some(10.0)])),
        new_null_array(&DataType::Utf8, 1),
    ];
    let batch = view.derive(columns, 1, |_| true).unwrap();
    let twice = batch.column_by_name("per_month_twice").unwrap();
    assert_eq!(twice.as_primitive::<Float64Type>().value(0), 5.0);
    let mut needed = vec![false; view.features().len()];
    needed[view.index_of("per_month_twice").unwrap()] = true;
    view.close_over_inputs(&mut needed);
    assert!(needed[view.index_of("tenure").unwrap()]);
    assert!(!needed[view.index_of("contract").unwrap()]);
}

#[test]
fn columns_are_stored_then_request_then_window_then_related_then_derived() {
    let view = View::parse(SITE_VISIT).unwrap();
    let names: Vec<&str> = view.features().iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "cell_number",
            "region",
            "channel",
            "request_hour",
            "visits_1h",
            "visits_90d",
            "visits_late_90d",
            "minutes",
            "minutes_repair",
            "minutes_new_line",
            "reasons",
            "risk",
            "late_visits_share"
        ]
    );
    assert_eq!(view.stored_features().len(), 2);
    assert_eq!(view.request_columns(), 2..4);
    assert_eq!(view.window_columns(), 4..11);
    assert_eq!(view.related_columns(), 11..12);
    assert_eq!(view.derived_columns(), 12..13);
    assert_eq!(view.key_columns(), ["customer_id", "site_id"]);
    for (column, name) in names.iter().enumerate() {
        assert_eq!(view.index_of(name), Some(column));
    }
    // The windows have the order of their columns.
    let windows = view.windows().aggregates();
    assert_eq!(windows.len(), view.window_columns().len());
    assert_eq!(windows[0].window, Duration::from_secs(3600));
    assert_eq!(windows[2].filter.as_deref(), Some("late"));
    assert_eq!(windows[3].group, None);
    assert_eq!(windows[5].group.as_deref(), Some("New line"));
    assert_eq!(windows[6].k, 3);
}

#[test]
fn counts_are_zero_when_nothing_happened_and_maps_are_text() {
    let view = View::parse(SITE_VISIT).unwrap();
    let feature = |name: &str| &view.features()[view.index_of(name).unwrap()];
    assert_eq!(feature("visits_1h").default, Some(Value::Int64(0)));
    assert_eq!(feature("minutes_repair").default, None);
    assert_eq!(feature("minutes").holds, Holds::Map);
    assert_eq!(feature("minutes").kind, FeatureType::String);
    assert_eq!(feature("minutes_repair").kind, FeatureType::Float64);
    assert_eq!(feature("reasons").holds, Holds::List);
    let read = view.read_override("minutes", &json!({"Repair": 4.0}));
    assert_eq!(
        read.unwrap().1,
        Value::String("{\"Repair\":4.0}".to_owned())
    );
}

#[test]
fn owner_and_purposes_are_those_of_the_view_unless_the_feature_says_otherwise() {
    let view = View::parse(SITE_VISIT).unwrap();
    let feature = |name: &str| &view.features()[view.index_of(name).unwrap()];
    assert_eq!(feature("region").owner.as_deref(), Some("field service"));
    assert_eq!(feature("region").purposes, ["service"]);
    assert_eq!(feature("region").tags, ["geo"]);
    assert_eq!(feature("cell_number").owner.as_deref(), Some("network"));
    assert!(feature("cell_number").purposes.is_empty());
    assert!(feature("cell_number").personal && !feature("region").personal);
}

#[test]
fn what_a_feature_is_computed_from_is_needed_too() {
    let view = View::parse(SITE_VISIT).unwrap();
    let needed_for = |name: &str| -> Vec<&str> {
        let mut needed = vec![false; view.features().len()];
        needed[view.index_of(name).unwrap()] = true;
        view.close_over_inputs(&mut needed);
        let features = view.features().iter().zip(needed);
        features
            .filter(|(_, needed)| *needed)
            .map(|(feature, _)| feature.name.as_str())
            .collect()
    };
    assert_eq!(
        needed_for("late_visits_share"),
        [
            "request_hour",
            "visits_90d",
            "visits_late_90d",
            "late_visits_share"
        ]
    );
    // The site's key is a key column of the view.
    assert_eq!(needed_for("risk"), ["risk"]);
    let by_feature = SITE_VISIT.replace("site.risk", "cell.risk");
    let view = View::parse(&by_feature).unwrap();
    let mut needed = vec![false; view.features().len()];
    needed[view.index_of("risk").unwrap()] = true;
    view.close_over_inputs(&mut needed);
    assert!(needed[view.index_of("region").unwrap()]);
    assert!(needed[view.index_of("cell_number").unwrap()]);
}
