//! Tables from files: CSV and Parquet, streamed as Arrow record batches.
//!
//! CSV cells stay text, as they are in the file, until the feature view says what they mean;
//! Parquet columns keep their types. Memory is bounded by the batch size.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Rows per batch.
pub const BATCH_ROWS: usize = 1024;

/// A table that is being read.
pub struct Table {
    pub schema: SchemaRef,
    /// Rows in the file, when the format says so.
    pub rows: Option<u64>,
    /// Bytes of the file that were read, where it is read from front to back.
    pub bytes_read: Arc<AtomicU64>,
    batches: Box<dyn Iterator<Item = Result<RecordBatch, String>>>,
}

impl Table {
    /// Opens `file` by its extension, `.csv` or `.parquet`.
    ///
    /// # Errors
    /// The file and why it cannot be read.
    pub fn open(file: &Path) -> Result<Table, String> {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        let opened = match extension.to_str() {
            Some("csv") => open_csv(file),
            Some("parquet") => open_parquet(file),
            _ => Err("expected a file ending in .csv or .parquet".to_owned()),
        };
        opened.map_err(|problem| format!("{}: {problem}", file.display()))
    }
}

impl Iterator for Table {
    type Item = Result<RecordBatch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next()
    }
}

fn open_csv(file: &Path) -> Result<Table, String> {
    let failed = |error: arrow::error::ArrowError| error.to_string();
    let format = arrow::csv::reader::Format::default().with_header(true);
    // Only the header row is read for the names; every column is text.
    let source = File::open(file).map_err(|error| error.to_string())?;
    let (inferred, _) = format.infer_schema(source, Some(0)).map_err(failed)?;
    let fields: Vec<Field> = inferred
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), DataType::Utf8, true))
        .collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let source = CountedFile::new(File::open(file).map_err(|error| error.to_string())?);
    let bytes_read = Arc::clone(&source.bytes_read);
    let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema))
        .with_format(format)
        .with_batch_size(BATCH_ROWS)
        .build(source)
        .map_err(failed)?;
    let batches = reader.map(|batch| batch.map_err(|error| error.to_string()));
    Ok(Table {
        schema,
        rows: None,
        bytes_read,
        batches: Box::new(batches),
    })
}

fn open_parquet(file: &Path) -> Result<Table, String> {
    let source = File::open(file).map_err(|error| error.to_string())?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(source).map_err(|error| error.to_string())?;
    let schema = Arc::clone(builder.schema());
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    let reader = builder
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| error.to_string())?;
    let batches = reader.map(|batch| batch.map_err(|error| error.to_string()));
    Ok(Table {
        schema,
        rows,
        bytes_read: Arc::default(),
        batches: Box::new(batches),
    })
}

/// A file that says how much of it was read, for a progress bar.
pub struct CountedFile {
    file: File,
    pub bytes_read: Arc<AtomicU64>,
}

impl CountedFile {
    pub fn new(file: File) -> CountedFile {
        CountedFile {
            file,
            bytes_read: Arc::default(),
        }
    }
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for CountedFile {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(position)
    }
}
