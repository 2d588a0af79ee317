//! MLflow's JSON bodies as columns.

use std::collections::HashMap;
use std::fmt;

use onnx_ml::Shape;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::features::value::{describe_json, shorten};
use crate::infer::cells::Values;
use crate::infer::columns::Column;
use crate::infer::error::InferError;
use crate::models::version::ModelVersion;

/// The most columns of a table.
pub const MAX_COLUMNS: usize = 10_000;

/// Records may leave values out, and what they leave out is filled in: at most so many times what
/// they hold, and so many more, so that a few bytes cannot ask for much memory.
const MOST_FILLED: usize = 4;
const MOST_FILLED_ANYWAY: usize = 4096;

#[derive(Deserialize)]
struct Body {
    dataframe_split: Option<Split>,
    dataframe_records: Option<Vec<Record>>,
    instances: Option<Rows>,
    inputs: Option<Inputs>,
    params: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    columns: Option<Vec<Value>>,
    #[serde(default, rename = "index")]
    _index: IgnoredAny,
    data: Vec<Vec<Value>>,
}

/// Rows with names, or a tensor.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of records or the values of a tensor"
)]
enum Rows {
    Records(Vec<Record>),
    Tensor(Vec<Value>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected columns by name or the values of a tensor"
)]
enum Inputs {
    Columns(Record),
    Rows(Rows),
}

/// A JSON object with its fields in the order in which they are written.
struct Record(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Record, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Record;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a value for each column")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Record, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Record(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The columns of a body.
///
/// # Errors
/// What is wrong, in which field, and where it can be said in which row and column.
pub fn columns(model: &ModelVersion, body: &[u8]) -> Result<Vec<Column>, InferError> {
    let body = parse(body)?;
    match &body.params {
        None | Some(Value::Null) => {}
        Some(Value::Object(params)) if params.is_empty() => {}
        Some(params) => {
            return Err(InferError::invalid(format!(
                "params: expected none, as ONNX models have no parameters, found {}",
                describe_json(params)
            )));
        }
    }
    match (
        body.dataframe_split,
        body.dataframe_records,
        body.instances,
        body.inputs,
    ) {
        (Some(split), None, None, None) => split_columns(split),
        (None, Some(records), None, None) => record_columns("dataframe_records", records),
        (None, None, Some(rows), None) => row_columns(model, "instances", rows),
        (None, None, None, Some(Inputs::Rows(rows))) => row_columns(model, "inputs", rows),
        (None, None, None, Some(Inputs::Columns(Record(fields)))) => {
            check_count("inputs", fields.len())?;
            fields
                .into_iter()
                .map(|(name, values)| {
                    let field = format!("inputs.{}", shorten(&name, 64));
                    let values = match values {
                        Value::Array(values) => values,
                        single => vec![single],
                    };
                    nested(&field, name, values)
                })
                .collect()
        }
        _ => Err(InferError::invalid(
            "body: expected exactly one of dataframe_split, dataframe_records, instances and inputs",
        )),
    }
}

fn parse(body: &[u8]) -> Result<Body, InferError> {
    // What reads an object by its fields would take a list for their values.
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_none_or(|first| *first != b'{') {
        return Err(InferError::invalid(
            "body: expected a JSON object with one of dataframe_split, dataframe_records, instances \
             and inputs",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize::<_, Body>(&mut deserializer);
    let body = parsed.map_err(|error| {
        let path = error.path().to_string();
        let field = match path.as_str() {
            "." | "?" => "body",
            path => path,
        };
        let message = format!("{}: {}", shorten(field, 200), error.inner());
        InferError::invalid(shorten(&message, 500))
    })?;
    let end = deserializer.end();
    end.map_err(|error| InferError::invalid(format!("body: {error}")))?;
    Ok(body)
}

fn split_columns(split: Split) -> Result<Vec<Column>, InferError> {
    let count = match (&split.columns, split.data.first()) {
        (Some(columns), _) => columns.len(),
        (None, first) => first.map_or(0, Vec::len),
    };
    check_count("dataframe_split.columns", count)?;
    let mut values: Vec<Vec<Value>> = vec![Vec::new(); count];
    for (row, cells) in split.data.into_iter().enumerate() {
        if cells.len() != count {
            return Err(InferError::invalid(format!(
                "dataframe_split.data: row {row}: expected {count} values, found {}",
                cells.len()
            )));
        }
        for (column, cell) in values.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    let mut columns = Vec::with_capacity(count);
    let mut names = split.columns.into_iter().flatten();
    for (index, values) in values.into_iter().enumerate() {
        let name = match names.next() {
            None => index.to_string(),
            Some(Value::String(name)) => name,
            // Data frames without names of their own number their columns.
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => {
                return Err(InferError::invalid(format!(
                    "dataframe_split.columns[{index}]: expected a name, found {}",
                    describe_json(&other)
                )));
            }
        };
        columns.push(nested("dataframe_split.data", name, values)?);
    }
    Ok(columns)
}

/// One column for each name that any record has, in the order in which they appear.
fn record_columns(field: &str, records: Vec<Record>) -> Result<Vec<Column>, InferError> {
    let rows = records.len();
    let given: usize = records.iter().map(|record| record.0.len()).sum();
    let most = given * MOST_FILLED + MOST_FILLED_ANYWAY;
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut columns: Vec<(String, Vec<Value>)> = Vec::new();
    for (row, Record(fields)) in records.into_iter().enumerate() {
        for (name, value) in fields {
            let place = match places.get(&name) {
                Some(place) => *place,
                None => {
                    check_count(field, columns.len() + 1)?;
                    if rows.saturating_mul(columns.len() + 1) > most {
                        return Err(InferError::too_large(format!(
                            "{field}: {rows} rows of more than {} columns hold no more than \
                             {given} values; expected null for a missing value",
                            columns.len()
                        )));
                    }
                    let place = columns.len();
                    places.insert(name.clone(), place);
                    columns.push((name, Vec::with_capacity(rows)));
                    place
                }
            };
            let values = &mut columns[place].1;
            if values.len() > row {
                let name = shorten(&columns[place].0, 64);
                let message = format!("{field}: row {row}: column {name:?} is given twice");
                return Err(InferError::invalid(message));
            }
            // What earlier records left out is missing.
            values.resize(row, Value::Null);
            values.push(value);
        }
    }
    let whole = columns.into_iter().map(|(name, mut values)| {
        values.resize(rows, Value::Null);
        nested(field, name, values)
    });
    whole.collect()
}

fn row_columns(model: &ModelVersion, field: &str, rows: Rows) -> Result<Vec<Column>, InferError> {
    let values = match rows {
        Rows::Records(records) if !records.is_empty() => return record_columns(field, records),
        Rows::Records(_) => Vec::new(),
        Rows::Tensor(values) => values,
    };
    let [info] = model.graph.inputs() else {
        return Err(InferError::invalid(format!(
            "{field}: expected the values of each of the {} inputs of {} by name, found rows \
             without names",
            model.graph.inputs().len(),
            model.name
        )));
    };
    let mut column = nested(field, info.name.clone(), values)?;
    // No rows have no width either; the graph's is as good as any.
    if column.shape.as_slice() == [0] {
        let open = info.shape.iter().skip(1).map(|dim| dim.unwrap_or(1));
        column.shape.extend(open);
    }
    Ok(vec![column])
}

fn check_count(field: &str, count: usize) -> Result<(), InferError> {
    if count <= MAX_COLUMNS {
        return Ok(());
    }
    Err(InferError::too_large(format!(
        "{field}: expected at most {MAX_COLUMNS} columns, found {count} or more"
    )))
}

/// A column whose values may be arrays, all of the same lengths.
fn nested(field: &str, name: String, values: Vec<Value>) -> Result<Column, InferError> {
    let mut shape = Shape::from_slice(&[values.len()]);
    let mut first = values.first();
    while let Some(Value::Array(inner)) = first {
        shape.push(inner.len());
        first = inner.first();
    }
    if shape.len() == 1 {
        return Ok(Column::flat(name, Values::Json(values)));
    }
    let mut flat = Vec::new();
    for (row, value) in values.into_iter().enumerate() {
        flatten(value, &shape[1..], &mut flat).map_err(|problem| {
            let name = shorten(&name, 64);
            InferError::invalid(format!("{field}: row {row}, column {name:?}: {problem}"))
        })?;
    }
    Ok(Column {
        name,
        shape,
        values: Values::Json(flat),
    })
}

/// Arrays are as deep as JSON may be nested at most.
fn flatten(value: Value, shape: &[usize], flat: &mut Vec<Value>) -> Result<(), String> {
    match (shape.split_first(), value) {
        (Some((length, inner)), Value::Array(values)) if values.len() == *length => values
            .into_iter()
            .try_for_each(|value| flatten(value, inner, flat)),
        (Some((length, _)), Value::Array(values)) => {
            let found = values.len();
            Err(format!(
                "expected an array of {length} as in the first row, found {found}"
            ))
        }
        (Some((length, _)), other) => {
            let found = describe_json(&other);
            Err(format!(
                "expected an array of {length} as in the first row, found {found}"
            ))
        }
        (None, Value::Array(_)) => {
            Err("expected a value as in the first row, found an array".to_owned())
        }
        (None, value) => {
            flat.push(value);
            Ok(())
        }
    }
}
