//! New segments: the ordinary rotation of a full one, and the repair after the disk has failed.
//!
//! When a write fails, the same bytes are written again at the same offset until it works. When a
//! sync fails nothing is assumed about what the kernel still holds: everything since the last good
//! sync is written again, into a new segment, whose header says where the old one ends. Meanwhile
//! nothing is accepted.

use std::time::{Duration, Instant};

use super::super::frame::SEGMENT_HEADER_BYTES;
use super::super::index::Position;
use super::super::segment::create_segment;
use super::Writer;

/// First and longest pause between attempts to write to a failing disk.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// The disk does not do what it should; nothing is accepted until it does again.
pub(super) struct Trouble {
    pub(super) retry_at: Instant,
    pub(super) backoff: Duration,
    /// The current segment must not be written to any more.
    pub(super) needs_new_segment: bool,
}

impl Writer {
    /// Begins a new segment when the current one is large enough. Runs right after a sync, so that
    /// little is left to be synced here, where rows wait for it.
    pub(super) fn rotate_if_due(&mut self) {
        let due = self.segment.length >= self.options.segment_bytes;
        if !due || self.trouble.is_some() || !self.backlog.is_empty() {
            return;
        }
        if let Err(error) = self.segment.file.sync() {
            self.report_trouble("syncing a full segment failed", &error, true);
            return;
        }
        self.segment.synced = self.segment.length;
        if let Err(error) = self.move_to_new_segment() {
            // The new file may already have its name, so the old one must not grow any more.
            self.report_trouble("beginning a new segment failed", &error, true);
        }
    }

    /// Continues in a new segment that holds a copy of everything that is not known to be durable.
    /// When it returns `Ok`, everything encoded so far is durable.
    fn move_to_new_segment(&mut self) -> std::io::Result<()> {
        // In a healthy rotation the rows in `unsynced` are durable in the old segment already.
        let old_is_whole = self.segment.synced == self.segment.length;
        let skipped = if old_is_whole { self.unsynced.len() } else { 0 };
        let frames: Vec<&[u8]> = self
            .unsynced
            .iter()
            .skip(skipped)
            .chain(&self.backlog)
            .map(|chunk| chunk.bytes.as_slice())
            .collect();
        let (sequence, previous_length) = (self.segment.sequence + 1, self.segment.synced);
        self.segment = create_segment(
            &self.ledger_dir,
            sequence,
            previous_length,
            &frames,
            &self.options,
        )?;
        self.announced = SEGMENT_HEADER_BYTES as u64;
        self.dirty_since = None;

        let mut chunks = std::mem::take(&mut self.backlog);
        for chunk in &mut chunks {
            self.count_written(chunk);
            self.unsynced_bytes += chunk.bytes.len() as u64;
        }
        self.unsynced.append(&mut chunks);
        self.written_position = self.encoded_position;
        let entries = self.take_unsynced_entries();
        self.mark_durable(self.encoded_position);
        let watermark = Position {
            segment: self.segment.sequence,
            offset: self.segment.length,
        };
        let indexed = match self.index.commit(&entries, watermark) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "outcome ids could not be indexed; restart the server to rebuild the index");
                false
            }
        };
        self.settle_index(&entries, indexed, Some(watermark));
        Ok(())
    }

    /// Stops accepting rows and plans the next attempt.
    pub(super) fn report_trouble(
        &mut self,
        what: &str,
        error: &std::io::Error,
        needs_new_segment: bool,
    ) {
        metrics::counter!("bellwether_ledger_write_errors_total").increment(1);
        tracing::error!(file = %self.segment.path.display(), %error, "{what}; no rows are accepted until it works again");
        self.queue.set_available(false);
        let now = Instant::now();
        let (backoff, was_needed) = match &self.trouble {
            Some(trouble) => (
                (trouble.backoff * 2).min(LONGEST_BACKOFF),
                trouble.needs_new_segment,
            ),
            None => (FIRST_BACKOFF, false),
        };
        let needs_new_segment = needs_new_segment || was_needed;
        self.trouble = Some(Trouble {
            retry_at: now + backoff,
            backoff,
            needs_new_segment,
        });
    }

    /// Tries again what failed, when its time has come.
    pub(super) fn repair_if_due(&mut self) {
        // While a sync is under way it is not known from where on the log must be written again.
        let due = |trouble: &Trouble| Instant::now() >= trouble.retry_at;
        if self.in_flight.is_some() || !self.trouble.as_ref().is_some_and(due) {
            return;
        }
        let Some(trouble) = self.trouble.take() else {
            return;
        };
        if trouble.needs_new_segment {
            if let Err(error) = self.move_to_new_segment() {
                self.trouble = Some(trouble);
                self.report_trouble("rewriting unsynced records failed", &error, true);
            }
        } else {
            self.write_backlog();
            if let Some(again) = &mut self.trouble {
                again.backoff = (trouble.backoff * 2).min(LONGEST_BACKOFF);
                again.retry_at = Instant::now() + again.backoff;
            }
        }
        if self.trouble.is_none() {
            tracing::info!("the ledger's disk takes writes again");
            self.queue.set_available(!self.index_failed);
        }
    }

    /// Without the index a duplicate could not be told from a new outcome, so nothing more is
    /// accepted. A restart rebuilds it.
    pub(super) fn fail_index(&mut self) {
        self.index_failed = true;
        self.queue.set_available(false);
    }
}
