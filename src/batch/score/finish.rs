//! What a job leaves behind when its rows are scored: output, rejects, manifest, and what there is to say.
//!
//! The output gets its name before it is compared, written back or put into words, so that whatever fails
//! then, the scores are there.

use std::time::Instant;

use serde::Serialize;

use super::begin::Begun;
use super::definition::Definition;
use super::diff::Diff;
use super::folder::{JobFolder, Part, with_suffix, write_json};
use super::prepare::Prepared;
use super::publish::{publish_output, publish_rejects};
use super::sink::{Sink, TOO_MANY_REJECTS};
use super::statistics::Statistics;
use super::summary::{self, Summary};
use super::{Job, News, html, tally};
use crate::clock;

/// Rows that take so long to be compared that it is said.
const MANY_ROWS: u64 = 1_000_000;

/// All rows of a job.
pub struct AllRows {
    pub rows: u64,
    pub rejected: u64,
    pub parts: Vec<Part>,
    /// Of them, those that an interrupted run had done.
    pub resumed_rows: u64,
    /// When this run began.
    pub started: Instant,
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

/// Publishes the rows and says what they came to.
///
/// # Errors
/// What could not be read or written, and whether the output is there.
pub fn finish(
    job: &Job,
    prepared: &Prepared<'_>,
    begun: &Begun,
    folder: &JobFolder,
    all: AllRows,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Summary, String> {
    let plan = &prepared.plan;
    let rejects = publish_rejects(job, folder, &all.parts)?;
    let reject_reasons = match &rejects {
        Some(file) => tally::reasons(file)?,
        None => Vec::new(),
    };
    let published = publish_output(job, folder, plan, prepared.format, &all.parts)?;
    let (output_bytes, output_xxh3) = published;
    let diff = compare(job, prepared, begun, folder, all.rows, tell)?;
    let mut summary = summarize(job, prepared, all)?;
    summary.rejects = rejects;
    summary.reject_reasons = reject_reasons;
    summary.diff = diff;
    let finished_at = clock::to_rfc3339(clock::now_us());
    let write_manifest = |summary: &Summary| {
        let manifest = Manifest {
            job: &begun.definition,
            output_bytes,
            output_xxh3: &output_xxh3,
            finished_at: &finished_at,
            summary,
        };
        let file = with_suffix(&job.output, ".manifest.json");
        write_json(&folder.unfinished("manifest"), &file, &manifest)
    };
    write_manifest(&summary)?;
    if let Some(to_store) = &prepared.to_store {
        // The output is complete with its manifest, whatever becomes of the store.
        summary.stored = Some(to_store.write(plan, job, prepared.format)?);
        write_manifest(&summary)?;
    }
    if let Some(page) = &job.html {
        html::write(page, &begun.definition, &summary, &finished_at)?;
    }
    Ok(summary)
}

/// What changed since the last run, if that was asked for.
fn compare(
    job: &Job,
    prepared: &Prepared<'_>,
    begun: &Begun,
    folder: &JobFolder,
    rows: u64,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<Option<Diff>, String> {
    let Some(last) = &begun.last else {
        return Ok(None);
    };
    if rows >= MANY_ROWS {
        let text = format!("comparing with {}", last.path.display());
        tell(News::Remark(&text));
    }
    last.compare(folder, &prepared.plan, job).map(Some)
}

/// What the rows came to, as far as they alone tell it. The time ends here.
fn summarize(job: &Job, prepared: &Prepared<'_>, all: AllRows) -> Result<Summary, String> {
    let plan = &prepared.plan;
    let mut statistics = Statistics::new(plan);
    for part in &all.parts {
        statistics.merge(&part.statistics);
    }
    let seconds = all.started.elapsed().as_secs_f64();
    Ok(Summary {
        output: job.output.clone(),
        rows: all.rows,
        scored: all.parts.iter().map(|part| part.scored).sum(),
        rejected: all.rejected,
        rejects: None,
        reject_reasons: Vec::new(),
        resumed_rows: all.resumed_rows,
        seconds,
        rows_per_second: (all.rows - all.resumed_rows) as f64 / seconds.max(1e-9),
        threads: job.threads,
        models: summary::models(plan, &statistics)?,
        features: statistics.features,
        unread: prepared.unread.clone(),
        diff: None,
        stored: None,
    })
}

/// Whether all rows together are good enough to be published.
///
/// # Errors
/// [`TOO_MANY_REJECTS`], or that there were no rows where there should be some.
pub fn judge(job: &Job, sink: &Sink<'_>) -> Result<(), String> {
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
