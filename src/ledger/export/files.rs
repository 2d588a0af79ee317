//! Files of an export: the rows of a table go to one after the other, first under temporary names.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::ledger::error::LedgerError;

/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 65_536;
/// Encoded bytes after which a row group ends early, so that long records cannot fill the memory.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;
/// Rows of a file; it ends at the first batch that reaches them.
const FILE_ROWS: usize = 1_000_000;

/// Writes one table as a sequence of files, first under temporary names.
pub(super) struct TableWriter<'a> {
    output_dir: &'a Path,
    table: &'static str,
    schema: SchemaRef,
    open: Option<OpenFile>,
    /// Temporary and final path of the complete files. Emptied when they are published.
    complete: Vec<(PathBuf, PathBuf)>,
}

/// The file that rows go to.
struct OpenFile {
    writer: ArrowWriter<File>,
    rows: usize,
    temporary_path: PathBuf,
    final_path: PathBuf,
}

impl<'a> TableWriter<'a> {
    pub(super) fn new(
        output_dir: &'a Path,
        table: &'static str,
        schema: SchemaRef,
    ) -> TableWriter<'a> {
        TableWriter {
            output_dir,
            table,
            schema,
            open: None,
            complete: Vec::new(),
        }
    }

    /// Writes one batch, beginning a file where none is open and ending it when it has its rows.
    pub(super) fn write(
        &mut self,
        batch: impl FnOnce() -> Result<RecordBatch, arrow::error::ArrowError>,
    ) -> Result<(), LedgerError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin_file()?,
        };
        let batch = batch().map_err(parquet_error(&open.temporary_path))?;
        open.writer
            .write(&batch)
            .map_err(parquet_error(&open.temporary_path))?;
        if open.writer.in_progress_size() >= ROW_GROUP_BYTES {
            open.writer
                .flush()
                .map_err(parquet_error(&open.temporary_path))?;
        }
        open.rows += batch.num_rows();
        let full = open.rows >= FILE_ROWS;
        self.open = Some(open);
        if full { self.end_file() } else { Ok(()) }
    }

    fn begin_file(&self) -> Result<OpenFile, LedgerError> {
        let name = part_name(self.table, self.complete.len() + 1);
        let final_path = self.output_dir.join(&name);
        let temporary_path = self.output_dir.join(format!(".{name}.tmp"));
        let file =
            File::create(&temporary_path).map_err(LedgerError::io(&temporary_path, "creating"))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(file, self.schema.clone(), Some(properties))
            .map_err(parquet_error(&temporary_path))?;
        Ok(OpenFile {
            writer,
            rows: 0,
            temporary_path,
            final_path,
        })
    }

    /// Completes the open file, if there is one.
    pub(super) fn end_file(&mut self) -> Result<(), LedgerError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let OpenFile {
            writer,
            temporary_path,
            final_path,
            ..
        } = open;
        let file = writer
            .into_inner()
            .map_err(parquet_error(&temporary_path))?;
        file.sync_all()
            .map_err(LedgerError::io(&temporary_path, "syncing"))?;
        self.complete.push((temporary_path, final_path));
        Ok(())
    }

    /// Gives the files their names and removes further files of an earlier, longer export.
    pub(super) fn publish(&mut self, published: &mut Vec<PathBuf>) -> Result<(), LedgerError> {
        let parts = self.complete.len();
        for (temporary_path, final_path) in self.complete.drain(..) {
            std::fs::rename(&temporary_path, &final_path)
                .map_err(LedgerError::io(&final_path, "renaming"))?;
            published.push(final_path);
        }
        let mut part = parts + 1;
        loop {
            let stale_path = self.output_dir.join(part_name(self.table, part));
            if !stale_path.exists() {
                return Ok(());
            }
            std::fs::remove_file(&stale_path)
                .map_err(LedgerError::io(&stale_path, "removing an earlier export"))?;
            part += 1;
        }
    }
}

impl Drop for TableWriter<'_> {
    /// An export that failed leaves no temporary files behind; what cannot be removed is
    /// overwritten next time.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = std::fs::remove_file(&open.temporary_path);
        }
        for (temporary_path, _) in self.complete.drain(..) {
            let _ = std::fs::remove_file(&temporary_path);
        }
    }
}

fn part_name(table: &str, part: usize) -> String {
    format!("{table}-{part:05}.parquet")
}

fn parquet_error<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> LedgerError {
    let path = path.to_path_buf();
    move |error| LedgerError::Parquet {
        path,
        detail: error.to_string(),
    }
}
