//! The thread that writes: it takes rows from the queue, encodes them, writes them, asks for syncs,
//! answers outcomes, begins new segments and repairs what a failing disk left behind.
//!
//! It is a loop over plain state under a lock that is free while the thread waits. On a machine whose
//! processors are all busy the thread may not be run in time for the 50 ms promise; a caller that
//! finds predictions waiting too long then writes them itself ([`Writer::help`]).
//!
//! A record goes through three places:
//! `backlog` (encoded, not in the file) -> `unsynced` (in the file, not durable) -> gone (durable,
//! its caller answered). Positions are counted in encoded bytes since the ledger was opened, so
//! that they survive a change of segment.
//!
//! * `encode` – from rows to encoded chunks.
//! * `sync` – when to ask for a sync, and whom it answers.
//! * `repair` – new segments, and what to do about a failing disk.

mod encode;
mod repair;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use tokio::sync::oneshot;

use self::encode::Chunk;
use self::repair::Trouble;
use self::sync::InFlight;
use super::LedgerOptions;
use super::error::OutcomeError;
use super::frame::SEGMENT_HEADER_BYTES;
use super::handle::Receipt;
use super::index::{IndexEntry, OutcomeIndex, Position};
use super::queue::{OutcomeReply, Queue, SyncReport, Wait};
use super::segment::ActiveSegment;
use super::syncer::SyncRequest;

/// Written bytes that may wait for a slow sync before no more rows are taken from the queue.
const MAX_UNSYNCED_BYTES: u64 = 64 * 1024 * 1024;
/// How long after the last row the writer still looks into the queue by itself.
const STAY_ACTIVE: Duration = Duration::from_millis(100);

/// A caller who is answered once the log is durable up to `position`.
struct Waiter {
    position: u64,
    answer: Answer,
}

/// What a caller is told.
enum Answer {
    Outcome(OutcomeReply, Result<Receipt, OutcomeError>),
    /// The segment that it is in.
    Durable(oneshot::Sender<u64>, u64),
}

/// The writer's state.
pub struct Writer {
    ledger_dir: PathBuf,
    options: LedgerOptions,
    queue: Arc<Queue>,
    index: Arc<OutcomeIndex>,
    effects: Effects,
    segment: ActiveSegment,
    encoded_position: u64,
    synced_position: u64,
    written_position: u64,
    backlog: VecDeque<Chunk>,
    unsynced: VecDeque<Chunk>,
    unsynced_bytes: u64,
    /// Outcomes that are not yet in the index: id to digest.
    pending: HashMap<String, Bytes>,
    waiters: Vec<Waiter>,
    /// Ids that came back from a sync that failed.
    returned_entries: Vec<IndexEntry>,
    in_flight: Option<InFlight>,
    dirty_since: Option<Instant>,
    trouble: Option<Trouble>,
    index_failed: bool,
    watermark: Position,
    /// The largest `synced` that a frame in the segment carries.
    announced: u64,
    active_until: Instant,
    closing_since: Option<Instant>,
}

/// The writer, shared between its thread and the callers that help it; `None` once it has ended.
pub type SharedWriter = Arc<Mutex<Option<Writer>>>;

/// What is to be done once the lock is free. Each of these wakes a thread, which may take the
/// processor at once; the lock must not be held over that.
#[derive(Default)]
struct Effects {
    answers: Vec<Answer>,
    sync_request: Option<SyncRequest>,
}

/// Works until the queue is closed and everything is durable, or until closing has taken too long.
/// Returns the number of rows that were accepted and are not in the log. Runs on the writer thread.
pub fn run(
    shared: &Mutex<Option<Writer>>,
    queue: &Queue,
    sync_requests: &Sender<SyncRequest>,
) -> u64 {
    let mut next_wait = Wait::default();
    loop {
        queue.wait(next_wait);
        let mut slot = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = slot.as_mut() else {
            return 0;
        };
        writer.step();
        next_wait = writer.plan_wait();
        let lost_rows = writer.try_finish();
        let effects = std::mem::take(&mut writer.effects);
        if lost_rows.is_some() {
            // Lets go of the index and of the file.
            *slot = None;
        }
        drop(slot);
        carry_out(effects, queue, sync_requests);
        if let Some(lost_rows) = lost_rows {
            return lost_rows;
        }
    }
}

fn carry_out(effects: Effects, queue: &Queue, sync_requests: &Sender<SyncRequest>) {
    for answer in effects.answers {
        // A caller that has left is no error: what it sent is in the log all the same.
        match answer {
            Answer::Outcome(reply, receipt) => drop(reply.send(receipt)),
            Answer::Durable(reply, segment) => drop(reply.send(segment)),
        }
    }
    if let Some(request) = effects.sync_request
        && let Err(unsent) = sync_requests.send(request)
    {
        // The syncing thread only ends before this one if it panicked.
        let error = std::io::Error::other("the syncing thread has ended");
        queue.post_sync(SyncReport {
            result: Err(error),
            entries: unsent.0.entries,
            indexed: false,
        });
    }
}

impl Writer {
    /// A writer that appends to `segment`.
    pub fn new(
        ledger_dir: PathBuf,
        options: LedgerOptions,
        queue: Arc<Queue>,
        index: Arc<OutcomeIndex>,
        segment: ActiveSegment,
    ) -> Writer {
        let watermark = Position {
            segment: segment.sequence,
            offset: segment.length,
        };
        Writer {
            ledger_dir,
            options,
            queue,
            index,
            effects: Effects::default(),
            segment,
            encoded_position: 0,
            synced_position: 0,
            written_position: 0,
            backlog: VecDeque::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            pending: HashMap::new(),
            waiters: Vec::new(),
            returned_entries: Vec::new(),
            in_flight: None,
            dirty_since: None,
            trouble: None,
            index_failed: false,
            watermark,
            announced: SEGMENT_HEADER_BYTES as u64,
            active_until: Instant::now(),
            closing_since: None,
        }
    }

    /// What the next wait in the queue depends on.
    fn plan_wait(&mut self) -> Wait {
        self.announce_if_quiet();
        let now = Instant::now();
        Wait {
            until: self.wake_at(now),
            idle: now >= self.active_until,
            take_rows: self.takes_rows(),
            closing_seen: self.closing_since.is_some(),
        }
    }

    /// Writes the predictions and inferences that are in the queue. A caller does this when the writer thread is
    /// late because the machine gives it no time; it only writes, and leaves syncs, repairs and
    /// outcomes to the thread.
    pub fn help(&mut self) {
        if !self.takes_rows() || self.closing_since.is_some() {
            return;
        }
        let rows = self.queue.take_late_rows();
        if !rows.is_empty() {
            self.active_until = Instant::now() + STAY_ACTIVE;
            self.encode_rows(rows);
            self.write_backlog();
        }
    }

    /// Ends the work when the ledger is being closed and everything is durable, or when closing
    /// has taken too long: then it returns the number of rows that were accepted and are not in
    /// the log.
    fn try_finish(&mut self) -> Option<u64> {
        let since = self.closing_since?;
        if self.is_finished() {
            self.announce_if_quiet();
            self.finish();
            return Some(0);
        }
        if since.elapsed() > self.options.close_patience {
            let lost = self.queue.depth() as u64;
            tracing::error!(
                rows = lost,
                "the ledger is closed while its disk fails; these rows are lost"
            );
            return Some(lost);
        }
        None
    }

    /// Does what there is to do, in the order that keeps rows moving: answers, rows, repairs,
    /// syncs.
    fn step(&mut self) {
        let taken = self.queue.take(self.takes_rows());
        if taken.closing && self.closing_since.is_none() {
            self.closing_since = Some(Instant::now());
        }
        if let Some(report) = taken.sync {
            self.finish_sync(report);
        }
        let someone_waits = !(taken.outcomes.is_empty() && taken.awaited.is_empty());
        if !taken.rows.is_empty() || someone_waits {
            self.active_until = Instant::now() + STAY_ACTIVE;
            self.encode_rows(taken.rows);
            self.encode_outcomes(taken.outcomes);
            self.encode_awaited(taken.awaited);
        }
        self.write_backlog();
        self.repair_if_due();
        self.start_sync_if_due();
        metrics::gauge!("bellwether_ledger_queue_rows").set(self.queue.depth() as f64);
    }

    /// Rows stay in the queue while they could not be written, so that memory stays bounded.
    fn takes_rows(&self) -> bool {
        self.trouble.is_none()
            && self.unsynced_bytes < MAX_UNSYNCED_BYTES
            && self.waiters.len() < self.options.queue_rows
            && (self.pending.len() < self.options.queue_rows || self.index_failed)
    }

    /// When to look again without being woken.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let linger = self.options.linger.min(LedgerOptions::LONGEST_LINGER);
        let next_look = (now < self.active_until && self.takes_rows()).then(|| now + linger);
        let next_retry = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        let next_sync = match (self.dirty_since, &self.in_flight, &self.trouble) {
            (Some(since), None, None) => Some(since + self.options.sync_interval),
            _ => None,
        };
        let closing_look = self.closing_since.map(|_| now + Duration::from_millis(10));
        [next_look, next_retry, next_sync, closing_look]
            .into_iter()
            .flatten()
            .min()
    }

    /// Writes what is encoded, as far as the disk takes it.
    fn write_backlog(&mut self) {
        if self.trouble.is_some() {
            return;
        }
        while let Some(mut chunk) = self.backlog.pop_front() {
            if let Err(error) = self
                .segment
                .file
                .write_at(self.segment.length, &chunk.bytes)
            {
                self.backlog.push_front(chunk);
                self.report_trouble("writing to the ledger failed", &error, false);
                return;
            }
            self.segment.length += chunk.bytes.len() as u64;
            self.announced = self.segment.synced;
            self.written_position = chunk.end;
            self.unsynced_bytes += chunk.bytes.len() as u64;
            self.dirty_since.get_or_insert_with(Instant::now);
            self.count_written(&mut chunk);
            self.unsynced.push_back(chunk);
        }
    }

    /// The chunk's rows are in a file: they no longer wait.
    fn count_written(&self, chunk: &mut Chunk) {
        self.queue.release(
            std::mem::take(&mut chunk.rows),
            std::mem::take(&mut chunk.queue_bytes),
        );
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "prediction")
            .increment(std::mem::take(&mut chunk.predictions));
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "inference")
            .increment(std::mem::take(&mut chunk.inferences));
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "changes")
            .increment(std::mem::take(&mut chunk.changes));
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "audit")
            .increment(std::mem::take(&mut chunk.audits));
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "shadow")
            .increment(std::mem::take(&mut chunk.shadows));
        metrics::counter!("bellwether_ledger_rows_total", "kind" => "outcome")
            .increment(chunk.entries.len() as u64);
    }

    fn is_finished(&self) -> bool {
        self.backlog.is_empty()
            && self.in_flight.is_none()
            && self.trouble.is_none()
            && self.written_position == self.synced_position
            && !self.queue.has_rows()
    }

    /// Last acts of a clean close: the final mark on disk, the index complete so that the next open
    /// replays nothing.
    fn finish(&mut self) {
        if let Err(error) = self.segment.file.sync() {
            tracing::warn!(%error, "the ledger's final mark could not be synced; all records are durable");
            return;
        }
        if self.index_failed {
            return;
        }
        let watermark = Position {
            segment: self.segment.sequence,
            offset: self.segment.length,
        };
        if let Err(error) = self.index.commit(&[], watermark) {
            tracing::warn!(%error, "the index's watermark could not be stored; the next start replays more of the log");
        }
    }
}
