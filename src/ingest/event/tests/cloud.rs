//! CloudEvents, in all their modes.

use serde_json::{Value as Json, json};

use super::*;
use crate::ingest::event::cloud::Attributes;

pub fn cloud_event(changes: &Json) -> Json {
    let mut event = json!({
        "specversion": "1.0", "id": "e-1", "source": "/crm", "type": "com.example.ticket",
        "time": "2026-01-31T11:00:00Z", "datacontenttype": "application/json", "traceparent": "00-1",
        "subject": "C-1", "data": {"severity": "high", "site_id": "S-1"},
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

#[test]
fn cloud_events_are_read_as_what_they_say() {
    for form in [Form::Json, Form::CloudEvents] {
        let body = cloud_event(&json!({})).to_string();
        let (events, refused) = read_with(&EventsConfig::default(), body.as_bytes(), form).unwrap();
        assert_eq!(refused, []);
        let event = &events[0];
        assert_eq!(
            (event.event_id.as_str(), event.event.as_str()),
            ("e-1", "com.example.ticket")
        );
        assert_eq!(keys(event), [("site_id", "S-1"), ("customer_id", "C-1")]);
        assert_eq!(event.occurred_at_us, NOW_US - 3_600_000_000);
        assert_eq!(event.properties, r#"{"severity":"high","site_id":"S-1"}"#);
    }
    // A key in the data is nearer than the subject.
    let event = read_one(&cloud_event(&json!({"data": {"customer_id": 2}})));
    assert_eq!(keys(&event), [("customer_id", "2")]);
    for (changes, expected) in [
        (
            json!({"specversion": "0.3"}),
            "specversion: expected \"1.0\", found \"0.3\"",
        ),
        (json!({"id": ""}), "id: empty"),
        (json!({"type": null}), "type: missing"),
        (
            json!({"data": "text"}),
            "data: expected an object, found the string \"text\"",
        ),
        (
            json!({"datacontenttype": "text/xml"}),
            "datacontenttype: expected application/json",
        ),
        (json!({"data_base64": "AA=="}), "data_base64: expected data"),
        (json!({"subject": null, "data": {}}), "reaches no view"),
    ] {
        let error = refusal(&cloud_event(&changes));
        assert!(error.starts_with(expected), "{changes}: {error}");
    }
}

#[test]
fn a_cloud_event_may_come_in_binary_mode() {
    let views = views();
    let config = EventsConfig::default();
    let reader = Reader::new(&views, &config, NOW_US);
    let attributes = || Attributes {
        specversion: Some("1.0".to_owned()),
        id: Some("e-1".to_owned()),
        kind: Some("ticket".to_owned()),
        time: None,
        subject: Some("C-1".to_owned()),
        content_type: Some("application/json; charset=utf-8".to_owned()),
    };
    for (data, properties) in [
        (r#" {"minutes": 3} "#, r#"{"minutes": 3}"#),
        ("", ""),
        ("null", ""),
    ] {
        let batch = reader.read_binary(attributes(), data.as_bytes()).unwrap();
        let Some(What::Event(event)) = &batch.changes[0].what else {
            panic!("{batch:?}");
        };
        assert_eq!(event.properties, properties);
        assert_eq!(keys(event), [("customer_id", "C-1")]);
    }
    assert!(reader.read_binary(attributes(), b"{\"minutes\"").is_err());
    let wrong = Attributes {
        content_type: Some("text/xml".to_owned()),
        ..attributes()
    };
    assert_eq!(reader.read_binary(wrong, b"").unwrap().refused.len(), 1);
}
