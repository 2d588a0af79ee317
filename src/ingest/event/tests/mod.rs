//! Promises of reading events.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::cloud::Attributes;
use super::{Form, MAX_EVENT_BYTES, Reader};
use crate::config::{EventsConfig, FutureEvents};
use crate::features::change::{Event, What};
use crate::features::views::Views;
use crate::ingest::documents::BodyError;

/// 2026-01-31T12:00:00Z.
const NOW_US: i64 = 1_769_860_800_000_000;

fn views() -> Views {
    let folder = tempfile::tempdir().unwrap();
    for (view, entity) in [("customer", "customer_id"), ("site", "site_id")] {
        let text = format!(
            "[view]\nname = \"{view}\"\nentity = \"{entity}\"\n[[feature]]\nname = \"x\"\ntype = \"int64\"\n"
        );
        std::fs::write(folder.path().join(format!("{view}.toml")), text).unwrap();
    }
    Views::load(folder.path()).unwrap()
}

/// What was read: the events, and the index, line, id and error of those refused.
type Read = (
    Vec<Event>,
    Vec<(usize, Option<usize>, Option<String>, String)>,
);

fn read_with(config: &EventsConfig, body: &[u8], form: Form) -> Result<Read, BodyError> {
    let views = views();
    let reader = Reader::new(&views, config, NOW_US);
    let batch = reader.read(body, form)?;
    let events = batch.changes.into_iter().map(|change| match change.what {
        Some(What::Event(event)) => event,
        other => panic!("{other:?}"),
    });
    let refused = batch.refused.into_iter();
    let refused = refused.map(|one| (one.index, one.line, one.event_id, one.error));
    Ok((events.collect(), refused.collect()))
}

fn read(body: &[u8]) -> Read {
    read_with(&EventsConfig::default(), body, Form::Json).unwrap()
}

fn read_one(body: &Json) -> Event {
    let (mut events, refused) = read(body.to_string().as_bytes());
    assert_eq!(refused, []);
    assert_eq!(events.len(), 1);
    events.pop().unwrap()
}

fn refusal(body: &Json) -> String {
    let (events, mut refused) = read(body.to_string().as_bytes());
    assert_eq!(events, []);
    refused.pop().unwrap().3
}

fn ticket(changes: &Json) -> Json {
    let mut event = json!({"event_id": "e-1", "event": "ticket", "customer_id": "C-1"});
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn keys(event: &Event) -> Vec<(&str, &str)> {
    let keys = event.keys.iter();
    keys.map(|key| (key.column.as_str(), key.value.as_str()))
        .collect()
}

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

fn cloud_event(changes: &Json) -> Json {
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

fn table() -> RecordBatch {
    let column = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
    let times = TimestampMillisecondArray::from(vec![Some(NOW_US / 1000 - 1), None, None]);
    RecordBatch::try_from_iter([
        ("event_id", column(vec![Some("1"), Some("2"), None])),
        ("event", column(vec![Some("ticket"); 3])),
        ("customer_id", column(vec![Some("C-1"), None, Some("C-3")])),
        (
            "site_id",
            Arc::new(Int64Array::from(vec![None, Some(7), None])) as ArrayRef,
        ),
        (
            "occurred_at",
            Arc::new(times.with_timezone("Europe/Berlin")) as ArrayRef,
        ),
        (
            "minutes",
            Arc::new(Int64Array::from(vec![Some(3), None, None])) as ArrayRef,
        ),
        ("severity", column(vec![Some("\"high\""), None, None])),
    ])
    .unwrap()
}

fn stream(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn a_table_has_an_event_in_each_row() {
    let body = stream(&table());
    let (events, refused) = read_with(&EventsConfig::default(), &body, Form::Table).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(keys(&events[0]), [("customer_id", "C-1")]);
    assert_eq!(events[0].occurred_at_us, NOW_US - 1000);
    assert_eq!(
        events[0].properties,
        r#"{"minutes":3,"severity":"\"high\""}"#
    );
    assert_eq!(keys(&events[1]), [("site_id", "7")]);
    assert_eq!(
        (events[1].occurred_at_us, events[1].properties.as_str()),
        (NOW_US, "")
    );
    assert_eq!(refused[0].0, 2);
    assert!(
        refused[0].3.starts_with("event_id: missing"),
        "{}",
        refused[0].3
    );

    let config = EventsConfig {
        max_batch_events: 2,
        ..EventsConfig::default()
    };
    let error = read_with(&config, &body, Form::Table).unwrap_err();
    assert!(
        matches!(error, BodyError::TooMany { limit: 2, .. }),
        "{error}"
    );
    let without = table().project(&[0, 2]).unwrap();
    let error = read_with(&EventsConfig::default(), &stream(&without), Form::Table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "body: no column event; every event needs one"
    );
    for body in [&b""[..], b"{}", b"ARROW1\0\0", &[0xff; 100]] {
        let error = read_with(&EventsConfig::default(), body, Form::Table).unwrap_err();
        assert!(matches!(error, BodyError::Syntax(_)), "{error}");
    }
}

#[test]
fn a_small_table_cannot_grow_without_bound() {
    // Given a thousand rows that all have the same long text
    let long = "x".repeat(100_000);
    let texts: DictionaryArray<Int32Type> = std::iter::repeat_n(long.as_str(), 1000).collect();
    let ids = StringArray::from_iter_values((0..1000).map(|id| id.to_string()));
    let events = StringArray::from(vec!["ticket"; 1000]);
    let rows = RecordBatch::try_from_iter([
        ("event_id", Arc::new(ids) as ArrayRef),
        ("event", Arc::new(events) as ArrayRef),
        ("customer_id", Arc::new(texts) as ArrayRef),
    ])
    .unwrap();
    let body = stream(&rows);
    assert!(body.len() < 200_000);
    // When it is read, then it is refused before the texts are written out
    let error = read_with(&EventsConfig::default(), &body, Form::Table).unwrap_err();
    let expected = "body: column \"customer_id\": its texts take 100000000 bytes";
    assert!(error.to_string().starts_with(expected), "{error}");
    // And a few rows of it are read
    let body = stream(&rows.slice(0, 3));
    let (_, refused) = read_with(&EventsConfig::default(), &body, Form::Table).unwrap();
    assert!(refused[0].3.contains("bytes long"), "{}", refused[0].3);
}

/// Any JSON value, small, with the names that mean something.
fn values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
        "[a-z0-9-]{1,8}".prop_map(Json::from),
        Just(json!("2026-01-31T11:59:59.5Z")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn objects() -> impl Strategy<Value = Json> {
    let name = prop_oneof![
        8 => Just("event_id".to_owned()),
        8 => Just("event".to_owned()),
        8 => Just("customer_id".to_owned()),
        4 => Just("site_id".to_owned()),
        4 => Just("occurred_at".to_owned()),
        4 => Just("properties".to_owned()),
        1 => any::<String>(),
    ];
    let value = prop_oneof![4 => "[a-z0-9]{1,8}".prop_map(Json::from), 1 => values()];
    prop::collection::hash_map(name, value, 0..7).prop_map(|members| members.into_iter().collect())
}

/// What an event is, said with another JSON reader and without haste.
fn expected(event: &Json) -> Option<Event> {
    let text_ok =
        |text: &str| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    let known = [
        "event_id",
        "event",
        "customer_id",
        "site_id",
        "occurred_at",
        "properties",
    ];
    let members = event.as_object()?;
    if members.keys().any(|name| !known.contains(&name.as_str())) {
        return None;
    }
    let event_id = members
        .get("event_id")?
        .as_str()
        .filter(|text| text_ok(text))?;
    let name = members.get("event")?.as_str()?;
    let in_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(in_name) {
        return None;
    }
    let mut keys = Vec::new();
    for column in ["customer_id", "site_id"] {
        let value = match members.get(column) {
            None | Some(Json::Null) => continue,
            Some(Json::String(text)) => text.clone(),
            Some(Json::Number(number)) => {
                let float = number.as_f64()?;
                match number.as_i64() {
                    Some(integer) => integer.to_string(),
                    None if float.fract() == 0.0 && float.abs() < 1e18 => {
                        format!("{}", float as i64)
                    }
                    None => return None,
                }
            }
            Some(_) => return None,
        };
        if !text_ok(&value) {
            return None;
        }
        keys.push((column.to_owned(), value));
    }
    if keys.is_empty() {
        return None;
    }
    let occurred_at_us = match members.get("occurred_at") {
        None | Some(Json::Null) => NOW_US,
        Some(Json::String(text)) => crate::clock::from_rfc3339(text).ok()?,
        Some(_) => return None,
    };
    let properties = match members.get("properties") {
        None | Some(Json::Null) => String::new(),
        Some(Json::Object(members)) if members.is_empty() => String::new(),
        Some(object @ Json::Object(_)) => object.to_string(),
        Some(_) => return None,
    };
    let keys = keys.into_iter();
    Some(Event {
        event_id: event_id.to_owned(),
        event: name.to_owned(),
        keys: keys
            .map(|(column, value)| crate::features::change::KeyColumn { column, value })
            .collect(),
        occurred_at_us,
        properties,
    })
}

proptest! {
    #[test]
    fn events_are_read_as_another_reader_reads_them(
        objects in prop::collection::vec(objects(), 1..6), lines in any::<bool>()
    ) {
        let body = match lines {
            true => objects.iter().map(Json::to_string).collect::<Vec<_>>().join("\n"),
            false => Json::from(objects.clone()).to_string(),
        };
        let (mut found, refused) = read(body.as_bytes());
        for event in &mut found {
            event.keys.sort_by(|left, right| left.column.cmp(&right.column));
        }
        let expected: Vec<Event> = objects.iter().filter_map(expected).collect();
        prop_assert_eq!(found, expected);
        let wrong: Vec<usize> = (0..objects.len())
            .filter(|index| self::expected(&objects[*index]).is_none())
            .collect();
        prop_assert_eq!(refused.iter().map(|one| one.0).collect::<Vec<_>>(), wrong);
    }

    #[test]
    fn changed_bytes_of_a_body_never_do_harm(
        object in objects(), cloud in any::<bool>(), at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..4), cut in any::<bool>()
    ) {
        let object = if cloud { cloud_event(&object) } else { object };
        let mut body = Json::from(vec![object]).to_string().into_bytes();
        let at = at.index(body.len());
        body.splice(at..(at + bytes.len()).min(body.len()), bytes);
        if cut {
            body.truncate(at);
        }
        let is_json = serde_json::from_slice::<Json>(&body);
        match read_with(&EventsConfig::default(), &body, Form::Json) {
            Ok(_) => prop_assert!(is_json.is_ok() || body.starts_with(b"{"), "{:?}", is_json),
            Err(error) => prop_assert!(error.to_string().len() < 500, "{}", error),
        }
    }

    #[test]
    fn changed_bytes_of_a_table_never_do_harm(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>()
    ) {
        let mut body = stream(&table());
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Err(error) = read_with(&EventsConfig::default(), &body, Form::Table) {
            prop_assert!(error.to_string().len() < 500, "{}", error);
        }
    }
}
