//! `Ledger`: the handle that the server holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::oneshot;

use super::LedgerOptions;
use super::error::{AppendError, LedgerError, OutcomeError};
use super::frame::{FrameKind, MAX_PAYLOAD_BYTES, begin_frame, set_length};
use super::inference::InferenceRow;
use super::lock::{DirectoryLock, lock_directory};
use super::queue::{Queue, QueuedOutcome};
use super::record::{MAX_OUTCOME_ID_BYTES, Outcome, Prediction, outcome_content_hash};
use super::recovery::recover;
use super::segment::newest_sequence;
use super::syncer;
use super::writer::{self, SharedWriter, Writer};

/// How often it is looked whether there is room for a row that can wait.
const LOOK: Duration = Duration::from_millis(1);

/// The acknowledgement of an outcome: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id as sent.
    pub outcome_id: String,
    /// True when the same outcome had been recorded before; it is counted once.
    pub duplicate: bool,
}

/// The open ledger of one data directory. `Send + Sync`; share it in an `Arc`.
///
/// Dropping it closes it, which blocks until everything is durable; call [`Ledger::close`] to see
/// the result.
pub struct Ledger {
    queue: Arc<Queue>,
    writer: SharedWriter,
    options: LedgerOptions,
    running: Mutex<Option<Running>>,
}

/// What ends with the ledger.
struct Running {
    writer: JoinHandle<u64>,
    syncer: JoinHandle<()>,
    _lock: DirectoryLock,
}

/// The directory of the ledger in a server's data directory.
pub fn ledger_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger")
}

/// The number of the newest segment of the ledger in a data directory: rows that are submitted from
/// now on are in that one or in a later one. `None` when there is none yet.
///
/// # Errors
/// When the ledger's directory cannot be listed.
pub fn newest_segment(data_dir: &Path) -> std::io::Result<Option<u64>> {
    newest_sequence(&ledger_directory(data_dir))
}

impl Ledger {
    /// Opens the ledger in `data_dir`, creating it where there is none, and recovers from a crash:
    /// a torn tail is discarded (and logged), everything else is made durable, the index of outcome
    /// ids is brought up to the log.
    ///
    /// Blocks while the last segment is read (a fraction of a second). Fails when another process
    /// has the ledger open, when durable bytes are damaged, or when the disk fails.
    pub fn open(data_dir: &Path, options: LedgerOptions) -> Result<Ledger, LedgerError> {
        let ledger_dir = ledger_directory(data_dir);
        std::fs::create_dir_all(&ledger_dir).map_err(LedgerError::io(
            &ledger_dir,
            "creating the ledger directory",
        ))?;
        let lock = lock_directory(&ledger_dir)?;
        let recovered = recover(&ledger_dir, &options)?;

        let late_after = options.linger.min(LedgerOptions::LONGEST_LINGER) * 3;
        let queue = Arc::new(Queue::new(
            options.queue_rows,
            options.queue_bytes,
            late_after,
        ));
        let index = Arc::new(recovered.index);
        let (sync_requests, sync_receiver) = mpsc::channel();
        let syncer_queue = Arc::clone(&queue);
        let syncer_index = Arc::clone(&index);
        let syncer = std::thread::Builder::new()
            .name("ledger-sync".to_string())
            .spawn(move || syncer::run(sync_receiver, syncer_queue, syncer_index))
            .map_err(|source| LedgerError::Thread { source })?;
        let state = Writer::new(
            ledger_dir,
            options.clone(),
            Arc::clone(&queue),
            index,
            recovered.segment,
        );
        let shared: SharedWriter = Arc::new(Mutex::new(Some(state)));
        let writer_shared = Arc::clone(&shared);
        let guard = CloseQueueOnExit(Arc::clone(&queue));
        let writer = std::thread::Builder::new()
            .name("ledger-write".to_string())
            .spawn(move || writer::run(&writer_shared, &guard.0, &sync_requests))
            .map_err(|source| LedgerError::Thread { source })?;
        let running = Mutex::new(Some(Running {
            writer,
            syncer,
            _lock: lock,
        }));
        Ok(Ledger {
            queue,
            writer: shared,
            options,
            running,
        })
    }

    /// Takes a prediction for writing; call it before the prediction is answered, and do not answer
    /// when it fails.
    ///
    /// Encodes the record on the caller's thread, about a microsecond for twenty features, and copies
    /// it into the queue under a lock that no other request waits for; never waits for the disk. Only
    /// when the writer thread is late (15 ms: the processors are overloaded) does one caller write
    /// what is waiting, which takes tens of microseconds. The record is in the file within 50 ms
    /// (normally about 5 ms), so that a `kill -9` after that does not lose it, and on the disk about
    /// 100 ms later.
    pub fn append_prediction(&self, prediction: Prediction) -> Result<(), AppendError> {
        check_prediction_id(&prediction.prediction_id)?;
        self.append_frame(&prediction_frame(&prediction)?)
    }

    /// The same for work that can wait: waits until at most `most_queued` rows are ahead of it, so that
    /// the rest of the queue's room is for those who cannot. Gives up after `patience`.
    ///
    /// Must be awaited in a tokio runtime with timers.
    pub async fn append_prediction_in_time(
        &self,
        prediction: &Prediction,
        most_queued: usize,
        patience: Duration,
    ) -> Result<(), AppendError> {
        check_prediction_id(&prediction.prediction_id)?;
        let frame = prediction_frame(prediction)?;
        let since = Instant::now();
        loop {
            let has_room = self.queue.depth() <= most_queued;
            match has_room.then(|| self.append_frame(&frame)) {
                Some(Err(AppendError::Full { .. })) | None if since.elapsed() < patience => {
                    tokio::time::sleep(LOOK).await;
                }
                Some(appended) => return appended,
                // Whether there is room for it after all is told by the queue itself.
                None => return self.append_frame(&frame),
            }
        }
    }

    /// Takes the row of an inference for writing; everything said of
    /// [`append_prediction`](Ledger::append_prediction) holds, but the row is already encoded.
    pub fn append_inference(&self, row: InferenceRow) -> Result<(), AppendError> {
        self.append_frame(&row.frame)
    }

    pub(super) fn append_frame(&self, frame: &[u8]) -> Result<(), AppendError> {
        let writer_is_late = self.queue.push_row(frame)?;
        if writer_is_late {
            self.help_writer();
        }
        Ok(())
    }

    /// Kept out of the way of the rows that find the writer in time.
    #[cold]
    fn help_writer(&self) {
        // When the lock is taken, the writer or another caller is at it.
        if let Ok(mut slot) = self.writer.try_lock()
            && let Some(writer) = slot.as_mut()
        {
            writer.help();
        }
    }

    /// Records an outcome; resolves when it is durable (or was before). Idempotent by `outcome_id`.
    ///
    /// Must be awaited in a tokio runtime with timers. When the future is dropped the outcome may
    /// still be recorded.
    pub async fn append_outcome(&self, mut outcome: Outcome) -> Result<Receipt, OutcomeError> {
        let id_bytes = outcome.outcome_id.len();
        if id_bytes == 0 || id_bytes > MAX_OUTCOME_ID_BYTES {
            let detail = format!("has {id_bytes} bytes, expected 1 to {MAX_OUTCOME_ID_BYTES}");
            return Err(OutcomeError::Refused(AppendError::Invalid {
                field: "outcome_id",
                detail,
            }));
        }
        if let Some(prediction_id) = &outcome.prediction_id {
            check_prediction_id(prediction_id)?;
        }
        if outcome.content_hash.is_empty() {
            outcome.content_hash = outcome_content_hash(
                outcome.prediction_id.as_deref(),
                outcome.customer_id.as_deref(),
                &outcome.outcome,
                outcome.value,
                Some(outcome.occurred_at_us),
            );
        }
        let bytes = check_size(outcome_bytes(&outcome))?;
        let (reply, answer) = oneshot::channel();
        self.queue.push_outcome(QueuedOutcome {
            outcome,
            bytes,
            reply,
        })?;
        let deadline = self.options.outcome_deadline;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // Out of time, or the writer ended without an answer: it may or may not be in the log.
            Ok(Err(_)) | Err(_) => Err(OutcomeError::Unconfirmed {
                waited_ms: deadline.as_millis() as u64,
            }),
        }
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Whether rows are accepted: the disk takes writes and the ledger is not closed.
    pub fn healthy(&self) -> bool {
        self.queue.available()
    }

    /// Rows that are accepted and not yet in the file.
    pub fn queue_depth(&self) -> usize {
        self.queue.depth()
    }

    /// Refuses further rows, writes and syncs what was accepted, and releases the directory.
    /// Blocks; a second call does nothing. When the disk fails it gives up after `close_patience`
    /// and says how many rows were lost.
    pub fn close(&self) -> Result<(), LedgerError> {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Running {
            writer,
            syncer,
            _lock,
        }) = running
        else {
            return Ok(());
        };
        self.queue.close();
        let lost_rows = writer.join().unwrap_or_else(|_| self.queue.depth() as u64);
        if lost_rows > 0 {
            // The disk may hang: do not wait for a sync that may never return.
            return Err(LedgerError::LostAtClose { rows: lost_rows });
        }
        // Its result carries nothing: a panic there has been reported by the panic handler.
        let _ = syncer.join();
        Ok(())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the ledger");
        }
    }
}

/// Refuses rows once the writer thread has ended, however it ended: what nobody writes must not be
/// accepted.
struct CloseQueueOnExit(Arc<Queue>);

impl Drop for CloseQueueOnExit {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn check_prediction_id(prediction_id: &Bytes) -> Result<(), AppendError> {
    if prediction_id.len() == 16 {
        return Ok(());
    }
    let detail = format!(
        "has {} bytes, expected a UUID of 16 bytes",
        prediction_id.len()
    );
    Err(AppendError::Invalid {
        field: "prediction_id",
        detail,
    })
}

fn check_size(bytes: usize) -> Result<usize, AppendError> {
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(too_large(bytes));
    }
    Ok(bytes)
}

fn too_large(bytes: usize) -> AppendError {
    AppendError::TooLarge {
        bytes,
        limit: MAX_PAYLOAD_BYTES,
    }
}

/// A prediction as the queue takes it.
pub fn prediction_frame(prediction: &Prediction) -> Result<Vec<u8>, AppendError> {
    let payload_bytes = check_size(prediction.encoded_len())?;
    let mut frame = begin_frame(FrameKind::Prediction, payload_bytes);
    // A Vec grows, so there is always room.
    let encoded = prediction.encode(&mut frame);
    debug_assert!(encoded.is_ok());
    set_length(&mut frame).map_err(too_large)?;
    Ok(frame)
}

/// Memory that an outcome takes, estimated without visiting its allocations: the constant is the
/// size of the struct and of its caller's channel, rounded up.
fn outcome_bytes(outcome: &Outcome) -> usize {
    let customer_bytes = outcome.customer_id.as_ref().map_or(0, String::len);
    512 + 2 * outcome.outcome_id.len()
        + customer_bytes
        + outcome.outcome.len()
        + outcome.content_hash.len()
}
