//! Promises of reading events.
//!
//! * `native` – events in the server's own shape, and the bodies that hold them.
//! * `cloud` – CloudEvents.
//! * `table` – Arrow.
//! * `hostile` – held against another reader, and bodies that somebody has changed.

mod cloud;
mod hostile;
mod native;
mod table;

use serde_json::{Value as Json, json};

use super::{Form, Reader};
use crate::config::EventsConfig;
use crate::features::change::{Event, What};
use crate::features::views::Views;
use crate::ingest::documents::BodyError;

/// 2026-01-31T12:00:00Z.
pub const NOW_US: i64 = 1_769_860_800_000_000;

pub fn views() -> Views {
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
pub type Read = (
    Vec<Event>,
    Vec<(usize, Option<usize>, Option<String>, String)>,
);

pub fn read_with(config: &EventsConfig, body: &[u8], form: Form) -> Result<Read, BodyError> {
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

pub fn read(body: &[u8]) -> Read {
    read_with(&EventsConfig::default(), body, Form::Json).unwrap()
}

pub fn read_one(body: &Json) -> Event {
    let (mut events, refused) = read(body.to_string().as_bytes());
    assert_eq!(refused, []);
    assert_eq!(events.len(), 1);
    events.pop().unwrap()
}

pub fn refusal(body: &Json) -> String {
    let (events, mut refused) = read(body.to_string().as_bytes());
    assert_eq!(events, []);
    refused.pop().unwrap().3
}

pub fn ticket(changes: &Json) -> Json {
    let mut event = json!({"event_id": "e-1", "event": "ticket", "customer_id": "C-1"});
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

pub fn keys(event: &Event) -> Vec<(&str, &str)> {
    let keys = event.keys.iter();
    keys.map(|key| (key.column.as_str(), key.value.as_str()))
        .collect()
}
