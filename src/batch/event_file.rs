//! Files of events, read in chunks: lines of JSON, or tables.
//!
//! * `.ndjson` and `.jsonl`, also with `.gz` behind: each line is what `POST /v1/events` takes, an event,
//!   a list of events, or a CloudEvent. Lines are bounded by [`MAX_LINE_BYTES`].
//! * `.csv` and `.parquet`: each row is an event, see [`super::event_table`].
//!
//! What is wrong with one row or line is told and the others go on; what is wrong with the file ends it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::event_table::{EventColumns, EventTable};
use super::read::{BATCH_ROWS, CountedFile, Table};
use super::times::KnownAt;
use crate::clock;
use crate::config::EventsConfig;
use crate::features::change::{Change, What};
use crate::features::views::Views;
use crate::ingest::event::table::TableReader;
use crate::ingest::event::{EventBatch, Form, Reader};

/// The longest line, in bytes: a list of some events.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// A file of events that is being read.
pub struct EventFile {
    rows: Rows,
    known_at: KnownAt,
    /// When the file was written, for lines that do not say when their event occurred.
    written_us: i64,
    /// Rows or lines that were read.
    position: u64,
    /// What ended the file, once the rows before it were handed out.
    failed: Option<String>,
    /// Rows in the file, when the format says so.
    pub total_rows: Option<u64>,
    /// Bytes in the file, and how many were read.
    pub bytes: u64,
    pub bytes_read: Arc<AtomicU64>,
}

enum Rows {
    Lines(Box<dyn BufRead>),
    Table(Box<OpenTable>),
}

/// A table that is being read.
struct OpenTable {
    batches: Table,
    shape: EventTable,
    reader: TableReader,
    /// Rows of the next batch that were read before.
    skip: u64,
}

/// Some rows of a file.
#[derive(Debug, Default)]
pub struct Chunk {
    pub changes: Vec<Change>,
    /// Which row or line, from 1, each change is from.
    pub rows: Vec<u64>,
    /// Rows or lines that are wrong, from 1, with the reason.
    pub rejected: Vec<(u64, String)>,
    /// How many rows or lines were read.
    pub read: u64,
}

impl EventFile {
    /// Opens a file by its extension and passes over its first `done` rows or lines.
    ///
    /// # Errors
    /// Why it cannot be read, without the file's name.
    pub fn open(
        file: &Path,
        views: &Views,
        columns: &EventColumns,
        config: &EventsConfig,
        done: u64,
    ) -> Result<EventFile, String> {
        let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let written_us = modified.and_then(|since| i64::try_from(since.as_micros()).ok());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_ascii_lowercase();
        let (name, is_packed) = match name.strip_suffix(".gz") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let (rows, total_rows, bytes_read) = if name.ends_with(".ndjson")
            || name.ends_with(".jsonl")
        {
            let (lines, bytes_read) = open_lines(file, is_packed, columns)?;
            (Rows::Lines(lines), None, bytes_read)
        } else if !is_packed && (name.ends_with(".csv") || name.ends_with(".parquet")) {
            // The caller says which file it is.
            let prefix = format!("{}: ", file.display());
            let opened = Table::open(file);
            let batches = opened.map_err(|problem| problem.replacen(&prefix, "", 1))?;
            let is_typed = name.ends_with(".parquet");
            let shape = EventTable::new(&batches.schema, views, columns, is_typed)?;
            let events = Reader::new(views, config, clock::now_us());
            let reader = TableReader::new(shape.schema(), &events)?;
            let (total_rows, bytes_read) = (batches.rows, Arc::clone(&batches.bytes_read));
            let rows = Rows::Table(Box::new(OpenTable {
                batches,
                shape,
                reader,
                skip: 0,
            }));
            (rows, total_rows, bytes_read)
        } else {
            return Err(
                "expected a file ending in .ndjson, .jsonl (or one of them and .gz), .csv or .parquet"
                    .to_owned(),
            );
        };
        let mut opened = EventFile {
            rows,
            known_at: columns.known_at.clone(),
            written_us: written_us.unwrap_or_else(clock::now_us),
            position: 0,
            failed: None,
            total_rows,
            bytes: metadata.len(),
            bytes_read,
        };
        opened.pass_over(done)?;
        Ok(opened)
    }

    /// Rows or lines that were read, those that were passed over among them.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn pass_over(&mut self, done: u64) -> Result<(), String> {
        match &mut self.rows {
            Rows::Lines(lines) => {
                while self.position < done && next_line(lines, self.position)?.is_some() {
                    self.position += 1;
                }
            }
            Rows::Table(table) => {
                table.skip = done;
                self.position = done;
            }
        }
        Ok(())
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, and where.
    pub fn next(&mut self, views: &Views, config: &EventsConfig) -> Result<Option<Chunk>, String> {
        if let Some(problem) = self.failed.take() {
            return Err(problem);
        }
        let reader = Reader::new(views, config, clock::now_us())
            .without_limit()
            .with_default_time(self.written_us);
        let chunk = match &mut self.rows {
            Rows::Lines(lines) => {
                let (chunk, failed) = read_lines(lines, &reader, &self.known_at, self.position);
                self.failed = failed;
                Some(chunk)
            }
            Rows::Table(_) => self.next_rows(&reader)?,
        };
        let chunk = chunk.filter(|chunk| chunk.read > 0);
        self.position += chunk.as_ref().map_or(0, |chunk| chunk.read);
        match (chunk, self.failed.take()) {
            (None, Some(problem)) => Err(problem),
            (chunk, failed) => {
                self.failed = failed;
                Ok(chunk)
            }
        }
    }

    fn next_rows(&mut self, events: &Reader<'_>) -> Result<Option<Chunk>, String> {
        let Rows::Table(table) = &mut self.rows else {
            return Ok(None);
        };
        let OpenTable {
            batches,
            shape,
            reader,
            skip,
        } = table.as_mut();
        for batch in batches.by_ref() {
            let batch = batch?;
            let rows = batch.num_rows() as u64;
            if *skip >= rows {
                *skip -= rows;
                continue;
            }
            let first = *skip as usize;
            let batch = batch.slice(first, batch.num_rows() - first);
            *skip = 0;
            let prepared = shape.prepare(&batch)?;
            let mut read = EventBatch::default();
            reader.read_rows(events, &prepared.rows, &mut read)?;
            let mut chunk = Chunk {
                read: batch.num_rows() as u64,
                ..Chunk::default()
            };
            let place = |row: usize| self.position + row as u64 + 1;
            for (row, problem) in &prepared.without_time {
                chunk.rejected.push((place(*row), problem.clone()));
            }
            let has_time = |row: usize| {
                let found = prepared
                    .without_time
                    .binary_search_by_key(&row, |(row, _)| *row);
                found.is_err()
            };
            for (mut change, row) in read.changes.into_iter().zip(read.indexes) {
                if !has_time(row) {
                    continue;
                }
                match prepared.known_at.as_ref().map(|times| &times[row]) {
                    None => {}
                    Some(Ok(time_us)) if *time_us <= clock::now_us() => {
                        // Nothing is known before it happened: a date, say, is the begin of its day.
                        let occurred_at_us = match &change.what {
                            Some(What::Event(event)) => event.occurred_at_us,
                            _ => *time_us,
                        };
                        change.known_at_us = Some(occurred_at_us.max(*time_us));
                    }
                    Some(Ok(time_us)) => {
                        let time = clock::to_rfc3339(*time_us);
                        let problem = format!("known at {time}, which is in the future");
                        chunk.rejected.push((place(row), problem));
                        continue;
                    }
                    Some(Err(problem)) => {
                        chunk.rejected.push((place(row), problem.clone()));
                        continue;
                    }
                }
                chunk.changes.push(change);
                chunk.rows.push(place(row));
            }
            for refused in read.refused {
                if has_time(refused.index) {
                    chunk.rejected.push((place(refused.index), refused.error));
                }
            }
            chunk.rejected.sort();
            return Ok(Some(chunk));
        }
        Ok(None)
    }
}

fn open_lines(
    file: &Path,
    is_packed: bool,
    columns: &EventColumns,
) -> Result<(Box<dyn BufRead>, Arc<AtomicU64>), String> {
    let mapped = !columns.renamed.is_empty()
        || !columns.id_from.is_empty()
        || !columns.ignored.is_empty()
        || !columns.text.is_empty()
        || columns.event.is_some()
        || matches!(columns.known_at, KnownAt::Column(_));
    if mapped {
        return Err(
            "the lines are events as POST /v1/events takes them; --event, --column, --event-id-from, \
             --ignore, --text and --known-at COLUMN are for .csv and .parquet"
                .to_owned(),
        );
    }
    let source = File::open(file).map_err(|error| error.to_string())?;
    let source = CountedFile::new(source);
    let bytes_read = Arc::clone(&source.bytes_read);
    let source = BufReader::with_capacity(64 * 1024, source);
    let lines: Box<dyn BufRead> = if is_packed {
        Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(source)))
    } else {
        Box::new(source)
    };
    Ok((lines, bytes_read))
}

/// Reads some lines; the first is the one after line `position`. With them comes what kept it from
/// reading on.
fn read_lines(
    lines: &mut Box<dyn BufRead>,
    reader: &Reader<'_>,
    known_at: &KnownAt,
    position: u64,
) -> (Chunk, Option<String>) {
    let mut chunk = Chunk::default();
    let mut failed = None;
    while chunk.read < BATCH_ROWS as u64 && chunk.changes.len() < BATCH_ROWS {
        let line = match next_line(lines, position + chunk.read) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(problem) => {
                failed = Some(problem);
                break;
            }
        };
        chunk.read += 1;
        let place = position + chunk.read;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match reader.read(&line, Form::Json) {
            Ok(read) => {
                chunk.rows.extend(read.changes.iter().map(|_| place));
                chunk.changes.extend(read.changes);
                let refused = read.refused.into_iter();
                chunk
                    .rejected
                    .extend(refused.map(|refused| (place, refused.error)));
            }
            Err(error) => chunk.rejected.push((place, error.to_string())),
        }
    }
    if *known_at == KnownAt::Occurred {
        for change in &mut chunk.changes {
            if let Some(What::Event(event)) = &change.what {
                change.known_at_us = Some(event.occurred_at_us);
            }
        }
    }
    (chunk, failed)
}

/// The next line; `None` at the end. `before` lines come before it.
fn next_line(lines: &mut Box<dyn BufRead>, before: u64) -> Result<Option<Vec<u8>>, String> {
    let place = before + 1;
    let mut line = Vec::new();
    let mut bounded = lines.by_ref().take(MAX_LINE_BYTES as u64 + 1);
    let read = bounded.read_until(b'\n', &mut line);
    read.map_err(|error| format!("line {place}: {error}"))?;
    if line.len() > MAX_LINE_BYTES {
        return Err(format!(
            "line {place}: longer than {MAX_LINE_BYTES} bytes; expected one event on each line"
        ));
    }
    Ok((!line.is_empty()).then_some(line))
}
