//! Each function on a handful of events.

use super::*;
use Function::*;

const FIVE: [(i64, &str); 5] = [
    (5 * HOUR, r#"{"x": 4, "s": "b"}"#),
    (4 * HOUR, r#"{"x": 1.5, "s": "a"}"#),
    (3 * HOUR, r#"{"x": -2, "s": "b"}"#),
    (2 * HOUR, r#"{"s": "c"}"#),
    (0, r#"{"x": 8, "s": null}"#),
];

fn one(function: Function, events: &[(i64, &str)]) -> Value {
    values(vec![aggregate(function, "1d")], events).remove(0)
}

#[test]
fn functions_of_numbers() {
    assert_eq!(one(Count, &FIVE), Value::Int64(5));
    assert_eq!(one(Sum, &FIVE), Value::Float64(11.5));
    assert_eq!(one(Avg, &FIVE), Value::Float64(11.5 / 4.0));
    assert_eq!(one(Min, &FIVE), Value::Float64(-2.0));
    assert_eq!(one(Max, &FIVE), Value::Float64(8.0));
    let Value::Float64(deviation) = one(Stddev, &FIVE) else {
        panic!()
    };
    assert!((deviation - 4.210_601_699).abs() < 1e-9, "{deviation}");
    assert_eq!(one(Rate, &FIVE), Value::Float64(5.0 / 86_400.0));
    assert_eq!(one(TimeSinceLast, &FIVE[..4]), Value::Float64(7_200.0));
    let Value::Float64(median) = one(Quantile, &FIVE) else {
        panic!()
    };
    assert!((median - 1.5).abs() <= 0.015, "{median}");
}

#[test]
fn functions_of_text() {
    assert_eq!(one(CountDistinct, &FIVE), Value::Int64(3));
    assert_eq!(one(TopK, &FIVE), text(r#"["b","a","c"]"#));
    assert_eq!(one(First, &FIVE), text("b"));
    assert_eq!(one(Last, &FIVE), text("c"));
}

#[test]
fn empty_windows_are_zero_or_null() {
    let zero = [Value::Int64(0), Value::Float64(0.0)];
    for function in [Count, Sum, CountDistinct, Rate] {
        assert!(zero.contains(&one(function, &[])), "{function:?}");
        assert!(
            zero.contains(&one(function, &[(2 * DAY, "{}")])),
            "{function:?}"
        );
    }
    for function in [
        Avg,
        Min,
        Max,
        Stddev,
        First,
        Last,
        TimeSinceLast,
        TopK,
        Quantile,
    ] {
        assert_eq!(one(function, &[]), Value::Null, "{function:?}");
        assert_eq!(
            one(function, &[(2 * DAY, "{}")]),
            Value::Null,
            "{function:?}"
        );
    }
    // One value has no deviation.
    assert_eq!(one(Stddev, &[(0, r#"{"x": 1}"#)]), Value::Null);
}

#[test]
fn whole_numbers_where_the_feature_is_declared_so() {
    let declared = |function| Aggregate {
        kind: FeatureType::Int64,
        ..aggregate(function, "1d")
    };
    let found = values(vec![declared(Sum), declared(Min), declared(Max)], &FIVE);
    assert_eq!(found, [Value::Int64(12), Value::Int64(-2), Value::Int64(8)]);
    let count = Aggregate {
        kind: FeatureType::Float64,
        ..aggregate(Count, "1d")
    };
    assert_eq!(values(vec![count], &FIVE), [Value::Float64(5.0)]);
}

#[test]
fn first_and_last_have_the_type_of_the_feature() {
    let declared = |function, value: &str, kind| Aggregate {
        value: Some(value.to_owned()),
        kind,
        ..aggregate(function, "1d")
    };
    let events = [
        (3, r#"{"n": 9007199254740993, "b": true, "x": 2, "s": "t"}"#),
        (2, r#"{"n": 2.5, "b": 1, "x": "2", "s": 3}"#),
        (1, r#"{"n": 7.0, "b": false, "x": 1e3, "s": "\u00e4"}"#),
    ];
    let aggregates = vec![
        declared(First, "n", FeatureType::Int64),
        declared(Last, "n", FeatureType::Int64),
        declared(First, "b", FeatureType::Bool),
        declared(Last, "b", FeatureType::Bool),
        declared(Last, "x * 2", FeatureType::Float64),
        declared(Last, "upper(s)", FeatureType::String),
        declared(Last, "cast(n as bigint) + 1", FeatureType::Int64),
    ];
    let expected = [
        Value::Int64(9_007_199_254_740_993),
        Value::Int64(7),
        Value::Bool(true),
        Value::Bool(false),
        Value::Float64(2000.0),
        text("Ä"),
        Value::Int64(8),
    ];
    assert_eq!(values(aggregates, &events), expected);
}

#[test]
fn events_of_the_same_time_are_told_apart_by_their_ids() {
    let windows = Windows::compile(vec![aggregate(First, "1d"), aggregate(Last, "1d")]).unwrap();
    let events: Vec<(Event, i64)> = (0..6)
        .map(|id: i32| {
            (
                event(&id.to_string(), NOW, &format!(r#"{{"s": "{id}"}}"#)),
                NOW,
            )
        })
        .collect();
    let mut forward = WindowState::default();
    apply(&windows, &mut forward, &events);
    let mut backward = WindowState::default();
    let reversed: Vec<(Event, i64)> = events.into_iter().rev().collect();
    apply(&windows, &mut backward, &reversed);
    assert_eq!(forward, backward);
    assert_ne!(
        windows.values(&forward, NOW)[0],
        windows.values(&forward, NOW)[1]
    );
}

#[test]
fn only_what_the_condition_holds_for_counts() {
    let filtered = |filter: &str| Aggregate {
        filter: Some(filter.to_owned()),
        ..aggregate(Count, "1d")
    };
    let aggregates = vec![
        filtered("x > 1"),
        filtered("s = 'b' and x < 0"),
        filtered("s in ('a', 'c')"),
        filtered("x is null"),
        filtered("s like '%b%' or x between 1 and 2"),
        filtered("coalesce(x, 0) >= 0"),
        filtered("missing"),
        filtered("true"),
    ];
    let expected = [3, 1, 2, 1, 3, 4, 0, 5].map(Value::Int64);
    assert_eq!(values(aggregates, &FIVE), expected);
}

#[test]
fn groups_are_a_map_or_one_of_it() {
    let grouped = |function, group: Option<&str>| Aggregate {
        group_by: Some("s".to_owned()),
        group: group.map(str::to_owned),
        ..aggregate(function, "1d")
    };
    let map = |function| Aggregate {
        kind: FeatureType::String,
        ..grouped(function, None)
    };
    let aggregates = vec![
        map(Count),
        grouped(Sum, None),
        map(TopK),
        grouped(Sum, Some("b")),
        grouped(Count, Some("nobody")),
    ];
    let expected = [
        text(r#"{"a":1,"b":2,"c":1}"#),
        text(r#"{"a":1.5,"b":2.0}"#),
        text(r#"{"a":["a"],"b":["b"],"c":["c"]}"#),
        Value::Float64(2.0),
        Value::Int64(0),
    ];
    assert_eq!(values(aggregates, &FIVE), expected);
    assert_eq!(values(vec![map(Count)], &[]), [text("{}")]);
}

#[test]
fn groups_beyond_the_most_are_counted_together() {
    let map = Aggregate {
        group_by: Some("x".to_owned()),
        kind: FeatureType::Int64,
        ..aggregate(Count, "1d")
    };
    let one = Aggregate {
        group: Some("77".to_owned()),
        ..map.clone()
    };
    let windows = Windows::compile(vec![map, one]).unwrap();
    let mut state = WindowState::default();
    let events: Vec<(Event, i64)> = (0..100)
        .map(|id: i64| {
            (
                event(&id.to_string(), NOW, &format!(r#"{{"x": {id}}}"#)),
                NOW,
            )
        })
        .collect();
    apply(&windows, &mut state, &events);
    let found = windows.values(&state, NOW);
    let Value::String(json) = &found[0] else {
        panic!()
    };
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json.as_object().unwrap().len(), MAX_GROUPS + 1);
    assert_eq!(json[OTHER_GROUP], 100 - MAX_GROUPS);
    assert_eq!(json["5"], 1);
    // A group that is asked for by name is kept for itself.
    assert_eq!(found[1], Value::Int64(1));
}

#[test]
fn numbers_as_text_are_the_same_however_they_are_written() {
    let distinct = Aggregate {
        value: Some("v".to_owned()),
        ..aggregate(CountDistinct, "1d")
    };
    let computed = Aggregate {
        value: Some("v * 2".to_owned()),
        ..aggregate(CountDistinct, "1d")
    };
    let events = [
        (0, r#"{"v": 3}"#),
        (0, r#"{"v": 3.0}"#),
        (0, r#"{"v": "3"}"#),
        (0, r#"{"v": 3e0}"#),
        (0, r#"{"v": true}"#),
        (0, r#"{"v": [3]}"#),
    ];
    assert_eq!(
        values(vec![distinct, computed], &events),
        [Value::Int64(2), Value::Int64(1)]
    );
}

#[test]
fn what_overflows_is_null() {
    let events = [(0, r#"{"x": 1.7e308}"#), (0, r#"{"x": 1.7e308}"#)];
    assert_eq!(one(Sum, &events), Value::Null);
    assert_eq!(one(Stddev, &events), Value::Null);
    assert_eq!(one(Max, &events), Value::Float64(1.7e308));
    let integers = Aggregate {
        kind: FeatureType::Int64,
        ..aggregate(Max, "1d")
    };
    assert_eq!(values(vec![integers], &events), [Value::Null]);
}

#[test]
fn no_properties_make_the_reader_fail() {
    let deep = format!(
        r#"{{"y": {}1{}, "x": 1}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    for properties in [
        "",
        "null",
        "[1]",
        "{",
        r#"{"x": 1"#,
        r#"{"x": 1} x"#,
        "\u{0}",
        &deep,
    ] {
        let found = values(
            vec![aggregate(Count, "1d"), aggregate(Sum, "1d")],
            &[(0, properties)],
        );
        assert_eq!(found[0], Value::Int64(1), "{properties}");
    }
    // Of a name that is there twice the last holds.
    assert_eq!(one(Sum, &[(0, r#"{"x": 1, "x": 2}"#)]), Value::Float64(2.0));
}
