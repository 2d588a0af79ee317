//! Events in the server's own shape: alone, in lists and on lines.

use serde_json::json;

use super::*;
use crate::config::FutureEvents;
use crate::ingest::event::MAX_EVENT_BYTES;

#[test]
fn an_event_keeps_what_was_sent() {
    let event = read_one(&ticket(&json!({
        "occurred_at": "2026-01-31T12:30:00.25+01:00", "site_id": 17, "properties": {"minutes": 1e3},
    })));
    assert_eq!(
        (event.event_id.as_str(), event.event.as_str()),
        ("e-1", "ticket")
    );
    assert_eq!(keys(&event), [("customer_id", "C-1"), ("site_id", "17")]);
    assert_eq!(event.occurred_at_us, NOW_US - 1_799_750_000);
    assert_eq!(event.properties, r#"{"minutes":1000.0}"#);
}

#[test]
fn what_is_left_out_or_null_is_now_and_nothing() {
    let nulls = json!({"occurred_at": null, "properties": null, "site_id": null});
    for event in [
        ticket(&json!({})),
        ticket(&nulls),
        ticket(&json!({"properties": {}})),
    ] {
        let event = read_one(&event);
        assert_eq!(event.occurred_at_us, NOW_US);
        assert_eq!(event.properties, "");
        assert_eq!(keys(&event), [("customer_id", "C-1")]);
    }
}

#[test]
fn lists_and_lines_hold_many_events_and_wrong_ones_keep_their_place() {
    let good = ticket(&json!({})).to_string();
    let bad = ticket(&json!({"event": "a b"})).to_string();
    let (events, refused) = read(format!("[{good}, {bad}, 3, {good}]").as_bytes());
    assert_eq!(events.len(), 2);
    let places: Vec<_> = refused
        .iter()
        .map(|one| (one.0, one.1, one.2.as_deref()))
        .collect();
    assert_eq!(places, [(1, None, Some("e-1")), (2, None, None)]);
    assert_eq!(refused[1].3, "expected an event, found the number 3");

    let (events, refused) = read(format!("{good}\r\n\n{bad}\n{good}\n").as_bytes());
    assert_eq!(events.len(), 2);
    assert_eq!((refused[0].0, refused[0].1), (1, Some(3)));
    assert_eq!(read(b"[]"), (vec![], vec![]));
}

#[test]
fn each_mistake_is_named_with_its_field() {
    let long = "x".repeat(300);
    for (changes, expected) in [
        (
            json!({"event_id": null}),
            "event_id: missing; it makes sending an event again safe",
        ),
        (json!({"event_id": ""}), "event_id: empty"),
        (
            json!({"event_id": 7}),
            "event_id: expected text, found the number 7",
        ),
        (
            json!({"event_id": long}),
            "event_id: 300 bytes long, at most 256 are allowed",
        ),
        (
            json!({"event_id": "a\nb"}),
            "event_id: holds control characters",
        ),
        (json!({"event": null}), "event: missing"),
        (json!({"event": "a/b"}), "event: expected 1 to 128 letters"),
        (json!({"event": ""}), "event: expected 1 to 128 letters"),
        (json!({"customer_id": ""}), "customer_id: empty"),
        (
            json!({"customer_id": "a\u{85}b"}),
            "customer_id: holds control characters",
        ),
        (
            json!({"customer_id": 1.5}),
            "customer_id: expected text or a whole number, found the number 1.5",
        ),
        (
            json!({"customer_id": true}),
            "customer_id: expected text or a whole number, found the boolean true",
        ),
        (
            json!({"customer_id": null}),
            "reaches no view: found no key column, expected customer_id (view customer), or site_id (view site)",
        ),
        (
            json!({"occurred_at": 17}),
            "occurred_at: expected a time like \"2026-01-31T12:00:00Z\", found the number 17",
        ),
        (
            json!({"occurred_at": "yesterday"}),
            "occurred_at: expected a time like 2026-01-31T12:00:00Z, found \"yesterday\"",
        ),
        (
            json!({"occurred_at": "1969-12-31T23:59:59Z"}),
            "occurred_at: expected a time between",
        ),
        (
            json!({"occurred_at": "2200-01-01T00:00:00Z"}),
            "occurred_at: expected a time between",
        ),
        (
            json!({"occurred_at": "2026-01-31T12:00:06Z"}),
            "lies 6 s in the future, at most 5 s",
        ),
        (
            json!({"properties": [1]}),
            "properties: expected an object, found an array",
        ),
        (
            json!({"propertys": {}}),
            "propertys: no such field; did you mean properties?",
        ),
        (
            json!({"customerid": "C-1"}),
            "customerid: no such field; did you mean customer_id?",
        ),
        (
            json!({"properties": {"x": "y".repeat(MAX_EVENT_BYTES)}}),
            "bytes long, at most 16384 are allowed",
        ),
    ] {
        let error = refusal(&ticket(&changes));
        assert!(error.contains(expected), "{changes}: {error}");
    }
    let twice = br#"{"event_id":"1","event":"e","customer_id":"a","customer_id":"b"}"#;
    assert_eq!(read(twice).1[0].3, "customer_id: given twice");
}

#[test]
fn events_of_the_near_future_are_parked_when_that_is_declared() {
    let config = EventsConfig {
        future: FutureEvents::Park,
        ..EventsConfig::default()
    };
    let at = |time: &str| ticket(&json!({"occurred_at": time})).to_string();
    let body = [at("2026-02-01T11:59:59Z"), at("2026-02-01T12:00:01Z")].join("\n");
    let (events, refused) = read_with(&config, body.as_bytes(), Form::Json).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(refused[0].0, 1);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_the_place() {
    for (body, expected) in [
        ("", "body: empty, expected a JSON event"),
        (
            "3",
            "body: expected events: an object, a list, or an object on each line; found the number 3",
        ),
        (
            "{\"event_id\": \"1\",\n  \"event\" \"x\"}",
            "body: line 2, column 11: expected a colon, found '\"'",
        ),
        (
            "[{\"event_id\": \"1\"}",
            "body: line 1, column 19: expected a comma or the end of the array",
        ),
        (
            "{}{",
            "body: line 1, column 4: expected a string, found the end of the body",
        ),
        (
            "[] []",
            "body: line 1, column 4: expected the end of the body",
        ),
    ] {
        let error = read_with(&EventsConfig::default(), body.as_bytes(), Form::Json).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{body}: {error}");
    }
    let config = EventsConfig {
        max_batch_events: 2,
        ..EventsConfig::default()
    };
    for body in ["[{},{},{}]", "{}\n{}\n{}"] {
        let error = read_with(&config, body.as_bytes(), Form::Json).unwrap_err();
        assert!(
            matches!(error, BodyError::TooMany { limit: 2, .. }),
            "{error}"
        );
    }
}
