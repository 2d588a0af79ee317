//! Reading rows of features: the new values of many entities of one view, as JSON or as CSV.
//!
//! A row has the view's key columns, features by their names, and perhaps `occurred_at`, from when on
//! the values hold. A row that is wrong is refused by itself; a body that cannot be read, as a whole.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::documents::{self, BodyError};
use super::event::draft::check_text;
use crate::clock;
use crate::config::EventsConfig;
use crate::features::change::{Change, KEY_SEPARATOR, NamedValue, ProfileUpdate, What};
use crate::features::value::{Value, describe_json, shorten};
use crate::features::view::View;
use crate::store::entity::named_value;

/// The time of a row.
const OCCURRED_AT: &str = "occurred_at";

/// The form of a body of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowForm {
    /// An object, a list of objects, or one after another.
    Json,
    /// A header, then a row on each line.
    Csv,
}

/// What was read of a body.
#[derive(Debug, Default)]
pub struct RowBatch {
    /// The rows that are right.
    pub changes: Vec<Change>,
    /// The index of each of them among the rows of the body.
    pub indexes: Vec<usize>,
    /// The rows that are not, in order.
    pub refused: Vec<RefusedRow>,
}

/// A row that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its index among the rows of the body, from 0.
    pub index: usize,
    /// The field, what was found and what was expected.
    pub error: String,
}

impl RowBatch {
    fn add(&mut self, row: Result<ProfileUpdate, String>) {
        let index = self.changes.len() + self.refused.len();
        match row {
            Ok(update) => {
                self.indexes.push(index);
                self.changes.push(Change {
                    known_at_us: None,
                    what: Some(What::Update(update)),
                });
            }
            Err(error) => self.refused.push(RefusedRow { index, error }),
        }
    }
}

/// Reads rows of one view.
#[derive(Debug)]
pub struct RowReader<'a> {
    view: &'a View,
    config: &'a EventsConfig,
    now_us: i64,
}

/// What a column of a table is to a row.
enum Column {
    Key(usize),
    OccurredAt,
    /// The index of a stored feature.
    Feature(usize),
}

impl<'a> RowReader<'a> {
    /// A reader of what arrives at `now_us`.
    pub fn new(view: &'a View, config: &'a EventsConfig, now_us: i64) -> RowReader<'a> {
        RowReader {
            view,
            config,
            now_us,
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// When the whole body is refused.
    pub fn read(&self, body: &[u8], form: RowForm) -> Result<RowBatch, BodyError> {
        match form {
            RowForm::Json => self.read_json(body),
            RowForm::Csv => self.read_csv(body),
        }
    }

    fn read_json(&self, body: &[u8]) -> Result<RowBatch, BodyError> {
        let mut batch = RowBatch::default();
        documents::each(body, self.config.max_batch_events, "row", |cursor| {
            let text = cursor.skip_text()?;
            // What the cursor takes and this does not, such as very deep nesting, is no feature.
            let row = serde_json::from_str::<Json>(text);
            batch.add(match row {
                Ok(Json::Object(row)) => self.read_object(&row),
                Ok(other) => Err(format!(
                    "expected an object, found {}",
                    describe_json(&other)
                )),
                Err(error) => Err(shorten(&error.to_string(), 200)),
            });
            Ok(())
        })?;
        Ok(batch)
    }

    fn read_object(&self, row: &Map<String, Json>) -> Result<ProfileUpdate, String> {
        let columns = self.view.key_columns();
        let mut parts = Vec::with_capacity(columns.len());
        for column in columns {
            parts.push(match row.get(column) {
                Some(Json::String(text)) => Cow::Borrowed(text.as_str()),
                Some(Json::Number(number)) if number.is_i64() || number.is_u64() => {
                    Cow::Owned(number.to_string())
                }
                None | Some(Json::Null) => return Err(format!("{column}: missing")),
                Some(other) => {
                    let found = describe_json(other);
                    return Err(format!(
                        "{column}: expected text or a whole number, found {found}"
                    ));
                }
            });
        }
        let occurred_at_us = match row.get(OCCURRED_AT) {
            None | Some(Json::Null) => self.now_us,
            Some(Json::String(text)) => update_time(text, self.config, self.now_us)?,
            Some(other) => {
                let found = describe_json(other);
                return Err(format!(
                    "occurred_at: expected a time like \"2026-01-31T12:00:00Z\", found {found}"
                ));
            }
        };
        let mut features = Vec::with_capacity(row.len());
        for (name, json) in row {
            if name == OCCURRED_AT || columns.contains(name) {
                continue;
            }
            let value = self.view.read_value(name, json);
            let (_, value, _) = value.map_err(|error| error.to_string())?;
            features.push(named_value(name, &value));
        }
        self.update(&parts, occurred_at_us, features)
    }

    fn update(
        &self,
        parts: &[Cow<'_, str>],
        occurred_at_us: i64,
        features: Vec<NamedValue>,
    ) -> Result<ProfileUpdate, String> {
        for (column, part) in self.view.key_columns().iter().zip(parts) {
            check_text(column, part)?;
        }
        Ok(ProfileUpdate {
            view: self.view.name.clone(),
            key: parts.join(&KEY_SEPARATOR.to_string()),
            occurred_at_us,
            features,
        })
    }

    fn read_csv(&self, body: &[u8]) -> Result<RowBatch, BodyError> {
        let mut csv = csv::ReaderBuilder::new().flexible(true).from_reader(body);
        let header = csv.headers().map_err(|error| csv_error(&error))?;
        if header.is_empty() {
            let problem = "empty, expected a header of column names".to_owned();
            return Err(BodyError::Syntax(problem));
        }
        let columns = self.columns(header).map_err(BodyError::Shape)?;
        let mut batch = RowBatch::default();
        let limit = self.config.max_batch_events;
        for (index, record) in csv.records().enumerate() {
            if index >= limit {
                return Err(BodyError::TooMany {
                    limit,
                    thing: "row",
                });
            }
            let record = record.map_err(|error| csv_error(&error))?;
            batch.add(self.read_record(&record, &columns));
        }
        Ok(batch)
    }

    fn columns(&self, header: &csv::StringRecord) -> Result<Vec<Column>, String> {
        let keys = self.view.key_columns();
        for key in keys {
            if header.iter().all(|name| name != key) {
                let names = shorten(&header.iter().collect::<Vec<_>>().join(", "), 200);
                return Err(format!("no column {key} in the header: {names}"));
            }
        }
        let mut columns = Vec::with_capacity(header.len());
        for (index, name) in header.iter().enumerate() {
            if header.iter().take(index).any(|other| other == name) {
                return Err(format!("column {:?} is there twice", shorten(name, 64)));
            }
            columns.push(if name == OCCURRED_AT {
                Column::OccurredAt
            } else if let Some(key) = keys.iter().position(|key| key == name) {
                Column::Key(key)
            } else {
                let index = self.view.stored_index(name);
                Column::Feature(index.map_err(|error| format!("column {error}"))?)
            });
        }
        Ok(columns)
    }

    fn read_record(
        &self,
        record: &csv::StringRecord,
        columns: &[Column],
    ) -> Result<ProfileUpdate, String> {
        if record.len() != columns.len() {
            let (found, expected) = (record.len(), columns.len());
            return Err(format!("{found} cells, the header has {expected}"));
        }
        let mut parts = vec![Cow::Borrowed(""); self.view.key_columns().len()];
        let mut occurred_at_us = self.now_us;
        let mut features = Vec::with_capacity(columns.len());
        for (cell, column) in record.iter().zip(columns) {
            match *column {
                Column::Key(part) => parts[part] = Cow::Borrowed(cell),
                Column::OccurredAt if cell.trim().is_empty() => {}
                Column::OccurredAt => {
                    occurred_at_us = update_time(cell.trim(), self.config, self.now_us)?;
                }
                Column::Feature(index) => {
                    let feature = &self.view.features()[index];
                    let value = Value::from_text(cell, feature.kind)
                        .map_err(|problem| format!("{}: {problem}", feature.name))?;
                    feature.check(&value).map_err(|error| error.to_string())?;
                    features.push(named_value(&feature.name, &value));
                }
            }
        }
        self.update(&parts, occurred_at_us, features)
    }
}

fn csv_error(error: &csv::Error) -> BodyError {
    BodyError::Syntax(shorten(&format!("not CSV: {error}"), 200))
}

/// The time from which on new values hold.
///
/// # Errors
/// What is wrong with the field `occurred_at`.
pub fn update_time(text: &str, config: &EventsConfig, now_us: i64) -> Result<i64, String> {
    let time_us = clock::from_rfc3339(text).map_err(|problem| format!("occurred_at: {problem}"))?;
    let skew_us = i64::try_from(config.max_clock_skew.as_micros()).unwrap_or(i64::MAX);
    if time_us > now_us.saturating_add(skew_us) {
        return Err(format!(
            "occurred_at: {} lies in the future; values are written once they hold",
            clock::to_rfc3339(time_us)
        ));
    }
    if time_us < 0 {
        return Err("occurred_at: expected a time after the year 1970".to_owned());
    }
    Ok(time_us)
}
