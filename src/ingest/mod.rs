//! Changes on their way in: checked, numbered, logged, applied, acknowledged.
//!
//! Whatever a change comes from (a request, a broker, a file), it passes here: [`Ingest::submit`]
//! numbers it, has the ledger log it, and resolves when it is durable *and* in the online store. One
//! thread, the applier, applies everything in the order of the log, so that the store is a function of
//! the log: after a crash [`Ingest::start`] applies what the store has not kept, and ends where an
//! uninterrupted server would be.
//!
//! * [`event`] – reading events in the forms they are sent in.
//! * [`rows`] – reading rows of features.
//! * [`documents`] – bodies with one JSON document or many.
//! * [`take`] – taking events that were read: log, store, metrics.
//! * [`route`] – from changes to the entities that they concern.
//! * [`source`] – brokers that events come from; [`nats`] is one, [`runner`] works them off, [`sources`]
//!   starts and stops them.
//! * [`message`] – from a broker's message to events; [`dead_letters`] keeps those that are none.
//!
//! ## Promises
//!
//! * What was acknowledged is in the log on disk and in the store; it survives `kill -9` and power cuts.
//! * What was not acknowledged may have been applied all the same. Sending it again is safe: events
//!   are recognised by their id, and an update that is applied twice leaves what it left.
//! * Changes are learned one after the other: the time that a batch is known at never goes back.
//! * While the store cannot be reached the applier waits for it, and callers get an error after
//!   [`ACKNOWLEDGED_WITHIN`]; at most [`MAX_WAITING`] batches wait, further ones are refused.

#[cfg(test)]
mod applier_tests;
pub mod dead_letters;
pub mod documents;
pub mod event;
pub mod message;
pub mod nats;
pub mod route;
pub mod rows;
pub mod runner;
pub mod source;
pub mod sources;
pub mod take;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc as queue, oneshot};

use self::route::{Routed, route};
use crate::clock;
use crate::features::change::Change;
use crate::features::views::Views;
use crate::ledger::{AppendError, EncodedChanges, Ledger, LedgerError, read_changes};
use crate::store::entity::Applied;
use crate::store::{OnlineStore, StoreError, Watermark};

/// How long a caller waits for its changes to be durable and applied.
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// How many batches may wait to be applied.
pub const MAX_WAITING: usize = 256;

/// How many bytes of encoded changes may wait to be applied. Decoded they take a few times that.
pub const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;

/// How long the disk under the store may fail before the server says that it is not ready.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The first and the longest pause before a store that failed is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The views that are in force, which a running server can replace.
pub type CurrentViews = Arc<ArcSwap<Views>>;

/// The way into the online store.
pub struct Ingest {
    views: CurrentViews,
    ledger: Arc<Ledger>,
    order: Mutex<Order>,
    waiting: Arc<Waiting>,
    closing: Arc<AtomicBool>,
    applier: Mutex<Option<JoinHandle<()>>>,
}

/// What makes the order: held while a batch is numbered and handed to the ledger and the applier.
struct Order {
    /// The number of the next change.
    next: u64,
    /// When the last batch was learned.
    known_at_us: i64,
    /// `None` once closed.
    to_applier: Option<queue::UnboundedSender<Pending>>,
}

/// A batch on its way from the ledger to the store.
struct Pending {
    routed: Routed,
    views: Arc<Views>,
    durable: oneshot::Receiver<u64>,
    bytes: usize,
    reply: oneshot::Sender<Vec<Applied>>,
}

/// What waits to be applied.
#[derive(Default)]
struct Waiting {
    batches: AtomicUsize,
    bytes: AtomicUsize,
    /// The store's disk has failed for some time.
    stuck: AtomicBool,
}

/// Why a batch of changes was not acknowledged. Sending it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("the changes cannot be logged now: {0}; try again shortly")]
    Log(#[from] AppendError),
    #[error("{waiting} batches of changes wait to be applied already; try again shortly")]
    Busy { waiting: usize },
    #[error(
        "the changes were not acknowledged within {} s; sending them again is safe",
        ACKNOWLEDGED_WITHIN.as_secs()
    )]
    Unconfirmed,
}

/// Why changes in the log could not be applied at start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start the thread that applies changes: {0}")]
    Thread(#[from] std::io::Error),
}

impl Ingest {
    /// Applies what is in the log and not in the store, then takes changes. Blocks meanwhile. A store
    /// that cannot be reached is no error: it is tried again for as long as it takes, and what the log
    /// has is applied first then.
    ///
    /// # Errors
    /// A log that cannot be read, or a store that cannot be written for another reason than being out
    /// of reach.
    pub fn start(
        views: CurrentViews,
        ledger: Arc<Ledger>,
        store: Arc<dyn OnlineStore>,
        data_dir: PathBuf,
    ) -> Result<Ingest, StartError> {
        Ingest::start_with(views, ledger, store, data_dir, STUCK_AFTER)
    }

    /// Not ready when the disk under the store has failed for `stuck_after`.
    fn start_with(
        views: CurrentViews,
        ledger: Arc<Ledger>,
        store: Arc<dyn OnlineStore>,
        data_dir: PathBuf,
        stuck_after: Duration,
    ) -> Result<Ingest, StartError> {
        let end = end_of_log(&data_dir, store.watermark())?;
        let (to_applier, mut from_callers) = queue::unbounded_channel();
        let (caught_up, is_caught_up) = mpsc::channel();
        let waiting = Arc::new(Waiting::default());
        let closing = Arc::new(AtomicBool::new(false));
        let applier = Applier {
            store,
            views: Arc::clone(&views),
            waiting: Arc::clone(&waiting),
            closing: Arc::clone(&closing),
            stuck_after,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("apply".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    if applier.replay(&data_dir, &caught_up).await {
                        applier.run(&mut from_callers).await;
                    }
                });
            })?;
        // Ends without a word only if the thread did, whose panic has been reported.
        if let Ok(Err(error)) = is_caught_up.recv() {
            return Err(error);
        }
        Ok(Ingest {
            views,
            ledger,
            order: Mutex::new(Order {
                next: end.next,
                known_at_us: end.known_at_us,
                to_applier: Some(to_applier),
            }),
            waiting,
            closing,
            applier: Mutex::new(Some(thread)),
        })
    }

    /// Logs and applies `changes`, in order, and says what became of each: of one that concerns several
    /// entities, the first thing that is not [`Applied::Done`].
    ///
    /// # Errors
    /// When they could not be logged, or were not applied in time.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<Vec<Applied>, IngestError> {
        self.submit_known_at(changes, clock::now_us()).await
    }

    /// [`Ingest::submit`] for changes that are learned at `known_at_us`, or, if that is later, when the
    /// last batch was.
    ///
    /// # Errors
    /// As [`Ingest::submit`].
    pub async fn submit_known_at(
        &self,
        changes: Vec<Change>,
        known_at_us: i64,
    ) -> Result<Vec<Applied>, IngestError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.enqueue(changes, known_at_us)?;
        match tokio::time::timeout(ACKNOWLEDGED_WITHIN, answer).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(_)) | Err(_) => Err(IngestError::Unconfirmed),
        }
    }

    fn enqueue(
        &self,
        changes: Vec<Change>,
        known_at_us: i64,
    ) -> Result<oneshot::Receiver<Vec<Applied>>, IngestError> {
        // What takes time is done before the order is made.
        let encoded = EncodedChanges::new(&changes)?;
        let bytes = encoded.list_bytes();
        let count = changes.len() as u64;
        let views = self.views.load_full();
        let mut routed = route(&views, changes);
        let (reply, answer) = oneshot::channel();

        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let Order {
            next,
            known_at_us: last_known_at_us,
            to_applier: Some(to_applier),
        } = &mut *order
        else {
            return Err(IngestError::Log(AppendError::Closed));
        };
        let waiting = self.waiting.batches.load(Ordering::Relaxed);
        let waiting_bytes = self.waiting.bytes.load(Ordering::Relaxed);
        let has_room = waiting_bytes + bytes <= MAX_WAITING_BYTES || waiting == 0;
        if waiting >= MAX_WAITING || !has_room {
            return Err(IngestError::Busy { waiting });
        }
        let known_at_us = known_at_us.max(*last_known_at_us);
        let durable = self.ledger.submit_changes(encoded, *next, known_at_us)?;
        routed.number(*next, known_at_us);
        *next += count;
        *last_known_at_us = known_at_us;
        self.waiting.batches.fetch_add(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let pending = Pending {
            routed,
            views,
            durable,
            bytes,
            reply,
        };
        // Fails only if the applier has ended; the reply is dropped then and its caller told.
        let _ = to_applier.send(pending);
        Ok(answer)
    }

    /// The views that are in force.
    pub fn views(&self) -> Arc<Views> {
        self.views.load_full()
    }

    /// How many batches wait to be applied.
    pub fn waiting(&self) -> usize {
        self.waiting.batches.load(Ordering::Relaxed)
    }

    /// Whether changes are being applied. When not, none are acknowledged until the server is started
    /// again; the log says why.
    pub fn healthy(&self) -> bool {
        let applier = self.applier.lock().unwrap_or_else(PoisonError::into_inner);
        let is_applying = applier.as_ref().is_some_and(|thread| !thread.is_finished());
        is_applying && !self.waiting.stuck.load(Ordering::Relaxed)
    }

    /// Takes no more changes, applies what was taken, and has the store write everything down. Blocks. A
    /// store that is out of reach is not waited for: the next start applies what it lacks.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        drop(order.to_applier.take());
        drop(order);
        let mut applier = self.applier.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = applier.take() {
            // A panic there has been reported by the panic handler.
            let _ = thread.join();
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.close();
    }
}

/// Where the log ends.
struct End {
    next: u64,
    known_at_us: i64,
}

fn end_of_log(data_dir: &std::path::Path, watermark: Watermark) -> Result<End, LedgerError> {
    let mut end = End {
        next: watermark.sequence.max(1),
        known_at_us: i64::MIN,
    };
    read_changes(data_dir, watermark.segment, |batch| {
        end.next = end.next.max(batch.sequence + batch.changes.len() as u64);
        end.known_at_us = end.known_at_us.max(batch.known_at_us);
        Ok::<(), LedgerError>(())
    })?;
    Ok(end)
}

/// The one that applies.
struct Applier {
    store: Arc<dyn OnlineStore>,
    views: CurrentViews,
    waiting: Arc<Waiting>,
    /// Nobody waits for the store any more.
    closing: Arc<AtomicBool>,
    stuck_after: Duration,
}

impl Applier {
    /// Applies the batches that the store may not have. Says through `caught_up` when it is done, or
    /// that the store is out of reach, which it then waits for. Returns whether to go on.
    async fn replay(
        &self,
        data_dir: &std::path::Path,
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
    async fn run(&self, from_callers: &mut queue::UnboundedReceiver<Pending>) {
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
