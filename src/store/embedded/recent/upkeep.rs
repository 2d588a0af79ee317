//! The thread that seals tails, merges files and deletes them.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::files::run_path;
use super::filters::{Filters, chunks_for};
use super::record::Record;
use super::run::{Records, Run, RunWriter};
use super::tail::Tail;
use super::{Kept, SPAN_US, Shared, State, TAIL_RECORDS};
use crate::features::change::REMEMBERED_US;

/// How many files are merged to one.
const MERGED: usize = 4;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How many records are merged before looking whether a tail waits.
const RECORDS_BETWEEN_LOOKS: u64 = 1 << 16;

/// One thing to do.
pub(super) enum Job {
    Seal(Arc<Tail>),
    Delete(Vec<Arc<Run>>),
    Merge(Vec<Arc<Run>>),
}

/// Why a merge ended.
enum Ended {
    Closing,
    Failed(std::io::Error),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Ended::Failed(error)
    }
}

/// Does what there is to do until the store is closed.
pub fn run(shared: &Shared) {
    let mut state = shared.lock();
    while !state.closing {
        let Some(job) = state.next_job(shared.tail_records) else {
            state = shared.wait(state);
            continue;
        };
        drop(state);
        let done = match job {
            Job::Seal(tail) => seal(shared, tail).map_err(Ended::from),
            Job::Delete(runs) => delete(shared, &runs).map_err(Ended::from),
            Job::Merge(runs) => merge(shared, &runs),
        };
        state = shared.lock();
        match done {
            Ok(()) => state.failed = None,
            Err(Ended::Closing) => {}
            Err(Ended::Failed(error)) => {
                tracing::error!(%error, "the files of recent events cannot be kept in order");
                state.failed = Some(shared.failed(&error).to_string());
                shared.changed.notify_all();
                state = pause(shared, state);
            }
        }
        shared.changed.notify_all();
    }
}

fn pause<'a>(shared: &'a Shared, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    let paused = shared
        .changed
        .wait_timeout_while(state, PAUSE, |state| !state.closing);
    paused.unwrap_or_else(PoisonError::into_inner).0
}

impl State {
    /// What is most urgent; `None` when everything is done.
    pub(super) fn next_job(&self, tail_records: usize) -> Option<Job> {
        if let Some(tail) = &self.sealing {
            return Some(Job::Seal(Arc::clone(tail)));
        }
        let expired = |kept: &&Kept| self.is_expired(kept.run.extent.newest_us);
        let expired: Vec<Arc<Run>> = self.runs.iter().filter(expired).map(Kept::run).collect();
        if !expired.is_empty() {
            return Some(Job::Delete(expired));
        }
        let mergeable = |runs: &&[Kept]| {
            let extents = || runs.iter().map(|kept| kept.run.extent);
            let oldest_us = extents().map(|extent| extent.oldest_us).min();
            let newest_us = extents().map(|extent| extent.newest_us).max();
            let spans_us = newest_us
                .unwrap_or(0)
                .saturating_sub(oldest_us.unwrap_or(0));
            let size = |extent: super::run::Extent| size_class(extent.records, tail_records);
            let first = extents().next().map(size);
            spans_us < SPAN_US && extents().all(|extent| Some(size(extent)) == first)
        };
        let runs = self.runs.windows(MERGED).find(mergeable)?;
        Some(Job::Merge(runs.iter().map(Kept::run).collect()))
    }

    fn is_expired(&self, known_at_us: i64) -> bool {
        self.checkpointed_us.saturating_sub(known_at_us) >= REMEMBERED_US
    }

    /// Replaces `runs` by `merged`.
    fn replace(&mut self, runs: &[Arc<Run>], merged: Option<Run>) {
        let is_replaced = |kept: &mut Kept| runs.iter().any(|run| Arc::ptr_eq(run, &kept.run));
        for kept in self.runs.extract_if(.., is_replaced) {
            if let Some(filters) = kept.filters {
                self.pool.give(filters);
            }
        }
        if let Some(merged) = merged {
            self.add_run(merged);
        }
    }

    /// The newest file whose filters should be in memory and are not, with room for them. Those of older
    /// files make room.
    fn next_without_filters(&mut self) -> Option<(Arc<Run>, Filters)> {
        let mut chunks = 0;
        let mut newest = None;
        for kept in self.runs.iter_mut().rev() {
            chunks += chunks_for(kept.run.groups());
            if chunks > self.pool.limit() {
                if let Some(filters) = kept.filters.take() {
                    self.pool.give(filters);
                }
            } else if kept.filters.is_none() && newest.is_none() {
                newest = Some(Arc::clone(&kept.run));
            }
        }
        let run = newest?;
        let room = self.pool.take(run.groups())?;
        Some((run, room))
    }
}

impl Kept {
    fn run(&self) -> Arc<Run> {
        Arc::clone(&self.run)
    }
}

/// Reads the filters of the newest files into memory, as far as there is room.
pub(super) fn load_filters(shared: &Shared) -> std::io::Result<()> {
    loop {
        let Some((run, mut filters)) = shared.lock().next_without_filters() else {
            return Ok(());
        };
        // Meanwhile they are read where they lie.
        let read = run.read_filters(&mut filters);
        let mut state = shared.lock();
        let mut kept = state.runs.iter_mut();
        match kept.find(|kept| Arc::ptr_eq(&kept.run, &run)) {
            Some(kept) if read.is_ok() => kept.filters = Some(filters),
            _ => state.pool.give(filters),
        }
        read?;
    }
}

/// 0 up to a tail, 1 up to four of them, and so on.
fn size_class(records: u64, tail_records: usize) -> u32 {
    let mut class = 0;
    let mut limit = tail_records as u64;
    while records > limit {
        class += 1;
        limit = limit.saturating_mul(MERGED as u64);
    }
    class
}

/// Sorts a full tail into a file.
fn seal(shared: &Shared, tail: Arc<Tail>) -> std::io::Result<()> {
    if let Some((path, first, last)) = tail.log() {
        let mut state = shared.lock();
        let number = state.next_file;
        state.next_file += 1;
        drop(state);
        let to = run_path(&shared.dir, first, last, number);
        let mut writer = RunWriter::create(to, first, last)?;
        for record in tail.sorted() {
            writer.add(record)?;
        }
        let run = writer.finish()?;
        let mut state = shared.lock();
        state.add_run(run);
        state.sealing = None;
        if tail.len() >= TAIL_RECORDS / 2 {
            state.pool.fill();
        }
        drop(state);
        load_filters(shared)?;
        std::fs::remove_file(path)?;
    } else {
        shared.lock().sealing = None;
    }
    if let Ok(tail) = Arc::try_unwrap(tail) {
        let events = tail.into_events();
        shared.lock().spare = Some(events);
    }
    shared.changed.notify_all();
    Ok(())
}

fn delete(shared: &Shared, runs: &[Arc<Run>]) -> std::io::Result<()> {
    shared.lock().replace(runs, None);
    for run in runs {
        std::fs::remove_file(&run.path)?;
    }
    Ok(())
}

/// Merges files into one, without the events that nothing is compared with any more. A tail that gets
/// full meanwhile is sealed in between.
fn merge(shared: &Shared, runs: &[Arc<Run>]) -> Result<(), Ended> {
    let (number, checkpointed_us) = {
        let mut state = shared.lock();
        state.next_file += 1;
        (state.next_file - 1, state.checkpointed_us)
    };
    let extents = || runs.iter().map(|run| run.extent);
    let first = extents().map(|extent| extent.first_sequence).min();
    let last = extents().map(|extent| extent.last_sequence).max();
    let (first, last) = (first.unwrap_or(0), last.unwrap_or(0));
    let path = run_path(&shared.dir, first, last, number);
    let mut writer = RunWriter::create(path, first, last)?;
    let mut sources: Vec<(Records, Option<Record>)> = Vec::new();
    for run in runs {
        let mut records = run.records()?;
        let head = records.next()?;
        sources.push((records, head));
    }
    let mut merged = 0_u64;
    let mut previous = None;
    loop {
        let heads = sources.iter_mut().filter(|(_, head)| head.is_some());
        let Some((records, head)) = heads.min_by_key(|(_, head)| *head) else {
            break;
        };
        let Some(record) = std::mem::replace(head, records.next()?) else {
            break;
        };
        let expired = checkpointed_us.saturating_sub(record.known_at_us) >= REMEMBERED_US;
        if !expired && previous != Some(record) {
            writer.add(record)?;
            previous = Some(record);
        }
        merged += 1;
        if merged.is_multiple_of(RECORDS_BETWEEN_LOOKS) {
            let state = shared.lock();
            if state.closing {
                return Err(Ended::Closing);
            }
            let waiting = state.sealing.clone();
            drop(state);
            if let Some(tail) = waiting {
                seal(shared, tail)?;
            }
        }
    }
    let merged = writer.finish()?;
    shared.lock().replace(runs, Some(merged));
    load_filters(shared)?;
    for run in runs {
        std::fs::remove_file(&run.path)?;
    }
    Ok(())
}
