//! From pieces of a body to rows to be scored.
//!
//! A row is flat, as in `POST /v1/features/{view}`: the key column, and features by their names, which are
//! used instead of what is stored. Null says that a value is missing; what a row does not have is read from
//! the store. A row that is wrong is wrong by itself; a column that is wrong is wrong for the whole table.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value as Json};

use super::super::customers::check_customer_id;
use super::super::error::ApiError;
use super::chunks::Chunk;
use crate::batch::score::cells;
use crate::features::column::value_at;
use crate::features::value::{describe_json, shorten};
use crate::features::view::View;
use crate::score::CUSTOMER;
use crate::score::bulk::Row;

/// A row that cannot be scored.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Of whom it is, when that much can be said.
    pub customer_id: Option<String>,
    /// The field, what was found and what was expected.
    pub error: String,
}

/// The rows of a piece, in order.
///
/// # Errors
/// A column that is no feature, and a table without a key column.
pub fn rows_of(chunk: &Chunk, view: &View) -> Result<Vec<Result<Row, BadRow>>, ApiError> {
    match chunk {
        Chunk::Lines(bytes) => {
            let lines = bytes.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.trim_ascii().is_empty());
            Ok(lines.map(|line| of_line(line, view)).collect())
        }
        Chunk::Table(table) => of_table(table, view),
    }
}

fn of_line(line: &[u8], view: &View) -> Result<Row, BadRow> {
    let nobody = |error: String| BadRow {
        customer_id: None,
        error,
    };
    let object = match serde_json::from_slice::<Json>(line) {
        Ok(Json::Object(object)) => object,
        Ok(other) => {
            let found = describe_json(&other);
            return Err(nobody(format!("expected an object, found {found}")));
        }
        Err(error) => return Err(nobody(shorten(&format!("not JSON: {error}"), 200))),
    };
    let customer_id = match object.get(CUSTOMER) {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        None | Some(Json::Null) => return Err(nobody(format!("{CUSTOMER}: missing"))),
        Some(other) => {
            let found = describe_json(other);
            return Err(nobody(format!(
                "{CUSTOMER}: expected text or a whole number, found {found}"
            )));
        }
    };
    check_customer_id(&customer_id).map_err(|error| nobody(error.into_message()))?;
    let mut row = Row {
        customer_id,
        ..Row::default()
    };
    match read_features(&object, view, &mut row) {
        Ok(()) => Ok(row),
        Err(error) => Err(BadRow {
            customer_id: Some(row.customer_id),
            error,
        }),
    }
}

fn read_features(object: &Map<String, Json>, view: &View, row: &mut Row) -> Result<(), String> {
    for (name, json) in object {
        if name == CUSTOMER {
            continue;
        }
        let column = view.override_index(name);
        let column = column.map_err(|error| error.to_string())?;
        let read = view.read_column(column, json);
        let (column, value, _) = read.map_err(|error| error.to_string())?;
        match view.request_columns().contains(&column) {
            true => row.context.push((column, value)),
            false => row.overrides.push((column, value)),
        }
    }
    Ok(())
}

fn of_table(table: &RecordBatch, view: &View) -> Result<Vec<Result<Row, BadRow>>, ApiError> {
    let rows = table.num_rows();
    let mut problems: Vec<Option<String>> = vec![None; rows];
    let mut features: Vec<(usize, ArrayRef)> = Vec::new();
    let schema = table.schema_ref();
    let (at, _) = schema.column_with_name(CUSTOMER).ok_or_else(|| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let names = shorten(&names.collect::<Vec<_>>().join(", "), 200);
        ApiError::unprocessable(format!(
            "no column {CUSTOMER} in the table, which has: {names}"
        ))
    })?;
    let keys = key_column(table.column(at))?;
    for (index, (field, array)) in schema.fields().iter().zip(table.columns()).enumerate() {
        if index == at {
            continue;
        }
        let name = field.name();
        let twice = || {
            let name = shorten(name, 64);
            ApiError::unprocessable(format!("column {name:?}: it is there twice"))
        };
        if name == CUSTOMER {
            return Err(twice());
        }
        let column = view.override_index(name);
        let column = column.map_err(|error| ApiError::unprocessable(format!("column {error}")))?;
        if features.iter().any(|(taken, _)| *taken == column) {
            return Err(twice());
        }
        let reject = |row: usize, reason: String| {
            problems[row].get_or_insert(reason);
        };
        let read = cells::read(array, &view.features()[column], false, reject);
        let (array, _) =
            read.map_err(|problem| ApiError::unprocessable(format!("column {name}: {problem}")))?;
        features.push((column, array));
    }
    let texts = keys.as_string_opt::<i32>();
    let mut read = Vec::with_capacity(rows);
    for (row, problem) in problems.into_iter().enumerate() {
        let key = texts.filter(|texts| texts.is_valid(row));
        let Some(key) = key.map(|texts| texts.value(row).to_owned()) else {
            read.push(Err(BadRow {
                customer_id: None,
                error: format!("{CUSTOMER}: missing"),
            }));
            continue;
        };
        if let Err(error) = check_customer_id(&key) {
            read.push(Err(BadRow {
                customer_id: None,
                error: error.into_message(),
            }));
            continue;
        }
        if let Some(error) = problem {
            read.push(Err(BadRow {
                customer_id: Some(key),
                error,
            }));
            continue;
        }
        let mut found = Row {
            customer_id: key,
            ..Row::default()
        };
        for (column, array) in &features {
            let value = (*column, value_at(array, row));
            match view.request_columns().contains(column) {
                true => found.context.push(value),
                false => found.overrides.push(value),
            }
        }
        read.push(Ok(found));
    }
    Ok(read)
}

/// The key column as text.
fn key_column(array: &ArrayRef) -> Result<ArrayRef, ApiError> {
    let plain = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        plain => plain,
    };
    let is_key = plain.is_integer()
        || matches!(
            plain,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null
        );
    let wrong = |problem: String| ApiError::unprocessable(format!("column {CUSTOMER}: {problem}"));
    if !is_key {
        return Err(wrong(format!(
            "expected text or whole numbers, found {plain}"
        )));
    }
    cast(array, &DataType::Utf8).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, StringArray};

    use super::*;
    use crate::features::value::Value;

    fn view() -> View {
        View::parse(
            r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "tenure"
type = "int64"
min = 0
[[feature]]
name = "plan"
type = "string"
[[feature]]
name = "channel"
type = "string"
source = "request"
[[feature]]
name = "doubled"
type = "int64"
expression = "tenure * 2"
"#,
        )
        .unwrap()
    }

    fn row(customer_id: &str, tenure: Value, channel: Option<&str>) -> Row {
        let view = view();
        let channel = channel.map(|channel| {
            let column = view.index_of("channel").unwrap();
            (column, Value::String(channel.to_owned()))
        });
        Row {
            customer_id: customer_id.to_owned(),
            overrides: vec![(view.index_of("tenure").unwrap(), tenure)],
            context: channel.into_iter().collect(),
        }
    }

    fn shown(rows: &[Result<Row, BadRow>]) -> Vec<String> {
        rows.iter().map(|row| format!("{row:?}")).collect()
    }

    #[test]
    fn a_line_is_a_row_or_says_what_is_wrong_with_it() {
        let lines = concat!(
            "{\"customer_id\":\"a\",\"tenure\":3,\"channel\":\"app\"}\n\n",
            "{\"customer_id\":7,\"tenure\":null}\r\n",
            "{\"customer_id\":\"b\",\"tenure\":-1}\n",
            "{\"customer_id\":\"c\",\"tenur\":1}\n",
            "{\"customer_id\":\"d\",\"doubled\":1}\n",
            "{\"tenure\":1}\n[]\n{\"customer_id\":\"\"}\nsoon",
        );
        let rows = rows_of(&Chunk::Lines(lines.into()), &view()).unwrap();
        let good = [
            Ok(row("a", Value::Int64(3), Some("app"))),
            Ok(row("7", Value::Null, None)),
        ];
        assert_eq!(shown(&rows[..2]), shown(&good));
        let bad: Vec<(Option<&str>, &str)> = rows[2..]
            .iter()
            .map(|row| {
                let bad = row.as_ref().unwrap_err();
                (bad.customer_id.as_deref(), bad.error.as_str())
            })
            .collect();
        for ((customer, error), (expected, part)) in bad.iter().zip([
            (Some("b"), "tenure: -1 is out of range"),
            (Some("c"), "tenur: no such feature"),
            (Some("d"), "doubled: is derived"),
            (None, "customer_id: missing"),
            (None, "expected an object"),
            (None, "customer_id: empty"),
            (None, "not JSON"),
        ]) {
            assert_eq!(*customer, expected, "{error}");
            assert!(error.contains(part.split(':').next().unwrap()), "{error}");
        }
        assert_eq!(bad.len(), 7);
    }

    fn table(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<Result<Row, BadRow>>, String> {
        let table = RecordBatch::try_from_iter(columns).unwrap();
        rows_of(&Chunk::Table(table), &view()).map_err(ApiError::into_message)
    }

    #[test]
    fn columns_are_features_whatever_their_width() {
        let rows = table(vec![
            (
                "customer_id",
                Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
            ),
            ("tenure", Arc::new(Float64Array::from(vec![4.0, 1.0, -1.0]))),
            (
                "channel",
                Arc::new(StringArray::from(vec!["app", "web", "app"])),
            ),
        ]);
        let rows = rows.unwrap();
        let good = [Ok(row("1", Value::Int64(4), Some("app")))];
        assert_eq!(shown(&rows[..1]), shown(&good));
        assert_eq!(rows[1].as_ref().unwrap_err().error, "customer_id: missing");
        let bad = rows[2].as_ref().unwrap_err();
        assert_eq!(bad.customer_id.as_deref(), Some("3"));
        assert!(bad.error.contains("out of range"), "{}", bad.error);
    }

    #[test]
    fn a_column_that_is_no_feature_is_refused_for_all_rows() {
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        for (columns, part) in [
            (vec![("tenure", Arc::clone(&one))], "no column customer_id"),
            (
                vec![
                    ("customer_id", Arc::clone(&keys)),
                    ("tenur", Arc::clone(&one)),
                ],
                "column tenur: no such feature",
            ),
            (
                vec![
                    ("customer_id", Arc::clone(&keys)),
                    ("doubled", Arc::clone(&one)),
                ],
                "column doubled: is derived",
            ),
            (
                vec![(
                    "customer_id",
                    Arc::new(Float64Array::from(vec![1.5])) as ArrayRef,
                )],
                "expected text or whole numbers",
            ),
            (
                vec![
                    ("customer_id", Arc::clone(&keys)),
                    ("tenure", Arc::clone(&one)),
                    ("tenure", Arc::clone(&one)),
                ],
                "twice",
            ),
        ] {
            let problem = table(columns).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
