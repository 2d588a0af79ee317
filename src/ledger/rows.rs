//! Reads the rows of one kind of a ledger, also beside the server that writes it.
//!
//! No lock is taken: segments are only ever appended to, so what is valid stays valid. What the
//! writer has not finished looks like a torn tail and is left out; the next reading has it. Rows
//! come in the order of the log, each once, and one at a time is in memory.

use std::collections::VecDeque;
use std::path::Path;

use super::audit::Audit;
use super::error::LedgerError;
use super::frame::{FrameKind, SEGMENT_HEADER_BYTES};
use super::handle::ledger_directory;
use super::reading::{
    decode_audit, decode_outcome, decode_prediction, decode_shadow, end_of, read_frames,
};
use super::record::{Outcome, Prediction};
use super::scan::{Frame, SegmentEnd};
use super::segment::{Segment, load_chain};
use super::shadow::ShadowScore;

/// How often a place that looks damaged is read again. A frame that was half written when it was
/// read, and followed by a whole one a moment later, looks just like damage.
const READINGS: usize = 3;

/// How many segments are read for the last audit rows: a gigabyte at most.
const MAX_SEGMENTS_FOR_LAST: usize = 8;

/// Hands every prediction of the ledger in `data_dir` to `visit`.
///
/// # Errors
/// No ledger, a damaged or unreadable one; or what `visit` says, which ends the reading.
pub fn read_predictions(
    data_dir: &Path,
    mut visit: impl FnMut(Prediction) -> Result<(), String>,
) -> Result<(), String> {
    read_kind(data_dir, FrameKind::Prediction, &mut |segment, frame| {
        visit(decode_prediction(segment, frame).map_err(|error| error.to_string())?)
    })
}

/// Hands every outcome of the ledger in `data_dir` to `visit`.
///
/// # Errors
/// No ledger, a damaged or unreadable one; or what `visit` says, which ends the reading.
pub fn read_outcomes(
    data_dir: &Path,
    mut visit: impl FnMut(Outcome) -> Result<(), String>,
) -> Result<(), String> {
    read_kind(data_dir, FrameKind::Outcome, &mut |segment, frame| {
        visit(decode_outcome(segment, frame).map_err(|error| error.to_string())?)
    })
}

/// Hands every audit row in the segments from `from_segment` on to `visit`, with the segment it is in.
///
/// # Errors
/// As [`read_predictions`].
pub fn read_audits(
    data_dir: &Path,
    from_segment: u64,
    mut visit: impl FnMut(u64, Audit) -> Result<(), String>,
) -> Result<(), String> {
    read_kind_from(
        data_dir,
        from_segment,
        FrameKind::Audit,
        &mut |segment, frame| {
            let audit = decode_audit(segment, frame).map_err(|error| error.to_string())?;
            visit(segment.sequence, audit)
        },
    )
}

/// The newest audit rows of a ledger.
#[derive(Debug, PartialEq)]
pub struct LastAudits {
    /// The newest first.
    pub newest: Vec<Audit>,
    /// Whether there are no others before these; otherwise either the limit was reached or as many
    /// segments were read as one asking may cost.
    pub complete: bool,
}

/// The last `limit` audit rows. Reads backwards, and at most [`MAX_SEGMENTS_FOR_LAST`] segments.
///
/// # Errors
/// No ledger, or a damaged or unreadable one.
pub fn last_audits(data_dir: &Path, limit: usize) -> Result<LastAudits, String> {
    let ledger_dir = ledger_directory(data_dir);
    let chain = load_chain(&ledger_dir).map_err(|error| error.to_string())?;
    let mut newest = Vec::new();
    for (read, segment) in chain.iter().rev().enumerate() {
        if newest.len() >= limit || read == MAX_SEGMENTS_FOR_LAST {
            let complete = false;
            return Ok(LastAudits { newest, complete });
        }
        // Of one segment no more than are wanted are in memory.
        let wanted = limit - newest.len();
        let mut rows: VecDeque<Audit> = VecDeque::new();
        let mut left_out = false;
        read_segment(segment, FrameKind::Audit, &mut |segment, frame| {
            if rows.len() == wanted {
                rows.pop_front();
                left_out = true;
            }
            let audit = decode_audit(segment, frame).map_err(|error| error.to_string())?;
            rows.push_back(audit);
            Ok(())
        })?;
        newest.extend(rows.into_iter().rev());
        if left_out {
            let complete = false;
            return Ok(LastAudits { newest, complete });
        }
    }
    let complete = true;
    Ok(LastAudits { newest, complete })
}

/// Hands every score of a version in shadow to `visit`.
///
/// # Errors
/// As [`read_predictions`].
pub fn read_shadow_scores(
    data_dir: &Path,
    mut visit: impl FnMut(ShadowScore) -> Result<(), String>,
) -> Result<(), String> {
    read_kind(data_dir, FrameKind::Shadow, &mut |segment, frame| {
        visit(decode_shadow(segment, frame).map_err(|error| error.to_string())?)
    })
}

type Visit<'a> = dyn FnMut(&Segment, Frame<'_>) -> Result<(), String> + 'a;

fn read_kind(data_dir: &Path, kind: FrameKind, visit: &mut Visit<'_>) -> Result<(), String> {
    read_kind_from(data_dir, 0, kind, visit)
}

fn read_kind_from(
    data_dir: &Path,
    from_segment: u64,
    kind: FrameKind,
    visit: &mut Visit<'_>,
) -> Result<(), String> {
    let ledger_dir = ledger_directory(data_dir);
    if !ledger_dir.is_dir() {
        return Err(LedgerError::Missing { path: ledger_dir }.to_string());
    }
    let chain = load_chain(&ledger_dir).map_err(|error| error.to_string())?;
    let wanted = |segment: &&Segment| segment.sequence >= from_segment;
    for segment in chain.iter().filter(wanted) {
        read_segment(segment, kind, visit)?;
    }
    Ok(())
}

fn read_segment(segment: &Segment, kind: FrameKind, visit: &mut Visit<'_>) -> Result<(), String> {
    let mut start = SEGMENT_HEADER_BYTES as u64;
    let mut refused = None;
    for reading in 1..=READINGS {
        let end = read_frames(segment, start, |frame| {
            start = end_of(&frame);
            if frame.kind == kind && refused.is_none() {
                refused = visit(segment, frame).err();
            }
            Ok(())
        });
        if let Some(problem) = refused {
            return Err(problem);
        }
        match end.map_err(|error| error.to_string())? {
            SegmentEnd::Complete | SegmentEnd::Torn { .. } => return Ok(()),
            SegmentEnd::Damaged { .. } if reading < READINGS => {}
            SegmentEnd::Damaged { offset, detail } => {
                let damaged = LedgerError::Damaged {
                    file: segment.path.clone(),
                    offset,
                    detail,
                };
                return Err(damaged.to_string());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, LedgerOptions};

    fn prediction(number: u8) -> Prediction {
        Prediction {
            prediction_id: vec![number; 16].into(),
            customer_id: format!("C-{number}"),
            at_us: i64::from(number),
            ..Prediction::default()
        }
    }

    fn outcome(number: u8) -> Outcome {
        Outcome {
            outcome_id: format!("o-{number}"),
            customer_id: Some(format!("C-{number}")),
            outcome: "churn".to_owned(),
            ..Outcome::default()
        }
    }

    /// The customers of the predictions and of the outcomes, as they are read.
    fn customers(data_dir: &Path) -> (Vec<String>, Vec<String>) {
        let (mut predicted, mut happened) = (Vec::new(), Vec::new());
        read_predictions(data_dir, |prediction| {
            predicted.push(prediction.customer_id);
            Ok(())
        })
        .unwrap();
        read_outcomes(data_dir, |outcome| {
            happened.extend(outcome.customer_id);
            Ok(())
        })
        .unwrap();
        (predicted, happened)
    }

    #[test]
    fn rows_are_read_in_order_beside_the_ledger_that_writes_and_after_it() {
        // Given a ledger that is open, over several segments
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            segment_bytes: 256,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(dir.path(), options).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for number in 1..=20 {
            ledger.append_prediction(prediction(number)).unwrap();
            // Durable, and everything before it too, when this is answered.
            runtime
                .block_on(ledger.append_outcome(outcome(number)))
                .unwrap();
        }
        // When it is read, open and closed, then every row is there once
        let expected: Vec<String> = (1..=20).map(|number| format!("C-{number}")).collect();
        let expected = (expected.clone(), expected);
        assert_eq!(customers(dir.path()), expected);
        ledger.close().unwrap();
        assert_eq!(customers(dir.path()), expected);

        // And a tail that is only half written is left out, without a word.
        let files = std::fs::read_dir(ledger_directory(dir.path())).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let segments = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
        let last = segments.max().unwrap();
        let bytes = std::fs::read(&last).unwrap();
        std::fs::write(last, [&bytes[..], &bytes[40..46]].concat()).unwrap();
        assert_eq!(customers(dir.path()), expected);
    }

    #[test]
    fn the_last_audit_rows_are_the_newest_first_and_say_whether_there_are_more() {
        // Given ten audit rows over several segments, with other rows between them
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            segment_bytes: 256,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(dir.path(), options).unwrap();
        for number in 0..10 {
            ledger.append_prediction(prediction(number)).unwrap();
            let audit = Audit {
                at_us: i64::from(number),
                action: "model.promote".to_owned(),
                ..Audit::default()
            };
            let durable = ledger.submit_audit(&audit).unwrap();
            durable.blocking_recv().unwrap();
        }
        ledger.close().unwrap();
        // Then any number of them can be had, from the newest on
        let times = |limit| {
            let last = last_audits(dir.path(), limit).unwrap();
            let times: Vec<i64> = last.newest.iter().map(|audit| audit.at_us).collect();
            (times, last.complete)
        };
        assert_eq!(times(1), (vec![9], false));
        assert_eq!(times(3), (vec![9, 8, 7], false));
    }

    #[test]
    fn the_reader_stops_where_it_is_told_to_and_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let problem = read_predictions(dir.path(), |_| Ok(())).unwrap_err();
        assert!(problem.contains("no ledger here"), "{problem}");
        let ledger = Ledger::open(dir.path(), LedgerOptions::default()).unwrap();
        for number in 1..=3 {
            ledger.append_prediction(prediction(number)).unwrap();
        }
        ledger.close().unwrap();
        let mut seen = 0;
        let stopped = read_predictions(dir.path(), |_| {
            seen += 1;
            Err("enough".to_owned())
        });
        assert_eq!((stopped, seen), (Err("enough".to_owned()), 1));
    }
}
