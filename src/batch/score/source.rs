//! The input as one sequence of chunks: files, or the online store ([`StoreReader`]).
//!
//! The input files as one sequence of chunks, cut into parts at checkpoints.
//!
//! One thread at a time asks for the next chunk. Columns of Parquet and Arrow files are decoded here;
//! text is only cut into whole records, and parsed by whoever scores it. Every chunk and every end of a
//! part has the next number of the sequence, in which the output is written. Where a part ends depends
//! on the files and the options alone, so that a job that goes on after a checkpoint reads what the one
//! before would have read.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use serde::{Deserialize, Serialize};

use super::bind::{Binding, bind};
use super::inputs::{Format, InputFile};
use super::names::{member_names, read_header};
use super::plan::Plan;
use super::split::{Piece, Splitter};
use super::store_source::{self, StoreReader};

/// Lines of NDJSON that say which fields a file has.
const FIRST_LINES: usize = 1000;

/// Where reading goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Index of the file.
    pub file: usize,
    /// Rows of the file before it.
    pub row: u64,
    /// Of a text file: bytes before it.
    pub byte: u64,
}

/// What comes next.
#[derive(Debug)]
pub enum Item {
    Chunk(Chunk),
    /// The part is complete; the next one begins there.
    EndOfPart(Position),
}

/// Some rows of one file.
#[derive(Debug)]
pub struct Chunk {
    /// Index of the file.
    pub file: usize,
    /// The number of the first row in its file, from 1.
    pub first: u64,
    pub rows: usize,
    /// Where reading goes on behind it.
    pub end: Position,
    pub binding: Arc<Binding>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// In the order of [`Binding::columns`].
    Columns(Vec<ArrayRef>),
    /// Records, and how many fields each should have.
    Csv(Vec<u8>, usize),
    Ndjson(Vec<u8>),
    /// Of the online store.
    Entities(store_source::Rows),
}

/// The files that are being read.
pub struct Source<'p> {
    plan: &'p Plan,
    files: &'p [InputFile],
    at: Position,
    open: Option<Open>,
    /// What is read in place of the one file that stands for it.
    store: Option<StoreReader<'p>>,
    sequence: u64,
    /// Rows since the last checkpoint.
    rows_in_part: u64,
    is_done: bool,
}

/// One file that is being read.
struct Open {
    binding: Arc<Binding>,
    reader: Reader,
}

enum Reader {
    /// Where each column of the binding is in a batch.
    Parquet(ParquetRecordBatchReader, Vec<usize>),
    Arrow {
        batches: Box<FileReader<BufReader<File>>>,
        /// Of the batch that is being handed out.
        rest: Option<RecordBatch>,
        /// Rows to pass over first.
        skip: usize,
    },
    Csv(Splitter, usize),
    Ndjson(Splitter),
}

impl<'p> Source<'p> {
    /// Begins at `at`.
    pub fn new(plan: &'p Plan, files: &'p [InputFile], at: Position) -> Source<'p> {
        Source {
            plan,
            files,
            at,
            open: None,
            store: None,
            sequence: 0,
            rows_in_part: 0,
            is_done: false,
        }
    }

    /// Reads the store in place of `files`, of which one stands for it.
    pub fn of_store(
        plan: &'p Plan,
        files: &'p [InputFile],
        at: Position,
        store: StoreReader<'p>,
    ) -> Source<'p> {
        let mut source = Source::new(plan, files, at);
        source.store = Some(store);
        source
    }

    /// The next item with its number; `None` at the end. The last item ends a part.
    ///
    /// # Errors
    /// The file and why it cannot be read.
    pub fn next_item(&mut self) -> Result<Option<(u64, Item)>, String> {
        let found = self.advance();
        if found.is_err() {
            // What comes behind a place that cannot be read is nobody's.
            self.is_done = true;
            self.open = None;
        }
        found
    }

    fn advance(&mut self) -> Result<Option<(u64, Item)>, String> {
        if self.is_done {
            return Ok(None);
        }
        if self.rows_in_part >= self.plan.checkpoint_rows {
            return self.end_part().map(Some);
        }
        while let Some(file) = self.files.get(self.at.file) {
            if let Some(store) = &mut self.store {
                match store.next_rows()? {
                    Some((rows, count, binding)) => {
                        let content = Content::Entities(rows);
                        return Ok(Some(self.chunk(count, 0, binding, content)));
                    }
                    None => self.at.file += 1,
                }
                continue;
            }
            let in_file = |problem: String| format!("{}: {problem}", file.path.display());
            let open = match self.open.take() {
                Some(open) => open,
                None => open_file(&file.path, self.plan, self.at).map_err(in_file)?,
            };
            let open = self.open.insert(open);
            let found = open.next(self.plan.chunk_rows).map_err(in_file)?;
            let Some((rows, content, byte)) = found else {
                self.open = None;
                self.at = Position {
                    file: self.at.file + 1,
                    ..Position::default()
                };
                continue;
            };
            let binding = Arc::clone(&open.binding);
            return Ok(Some(self.chunk(rows, byte, binding, content)));
        }
        self.is_done = true;
        self.end_part().map(Some)
    }

    /// The next `rows` rows of the file that is being read, which goes on at `byte`.
    fn chunk(
        &mut self,
        rows: usize,
        byte: u64,
        binding: Arc<Binding>,
        content: Content,
    ) -> (u64, Item) {
        let first = self.at.row + 1;
        self.at.row += rows as u64;
        self.at.byte = byte;
        let chunk = Chunk {
            file: self.at.file,
            first,
            rows,
            end: self.at,
            binding,
            content,
        };
        self.rows_in_part += rows as u64;
        self.sequence += 1;
        (self.sequence - 1, Item::Chunk(chunk))
    }

    fn end_part(&mut self) -> Result<(u64, Item), String> {
        if let Some(store) = &mut self.store {
            store.checkpoint(self.at.row)?;
        }
        self.rows_in_part = 0;
        self.sequence += 1;
        Ok((self.sequence - 1, Item::EndOfPart(self.at)))
    }
}

/// What is read of each file, without reading its rows, and how many rows it has where it says so.
///
/// # Errors
/// The file and what is wrong with it.
pub fn look_at(file: &Path, plan: &Plan) -> Result<(Arc<Binding>, Option<u64>), String> {
    let in_file = |problem: String| format!("{}: {problem}", file.display());
    let open = open_file(file, plan, Position::default()).map_err(in_file)?;
    let rows = match Format::of(file) {
        Some(Format::Parquet) => {
            let source = File::open(file).map_err(|error| in_file(error.to_string()))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(source)
                .map_err(|error| in_file(error.to_string()))?;
            u64::try_from(builder.metadata().file_metadata().num_rows()).ok()
        }
        _ => None,
    };
    Ok((open.binding, rows))
}

fn open_file(file: &Path, plan: &Plan, at: Position) -> Result<Open, String> {
    let failed = |error: std::io::Error| error.to_string();
    let bind = |names: Vec<String>| {
        let bound = bind(&names, &plan.view, &plan.needed, &plan.columns);
        bound.map(Arc::new)
    };
    let row = usize::try_from(at.row).map_err(|error| error.to_string())?;
    match Format::of(file) {
        Some(Format::Parquet) => {
            let source = File::open(file).map_err(failed)?;
            // Text comes as it is, whatever columns the writer had of it (large, views, categories).
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(source, options)
                .map_err(|error| error.to_string())?;
            let fields = builder.schema().fields();
            let binding = bind(fields.iter().map(|field| field.name().clone()).collect())?;
            let mut read: Vec<usize> = binding.columns().map(|column| column.index).collect();
            read.sort_unstable();
            read.dedup();
            // The columns that are read come in the order of the file.
            let places = binding.columns().map(|column| {
                read.iter()
                    .position(|index| *index == column.index)
                    .unwrap_or_default()
            });
            let places = places.collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), read);
            let reader = builder
                .with_projection(mask)
                .with_offset(row)
                .with_batch_size(plan.chunk_rows)
                .build()
                .map_err(|error| error.to_string())?;
            Ok(Open {
                binding,
                reader: Reader::Parquet(reader, places),
            })
        }
        Some(Format::Arrow) => {
            let source = File::open(file).map_err(failed)?;
            let batches =
                FileReader::try_new_buffered(source, None).map_err(|error| error.to_string())?;
            let schema = batches.schema();
            let names = schema.fields().iter().map(|field| field.name().clone());
            Ok(Open {
                binding: bind(names.collect())?,
                reader: Reader::Arrow {
                    batches: Box::new(batches),
                    rest: None,
                    skip: row,
                },
            })
        }
        Some(Format::Csv) => {
            let mut splitter = Splitter::open(file, 0, true).map_err(failed)?;
            let header = splitter.next(1)?;
            let header = header.ok_or("it is empty; expected a header with the column names")?;
            let names = read_header(&header.bytes)?;
            let width = names.len();
            if at.row > 0 {
                splitter = Splitter::open(file, at.byte, true).map_err(failed)?;
            }
            Ok(Open {
                binding: bind(names)?,
                reader: Reader::Csv(splitter, width),
            })
        }
        Some(Format::Ndjson) => {
            let mut splitter = Splitter::open(file, 0, false).map_err(failed)?;
            let lines = splitter.next(FIRST_LINES)?;
            // Without lines there is nothing that could be missing.
            let binding = match lines.is_some() {
                true => bind(member_names(lines))?,
                false => Arc::default(),
            };
            Ok(Open {
                binding,
                reader: Reader::Ndjson(Splitter::open(file, at.byte, false).map_err(failed)?),
            })
        }
        None => Err("its format is not known".to_owned()),
    }
}

impl Open {
    /// The next rows, their number, and where the file goes on.
    fn next(&mut self, limit: usize) -> Result<Option<(usize, Content, u64)>, String> {
        let text = |piece: Piece| (piece.records, piece.bytes, piece.end);
        match &mut self.reader {
            Reader::Parquet(reader, places) => {
                let Some(batch) = reader.next() else {
                    return Ok(None);
                };
                let batch = batch.map_err(|error| error.to_string())?;
                let columns = places.iter().map(|place| Arc::clone(batch.column(*place)));
                let content = Content::Columns(columns.collect());
                Ok(Some((batch.num_rows(), content, 0)))
            }
            Reader::Arrow {
                batches,
                rest,
                skip,
            } => loop {
                let batch = match rest.take() {
                    Some(batch) => batch,
                    None => match batches.next() {
                        Some(batch) => batch.map_err(|error| error.to_string())?,
                        None => return Ok(None),
                    },
                };
                let rows = batch.num_rows();
                let passed = rows.min(*skip);
                *skip -= passed;
                let taken = limit.min(rows - passed);
                if taken == 0 {
                    continue;
                }
                let left = rows - passed - taken;
                if left > 0 {
                    *rest = Some(batch.slice(passed + taken, left));
                }
                let batch = batch.slice(passed, taken);
                let columns = self.binding.columns();
                let columns = columns.map(|column| Arc::clone(batch.column(column.index)));
                return Ok(Some((taken, Content::Columns(columns.collect()), 0)));
            },
            Reader::Csv(splitter, width) => Ok(splitter
                .next(limit)?
                .map(text)
                .map(|(records, bytes, end)| (records, Content::Csv(bytes, *width), end))),
            Reader::Ndjson(splitter) => Ok(splitter
                .next(limit)?
                .map(text)
                .map(|(records, bytes, end)| (records, Content::Ndjson(bytes), end))),
        }
    }
}
