//! A small typed table, read from a CSV file as it is.
//!
//! It promises that every cell was parsed as its column declares, or that reading fails with the
//! file, line and column. Strings are kept byte for byte: "No internet service" stays a category
//! of its own. It does not guess types, trim strings or drop rows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::error::TrainError;

/// How the cells of one column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text, kept as it is.
    Text,
    /// A whole number.
    Integer,
    /// A finite decimal number; a blank cell is an error.
    Number,
    /// A finite decimal number; a blank cell is a missing value.
    NumberOrBlank,
    /// `Yes` or `No`, in any case: what is to be predicted.
    YesNo,
}

/// One column to read: its header in the file and its name in the table.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSpec {
    pub header: &'static str,
    pub name: &'static str,
    pub kind: Kind,
}

/// The cells of one column, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Text(Vec<String>),
    Integer(Vec<i64>),
    /// `None` is a missing value.
    Number(Vec<Option<f64>>),
    Flag(Vec<bool>),
}

impl Values {
    fn empty(kind: Kind) -> Values {
        match kind {
            Kind::Text => Values::Text(Vec::new()),
            Kind::Integer => Values::Integer(Vec::new()),
            Kind::Number | Kind::NumberOrBlank => Values::Number(Vec::new()),
            Kind::YesNo => Values::Flag(Vec::new()),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Values::Text(_) => "text",
            Values::Integer(_) => "integers",
            Values::Number(_) => "numbers",
            Values::Flag(_) => "yes/no flags",
        }
    }
}

/// A named column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Values,
}

/// Columns of equal length, in the order they were declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: usize,
}

impl Table {
    /// Reads the columns `specs` of the CSV file `path`; a name ending in `.gz` is decompressed.
    ///
    /// Other columns of the file are ignored, and the order of columns in the file is free.
    ///
    /// # Errors
    /// An unreadable or malformed file, a missing column, or a cell that is not of its kind.
    pub fn read(path: &Path, separator: u8, specs: &[ColumnSpec]) -> Result<Table, TrainError> {
        let file = File::open(path).map_err(|source| TrainError::Read {
            file: path.to_owned(),
            source,
        })?;
        let compressed = path.extension().is_some_and(|extension| extension == "gz");
        let bytes: Box<dyn Read> = if compressed {
            Box::new(GzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let csv_error = |source| TrainError::Csv {
            file: path.to_owned(),
            source,
        };

        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .from_reader(bytes);
        let headers = reader.headers().map_err(csv_error)?.clone();
        let mut positions = Vec::new();
        for spec in specs {
            let position = headers.iter().position(|header| header == spec.header);
            let position = position.ok_or_else(|| TrainError::MissingColumn {
                file: path.to_owned(),
                column: spec.header.to_owned(),
                found: headers.iter().collect::<Vec<_>>().join(", "),
            })?;
            positions.push(position);
        }

        let mut columns: Vec<Column> = Vec::new();
        for spec in specs {
            columns.push(Column {
                name: spec.name.to_owned(),
                values: Values::empty(spec.kind),
            });
        }
        let mut rows = 0;
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(csv_error)? {
            for ((spec, position), column) in specs.iter().zip(&positions).zip(&mut columns) {
                let cell = record.get(*position).unwrap_or_default();
                push_cell(&mut column.values, spec.kind, cell).map_err(|expected| {
                    TrainError::Cell {
                        file: path.to_owned(),
                        line: record.position().map_or(0, csv::Position::line),
                        column: spec.header.to_owned(),
                        expected,
                        found: cell.to_owned(),
                    }
                })?;
            }
            rows += 1;
        }
        Ok(Table { columns, rows })
    }

    /// The column called `name`.
    ///
    /// # Errors
    /// [`TrainError::Column`] if there is none.
    pub fn column(&self, name: &str) -> Result<&Values, TrainError> {
        let column = self.columns.iter().find(|column| column.name == name);
        match column {
            Some(column) => Ok(&column.values),
            None => Err(TrainError::Column {
                column: name.to_owned(),
                expected: "a column of that name",
                found: "none",
            }),
        }
    }

    /// The texts of the column called `name`.
    ///
    /// # Errors
    /// [`TrainError::Column`] if there is no such column or it does not hold text.
    pub fn texts(&self, name: &str) -> Result<&[String], TrainError> {
        match self.column(name)? {
            Values::Text(texts) => Ok(texts),
            other => Err(TrainError::Column {
                column: name.to_owned(),
                expected: "text",
                found: other.type_name(),
            }),
        }
    }

    /// The flags of the column called `name`.
    ///
    /// # Errors
    /// [`TrainError::Column`] if there is no such column or it does not hold flags.
    pub fn flags(&self, name: &str) -> Result<&[bool], TrainError> {
        match self.column(name)? {
            Values::Flag(flags) => Ok(flags),
            other => Err(TrainError::Column {
                column: name.to_owned(),
                expected: "yes/no flags",
                found: other.type_name(),
            }),
        }
    }

    /// The same columns with only the given rows, in the given order. Every row is in range.
    pub fn select(&self, rows: &[usize]) -> Table {
        fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|row| values[*row].clone()).collect()
        }
        let mut columns = Vec::new();
        for column in &self.columns {
            let values = match &column.values {
                Values::Text(values) => Values::Text(pick(values, rows)),
                Values::Integer(values) => Values::Integer(pick(values, rows)),
                Values::Number(values) => Values::Number(pick(values, rows)),
                Values::Flag(values) => Values::Flag(pick(values, rows)),
            };
            columns.push(Column {
                name: column.name.clone(),
                values,
            });
        }
        Table {
            columns,
            rows: rows.len(),
        }
    }

    /// The same rows without the column called `name`.
    pub fn without(&self, name: &str) -> Table {
        let mut table = self.clone();
        table.columns.retain(|column| column.name != name);
        table
    }
}

/// Parses one cell onto the end of its column, or says what was expected instead.
fn push_cell(values: &mut Values, kind: Kind, cell: &str) -> Result<(), &'static str> {
    let finite = |cell: &str| {
        let number = cell.trim().parse::<f64>().ok();
        number.filter(|number| number.is_finite())
    };
    match values {
        Values::Text(texts) => texts.push(cell.to_owned()),
        Values::Integer(integers) => {
            integers.push(cell.trim().parse().map_err(|_| "a whole number")?);
        }
        Values::Number(numbers) => {
            if kind == Kind::NumberOrBlank && cell.trim().is_empty() {
                numbers.push(None);
            } else {
                numbers.push(Some(finite(cell).ok_or("a finite number")?));
            }
        }
        Values::Flag(flags) => {
            if cell.eq_ignore_ascii_case("yes") {
                flags.push(true);
            } else if cell.eq_ignore_ascii_case("no") {
                flags.push(false);
            } else {
                return Err("yes or no");
            }
        }
    }
    Ok(())
}
