//! What loading a view promises, and what it says of every mistake.

use super::*;
use arrow::array::{AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::json;

const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"
max_age = "30d"

[[feature]]
name = "per_month_twice"
type = "float64"
expression = "per_month * 2"

[[feature]]
name = "tenure"
type = "int64"
default = 0
min = 0

[[feature]]
name = "total"
type = "float64"

[[feature]]
name = "per_month"
type = "float64"
expression = "total / greatest(tenure, 1)"

[[feature]]
name = "contract"
type = "string"
values = ["Month-to-month", "One year"]
unknown = "refuse"
"#;

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
fn values_are_checked_and_the_error_names_the_feature() {
    let view = View::parse(VIEW).unwrap();
    for (name, value, message) in [
        (
            "tenure",
            json!(-1),
            "tenure: -1 is out of range, expected at least 0",
        ),
        (
            "tenure",
            json!("x"),
            "tenure: expected int64, found the string \"x\"",
        ),
        (
            "tenur",
            json!(1),
            "tenur: no such feature in view customer; did you mean tenure?",
        ),
        (
            "contract",
            json!("Weekly"),
            "contract: unknown value \"Weekly\", expected one of \"Month-to-month\", \"One year\"",
        ),
        (
            "per_month",
            json!(1.0),
            "per_month: is derived and cannot be set; set what it is computed from (tenure, total)",
        ),
    ] {
        assert_eq!(
            view.read_value(name, &value).unwrap_err().to_string(),
            message
        );
    }
    assert_eq!(
        view.read_value("total", &json!(null)).unwrap().1,
        Value::Null
    );
}

const SITE_VISIT: &str = r#"
[view]
name = "site_visit"
entity = ["customer_id", "site_id"]
owner = "field service"
purposes = ["service"]

[[relation]]
name = "site"
view = "site"
key = "site_id"

[[relation]]
name = "cell"
view = "cell"
key = ["region", "cell_number"]

[[feature]]
name = "late_visits_share"
type = "float64"
expression = "visits_late_90d * 1.0 / visits_90d + request_hour * 0"

[[feature]]
name = "risk"
type = "float64"
from = "site.risk"
default = 0.5
max_age = "1d"

[[feature]]
name = "visits"
type = "int64"
aggregate = { event = "visit", function = "count", window = ["1h", "90d"] }

[[feature]]
name = "visits_late_90d"
type = "int64"
aggregate = { event = "visit", function = "count", window = "90d", where = "late" }

[[feature]]
name = "minutes"
type = "float64"
aggregate = { event = "visit", function = "avg", window = "7d", value = "minutes", group_by = "kind", groups = ["Repair", "New line"] }

[[feature]]
name = "reasons"
type = "string"
aggregate = { event = "visit", function = "top_k", window = "90d", value = "reason", k = 3 }

[[feature]]
name = "channel"
type = "string"
source = "request"
values = ["app", "phone"]
default = "app"

[[feature]]
name = "cell_number"
type = "int64"
personal = true
purposes = []
owner = "network"

[[feature]]
name = "region"
type = "string"
tags = ["geo"]
"#;

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

#[test]
fn only_stored_features_can_be_stored_and_all_but_derived_ones_overridden() {
    let view = View::parse(SITE_VISIT).unwrap();
    for (name, part) in [
        ("channel", "send it as `context`"),
        ("visits_90d", "send events \"visit\""),
        ("risk", "is read from view site"),
        ("late_visits_share", "is derived and cannot be set"),
    ] {
        let error = view.read_value(name, &json!(null)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        let overridden = view.read_override(name, &json!(null));
        assert_eq!(overridden.is_ok(), name != "late_visits_share");
    }
    assert!(view.read_context("channel", &json!("fax")).unwrap().2);
    assert!(view.read_context("request_hour", &json!(4)).is_ok());
    for (name, value, message) in [
        (
            "chanel",
            json!("app"),
            "chanel: no such request feature in view site_visit; did you mean channel?",
        ),
        (
            "region",
            json!("x"),
            "region: is a stored feature; what a request may say of it goes into `features`",
        ),
        (
            "request_hour",
            json!(24),
            "request_hour: 24 is out of range, expected 0 to 23",
        ),
    ] {
        let error = view.read_context(name, &value).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// Changes one text of a view into another, and says what is then reported.
fn mistake_of(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    match View::parse(&text.replacen(from, to, 1)) {
        Ok(_) => panic!("{to}: accepted"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn mistakes_in_a_view_file_are_named_with_line_and_suggestion() {
    for (from, to, message) in [
        (
            "name = \"customer\"",
            "name = \"reload\"",
            "line 3: [view]: name: reload is a path of the server, /v1/features/reload; take another name",
        ),
        (
            "total / greatest",
            "totl / greatest",
            "line 25: feature per_month: expression \"totl / greatest(tenure, 1)\": no feature totl; \
             did you mean total?",
        ),
        (
            "default = 0",
            "default = -3",
            "line 15: feature tenure: default: -3 is out of range, expected at least 0",
        ),
        (
            "default = 0",
            "default = \"x\"",
            "line 15: feature tenure: default: expected int64, found the string \"x\"",
        ),
        (
            "min = 0",
            "mini = 0",
            "line 16: feature tenure: unknown key `mini` in [[feature]]; did you mean min?",
        ),
        (
            "min = 0",
            "min = 0\nmax = -1",
            "line 16: feature tenure: min is greater than max",
        ),
        (
            "min = 0",
            "min = true",
            "line 16: feature tenure: min: expected a finite number, found true",
        ),
        (
            "name = \"total\"\ntype = \"float64\"",
            "name = \"total\"\ntype = \"float\"",
            "line 20: feature total: type: expected one of string, int64, float64, bool, found \
             \"float\"; did you mean float64?",
        ),
        (
            "name = \"total\"\n",
            "nam = \"total\"\n",
            "line 18: feature number 3: name is missing; add it to [[feature]]",
        ),
        (
            "\"total\"",
            "\"tenure\"",
            "line 19: feature tenure: is declared twice, first in line 13",
        ),
        (
            "\"total\"",
            "\"Total Charges\"",
            "line 19: feature Total Charges: name \"Total Charges\": expected lower-case letters, \
             digits and underscores, starting with a letter, at most 64; for example total_charges",
        ),
        (
            "total / greatest(tenure, 1)",
            "per_month_twice + 1",
            "line 8: feature per_month_twice: its expression depends on itself through other \
             features: per_month_twice, per_month read each other",
        ),
        (
            "total / greatest(tenure, 1)",
            "per_month + 1",
            "line 23: feature per_month: its expression depends on itself",
        ),
        (
            "\"30d\"",
            "\"soon\"",
            "line 5: [view]: max_age: \"soon\" is no duration",
        ),
        (
            "\"30d\"",
            "30",
            "line 5: [view]: max_age: expected a duration in quotes, for example \"30d\", found the \
             number 30",
        ),
        (
            "\"total\"",
            "\"customer_id\"",
            "line 19: feature customer_id: is a key column of the entity; it cannot be a feature",
        ),
        (
            "unknown = \"refuse\"",
            "unknown = \"refus\"",
            "line 31: feature contract: unknown: expected one of pass, refuse, found \"refus\"; did \
             you mean refuse?",
        ),
        (
            "unknown = \"refuse\"",
            "default = \"Weekly\"",
            "line 31: feature contract: default is not among values",
        ),
        (
            "unknown = \"refuse\"",
            "max = 4",
            "line 31: feature contract: max needs a number, the type is string",
        ),
        (
            "unknown = \"refuse\"",
            "default = 2026-01-01",
            "line 31: feature contract: default: expected a value; dates are not a feature type",
        ),
        (
            "per_month * 2\"",
            "per_month * 2\"\ndefault = 1.0",
            "line 11: feature per_month_twice: default belongs to the features that the expression \
             reads; leave it out",
        ),
        (
            "[view]",
            "[views]",
            "unknown key `views` in the file; did you mean view?",
        ),
        ("[view]", "[view", "line 2: not TOML"),
    ] {
        let found = mistake_of(VIEW, from, to);
        assert!(
            found.contains(message),
            "expected {message}\nfound    {found}"
        );
    }
    let (without_features, _) = VIEW.split_once("[[feature]]").unwrap();
    let error = View::parse(without_features).unwrap_err().to_string();
    assert_eq!(error, "line 1: feature is missing; add a [[feature]]");
}

#[test]
fn mistakes_in_windows_relations_and_keys_are_named() {
    for (from, to, message) in [
        (
            "function = \"top_k\"",
            "function = \"topk\"",
            "line 48: feature reasons: function: expected one of count, sum, avg",
        ),
        (
            "function = \"top_k\"",
            "function = \"topk\"",
            "did you mean top_k?",
        ),
        (
            "k = 3 }",
            "k = 0 }",
            "line 48: feature reasons: k: expected 1 to 100, found 0",
        ),
        (
            "k = 3 }",
            "q = 0.5 }",
            "line 48: feature reasons: q is for quantile only",
        ),
        (
            ", value = \"reason\"",
            "",
            "line 48: feature reasons: top_k needs a value; add value = \"…\", SQL over the event's \
             properties",
        ),
        (
            "where = \"late\"",
            "value = \"late\"",
            "line 38: feature visits_late_90d: count takes no value",
        ),
        (
            "where = \"late\"",
            "were = \"late\"",
            "line 38: feature visits_late_90d: unknown key `were` in aggregate; did you mean where?",
        ),
        (
            "window = \"7d\"",
            "window = \"7 moons\"",
            "line 43: feature minutes: window: \"7 moons\" is no duration",
        ),
        (
            ", group_by = \"kind\"",
            "",
            "line 43: feature minutes: groups without group_by",
        ),
        (
            "[\"Repair\", \"New line\"]",
            "[\"Repair\", \"repair\"]",
            "feature minutes_repair: is declared twice",
        ),
        (
            "type = \"int64\"\naggregate = { event = \"visit\", function = \"count\", window = \"90d\"",
            "type = \"bool\"\naggregate = { event = \"visit\", function = \"count\", window = \"90d\"",
            "line 38: feature visits_late_90d: type: count gives float64 or int64, found bool",
        ),
        (
            "source = \"request\"",
            "source = \"request\"\nexpression = \"1\"",
            "line 54: feature channel: has both source = \"request\" and expression",
        ),
        (
            "default = \"app\"",
            "max_age = \"1d\"",
            "line 55: feature channel: max_age belongs to values that are stored; leave it out",
        ),
        (
            "from = \"site.risk\"",
            "from = \"sit.risk\"",
            "line 26: feature risk: from \"sit.risk\": no relation sit; did you mean site?",
        ),
        (
            "from = \"site.risk\"",
            "from = \"risk\"",
            "line 26: feature risk: from \"risk\": expected \"relation.feature\"",
        ),
        (
            "\"region\", \"cell_number\"",
            "\"regio\", \"cell_number\"",
            "line 16: relation cell: key: no feature regio in this view; did you mean region?",
        ),
        (
            "\"region\", \"cell_number\"",
            "\"visits_1h\"",
            "line 16: relation cell: key: visits_1h is a window feature; expected a stored or request \
             feature, or a key column",
        ),
        (
            "name = \"cell\"\nview",
            "name = \"site\"\nview",
            "line 14: relation site: is declared twice",
        ),
        (
            "[\"customer_id\", \"site_id\"]",
            "[\"site_id\", \"site_id\"]",
            "line 4: [view]: entity: site_id is named twice",
        ),
        (
            "[\"customer_id\", \"site_id\"]",
            "[]",
            "line 4: [view]: entity: expected at least one, found an empty list",
        ),
        (
            "name = \"channel\"",
            "name = \"request_hour\"",
            "line 51: feature request_hour: request_hour is the server's own; declare it with type = \
             \"int64\" and source = \"request\", or take another name",
        ),
    ] {
        let found = mistake_of(SITE_VISIT, from, to);
        assert!(
            found.contains(message),
            "expected {message}\nfound    {found}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_lines() {
    let text = VIEW
        .replace("min = 0", "mini = 0")
        .replace("\"30d\"", "30")
        .replace("total / greatest", "totl / greatest")
        .replace("unknown = \"refuse\"", "defualt = 1");
    let mistakes = View::parse(&text).unwrap_err().0;
    let lines: Vec<usize> = mistakes.iter().filter_map(|mistake| mistake.line).collect();
    assert_eq!(lines, [5, 16, 25, 31], "{mistakes:?}");
}
