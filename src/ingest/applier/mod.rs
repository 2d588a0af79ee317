//! The thread that applies: everything that is in the log, in its order, as often as it takes.
//!
//! At start it applies what the store may not have, then what callers send. A store that is out of reach
//! is waited for, and so is a full disk once the server runs; anything else ends the thread, and with it
//! all acknowledgements. It numbers and logs nothing: see [`super::Ingest`].

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc as queue, oneshot};

use super::route::{Routed, route};
use super::{ACKNOWLEDGED_WITHIN, CurrentViews, StartError};
use crate::features::views::Views;
use crate::ledger::{LedgerError, read_changes};
use crate::store::entity::Applied;
use crate::store::{OnlineStore, StoreError};

/// The first and the longest pause before a store that failed is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A batch on its way from the ledger to the store.
pub(super) struct Pending {
    pub(super) routed: Routed,
    pub(super) views: Arc<Views>,
    pub(super) durable: oneshot::Receiver<u64>,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Vec<Applied>>,
}

/// What waits to be applied.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) batches: AtomicUsize,
    pub(super) bytes: AtomicUsize,
    /// The store's disk has failed for some time.
    pub(super) stuck: AtomicBool,
}

/// The one that applies.
pub(super) struct Applier {
    pub(super) store: Arc<dyn OnlineStore>,
    pub(super) views: CurrentViews,
    pub(super) waiting: Arc<Waiting>,
    /// Nobody waits for the store any more.
    pub(super) closing: Arc<AtomicBool>,
    pub(super) stuck_after: Duration,
}

impl Applier {
    /// Applies the batches that the store may not have. Says through `caught_up` when it is done, or
    /// that the store is out of reach, which it then waits for. Returns whether to go on.
    pub(super) async fn replay(
        &self,
        data_dir: &Path,
        caught_up: &mpsc::Sender<Result<(), StartError>>,
    ) -> bool {
        let started = Instant::now();
        let watermark = self.store.watermark();
        let views = self.views.load_full();
        let (batches, mut from_log) = queue::channel(4);
        let dir = data_dir.to_owned();
        // The log is read by another thread, so that this one can wait for the store.
        let reader = std::thread::spawn(move || {
            read_changes(&dir, watermark.segment, |batch| {
                let is_new = batch.sequence + batch.changes.len() as u64 > watermark.sequence;
                if is_new {
                    // Fails only when nobody applies any more; reading on does no harm.
                    let _ = batches.blocking_send(batch);
                }
                Ok::<(), LedgerError>(())
            })
        });
        let mut replayed = 0_u64;
        while let Some(batch) = from_log.recv().await {
            replayed += batch.changes.len() as u64;
            let segment = batch.segment;
            let mut routed = route(&views, batch.changes);
            routed.number(batch.sequence, batch.known_at_us);
            if let Err(error) = self.apply(&routed, segment, Some(caught_up)).await {
                give_up(caught_up, error.into());
                return false;
            }
        }
        let read = reader.join().unwrap_or_else(|_| {
            let path = data_dir.to_owned();
            let source = std::io::Error::other("the thread that reads it has panicked");
            let action = "reading the ledger";
            Err(LedgerError::Io {
                path,
                action,
                source,
            })
        });
        if let Err(error) = read {
            give_up(caught_up, error.into());
            return false;
        }
        if replayed > 0 {
            tracing::info!(
                changes = replayed,
                seconds = started.elapsed().as_secs_f64(),
                "changes of the log were applied to the online store"
            );
        }
        metrics::counter!("bellwether_changes_replayed_total").increment(replayed);
        // The receiver is gone when it was told before that the store is out of reach.
        let _ = caught_up.send(Ok(()));
        true
    }

    /// Applies what callers send, until they are gone; then has the store write everything down.
    pub(super) async fn run(&self, from_callers: &mut queue::UnboundedReceiver<Pending>) {
        while let Some(pending) = from_callers.recv().await {
            let Pending {
                mut routed,
                views,
                durable,
                bytes,
                reply,
            } = pending;
            let Some(segment) = self.when_durable(durable).await else {
                // It was not acknowledged, and nothing that comes later will be.
                tracing::error!("changes were not logged to the end; none are applied any more");
                return;
            };
            let current = self.views.load_full();
            if !Arc::ptr_eq(&views, &current) {
                routed = routed.again(&current);
            }
            match self.apply(&routed, segment, None).await {
                // A caller that has left is no error: its changes are applied all the same.
                Ok(applied) => drop(reply.send(applied)),
                Err(error) => {
                    tracing::error!(%error, "changes of the log cannot be applied; restart the server when the store is mended");
                    return;
                }
            }
            self.waiting.batches.fetch_sub(1, Ordering::Relaxed);
            self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if let Err(error) = self.store.checkpoint().await {
            tracing::warn!(%error, "the online store could not be written to the end; the next start applies more of the log");
        }
    }

    /// The segment of a batch once it is durable; `None` if the ledger ended before that, or could not
    /// write it for some time after the end was asked for.
    async fn when_durable(&self, mut durable: oneshot::Receiver<u64>) -> Option<u64> {
        let mut closing_since = None;
        loop {
            match tokio::time::timeout(LONGEST_PAUSE, &mut durable).await {
                Ok(segment) => return segment.ok(),
                Err(_) if self.closing.load(Ordering::Relaxed) => {
                    let since: &mut Instant = closing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > ACKNOWLEDGED_WITHIN {
                        return None;
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Applies a batch, as often as it takes while the store is out of reach.
    async fn apply(
        &self,
        routed: &Routed,
        segment: u64,
        caught_up: Option<&mpsc::Sender<Result<(), StartError>>>,
    ) -> Result<Vec<Applied>, StoreError> {
        let mut pause = FIRST_PAUSE;
        let begun = Instant::now();
        loop {
            match self.store.apply(&routed.as_batch(segment)).await {
                Ok(applied) => {
                    self.waiting.stuck.store(false, Ordering::Relaxed);
                    return Ok(routed.per_change(&applied));
                }
                // At start a store that cannot be written is an error. Later it is tried again: what was
                // applied of the batch is not applied twice.
                Err(error)
                    if (error.may_pass() || caught_up.is_none() && error.is_of_the_disk())
                        && !self.closing.load(Ordering::Relaxed) =>
                {
                    if pause == FIRST_PAUSE {
                        tracing::warn!(%error, "changes wait for the online store");
                    }
                    if let Some(caught_up) = caught_up {
                        // The server starts meanwhile; what it answers without a store is configured.
                        let _ = caught_up.send(Ok(()));
                    }
                    // Without a shared store a server is still of use; without a disk it is not.
                    let is_stuck = error.is_of_the_disk() && begun.elapsed() > self.stuck_after;
                    self.waiting.stuck.store(is_stuck, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Says that what is in the log cannot be applied: to who starts the server, or, when it serves already,
/// in its log.
fn give_up(caught_up: &mpsc::Sender<Result<(), StartError>>, error: StartError) {
    if let Err(mpsc::SendError(Err(error))) = caught_up.send(Err(error)) {
        tracing::error!(%error, "changes of the log cannot be applied; restart the server when this is mended");
    }
}
