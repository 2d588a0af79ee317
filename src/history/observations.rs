//! Observations: rows that say which entity was looked at when, with whatever else they carry.
//!
//! The key columns of the view and the time column must have a value in every row; every other column
//! is carried through as it is. Memory is bounded by the batch size.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::RecordBatchReceiverStreamBuilder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::error::HistoryError;
use super::plan::{BATCH_ROWS, streamed};
use crate::clock;
use crate::features::change::KEY_SEPARATOR;
use crate::features::value::shorten;
use crate::features::view::{View, suggestion};

/// The columns that the table has behind those of the file: the row's number from 0, the entity's key,
/// the time of the observation in microseconds since the Unix epoch.
pub const ROW: &str = "__row";
pub const KEY: &str = "__key";
pub const AT: &str = "__at_us";

/// A file of observations.
#[derive(Clone, Debug)]
pub struct Observations {
    file: PathBuf,
    /// What messages call it.
    called: String,
    format: Format,
    /// The columns of the file.
    pub schema: SchemaRef,
    key_columns: Vec<usize>,
    time_column: usize,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Csv,
    Parquet,
    Arrow,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

impl Observations {
    /// Looks at the schema of `file`, CSV, Parquet or Arrow by its extension, and finds the key columns
    /// of `view` and `time_column` in it. Messages call it `called`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(
        file: &Path,
        called: &str,
        view: &View,
        time_column: &str,
    ) -> Result<Observations, HistoryError> {
        let in_file = |problem: String| HistoryError::Problem(format!("{called}: {problem}"));
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        let format = match extension.to_str() {
            Some("csv") => Format::Csv,
            Some("parquet") => Format::Parquet,
            Some("arrow") => Format::Arrow,
            _ => {
                return Err(in_file(
                    "expected a file ending in .csv, .parquet or .arrow".to_owned(),
                ));
            }
        };
        let mut text_columns: Vec<&str> = view.key_columns().iter().map(String::as_str).collect();
        text_columns.push(time_column);
        let schema = schema_of(file, format, &text_columns).map_err(in_file)?;
        let find = |name: &str, what: &str| {
            schema.index_of(name).map_err(|_| {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                in_file(format!(
                    "no column {name:?}, which is {what}{}",
                    suggestion(name, names)
                ))
            })
        };
        for name in [ROW, KEY, AT] {
            if schema.index_of(name).is_ok() {
                return Err(in_file(format!(
                    "column {name:?}: rename it, the name is taken"
                )));
            }
        }
        let what = format!("a key column of view {}", view.name);
        let key_columns = view.key_columns().iter().map(|name| find(name, &what));
        Ok(Observations {
            key_columns: key_columns.collect::<Result<_, _>>()?,
            time_column: find(time_column, "the time of the observation")?,
            file: file.to_owned(),
            called: called.to_owned(),
            format,
            schema: Arc::clone(&schema),
        })
    }

    /// The rows of the file with [`ROW`], [`KEY`] and [`AT`] behind their columns; at most `max_rows`.
    ///
    /// # Errors
    /// Never before it is run; then the file and row that is wrong.
    pub fn table(&self, max_rows: u64) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(ROW, DataType::UInt64, false)));
        fields.push(Arc::new(Field::new(KEY, DataType::Utf8, false)));
        fields.push(Arc::new(Field::new(AT, DataType::Int64, false)));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let observations = self.clone();
        let stream_schema = Arc::clone(&schema);
        streamed("observations", schema, move |_| {
            let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&stream_schema), 2);
            let sender = builder.tx();
            let (observations, schema) = (observations.clone(), Arc::clone(&stream_schema));
            builder.spawn_blocking(move || {
                let batches = observations
                    .read()
                    .map_err(|problem| observations.fail(problem))?;
                let mut first_row = 0;
                for batch in batches {
                    let batch = batch.map_err(|problem| observations.fail(problem))?;
                    let rows = batch.num_rows() as u64;
                    if first_row + rows > max_rows {
                        let problem = format!("more than {max_rows} rows, which is the most here");
                        return Err(observations.fail(problem));
                    }
                    let keyed = observations.with_keys(&schema, &batch, first_row)?;
                    first_row += rows;
                    if sender.blocking_send(Ok(keyed)).is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            });
            Ok(builder.build())
        })
    }

    fn fail(&self, problem: String) -> DataFusionError {
        HistoryError::Problem(format!("{}: {problem}", self.called)).into()
    }

    fn read(&self) -> Result<Batches, String> {
        let source = File::open(&self.file).map_err(|error| error.to_string())?;
        Ok(match self.format {
            Format::Csv => {
                let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&self.schema))
                    .with_header(true)
                    .with_batch_size(BATCH_ROWS)
                    .build(source)
                    .map_err(|error| error.to_string())?;
                Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())))
            }
            Format::Parquet => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(source)
                    .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
                    .map_err(|error| error.to_string())?;
                Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())))
            }
            Format::Arrow => {
                let reader = arrow::ipc::reader::FileReader::try_new_buffered(source, None)
                    .map_err(|error| error.to_string())?;
                Box::new(reader.map(|batch| batch.map_err(|error| error.to_string())))
            }
        })
    }

    fn with_keys(
        &self,
        schema: &SchemaRef,
        batch: &RecordBatch,
        first_row: u64,
    ) -> Result<RecordBatch, DataFusionError> {
        let rows = batch.num_rows() as u64;
        let numbers = UInt64Array::from_iter_values(first_row..first_row + rows);
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(numbers));
        columns.push(Arc::new(self.keys(batch, first_row)?));
        columns.push(Arc::new(self.times(batch, first_row)?));
        // A file's metadata may differ from batch to batch; the names and types do not.
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    fn keys(&self, batch: &RecordBatch, first_row: u64) -> Result<StringArray, DataFusionError> {
        let name = |column: usize| self.schema.field(column).name();
        let mut parts: Vec<ArrayRef> = Vec::with_capacity(self.key_columns.len());
        for &column in &self.key_columns {
            let texts = cast(batch.column(column), &DataType::Utf8);
            parts.push(
                texts.map_err(|error| self.fail(format!("column {:?}: {error}", name(column))))?,
            );
        }
        let mut keys = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let mut key = String::new();
            for (part, &column) in parts.iter().zip(&self.key_columns) {
                let text = part
                    .as_string_opt::<i32>()
                    .filter(|texts| texts.is_valid(row))
                    .map(|texts| texts.value(row))
                    .filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| {
                    let number = first_row + row as u64 + 1;
                    self.fail(format!("row {number}: {}: missing", name(column)))
                })?;
                if !key.is_empty() {
                    key.push(KEY_SEPARATOR);
                }
                key.push_str(text);
            }
            keys.push(key);
        }
        Ok(StringArray::from(keys))
    }

    fn times(&self, batch: &RecordBatch, first_row: u64) -> Result<Int64Array, DataFusionError> {
        let column = batch.column(self.time_column);
        let name = self.schema.field(self.time_column).name();
        let at_row = |row: usize, problem: String| {
            let number = first_row + row as u64 + 1;
            self.fail(format!("row {number}: {name}: {problem}"))
        };
        if let Some(texts) = column.as_string_opt::<i32>() {
            let mut times = Vec::with_capacity(texts.len());
            for (row, text) in texts.iter().enumerate() {
                let time = text.map(read_time);
                let time = time.unwrap_or_else(|| Err("missing".to_owned()));
                times.push(time.map_err(|problem| at_row(row, problem))?);
            }
            return Ok(Int64Array::from(times));
        }
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let cast_times = match column.data_type() {
            // A time of a zone is kept as UTC inside; one without a zone counts as UTC.
            DataType::Timestamp(unit, _) => {
                let without_zone = cast(column, &DataType::Int64);
                let naive = DataType::Timestamp(*unit, None);
                without_zone.and_then(|times| cast(&cast(&times, &naive)?, &micros))
            }
            DataType::Date32 | DataType::Date64 => cast(column, &micros),
            DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(_, _) => {
                let texts = cast(column, &DataType::Utf8).map_err(DataFusionError::from)?;
                let mut columns = batch.columns().to_vec();
                columns[self.time_column] = texts;
                let mut fields = batch.schema().fields().to_vec();
                fields[self.time_column] = Arc::new(Field::new(name, DataType::Utf8, true));
                let texts = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
                return self.times(&texts, first_row);
            }
            other => {
                return Err(self.fail(format!(
                    "column {name:?}: expected times (timestamp, date, or RFC 3339 text), found {other}"
                )));
            }
        };
        let times = cast_times
            .and_then(|times| cast(&times, &DataType::Int64))
            .map_err(|error| self.fail(format!("column {name:?}: {error}")))?;
        if let Some(row) = (0..times.len()).find(|&row| times.is_null(row)) {
            return Err(at_row(row, "missing".to_owned()));
        }
        let times = times.as_primitive_opt::<Int64Type>().cloned();
        times.ok_or_else(|| self.fail(format!("column {name:?}: not read as times")))
    }
}

/// Reads RFC 3339 text, or a date, or a date and a time without a zone, which count as UTC.
fn read_time(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(time) = clock::from_rfc3339(text) {
        return Ok(time);
    }
    let micros = |time: chrono::NaiveDateTime| time.and_utc().timestamp_micros();
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = chrono::NaiveDateTime::parse_from_str(text, format) {
            return Ok(micros(time));
        }
    }
    if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(micros(day.and_time(chrono::NaiveTime::MIN)));
    }
    Err(format!(
        "expected a time like 2026-01-31T12:00:00Z, found {:?}",
        shorten(text, 40)
    ))
}

/// The columns of a file. Of a CSV file the columns in `text_columns` are text whatever they look
/// like; others are numbers or booleans when every cell is one.
fn schema_of(file: &Path, format: Format, text_columns: &[&str]) -> Result<SchemaRef, String> {
    let source = File::open(file).map_err(|error| error.to_string())?;
    Ok(match format {
        Format::Csv => {
            let csv = arrow::csv::reader::Format::default().with_header(true);
            let (inferred, _) = csv
                .infer_schema(std::io::BufReader::new(source), None)
                .map_err(|error| error.to_string())?;
            let fields = inferred.fields().iter().map(|field| {
                let plain = match field.data_type() {
                    _ if text_columns.contains(&field.name().as_str()) => DataType::Utf8,
                    DataType::Int64 => DataType::Int64,
                    DataType::Float64 => DataType::Float64,
                    DataType::Boolean => DataType::Boolean,
                    _ => DataType::Utf8,
                };
                Field::new(field.name(), plain, true)
            });
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
        Format::Parquet => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(source);
            let schema = Arc::clone(builder.map_err(|error| error.to_string())?.schema());
            Arc::new(Schema::new(schema.fields().clone()))
        }
        Format::Arrow => {
            let reader = arrow::ipc::reader::FileReader::try_new_buffered(source, None)
                .map_err(|error| error.to_string())?;
            Arc::new(Schema::new(reader.schema().fields().clone()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_a_zone_are_utc_and_nonsense_is_refused() {
        let noon = 1_769_860_800_000_000;
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31 12:00:00",
            " 2026-01-31T12:00:00.000 ",
        ] {
            assert_eq!(read_time(text), Ok(noon), "{text}");
        }
        assert_eq!(read_time("2026-01-31"), Ok(noon - 12 * 3_600_000_000));
        let error = read_time("yesterday").unwrap_err();
        assert!(error.contains("\"yesterday\""), "{error}");
    }
}
