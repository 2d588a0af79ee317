//! The output: parts, each a file of its own until all are there, and the one file that they become.
//!
//! A part holds no more than its rows: only the first of CSV has a header. Row groups of Parquet parts
//! are copied as they are, without being decoded.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

/// Encoded bytes after which a row group ends, so that long rows (reasons) cannot fill the memory.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

/// The formats that are written, by extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Csv,
    Parquet,
    Arrow,
}

impl OutputFormat {
    /// The format that the extension of `file` stands for.
    ///
    /// # Errors
    /// When it stands for none.
    pub fn of(file: &Path) -> Result<OutputFormat, String> {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("csv") => Ok(OutputFormat::Csv),
            Some("parquet") => Ok(OutputFormat::Parquet),
            Some("arrow" | "feather" | "ipc") => Ok(OutputFormat::Arrow),
            _ => Err(format!(
                "--output {}: expected a name ending in .parquet, .csv, .arrow, .feather or .ipc",
                file.display()
            )),
        }
    }
}

/// A part that is being written.
pub enum PartWriter {
    Csv(arrow::csv::Writer<BufWriter<File>>),
    Parquet(Box<ArrowWriter<File>>),
    Arrow(arrow::ipc::writer::FileWriter<BufWriter<File>>),
}

impl PartWriter {
    /// Begins `file`; `is_first` says that it is the first part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(
        file: &Path,
        format: OutputFormat,
        schema: &SchemaRef,
        is_first: bool,
    ) -> Result<PartWriter, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let target = File::create(file).map_err(|error| failed(&error))?;
        let mut writer = match format {
            OutputFormat::Csv => PartWriter::Csv(
                arrow::csv::WriterBuilder::new()
                    .with_header(is_first)
                    .build(BufWriter::new(target)),
            ),
            OutputFormat::Parquet => {
                let writer =
                    ArrowWriter::try_new(target, Arc::clone(schema), Some(properties(schema)));
                PartWriter::Parquet(Box::new(writer.map_err(|error| failed(&error))?))
            }
            OutputFormat::Arrow => {
                let writer = arrow::ipc::writer::FileWriter::try_new_buffered(target, schema);
                PartWriter::Arrow(writer.map_err(|error| failed(&error))?)
            }
        };
        // An output without rows has its columns, too.
        writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
        Ok(writer)
    }

    /// Writes the next rows.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        match self {
            PartWriter::Csv(writer) => writer.write(batch).map_err(|error| error.to_string()),
            PartWriter::Parquet(writer) => {
                let written = writer.write(batch).and_then(|()| {
                    if writer.in_progress_size() >= ROW_GROUP_BYTES {
                        return writer.flush();
                    }
                    Ok(())
                });
                written.map_err(|error| error.to_string())
            }
            PartWriter::Arrow(writer) => writer.write(batch).map_err(|error| error.to_string()),
        }
    }

    /// Completes the file; it is on disk then.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(self) -> Result<(), String> {
        let buffered = |writer: BufWriter<File>| {
            let file = writer.into_inner().map_err(|error| error.to_string())?;
            file.sync_all().map_err(|error| error.to_string())
        };
        match self {
            PartWriter::Csv(writer) => buffered(writer.into_inner()),
            PartWriter::Parquet(writer) => {
                let file = writer.into_inner().map_err(|error| error.to_string())?;
                file.sync_all().map_err(|error| error.to_string())
            }
            PartWriter::Arrow(mut writer) => {
                writer.finish().map_err(|error| error.to_string())?;
                buffered(writer.into_inner().map_err(|error| error.to_string())?)
            }
        }
    }
}

/// How Parquet is written: keys and scores are all different, so that a dictionary of them would be
/// built for nothing; labels and versions are not.
fn properties(schema: &SchemaRef) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for (index, field) in schema.fields().iter().enumerate() {
        let is_few =
            index > 0 && (field.name().ends_with("_label") || field.name().ends_with("_version"));
        if field.data_type() == &DataType::Float64 || !is_few {
            let path = ColumnPath::from(vec![field.name().clone()]);
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    properties.build()
}

/// Makes one file, `target`, of all parts. It is on disk then.
///
/// # Errors
/// When a part cannot be read or the target not be written.
pub fn assemble<P: AsRef<Path>>(
    parts: &[P],
    target: &Path,
    format: OutputFormat,
    schema: &SchemaRef,
) -> Result<(), String> {
    let done = match format {
        OutputFormat::Csv => join_bytes(parts, target),
        OutputFormat::Parquet => join_parquet(parts, target, schema),
        OutputFormat::Arrow => join_arrow(parts, target, schema),
    };
    done.map_err(|problem| format!("{}: {problem}", target.display()))
}

/// Joins files byte by byte; the result is on disk then.
///
/// # Errors
/// When one cannot be read or the target not be written.
pub fn join_bytes<P: AsRef<Path>>(parts: &[P], target: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut joined = File::create(target).map_err(failed)?;
    for part in parts {
        let mut part = File::open(part).map_err(failed)?;
        std::io::copy(&mut part, &mut joined).map_err(failed)?;
    }
    joined.flush().map_err(failed)?;
    joined.sync_all().map_err(failed)
}

fn join_parquet<P: AsRef<Path>>(
    parts: &[P],
    target: &Path,
    schema: &SchemaRef,
) -> Result<(), String> {
    let failed = |error: parquet::errors::ParquetError| error.to_string();
    let mut properties = properties(schema);
    add_encoded_arrow_schema_to_metadata(schema, &mut properties);
    let columns = ArrowSchemaConverter::new()
        .convert(schema)
        .map_err(failed)?;
    let joined = File::create(target).map_err(|error| error.to_string())?;
    let mut writer =
        SerializedFileWriter::new(joined, columns.root_schema_ptr(), Arc::new(properties))
            .map_err(failed)?;
    for part in parts {
        let file = File::open(part).map_err(|error| error.to_string())?;
        let kept = file.try_clone().map_err(|error| error.to_string())?;
        let metadata = ParquetRecordBatchReaderBuilder::try_new(kept).map_err(failed)?;
        for group in metadata.metadata().row_groups() {
            let mut copy = writer.next_row_group().map_err(failed)?;
            for column in group.columns() {
                let closed = ColumnCloseResult {
                    bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
                    rows_written: u64::try_from(group.num_rows()).unwrap_or_default(),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                copy.append_column(&file, closed).map_err(failed)?;
            }
            copy.close().map_err(failed)?;
        }
    }
    let joined = writer.into_inner().map_err(failed)?;
    joined.sync_all().map_err(|error| error.to_string())
}

fn join_arrow<P: AsRef<Path>>(
    parts: &[P],
    target: &Path,
    schema: &SchemaRef,
) -> Result<(), String> {
    let mut writer = PartWriter::create(target, OutputFormat::Arrow, schema, true)?;
    for part in parts {
        let file = File::open(part).map_err(|error| error.to_string())?;
        let reader = FileReader::try_new(BufReader::new(file), None);
        for batch in reader.map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            if batch.num_rows() > 0 {
                writer.write(&batch)?;
            }
        }
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Field, Schema};

    fn batch(keys: &[&str]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(keys.iter().map(|key| Some(*key)).collect::<StringArray>());
        let scores: Vec<f64> = (0..keys.len()).map(|row| row as f64 / 3.0).collect();
        let labels: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; keys.len()]));
        let schema = Arc::new(Schema::new(vec![
            Field::new("customer_id", DataType::Utf8, false),
            Field::new("m_score", DataType::Float64, false),
            Field::new("m_label", DataType::Utf8, true),
        ]));
        let columns = vec![keys, Arc::new(Float64Array::from(scores)), labels];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    fn parts(dir: &Path, format: OutputFormat, batches: &[RecordBatch]) -> Vec<std::path::PathBuf> {
        let schema = batches[0].schema();
        let write = |(index, batch): (usize, &RecordBatch)| {
            let file = dir.join(format!("{index}"));
            let mut writer = PartWriter::create(&file, format, &schema, index == 0).unwrap();
            writer.write(batch).unwrap();
            writer.finish().unwrap();
            file
        };
        batches.iter().enumerate().map(write).collect()
    }

    #[test]
    fn the_parts_become_one_file_with_the_rows_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let batches = [batch(&["a", "b"]), batch(&[]), batch(&["c", "d", "e"])];
        let schema = batches[0].schema();
        let all = concat_batches(&schema, &batches).unwrap();
        let target = dir.path().join("all");

        let files = parts(dir.path(), OutputFormat::Parquet, &batches);
        assemble(&files, &target, OutputFormat::Parquet, &schema).unwrap();
        let file = File::open(&target).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(reader.schema(), &schema);
        let found: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(concat_batches(&schema, &found).unwrap(), all);

        let files = parts(dir.path(), OutputFormat::Arrow, &batches);
        assemble(&files, &target, OutputFormat::Arrow, &schema).unwrap();
        let reader = FileReader::try_new(File::open(&target).unwrap(), None).unwrap();
        let found: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(concat_batches(&schema, &found).unwrap(), all);

        let files = parts(dir.path(), OutputFormat::Csv, &batches);
        assemble(&files, &target, OutputFormat::Csv, &schema).unwrap();
        let text = std::fs::read_to_string(&target).unwrap();
        let keys: Vec<&str> = text.lines().map(|line| &line[..1]).collect();
        assert!(text.starts_with("customer_id,m_score,m_label\n"), "{text}");
        assert_eq!(keys, ["c", "a", "b", "c", "d", "e"]);
    }
}
