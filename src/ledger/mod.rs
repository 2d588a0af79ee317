//! The prediction ledger, first storey: a durable local log of predictions, inferences and outcomes.
//!
//! Every answered score request is one [`Prediction`], every answered inference request one
//! [`Inference`], everything that happened afterwards one [`Outcome`], and everything that is learned of
//! entities one change in a batch ([`changes`]), every score of a version in shadow one [`ShadowScore`],
//! every administrative act one [`Audit`], each written once into `<data-dir>/ledger/` and never
//! changed. [`Ledger`] writes;
//! [`verify`] checks a ledger at rest; [`export_parquet`] writes it out for Polars, DuckDB and
//! their like.
//!
//! ## Promises
//!
//! * **Outcomes are never lost.** [`Ledger::append_outcome`] resolves only after `fdatasync`. All
//!   outcomes that wait at the same time share one sync.
//! * **Outcomes are counted once.** The same `outcome_id` with the same content is acknowledged as
//!   a duplicate, with other content it is a conflict; both only once the first one is durable.
//!   This holds across restarts and crashes.
//! * **Predictions and inferences survive `kill -9`.** They are in the file, where they survive the
//!   death of the process, within 50 ms of [`Ledger::append_prediction`] or
//!   [`Ledger::append_inference`] and usually within about 5 ms. A power cut can take those of the
//!   last 100 ms or so: that is how often they are synced.
//! * **Nothing unlogged is answered.** A prediction or an inference that cannot be taken is refused
//!   *before* it is answered.
//! * **Requests do not meet here.** Appending a prediction or an inference takes no lock that another
//!   request's thread waits for, as long as there are at most 16 of them. The rows of one thread are
//!   in the log in their order, and before every outcome that was appended after them.
//! * **Nothing durable is dropped silently.** After a crash only a torn tail is discarded, and that
//!   is logged. If durable bytes have changed, opening is refused with file and offset.
//!
//! The 50 ms assume that the machine runs the process and that writing to the page cache does not
//! stall. When the processors are so busy that the writer thread is not run for 15 ms, the next
//! caller writes what is waiting; the last predictions before a pause can still be late then. A
//! write can stall on a disk that has fallen far behind; and while a new segment is begun, once per
//! 128 MiB, three small syncs run in the writer's way.
//!
//! ## What happens when
//!
//! | event | what the ledger does | what the caller sees |
//! |---|---|---|
//! | the queue is at its bound (65,536 rows or 64 MiB) | refuses the row; nothing waits | [`AppendError::Full`]: 503, `Retry-After: 1` |
//! | a write fails (disk full, I/O error) | keeps the rows, refuses new ones, writes again at the same offset with pauses of 20 ms to 1 s | [`AppendError::Unavailable`]: 503, `Retry-After: 5`; [`Ledger::healthy`] is false |
//! | a sync fails | assumes nothing about what the kernel still holds: everything since the last good sync is written again into a new segment, whose header says where the old one ends; until that works, as above | as above |
//! | an outcome is not durable within 2 s | goes on trying | [`OutcomeError::Unconfirmed`]: 503; sending it again with the same id is safe and tells |
//! | the index of outcome ids fails | refuses everything until a restart rebuilds it from the log | [`AppendError::Unavailable`] |
//! | the ledger is closed while the disk fails | gives up after 3 s | [`LedgerError::LostAtClose`] with the number of rows |
//! | a torn tail is found at open | discards it and logs the bytes | nothing: none of it was acknowledged |
//! | durable bytes are damaged | refuses to open | [`LedgerError::Damaged`] with file and offset |
//!
//! ## On disk
//!
//! `00000000000000000001.log` and so on are segments of about 128 MiB; [`frame`] describes their
//! bytes and [`scan`] how a torn tail is told from damage. `LOCK` is held by the process that has
//! the ledger open. `index/` knows which outcome ids are in the log; it may be deleted while the
//! server is stopped and is then rebuilt.
//!
//! One limit of that distinction: the newest bytes are known to have been durable only by what was
//! written after them. After every sync a mark is written for this; if the power fails in the
//! moment before the mark reaches the disk *and* the medium damages exactly these last bytes, it
//! looks like a torn tail.
//!
//! ## Metrics
//!
//! `bellwether_ledger_rows_total{kind}` (written rows, `prediction`, `inference`, `outcome`, `shadow`, `audit`, or `changes`, batches of them),
//! `bellwether_ledger_queue_rows`, `bellwether_ledger_sync_seconds` (histogram),
//! `bellwether_ledger_write_errors_total`.
//!
//! ## Inside
//!
//! Callers encode their row and push it into a bounded queue; one thread writes; another one syncs,
//! because a sync may take longer than a prediction may wait. The files, from the caller to the disk
//! and back: `inference`, `handle`, `queue`, `shards`, `writer`, `syncer`, `segment`, `disk`;
//! `recovery`, `index`, `lock` for opening; `reading`, `rows`, `scan`, [`frame`], [`record`] for reading;
//! `verify`, `duplicates`, [`export`].
//!
//! ## What it does not do
//!
//! It erases nobody yet, deletes no old segments, and writes no lake tables. It is local to one
//! server: replicas each have their own.

mod audit;
pub mod changes;
mod disk;
mod duplicates;
pub mod error;
pub mod export;
pub mod frame;
mod handle;
mod index;
mod inference;
mod lock;
mod options;
mod queue;
mod reading;
pub mod record;
mod recovery;
mod rows;
pub mod scan;
mod segment;
mod shadow;
mod shards;
mod syncer;
mod verify;
mod writer;

pub use audit::Audit;
pub use changes::{ChangeBatch, EncodedChanges, read_changes};
pub use duplicates::short_id;
pub use error::{AppendError, LedgerError, OutcomeError};
pub use export::{ExportReport, export_parquet};
pub use frame::MAX_PAYLOAD_BYTES;
pub use handle::{Ledger, Receipt, ledger_directory, newest_segment};
pub use inference::{InferenceBuilder, InferenceRow, InferenceTemplate};
pub use options::LedgerOptions;
pub use record::{
    Contribution, Feature, FeatureSource, FeatureValue, Inference, InferenceTensor,
    MAX_OUTCOME_ID_BYTES, MAX_REQUEST_ID_BYTES, Outcome, Prediction, Reasons, Score,
    outcome_content_hash,
};
pub use rows::{
    LastAudits, last_audits, read_audits, read_outcomes, read_predictions, read_shadow_scores,
};
pub use scan::{SegmentEnd, SegmentScan, scan_segment_bytes};
pub use shadow::ShadowScore;
pub use verify::{Damage, VerifyReport, verify};
