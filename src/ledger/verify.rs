//! Checks a ledger at rest: every frame of every segment, and that no id was recorded twice.
//!
//! Reads only. Memory is bounded whatever the size of the ledger (see [`super::duplicates`]); what
//! it needs beyond that goes to temporary files. A torn tail is sound: nothing in it was
//! acknowledged and the next open discards it.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat};
use prost::bytes::Bytes;

use super::changes::{ChangeBatch, decode_changes};
use super::duplicates::{DuplicateFinder, ShortId, short_id};
use super::error::LedgerError;
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES};
use super::handle::ledger_directory;
use super::lock::{DirectoryLock, lock_directory};
use super::reading::{
    decode_audit, decode_inference, decode_outcome, decode_prediction, decode_shadow, read_frames,
};
use super::scan::SegmentEnd;
use super::segment::{Segment, load_chain};

/// What [`verify`] found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct VerifyReport {
    /// True when nothing is damaged and no id occurs twice.
    pub sound: bool,
    /// The ledger's directory.
    pub directory: PathBuf,
    /// Segment files.
    pub segments: u64,
    /// Bytes of records in them, headers included.
    pub bytes: u64,
    /// Predictions.
    pub predictions: u64,
    /// Scores in these predictions, one per model.
    pub scores: u64,
    /// Inferences.
    pub inferences: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// Changes of entities: events, profile updates and removals.
    pub changes: u64,
    /// Administrative acts.
    pub audits: u64,
    /// Scores of versions in shadow.
    pub shadow_scores: u64,
    /// Time of the first prediction, inference or received outcome, RFC 3339 in UTC.
    pub first_at: Option<String>,
    /// Time of the last one.
    pub last_at: Option<String>,
    /// Predictions and inferences whose id occurred before; must be 0.
    pub duplicate_predictions: u64,
    /// Outcomes whose id occurred before; must be 0.
    pub duplicate_outcomes: u64,
    /// Bytes of a torn tail: not acknowledged, discarded when the ledger is opened next.
    pub torn_tail_bytes: u64,
    /// Bytes that were written again in a later segment after the disk had failed to sync them.
    pub abandoned_bytes: u64,
    /// Durable bytes that are no longer what was written. Records behind such a place in the same
    /// file are not counted.
    pub damage: Vec<Damage>,
}

/// One damaged place.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Damage {
    /// The segment file.
    pub file: PathBuf,
    /// Where the damaged frame starts, in bytes.
    pub offset: u64,
    /// What was found and what was expected.
    pub detail: String,
}

/// Checks the ledger in `data_dir`. Fails when there is none, when it is in use, or when it cannot
/// be read; damage is no failure of the check but part of its report.
pub fn verify(data_dir: &Path) -> Result<VerifyReport, LedgerError> {
    let (ledger_dir, _lock) = open_at_rest(data_dir)?;
    let mut report = VerifyReport {
        directory: ledger_dir.clone(),
        ..VerifyReport::default()
    };
    let chain = match load_chain(&ledger_dir) {
        Ok(chain) => chain,
        Err(LedgerError::Damaged {
            file,
            offset,
            detail,
        }) => {
            report.damage.push(Damage {
                file,
                offset,
                detail,
            });
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut scan = Scan {
        prediction_ids: DuplicateFinder::new(),
        outcome_ids: DuplicateFinder::new(),
        first_us: i64::MAX,
        last_us: i64::MIN,
        expected_change: None,
    };
    for segment in &chain {
        report.segments += 1;
        report.bytes += segment.limit;
        report.abandoned_bytes += segment.abandoned_bytes;
        match scan.read(segment, &mut report) {
            Ok(SegmentEnd::Complete) => {}
            Ok(SegmentEnd::Torn { bytes, .. }) => report.torn_tail_bytes = bytes,
            Ok(SegmentEnd::Damaged { offset, detail }) => {
                report.damage.push(Damage {
                    file: segment.path.clone(),
                    offset,
                    detail,
                });
            }
            Err(LedgerError::Damaged {
                file,
                offset,
                detail,
            }) => report.damage.push(Damage {
                file,
                offset,
                detail,
            }),
            Err(error) => return Err(error),
        }
    }
    if scan.first_us <= scan.last_us {
        report.first_at = rfc3339(scan.first_us);
        report.last_at = rfc3339(scan.last_us);
    }
    report.duplicate_predictions = scan.prediction_ids.finish()?.extra_rows;
    report.duplicate_outcomes = scan.outcome_ids.finish()?.extra_rows;
    report.sound = report.damage.is_empty()
        && report.duplicate_predictions == 0
        && report.duplicate_outcomes == 0;
    Ok(report)
}

/// The ledger directory of `data_dir`, locked.
pub fn open_at_rest(data_dir: &Path) -> Result<(PathBuf, DirectoryLock), LedgerError> {
    let ledger_dir = ledger_directory(data_dir);
    if !ledger_dir.is_dir() {
        return Err(LedgerError::Missing { path: ledger_dir });
    }
    let lock = lock_directory(&ledger_dir)?;
    Ok((ledger_dir, lock))
}

/// What is gathered over all segments.
struct Scan {
    prediction_ids: DuplicateFinder,
    outcome_ids: DuplicateFinder,
    first_us: i64,
    last_us: i64,
    /// The number of the change that has to come next.
    expected_change: Option<u64>,
}

impl Scan {
    fn read(
        &mut self,
        segment: &Segment,
        report: &mut VerifyReport,
    ) -> Result<SegmentEnd, LedgerError> {
        read_frames(segment, SEGMENT_HEADER_BYTES as u64, |frame| {
            match frame.kind {
                FrameKind::Prediction => {
                    let prediction = decode_prediction(segment, frame)?;
                    report.predictions += 1;
                    report.scores += prediction.scores.len() as u64;
                    self.saw(prediction.at_us);
                    self.prediction_ids
                        .add(prediction_key(&prediction.prediction_id))?;
                }
                FrameKind::Inference => {
                    let inference = decode_inference(segment, frame)?;
                    report.inferences += 1;
                    self.saw(inference.at_us);
                    self.prediction_ids
                        .add(prediction_key(&inference.prediction_id))?;
                }
                FrameKind::Outcome => {
                    let outcome = decode_outcome(segment, frame)?;
                    report.outcomes += 1;
                    self.saw(outcome.received_at_us);
                    self.outcome_ids
                        .add(short_id(outcome.outcome_id.as_bytes()))?;
                }
                FrameKind::Changes => {
                    let batch = decode_changes(frame.payload, segment.sequence)
                        .map_err(|detail| damaged(segment, frame.offset, detail))?;
                    self.next_change(&batch)
                        .map_err(|detail| damaged(segment, frame.offset, detail))?;
                    report.changes += batch.changes.len() as u64;
                    self.saw(batch.known_at_us);
                }
                FrameKind::Audit => {
                    let audit = decode_audit(segment, frame)?;
                    report.audits += 1;
                    self.saw(audit.at_us);
                }
                FrameKind::Shadow => {
                    let row = decode_shadow(segment, frame)?;
                    report.shadow_scores += 1;
                    self.saw(row.at_us);
                }
                FrameKind::Mark => {}
            }
            Ok(())
        })
    }

    /// Changes are numbered without gaps, in the order of the log.
    fn next_change(&mut self, batch: &ChangeBatch) -> Result<(), String> {
        let expected = self.expected_change.unwrap_or(batch.sequence);
        self.expected_change = Some(batch.sequence + batch.changes.len() as u64);
        if batch.sequence == expected {
            return Ok(());
        }
        Err(format!(
            "the changes are numbered from {} on, expected {expected}",
            batch.sequence
        ))
    }

    fn saw(&mut self, at_us: i64) {
        self.first_us = self.first_us.min(at_us);
        self.last_us = self.last_us.max(at_us);
    }
}

fn damaged(segment: &Segment, offset: u64, detail: String) -> LedgerError {
    LedgerError::Damaged {
        file: segment.path.clone(),
        offset,
        detail,
    }
}

/// A prediction id is 16 bytes already; anything else is digested so that it can be compared all
/// the same.
fn prediction_key(prediction_id: &Bytes) -> ShortId {
    match prediction_id.first_chunk::<16>() {
        Some(id) if prediction_id.len() == 16 => *id,
        _ => short_id(prediction_id),
    }
}

/// A time in microseconds since 1970 as RFC 3339 in UTC; `None` beyond the calendar.
pub fn rfc3339(at_us: i64) -> Option<String> {
    DateTime::from_timestamp_micros(at_us)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

impl VerifyReport {
    /// True when nothing is damaged and no id occurs twice.
    pub fn sound(&self) -> bool {
        self.sound
    }
}

impl std::fmt::Display for VerifyReport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "ledger       {}", self.directory.display())?;
        writeln!(out, "segments     {} ({} bytes)", self.segments, self.bytes)?;
        writeln!(
            out,
            "predictions  {} ({} scores)",
            self.predictions, self.scores
        )?;
        writeln!(out, "inferences   {}", self.inferences)?;
        writeln!(out, "changes      {}", self.changes)?;
        writeln!(out, "outcomes     {}", self.outcomes)?;
        writeln!(out, "shadow       {} scores", self.shadow_scores)?;
        writeln!(out, "audit        {} rows", self.audits)?;
        if let (Some(first), Some(last)) = (&self.first_at, &self.last_at) {
            writeln!(out, "from         {first}\nto           {last}")?;
        }
        writeln!(
            out,
            "duplicates   {} predictions, {} outcomes",
            self.duplicate_predictions, self.duplicate_outcomes
        )?;
        if self.torn_tail_bytes > 0 {
            writeln!(
                out,
                "torn tail    {} bytes, not acknowledged, discarded at the next start",
                self.torn_tail_bytes
            )?;
        }
        if self.abandoned_bytes > 0 {
            writeln!(
                out,
                "rewritten    {} bytes, after the disk had failed to sync them",
                self.abandoned_bytes
            )?;
        }
        for damage in &self.damage {
            writeln!(
                out,
                "DAMAGED      {} at byte {}: {}",
                damage.file.display(),
                damage.offset,
                damage.detail
            )?;
        }
        write!(
            out,
            "{}",
            if self.sound {
                "the ledger is sound"
            } else {
                "THE LEDGER IS NOT SOUND"
            }
        )
    }
}
