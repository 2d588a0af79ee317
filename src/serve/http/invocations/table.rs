//! CSV with a header line, as columns. Values stay as they are written until the input's type says
//! what they are.

use csv::{ErrorKind, Position, ReaderBuilder, StringRecord};
use onnx_ml::CompactString;

use super::read::MAX_COLUMNS;
use crate::features::value::shorten;
use crate::infer::cells::Values;
use crate::infer::columns::Column;
use crate::infer::error::InferError;

/// The columns of a table.
///
/// # Errors
/// What is no CSV: a row of another length, a column without a name, bytes that are not UTF-8.
pub fn columns(body: &[u8]) -> Result<Vec<Column>, InferError> {
    let mut reader = ReaderBuilder::new().from_reader(body);
    let names = reader.headers().map_err(|error| wrong(&error))?.clone();
    if names.is_empty() {
        let message = "body: empty, expected CSV with a header line";
        return Err(InferError::invalid(message));
    }
    if names.len() > MAX_COLUMNS {
        return Err(InferError::too_large(format!(
            "header line: expected at most {MAX_COLUMNS} columns, found {}",
            names.len()
        )));
    }
    if let Some(place) = names.iter().position(str::is_empty) {
        return Err(InferError::invalid(format!(
            "header line: column {place} has no name; leave out the index when writing the table"
        )));
    }
    let mut columns: Vec<Vec<CompactString>> = vec![Vec::new(); names.len()];
    let mut record = StringRecord::new();
    while reader
        .read_record(&mut record)
        .map_err(|error| wrong(&error))?
    {
        for (column, field) in columns.iter_mut().zip(&record) {
            column.push(CompactString::from(field));
        }
    }
    let named = names.iter().zip(columns);
    Ok(named
        .map(|(name, texts)| Column::flat(name.to_owned(), Values::Written(texts)))
        .collect())
}

fn wrong(error: &csv::Error) -> InferError {
    let line = |position: &Option<Position>| position.as_ref().map_or(0, Position::line);
    let message = match error.kind() {
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => format!(
            "line {}: expected {expected_len} values as in the header line, found {len}",
            line(pos)
        ),
        ErrorKind::Utf8 { pos, err } => format!(
            "line {}: value {}: expected UTF-8, found other bytes",
            line(pos),
            err.field()
        ),
        _ => format!(
            "body: expected CSV, found {}",
            shorten(&error.to_string(), 200)
        ),
    };
    InferError::invalid(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let columns = columns(text.as_bytes()).map_err(|error| error.message)?;
        let named = columns.into_iter().map(|column| match column.values {
            Values::Written(texts) => (
                column.name,
                texts.iter().map(|text| text.to_string()).collect(),
            ),
            other => panic!("{other:?}"),
        });
        Ok(named.collect())
    }

    fn column(name: &str, values: &[&str]) -> (String, Vec<String>) {
        let values = values.iter().map(|value| (*value).to_owned());
        (name.to_owned(), values.collect())
    }

    #[test]
    fn a_table_is_read_by_its_header_line() {
        let found = read("a,\"b, c\"\r\n1,\"say \"\"x\"\"\"\r\n,2\r\n").unwrap();
        let expected = [column("a", &["1", ""]), column("b, c", &["say \"x\"", "2"])];
        assert_eq!(found, expected);
        assert_eq!(read("a\n").unwrap(), [column("a", &[])]);
        assert_eq!(read("\u{feff}a\n1").unwrap(), [column("a", &["1"])]);
    }

    #[test]
    fn what_is_no_table_is_refused_by_line() {
        for (text, word) in [
            ("", "empty"),
            ("a,b\n1,2\n3\n", "line 3: expected 2 values"),
            (",a\n0,1\n", "column 0 has no name"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
        let problem = columns(b"a\nb\xff\n").unwrap_err().message;
        assert!(
            problem.starts_with("line 2: value 0: expected UTF-8"),
            "{problem}"
        );
        let wide = vec!["c"; MAX_COLUMNS + 1].join(",");
        assert!(read(&wide).unwrap_err().contains("at most"));
    }
}
