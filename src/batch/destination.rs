//! Where events of files go: into the data directory of a stopped server, or to a running one.

use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Runtime;

use super::patience::patiently;
use crate::clock;
use crate::features::change::{Change, Event, What};
use crate::features::value::shorten;
use crate::ingest::Ingest;
use crate::remote::{Remote, Reply};
use crate::store::entity::Applied;

/// The largest body of one request, in bytes; one event may be larger.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

const PATH: &str = "/v1/events";

/// Where events go.
pub enum Destination {
    /// A data directory that no server has open.
    DataDir(Runtime, Ingest),
    /// A running server.
    Server(Remote),
}

/// What became of a batch of events.
#[derive(Debug, Default)]
pub struct Sent {
    pub duplicates: u64,
    /// Index of the change, and why it was refused.
    pub refused: Vec<(usize, String)>,
    /// How many more were refused whose reason is not known.
    pub more_refused: u64,
}

/// The answer of `POST /v1/events`.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    refused: Vec<RefusedEvent>,
    #[serde(default)]
    refused_total: Option<u64>,
}

#[derive(Deserialize)]
struct RefusedEvent {
    index: usize,
    error: String,
}

impl Destination {
    /// A running server.
    pub fn server(server: Remote) -> Destination {
        Destination::Server(server.within(ANSWER_TIMEOUT))
    }

    /// Sends changes; they are on disk and applied when it returns.
    ///
    /// # Errors
    /// Why it cannot go on. Some may have been applied; sending them again is safe.
    pub fn send(&self, changes: Vec<Change>) -> Result<Sent, String> {
        match self {
            Destination::DataDir(runtime, ingest) => {
                let applied = runtime.block_on(ingest.submit(changes));
                let applied = applied.map_err(|error| error.to_string())?;
                let mut sent = Sent::default();
                for (index, applied) in applied.into_iter().enumerate() {
                    match applied {
                        Applied::Duplicate => sent.duplicates += 1,
                        Applied::Refused(reason) => sent.refused.push((index, reason)),
                        Applied::Done | Applied::Absent => {}
                    }
                }
                Ok(sent)
            }
            Destination::Server(server) => {
                let mut sent = Sent::default();
                let (mut body, mut first, mut count) = (String::new(), 0, 0);
                for change in &changes {
                    if let Some(What::Event(event)) = &change.what {
                        write_event(&mut body, event);
                    }
                    count += 1;
                    if body.len() >= MAX_REQUEST_BYTES {
                        post(server, &body, first, &mut sent)?;
                        (first, body) = (count, String::new());
                    }
                }
                if !body.is_empty() {
                    post(server, &body, first, &mut sent)?;
                }
                Ok(sent)
            }
        }
    }
}

/// Posts one body whose first event is the change with index `first`.
fn post(server: &Remote, body: &str, first: usize, sent: &mut Sent) -> Result<(), String> {
    let reply = patiently(|| {
        let reply = server.post(PATH, "application/x-ndjson", body.as_bytes())?;
        Ok(match reply.status.as_u16() {
            200 | 422 => Ok(reply),
            _ => Err(reply),
        })
    })?;
    take(&reply, first, sent)
}

/// Takes what became of the events of one body.
fn take(reply: &Reply, first: usize, sent: &mut Sent) -> Result<(), String> {
    let answer: Answer = serde_json::from_str(&reply.text).map_err(|error| {
        let found = shorten(&reply.text, 200);
        format!("{PATH}: answered no reply to events: {error}: {found}")
    })?;
    let listed = answer.refused.len() as u64;
    sent.more_refused += answer
        .refused_total
        .unwrap_or(listed)
        .saturating_sub(listed);
    sent.duplicates += answer.duplicates;
    let refused = answer.refused.into_iter();
    sent.refused
        .extend(refused.map(|refused| (first + refused.index, refused.error)));
    Ok(())
}

/// An event as a line of JSON.
fn write_event(lines: &mut String, event: &Event) {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    lines.push_str("{\"event_id\":");
    lines.push_str(&text(&event.event_id));
    lines.push_str(",\"event\":");
    lines.push_str(&text(&event.event));
    for key in &event.keys {
        lines.push(',');
        lines.push_str(&text(&key.column));
        lines.push(':');
        lines.push_str(&text(&key.value));
    }
    lines.push_str(",\"occurred_at\":");
    lines.push_str(&text(&clock::to_rfc3339(event.occurred_at_us)));
    if !event.properties.is_empty() {
        lines.push_str(",\"properties\":");
        // A JSON object as text; it may have been written over several lines.
        lines.extend(event.properties.chars().filter(|letter| *letter != '\n'));
    }
    lines.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::change::KeyColumn;

    #[test]
    fn an_event_is_sent_as_it_was_read() {
        let key = |column: &str, value: &str| KeyColumn {
            column: column.to_owned(),
            value: value.to_owned(),
        };
        let event = Event {
            event_id: "a\"b".to_owned(),
            event: "ticket".to_owned(),
            keys: vec![key("customer_id", "7"), key("site_id", "x")],
            occurred_at_us: 1_769_860_800_000_001,
            properties: "{\"hours\":\n1.50}".to_owned(),
        };
        let mut line = String::new();
        write_event(&mut line, &event);
        assert_eq!(
            line,
            "{\"event_id\":\"a\\\"b\",\"event\":\"ticket\",\"customer_id\":\"7\",\"site_id\":\"x\",\
             \"occurred_at\":\"2026-01-31T12:00:00.000001Z\",\"properties\":{\"hours\":1.50}}\n"
        );
    }
}
