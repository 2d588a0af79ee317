//! Writing a table to a file that appears only when it is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::error::HistoryError;

/// Encoded bytes after which a row group ends, so that long rows cannot fill the memory.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

/// The kinds of file that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    Csv,
    Parquet,
    /// Arrow's file format, also known as Feather.
    Arrow,
}

impl TableFormat {
    /// The format that the extension of `file` stands for.
    ///
    /// # Errors
    /// When it stands for none.
    pub fn of(file: &Path) -> Result<TableFormat, HistoryError> {
        let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("csv") => Ok(TableFormat::Csv),
            Some("parquet") => Ok(TableFormat::Parquet),
            Some("arrow") => Ok(TableFormat::Arrow),
            _ => Err(HistoryError::in_file(
                file,
                "expected a name ending in .parquet, .csv or .arrow",
            )),
        }
    }
}

/// A table that is being written.
pub struct TableFile {
    file: PathBuf,
    temporary: tempfile::NamedTempFile,
    writer: Writer,
}

enum Writer {
    Csv(arrow::csv::Writer<BufWriter<File>>),
    Parquet(Box<ArrowWriter<File>>),
    Arrow(arrow::ipc::writer::FileWriter<BufWriter<File>>),
}

impl TableFile {
    /// Begins `file`, beside which a temporary one is written.
    ///
    /// # Errors
    /// When the extension is unknown or the folder cannot be written.
    pub fn create(file: &Path, schema: &SchemaRef) -> Result<TableFile, HistoryError> {
        let format = TableFormat::of(file)?;
        let failed = |error: &dyn std::fmt::Display| HistoryError::in_file(file, error);
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // As any file that a command writes, not only for its owner.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temporary = builder
            .tempfile_in(folder)
            .map_err(|error| failed(&error))?;
        let target = temporary
            .as_file()
            .try_clone()
            .map_err(|error| failed(&error))?;
        let writer = match format {
            TableFormat::Csv => Writer::Csv(
                arrow::csv::WriterBuilder::new()
                    .with_header(true)
                    .build(BufWriter::new(target)),
            ),
            TableFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let schema = SchemaRef::clone(schema);
                let writer = ArrowWriter::try_new(target, schema, Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|error| failed(&error))?))
            }
            TableFormat::Arrow => {
                let schema: &Schema = schema;
                let writer = arrow::ipc::writer::FileWriter::try_new_buffered(target, schema);
                Writer::Arrow(writer.map_err(|error| failed(&error))?)
            }
        };
        let mut table = TableFile {
            file: file.to_owned(),
            temporary,
            writer,
        };
        // A table without rows has its columns, too.
        table.write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
        Ok(table)
    }

    /// Writes the next rows.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), HistoryError> {
        let written = match &mut self.writer {
            Writer::Csv(writer) => writer.write(batch).map_err(|error| error.to_string()),
            Writer::Parquet(writer) => writer
                .write(batch)
                .and_then(|()| match writer.in_progress_size() >= ROW_GROUP_BYTES {
                    true => writer.flush(),
                    false => Ok(()),
                })
                .map_err(|error| error.to_string()),
            Writer::Arrow(writer) => writer.write(batch).map_err(|error| error.to_string()),
        };
        written.map_err(|problem| HistoryError::in_file(&self.file, problem))
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(self) -> Result<(), HistoryError> {
        let file = self.file;
        let failed = |problem: String| HistoryError::in_file(&file, problem);
        let finished = match self.writer {
            Writer::Csv(writer) => writer
                .into_inner()
                .flush()
                .map_err(|error| error.to_string()),
            Writer::Parquet(writer) => writer
                .close()
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Writer::Arrow(mut writer) => writer.finish().map_err(|error| error.to_string()),
        };
        finished.map_err(failed)?;
        let synced = self.temporary.as_file().sync_all();
        synced.map_err(|error| failed(error.to_string()))?;
        let named = self.temporary.persist(&file);
        named.map(|_| ()).map_err(|error| failed(error.to_string()))
    }
}
