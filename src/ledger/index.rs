//! The index of outcome ids: which ids are in the log, with the digest of their content.
//!
//! It exists so that an outcome sent twice is recognised without keeping all ids in memory. The log
//! is the only truth: every batch of ids is stored together with the position in the log up to
//! which it is complete (the watermark), only after that part of the log is durable, and at open
//! the log behind the watermark is replayed. An index that is lost, old or broken is therefore
//! rebuilt, and never decides what was recorded.

use std::path::{Path, PathBuf};

use fjall::config::{PartitioningPolicy, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use prost::bytes::Bytes;

use super::error::LedgerError;

/// Memory for blocks of the index. Ids are random, so a large cache would not help.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Memory for ids that are not yet sorted into files.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;
/// Starts with a byte that no outcome id starts with, because ids are UTF-8. The watermark shares the
/// keyspace of the ids: one that is hardly written to would keep the database's journals alive.
const WATERMARK_KEY: &[u8] = b"\xFFwatermark";
/// Journal kept at most (the database's lower bound); it is read at every open.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// A position in the log: a segment and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Offset in its file, at a frame boundary.
    pub offset: u64,
}

/// An outcome id with the digest of its content.
pub type IndexEntry = (String, Bytes);

/// The open index.
pub struct OutcomeIndex {
    database: Database,
    outcomes: Keyspace,
    path: PathBuf,
}

impl OutcomeIndex {
    /// Opens the index at `path`, creates it where there is none, and starts afresh where it cannot
    /// be read.
    pub fn open(path: &Path) -> Result<OutcomeIndex, LedgerError> {
        let first_error = match Self::try_open(path) {
            Ok(index) => return Ok(index),
            // The caller holds the ledger's lock, so this is no other server's index but something
            // odd.
            Err(error @ fjall::Error::Locked) => return Err(index_error(path, &error)),
            Err(error) => error,
        };
        tracing::warn!(error = %first_error, "the index of outcome ids cannot be read and is rebuilt from the log");
        std::fs::remove_dir_all(path)
            .map_err(LedgerError::io(path, "removing the unreadable index"))?;
        Self::try_open(path).map_err(|error| index_error(path, &error))
    }

    fn try_open(path: &Path) -> fjall::Result<OutcomeIndex> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        // Nothing is pinned in memory, so memory does not grow with the number of outcomes. Filters
        // and block indexes are kept in small parts, so that a look-up reads a few kilobytes of them.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .filter_block_pinning_policy(PinningPolicy::all(false))
                .index_block_pinning_policy(PinningPolicy::all(false))
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let outcomes = database.keyspace("outcomes", options)?;
        Ok(OutcomeIndex {
            database,
            outcomes,
            path: path.to_path_buf(),
        })
    }

    /// The digest recorded for an outcome id, or `None` for an id that is not in the indexed part
    /// of the log.
    pub fn content_hash(&self, outcome_id: &str) -> Result<Option<Bytes>, LedgerError> {
        let value = self
            .outcomes
            .get(outcome_id)
            .map_err(|error| index_error(&self.path, &error))?;
        Ok(value.map(|bytes| Bytes::copy_from_slice(&bytes)))
    }

    /// Adds ids and moves the watermark, both or neither. The log must be durable up to
    /// `watermark`.
    pub fn commit(&self, entries: &[IndexEntry], watermark: Position) -> Result<(), LedgerError> {
        let mut batch = self.database.batch();
        for (outcome_id, content_hash) in entries {
            batch.insert(&self.outcomes, outcome_id.as_str(), content_hash.as_ref());
        }
        let mut encoded = [0u8; 16];
        encoded[..8].copy_from_slice(&watermark.segment.to_be_bytes());
        encoded[8..].copy_from_slice(&watermark.offset.to_be_bytes());
        batch.insert(&self.outcomes, WATERMARK_KEY, encoded.as_slice());
        batch
            .commit()
            .map_err(|error| index_error(&self.path, &error))
    }

    /// The position up to which all outcomes of the log are in the index; `None` for a new index.
    pub fn watermark(&self) -> Result<Option<Position>, LedgerError> {
        let Some(encoded) = self
            .outcomes
            .get(WATERMARK_KEY)
            .map_err(|error| index_error(&self.path, &error))?
        else {
            return Ok(None);
        };
        let (Some(segment), Some(offset)) = (encoded.first_chunk::<8>(), encoded.last_chunk::<8>())
        else {
            return Ok(None);
        };
        Ok(Some(Position {
            segment: u64::from_be_bytes(*segment),
            offset: u64::from_be_bytes(*offset),
        }))
    }
}

fn index_error(path: &Path, error: &fjall::Error) -> LedgerError {
    LedgerError::Index {
        path: path.to_path_buf(),
        detail: format!("{error:?}"),
    }
}
