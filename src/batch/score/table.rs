//! Some rows of a file, from its bytes to columns of the features' types.
//!
//! A row that cannot be read is remembered as [`Bad`] with the first reason that was found, and keeps its
//! place with nulls until all columns are read; then [`Table::without_bad_rows`] takes such rows out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch,
    RecordBatchOptions, StringBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::Schema;
use arrow::util::display::array_value_to_string;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::bind::Binding;
use crate::batch::push::plain_name;
use crate::features::column::value_at;
use crate::features::value::{FeatureType, Value, shorten};
use crate::features::view::View;

/// The most characters of a row that a reject repeats of each cell.
const SHOWN_CHARACTERS: usize = 500;

/// Columns of some rows: those of [`Binding::columns`].
#[derive(Debug)]
pub struct Table {
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    /// The columns of features have the features' types already.
    pub is_typed: bool,
    /// The number of each row in its file, from 1.
    pub numbers: Vec<u64>,
    /// By row: what is wrong with it.
    pub bad: BTreeMap<usize, Bad>,
}

/// Why a row is not scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Bad {
    /// The column of the file, or of the output.
    pub column: String,
    pub reason: String,
    /// What was read, when it is not in the columns.
    pub content: Option<Json>,
}

/// A row that was not scored, as a line of the rejects file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    pub file: String,
    /// From 1; of CSV without the header. 0, and left out, when the reader does not count rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub row: u64,
    pub column: String,
    pub reason: String,
    /// The row as far as it was read.
    pub content: Json,
}

fn is_zero(row: &u64) -> bool {
    *row == 0
}

impl Table {
    /// Columns as a file has them.
    pub fn new(columns: Vec<ArrayRef>, rows: usize, first: u64) -> Table {
        Table {
            columns,
            rows,
            is_typed: false,
            numbers: (first..first + rows as u64).collect(),
            bad: BTreeMap::new(),
        }
    }

    /// Remembers what is wrong with a row, unless something is already.
    pub fn reject(&mut self, row: usize, column: &str, reason: String) {
        self.bad.entry(row).or_insert_with(|| Bad {
            column: column.to_owned(),
            reason,
            content: None,
        });
    }

    /// Takes the bad rows out; they are added to `rejects` as rows of `file`.
    ///
    /// # Errors
    /// Never with columns of equal length.
    pub fn without_bad_rows(
        self,
        file: &str,
        binding: &Binding,
        rejects: &mut Vec<Reject>,
    ) -> Result<Table, String> {
        if self.bad.is_empty() {
            return Ok(self);
        }
        for (&row, bad) in &self.bad {
            let content = bad.content.clone();
            rejects.push(Reject {
                file: file.to_owned(),
                row: self.numbers[row],
                column: bad.column.clone(),
                reason: bad.reason.clone(),
                content: content.unwrap_or_else(|| self.content(row, binding)),
            });
        }
        let is_good = |row: usize| !self.bad.contains_key(&row);
        let mask: BooleanArray = (0..self.rows).map(|row| Some(is_good(row))).collect();
        let columns = self.columns.iter().map(|column| filter(column, &mask));
        let numbers = self.numbers.iter().enumerate();
        Ok(Table {
            columns: columns
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?,
            rows: self.rows - self.bad.len(),
            is_typed: self.is_typed,
            numbers: numbers
                .filter(|(row, _)| is_good(*row))
                .map(|(_, number)| *number)
                .collect(),
            bad: BTreeMap::new(),
        })
    }

    /// A row as JSON: column, value.
    pub fn content(&self, row: usize, binding: &Binding) -> Json {
        let mut content = Map::new();
        for (column, array) in binding.columns().zip(&self.columns) {
            let value = match value_at(array, row) {
                Value::String(text) => Json::from(shorten(&text, SHOWN_CHARACTERS)),
                Value::Null if array.is_valid(row) => array_value_to_string(array, row)
                    .map_or(Json::Null, |text| {
                        Json::from(shorten(&text, SHOWN_CHARACTERS))
                    }),
                value => value.to_json(),
            };
            content.insert(column.name.clone(), value);
        }
        Json::Object(content)
    }
}

/// Parses records of CSV; `width` is how many fields the header has.
///
/// # Errors
/// When there are not `rows` records.
pub fn from_csv(
    bytes: &[u8],
    rows: usize,
    first: u64,
    width: usize,
    binding: &Binding,
) -> Result<Table, String> {
    let mut builders: Vec<StringBuilder> = binding
        .columns()
        .map(|_| StringBuilder::with_capacity(rows, rows * 8))
        .collect();
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    let mut bad: Vec<(usize, Bad)> = Vec::new();
    let mut row = 0;
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| error.to_string())?
    {
        let mut problem = None;
        if record.len() != width {
            let found = record.len();
            let reason = format!("expected {width} fields as in the header, found {found}");
            problem = Some((String::new(), reason));
        }
        for (builder, column) in builders.iter_mut().zip(binding.columns()) {
            match record.get(column.index).map(std::str::from_utf8) {
                Some(Ok(text)) => builder.append_value(text),
                None => builder.append_null(),
                Some(Err(_)) => {
                    builder.append_null();
                    let reason = "is not UTF-8 text".to_owned();
                    problem.get_or_insert((column.name.clone(), reason));
                }
            }
        }
        if let Some((column, reason)) = problem {
            let fields = record.iter().take(width.saturating_add(1));
            let fields = fields.map(|field| {
                Json::from(shorten(&String::from_utf8_lossy(field), SHOWN_CHARACTERS))
            });
            let content = Some(Json::Array(fields.collect()));
            let reason = match column.is_empty() {
                true => reason,
                false => format!("{column}: {reason}"),
            };
            bad.push((
                row,
                Bad {
                    column,
                    reason,
                    content,
                },
            ));
        }
        row += 1;
    }
    if row != rows {
        return Err(format!("expected {rows} records, found {row}"));
    }
    let columns = builders
        .iter_mut()
        .map(|builder| -> ArrayRef { Arc::new(builder.finish()) });
    let mut table = Table::new(columns.collect(), rows, first);
    table.bad.extend(bad);
    Ok(table)
}

/// A column of a feature's type that is being filled.
enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Float(Float64Builder),
    Flag(BooleanBuilder),
}

impl Builder {
    fn new(kind: FeatureType) -> Builder {
        match kind {
            FeatureType::String => Builder::Text(StringBuilder::new()),
            FeatureType::Int64 => Builder::Integer(Int64Builder::new()),
            FeatureType::Float64 => Builder::Float(Float64Builder::new()),
            FeatureType::Bool => Builder::Flag(BooleanBuilder::new()),
        }
    }

    /// Adds a value of the builder's type; anything else is null.
    fn append(&mut self, value: &Value) {
        match (self, value) {
            (Builder::Text(builder), Value::String(text)) => builder.append_value(text),
            (Builder::Integer(builder), Value::Int64(integer)) => builder.append_value(*integer),
            (Builder::Float(builder), Value::Float64(float)) => builder.append_value(*float),
            (Builder::Flag(builder), Value::Bool(flag)) => builder.append_value(*flag),
            (Builder::Text(builder), _) => builder.append_null(),
            (Builder::Integer(builder), _) => builder.append_null(),
            (Builder::Float(builder), _) => builder.append_null(),
            (Builder::Flag(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Integer(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
            Builder::Flag(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Parses lines of JSON objects. Values are read as a request's are. `needed` marks the features that
/// the models read: one of them in a line, and not in the first lines of the file, which the binding is
/// made of, makes the row bad.
///
/// # Errors
/// When there are not `rows` lines.
pub fn from_ndjson(
    bytes: &[u8],
    rows: usize,
    first: u64,
    binding: &Binding,
    view: &View,
    needed: &[bool],
) -> Result<Table, String> {
    let mut keys: Vec<StringBuilder> = binding.keys.iter().map(|_| StringBuilder::new()).collect();
    let kind = |feature: usize| view.features()[feature].kind;
    let features = binding.features.iter();
    let mut builders: Vec<Builder> = features
        .map(|(feature, _)| Builder::new(kind(*feature)))
        .collect();
    let mut bad: Vec<(usize, Bad)> = Vec::new();
    let lines = bytes.split(|byte| *byte == b'\n');
    // As the splitter has it.
    let lines = lines.filter(|line| !line.iter().all(|byte| b" \t\r".contains(byte)));
    let mut row = 0;
    for line in lines {
        let read = serde_json::from_slice::<Map<String, Json>>(line);
        let (members, mut problem) = match read {
            Ok(members) => (members, None),
            Err(error) => {
                let reason = format!("expected a JSON object: {error}");
                (Map::new(), Some((String::new(), reason)))
            }
        };
        for (builder, column) in keys.iter_mut().zip(&binding.keys) {
            match members.get(&column.name) {
                Some(Json::String(text)) => builder.append_value(text),
                Some(Json::Number(number)) => builder.append_value(number.to_string()),
                None | Some(Json::Null) => builder.append_null(),
                Some(_) => {
                    builder.append_null();
                    let reason = format!("{}: expected text or a number", column.name);
                    problem.get_or_insert((column.name.clone(), reason));
                }
            }
        }
        for (builder, (feature, column)) in builders.iter_mut().zip(&binding.features) {
            let json = members.get(&column.name).unwrap_or(&Json::Null);
            match view.read_column(*feature, json) {
                Ok((_, value, _)) => builder.append(&value),
                Err(error) => {
                    builder.append(&Value::Null);
                    problem.get_or_insert((column.name.clone(), error.to_string()));
                }
            }
        }
        if problem.is_none() {
            let late = late_column(&members, binding, view, needed);
            problem = late.map(|name| {
                let reason = format!(
                    "{name}: a feature that the first lines of the file do not have; write it in \
                     every line, as null where there is none"
                );
                (name, reason)
            });
        }
        if let Some((column, reason)) = problem {
            let content = match members.is_empty() {
                true => Json::from(shorten(&String::from_utf8_lossy(line), SHOWN_CHARACTERS)),
                false => Json::Object(members),
            };
            bad.push((
                row,
                Bad {
                    column,
                    reason,
                    content: Some(content),
                },
            ));
        }
        row += 1;
    }
    if row != rows {
        return Err(format!("expected {rows} lines, found {row}"));
    }
    let keys = keys
        .iter_mut()
        .map(|builder| -> ArrayRef { Arc::new(builder.finish()) });
    let columns = keys.chain(builders.iter_mut().map(Builder::finish));
    let mut table = Table::new(columns.collect(), rows, first);
    table.is_typed = true;
    table.bad.extend(bad);
    Ok(table)
}

/// A member that is a needed feature and not among those that are read.
fn late_column(
    members: &Map<String, Json>,
    binding: &Binding,
    view: &View,
    needed: &[bool],
) -> Option<String> {
    let is_known = |name: &String| {
        binding.columns().any(|column| column.name == *name) || binding.unread.contains(name)
    };
    let unbound = |feature: usize| {
        needed[feature] && !binding.features.iter().any(|(bound, _)| *bound == feature)
    };
    let given = view.derived_columns().start;
    let mut names = members.keys().filter(|name| !is_known(name));
    let late = names.find(|name| {
        let plain = plain_name(name);
        (0..given)
            .any(|feature| unbound(feature) && plain_name(&view.features()[feature].name) == plain)
    });
    late.cloned()
}

/// A batch of `rows` rows, of which there may be no columns.
///
/// # Errors
/// When the columns do not fit the schema.
pub fn batch_of(
    schema: &Arc<Schema>,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| error.to_string())
}
