//! What may be declared, and what is shared.

use super::*;
use Function::*;

fn problem(change: impl FnOnce(&mut Aggregate), function: Function) -> String {
    let mut wrong = aggregate(function, "1d");
    change(&mut wrong);
    let all = vec![aggregate(Count, "1h"), wrong];
    let (index, problem) = Windows::compile(all).expect_err("it is wrong");
    assert_eq!(index, 1);
    problem
}

#[test]
fn mistakes_are_explained() {
    let none = |a: &mut Aggregate| a.value = None;
    assert!(problem(none, Sum).starts_with("sum needs a `value`"));
    let some = |a: &mut Aggregate| a.value = Some("x".to_owned());
    assert!(problem(some, Count).starts_with("count takes no `value`"));
    let window =
        |seconds| move |a: &mut Aggregate| a.window = std::time::Duration::from_millis(seconds);
    assert_eq!(
        problem(window(999), Count),
        "`window` is 999ms; expected 1s to 400 days"
    );
    assert!(problem(window(401 * 86_400_000), Count).contains("400 days"));
    assert_eq!(problem(|a| a.k = 0, TopK), "`k` is 0; expected 1 to 100");
    assert!(problem(|a| a.k = 101, TopK).starts_with("`k` is 101"));
    assert!(problem(|a| a.q = 1.5, Quantile).starts_with("`q` is 1.5; expected 0 to 1"));
    assert!(problem(|a| a.q = f64::NAN, Quantile).starts_with("`q` is NaN"));
    let group = |a: &mut Aggregate| a.group = Some("g".to_owned());
    assert!(problem(group, Count).contains("no `group_by`"));
    let kind = |kind| move |a: &mut Aggregate| a.kind = kind;
    assert_eq!(
        problem(kind(FeatureType::String), Count),
        "count has the type int64 or float64, the feature is declared string"
    );
    assert!(problem(kind(FeatureType::Int64), Avg).contains("float64"));
    assert!(problem(kind(FeatureType::Int64), TopK).contains("string"));
    assert!(problem(|a| a.filter = Some(" ".to_owned()), Count).contains("`where` is empty"));
    assert!(problem(|a| a.event.clear(), Count).contains("`event` is empty"));
}

#[test]
fn mistakes_in_expressions_are_explained() {
    let filter = |sql: &str| problem(|a| a.filter = Some(sql.to_owned()), Count);
    assert!(filter("x >").starts_with("`where` "), "{}", filter("x >"));
    assert!(filter("x = 1 and x = 'a'").contains("reads x as a number and as text"));
    assert!(filter("a.b = 1").contains("reads a.b: properties inside others"));
    assert!(
        filter("x + 1").contains("expected Boolean"),
        "{}",
        filter("x + 1")
    );
    assert!(filter("nosuch(x) = 1").contains("nosuch"));
    assert!(
        filter("x > 1 as big").contains("no place there"),
        "{}",
        filter("x > 1 as big")
    );
    assert!(filter("Flag and flag").contains("double quotes"));
    assert!(filter("x in (select 1)").contains("form"));
    let deep = "not ".repeat(2_000) + "x";
    assert!(filter(&deep).starts_with("`where` "));
    let long = vec!["x = 1"; 800].join(" or ");
    assert!(filter(&long).contains("nested"), "{}", filter(&long));
    let value = |sql: &str, function, kind| {
        problem(
            |a| {
                a.value = Some(sql.to_owned());
                a.kind = kind;
            },
            function,
        )
    };
    let found = value("x * 2", Last, FeatureType::Int64);
    assert!(found.contains("cast(… as bigint)"), "{found}");
    assert!(value("upper(s)", Sum, FeatureType::Float64).starts_with("`value` "));
}

#[test]
fn names_are_read_as_the_events_have_them() {
    let counted = |filter: &str| Aggregate {
        filter: Some(filter.to_owned()),
        ..aggregate(Count, "1d")
    };
    let aggregates = vec![
        counted("Flag"),
        counted("\"Flag\""),
        counted("flag"),
        counted("Amount > 1"),
        counted("\"total amount\" > 1 and \"a.b\" = 'x'"),
    ];
    let event = r#"{"Flag": true, "Amount": 2, "total amount": 2, "a.b": "x"}"#;
    let expected = [1, 1, 0, 1, 1].map(Value::Int64);
    assert_eq!(values(aggregates, &[(0, event)]), expected);
}

#[test]
fn what_reads_the_same_shares_a_track() {
    let tracks =
        |aggregates: Vec<Aggregate>| Windows::compile(aggregates).unwrap().track_ids().len();
    // The hop of both is six hours, and sum and average keep the same.
    assert_eq!(
        tracks(vec![aggregate(Sum, "28d"), aggregate(Avg, "30d")]),
        1
    );
    assert_eq!(tracks(vec![aggregate(Sum, "7d"), aggregate(Sum, "30d")]), 2);
    assert_eq!(
        tracks(vec![aggregate(Last, "7d"), aggregate(Last, "30d")]),
        1
    );
    assert_eq!(
        tracks(vec![aggregate(Count, "7d"), aggregate(Rate, "7d")]),
        1
    );
    let filtered = Aggregate {
        filter: Some("x > 1".to_owned()),
        ..aggregate(Count, "7d")
    };
    assert_eq!(tracks(vec![aggregate(Count, "7d"), filtered]), 2);
    let median = aggregate(Quantile, "7d");
    let highest = Aggregate {
        q: 0.99,
        ..median.clone()
    };
    assert_eq!(tracks(vec![median, highest]), 1);
}

#[test]
fn the_identity_of_a_track_does_not_depend_on_the_plan() {
    let alone = Windows::compile(vec![aggregate(Sum, "30d")]).unwrap();
    let all = Windows::compile(vec![
        aggregate(Count, "1h"),
        aggregate(Avg, "28d"),
        aggregate(Sum, "30d"),
    ])
    .unwrap();
    assert_eq!(alone.track_of(0), all.track_of(1));
    assert_eq!(all.track_of(1), all.track_of(2));
    assert_eq!(all.track_of(3), None);
    // Bytes on disk hold it: it must stay what it is.
    assert_eq!(alone.track_ids(), [14_041_145_666_582_869_078]);
    let only = all.only(alone.track_ids()).unwrap();
    assert_eq!(only.aggregates().len(), 2);
    assert_eq!(only.track_ids(), alone.track_ids());
    assert!(all.listens_to("e") && !all.listens_to("f"));
}

#[test]
fn hops_are_round_and_at_most_one_percent() {
    let of = |seconds: i64| hop_us(seconds * SECOND);
    assert_eq!(of(1), 10_000);
    assert_eq!(of(99), 990_000);
    assert_eq!(of(100), SECOND);
    assert_eq!(of(3_600), 30 * SECOND);
    assert_eq!(of(86_400), 600 * SECOND);
    assert_eq!(of(7 * 86_400), HOUR);
    assert_eq!(of(30 * 86_400), 6 * HOUR);
    assert_eq!(of(90 * 86_400), 12 * HOUR);
    assert_eq!(of(400 * 86_400), 2 * DAY);
    for window in (1..400 * 86_400).step_by(1_237) {
        let hop = of(window);
        assert!(hop * 100 <= window * SECOND, "{window}");
        assert!(window * SECOND / hop <= 500, "{window}");
    }
}
