//! Keys and scores of an output file: Parquet, CSV or Arrow, as `bellwether score` writes it.
//!
//! Only the columns that are asked for are decoded, some thousand rows at a time.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::batch::score::arrow_size;
use crate::batch::score::write::OutputFormat;

const BATCH_ROWS: usize = 8192;
/// The largest batch of an Arrow file; those that are written here are far smaller.
const MOST_BATCH_BYTES: u64 = 256 * 1024 * 1024;

/// A file of scores.
#[derive(Debug)]
pub struct ScoreTable {
    path: PathBuf,
    format: OutputFormat,
    names: Vec<String>,
    /// Of the file when it is decoded, as far as it says that.
    bytes: u64,
}

/// Some rows.
#[derive(Debug)]
pub struct ScoreRows {
    pub rows: usize,
    /// By key column.
    pub keys: Vec<StringArray>,
    /// By score column.
    pub scores: Vec<Float64Array>,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl ScoreTable {
    /// Looks at the columns of a file, which has the format of its extension.
    ///
    /// # Errors
    /// When it is not there or not of that format.
    pub fn open(path: &Path) -> Result<ScoreTable, String> {
        let extension = "expected an output of an earlier run, ending in .parquet, .csv, .arrow, \
                         .feather or .ipc";
        let format = OutputFormat::of(path).map_err(|_| extension.to_owned())?;
        let file = File::open(path).map_err(text_of)?;
        let mut bytes = file.metadata().map_err(text_of)?.len();
        let names = match format {
            OutputFormat::Parquet => {
                let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(text_of)?;
                let groups = builder.metadata().row_groups().iter();
                let decoded = groups.map(|group| u64::try_from(group.total_byte_size()));
                bytes = decoded.map(Result::unwrap_or_default).sum();
                names_of(builder.schema())
            }
            OutputFormat::Arrow => {
                arrow_size::check(path, MOST_BATCH_BYTES)?;
                names_of(
                    &FileReader::try_new(BufReader::new(file), None)
                        .map_err(text_of)?
                        .schema(),
                )
            }
            OutputFormat::Csv => {
                let format = arrow::csv::reader::Format::default().with_header(true);
                let (schema, _) = format.infer_schema(file, Some(0)).map_err(text_of)?;
                names_of(&schema)
            }
        };
        Ok(ScoreTable {
            path: path.to_owned(),
            format,
            names,
            bytes,
        })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    /// How many bytes there are to read, for the number of buckets.
    pub fn estimated_bytes(&self) -> u64 {
        self.bytes
    }

    /// The rows from the first on, with these columns.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rows(
        &self,
        keys: &[String],
        scores: &[String],
    ) -> Result<impl Iterator<Item = Result<ScoreRows, String>> + use<>, String> {
        let wanted: Vec<String> = keys.iter().chain(scores).cloned().collect();
        let key_count = keys.len();
        let mut before = 0;
        let batches = self.batches(&wanted, BATCH_ROWS)?;
        Ok(batches.map(move |batch| {
            let batch = batch?;
            let rows = batch.num_rows();
            let mut read = ScoreRows {
                rows,
                keys: Vec::with_capacity(key_count),
                scores: Vec::new(),
            };
            for (index, (name, array)) in wanted.iter().zip(batch.columns()).enumerate() {
                let column = match index < key_count {
                    true => &DataType::Utf8,
                    false => &DataType::Float64,
                };
                let array = values(name, array, column, before)?;
                match index < key_count {
                    true => read.keys.extend(array.as_string_opt::<i32>().cloned()),
                    false => read
                        .scores
                        .extend(array.as_primitive_opt::<Float64Type>().cloned()),
                }
            }
            before += rows as u64;
            Ok(read)
        }))
    }

    /// The first value of a column of text, when there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn first_text(&self, name: &str) -> Result<Option<String>, String> {
        if !self.has(name) {
            return Ok(None);
        }
        for batch in self.batches(&[name.to_owned()], 1)? {
            let batch = batch?;
            let Some(array) = batch.columns().first().filter(|array| !array.is_empty()) else {
                continue;
            };
            let texts = cast_with_options(array, &DataType::Utf8, &strict()).map_err(text_of)?;
            let texts = texts.as_string_opt::<i32>();
            let first = texts.filter(|texts| texts.is_valid(0));
            return Ok(first.map(|texts| texts.value(0).to_owned()));
        }
        Ok(None)
    }

    /// The columns of these names, in this order.
    fn batches(&self, wanted: &[String], rows: usize) -> Result<Batches, String> {
        let indexes = wanted.iter().map(|name| {
            let index = self.names.iter().position(|other| other == name);
            index.ok_or_else(|| format!("it has no column {name}"))
        });
        let indexes: Vec<usize> = indexes.collect::<Result<_, _>>()?;
        // Readers give the columns in the order of the file.
        let mut sorted = indexes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let places: Vec<usize> = indexes
            .iter()
            .map(|index| sorted.binary_search(index).unwrap_or_default())
            .collect();
        let file = File::open(&self.path).map_err(text_of)?;
        let batches: Batches = match self.format {
            OutputFormat::Parquet => {
                // Text comes as text, whatever wrote it.
                let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
                let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
                    .map_err(text_of)?;
                let mask = ProjectionMask::roots(builder.parquet_schema(), sorted);
                let builder = builder.with_projection(mask).with_batch_size(rows);
                let reader = builder.build().map_err(text_of)?;
                Box::new(reader.map(|batch| batch.map_err(text_of)))
            }
            OutputFormat::Arrow => {
                let reader = FileReader::try_new(BufReader::new(file), Some(sorted));
                Box::new(reader.map_err(text_of)?.map(|batch| batch.map_err(text_of)))
            }
            OutputFormat::Csv => {
                let fields = self.names.iter();
                let fields = fields.map(|name| Field::new(name, DataType::Utf8, true));
                let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                let reader = arrow::csv::ReaderBuilder::new(schema)
                    .with_header(true)
                    .with_projection(sorted)
                    .with_batch_size(rows)
                    .build(file)
                    .map_err(text_of)?;
                Box::new(reader.map(|batch| batch.map_err(text_of)))
            }
        };
        Ok(Box::new(batches.map(move |batch| {
            batch?.project(&places).map_err(text_of)
        })))
    }
}

fn names_of(schema: &Schema) -> Vec<String> {
    let fields = schema.fields().iter();
    fields.map(|field| field.name().clone()).collect()
}

fn strict() -> CastOptions<'static> {
    CastOptions {
        safe: false,
        ..CastOptions::default()
    }
}

/// A column in another type, in which every row has a value.
fn values(
    name: &str,
    array: &ArrayRef,
    wanted: &DataType,
    before: u64,
) -> Result<ArrayRef, String> {
    let found = array.data_type();
    let cast = cast_with_options(array, wanted, &strict())
        .map_err(|error| format!("column {name} of type {found}: {error}"))?;
    let is_number = |row: usize| match cast.as_primitive_opt::<Float64Type>() {
        Some(numbers) => numbers.value(row).is_finite(),
        None => true,
    };
    let bad = (0..cast.len()).find(|row| cast.is_null(*row) || !is_number(*row));
    match bad {
        None => Ok(cast),
        Some(row) => Err(format!(
            "column {name} row {}: there is no value; name an output of an earlier run as it was written",
            before + row as u64 + 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::score::write::PartWriter;

    fn scores() -> RecordBatch {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let schema = Schema::new(vec![
            text("customer_id"),
            Field::new("m_score", DataType::Float64, false),
            text("m_version"),
        ]);
        let keys = ["a", "b, \"c\"", "ü"];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(keys.to_vec())),
            Arc::new(Float64Array::from(vec![0.1 + 0.2, 1e-300, -7.5])),
            Arc::new(StringArray::from(vec!["7"; 3])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn every_format_gives_back_the_keys_and_the_bits_of_the_scores() {
        let dir = tempfile::tempdir().unwrap();
        let batch = scores();
        for (name, format) in [
            ("a.parquet", OutputFormat::Parquet),
            ("a.csv", OutputFormat::Csv),
            ("a.arrow", OutputFormat::Arrow),
        ] {
            let file = dir.path().join(name);
            let mut writer = PartWriter::create(&file, format, &batch.schema(), true).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            let table = ScoreTable::open(&file).unwrap();
            assert!(table.has("m_score") && !table.has("n_score"), "{name}");
            assert_eq!(table.first_text("m_version").unwrap().as_deref(), Some("7"));
            assert_eq!(table.first_text("n_version"), Ok(None));
            let (keys, scores) = (["customer_id".to_owned()], ["m_score".to_owned()]);
            let read: Vec<ScoreRows> = table
                .rows(&keys, &scores)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let read = read.iter().find(|rows| rows.rows > 0).unwrap();
            let expected: &StringArray = batch.column(0).as_string();
            assert_eq!(&read.keys[0], expected, "{name}");
            assert_eq!(
                &read.scores[0],
                batch.column(1).as_primitive::<Float64Type>()
            );
        }
    }

    #[test]
    fn a_row_without_a_score_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        let (keys, scores) = (["customer_id".to_owned()], ["m_score".to_owned()]);
        for cell in ["", "x", "NaN"] {
            std::fs::write(&file, format!("customer_id,m_score\na,0.5\nb,{cell}\n")).unwrap();
            let table = ScoreTable::open(&file).unwrap();
            let mut rows = table.rows(&keys, &scores).unwrap();
            let problem = rows.next().unwrap().unwrap_err();
            assert!(problem.contains("m_score"), "{cell}: {problem}");
        }
        assert!(ScoreTable::open(&dir.path().join("a.txt")).is_err());
        assert!(ScoreTable::open(&dir.path().join("none.csv")).is_err());
    }
}
