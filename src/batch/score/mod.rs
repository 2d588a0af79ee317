//! Scoring whole tables on this machine.
//!
//! Files or the online store in, one file out, with a row for every row that could be scored, in the order
//! of the input. The scores are those of `/v1/score` for the same values, to the bit: values are read and
//! checked as they are when they are stored, and go through the same assembly, expressions and graphs.
//!
//! A job is four steps: [`prepare`] finds everything it needs and refuses what cannot be done; [`begin`] takes
//! the job's folder and what an interrupted job has left there; the rows are scored; [`finish`] publishes
//! them and says what they came to.
//!
//! * [`inputs`] – which files; [`watch`] – whether they stay what they are; [`source`] – their rows in chunks;
//!   [`split`], [`names`], [`table`], [`cells`] – from bytes to checked columns; [`bind`] – which column is
//!   which feature; [`arrow_size`] – how much memory Arrow files take.
//! * [`plan`] – which models; [`rows`] – from a chunk to scores; [`statistics`], [`bands`], [`tally`],
//!   [`summary`] – what there is to say of them; [`diff`] – what changed since the last run; [`html`] – all
//!   that as a page.
//! * [`pipeline`] – the threads; [`sink`] – their chunks in order; [`write`] – files of the output;
//!   [`folder`], [`definition`] – the state of a job that is not finished, and what it is; [`publish`] – what
//!   it leaves behind; [`limit`] – how many bad rows are too many.
//! * [`store_access`] – the online store, here or of a server; [`store_source`] – its entities as an input;
//!   [`to_store`] – scores as features of it.
//!
//! A job is killed at any point and gone on with: its parts are files that count when they are complete,
//! and the output appears when all of them do. (One on a cluster is begun again.) Memory is bounded by the threads and the size of a chunk,
//! whatever the size of the input.
//!
//! With a cluster, [`crate::batch::cluster`] takes the place of the pipeline, and the rest is the same.
//!
//! It records no predictions in the ledger.

pub mod arrow_size;
pub mod bands;
pub mod begin;
pub mod bind;
pub mod cells;
pub mod definition;
pub mod diff;
pub mod finish;
pub mod folder;
pub mod html;
pub mod inputs;
pub mod limit;
pub mod names;
pub mod pipeline;
pub mod plan;
pub mod prepare;
pub mod publish;
pub mod rows;
pub mod sink;
pub mod source;
pub mod split;
pub mod statistics;
pub mod store_access;
pub mod store_source;
pub mod summary;
pub mod table;
pub mod tally;
pub mod to_store;
pub mod watch;
pub mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use self::begin::begin;
use self::finish::{AllRows, finish, judge};
use self::folder::{JobFolder, Part};
use self::limit::RejectLimit;
use self::plan::Asked;
use self::prepare::Prepared;
use self::publish::too_many_rejects;
use self::sink::{Sink, TOO_MANY_REJECTS};
use self::source::{Position, Source};
use self::store_access::StoreAccess;
use self::store_source::StoreReader;
use self::summary::Summary;
use crate::batch::cluster::{self, Cluster};
use crate::models::repository::Repository;

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    pub asked: Asked,
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Where rejected rows go; beside the output when left out.
    pub rejects: Option<PathBuf>,
    pub limit: RejectLimit,
    pub threads: usize,
    /// What the job may take, in bytes.
    pub memory: u64,
    /// Whether a job that was interrupted is gone on with.
    pub resume: bool,
    /// The output of the last run, to compare with; it may be the file that is written.
    pub diff: Option<PathBuf>,
    /// How many of those who moved most are told, up and down each.
    pub movers: usize,
    /// Where the summary goes as a page.
    pub html: Option<PathBuf>,
    /// Where the rows are scored, if not here.
    pub cluster: Option<Cluster>,
    /// The online store, when it is read or written.
    pub store: Option<Arc<StoreAccess>>,
    /// Whether it is the input, in place of `inputs`.
    pub from_store: bool,
    /// Whether the scores are written into it, and which feature gets which column of the output where that
    /// is not the one of its name.
    pub to_store: Option<Vec<(String, String)>>,
}

impl Job {
    /// The store that is the input.
    fn source_store(&self) -> Option<&Arc<StoreAccess>> {
        self.store.as_ref().filter(|_| self.from_store)
    }

    /// How that is done which was still to be done when the output was complete.
    fn how_to_do_the_rest(&self) -> &'static str {
        match self.cluster {
            None => "the same command with --resume does that again",
            Some(_) => "on a cluster the same command runs the whole job again",
        }
    }
}

/// What is told while a job runs.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// It begins: the rows of all inputs, when their formats say so, their bytes, and the rows that are
    /// done.
    Begin {
        rows: Option<u64>,
        bytes: u64,
        done: u64,
    },
    /// So many rows are done, and so many bytes of the inputs as far as their formats say that.
    Done { rows: u64, bytes: u64 },
    /// Something that is worth a remark.
    Remark(&'a str),
}

/// Scores whole tables; `tell` is told how far it is.
///
/// # Errors
/// What went wrong, naming file, column or row. What was done is kept for `--resume`, except when the job
/// could not begin, or ran on a cluster, whose rows come in no order that could be gone on in.
pub fn run(
    repository: &Repository,
    job: &Job,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Summary, String> {
    let started = Instant::now();
    let mut prepared = Prepared::of(repository, job, tell)?;
    let folder = JobFolder::open(&job.output)?;
    let done = carry_out(job, &mut prepared, &folder, started, tell);
    match done {
        Ok(summary) => folder.remove().map(|()| summary),
        Err(problem) if job.cluster.is_some() => Err(match folder.remove() {
            Ok(()) => problem,
            Err(left) => format!("{problem}; what the job has left was not removed: {left}"),
        }),
        Err(problem) => Err(problem),
    }
}

/// Everything that is done in the job's folder.
fn carry_out(
    job: &Job,
    prepared: &mut Prepared<'_>,
    folder: &JobFolder,
    started: Instant,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Summary, String> {
    let (begun, parts) = begin(job, prepared, folder, tell)?;
    let resumed_rows = parts.iter().map(|part| part.rows).sum();
    tell(News::Begin {
        rows: prepared.rows,
        bytes: prepared.files.iter().map(|file| file.bytes).sum(),
        done: resumed_rows,
    });
    let sink = score_rows(job, prepared, folder, parts, tell)?;
    let all = AllRows {
        rows: sink.rows,
        rejected: sink.rejected,
        parts: sink.parts,
        resumed_rows,
        started,
    };
    finish(job, prepared, &begun, folder, all, tell)
}

/// Scores the rows that `parts` do not hold, here or on a cluster; what comes back has all of them.
fn score_rows<'p>(
    job: &Job,
    prepared: &'p Prepared<'_>,
    folder: &'p JobFolder,
    parts: Vec<Part>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Sink<'p>, String> {
    let Prepared {
        plan, files, watch, ..
    } = prepared;
    let at = parts.last().map_or(Position::default(), |part| part.end);
    let is_done = !parts.is_empty() && at.file >= files.len();
    let new_sink = |parts| Sink::new(plan, folder, prepared.format, job.limit, watch, parts);
    let (sink, done) = match &job.cluster {
        _ if is_done => (new_sink(parts), Ok(())),
        Some(cluster) => {
            let new_sink = || new_sink(Vec::new());
            cluster::run(cluster, plan, files, plan.at_us, &new_sink, tell)
        }
        None => {
            let progress = |rows, at: Position| {
                let before = files.iter().take(at.file).map(|file| file.bytes);
                let bytes = before.sum::<u64>() + at.byte;
                tell(News::Done { rows, bytes });
            };
            let source = source_of(job, prepared, folder, at)?;
            pipeline::run(plan, files, source, new_sink(parts), job.threads, &progress)
        }
    };
    // A file that changed explains every other problem with it.
    watch.check()?;
    match done.and_then(|()| judge(job, &sink)) {
        Ok(()) => Ok(sink),
        Err(problem) if problem == TOO_MANY_REJECTS => Err(too_many_rejects(job, folder, &sink)),
        Err(problem) => Err(problem),
    }
}

/// The rows of the input from `at` on.
fn source_of<'p>(
    job: &Job,
    prepared: &'p Prepared<'_>,
    folder: &JobFolder,
    at: Position,
) -> Result<Source<'p>, String> {
    let Prepared { plan, files, .. } = prepared;
    match job.source_store() {
        Some(store) => {
            let reader = StoreReader::new(plan, store, folder, at.row)?;
            Ok(Source::of_store(plan, files, at, reader))
        }
        None => Ok(Source::new(plan, files, at)),
    }
}

#[cfg(test)]
mod tests;
