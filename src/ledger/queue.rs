//! The bounded queue between the callers and the writer thread.
//!
//! A prediction costs its caller one uncontended lock and a push. The writer is woken for it only
//! when it sleeps for want of work; while there is traffic it looks into the queue every few
//! milliseconds by itself. An outcome wakes the writer at once, because someone waits for it.
//!
//! When the queue is at its bound of rows or bytes, or the disk does not take writes, the row is
//! refused. Rows count against the bound until they are in the file, not just until the writer has
//! taken them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{AppendError, OutcomeError};
use super::handle::Receipt;
use super::index::IndexEntry;
use super::record::{Outcome, Prediction};

/// Predictions for which room is made ahead.
const ROOM_KEPT: usize = 4096;

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
    /// Predictions in the order of arrival.
    pub predictions: Vec<Prediction>,
    /// Their part of the queue's bytes.
    pub prediction_bytes: usize,
    /// Outcomes in the order of arrival.
    pub outcomes: Vec<QueuedOutcome>,
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
    /// A prediction, too, is a reason to return early.
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
    predictions: Vec<Prediction>,
    /// Since when the first of them waits.
    oldest: Option<Instant>,
    /// A caller took predictions: the writer has to plan anew.
    helped: bool,
    prediction_bytes: usize,
    outcomes: Vec<QueuedOutcome>,
    sync: Option<SyncReport>,
    /// Rows and bytes that are accepted and not yet in the file.
    waiting_rows: usize,
    waiting_bytes: usize,
    available: bool,
    closing: bool,
    /// The writer sleeps without a time limit shorter than the linger and wants to be woken for a
    /// prediction.
    writer_idle: bool,
}

impl State {
    /// The waiting predictions and their bytes.
    fn take_predictions(&mut self) -> (Vec<Prediction>, usize) {
        // The next rows find as much room as these took, so that a caller seldom has to grow the Vec.
        let room = self.predictions.len().min(ROOM_KEPT);
        let predictions = std::mem::replace(&mut self.predictions, Vec::with_capacity(room));
        self.oldest = None;
        (predictions, std::mem::take(&mut self.prediction_bytes))
    }
}

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    wake_writer: Condvar,
    max_rows: usize,
    max_bytes: usize,
    late_after: Duration,
}

impl Queue {
    /// An empty queue with these bounds, whose predictions should be taken within `late_after`.
    pub fn new(max_rows: usize, max_bytes: usize, late_after: Duration) -> Queue {
        let state = State {
            predictions: Vec::new(),
            oldest: None,
            helped: false,
            prediction_bytes: 0,
            outcomes: Vec::new(),
            sync: None,
            waiting_rows: 0,
            waiting_bytes: 0,
            available: true,
            closing: false,
            writer_idle: false,
        };
        Queue {
            state: Mutex::new(state),
            wake_writer: Condvar::new(),
            max_rows,
            max_bytes,
            late_after,
        }
    }

    /// A panic elsewhere cannot leave the state half changed (every change is a few assignments),
    /// so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a prediction that takes `bytes` of memory. Returns whether predictions have waited so
    /// long that the caller should write them itself.
    pub fn push_prediction(
        &self,
        prediction: Prediction,
        bytes: usize,
    ) -> Result<bool, AppendError> {
        let now = Instant::now();
        let mut state = self.lock();
        self.admit(&mut state, bytes)?;
        state.predictions.push(prediction);
        state.prediction_bytes += bytes;
        let oldest = *state.oldest.get_or_insert(now);
        let wake = std::mem::take(&mut state.writer_idle);
        drop(state);
        if wake {
            self.wake_writer.notify_one();
        }
        Ok(now.saturating_duration_since(oldest) > self.late_after)
    }

    /// Takes the predictions on behalf of a writer that is late, unless it has just taken them.
    pub fn take_late_predictions(&self) -> (Vec<Prediction>, usize) {
        let mut state = self.lock();
        if state
            .oldest
            .is_none_or(|oldest| oldest.elapsed() <= self.late_after)
        {
            return (Vec::new(), 0);
        }
        state.helped = true;
        state.take_predictions()
    }

    /// Adds an outcome and wakes the writer.
    pub fn push_outcome(&self, queued: QueuedOutcome) -> Result<(), AppendError> {
        let mut state = self.lock();
        self.admit(&mut state, queued.bytes)?;
        state.outcomes.push(queued);
        state.writer_idle = false;
        drop(state);
        self.wake_writer.notify_one();
        Ok(())
    }

    /// Counts one row of `bytes` against the bounds, or says why it cannot be taken.
    fn admit(&self, state: &mut State, bytes: usize) -> Result<(), AppendError> {
        if state.closing {
            return Err(AppendError::Closed);
        }
        if !state.available {
            return Err(AppendError::Unavailable);
        }
        // A single row larger than the byte bound is let into an empty queue; its own size is
        // bounded elsewhere.
        let over_bytes = state.waiting_bytes + bytes > self.max_bytes && state.waiting_rows > 0;
        if state.waiting_rows >= self.max_rows || over_bytes {
            return Err(AppendError::Full {
                rows: state.waiting_rows,
                bytes: state.waiting_bytes,
            });
        }
        state.waiting_rows += 1;
        state.waiting_bytes += bytes;
        Ok(())
    }

    /// Rows that are accepted and not yet in the file.
    pub fn depth(&self) -> usize {
        self.lock().waiting_rows
    }

    /// Whether rows are being taken.
    pub fn available(&self) -> bool {
        let state = self.lock();
        state.available && !state.closing
    }

    /// Says whether the disk takes writes.
    pub fn set_available(&self, available: bool) {
        self.lock().available = available;
    }

    /// Refuses further rows and lets the writer finish.
    pub fn close(&self) {
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
        let mut state = self.lock();
        state.waiting_rows = state.waiting_rows.saturating_sub(rows);
        state.waiting_bytes = state.waiting_bytes.saturating_sub(bytes);
    }

    /// Waits for something to do. Called by the writer thread only, which then takes it under its
    /// own lock: what it has not taken yet, a caller can still write for it.
    ///
    /// Besides what [`Wait`] says it returns at once for an outcome, a finished sync, the first
    /// sight of closing, and after a caller has helped.
    pub fn wait(&self, how: Wait) {
        let mut state = self.lock();
        loop {
            let urgent = state.sync.is_some()
                || state.helped
                || (state.closing && !how.closing_seen)
                || (how.take_rows && !state.outcomes.is_empty())
                || (how.take_rows && how.idle && !state.predictions.is_empty());
            let left = how
                .until
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if urgent || left == Some(Duration::ZERO) {
                break;
            }
            state.writer_idle = how.idle && how.take_rows;
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
        state.writer_idle = false;
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
            (taken.predictions, taken.prediction_bytes) = state.take_predictions();
            taken.outcomes = std::mem::take(&mut state.outcomes);
        }
        taken
    }

    /// Whether rows lie in the queue that the writer has not taken.
    pub fn has_rows(&self) -> bool {
        let state = self.lock();
        !state.predictions.is_empty() || !state.outcomes.is_empty()
    }
}
