//! The bytes of a segment: its header and the frames that follow.
//!
//! ```text
//! segment = header frame*
//! header  = magic (8) | format version u32 | sequence u64 | previous length u64 | segment id (16) | crc32 u32
//! frame   = magic (4) | payload length u32 | crc32 u32 | synced u64 | kind u8 | payload
//! ```
//!
//! Integers are little endian. A frame's checksum is CRC-32 (IEEE) over payload length, `synced`,
//! kind and payload, started from the checksum of the segment's header. Every segment has a random
//! id in its header, so a frame is valid in its own segment only: neither an old disk block nor
//! bytes that a client smuggled into a field can pass for one. The frame magic holds bytes that
//! never occur in UTF-8.
//!
//! `synced` is the offset up to which the file was known to be durable when the frame was written.
//! It is what tells a torn tail (nothing durable after it) from damage (something durable is gone);
//! see [`super::scan`].
//!
//! A kind is never given a new meaning. A program that does not know a kind takes the frame for
//! invalid and, as with any damage, refuses a ledger in which it was durable.
//!
//! This file only turns values into bytes and back; it reads and writes no files.

use prost::Message;

/// First bytes of a segment. The 0xFF keeps it from being taken for text.
const SEGMENT_MAGIC: [u8; 8] = *b"BWLEDG\xFF\n";
/// The version of everything described above.
pub const FORMAT_VERSION: u32 = 1;
/// Length of a segment's header in bytes; the first frame starts here.
pub const SEGMENT_HEADER_BYTES: usize = 48;

/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = [0xFB, 0xC7, 0xFF, 0xA9];
/// Length of a frame without its payload, in bytes.
pub const FRAME_HEADER_BYTES: usize = 21;
/// The largest payload that is written or believed, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A [`super::Prediction`].
    Prediction,
    /// An [`super::Outcome`].
    Outcome,
    /// Nothing: written after an fsync when no other frame follows, to carry `synced`.
    Mark,
    /// A [`super::Inference`].
    Inference,
    /// A batch of changes, see [`super::changes`].
    Changes,
    /// An [`super::Audit`].
    Audit,
    /// A [`super::ShadowScore`].
    Shadow,
}

impl FrameKind {
    fn to_byte(self) -> u8 {
        match self {
            FrameKind::Prediction => 1,
            FrameKind::Outcome => 2,
            FrameKind::Mark => 3,
            FrameKind::Inference => 4,
            FrameKind::Changes => 5,
            FrameKind::Audit => 6,
            FrameKind::Shadow => 7,
        }
    }

    fn from_byte(byte: u8) -> Option<FrameKind> {
        match byte {
            1 => Some(FrameKind::Prediction),
            2 => Some(FrameKind::Outcome),
            3 => Some(FrameKind::Mark),
            4 => Some(FrameKind::Inference),
            5 => Some(FrameKind::Changes),
            6 => Some(FrameKind::Audit),
            7 => Some(FrameKind::Shadow),
            _ => None,
        }
    }
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Number of the segment, from 1, without gaps.
    pub sequence: u64,
    /// How many bytes of the segment before this one count; 0 in the first. What lies behind that
    /// length was rewritten here after an fsync of the earlier file had failed.
    pub previous_length: u64,
    /// Random; starts the checksums of this segment.
    pub segment_id: [u8; 16],
}

/// Why bytes are not a segment header of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// Too short, wrong magic or wrong checksum.
    Damaged(String),
    /// A sound header of another format version.
    Version(u32),
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.previous_length.to_le_bytes());
        bytes[28..44].copy_from_slice(&self.segment_id);
        let checksum = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header from the first bytes of a segment.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(HeaderError::Damaged(format!(
                "found {} bytes, a segment header has {SEGMENT_HEADER_BYTES}",
                bytes.len()
            )));
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Damaged(
                "the first 8 bytes are not those of a ledger segment".to_string(),
            ));
        }
        // The version comes before the checksum: a later version may checksum its header in another
        // way.
        let version = read_u32(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let found = read_u32(bytes, 44);
        let expected = crc32fast::hash(&bytes[..44]);
        if found != expected {
            return Err(HeaderError::Damaged(format!(
                "the segment header's checksum is {found:08x}, expected {expected:08x}"
            )));
        }
        let mut segment_id = [0u8; 16];
        segment_id.copy_from_slice(&bytes[28..44]);
        Ok(SegmentHeader {
            sequence: read_u64(bytes, 12),
            previous_length: read_u64(bytes, 20),
            segment_id,
        })
    }

    /// The value that the checksums of this segment's frames start from. The header's own checksum
    /// stays out of it: the CRC of bytes followed by their CRC is the same number for all bytes.
    pub fn checksum_seed(&self) -> u32 {
        crc32fast::hash(&self.encode()[..44])
    }
}

/// The fixed part of a frame, decoded and plausible; its checksum is not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload that follow.
    pub payload_bytes: usize,
    /// The checksum as found.
    pub checksum: u32,
    /// The file was durable up to here when the frame was written.
    pub synced: u64,
    /// What the payload is.
    pub kind: FrameKind,
}

impl FrameHeader {
    /// Reads the fixed part of the frame at `offset`, of which `remaining` bytes are in the file.
    /// The error says what is implausible.
    pub fn decode(
        bytes: &[u8; FRAME_HEADER_BYTES],
        offset: u64,
        remaining: u64,
    ) -> Result<FrameHeader, String> {
        if bytes[..4] != FRAME_MAGIC {
            return Err("no frame starts here (wrong magic)".to_string());
        }
        let payload_bytes = read_u32(bytes, 4) as usize;
        let checksum = read_u32(bytes, 8);
        let synced = read_u64(bytes, 12);
        let Some(kind) = FrameKind::from_byte(bytes[20]) else {
            return Err(format!(
                "frame kind {} is unknown, expected 1 to 7",
                bytes[20]
            ));
        };
        if payload_bytes > MAX_PAYLOAD_BYTES {
            return Err(format!(
                "payload length {payload_bytes} is over the bound of {MAX_PAYLOAD_BYTES} bytes"
            ));
        }
        let frame_bytes = (FRAME_HEADER_BYTES + payload_bytes) as u64;
        if frame_bytes > remaining {
            return Err(format!(
                "the frame has {frame_bytes} bytes, only {remaining} are in the file"
            ));
        }
        if synced > offset || synced < SEGMENT_HEADER_BYTES as u64 {
            return Err(format!(
                "the frame claims that byte {synced} was durable before byte {offset} was written"
            ));
        }
        Ok(FrameHeader {
            payload_bytes,
            checksum,
            synced,
            kind,
        })
    }
}

/// The checksum of a frame in the segment whose frames start from `seed`.
pub fn frame_checksum(seed: u32, synced: u64, kind: FrameKind, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(&synced.to_le_bytes());
    hasher.update(&[kind.to_byte()]);
    hasher.update(payload);
    hasher.finalize()
}

/// Appends one record as a frame to `buffer`. The record's encoded size must be at most
/// [`MAX_PAYLOAD_BYTES`].
pub fn push_record(
    buffer: &mut Vec<u8>,
    seed: u32,
    synced: u64,
    kind: FrameKind,
    record: &impl Message,
) {
    let start = buffer.len();
    buffer.resize(start + FRAME_HEADER_BYTES, 0);
    // Encoding fails only for want of room, and a Vec grows.
    let encoded = record.encode(buffer);
    debug_assert!(encoded.is_ok());
    fill_header(&mut buffer[start..], seed, synced, kind);
}

/// Appends a frame without payload, which only says how far the file is durable.
pub fn push_mark(buffer: &mut Vec<u8>, seed: u32, synced: u64) {
    let start = buffer.len();
    buffer.resize(start + FRAME_HEADER_BYTES, 0);
    fill_header(&mut buffer[start..], seed, synced, FrameKind::Mark);
}

/// A new frame of `kind` with room for a payload of about `payload_bytes`, which the caller appends.
///
/// Such a frame is made where the record is known and completed in two steps: [`set_length`] when
/// the payload is there, and [`push_copy`], which knows the segment, when it is written.
pub fn begin_frame(kind: FrameKind, payload_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload_bytes);
    frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    frame[20] = kind.to_byte();
    frame
}

/// Says in a frame from [`begin_frame`] how long its payload is, or returns the length of one that
/// is longer than [`MAX_PAYLOAD_BYTES`].
pub fn set_length(frame: &mut [u8]) -> Result<(), usize> {
    let payload_bytes = frame.len().saturating_sub(FRAME_HEADER_BYTES);
    if payload_bytes > MAX_PAYLOAD_BYTES {
        return Err(payload_bytes);
    }
    frame[4..8].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    Ok(())
}

/// One frame among others that were written by this file.
pub struct WholeFrame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The frame's header and payload; of the header only the length and the kind count.
    pub bytes: &'a [u8],
}

/// The frames that follow each other in `frames`, which must come from this file; anything else
/// ends the iteration early.
pub fn frames_in(mut frames: &[u8]) -> impl Iterator<Item = WholeFrame<'_>> {
    std::iter::from_fn(move || {
        let header = frames.get(..FRAME_HEADER_BYTES)?;
        let kind = FrameKind::from_byte(header[20])?;
        let payload_bytes = read_u32(header, 4) as usize;
        let (bytes, rest) = frames.split_at_checked(FRAME_HEADER_BYTES + payload_bytes)?;
        frames = rest;
        Some(WholeFrame { kind, bytes })
    })
}

/// Appends a frame to `buffer` as one of the segment whose frames start from `seed`.
pub fn push_copy(buffer: &mut Vec<u8>, frame: &WholeFrame<'_>, seed: u32, synced: u64) {
    let start = buffer.len();
    buffer.extend_from_slice(frame.bytes);
    fill_header(&mut buffer[start..], seed, synced, frame.kind);
}

/// Appends the frames in `frames` to `buffer` as frames of another segment: same records, new seed
/// and `synced`.
pub fn push_copies(buffer: &mut Vec<u8>, frames: &[u8], seed: u32, synced: u64) {
    for frame in frames_in(frames) {
        push_copy(buffer, &frame, seed, synced);
    }
}

/// Writes the fixed part of `frame`, whose payload is already in place.
fn fill_header(frame: &mut [u8], seed: u32, synced: u64, kind: FrameKind) {
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let checksum = frame_checksum(seed, synced, kind, payload);
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    header[12..20].copy_from_slice(&synced.to_le_bytes());
    header[20] = kind.to_byte();
}

/// Four bytes at `at` as a little-endian integer; the caller knows that they are there.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0u8; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

/// Eight bytes at `at` as a little-endian integer; the caller knows that they are there.
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0u8; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
