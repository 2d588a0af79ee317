//! The bounded queue between the callers and the writer thread.
//!
//! Rows of predictions and inferences come from the hot path as finished frames and wait in the
//! shard of their thread ([`super::shards`]), which costs their caller one lock of its own and a copy.
//! The writer is woken for them only when it sleeps for want of work, which one look at a flag tells;
//! while there is traffic it looks into the queue every few milliseconds by itself. Outcomes and changes, the
//! results of syncs and everything about waiting are under one shared lock, which a row takes only to
//! wake the writer. An outcome and a batch of changes wake it at once, because someone waits for them.
//!
//! When the queue is at its bound of rows or bytes, or the disk does not take writes, the row is
//! refused. Rows count against the bound until they are in the file, not just until the writer has
//! taken them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{AppendError, OutcomeError};
use super::handle::Receipt;
use super::index::IndexEntry;
use super::record::Outcome;
use super::shards::Shards;

/// How an outcome's caller is answered.
pub type OutcomeReply = oneshot::Sender<Result<Receipt, OutcomeError>>;

/// An outcome with the caller that waits for it.
pub struct QueuedOutcome {
    /// The record.
    pub outcome: Outcome,
    /// Its part of the queue's bytes.
    pub bytes: usize,
    /// Where the answer goes.
    pub reply: OutcomeReply,
}

/// A batch of changes or an audit row, with the caller that waits for it to be durable.
pub struct QueuedFrame {
    /// The finished frame, but for what the segment decides.
    pub frame: Vec<u8>,
    /// Where the segment's number goes once it is durable.
    pub reply: oneshot::Sender<u64>,
}

/// What the syncing thread reports.
pub struct SyncReport {
    /// Whether everything written when the sync was asked for is durable now.
    pub result: std::io::Result<()>,
    /// The ids that were to be added to the index.
    pub entries: Vec<IndexEntry>,
    /// Whether they are in the index.
    pub indexed: bool,
}

/// What the writer takes out in one go.
#[derive(Default)]
pub struct Taken {
    /// Frames of predictions and inferences, those of each thread in the order of arrival.
    pub rows: Vec<Vec<u8>>,
    /// Outcomes in the order of arrival.
    pub outcomes: Vec<QueuedOutcome>,
    /// Batches of changes and audit rows in the order of arrival.
    pub awaited: Vec<QueuedFrame>,
    /// A finished sync.
    pub sync: Option<SyncReport>,
    /// True once the ledger is being closed.
    pub closing: bool,
}

/// How the writer waits. The default looks once and returns at once.
#[derive(Clone, Copy)]
pub struct Wait {
    /// Return at this time at the latest; `None` is no limit.
    pub until: Option<Instant>,
    /// A prediction or an inference, too, is a reason to return early.
    pub idle: bool,
    /// Whether rows are wanted. While the disk does not take writes they stay in the queue, which
    /// then fills and refuses.
    pub take_rows: bool,
    /// The writer knows that the ledger is being closed.
    pub closing_seen: bool,
}

impl Default for Wait {
    fn default() -> Self {
        Wait {
            until: Some(Instant::now()),
            idle: true,
            take_rows: true,
            closing_seen: false,
        }
    }
}

struct State {
    /// A caller took rows: the writer has to plan anew.
    helped: bool,
    outcomes: Vec<QueuedOutcome>,
    awaited: Vec<QueuedFrame>,
    sync: Option<SyncReport>,
    closing: bool,
}

/// The queue.
pub struct Queue {
    rows: Shards,
    state: Mutex<State>,
    wake_writer: Condvar,
    /// The writer sleeps without a time limit shorter than the linger and wants to be woken for a
    /// row. Changed under the lock only.
    writer_idle: AtomicBool,
    late_after: Duration,
}

impl Queue {
    /// An empty queue with these bounds, whose rows should be taken within `late_after`.
    pub fn new(max_rows: usize, max_bytes: usize, late_after: Duration) -> Queue {
        Queue {
            rows: Shards::new(max_rows, max_bytes),
            state: Mutex::new(State {
                helped: false,
                outcomes: Vec::new(),
                awaited: Vec::new(),
                sync: None,
                closing: false,
            }),
            wake_writer: Condvar::new(),
            writer_idle: AtomicBool::new(false),
            late_after,
        }
    }

    /// A panic elsewhere cannot leave the state half changed (every change is a few assignments),
    /// so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the frame of a prediction or an inference. Returns whether rows have waited so long that
    /// the caller should write them itself.
    pub fn push_row(&self, frame: &[u8]) -> Result<bool, AppendError> {
        let waited = self.rows.push(frame)?;
        // No wake-up is missed: the writer sets the flag first and looks into every shard then. If
        // it did not see this row, it looked into this shard before the row was pushed, and setting
        // the flag came before that: the shard's lock makes it visible here.
        if self.writer_idle.load(Ordering::Relaxed) {
            self.wake_idle_writer();
        }
        Ok(waited > self.late_after)
    }

    /// Kept out of the way of the many rows that wake nobody.
    #[cold]
    fn wake_idle_writer(&self) {
        // The writer holds the lock from setting the flag until it sleeps.
        let state = self.lock();
        let wake = self.writer_idle.swap(false, Ordering::Relaxed);
        drop(state);
        if wake {
            self.wake_writer.notify_one();
        }
    }

    /// Takes the rows on behalf of a writer that is late, unless it has just taken them.
    pub fn take_late_rows(&self) -> Vec<Vec<u8>> {
        if self.rows.waited_here() <= self.late_after {
            return Vec::new();
        }
        self.lock().helped = true;
        self.rows.take()
    }

    /// Adds an outcome and wakes the writer.
    pub fn push_outcome(&self, queued: QueuedOutcome) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closing {
            return Err(AppendError::Closed);
        }
        self.rows.admit(queued.bytes)?;
        state.outcomes.push(queued);
        drop(state);
        self.wake_writer.notify_one();
        Ok(())
    }

    /// Adds a frame that someone waits for, and wakes the writer.
    pub fn push_awaited(&self, queued: QueuedFrame) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closing {
            return Err(AppendError::Closed);
        }
        self.rows.admit(queued.frame.len())?;
        state.awaited.push(queued);
        drop(state);
        self.wake_writer.notify_one();
        Ok(())
    }

    /// Rows that are accepted and not yet in the file.
    pub fn depth(&self) -> usize {
        self.rows.depth()
    }

    /// Whether rows are being taken.
    pub fn available(&self) -> bool {
        self.rows.available() && !self.lock().closing
    }

    /// Says whether the disk takes writes.
    pub fn set_available(&self, available: bool) {
        self.rows.set_available(available);
    }

    /// Refuses further rows and lets the writer finish.
    pub fn close(&self) {
        // In this order: once the writer sees that it is to finish, every accepted row is in place.
        self.rows.close();
        self.lock().closing = true;
        self.wake_writer.notify_one();
    }

    /// Hands the writer the result of a sync.
    pub fn post_sync(&self, report: SyncReport) {
        self.lock().sync = Some(report);
        self.wake_writer.notify_one();
    }

    /// Takes rows off the count once they are in the file (or need not go there).
    pub fn release(&self, rows: usize, bytes: usize) {
        self.rows.release(rows, bytes);
    }

    /// Waits for something to do. Called by the writer thread only, which then takes it under its
    /// own lock: what it has not taken yet, a caller can still write for it.
    ///
    /// Besides what [`Wait`] says it returns at once for an outcome, a finished sync, the first
    /// sight of closing, and after a caller has helped.
    pub fn wait(&self, how: Wait) {
        let mut state = self.lock();
        let wakes_for_rows = how.idle && how.take_rows;
        loop {
            // Before the look into the shards; see `push_row`.
            self.writer_idle.store(wakes_for_rows, Ordering::Relaxed);
            let urgent = state.sync.is_some()
                || state.helped
                || (state.closing && !how.closing_seen)
                || (how.take_rows && !(state.outcomes.is_empty() && state.awaited.is_empty()))
                || (wakes_for_rows && !self.rows.is_empty());
            let left = how
                .until
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if urgent || left == Some(Duration::ZERO) {
                break;
            }
            state = match left {
                Some(time) => {
                    self.wake_writer
                        .wait_timeout(state, time)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .wake_writer
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        self.writer_idle.store(false, Ordering::Relaxed);
        state.helped = false;
    }

    /// Takes what there is: rows only where `rows` says so.
    pub fn take(&self, rows: bool) -> Taken {
        let mut state = self.lock();
        let mut taken = Taken {
            sync: state.sync.take(),
            closing: state.closing,
            ..Taken::default()
        };
        if rows {
            taken.outcomes = std::mem::take(&mut state.outcomes);
            taken.awaited = std::mem::take(&mut state.awaited);
        }
        drop(state);
        if rows {
            // After the outcomes, so that what was answered before an outcome is written before it.
            taken.rows = self.rows.take();
        }
        taken
    }

    /// Whether rows lie in the queue that the writer has not taken.
    pub fn has_rows(&self) -> bool {
        let state = self.lock();
        let someone_waits = !(state.outcomes.is_empty() && state.awaited.is_empty());
        drop(state);
        someone_waits || !self.rows.is_empty()
    }
}
