//! The columns of the exported table `changes`: one row per event, profile update and removal.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `sequence` | uint64 | its number, from 1 without gaps |
//! | `known_at` | timestamp (µs, UTC) | when it was learned |
//! | `kind` | string | `event`, `update` or `removal` |
//! | `occurred_at` | timestamp (µs, UTC) or null | when it happened; null for a removal |
//! | `event_id`, `event` | string or null | of an event |
//! | `view` | string or null | of an update and a removal |
//! | `keys` | string | JSON object: key column to value of an event; `key` to its parts otherwise |
//! | `body` | string or null | JSON object: the properties of an event, the new values of an update |
//!
//! An event that was sent twice is there as often as it was sent: the log has what came in, and the
//! online store tells what counts.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value as Json, json};

use super::rows::{BATCH_BYTES, BATCH_ROWS, text, time};
use crate::features::change::{Change, KEY_SEPARATOR, ProfileUpdate, What};
use crate::ledger::ChangeBatch;
use crate::store::entity::from_scalar;

/// Gathers rows of the table `changes`.
#[derive(Default)]
pub struct ChangeRows {
    sequence: UInt64Builder,
    known_at: TimestampMicrosecondBuilder,
    kind: StringBuilder,
    occurred_at: TimestampMicrosecondBuilder,
    event_id: StringBuilder,
    event: StringBuilder,
    view: StringBuilder,
    keys: StringBuilder,
    body: StringBuilder,
    rows: usize,
    json_bytes: usize,
}

impl ChangeRows {
    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("sequence", DataType::UInt64, false),
            time("known_at"),
            text("kind", false),
            Field::new("occurred_at", utc, true),
            text("event_id", true),
            text("event", true),
            text("view", true),
            text("keys", false),
            text("body", true),
        ]))
    }

    /// Adds the changes of a batch.
    pub fn push(&mut self, batch: &ChangeBatch) {
        for (number, change) in (batch.sequence..).zip(&batch.changes) {
            self.push_change(number, batch.known_at_us, change);
        }
    }

    fn push_change(&mut self, number: u64, known_at_us: i64, change: &Change) {
        let (kind, occurred_at_us, event, view, keys, body) = match &change.what {
            Some(What::Event(event)) => {
                let keys = event
                    .keys
                    .iter()
                    .map(|key| (key.column.clone(), json!(key.value)));
                let properties = (!event.properties.is_empty()).then(|| event.properties.clone());
                let keys = Json::Object(keys.collect());
                (
                    "event",
                    Some(event.occurred_at_us),
                    Some(event),
                    None,
                    keys,
                    properties,
                )
            }
            Some(What::Update(update)) => {
                let body = values_of(update).to_string();
                let view = Some(update.view.as_str());
                (
                    "update",
                    Some(update.occurred_at_us),
                    None,
                    view,
                    key_of(&update.key),
                    Some(body),
                )
            }
            Some(What::Removal(removal)) => {
                let view = Some(removal.view.as_str());
                ("removal", None, None, view, key_of(&removal.key), None)
            }
            // Of a later version, which knows what it is.
            None => return,
        };
        let keys = keys.to_string();
        self.json_bytes += keys.len() + body.as_ref().map_or(0, String::len);
        self.sequence.append_value(number);
        self.known_at
            .append_value(change.known_at_us.unwrap_or(known_at_us));
        self.kind.append_value(kind);
        self.occurred_at.append_option(occurred_at_us);
        self.event_id
            .append_option(event.map(|event| &event.event_id));
        self.event.append_option(event.map(|event| &event.event));
        self.view.append_option(view);
        self.keys.append_value(keys);
        self.body.append_option(body);
        self.rows += 1;
    }

    /// Whether it is time to take the batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.json_bytes >= BATCH_BYTES
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.json_bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.sequence.finish()),
            Arc::new(self.known_at.finish().with_timezone("UTC")),
            Arc::new(self.kind.finish()),
            Arc::new(self.occurred_at.finish().with_timezone("UTC")),
            Arc::new(self.event_id.finish()),
            Arc::new(self.event.finish()),
            Arc::new(self.view.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.body.finish()),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}

fn key_of(key: &str) -> Json {
    let parts: Vec<&str> = key.split(KEY_SEPARATOR).collect();
    json!({ "key": parts })
}

fn values_of(update: &ProfileUpdate) -> Json {
    let values = update.features.iter().map(|feature| {
        let value = from_scalar(feature.value.as_ref()).to_json();
        (feature.name.clone(), value)
    });
    Json::Object(values.collect::<Map<String, Json>>())
}
