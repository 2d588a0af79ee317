//! Events as an Arrow IPC stream.
//!
//! Arrow's decoder trusts what the messages of a stream say of themselves, and stops the thread where
//! they lie. So the messages are looked at first, and only those that tables of events have are let
//! through: columns of plain types, buffers that lie within their message and are as long as their
//! rows need, nothing compressed. Memory is bounded by the body and by the number of rows that one
//! request may have. [`MessageCheck`] does that for whoever reads such a stream message by message.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{
    Endianness, Field, MessageHeader, Precision, RecordBatch as IpcBatch, Schema as IpcSchema,
    TimeUnit, Type, root_as_message,
};

use super::table::TableReader;
use super::{EventBatch, Reader};
use crate::features::value::shorten;
use crate::ingest::documents::BodyError;

/// Reads an Arrow IPC stream.
///
/// # Errors
/// When it is no such stream, has other columns, or has too many rows.
pub fn read(reader: &Reader<'_>, body: &[u8]) -> Result<EventBatch, BodyError> {
    check(reader.limit, body)?;
    // Should the decoder find something to stop at all the same, then it is this body that fails, and
    // nothing else: the decoder has nothing that outlives it.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(reader, body)));
    decoded.unwrap_or_else(|_| Err(damaged("its messages contradict each other")))
}

/// That it is no such stream, and why.
pub fn damaged(problem: &str) -> BodyError {
    BodyError::Syntax(shorten(&format!("no Arrow IPC stream: {problem}"), 300))
}

fn decode(reader: &Reader<'_>, body: &[u8]) -> Result<EventBatch, BodyError> {
    let not_arrow = |error: ArrowError| damaged(&error.to_string());
    let mut decoder = StreamDecoder::new();
    let mut bytes = Buffer::from(body);
    let mut table: Option<TableReader> = None;
    let mut events = EventBatch::default();
    while !bytes.is_empty() {
        let Some(rows) = decoder.decode(&mut bytes).map_err(not_arrow)? else {
            continue;
        };
        if events.count().saturating_add(rows.num_rows()) > reader.limit {
            return Err(too_many(reader.limit));
        }
        let table = match &table {
            Some(table) => table,
            None => {
                let new = TableReader::new(rows.schema_ref(), reader).map_err(BodyError::Shape)?;
                table.insert(new)
            }
        };
        let read = table.read_rows(reader, &rows, &mut events);
        read.map_err(BodyError::Shape)?;
    }
    decoder.finish().map_err(not_arrow)?;
    Ok(events)
}

fn too_many(limit: usize) -> BodyError {
    BodyError::TooMany {
        limit,
        thing: "event",
    }
}

/// Looks at every message before any is decoded.
fn check(limit: usize, body: &[u8]) -> Result<(), BodyError> {
    let mut rest = body;
    let mut check = MessageCheck::new(limit, "event");
    while let Some(mut size) = take_length(&mut rest) {
        // Since version 0.15 of the format every message begins with four bytes of ones.
        if size == u32::MAX {
            size = take_length(&mut rest).ok_or_else(|| damaged("it ends within a message"))?;
        }
        if size == 0 {
            break;
        }
        let metadata = take_bytes(&mut rest, size as usize)?;
        take_bytes(&mut rest, body_length(metadata)?)?;
        check.message(metadata)?;
    }
    match check.columns {
        Some(_) => Ok(()),
        None => Err(damaged("it has no messages")),
    }
}

/// How many bytes follow the metadata of a message.
///
/// # Errors
/// When it is no such metadata.
pub fn body_length(metadata: &[u8]) -> Result<usize, BodyError> {
    let message = root_as_message(metadata).map_err(|_| damaged("a message is damaged"))?;
    Ok(usize::try_from(message.bodyLength()).unwrap_or(usize::MAX))
}

/// Looks at the messages of one stream, before each is decoded.
pub struct MessageCheck {
    /// The most rows in a batch.
    limit: usize,
    /// What the rows are, for messages.
    thing: &'static str,
    columns: Option<Vec<Column>>,
    /// Of each dictionary, by its id, the bytes that it keeps.
    dictionaries: HashMap<i64, usize>,
}

impl MessageCheck {
    /// For a stream whose batches have at most `limit` rows, each a `thing`.
    pub fn new(limit: usize, thing: &'static str) -> MessageCheck {
        MessageCheck {
            limit,
            thing,
            columns: None,
            dictionaries: HashMap::new(),
        }
    }

    /// The bytes of all dictionaries that the decoder keeps.
    pub fn dictionary_bytes(&self) -> usize {
        self.dictionaries.values().sum()
    }

    /// Looks at the metadata of the next message, whose body is all there.
    ///
    /// # Errors
    /// When the decoder must not see it.
    pub fn message(&mut self, metadata: &[u8]) -> Result<(), BodyError> {
        let message = root_as_message(metadata).map_err(|_| damaged("a message is damaged"))?;
        let body_length = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        let limit = TooMany {
            limit: self.limit,
            thing: self.thing,
        };
        match (message.header_type(), &self.columns) {
            (MessageHeader::Schema, None) => {
                let schema = message.header_as_schema();
                self.columns = Some(read_schema(schema)?);
            }
            (MessageHeader::RecordBatch, Some(columns)) => {
                let batch = message.header_as_record_batch();
                let layouts = columns.iter().map(|column| column.cells);
                check_batch(batch, layouts, body_length, limit)?;
            }
            (MessageHeader::DictionaryBatch, Some(columns)) => {
                let dictionary = message.header_as_dictionary_batch();
                let id = dictionary.map(|dictionary| dictionary.id());
                let found = columns.iter().find(|column| column.dictionary == id);
                let (Some(dictionary), Some(column)) = (dictionary, found) else {
                    return Err(damaged("a dictionary belongs to no column"));
                };
                // A dictionary may have more values than a request has rows; each takes some bytes.
                let layouts = std::iter::once(column.values);
                let longest = TooMany {
                    limit: body_length,
                    ..limit
                };
                check_batch(dictionary.data(), layouts, body_length, longest)?;
                let kept = self.dictionaries.entry(dictionary.id()).or_default();
                *kept = match dictionary.isDelta() {
                    true => kept.saturating_add(body_length),
                    false => body_length,
                };
            }
            _ => return Err(damaged("a message is of an unknown kind, or out of place")),
        }
        Ok(())
    }
}

/// The most rows, and what they are.
#[derive(Clone, Copy)]
struct TooMany {
    limit: usize,
    thing: &'static str,
}

/// Takes four bytes, the lowest first.
fn take_length(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(u32::from_le_bytes(*bytes))
}

fn take_bytes<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], BodyError> {
    let (bytes, behind) = rest
        .split_at_checked(length)
        .ok_or_else(|| damaged("it ends within a message, or begins with something else"))?;
    *rest = behind;
    Ok(bytes)
}

/// The buffers behind the validity bitmap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// No buffers at all, not even a bitmap.
    Nothing,
    Bits,
    /// Values of so many bytes.
    Fixed(i64),
    /// Offsets of so many bytes, and text.
    Text(i64),
    /// Views of 16 bytes, and as many buffers of text as the batch says.
    Views,
}

/// A column as the schema says.
struct Column {
    /// What its cells hold: values, or indexes into its dictionary.
    cells: Layout,
    /// What its dictionary holds.
    values: Layout,
    dictionary: Option<i64>,
}

fn read_schema(schema: Option<IpcSchema<'_>>) -> Result<Vec<Column>, BodyError> {
    let little = schema.filter(|schema| schema.endianness() == Endianness::Little);
    let fields = little.and_then(|schema| schema.fields());
    let fields = fields.ok_or_else(|| damaged("its schema has no columns"))?;
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(values) = layout_of(&field) else {
            return Err(BodyError::Shape(format!(
                "column {:?}: expected text, numbers, booleans or timestamps, found {:?}",
                shorten(field.name().unwrap_or_default(), 64),
                field.type_type()
            )));
        };
        let (cells, dictionary) = match field.dictionary() {
            None => (values, None),
            Some(dictionary) => {
                let width = dictionary.indexType().map(|int| int.bitWidth());
                let width = width.and_then(integer_bytes);
                let width = width.ok_or_else(|| damaged("a dictionary has no index type"))?;
                (Layout::Fixed(width), Some(dictionary.id()))
            }
        };
        columns.push(Column {
            cells,
            values,
            dictionary,
        });
    }
    Ok(columns)
}

/// `None` for a type that no column of an event has.
fn layout_of(field: &Field<'_>) -> Option<Layout> {
    let has_children = field
        .children()
        .is_some_and(|children| !children.is_empty());
    if has_children || field.name().is_none() {
        return None;
    }
    let known_unit = |unit| TimeUnit::ENUM_VALUES.contains(&unit);
    match field.type_type() {
        Type::Null if field.dictionary().is_none() => Some(Layout::Nothing),
        Type::Bool => Some(Layout::Bits),
        Type::Int => integer_bytes(field.type_as_int()?.bitWidth()).map(Layout::Fixed),
        Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            Precision::HALF => Some(Layout::Fixed(2)),
            Precision::SINGLE => Some(Layout::Fixed(4)),
            Precision::DOUBLE => Some(Layout::Fixed(8)),
            _ => None,
        },
        Type::Timestamp if known_unit(field.type_as_timestamp()?.unit()) => Some(Layout::Fixed(8)),
        Type::Utf8 => Some(Layout::Text(4)),
        Type::LargeUtf8 => Some(Layout::Text(8)),
        Type::Utf8View => Some(Layout::Views),
        _ => None,
    }
}

fn integer_bytes(bits: i32) -> Option<i64> {
    matches!(bits, 8 | 16 | 32 | 64).then(|| i64::from(bits / 8))
}

/// Checks that a batch has what its columns need.
fn check_batch(
    batch: Option<IpcBatch<'_>>,
    layouts: impl Iterator<Item = Layout>,
    body_length: usize,
    most: TooMany,
) -> Result<(), BodyError> {
    let batch = batch.ok_or_else(|| damaged("a batch is empty"))?;
    if batch.compression().is_some() {
        let advice = "its buffers are compressed; send them as they are, or the body as gzip";
        return Err(damaged(advice));
    }
    let longest = i64::try_from(most.limit)
        .unwrap_or(i64::MAX)
        .min(i64::MAX / 16 - 1);
    let body_length = i64::try_from(body_length).unwrap_or(i64::MAX);
    let mut nodes = batch.nodes().into_iter().flatten();
    let mut buffers = batch.buffers().into_iter().flatten();
    let mut text_buffers = batch.variadicBufferCounts().into_iter().flatten();
    // The length of the next buffer.
    let mut next_buffer = || {
        let buffer = buffers
            .next()
            .ok_or_else(|| damaged("a buffer is missing"))?;
        let end = buffer.offset().checked_add(buffer.length());
        let is_inside = buffer.offset() >= 0
            && buffer.length() >= 0
            && end.is_some_and(|end| end <= body_length);
        match is_inside {
            true => Ok(buffer.length()),
            false => Err(damaged("a buffer lies outside of its message")),
        }
    };
    let mut rows = Some(batch.length());
    for layout in layouts {
        let node = nodes.next().ok_or_else(|| damaged("a column is missing"))?;
        let length = node.length();
        if length > longest {
            return Err(BodyError::TooMany {
                limit: most.limit,
                thing: most.thing,
            });
        }
        let first = *rows.get_or_insert(length);
        if length < 0 || node.null_count() < 0 || node.null_count() > length || length != first {
            return Err(damaged("a column has another length than the batch"));
        }
        let short = || damaged("a buffer is shorter than its column");
        let at_least = |found: i64, needed: i64| if found < needed { Err(short()) } else { Ok(()) };
        let bits = length / 8 + i64::from(length % 8 > 0);
        if layout != Layout::Nothing {
            let validity = next_buffer()?;
            if node.null_count() > 0 {
                at_least(validity, bits)?;
            }
        }
        match layout {
            Layout::Nothing => {}
            Layout::Bits => at_least(next_buffer()?, bits)?,
            Layout::Fixed(width) => {
                let values = next_buffer()?;
                at_least(values, length * width)?;
                at_least(-(values % width), 0)?;
            }
            Layout::Text(width) => {
                let offsets = next_buffer()?;
                // No offsets are needed where there are no rows.
                let needed = if length == 0 && offsets == 0 {
                    0
                } else {
                    length + 1
                };
                at_least(offsets, needed * width)?;
                at_least(-(offsets % width), 0)?;
                next_buffer()?;
            }
            Layout::Views => {
                let views = next_buffer()?;
                at_least(views, length * 16)?;
                at_least(-(views % 16), 0)?;
                // Each is taken from those that the message has; there cannot be too many.
                for _ in 0..text_buffers.next().unwrap_or(-1).max(0) {
                    next_buffer()?;
                }
            }
        }
    }
    Ok(())
}
