//! Reading events: from the bytes somebody sent to changes for the log.
//!
//! An event is an object with `event_id`, `event`, the key columns of one or more views, and perhaps
//! `occurred_at` and `properties`. A body holds one, a list, or one after another (a line each); or
//! CloudEvents in any of their three modes; or a table as an Arrow IPC stream.
//!
//! Promises: a body that is not what it says it is is refused as a whole, with the place. An event
//! that is wrong is refused by itself, with its index and the field; the others are taken. Every
//! bound is a constant here or a setting; nothing that is sent panics. The common case is read once,
//! from front to back, and copied once.
//!
//! * [`object`] – the native shape.
//! * [`cloud`] – CloudEvents 1.0.
//! * [`table`] – rows of Arrow batches; [`stream`] – Arrow IPC streams.
//! * [`draft`] – what all forms have in common: checks, and the change that comes of them.
//! * [`time`] – RFC 3339, quickly.
//!
//! It does not log, number or apply anything; see [`super::take`].

pub mod cloud;
pub mod draft;
pub mod object;
pub mod stream;
pub mod table;
#[cfg(test)]
mod tests;
pub mod time;

use crate::config::{EventsConfig, FutureEvents};
use crate::features::change::Change;
use crate::features::view::View;
use crate::features::views::Views;
use crate::ingest::documents::{self, BodyError, Layout};
use crate::json::{Cursor, Unexpected};

/// The most bytes of one event, as it is written.
pub const MAX_EVENT_BYTES: usize = 16 * 1024;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON: an event, a list of events, or one event after another. An object with `specversion` is
    /// a CloudEvent.
    Json,
    /// The same, of CloudEvents only.
    CloudEvents,
    /// An Arrow IPC stream.
    Table,
}

impl Form {
    /// The form that a content type names; without one, and for the general ones that clients send
    /// when they are told nothing, JSON.
    ///
    /// # Errors
    /// The content type when it is another one.
    pub fn of_content_type(content_type: Option<&str>) -> Result<Form, &str> {
        let full = content_type.unwrap_or_default();
        let essence = full.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let json = [
            "",
            "application/json",
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
            "application/jsonlines",
            "application/x-www-form-urlencoded",
            "application/octet-stream",
            "text/plain",
        ];
        if json.iter().any(|name| is(name)) {
            Ok(Form::Json)
        } else if is("application/cloudevents+json") || is("application/cloudevents-batch+json") {
            Ok(Form::CloudEvents)
        } else if is("application/vnd.apache.arrow.stream") {
            Ok(Form::Table)
        } else {
            Err(full)
        }
    }
}

/// What was read of a body.
#[derive(Debug, Default)]
pub struct EventBatch {
    /// The events that are right.
    pub changes: Vec<Change>,
    /// The index of each of them among the events of the body.
    pub indexes: Vec<usize>,
    /// The events that are not.
    pub refused: Vec<RefusedEvent>,
}

impl EventBatch {
    /// How many events the body had.
    pub fn count(&self) -> usize {
        self.changes.len() + self.refused.len()
    }

    /// Adds the event that follows.
    fn add(&mut self, finished: draft::Finished) {
        let index = self.count();
        match finished {
            Ok(change) => {
                self.changes.push(change);
                self.indexes.push(index);
            }
            Err(refusal) => self.refused.push(RefusedEvent {
                index,
                line: None,
                event_id: refusal.event_id,
                error: refusal.error,
            }),
        }
    }
}

/// An event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Its index among the events of the body, from 0.
    pub index: usize,
    /// The line on which it begins, from 1, where the body is one event after another.
    pub line: Option<usize>,
    /// Its id, where it has one that can be shown.
    pub event_id: Option<String>,
    /// The field, what was found and what was expected.
    pub error: String,
}

/// Reads events for a set of views.
#[derive(Debug)]
pub struct Reader<'a> {
    /// Every key column of every view, once.
    columns: Vec<&'a str>,
    /// The views with the indexes of their key columns.
    views: Vec<(&'a View, Vec<usize>)>,
    /// The column that a CloudEvent's subject is.
    subject: Option<usize>,
    limit: usize,
    /// The latest time an event may have.
    latest_us: i64,
    now_us: i64,
    /// The time of an event that does not say when.
    default_time_us: i64,
}

impl<'a> Reader<'a> {
    /// A reader of what arrives at `now_us`.
    pub fn new(views: &'a Views, config: &EventsConfig, now_us: i64) -> Reader<'a> {
        let mut columns: Vec<&str> = Vec::new();
        let mut indexed = Vec::new();
        for view in views.all() {
            let mut of_view = Vec::new();
            for column in view.key_columns() {
                let known = columns.iter().position(|known| known == column);
                of_view.push(known.unwrap_or_else(|| {
                    columns.push(column);
                    columns.len() - 1
                }));
            }
            indexed.push((&**view, of_view));
        }
        let skew = micros(config.max_clock_skew);
        let ahead = match config.future {
            FutureEvents::Refuse => skew,
            FutureEvents::Park => skew.max(micros(config.max_ahead)),
        };
        Reader {
            subject: columns
                .iter()
                .position(|column| *column == config.cloudevents_subject),
            columns,
            views: indexed,
            limit: config.max_batch_events,
            latest_us: now_us.saturating_add(ahead),
            now_us,
            default_time_us: now_us,
        }
    }

    /// With another time for events that do not say when they happened: the time a broker took them,
    /// so that an event which is delivered twice is the same event.
    pub fn with_default_time(mut self, time_us: i64) -> Reader<'a> {
        self.default_time_us = time_us.min(self.now_us);
        self
    }

    /// Without a bound on the number of events; for what is bounded elsewhere.
    pub fn without_limit(mut self) -> Reader<'a> {
        self.limit = usize::MAX;
        self
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the whole body is refused.
    pub fn read(&self, body: &[u8], form: Form) -> Result<EventBatch, BodyError> {
        match form {
            Form::Json => self.read_json(body, object::read),
            Form::CloudEvents => self.read_json(body, cloud::read),
            Form::Table => stream::read(self, body),
        }
    }

    /// Reads one object, a list, or one object after another; `read_one` reads an object.
    fn read_json<'b>(
        &self,
        body: &'b [u8],
        read_one: impl Fn(&Reader<'a>, &mut Cursor<'b>) -> Result<draft::Finished, Unexpected>,
    ) -> Result<EventBatch, BodyError> {
        let mut batch = EventBatch::default();
        // Where each refused event begins.
        let mut places = Vec::new();
        let layout = documents::each(body, self.limit, "event", |cursor| {
            let start = cursor.position();
            let finished = match cursor.peek() {
                Some(b'{') => read_one(self, cursor)?,
                _ => Err(draft::Refusal {
                    event_id: None,
                    error: format!("expected an event, found {}", documents::describe(cursor)?),
                }),
            };
            batch.add(finished);
            if batch.refused.len() > places.len() {
                places.push(start);
            }
            Ok(())
        })?;
        if layout == Layout::Lines {
            let lines = documents::line_numbers(body, &places);
            for (refused, line) in batch.refused.iter_mut().zip(lines) {
                refused.line = Some(line);
            }
        }
        Ok(batch)
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
