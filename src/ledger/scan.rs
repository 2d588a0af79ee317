//! Reads the frames of one segment and says how the segment ends: complete, torn, or damaged.
//!
//! The rule that keeps the two kinds of bad end apart: let the first invalid frame start at offset
//! `o`. If any valid frame further on was written when the file was already durable beyond `o` (its
//! `synced` is greater), then bytes that were durable have changed: the segment is *damaged*. If
//! there is none, nothing that was ever promised lies at or behind `o`: a crash tore the tail off,
//! and it may be discarded. In a segment that has a successor nothing may be torn, because the
//! successor was only created after an fsync of the whole.
//!
//! Promises: never panics and always ends, whatever the bytes are; holds one frame and one read
//! buffer in memory. It changes nothing on disk.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use prost::Message;

use super::audit::Audit;
use super::changes::decode_changes;
use super::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, FrameKind, HeaderError, SEGMENT_HEADER_BYTES,
    SegmentHeader, frame_checksum,
};
use super::record::{Inference, Outcome, Prediction};
use super::shadow::ShadowScore;

/// Bytes read at once, both for frames and in the search behind an invalid one.
const READ_BYTES: usize = 256 * 1024;

/// One valid frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Where the frame starts in its segment.
    pub offset: u64,
    /// What the payload is.
    pub kind: FrameKind,
    /// The file was durable up to here when the frame was written.
    pub synced: u64,
    /// The encoded record.
    pub payload: &'a [u8],
}

/// The result of reading at one offset.
pub enum Step<'a> {
    /// A valid frame; the reader stands behind it.
    Frame(Frame<'a>),
    /// The end, exactly behind a frame.
    End,
    /// Something else than a valid frame, and why; the reader's position is undefined.
    Invalid(String),
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentEnd {
    /// Behind a valid frame.
    Complete,
    /// Nothing valid and durable from `offset` on.
    Torn {
        /// Where the first invalid frame starts.
        offset: u64,
        /// Bytes from there to the end of the file.
        bytes: u64,
    },
    /// Something durable at `offset` has changed.
    Damaged {
        /// Where the first invalid frame starts.
        offset: u64,
        /// What is wrong there and how we know.
        detail: String,
    },
}

/// Reads frames one after the other.
pub struct FrameReader<R> {
    reader: BufReader<R>,
    offset: u64,
    limit: u64,
    seed: u32,
    payload: Vec<u8>,
}

impl<R: Read + Seek> FrameReader<R> {
    /// A reader that starts at `offset` and takes the segment to have `limit` bytes.
    pub fn new(source: R, seed: u32, offset: u64, limit: u64) -> std::io::Result<FrameReader<R>> {
        let mut reader = FrameReader {
            reader: BufReader::with_capacity(READ_BYTES, source),
            offset,
            limit,
            seed,
            payload: Vec::new(),
        };
        reader.seek_to(offset)?;
        Ok(reader)
    }

    fn seek_to(&mut self, offset: u64) -> std::io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        Ok(())
    }

    /// Reads the frame at the current offset. Errors are those of the operating system only.
    pub fn read_frame(&mut self) -> std::io::Result<Step<'_>> {
        let remaining = self.limit.saturating_sub(self.offset);
        if remaining == 0 {
            return Ok(Step::End);
        }
        if remaining < FRAME_HEADER_BYTES as u64 {
            return Ok(Step::Invalid(format!(
                "{remaining} bytes are too few for a frame"
            )));
        }
        let mut header_bytes = [0u8; FRAME_HEADER_BYTES];
        if !read_all(&mut self.reader, &mut header_bytes)? {
            return Ok(Step::Invalid("the file ends inside a frame".to_string()));
        }
        let header = match FrameHeader::decode(&header_bytes, self.offset, remaining) {
            Ok(header) => header,
            Err(reason) => return Ok(Step::Invalid(reason)),
        };
        self.payload.resize(header.payload_bytes, 0);
        if !read_all(&mut self.reader, &mut self.payload)? {
            return Ok(Step::Invalid("the file ends inside a frame".to_string()));
        }
        let expected = frame_checksum(self.seed, header.synced, header.kind, &self.payload);
        if header.checksum != expected {
            return Ok(Step::Invalid(format!(
                "the checksum is {:08x}, expected {expected:08x}",
                header.checksum
            )));
        }
        let offset = self.offset;
        self.offset += (FRAME_HEADER_BYTES + header.payload_bytes) as u64;
        Ok(Step::Frame(Frame {
            offset,
            kind: header.kind,
            synced: header.synced,
            payload: &self.payload,
        }))
    }

    /// Looks behind an invalid frame at `bad_offset` for a valid one that was written when the file
    /// was already durable beyond `bad_offset`, and returns its offset and that claim.
    fn find_later_promise(&mut self, bad_offset: u64) -> std::io::Result<Option<(u64, u64)>> {
        let mut position = bad_offset + 1;
        let mut window = Vec::new();
        while position < self.limit {
            window.clear();
            self.reader.seek(SeekFrom::Start(position))?;
            let wanted = (self.limit - position).min(READ_BYTES as u64);
            self.reader.by_ref().take(wanted).read_to_end(&mut window)?;
            let Some(found) = window
                .windows(FRAME_MAGIC.len())
                .position(|bytes| bytes == FRAME_MAGIC)
            else {
                if (window.len() as u64) < wanted || position + wanted >= self.limit {
                    return Ok(None);
                }
                // The magic may lie across the edge of the window.
                position += wanted - (FRAME_MAGIC.len() as u64 - 1);
                continue;
            };
            let candidate = position + found as u64;
            self.seek_to(candidate)?;
            position = match self.read_frame()? {
                Step::Frame(frame) if frame.synced > bad_offset => {
                    return Ok(Some((frame.offset, frame.synced)));
                }
                Step::Frame(frame) => {
                    frame.offset + (FRAME_HEADER_BYTES + frame.payload.len()) as u64
                }
                Step::End | Step::Invalid(_) => candidate + 1,
            };
        }
        Ok(None)
    }
}

/// Fills `buffer`; false when the source ends before that.
fn read_all(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the frames from `start` (a frame boundary) to `limit`, hands each to `visit`, and says how
/// the segment ends.
///
/// `may_be_torn` is true for the last segment only. Errors of `visit` end the scan; `E` must be
/// able to hold an error of the operating system.
pub fn scan_frames<R: Read + Seek, E: From<std::io::Error>>(
    source: R,
    seed: u32,
    start: u64,
    limit: u64,
    may_be_torn: bool,
    mut visit: impl FnMut(Frame<'_>) -> Result<(), E>,
) -> Result<SegmentEnd, E> {
    let mut reader = FrameReader::new(source, seed, start, limit)?;
    loop {
        let offset = reader.offset;
        let reason = match reader.read_frame()? {
            Step::Frame(frame) => {
                visit(frame)?;
                continue;
            }
            Step::End => return Ok(SegmentEnd::Complete),
            Step::Invalid(reason) => reason,
        };
        if !may_be_torn {
            let detail =
                format!("{reason}; a later segment exists, so this one was durable as a whole");
            return Ok(SegmentEnd::Damaged { offset, detail });
        }
        return Ok(match reader.find_later_promise(offset)? {
            Some((later, synced)) => {
                let detail = format!(
                    "{reason}; the frame at byte {later} says that the file was durable up to byte {synced}"
                );
                SegmentEnd::Damaged { offset, detail }
            }
            None => SegmentEnd::Torn {
                offset,
                bytes: limit - offset,
            },
        });
    }
}

/// What [`scan_segment_bytes`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentScan {
    /// Valid frames with a prediction.
    pub predictions: u64,
    /// Valid frames with an inference.
    pub inferences: u64,
    /// Valid frames with an audit row.
    pub audits: u64,
    /// Valid frames with the score of a shadow version.
    pub shadow_scores: u64,
    /// Changes in decodable batches.
    pub changes: u64,
    /// Valid frames with an outcome.
    pub outcomes: u64,
    /// Valid frames without payload.
    pub marks: u64,
    /// Frames with a good checksum whose payload is not the record it should be.
    pub undecodable: u64,
    /// How the segment ends, or what is wrong with its header.
    pub end: Result<SegmentEnd, HeaderError>,
}

/// Reads a whole segment from memory as if it were the last one. Never panics, whatever the bytes
/// are; meant for fuzzing and for tools.
pub fn scan_segment_bytes(bytes: &[u8]) -> SegmentScan {
    let mut scan = SegmentScan {
        predictions: 0,
        inferences: 0,
        audits: 0,
        shadow_scores: 0,
        changes: 0,
        outcomes: 0,
        marks: 0,
        undecodable: 0,
        end: Ok(SegmentEnd::Complete),
    };
    let header = match SegmentHeader::decode(bytes) {
        Ok(header) => header,
        Err(error) => {
            scan.end = Err(error);
            return scan;
        }
    };
    let limit = bytes.len() as u64;
    let source = std::io::Cursor::new(bytes);
    let end = scan_frames(
        source,
        header.checksum_seed(),
        SEGMENT_HEADER_BYTES as u64,
        limit,
        true,
        |frame| {
            match frame.kind {
                FrameKind::Prediction => match Prediction::decode(frame.payload) {
                    Ok(_) => scan.predictions += 1,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Inference => match Inference::decode(frame.payload) {
                    Ok(_) => scan.inferences += 1,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Outcome => match Outcome::decode(frame.payload) {
                    Ok(_) => scan.outcomes += 1,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Changes => match decode_changes(frame.payload, 0) {
                    Ok(batch) => scan.changes += batch.changes.len() as u64,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Audit => match Audit::decode(frame.payload) {
                    Ok(_) => scan.audits += 1,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Shadow => match ShadowScore::decode(frame.payload) {
                    Ok(_) => scan.shadow_scores += 1,
                    Err(_) => scan.undecodable += 1,
                },
                FrameKind::Mark => scan.marks += 1,
            }
            Ok::<(), std::io::Error>(())
        },
    );
    // Reading memory raises no errors; should it ever, the segment is reported as damaged, not as
    // sound.
    scan.end = end.map_err(|error| HeaderError::Damaged(error.to_string()));
    scan
}
