//! What happens when a ledger is opened: check the chain, cut off a torn tail, make the rest
//! durable, bring the index of outcome ids up to the log.
//!
//! Promises: bytes that were durable are never dropped; when some are damaged, opening is refused
//! with file and offset. Only the last segment is read as a whole (the others were complete when it
//! was created; `verify` reads them all), so opening takes as long as reading one segment.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::LedgerOptions;
use super::disk::{DiskFile, sync_directory};
use super::error::LedgerError;
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES};
use super::index::{IndexEntry, OutcomeIndex, Position};
use super::reading::{decode_outcome, end_of, read_frames};
use super::scan::SegmentEnd;
use super::segment::{
    ActiveSegment, Segment, create_segment, load_chain, remove_temporary_segments,
};

/// Outcome ids that are put into the index at once while the log is replayed.
const REPLAY_BATCH: usize = 4096;

/// A ledger that is ready to be written to.
pub struct Recovered {
    /// The segment to append to; all of it is durable.
    pub segment: ActiveSegment,
    /// The index, complete up to the end of that segment.
    pub index: OutcomeIndex,
}

/// Opens the log and the index in `ledger_dir`, whose lock the caller holds.
pub fn recover(ledger_dir: &Path, options: &LedgerOptions) -> Result<Recovered, LedgerError> {
    remove_temporary_segments(ledger_dir)?;
    let mut chain = load_chain(ledger_dir)?;
    let segment = match chain.last_mut() {
        Some(last) => {
            cut_torn_tail(last)?;
            open_for_append(ledger_dir, last, options)?
        }
        None => {
            let segment = create_segment(ledger_dir, 1, 0, &[], options)
                .map_err(LedgerError::io(ledger_dir, "creating the first segment"))?;
            chain = load_chain(ledger_dir)?;
            segment
        }
    };
    let index = OutcomeIndex::open(&ledger_dir.join("index"))?;
    replay_into_index(&chain, &index)?;
    Ok(Recovered { segment, index })
}

/// Reads the last segment and truncates it behind its last valid frame, unless what follows was
/// durable.
fn cut_torn_tail(last: &mut Segment) -> Result<(), LedgerError> {
    match read_frames(last, SEGMENT_HEADER_BYTES as u64, |_| Ok(()))? {
        SegmentEnd::Complete => Ok(()),
        SegmentEnd::Damaged { offset, detail } => Err(LedgerError::Damaged {
            file: last.path.clone(),
            offset,
            detail,
        }),
        SegmentEnd::Torn { offset, bytes } => {
            tracing::warn!(
                file = %last.path.display(), offset, bytes,
                "the ledger ends in a torn frame, as after a crash: discarding these bytes, none was acknowledged"
            );
            let file = open_writable(&last.path)?;
            file.set_len(offset)
                .map_err(LedgerError::io(&last.path, "cutting off the torn tail"))?;
            last.limit = offset;
            Ok(())
        }
    }
}

/// Opens the last segment for writing. What a killed process had only written is made durable here,
/// before anyone can be told that it was recorded.
fn open_for_append(
    ledger_dir: &Path,
    last: &Segment,
    options: &LedgerOptions,
) -> Result<ActiveSegment, LedgerError> {
    let file = open_writable(&last.path)?;
    file.sync_all()
        .map_err(LedgerError::io(&last.path, "syncing"))?;
    sync_directory(ledger_dir).map_err(LedgerError::io(ledger_dir, "syncing the directory"))?;
    Ok(ActiveSegment {
        file: Arc::new(DiskFile::new(file, options)),
        path: last.path.clone(),
        sequence: last.sequence,
        seed: last.seed,
        length: last.limit,
        synced: last.limit,
    })
}

fn open_writable(path: &Path) -> Result<File, LedgerError> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(LedgerError::io(path, "opening for writing"))
}

/// Puts the outcomes behind the index's watermark into the index. The log is durable to its end.
fn replay_into_index(chain: &[Segment], index: &OutcomeIndex) -> Result<(), LedgerError> {
    let start = SEGMENT_HEADER_BYTES as u64;
    let watermark = index.watermark()?.unwrap_or(Position {
        segment: 1,
        offset: start,
    });
    check_watermark(chain, watermark)?;

    let mut replayed: u64 = 0;
    let mut batch: Vec<IndexEntry> = Vec::new();
    for segment in chain
        .iter()
        .filter(|segment| segment.sequence >= watermark.segment)
    {
        let from = if segment.sequence == watermark.segment {
            watermark.offset
        } else {
            start
        };
        let end = read_frames(segment, from, |frame| {
            if frame.kind == FrameKind::Outcome {
                let outcome = decode_outcome(segment, frame)?;
                batch.push((outcome.outcome_id, outcome.content_hash));
                replayed += 1;
            }
            if batch.len() >= REPLAY_BATCH {
                index.commit(
                    &batch,
                    Position {
                        segment: segment.sequence,
                        offset: end_of(&frame),
                    },
                )?;
                batch.clear();
            }
            Ok(())
        })?;
        if let SegmentEnd::Damaged { offset, detail } = end {
            return Err(LedgerError::Damaged {
                file: segment.path.clone(),
                offset,
                detail,
            });
        }
        let reached = Position {
            segment: segment.sequence,
            offset: segment.limit,
        };
        if reached != watermark {
            index.commit(&batch, reached)?;
            batch.clear();
        }
    }
    if replayed > 0 {
        tracing::info!(
            outcomes = replayed,
            "outcomes of the log were added to the index of outcome ids"
        );
    }
    Ok(())
}

/// The index is only ever told of durable parts of the log: if it knows more than there is, log was
/// lost.
fn check_watermark(chain: &[Segment], watermark: Position) -> Result<(), LedgerError> {
    let Some(segment) = chain
        .iter()
        .find(|segment| segment.sequence == watermark.segment)
    else {
        let Some(last) = chain.last() else {
            return Ok(());
        };
        let detail = format!(
            "the index of outcome ids has seen segment {}, which is missing; if an older copy of the log was put \
             back on purpose, delete the directory `index` beside it",
            watermark.segment
        );
        return Err(LedgerError::Damaged {
            file: last.path.clone(),
            offset: last.limit,
            detail,
        });
    };
    if watermark.offset > segment.limit {
        let detail = format!(
            "the index of outcome ids has seen the file up to byte {}, but its records end at byte {}; if an older \
             copy of the log was put back on purpose, delete the directory `index` beside it",
            watermark.offset, segment.limit
        );
        return Err(LedgerError::Damaged {
            file: segment.path.clone(),
            offset: segment.limit,
            detail,
        });
    }
    Ok(())
}
