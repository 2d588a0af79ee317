//! Changes of entities in the log: batches of events, profile updates and removals.
//!
//! A batch is one frame. Its changes are numbered: the first carries the batch's `sequence`, the
//! others follow, and batches follow each other without gaps, in the order of the log. Whoever
//! applies them in that order ends in the same state as everyone else who does.
//!
//! The list is compressed (LZ4): events of one kind resemble each other, and a busy server logs a
//! hundred thousand of them a second.

use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;
use tokio::sync::oneshot;

use super::error::{AppendError, LedgerError};
use super::frame::{FrameKind, MAX_PAYLOAD_BYTES, SEGMENT_HEADER_BYTES, begin_frame, set_length};
use super::handle::{Ledger, ledger_directory};
use super::queue::QueuedFrame;
use super::reading::read_frames;
use super::scan::SegmentEnd;
use super::segment::load_chain;
use crate::features::change::Change;

/// The largest list of changes before it is compressed, in bytes.
pub const MAX_CHANGES_BYTES: usize = 64 * 1024 * 1024;

/// A batch as it is on disk.
#[derive(Clone, PartialEq, Message)]
struct BatchRow {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(sint64, tag = "2")]
    known_at_us: i64,
    /// How many changes it has.
    #[prost(uint64, tag = "3")]
    count: u64,
    /// A [`ListRow`] as an LZ4 block behind its length in four little-endian bytes.
    #[prost(bytes = "bytes", tag = "4")]
    list: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct ListRow {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<Change>,
}

/// A batch of changes as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeBatch {
    /// The number of the first change, from 1.
    pub sequence: u64,
    /// The segment of the log that the batch was read from.
    pub segment: u64,
    /// When the changes were learned, microseconds since the Unix epoch; a change may say otherwise
    /// for itself.
    pub known_at_us: i64,
    pub changes: Vec<Change>,
}

/// Changes that are ready to be logged, but for their number.
pub struct EncodedChanges {
    count: u64,
    list_bytes: usize,
    list: Bytes,
}

impl EncodedChanges {
    /// Encodes and compresses `changes`.
    ///
    /// # Errors
    /// When they are too large for one frame.
    pub fn new(changes: &[Change]) -> Result<EncodedChanges, AppendError> {
        let too_large = |bytes| AppendError::TooLarge {
            bytes,
            limit: MAX_CHANGES_BYTES,
        };
        let mut list = Vec::new();
        for change in changes {
            prost::encoding::message::encode(1, change, &mut list);
        }
        if list.len() > MAX_CHANGES_BYTES {
            return Err(too_large(list.len()));
        }
        let compressed = lz4_flex::block::compress_prepend_size(&list);
        // The rest of the row takes some bytes, too.
        if compressed.len() + 64 > MAX_PAYLOAD_BYTES {
            return Err(too_large(list.len()));
        }
        Ok(EncodedChanges {
            count: changes.len() as u64,
            list_bytes: list.len(),
            list: compressed.into(),
        })
    }

    /// Bytes of the list before it was compressed.
    pub fn list_bytes(&self) -> usize {
        self.list_bytes
    }
}

impl Ledger {
    /// Takes changes for writing, numbered from `sequence` on. Batches are in the log in the order of
    /// the calls; the caller makes sure that this is the order of their numbers. Never waits for the
    /// disk: the receiver resolves, with the segment that the batch is in, when it is durable. It ends
    /// without a value only if the ledger is closed before that.
    ///
    /// # Errors
    /// When the ledger takes no rows now; nothing is logged then and the number may be used again.
    pub fn submit_changes(
        &self,
        changes: EncodedChanges,
        sequence: u64,
        known_at_us: i64,
    ) -> Result<oneshot::Receiver<u64>, AppendError> {
        let row = BatchRow {
            sequence,
            known_at_us,
            count: changes.count,
            list: changes.list,
        };
        let mut frame = begin_frame(FrameKind::Changes, row.encoded_len());
        // A Vec grows, so there is always room.
        let encoded = row.encode(&mut frame);
        debug_assert!(encoded.is_ok());
        set_length(&mut frame).map_err(|bytes| AppendError::TooLarge {
            bytes,
            limit: MAX_PAYLOAD_BYTES,
        })?;
        let (reply, durable) = oneshot::channel();
        self.queue().push_awaited(QueuedFrame { frame, reply })?;
        Ok(durable)
    }
}

/// Reads a batch.
///
/// # Errors
/// What is wrong with its bytes.
pub fn decode_changes(payload: &[u8], segment: u64) -> Result<ChangeBatch, String> {
    let row = BatchRow::decode(payload).map_err(|error| error.to_string())?;
    let prefix = row
        .list
        .first_chunk()
        .ok_or("the list of changes has no length")?;
    let list_bytes = u32::from_le_bytes(*prefix) as usize;
    if list_bytes > MAX_CHANGES_BYTES {
        return Err(format!(
            "the list of changes claims {list_bytes} bytes, at most {MAX_CHANGES_BYTES} are written"
        ));
    }
    let list = lz4_flex::block::decompress_size_prepended(&row.list)
        .map_err(|error| format!("the list of changes cannot be decompressed: {error}"))?;
    let list = ListRow::decode(list.as_slice()).map_err(|error| error.to_string())?;
    if list.changes.len() as u64 != row.count {
        let found = list.changes.len();
        return Err(format!("found {found} changes, expected {}", row.count));
    }
    Ok(ChangeBatch {
        sequence: row.sequence,
        segment,
        known_at_us: row.known_at_us,
        changes: list.changes,
    })
}

/// Hands every batch of changes in the segments from `from_segment` on to `visit`, in order. Works
/// beside a running server: it reads up to what the file held when it was opened.
///
/// # Errors
/// A damaged log with file and offset, what the system says, or the error of `visit`. A data directory
/// without a ledger has no changes.
pub fn read_changes<E: From<LedgerError>>(
    data_dir: &Path,
    from_segment: u64,
    mut visit: impl FnMut(ChangeBatch) -> Result<(), E>,
) -> Result<(), E> {
    let ledger_dir = ledger_directory(data_dir);
    if !ledger_dir.is_dir() {
        return Ok(());
    }
    let chain = load_chain(&ledger_dir)?;
    for segment in chain
        .iter()
        .filter(|segment| segment.sequence >= from_segment)
    {
        let mut stopped = None;
        let start = SEGMENT_HEADER_BYTES as u64;
        let end = read_frames(segment, start, |frame| {
            if frame.kind != FrameKind::Changes || stopped.is_some() {
                return Ok(());
            }
            let damaged = |detail| LedgerError::Damaged {
                file: segment.path.clone(),
                offset: frame.offset,
                detail,
            };
            let batch = decode_changes(frame.payload, segment.sequence).map_err(damaged)?;
            stopped = visit(batch).err();
            Ok(())
        })?;
        if let Some(error) = stopped {
            return Err(error);
        }
        if let SegmentEnd::Damaged { offset, detail } = end {
            let file = segment.path.clone();
            return Err(LedgerError::Damaged {
                file,
                offset,
                detail,
            }
            .into());
        }
    }
    Ok(())
}
