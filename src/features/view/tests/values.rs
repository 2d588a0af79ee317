//! Values from outside: what may be stored, overridden and sent along, and what is said of the rest.

use serde_json::json;

use super::*;

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
