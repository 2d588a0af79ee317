//! Syncs: when one is asked for, and whom it answers when it is done.
//!
//! One sync is under way at a time. Everybody who waits for what it covers is answered by it, which is how
//! outcomes share syncs; what is written meanwhile waits for the next one.

use std::sync::Arc;
use std::time::Instant;

use super::Writer;
use crate::ledger::frame::push_mark;
use crate::ledger::index::{IndexEntry, Position};
use crate::ledger::queue::SyncReport;
use crate::ledger::syncer::SyncRequest;

/// Written bytes that are synced without waiting for the interval.
const SYNC_AT_BYTES: u64 = 8 * 1024 * 1024;
/// How much log may lie behind the index's watermark when there are no outcomes to move it.
const WATERMARK_STEP_BYTES: u64 = 8 * 1024 * 1024;

/// The sync that is under way.
pub(super) struct InFlight {
    /// What will be durable, as a position and as a length of the segment.
    pub(super) position: u64,
    pub(super) length: u64,
    pub(super) requested_at: Instant,
    pub(super) watermark: Option<Position>,
}

impl Writer {
    /// Asks for a sync when someone waits for it, when written rows have waited long enough, or
    /// when there are many.
    pub(super) fn start_sync_if_due(&mut self) {
        let blocked = self
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.needs_new_segment);
        if blocked || self.in_flight.is_some() || self.written_position == self.synced_position {
            return;
        }
        let someone_waits = self
            .waiters
            .iter()
            .any(|waiter| waiter.position <= self.written_position);
        let waited_long = self
            .dirty_since
            .is_some_and(|since| since.elapsed() >= self.options.sync_interval);
        let due = someone_waits
            || waited_long
            || self.unsynced_bytes >= SYNC_AT_BYTES
            || self.closing_since.is_some();
        if !due {
            return;
        }
        let entries = self.take_unsynced_entries();
        let reached = Position {
            segment: self.segment.sequence,
            offset: self.segment.length,
        };
        let far = reached.segment != self.watermark.segment
            || reached.offset - self.watermark.offset >= WATERMARK_STEP_BYTES;
        let watermark = (!entries.is_empty() || far).then_some(reached);
        self.in_flight = Some(InFlight {
            position: self.written_position,
            length: self.segment.length,
            requested_at: Instant::now(),
            watermark,
        });
        self.effects.sync_request = Some(SyncRequest {
            file: Arc::clone(&self.segment.file),
            entries,
            watermark,
        });
    }

    pub(super) fn take_unsynced_entries(&mut self) -> Vec<IndexEntry> {
        let mut entries = std::mem::take(&mut self.returned_entries);
        for chunk in &mut self.unsynced {
            entries.append(&mut chunk.entries);
        }
        entries
    }

    /// Takes note of a finished sync: answers callers, or prepares the repair.
    pub(super) fn finish_sync(&mut self, report: SyncReport) {
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        if let Err(error) = report.result {
            self.returned_entries.extend(report.entries);
            self.report_trouble("syncing the ledger failed", &error, true);
            return;
        }
        self.segment.synced = in_flight.length;
        self.mark_durable(in_flight.position);
        self.settle_index(&report.entries, report.indexed, in_flight.watermark);
        let behind = self.written_position > self.synced_position;
        self.dirty_since = behind.then_some(in_flight.requested_at);
        self.rotate_if_due();
    }

    /// Everything up to `position` is durable: let go of it and answer those who waited for it.
    pub(super) fn mark_durable(&mut self, position: u64) {
        self.synced_position = position;
        while self
            .unsynced
            .front()
            .is_some_and(|chunk| chunk.end <= position)
        {
            if let Some(chunk) = self.unsynced.pop_front() {
                self.unsynced_bytes -= chunk.bytes.len() as u64;
            }
        }
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            if waiter.position <= position {
                self.effects.answers.push(waiter.answer);
            } else {
                self.waiters.push(waiter);
            }
        }
    }

    /// Ids that the index knows need not be kept here any more.
    pub(super) fn settle_index(
        &mut self,
        entries: &[IndexEntry],
        indexed: bool,
        watermark: Option<Position>,
    ) {
        if !indexed {
            self.fail_index();
            return;
        }
        for (outcome_id, _) in entries {
            self.pending.remove(outcome_id);
        }
        if let Some(position) = watermark {
            self.watermark = position;
        }
    }

    /// Writes a mark when everything is durable and no frame says so yet, so that later damage is
    /// known for what it is. The mark itself needs no sync.
    pub(super) fn announce_if_quiet(&mut self) {
        let quiet = self.backlog.is_empty() && self.in_flight.is_none() && self.trouble.is_none();
        let all_durable = self.written_position == self.synced_position;
        if !quiet || !all_durable || self.announced >= self.segment.synced || self.queue.has_rows()
        {
            return;
        }
        let mut mark = Vec::new();
        push_mark(&mut mark, self.segment.seed, self.segment.synced);
        self.announced = self.segment.synced;
        match self.segment.file.write_at(self.segment.length, &mark) {
            Ok(()) => self.segment.length += mark.len() as u64,
            // Nothing is lost without it, and the next write overwrites what there is of it.
            Err(error) => tracing::warn!(%error, "a mark could not be written to the ledger"),
        }
    }
}
