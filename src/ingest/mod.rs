//! Changes on their way in: checked, numbered, logged, applied, acknowledged.
//!
//! Whatever a change comes from (a request, a broker, a file), it passes here: [`Ingest::submit`]
//! numbers it, has the ledger log it, and resolves when it is durable *and* in the online store. One
//! thread, the applier, applies everything in the order of the log, so that the store is a function of
//! the log: after a crash [`Ingest::start`] applies what the store has not kept, and ends where an
//! uninterrupted server would be.
//!
//! * `applier` – the thread that applies them, in the order of the log.
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

mod applier;
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

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc as queue, oneshot};

use self::applier::{Applier, Pending, Waiting};
use self::route::route;
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

fn end_of_log(data_dir: &Path, watermark: Watermark) -> Result<End, LedgerError> {
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
