//! Where scored chunks go: into parts, in the order of the input, whatever the order they come in.
//!
//! Whoever brings a chunk writes it and all that waited for it. One who is too far ahead waits, so that
//! only so many chunks are kept in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use super::folder::{JobFolder, Part};
use super::limit::RejectLimit;
use super::plan::Plan;
use super::rows::Scored;
use super::source::Position;
use super::statistics::Statistics;
use super::table::Reject;
use super::watch::Watch;
use super::write::{OutputFormat, PartWriter};

/// What is to be written at a place of the sequence.
pub enum Done {
    Scored(Box<Scored>),
    EndOfPart(Position),
}

/// The parts, the last of which is being written.
pub struct Sink<'p> {
    plan: &'p Plan,
    folder: &'p JobFolder,
    format: OutputFormat,
    limit: RejectLimit,
    watch: &'p Watch,
    /// The parts that are complete.
    pub parts: Vec<Part>,
    /// The number of the sequence that is written next.
    next: u64,
    waiting: BTreeMap<u64, Done>,
    /// Something could not be written.
    has_failed: bool,
    current: Option<Current>,
    /// Where the input goes on behind what was written.
    pub at: Position,
    /// Of all parts, the current one among them.
    pub rows: u64,
    pub rejected: u64,
    /// Of those that were read now, the first.
    pub first_reject: Option<Reject>,
}

/// The part that is being written.
struct Current {
    writer: PartWriter,
    rejects: Option<BufWriter<File>>,
    rows: u64,
    scored: u64,
    rejected: u64,
    statistics: Statistics,
}

impl<'p> Sink<'p> {
    /// Goes on behind `parts`.
    pub fn new(
        plan: &'p Plan,
        folder: &'p JobFolder,
        format: OutputFormat,
        limit: RejectLimit,
        watch: &'p Watch,
        parts: Vec<Part>,
    ) -> Sink<'p> {
        Sink {
            plan,
            folder,
            format,
            limit,
            watch,
            at: parts.last().map_or(Position::default(), |part| part.end),
            rows: parts.iter().map(|part| part.rows).sum(),
            rejected: parts.iter().map(|part| part.rejected).sum(),
            parts,
            next: 0,
            waiting: BTreeMap::new(),
            has_failed: false,
            current: None,
            first_reject: None,
        }
    }

    /// Whether number `sequence` is so far ahead that it has to wait.
    pub fn is_ahead(&self, sequence: u64, most: u64) -> bool {
        sequence >= self.next + most
    }

    /// Takes what belongs to number `sequence`, and writes all that is next now.
    ///
    /// # Errors
    /// When the disk does not take it, or more rows are rejected than may be.
    pub fn put(&mut self, sequence: u64, done: Done) -> Result<(), String> {
        if self.has_failed {
            return Err("an earlier part of the output was not written".to_owned());
        }
        // Also when it is left by a panic: nothing goes behind what was not written.
        self.has_failed = true;
        self.waiting.insert(sequence, done);
        while let Some(done) = self.waiting.remove(&self.next) {
            self.next += 1;
            match done {
                Done::Scored(scored) => self.write(*scored)?,
                Done::EndOfPart(position) => self.end_part(position)?,
            }
        }
        self.has_failed = false;
        Ok(())
    }

    fn unfinished(&self) -> (PathBuf, PathBuf) {
        (
            self.folder.unfinished("part"),
            self.folder.unfinished("rejects"),
        )
    }

    fn current(&mut self) -> Result<&mut Current, String> {
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                let (file, _) = self.unfinished();
                let is_first = self.parts.is_empty();
                let schema = &self.plan.schema;
                Current {
                    writer: PartWriter::create(&file, self.format, schema, is_first)?,
                    rejects: None,
                    rows: 0,
                    scored: 0,
                    rejected: 0,
                    statistics: Statistics::new(self.plan),
                }
            }
        };
        Ok(self.current.insert(current))
    }

    fn write(&mut self, scored: Scored) -> Result<(), String> {
        let (_, rejects_file) = self.unfinished();
        let rejected = scored.rejects.len() as u64;
        self.at = scored.end;
        self.rows += scored.rows;
        self.rejected += rejected;
        let current = self.current()?;
        current.rows += scored.rows;
        current.scored += scored.batch.num_rows() as u64;
        current.rejected += rejected;
        current.statistics.merge(&scored.statistics);
        current.writer.write(&scored.batch)?;
        if rejected > 0 {
            let failed = |error: std::io::Error| format!("{}: {error}", rejects_file.display());
            let writer = match current.rejects.take() {
                Some(writer) => writer,
                None => BufWriter::new(File::create(&rejects_file).map_err(failed)?),
            };
            let writer = current.rejects.insert(writer);
            for reject in &scored.rejects {
                let line = serde_json::to_string(reject).map_err(|error| error.to_string())?;
                writeln!(writer, "{line}").map_err(failed)?;
            }
        }
        if self.first_reject.is_none() {
            self.first_reject = scored.rejects.into_iter().next();
        }
        match self.limit.is_exceeded(self.rejected, self.rows, false) {
            true => {
                self.keep_rejects()?;
                Err(TOO_MANY_REJECTS.to_owned())
            }
            false => Ok(()),
        }
    }

    /// Brings the rejects of the current part to its file, so that they can be looked at.
    fn keep_rejects(&mut self) -> Result<(), String> {
        let rejects = self
            .current
            .as_mut()
            .and_then(|current| current.rejects.as_mut());
        match rejects.map(BufWriter::flush) {
            Some(Err(error)) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn end_part(&mut self, end: Position) -> Result<(), String> {
        self.current()?;
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        // What was read of a file that changed meanwhile is not kept.
        let first_file = self.parts.last().map_or(0, |part| part.end.file);
        self.watch.check_from(first_file, end.file)?;
        let (file, rejects_file) = self.unfinished();
        current.writer.finish()?;
        let has_rejects = current.rejects.is_some();
        if let Some(rejects) = current.rejects {
            let failed = |error: std::io::Error| format!("{}: {error}", rejects_file.display());
            let target = rejects
                .into_inner()
                .map_err(|error| failed(error.into_error()))?;
            target.sync_all().map_err(failed)?;
        }
        let part = Part {
            rows: current.rows,
            scored: current.scored,
            rejected: current.rejected,
            end,
            statistics: current.statistics,
        };
        let rejects = has_rejects.then_some(rejects_file.as_path());
        self.folder
            .publish(self.parts.len(), &file, rejects, &part)?;
        self.parts.push(part);
        Ok(())
    }
}

/// What [`Sink::put`] says when more rows are rejected than may be; whoever asked for the job says it in
/// full.
pub const TOO_MANY_REJECTS: &str = "too many rows were rejected";
