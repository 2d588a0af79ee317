//! Tables of events from files, brought into the columns that events are read from.
//!
//! A row is an event. Its columns are those of an event's fields: `event_id`, `event`, `occurred_at` and
//! the key columns of the views; every other one is a property. What a file has under other names is
//! mapped ([`EventColumns::renamed`]); what it does not have can be said once for all rows
//! ([`EventColumns::event`]) or made of other columns ([`EventColumns::id_from`]).
//!
//! The cells of a CSV file have no types, so a property that is written as a JSON number is a number,
//! `true` and `false` are booleans, an empty cell is nothing, and everything else is text; columns of
//! codes that only look like numbers are named in [`EventColumns::text`].

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use xxhash_rust::xxh3::Xxh3Default;

use super::times::{KnownAt, Times};
use crate::features::view::suggestion;
use crate::features::views::Views;

/// The fields of an event that are no key columns.
const FIELDS: [&str; 4] = ["event_id", "event", "occurred_at", "properties"];

/// How the columns of a file become events.
#[derive(Clone, Debug, Default)]
pub struct EventColumns {
    /// The name of every event of the file.
    pub event: Option<String>,
    /// Field of an event, column of the file.
    pub renamed: Vec<(String, String)>,
    /// Columns that together tell one event from another; their values become its id.
    pub id_from: Vec<String>,
    /// Columns that are left out.
    pub ignored: Vec<String>,
    /// Columns of a CSV file that are text whatever they look like.
    pub text: Vec<String>,
    pub known_at: KnownAt,
}

/// Brings the batches of one file into shape.
#[derive(Debug)]
pub struct EventTable {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Columns that go into the column of properties, with their names as JSON and whether they stay
    /// text.
    properties: Vec<(usize, String, bool)>,
    event: Option<String>,
    id_from: Vec<usize>,
    occurred_at: usize,
    known_at: KnownAtColumn,
}

/// Where a column of the result comes from.
#[derive(Debug)]
enum Column {
    /// A column of the file as it is.
    Same(usize),
    /// A column of the file that holds times.
    Times(usize),
    /// The one name of all events.
    Event,
    /// The id made of other columns.
    Id,
    /// JSON objects made of the cells of a CSV file.
    Properties,
}

#[derive(Debug)]
enum KnownAtColumn {
    Now,
    Occurred,
    Column(usize),
}

/// A batch of rows as events are read from, with what is checked beside that.
#[derive(Debug)]
pub struct PreparedRows {
    pub rows: RecordBatch,
    /// When each row was learned, if the file says so, or why that cannot be told.
    pub known_at: Option<Vec<Result<i64, String>>>,
    /// Rows without a usable time of their own, with the reason.
    pub without_time: Vec<(usize, String)>,
}

impl EventTable {
    /// Finds out what the columns of a file are; `is_typed` says whether its cells have types.
    ///
    /// # Errors
    /// A column that is asked for and not there, a field with two columns, or one without any.
    pub fn new(
        schema: &Schema,
        views: &Views,
        wanted: &EventColumns,
        is_typed: bool,
    ) -> Result<EventTable, String> {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let find = |name: &str, option: &str| {
            let found = names.iter().position(|known| *known == name);
            found.ok_or_else(|| {
                let like = suggestion(name, names.iter().copied());
                format!("{option}: the file has no column {name:?}{like}")
            })
        };
        let keys: Vec<&str> = views
            .all()
            .iter()
            .flat_map(|view| view.key_columns())
            .map(String::as_str)
            .collect();
        let fields = || FIELDS.iter().copied().chain(keys.iter().copied());

        let mut ignored = Vec::new();
        for name in &wanted.ignored {
            ignored.push(find(name, "--ignore")?);
        }
        // The field or property that each column is.
        let mut named: Vec<&str> = names.clone();
        for (field, column) in &wanted.renamed {
            if !fields().any(|known| known == field) {
                let like = suggestion(field, fields());
                return Err(format!(
                    "--column {field}={column}: {field} is no field of an event{like}; the fields are \
                     event_id, event, occurred_at, properties and the key columns of the views"
                ));
            }
            named[find(column, "--column")?] = field;
        }
        // A column that is mapped to a field may meet one that has the name by itself.
        for (column, name) in named.iter().enumerate() {
            let twice = (0..named.len()).find(|other| {
                *other != column && named[*other] == *name && !ignored.contains(other)
            });
            if let (Some(other), false) = (twice, ignored.contains(&column)) {
                return Err(format!(
                    "columns {:?} and {:?} are both {name}; add --ignore for one of them",
                    names[column], names[other]
                ));
            }
        }
        let known_at = match &wanted.known_at {
            KnownAt::Now => KnownAtColumn::Now,
            KnownAt::Occurred => KnownAtColumn::Occurred,
            KnownAt::Column(name) => {
                let column = find(name, "--known-at")?;
                if fields().all(|field| field != named[column]) {
                    ignored.push(column);
                }
                KnownAtColumn::Column(column)
            }
        };
        let mut id_from = Vec::new();
        for name in &wanted.id_from {
            id_from.push(find(name, "--event-id-from")?);
        }
        for name in &wanted.text {
            find(name, "--text")?;
        }

        let mut table = EventTable {
            schema: Arc::new(Schema::empty()),
            columns: Vec::new(),
            properties: Vec::new(),
            event: wanted.event.clone(),
            id_from,
            occurred_at: usize::MAX,
            known_at,
        };
        let properties = named.iter().position(|name| *name == "properties");
        let has_properties = properties.is_some_and(|column| !ignored.contains(&column));
        let mut result: Vec<Field> = Vec::new();
        for (column, name) in named.iter().enumerate() {
            if ignored.contains(&column) {
                continue;
            }
            let data_type = schema.field(column).data_type();
            if *name == "occurred_at" || is_date(data_type) {
                table.columns.push(Column::Times(column));
                result.push(Field::new(*name, times_type(data_type), true));
                if *name == "occurred_at" {
                    table.occurred_at = column;
                }
            } else if fields().any(|field| field == *name) || is_typed || has_properties {
                table.columns.push(Column::Same(column));
                result.push(Field::new(*name, data_type.clone(), true));
            } else {
                let json = serde_json::Value::from(*name).to_string();
                let is_text = wanted.text.iter().any(|text| text == names[column]);
                table.properties.push((column, json, is_text));
            }
        }
        check_complete(&result, wanted)?;
        let mut add = |column: Column, name: &str| {
            table.columns.push(column);
            result.push(Field::new(name, DataType::Utf8, true));
        };
        if wanted.event.is_some() {
            add(Column::Event, "event");
        }
        if !wanted.id_from.is_empty() {
            add(Column::Id, "event_id");
        }
        if !table.properties.is_empty() {
            add(Column::Properties, "properties");
        }
        table.schema = Arc::new(Schema::new(result));
        Ok(table)
    }

    /// The columns of [`PreparedRows::rows`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Brings a batch of the file into shape.
    ///
    /// # Errors
    /// The column that cannot be read.
    pub fn prepare(&self, batch: &RecordBatch) -> Result<PreparedRows, String> {
        let name = |column: usize| batch.schema_ref().field(column).name().clone();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let array: ArrayRef = match column {
                Column::Same(column) => ArrayRef::clone(batch.column(*column)),
                Column::Times(column) => {
                    Times::new(&name(*column), batch.column(*column))?.into_array()
                }
                Column::Event => {
                    let event = self.event.as_deref().unwrap_or_default();
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                        event,
                        batch.num_rows(),
                    )))
                }
                Column::Id => self.ids(batch)?,
                Column::Properties => self.properties(batch)?,
            };
            arrays.push(array);
        }
        let occurred_at = Times::new(&name(self.occurred_at), batch.column(self.occurred_at))?;
        let occurred_at: Vec<Result<i64, String>> = (0..batch.num_rows())
            .map(|row| occurred_at.at(row))
            .collect();
        let without_time = occurred_at.iter().enumerate();
        let without_time = without_time
            .filter_map(|(row, time)| time.as_ref().err().map(|error| (row, error.clone())))
            .collect();
        let known_at = match self.known_at {
            KnownAtColumn::Now => None,
            KnownAtColumn::Occurred => Some(occurred_at),
            KnownAtColumn::Column(column) => {
                let times = Times::new(&name(column), batch.column(column))?;
                Some((0..batch.num_rows()).map(|row| times.at(row)).collect())
            }
        };
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| error.to_string())?;
        Ok(PreparedRows {
            rows,
            known_at,
            without_time,
        })
    }

    /// Ids that are the same whenever the same row is loaded: a hash of the event's name and the values
    /// of the columns.
    fn ids(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let mut texts = Vec::new();
        for &column in &self.id_from {
            let name = batch.schema_ref().field(column).name();
            let text = cast(batch.column(column), &DataType::Utf8)
                .map_err(|error| format!("--event-id-from: column {name:?}: {error}"))?;
            texts.push(text);
        }
        let event = self.event.as_deref().unwrap_or_default();
        let mut ids = StringBuilder::new();
        for row in 0..batch.num_rows() {
            let mut hasher = Xxh3Default::new();
            let mut add = |text: Option<&str>| {
                let length = text.map_or(u64::MAX, |text| text.len() as u64);
                hasher.update(&length.to_le_bytes());
                hasher.update(text.unwrap_or_default().as_bytes());
            };
            add(Some(event));
            let mut is_empty = true;
            for text in &texts {
                let text = text
                    .as_string_opt::<i32>()
                    .filter(|text| text.is_valid(row));
                is_empty &= text.is_none();
                add(text.map(|text| text.value(row)));
            }
            if is_empty {
                ids.append_null();
            } else {
                ids.append_value(format!("{:032x}", hasher.digest128()));
            }
        }
        Ok(Arc::new(ids.finish()))
    }

    /// The cells of untyped columns as one JSON object for each row.
    fn properties(&self, batch: &RecordBatch) -> Result<ArrayRef, String> {
        let mut columns = Vec::new();
        for (column, json, is_text) in &self.properties {
            let text = cast(batch.column(*column), &DataType::Utf8);
            columns.push((text.map_err(|error| error.to_string())?, json, *is_text));
        }
        let mut objects = StringBuilder::new();
        let mut object = String::new();
        for row in 0..batch.num_rows() {
            object.clear();
            for (cells, json, is_text) in &columns {
                let cells = cells
                    .as_string_opt::<i32>()
                    .filter(|cells| cells.is_valid(row));
                let Some(cell) = cells.map(|cells| cells.value(row)) else {
                    continue;
                };
                if cell.trim().is_empty() {
                    continue;
                }
                object.push(if object.is_empty() { '{' } else { ',' });
                // Writing to a string does not fail.
                let _ = write!(object, "{json}:");
                write_cell(&mut object, cell, *is_text);
            }
            if object.is_empty() {
                objects.append_null();
            } else {
                object.push('}');
                objects.append_value(&object);
            }
        }
        Ok(Arc::new(objects.finish()))
    }
}

/// Every field that an event needs comes from one place.
fn check_complete(columns: &[Field], wanted: &EventColumns) -> Result<(), String> {
    let has = |field: &str| columns.iter().any(|known| known.name() == field);
    let problem = match (
        &wanted.event,
        has("event"),
        has("event_id"),
        has("occurred_at"),
    ) {
        (Some(_), true, _, _) => "--event: the file has a column event; leave one of them out",
        (None, false, _, _) => {
            "no column event; say what happened with --event NAME, or --column event=COLUMN"
        }
        (_, _, true, _) if !wanted.id_from.is_empty() => {
            "--event-id-from: the file has a column event_id; leave one of them out"
        }
        (_, _, false, _) if wanted.id_from.is_empty() => {
            "no column event_id; name one with --column event_id=COLUMN, or the columns that tell one \
             event from another with --event-id-from COLUMN,…"
        }
        (_, _, _, false) => {
            "no column occurred_at; name the one that says when it happened with \
             --column occurred_at=COLUMN"
        }
        _ => return Ok(()),
    };
    Err(problem.to_owned())
}

/// The type of a column of times once it is read.
fn times_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        _ => DataType::Utf8,
    }
}

fn is_date(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64)
}

fn write_cell(object: &mut String, cell: &str, is_text: bool) {
    let plain = cell.trim();
    let is_flag = plain.eq_ignore_ascii_case("true") || plain.eq_ignore_ascii_case("false");
    if !is_text && is_flag {
        object.push_str(&plain.to_ascii_lowercase());
    } else if !is_text && serde_json::from_str::<serde_json::Number>(plain).is_ok() {
        object.push_str(plain);
    } else {
        let _ = write!(object, "{}", serde_json::Value::from(cell));
    }
}

#[cfg(test)]
#[path = "event_table_tests.rs"]
mod tests;
