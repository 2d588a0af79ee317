//! Segment files: their names, their creation, and the chain that they form.
//!
//! A segment is created complete with its header under a temporary name, synced, renamed and the
//! directory synced, before a single record goes into it: a segment with a bad header is always
//! damage, never a torn creation. Each header says how many bytes of the segment before it count,
//! so a missing, shortened or foreign file is noticed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::LedgerOptions;
use super::disk::{DiskFile, sync_directory};
use super::error::LedgerError;
use super::frame::{FORMAT_VERSION, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, push_copies};

/// One segment of a ledger at rest.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The file.
    pub path: PathBuf,
    /// Number of the segment, from 1.
    pub sequence: u64,
    /// Start of its checksums.
    pub seed: u32,
    /// How many of its bytes count: all of the file in the last segment, else what the next header
    /// says.
    pub limit: u64,
    /// Bytes behind `limit`: written, but rewritten in the next segment after a failed sync.
    pub abandoned_bytes: u64,
    /// Only the last segment may end in a torn frame.
    pub is_last: bool,
}

/// The segment that the writer appends to.
#[derive(Debug)]
pub struct ActiveSegment {
    /// Shared with the thread that syncs it.
    pub file: Arc<DiskFile>,
    /// Path, for messages.
    pub path: PathBuf,
    /// Number of the segment.
    pub sequence: u64,
    /// Start of its checksums.
    pub seed: u32,
    /// Bytes written and valid.
    pub length: u64,
    /// Bytes known to be durable.
    pub synced: u64,
}

/// The file name of a segment: twenty digits, so that names sort like numbers.
fn segment_file_name(sequence: u64) -> String {
    format!("{sequence:020}.log")
}

/// The number of a segment file, or `None` for any other file.
fn parse_segment_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The number of the newest segment in `ledger_dir`; `None` when there is none yet.
pub fn newest_sequence(ledger_dir: &Path) -> std::io::Result<Option<u64>> {
    let mut newest = None;
    for entry in std::fs::read_dir(ledger_dir)? {
        let name = entry?.file_name();
        newest = newest.max(name.to_str().and_then(parse_segment_file_name));
    }
    Ok(newest)
}

/// Reads all segment headers of `ledger_dir` in order and checks that they form a chain without
/// gaps.
pub fn load_chain(ledger_dir: &Path) -> Result<Vec<Segment>, LedgerError> {
    let mut sequences = Vec::new();
    let entries = std::fs::read_dir(ledger_dir).map_err(LedgerError::io(ledger_dir, "listing"))?;
    for entry in entries {
        let entry = entry.map_err(LedgerError::io(ledger_dir, "listing"))?;
        if let Some(sequence) = entry.file_name().to_str().and_then(parse_segment_file_name) {
            sequences.push(sequence);
        }
    }
    sequences.sort_unstable();

    let mut chain: Vec<Segment> = Vec::with_capacity(sequences.len());
    for (position, sequence) in sequences.into_iter().enumerate() {
        let path = ledger_dir.join(segment_file_name(sequence));
        let expected_sequence = position as u64 + 1;
        if sequence != expected_sequence {
            let detail = format!(
                "segment {} is missing",
                segment_file_name(expected_sequence)
            );
            return Err(LedgerError::Damaged {
                file: path,
                offset: 0,
                detail,
            });
        }
        let (header, file_bytes) = read_header(&path)?;
        if header.sequence != sequence {
            let detail = format!(
                "the header is that of segment {}, the file was renamed or copied",
                header.sequence
            );
            return Err(LedgerError::Damaged {
                file: path,
                offset: 0,
                detail,
            });
        }
        match chain.last_mut() {
            Some(previous) => end_segment(previous, &header)?,
            None if header.previous_length != 0 => {
                let detail =
                    "the header says that a segment comes before the first one".to_string();
                return Err(LedgerError::Damaged {
                    file: path,
                    offset: 0,
                    detail,
                });
            }
            None => {}
        }
        let seed = header.checksum_seed();
        chain.push(Segment {
            path,
            sequence,
            seed,
            limit: file_bytes,
            abandoned_bytes: 0,
            is_last: true,
        });
    }
    Ok(chain)
}

/// Applies to a segment what the header of its successor says about it.
fn end_segment(segment: &mut Segment, successor: &SegmentHeader) -> Result<(), LedgerError> {
    let file_bytes = segment.limit;
    let limit = successor.previous_length;
    if limit > file_bytes || limit < SEGMENT_HEADER_BYTES as u64 {
        return Err(LedgerError::Damaged {
            file: segment.path.clone(),
            offset: file_bytes.min(limit),
            detail: format!(
                "the file has {file_bytes} bytes, the next segment says that {limit} were durable"
            ),
        });
    }
    segment.limit = limit;
    segment.abandoned_bytes = file_bytes - limit;
    segment.is_last = false;
    Ok(())
}

/// Reads the header of a segment file and the file's length.
fn read_header(path: &Path) -> Result<(SegmentHeader, u64), LedgerError> {
    let file = File::open(path).map_err(LedgerError::io(path, "opening"))?;
    let file_bytes = file
        .metadata()
        .map_err(LedgerError::io(path, "reading the length"))?
        .len();
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    file.take(SEGMENT_HEADER_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(LedgerError::io(path, "reading the segment header"))?;
    match SegmentHeader::decode(&bytes) {
        Ok(header) => Ok((header, file_bytes)),
        Err(HeaderError::Damaged(detail)) => Err(LedgerError::Damaged {
            file: path.to_path_buf(),
            offset: 0,
            detail,
        }),
        Err(HeaderError::Version(found)) => Err(LedgerError::Version {
            file: path.to_path_buf(),
            found,
            expected: FORMAT_VERSION,
        }),
    }
}

/// Creates segment `sequence`, holding copies of `frames` (frames of another segment, each element
/// whole frames), durable in every respect when it returns. After an error it may be called again
/// with the same number: nothing was promised yet, and the rename replaces what may be there.
pub fn create_segment(
    ledger_dir: &Path,
    sequence: u64,
    previous_length: u64,
    frames: &[&[u8]],
    options: &LedgerOptions,
) -> std::io::Result<ActiveSegment> {
    let header = SegmentHeader {
        sequence,
        previous_length,
        segment_id: *Uuid::now_v7().as_bytes(),
    };
    let seed = header.checksum_seed();
    let path = ledger_dir.join(segment_file_name(sequence));
    let temporary_path = path.with_extension("log.tmp");
    let raw_file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary_path)?;
    let file = DiskFile::new(raw_file, options);

    let mut length = SEGMENT_HEADER_BYTES as u64;
    file.write_at(0, &header.encode())?;
    let mut copies = Vec::new();
    for group in frames {
        copies.clear();
        push_copies(&mut copies, group, seed, SEGMENT_HEADER_BYTES as u64);
        file.write_at(length, &copies)?;
        length += copies.len() as u64;
    }
    file.sync()?;
    std::fs::rename(&temporary_path, &path)?;
    sync_directory(ledger_dir)?;
    Ok(ActiveSegment {
        file: Arc::new(file),
        path,
        sequence,
        seed,
        length,
        synced: length,
    })
}

/// Removes what an interrupted [`create_segment`] left behind.
pub fn remove_temporary_segments(ledger_dir: &Path) -> Result<(), LedgerError> {
    for entry in std::fs::read_dir(ledger_dir).map_err(LedgerError::io(ledger_dir, "listing"))? {
        let entry = entry.map_err(LedgerError::io(ledger_dir, "listing"))?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.ends_with(".log.tmp"))
        {
            let path = entry.path();
            std::fs::remove_file(&path)
                .map_err(LedgerError::io(&path, "removing a temporary file"))?;
        }
    }
    Ok(())
}
