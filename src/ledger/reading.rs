//! Reading a ledger at rest: the frames of one segment, decoded, with errors that name file and
//! offset.

use std::fs::File;

use prost::Message;

use super::audit::Audit;
use super::error::LedgerError;
use super::frame::FRAME_HEADER_BYTES;
use super::record::{Inference, Outcome, Prediction};
use super::scan::{Frame, SegmentEnd, scan_frames};
use super::segment::Segment;
use super::shadow::ShadowScore;

/// Keeps an error of the operating system apart from one of the visitor until the path can be
/// added.
enum ReadError {
    Io(std::io::Error),
    Visit(LedgerError),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        ReadError::Io(error)
    }
}

/// Hands every valid frame of `segment` from `start` (a frame boundary) on to `visit`, and says how
/// it ends.
pub fn read_frames(
    segment: &Segment,
    start: u64,
    mut visit: impl FnMut(Frame<'_>) -> Result<(), LedgerError>,
) -> Result<SegmentEnd, LedgerError> {
    let file = File::open(&segment.path).map_err(LedgerError::io(&segment.path, "opening"))?;
    let result = scan_frames(
        file,
        segment.seed,
        start,
        segment.limit,
        segment.is_last,
        |frame| visit(frame).map_err(ReadError::Visit),
    );
    match result {
        Ok(end) => Ok(end),
        Err(ReadError::Visit(error)) => Err(error),
        Err(ReadError::Io(error)) => Err(LedgerError::io(&segment.path, "reading")(error)),
    }
}

/// The prediction in a frame.
pub fn decode_prediction(segment: &Segment, frame: Frame<'_>) -> Result<Prediction, LedgerError> {
    Prediction::decode(frame.payload)
        .map_err(|error| undecodable(segment, frame, "prediction", &error))
}

/// The inference in a frame.
pub fn decode_inference(segment: &Segment, frame: Frame<'_>) -> Result<Inference, LedgerError> {
    Inference::decode(frame.payload)
        .map_err(|error| undecodable(segment, frame, "inference", &error))
}

/// The outcome in a frame.
pub fn decode_outcome(segment: &Segment, frame: Frame<'_>) -> Result<Outcome, LedgerError> {
    Outcome::decode(frame.payload).map_err(|error| undecodable(segment, frame, "outcome", &error))
}

/// The audit row in a frame.
pub fn decode_audit(segment: &Segment, frame: Frame<'_>) -> Result<Audit, LedgerError> {
    Audit::decode(frame.payload).map_err(|error| undecodable(segment, frame, "audit row", &error))
}

/// The score of a shadow version in a frame.
pub fn decode_shadow(segment: &Segment, frame: Frame<'_>) -> Result<ShadowScore, LedgerError> {
    ShadowScore::decode(frame.payload)
        .map_err(|error| undecodable(segment, frame, "shadow score", &error))
}

/// Where the frame behind `frame` starts.
pub fn end_of(frame: &Frame<'_>) -> u64 {
    frame.offset + (FRAME_HEADER_BYTES + frame.payload.len()) as u64
}

fn undecodable(
    segment: &Segment,
    frame: Frame<'_>,
    expected: &str,
    error: &prost::DecodeError,
) -> LedgerError {
    LedgerError::Damaged {
        file: segment.path.clone(),
        offset: frame.offset,
        detail: format!(
            "the frame's checksum is right but its payload is not a {expected}: {error}"
        ),
    }
}
