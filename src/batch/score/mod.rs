//! Scoring whole tables on this machine.
//!
//! Files or the online store in, one file out, with a row for every row that could be scored, in the order
//! of the input. The scores are those of `/v1/score` for the same values, to the bit: values are read and
//! checked as they are when they are stored, and go through the same assembly, expressions and graphs.
//!
//! * [`inputs`] – which files; [`watch`] – whether they stay what they are; [`source`] – their rows in chunks;
//!   [`split`], [`names`], [`table`], [`cells`] – from bytes to checked columns; [`bind`] – which column is
//!   which feature; [`arrow_size`] – how much memory Arrow files take.
//! * [`store_access`], [`store_source`] – the online store as input; [`to_store`] – scores written back.
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
//! and the output appears when all of them do. Memory is bounded by the threads and the size of a chunk,
//! whatever the size of the input.
//!
//! With a cluster, [`crate::batch::cluster`] takes the place of the pipeline, and the rest is the same.
//!
//! It records no predictions in the ledger.

pub mod arrow_size;
pub mod bands;
pub mod bind;
pub mod cells;
pub mod definition;
pub mod diff;
pub mod folder;
pub mod html;
pub mod inputs;
pub mod limit;
pub mod names;
pub mod pipeline;
pub mod plan;
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

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use self::definition::{Definition, ModelDigest};
use self::folder::{JobFolder, with_suffix, write_json};
use self::inputs::InputFile;
use self::limit::RejectLimit;
use self::plan::{Asked, CHUNK_ROWS, Plan, scoring_of};
use self::publish::{publish_output, publish_rejects, too_many_rejects};
use self::sink::{Sink, TOO_MANY_REJECTS};
use self::source::{Position, Source, look_at};
use self::statistics::Statistics;
use self::store_access::StoreAccess;
use self::store_source::StoreReader;
use self::summary::{Summary, digest_of, hexadecimal};
use self::to_store::ToStore;
use self::watch::Watch;
use self::write::OutputFormat;
use crate::batch::cluster::{self, Cluster};
use crate::clock;
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

/// What stays beside the output.
#[derive(Serialize)]
struct Manifest<'a> {
    job: &'a Definition,
    output_bytes: u64,
    /// XXH3-128 of the output, in hexadecimal.
    output_xxh3: &'a str,
    finished_at: &'a str,
    summary: &'a Summary,
}

/// What a job takes that does not depend on its chunks: the program, its models, a row group that is
/// being written.
const FIXED_BYTES: u64 = 192 * 1024 * 1024;
/// What a row takes while it is scored: for each column and each input of a model, and what lies between
/// the operators of a model.
const BYTES_PER_COLUMN: u64 = 64;
const BYTES_PER_MODEL: u64 = 8 * 1024;
const FEWEST_CHUNK_ROWS: usize = 64;
/// Rows that take so long to be compared that it is said.
const MANY_ROWS: u64 = 1_000_000;

/// Scores whole tables; `tell` is told how far it is.
///
/// # Errors
/// What went wrong, naming file, column or row. What was done is kept for `--resume`, except when the job
/// could not begin.
pub fn run(
    repository: &Repository,
    job: &Job,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Summary, String> {
    let started = Instant::now();
    let format = OutputFormat::of(&job.output)?;
    let mut plan = Plan::new(repository, &job.asked, clock::now_us())?;
    let to_store = ToStore::of(job, &plan)?;
    let paths = match job.from_store {
        true => Vec::new(),
        false => inputs::find(&job.inputs)?,
    };
    // Before the digests are taken: what changes behind them is noticed.
    let watch = Watch::begin(&paths)?;
    let files = match job.source_store() {
        Some(store) => vec![store.as_input(&plan.view)],
        None => inputs::describe(paths)?,
    };
    if let Some(store) = &job.store {
        store.check_view(&plan.view)?;
    }
    refuse_to_read_the_output(job, &files)?;
    if let Some(page) = &job.html {
        html::check_path(page, job, &files)?;
    }
    let kept_bytes = arrow_size::kept_bytes(&files, job.memory)?;
    plan.chunk_rows = chunk_rows(&plan, job.threads, job.memory, kept_bytes)?;
    let diff = diff::wanted(job, &plan, tell)?;
    let mut total = (!job.from_store).then_some(0);
    let mut unread = Vec::new();
    let tables = if job.from_store { &[] } else { &files[..] };
    for (index, file) in tables.iter().enumerate() {
        let (binding, rows) = look_at(&file.path, &plan)?;
        total = total.zip(rows).map(|(total, rows)| total + rows);
        if index == 0 {
            unread.clone_from(&binding.unread);
        }
    }

    let folder = JobFolder::open(&job.output)?;
    let mut definition = define(&plan, job, &files);
    let parts = match (folder.definition()?, job.resume) {
        (Some(before), true) => {
            let changes = before.changes(&definition);
            if !changes.is_empty() {
                return Err(format!(
                    "--resume: this is not the job that was interrupted: {}; put that back, or run \
                     without --resume to begin again",
                    changes.join("; ")
                ));
            }
            definition.at_us = before.at_us;
            folder.parts()?
        }
        (before, _) => {
            if before.is_some() {
                tell(News::Remark(
                    "what an interrupted job has left is discarded; --resume goes on with it",
                ));
            }
            folder.begin(&definition)?;
            Vec::new()
        }
    };
    let parts = store_source::go_on_with(job, &plan, &folder, &mut definition, parts, tell)?;
    plan.at_us = definition.at_us;
    plan.request_time = plan.view.request_time(plan.at_us).collect();
    let last = match diff {
        Some(path) => diff::read_last(&folder, &plan, path, !parts.is_empty())?,
        None => None,
    };
    if let Some(last) = &last {
        last.give_bands(&mut plan);
    }
    let resumed_rows: u64 = parts.iter().map(|part| part.rows).sum();
    let begin = parts.last().map_or(Position::default(), |part| part.end);
    tell(News::Begin {
        rows: total,
        bytes: files.iter().map(|file| file.bytes).sum(),
        done: resumed_rows,
    });
    let progress = |rows, at: Position| {
        let before = files.iter().take(at.file).map(|file| file.bytes);
        let bytes = before.sum::<u64>() + at.byte;
        tell(News::Done { rows, bytes });
    };
    let is_done = !parts.is_empty() && begin.file >= files.len();
    let new_sink = |parts| Sink::new(&plan, &folder, format, job.limit, &watch, parts);
    let sink = new_sink(parts);
    let (sink, done) = match &job.cluster {
        _ if is_done => (sink, Ok(())),
        Some(cluster) => {
            let at_us = definition.at_us;
            cluster::run(
                cluster,
                &plan,
                &files,
                at_us,
                &|| new_sink(Vec::new()),
                tell,
            )
        }
        None => {
            let source = match job.source_store() {
                Some(store) => {
                    let reader = StoreReader::new(&plan, store, &folder, begin.row)?;
                    Source::of_store(&plan, &files, begin, reader)
                }
                None => Source::new(&plan, &files, begin),
            };
            pipeline::run(&plan, &files, source, sink, job.threads, &progress)
        }
    };
    // A file that changed explains every other problem with it.
    watch.check()?;
    let finished = done.and_then(|()| judge(job, &sink));
    if let Err(problem) = finished {
        return Err(match problem == TOO_MANY_REJECTS {
            true => too_many_rejects(job, &folder, &sink),
            false => problem,
        });
    }
    let (rows, rejected, parts) = (sink.rows, sink.rejected, sink.parts);

    let mut statistics = Statistics::new(&plan);
    for part in &parts {
        statistics.merge(&part.statistics);
    }
    let rejects = publish_rejects(job, &folder, &parts)?;
    let reject_reasons = match &rejects {
        Some(file) => tally::reasons(file)?,
        None => Vec::new(),
    };
    let (output_bytes, output_xxh3) = publish_output(job, &folder, &plan, format, &parts)?;
    let diff = match &last {
        Some(last) => {
            if rows >= MANY_ROWS {
                let last = job.diff.iter().map(|last| last.display().to_string());
                let text = format!("comparing with {}", last.collect::<String>());
                tell(News::Remark(&text));
            }
            Some(last.compare(&folder, &plan, job)?)
        }
        None => None,
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut summary = Summary {
        output: job.output.clone(),
        rows,
        scored: parts.iter().map(|part| part.scored).sum(),
        rejected,
        rejects,
        reject_reasons,
        resumed_rows,
        seconds,
        rows_per_second: (rows - resumed_rows) as f64 / seconds.max(1e-9),
        threads: job.threads,
        models: summary::models(&plan, &statistics)?,
        features: statistics.features,
        unread,
        diff,
        stored: None,
    };
    let finished_at = clock::to_rfc3339(clock::now_us());
    let write_manifest = |summary: &Summary| {
        let manifest = Manifest {
            job: &definition,
            output_bytes,
            output_xxh3: &output_xxh3,
            finished_at: &finished_at,
            summary,
        };
        let file = with_suffix(&job.output, ".manifest.json");
        write_json(&folder.unfinished("manifest"), &file, &manifest)
    };
    write_manifest(&summary)?;
    if let Some(to_store) = &to_store {
        // The output is complete with its manifest, whatever becomes of the store.
        summary.stored = Some(to_store.write(&plan, &job.output, format)?);
        write_manifest(&summary)?;
    }
    if let Some(page) = &job.html {
        html::write(page, &definition, &summary, &finished_at)?;
    }
    folder.remove()?;
    Ok(summary)
}

/// Rows in a chunk, so that those of all threads fit into the memory beside what else is kept in it.
///
/// # Errors
/// When the memory is too small for any.
pub fn chunk_rows(
    plan: &Plan,
    threads: usize,
    memory: u64,
    kept_bytes: u64,
) -> Result<usize, String> {
    let fixed = FIXED_BYTES.saturating_add(kept_bytes);
    let columns = plan.needed.iter().filter(|needed| **needed).count() as u64;
    let mut row_bytes = 4 * BYTES_PER_COLUMN * columns;
    for version in &plan.models {
        let inputs = scoring_of(version)?.input_features.len() as u64;
        row_bytes += BYTES_PER_MODEL + BYTES_PER_COLUMN * inputs;
    }
    let threads = threads as u64;
    let rows = memory.saturating_sub(fixed) / (threads * row_bytes);
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    if rows < FEWEST_CHUNK_ROWS {
        let least = fixed + threads * row_bytes * FEWEST_CHUNK_ROWS as u64;
        return Err(format!(
            "--memory: {memory} bytes are too few for {threads} threads; {least} are needed"
        ));
    }
    Ok(rows.min(CHUNK_ROWS))
}

/// An output among the inputs would be scored itself the next time.
fn refuse_to_read_the_output(job: &Job, files: &[InputFile]) -> Result<(), String> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = parent(&job.output).canonicalize();
    let folder = folder
        .map_err(|error| format!("--output {}: its folder: {error}", job.output.display()))?;
    let name = job.output.file_name().unwrap_or_default();
    let is_output = |file: &InputFile| file.path.canonicalize().ok() == Some(folder.join(name));
    let is_inside = |input: &PathBuf| {
        let input = input.canonicalize().ok().filter(|input| input.is_dir());
        input.is_some_and(|input| folder.starts_with(input))
    };
    if files.iter().any(is_output) || job.inputs.iter().any(is_inside) {
        return Err(format!(
            "--output {}: it is among the inputs; write it to another folder",
            job.output.display()
        ));
    }
    let Some(rejects) = &job.rejects else {
        return Ok(());
    };
    let rejects_folder = parent(rejects).canonicalize();
    let rejects_folder = rejects_folder
        .map_err(|error| format!("--rejects {}: its folder: {error}", rejects.display()))?;
    let rejects_file = rejects_folder.join(rejects.file_name().unwrap_or_default());
    let written = folder.join(name);
    let manifest = folder.join(format!("{}.manifest.json", name.to_string_lossy()));
    let is_rejects =
        |file: &InputFile| file.path.canonicalize().ok().as_ref() == Some(&rejects_file);
    if rejects_file == written || rejects_file == manifest || files.iter().any(is_rejects) {
        return Err(format!(
            "--rejects {}: it is an input or the output; write them to a file of their own",
            rejects.display()
        ));
    }
    Ok(())
}

fn define(plan: &Plan, job: &Job, files: &[InputFile]) -> Definition {
    let named = plan.columns.named.iter();
    let named: Vec<String> = named
        .map(|(feature, column)| format!("{feature}={column}"))
        .collect();
    let explain = plan.explain.map_or(0, |limit| limit);
    let bands = job.asked.bands.as_ref().map(ToString::to_string);
    let bands = bands.unwrap_or_default();
    let last = job.diff.as_ref().map(|last| last.display().to_string());
    let last = last.unwrap_or_default();
    let options = [
        ("--column", named.join(",")),
        ("--without", plan.columns.without.join(",")),
        ("--explain", explain.to_string()),
        ("--checkpoint-rows", plan.checkpoint_rows.to_string()),
        ("--output", job.output.display().to_string()),
        ("--bands", bands),
        ("--diff", last),
    ];
    let models = plan.models.iter().map(|version| ModelDigest {
        model: version.name.clone(),
        version: version.version.clone(),
        digest: digest_of(version),
    });
    // Parts of a cluster's job are in no order that the one-machine job could go on in.
    let cluster = job.cluster.iter();
    let cluster = cluster.map(|cluster| ("--cluster", cluster.url.clone()));
    let options = options.into_iter().chain(cluster);
    Definition {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        inputs: files.to_vec(),
        models: models.collect(),
        view: plan.view.name.clone(),
        view_digest: hexadecimal(&plan.view.digest),
        options: options
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        at_us: clock::now_us(),
    }
}

/// Whether all rows together are good enough to be published.
fn judge(job: &Job, sink: &Sink<'_>) -> Result<(), String> {
    let is_exceeded = job.limit.is_exceeded(sink.rejected, sink.rows, true);
    if job.from_store && sink.rows == 0 {
        let name = job.source_store().map_or("", |store| store.name());
        return Err(format!(
            "{name}: there are no entities to score; is it the right store?"
        ));
    }
    let is_nothing_left = sink.rows > 0 && sink.rejected == sink.rows;
    match is_exceeded || is_nothing_left {
        true => Err(TOO_MANY_REJECTS.to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
