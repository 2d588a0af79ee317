//! Files that are wrong: every mistake by line, with what was expected and what may have been meant.

use super::*;

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
