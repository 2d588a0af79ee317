//! Where events of files go: into the data directory of a stopped server, or to a running one.

use std::time::Duration;

use serde::Deserialize;
use tokio::runtime::Runtime;
use ureq::Agent;

use crate::clock;
use crate::features::change::{Change, Event, What};
use crate::features::value::shorten;
use crate::ingest::Ingest;
use crate::store::entity::Applied;

/// The largest body of one request, in bytes; one event may be larger.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// How often a request is sent again to a server that has no time or cannot be reached.
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where events go.
pub enum Destination {
    /// A data directory that no server has open.
    DataDir(Runtime, Ingest),
    /// A running server, by the address of its `POST /v1/events`.
    Server(Agent, String),
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
struct Reply {
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
    /// A running server at `url`, for example `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When it is no URL.
    pub fn server(url: &str) -> Result<Destination, String> {
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http || url.contains(char::is_whitespace) {
            return Err(format!(
                "--server: expected a URL like http://127.0.0.1:8080, found {url:?}"
            ));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        let url = format!("{}/v1/events", url.trim_end_matches('/'));
        Ok(Destination::Server(Agent::new_with_config(config), url))
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
            Destination::Server(agent, url) => {
                let mut sent = Sent::default();
                let (mut body, mut first, mut count) = (String::new(), 0, 0);
                for change in &changes {
                    if let Some(What::Event(event)) = &change.what {
                        write_event(&mut body, event);
                    }
                    count += 1;
                    if body.len() >= MAX_REQUEST_BYTES {
                        post(agent, url, &body, first, &mut sent)?;
                        (first, body) = (count, String::new());
                    }
                }
                if !body.is_empty() {
                    post(agent, url, &body, first, &mut sent)?;
                }
                Ok(sent)
            }
        }
    }
}

/// Posts one body whose first event is the change with index `first`.
fn post(agent: &Agent, url: &str, body: &str, first: usize, sent: &mut Sent) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let problem = match try_post(agent, url, body) {
            Ok((200 | 422, answer)) => {
                let reply: Reply = serde_json::from_str(&answer)
                    .map_err(|error| format!("{url}: answered no reply to events: {error}"))?;
                let listed = reply.refused.len() as u64;
                sent.more_refused += reply.refused_total.unwrap_or(listed).saturating_sub(listed);
                sent.duplicates += reply.duplicates;
                let refused = reply.refused.into_iter();
                sent.refused
                    .extend(refused.map(|refused| (first + refused.index, refused.error)));
                return Ok(());
            }
            // It has no time, or its log is not to be had, and says that it may pass.
            Ok((status @ (408 | 429 | 502..=504), answer)) => {
                format!("{url}: {status} {}", shorten(&answer, 200))
            }
            Ok((status, answer)) => {
                return Err(format!("{url}: {status} {}", shorten(&answer, 500)));
            }
            Err(error) => format!("{url}: {error}"),
        };
        if attempt >= TRIES {
            return Err(format!("{problem}; gave up after {TRIES} tries"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn try_post(agent: &Agent, url: &str, body: &str) -> Result<(u16, String), ureq::Error> {
    let request = agent
        .post(url)
        .header("content-type", "application/x-ndjson");
    let mut response = request.send(body)?;
    let answer = response.body_mut().read_to_string()?;
    Ok((response.status().as_u16(), answer))
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

    #[test]
    fn a_server_that_is_no_url_is_refused() {
        for url in ["127.0.0.1:8080", "", "ftp://x", "http://a b"] {
            assert!(Destination::server(url).is_err(), "{url}");
        }
    }
}
