//! Events as a table: a row is an event.
//!
//! The columns `event_id`, `event`, `occurred_at` and the key columns are what they are in an object;
//! `properties`, when there is such a column, holds JSON objects as text, and otherwise every other
//! column is a property. A cell without a value is a field that is not given.
//!
//! It reads Arrow batches, whatever they come from; see [`super::stream`] for those of a request.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;

use super::draft::{Draft, Finished, NATIVE};
use super::{EventBatch, Reader};
use crate::features::column::value_at;
use crate::features::value::{Value, shorten};
use crate::json::Cursor;

/// The most columns of a table.
const MAX_COLUMNS: usize = 1000;

/// The most bytes that the texts of one column may take in one batch, written out. A batch can name the
/// same text many times and be small itself.
const MAX_TEXT_BYTES: u64 = 64 * 1024 * 1024;

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// What a column is to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    EventId,
    Event,
    OccurredAt,
    Key(usize),
    /// JSON objects as text.
    Properties,
    /// One property.
    Property,
}

/// Reads the rows of tables that have one schema.
#[derive(Debug)]
pub struct TableReader {
    roles: Vec<Role>,
    /// The names of the columns as JSON strings with a colon.
    members: Vec<String>,
}

impl TableReader {
    /// Finds out what the columns are.
    ///
    /// # Errors
    /// The column that is wrong, or that is needed.
    pub fn new(schema: &Schema, reader: &Reader<'_>) -> Result<TableReader, String> {
        let fields = schema.fields();
        if fields.len() > MAX_COLUMNS {
            let columns = fields.len();
            return Err(format!(
                "{columns} columns, at most {MAX_COLUMNS} are allowed"
            ));
        }
        let has_properties = fields.iter().any(|field| field.name() == "properties");
        let (mut roles, mut members): (Vec<Role>, Vec<String>) = (Vec::new(), Vec::new());
        for field in fields {
            let name = field.name().as_str();
            let role = match name {
                "event_id" => Role::EventId,
                "event" => Role::Event,
                "occurred_at" => Role::OccurredAt,
                "properties" => Role::Properties,
                name => reader.column(name).map_or(Role::Property, Role::Key),
            };
            let wrong = |problem: &str| Err(format!("column {:?}: {problem}", shorten(name, 64)));
            if role == Role::Property && has_properties {
                return wrong(
                    "is no field of an event; with a column of properties there can be no others",
                );
            }
            let json = serde_json::Value::from(name).to_string();
            if members.contains(&format!("{json}:")) {
                return wrong("is there twice");
            }
            if !fits(role, field.data_type()) {
                let expected = match role {
                    Role::OccurredAt => "timestamps, or text like 2026-01-31T12:00:00Z",
                    Role::Key(_) => "text or whole numbers",
                    Role::Property => "text, numbers, booleans or timestamps",
                    Role::EventId | Role::Event | Role::Properties => "text",
                };
                return wrong(&format!("expected {expected}, found {}", field.data_type()));
            }
            roles.push(role);
            members.push(format!("{json}:"));
        }
        for (needed, name) in [(Role::EventId, "event_id"), (Role::Event, "event")] {
            if !roles.contains(&needed) {
                return Err(format!("no column {name}; every event needs one"));
            }
        }
        Ok(TableReader { roles, members })
    }

    /// Reads the rows of `rows` as the events that follow those of `events`.
    ///
    /// # Errors
    /// The column that cannot be read.
    pub fn read_rows(
        &self,
        reader: &Reader<'_>,
        rows: &RecordBatch,
        events: &mut EventBatch,
    ) -> Result<(), String> {
        let mut columns = Vec::with_capacity(self.roles.len());
        for (index, (role, array)) in self.roles.iter().zip(rows.columns()).enumerate() {
            let bytes = repeated_text_bytes(array);
            if bytes > MAX_TEXT_BYTES {
                let name = shorten(rows.schema_ref().field(index).name(), 64);
                return Err(format!(
                    "column {name:?}: its texts take {bytes} bytes, at most {MAX_TEXT_BYTES} are allowed"
                ));
            }
            let to = match (role, array.data_type()) {
                (Role::Property, _)
                    if !is_text(array.data_type()) && !is_time(array.data_type()) =>
                {
                    plain_type(array.data_type())
                }
                (Role::OccurredAt | Role::Property, from) if is_time(from) => MICROSECONDS,
                _ => DataType::Utf8,
            };
            // The zone of a timestamp says how it is shown, not when it was.
            let without_zone = match array.data_type() {
                DataType::Timestamp(unit, Some(_)) => {
                    cast(array, &DataType::Timestamp(*unit, None))
                }
                _ => Ok(ArrayRef::clone(array)),
            };
            let column = without_zone.and_then(|array| cast(&array, &to));
            columns.push(column.map_err(|error| error.to_string())?);
        }
        for row in 0..rows.num_rows() {
            events.add(self.read_row(reader, rows, &columns, row));
        }
        Ok(())
    }

    fn read_row(
        &self,
        reader: &Reader<'_>,
        rows: &RecordBatch,
        columns: &[ArrayRef],
        row: usize,
    ) -> Finished {
        let mut draft = Draft::default();
        let mut properties = String::new();
        let mut bytes = 0;
        for (index, array) in columns.iter().enumerate() {
            let name = rows.schema_ref().field(index).name().as_str();
            if array.is_null(row) {
                if rows.column(index).is_valid(row) && !is_text(rows.column(index).data_type()) {
                    draft.refuse(format!("{name}: beyond the times that can be told"));
                }
                continue;
            }
            let text = array.as_string_opt::<i32>().map(|texts| texts.value(row));
            bytes += text.map_or(8, str::len);
            match (self.roles[index], text) {
                (Role::EventId, Some(text)) => draft.event_id = Some(Cow::Borrowed(text)),
                (Role::Event, Some(text)) => draft.event = Some(Cow::Borrowed(text)),
                (Role::Key(column), Some(text)) => {
                    draft.add_key(column, Cow::Borrowed(text), name);
                }
                (Role::OccurredAt, Some(text)) => draft.set_time(text, NATIVE.occurred_at),
                (Role::OccurredAt, None) => {
                    let times = array.as_primitive_opt::<TimestampMicrosecondType>();
                    draft.occurred_at_us = times.map(|times| times.value(row));
                }
                (Role::Properties, Some(text)) => match read_object(text) {
                    Some(text) => draft.properties = Some(Cow::Borrowed(text)),
                    None => draft.refuse(format!(
                        "properties: expected a JSON object, found {:?}",
                        shorten(text, 60)
                    )),
                },
                (Role::Property, _) => {
                    if let Some(value) = property(array, row) {
                        properties.push(if properties.is_empty() { '{' } else { ',' });
                        properties.push_str(&self.members[index]);
                        properties.push_str(&value);
                    }
                }
                (_, None) => {}
            }
        }
        if !properties.is_empty() {
            properties.push('}');
            bytes = bytes.max(properties.len());
            draft.properties = Some(Cow::Owned(properties));
        }
        draft.finish(reader, NATIVE, bytes)
    }
}

/// The bytes that the texts of a column take where rows may share them; 0 where each has its own.
fn repeated_text_bytes(array: &ArrayRef) -> u64 {
    if let Some(dictionary) = array.as_any_dictionary_opt() {
        let lengths = text_lengths(dictionary.values());
        if lengths.is_empty() {
            return 0;
        }
        let keys = dictionary.normalized_keys().into_iter();
        return keys.filter_map(|key| lengths.get(key)).sum();
    }
    match array.data_type() {
        DataType::Utf8View => text_lengths(array).into_iter().sum(),
        _ => 0,
    }
}

/// The length of each text of a column; nothing for a column of something else.
fn text_lengths(array: &dyn Array) -> Vec<u64> {
    let length = |text: Option<&str>| text.map_or(0, str::len) as u64;
    if let Some(texts) = array.as_string_opt::<i32>() {
        texts.iter().map(length).collect()
    } else if let Some(texts) = array.as_string_opt::<i64>() {
        texts.iter().map(length).collect()
    } else if let Some(texts) = array.as_string_view_opt() {
        texts.iter().map(length).collect()
    } else {
        Vec::new()
    }
}

/// The text of a JSON object without what is around it; `None` when it is none.
fn read_object(text: &str) -> Option<&str> {
    let mut cursor = Cursor::new(text.as_bytes());
    let object = (cursor.peek() == Some(b'{')).then(|| cursor.skip_text().ok())??;
    cursor.end().ok()?;
    Some(object)
}

/// A property as JSON; none for a number that JSON does not have.
fn property(array: &ArrayRef, row: usize) -> Option<String> {
    if let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        return Some(format!("{:?}", crate::clock::to_rfc3339(times.value(row))));
    }
    match value_at(array, row) {
        Value::Null => None,
        Value::Float64(float) if !float.is_finite() => None,
        value => Some(value.to_json().to_string()),
    }
}

fn fits(role: Role, data_type: &DataType) -> bool {
    let text = is_text(data_type) || *data_type == DataType::Null;
    match role {
        Role::EventId | Role::Event | Role::Properties => text,
        Role::OccurredAt => text || is_time(data_type),
        Role::Key(_) => text || data_type.is_integer(),
        Role::Property => {
            let number = data_type.is_integer() || data_type.is_floating();
            text || number || is_time(data_type) || *data_type == DataType::Boolean
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// The type of feature values that holds a number or boolean exactly; of the largest unsigned numbers
/// only a float64 comes near.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Boolean => DataType::Boolean,
        DataType::UInt64 => DataType::Float64,
        data_type if data_type.is_integer() => DataType::Int64,
        data_type if data_type.is_floating() => DataType::Float64,
        _ => DataType::Utf8,
    }
}
