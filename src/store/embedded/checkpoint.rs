//! Writing what has changed to disk, with the position in the log up to which it is complete.
//!
//! A checkpoint takes the changed entities a few at a time, so that reading and applying go on, and
//! writes the watermark last. One is made every half minute, after many changes, when asked for, and
//! at the end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{gauge, histogram};
use tokio::sync::oneshot;

use super::Inner;
use super::rows::{RowWrite, Writer};
use crate::store::StoreError;

/// Entities that are encoded while their shard is locked, and then written together.
const TAKEN_AT_ONCE: usize = 64;

/// How long the rows of before may take to make room.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long to wait after a checkpoint failed.
const PAUSE: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// When checkpoints are made.
pub struct Schedule {
    every: Duration,
    changes: u64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// So many changes wait that one is due.
    due: bool,
    /// Those who wait for the next one.
    requests: Vec<Reply>,
    closing: bool,
    /// Leave without the last one, as in a crash.
    #[cfg(test)]
    crash: bool,
}

impl Schedule {
    pub fn new(every: Duration, changes: u64) -> Schedule {
        Schedule {
            every,
            changes,
            state: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Says how many changes were applied since the last checkpoint.
    pub fn changes_waiting(&self, changes: u64) {
        if changes >= self.changes {
            self.lock().due = true;
            self.wake.notify_all();
        }
    }

    /// Asks for one that begins after this call.
    pub fn request(&self, reply: Reply) {
        self.lock().requests.push(reply);
        self.wake.notify_all();
    }

    /// Asks for the last one.
    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Ends without a checkpoint.
    #[cfg(test)]
    pub fn crash(&self) {
        self.lock().crash = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one is to be made. Returns who waits for it, and whether it is the last.
    fn wait(&self, at_most: Duration) -> (Vec<Reply>, bool) {
        let idle = |state: &mut State| !state.due && !state.closing && state.requests.is_empty();
        let waited = self.wake.wait_timeout_while(self.lock(), at_most, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.due = false;
        (std::mem::take(&mut state.requests), state.closing)
    }

    fn crashes(&self) -> bool {
        #[cfg(test)]
        return self.lock().crash;
        #[cfg(not(test))]
        false
    }
}

impl Inner {
    /// Makes checkpoints until the store is closed.
    pub fn make_checkpoints(&self) {
        let mut at_most = self.schedule.every;
        loop {
            let (requests, last) = self.schedule.wait(at_most);
            if last && self.schedule.crashes() {
                return;
            }
            let result = self.checkpoint();
            at_most = self.schedule.every;
            if let Err(error) = &result {
                tracing::error!(%error, "the online store could not be written; what has changed stays in memory and in the log");
                at_most = PAUSE;
            }
            for reply in requests {
                let result = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(StoreError::Io(error.to_string())),
                };
                // Nobody listens any more: no harm.
                let _ = reply.send(result);
            }
            if last {
                return;
            }
        }
    }

    /// Writes everything that was applied when the call began.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let started = Instant::now();
        let _one_at_a_time = self.checkpointing.lock();
        let (mark, nothing_new) = {
            let mut progress = self.progress();
            let filled = std::mem::take(&mut progress.filled);
            let nothing_new = progress.applied == progress.checkpointed && !filled;
            (progress.applied, nothing_new)
        };
        let usage = self.cache.usage();
        gauge!("bellwether_store_entities_cached").set(usage.entities as f64);
        gauge!("bellwether_store_cache_bytes").set(usage.bytes as f64);
        gauge!("bellwether_store_entities_dirty").set(usage.dirty as f64);
        gauge!("bellwether_store_event_ids_bytes").set(self.recent.bytes() as f64);
        if nothing_new {
            return Ok(());
        }
        let written = self.write_changed().and_then(|()| {
            // Now it is most.
            gauge!("bellwether_store_rows_bytes").set(self.rows.bytes() as f64);
            self.recent.sync()?;
            self.rows.commit(mark)
        });
        if written.is_err() {
            self.progress().filled = true;
        }
        written?;
        self.progress().checkpointed = mark;
        self.recent.checkpointed(mark.known_at_us);
        histogram!("bellwether_store_checkpoint_seconds").record(started.elapsed());
        Ok(())
    }

    fn write_changed(&self) -> Result<(), StoreError> {
        let mut taken: Vec<(usize, RowWrite)> = Vec::new();
        for shard in 0..self.cache.shards() {
            let mut from = Some(0);
            while let Some(place) = from {
                taken.clear();
                from = self
                    .cache
                    .lock(shard)
                    .take_dirty(place, TAKEN_AT_ONCE, &mut taken);
                if taken.is_empty() {
                    continue;
                }
                self.rows.wait_for_room(Writer::Checkpoint, LONGEST_WAIT);
                let written = self.rows.put_all(taken.iter().map(|(_, row)| row));
                let places = taken.iter().map(|(place, _)| *place);
                self.cache.lock(shard).written(places, written.is_ok());
                written?;
            }
        }
        Ok(())
    }
}
