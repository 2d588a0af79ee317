//! The errors of the ledger, one enum per boundary: the directory, a prediction, an outcome.
//!
//! Each variant says what the caller can do about it. None of them carries a customer's data:
//! outcome ids and values stay out of messages because messages reach logs.

use std::path::PathBuf;

/// Why a ledger directory could not be opened, verified or exported.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no ledger below this data directory.
    #[error(
        "{path}: no ledger here; give the data directory of a server that has run (--data-dir)"
    )]
    Missing {
        /// The directory that was looked for.
        path: PathBuf,
    },
    /// Another process has the ledger open.
    #[error(
        "{path}: the ledger is in use by another process; stop that server first, then try again"
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Bytes that were durable are no longer what was written. Nothing is dropped silently: a
    /// person decides.
    #[error(
        "{file}: damaged at byte {offset}: {detail}; restore the file from a copy, or move the ledger directory \
         away to start a new one"
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where the first bad byte's frame starts.
        offset: u64,
        /// What was found and what was expected.
        detail: String,
    },
    /// The file was written by a newer version of the program.
    #[error(
        "{file}: segment format version {found}, but this program reads version {expected}; use a newer program"
    )]
    Version {
        /// The segment file.
        file: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version that this program reads.
        expected: u32,
    },
    /// The operating system refused to read or write.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index of outcome ids could not be used. It can be deleted while the server is stopped:
    /// it is rebuilt.
    #[error(
        "{path}: the index of outcome ids failed: {detail}; with the server stopped it may be deleted, it is rebuilt from the log"
    )]
    Index {
        /// The index directory.
        path: PathBuf,
        /// What the index said.
        detail: String,
    },
    /// An export file could not be written.
    #[error("{path}: writing Parquet failed: {detail}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        detail: String,
    },
    /// The ledger was closed while records could not be written to disk.
    #[error(
        "the ledger was closed with {rows} records that could not be written; the disk was full or failing"
    )]
    LostAtClose {
        /// Records that were accepted and are not in the log.
        rows: u64,
    },
    /// A writer thread could not be started.
    #[error("the ledger's writer thread could not be started: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

impl LedgerError {
    /// Shorthand for `map_err` on file operations.
    pub(super) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> LedgerError {
        let path = path.to_path_buf();
        move |source| LedgerError::Io {
            path,
            action,
            source,
        }
    }
}

/// Why a prediction was not taken. It must then not be answered either: nothing unlogged is ever
/// answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue in front of the writer is at its bound of rows or bytes. Retry in a second (503,
    /// `Retry-After: 1`).
    #[error(
        "the prediction ledger's queue is full ({rows} rows, {bytes} bytes waiting to be written); retry shortly"
    )]
    Full {
        /// Rows that wait.
        rows: usize,
        /// Bytes that wait.
        bytes: usize,
    },
    /// The disk does not take writes at the moment. Retry in a few seconds (503, `Retry-After: 5`).
    #[error(
        "the prediction ledger cannot write to its disk at the moment; nothing was recorded, retry shortly"
    )]
    Unavailable,
    /// The ledger was closed because the server stops (503).
    #[error("the prediction ledger is closed, the server is stopping")]
    Closed,
    /// One record is larger than a frame may be (413).
    #[error(
        "the record has {bytes} bytes, the prediction ledger takes at most {limit} bytes per record"
    )]
    TooLarge {
        /// Size of the record.
        bytes: usize,
        /// The bound, [`super::MAX_PAYLOAD_BYTES`].
        limit: usize,
    },
    /// A field breaks the record's rules (400 if the caller sent it).
    #[error("{field}: {detail}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// What was found and what is expected.
        detail: String,
    },
}

/// Why an outcome was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    /// It was not taken; it is certainly not in the log.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// The id is in the log with other content (409). Nothing was written.
    #[error(
        "outcome_id: this id was already recorded with different content; a correction needs an id of its own"
    )]
    Conflict,
    /// It was taken, but could not be confirmed as durable in time (503, `Retry-After`). It may or
    /// may not be written later; sending the same outcome again with the same id is safe and tells.
    #[error(
        "the outcome could not be confirmed as durable within {waited_ms} ms; send it again with the same outcome_id"
    )]
    Unconfirmed {
        /// How long the caller waited.
        waited_ms: u64,
    },
}
