//! Event identities in a file: sorted, never changed, looked up with one small read as a rule.
//!
//! A file is a row of groups, then the fences, then the footer. A group is a Bloom filter of
//! [`FILTER_BYTES`] and up to [`GROUP`] records; the fence of a group is the beginning of its first
//! identity. Identities are hashes, so the fences are evenly spaced and the group of an identity is
//! found by proportion.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::files::{read_exact_at, sync_directory};
use super::filters::Filters;
use super::record::Record;

/// Records of a group.
const GROUP: usize = 512;
/// Twelve bits for a record: one look-up in 150 or so reads a group in vain.
pub const FILTER_BYTES: usize = 12 * BLOCK_BYTES;
/// All bits of a record are in one block of the filter, a line of the processor's cache.
const BLOCK_BYTES: usize = 64;
const BITS_PER_RECORD: u32 = 7;
const GROUP_BYTES: usize = FILTER_BYTES + GROUP * Record::BYTES;
const FOOTER_BYTES: usize = 56;
const MAGIC: &[u8; 8] = b"bwevent1";

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub records: u64,
    /// Numbers of changes: every event among them is here, if it has not expired.
    pub first_sequence: u64,
    pub last_sequence: u64,
    /// When its oldest and its newest event were known, microseconds since the Unix epoch.
    pub oldest_us: i64,
    pub newest_us: i64,
}

/// An open file of identities.
pub struct Run {
    pub path: PathBuf,
    pub extent: Extent,
    file: File,
    fences: Vec<u64>,
}

impl Extent {
    pub fn contains(&self, other: &Extent) -> bool {
        self.first_sequence <= other.first_sequence && other.last_sequence <= self.last_sequence
    }
}

impl Run {
    pub fn open(path: &Path) -> std::io::Result<Run> {
        let damaged = |problem: &str| std::io::Error::other(format!("damaged: {problem}"));
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let Some(footer_at) = length.checked_sub(FOOTER_BYTES as u64) else {
            return Err(damaged("it is too short"));
        };
        let mut footer = [0; FOOTER_BYTES];
        read_exact_at(&file, &mut footer, footer_at)?;
        let number = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&footer[index * 8..index * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        let extent = Extent {
            records: number(0),
            first_sequence: number(1),
            last_sequence: number(2),
            oldest_us: number(3) as i64,
            newest_us: number(4) as i64,
        };
        if &footer[48..] != MAGIC {
            return Err(damaged("it does not end as such a file does"));
        }
        let groups = extent.records.div_ceil(GROUP as u64);
        let expected = extent
            .records
            .checked_mul(Record::BYTES as u64)
            .and_then(|records| records.checked_add(groups * (FILTER_BYTES as u64 + 8)))
            .and_then(|bytes| bytes.checked_add(FOOTER_BYTES as u64));
        if expected != Some(length) {
            return Err(damaged("it has not the length that it says"));
        }
        let mut bytes = vec![0; groups as usize * 8];
        read_exact_at(&file, &mut bytes, footer_at - groups * 8)?;
        if xxhash_rust::xxh3::xxh3_64(&bytes) != number(5) {
            return Err(damaged("its fences have another checksum"));
        }
        let fence = |bytes: &[u8]| {
            let mut fence = [0; 8];
            fence.copy_from_slice(bytes);
            u64::from_le_bytes(fence)
        };
        Ok(Run {
            path: path.to_owned(),
            extent,
            file,
            fences: bytes.chunks_exact(8).map(fence).collect(),
        })
    }

    /// How many groups it has, each with a filter.
    pub fn groups(&self) -> usize {
        self.fences.len()
    }

    /// Reads the filters into `filters`, which has room for all of them.
    pub fn read_filters(&self, filters: &mut Filters) -> std::io::Result<()> {
        for (group, filter) in filters.iter_mut().take(self.groups()).enumerate() {
            read_exact_at(&self.file, filter, group as u64 * GROUP_BYTES as u64)?;
        }
        Ok(())
    }

    /// Calls `found` with every record of `identity`. `filters` is what [`Run::read_filters`] filled, if
    /// they are in memory; `buffer` is room to work in.
    pub fn find(
        &self,
        identity: u128,
        filters: Option<&Filters>,
        buffer: &mut Vec<u8>,
        mut found: impl FnMut(Record),
    ) -> std::io::Result<()> {
        let prefix = (identity >> 64) as u64;
        let mut group = self.first_group(prefix);
        while group < self.fences.len() && self.fences[group] <= prefix {
            if self.may_hold(group, identity, filters)? {
                let first = group * GROUP;
                let records = GROUP.min(self.extent.records as usize - first);
                buffer.resize(records * Record::BYTES, 0);
                let at = group as u64 * GROUP_BYTES as u64 + FILTER_BYTES as u64;
                read_exact_at(&self.file, buffer, at)?;
                let (records, _) = buffer.as_chunks::<{ Record::BYTES }>();
                let start = records.partition_point(|bytes| Record::identity_of(bytes) < identity);
                for bytes in &records[start..] {
                    let record = Record::decode(bytes);
                    if record.identity != identity {
                        break;
                    }
                    found(record);
                }
            }
            group += 1;
        }
        Ok(())
    }

    /// The first group that can hold an identity which begins with `prefix`: the one before the first
    /// fence that is not less.
    fn first_group(&self, prefix: u64) -> usize {
        /// How far to walk before giving up on an even spacing.
        const STEPS: usize = 32;
        let fences = &self.fences;
        let share = (u128::from(prefix) * fences.len() as u128) >> 64;
        let mut at = (share as usize).min(fences.len());
        for _ in 0..STEPS {
            if at > 0 && fences[at - 1] >= prefix {
                at -= 1;
            } else if at < fences.len() && fences[at] < prefix {
                at += 1;
            } else {
                return at.saturating_sub(1);
            }
        }
        fences
            .partition_point(|fence| *fence < prefix)
            .saturating_sub(1)
    }

    fn may_hold(
        &self,
        group: usize,
        identity: u128,
        filters: Option<&Filters>,
    ) -> std::io::Result<bool> {
        let block_at = block_of(identity) * BLOCK_BYTES;
        if let Some(filters) = filters {
            let block = &filters.of(group)[block_at..block_at + BLOCK_BYTES];
            return Ok(holds_bits(block, identity));
        }
        let mut block = [0; BLOCK_BYTES];
        let at = group as u64 * GROUP_BYTES as u64 + block_at as u64;
        read_exact_at(&self.file, &mut block, at)?;
        Ok(holds_bits(&block, identity))
    }

    /// All records in order, read through a buffer, from a handle of its own.
    pub fn records(&self) -> std::io::Result<Records> {
        Ok(Records {
            file: File::open(&self.path)?,
            left: self.extent.records,
            group: 0,
            buffer: Vec::new(),
            next: 0,
        })
    }
}

/// The block of a group's filter that has the bits of an identity.
fn block_of(identity: u128) -> usize {
    let blocks = (FILTER_BYTES / BLOCK_BYTES) as u64;
    // The upper bits of the prefix are much the same in a group.
    let lower = u64::from((identity >> 64) as u32);
    ((lower * blocks) >> 32) as usize
}

/// Where the bits of an identity are in its block: nine bits of its lower half for each.
fn bits(identity: u128) -> impl Iterator<Item = usize> {
    let lower = identity as u64;
    (0..BITS_PER_RECORD).map(move |index| ((lower >> (9 * index)) & 511) as usize)
}

fn holds_bits(block: &[u8], identity: u128) -> bool {
    bits(identity).all(|bit| block[bit / 8] & (1 << (bit % 8)) != 0)
}

/// Reads the records of a file one after the other.
pub struct Records {
    file: File,
    left: u64,
    group: u64,
    buffer: Vec<u8>,
    next: usize,
}

impl Records {
    pub fn next(&mut self) -> std::io::Result<Option<Record>> {
        if self.next == self.buffer.len() {
            let records = self.left.min(GROUP as u64);
            if records == 0 {
                return Ok(None);
            }
            self.buffer.resize(records as usize * Record::BYTES, 0);
            let at = self.group * GROUP_BYTES as u64 + FILTER_BYTES as u64;
            read_exact_at(&self.file, &mut self.buffer, at)?;
            self.left -= records;
            self.group += 1;
            self.next = 0;
        }
        let rest = &self.buffer[self.next..];
        self.next += Record::BYTES;
        Ok(rest.first_chunk().map(Record::decode))
    }
}

/// Writes a file of sorted records. It has its name only when it is complete and durable.
pub struct RunWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    extent: Extent,
    group: Vec<Record>,
    fences: Vec<u8>,
}

impl RunWriter {
    /// A file with every event among the changes `first_sequence..=last_sequence`.
    pub fn create(
        path: PathBuf,
        first_sequence: u64,
        last_sequence: u64,
    ) -> std::io::Result<RunWriter> {
        let temporary = path.with_extension("partial");
        Ok(RunWriter {
            file: BufWriter::with_capacity(4 * GROUP_BYTES, File::create(&temporary)?),
            path,
            temporary,
            extent: Extent {
                records: 0,
                first_sequence,
                last_sequence,
                oldest_us: i64::MAX,
                newest_us: i64::MIN,
            },
            group: Vec::with_capacity(GROUP),
            fences: Vec::new(),
        })
    }

    /// Adds a record that is not less than the one before.
    pub fn add(&mut self, record: Record) -> std::io::Result<()> {
        self.group.push(record);
        self.extent.oldest_us = self.extent.oldest_us.min(record.known_at_us);
        self.extent.newest_us = self.extent.newest_us.max(record.known_at_us);
        if self.group.len() == GROUP {
            self.write_group()?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> std::io::Result<()> {
        let Some(first) = self.group.first() else {
            return Ok(());
        };
        let fence = (first.identity >> 64) as u64;
        self.fences.extend_from_slice(&fence.to_le_bytes());
        let mut filter = [0_u8; FILTER_BYTES];
        for record in &self.group {
            let block = block_of(record.identity) * BLOCK_BYTES;
            for bit in bits(record.identity) {
                filter[block + bit / 8] |= 1 << (bit % 8);
            }
        }
        self.file.write_all(&filter)?;
        for record in &self.group {
            self.file.write_all(&record.encode())?;
        }
        self.extent.records += self.group.len() as u64;
        self.group.clear();
        Ok(())
    }

    /// Completes the file and opens it.
    pub fn finish(mut self) -> std::io::Result<Run> {
        self.write_group()?;
        self.file.write_all(&self.fences)?;
        let extent = self.extent;
        for number in [
            extent.records,
            extent.first_sequence,
            extent.last_sequence,
            extent.oldest_us as u64,
            extent.newest_us as u64,
            xxhash_rust::xxh3::xxh3_64(&self.fences),
        ] {
            self.file.write_all(&number.to_le_bytes())?;
        }
        self.file.write_all(MAGIC)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            sync_directory(directory)?;
        }
        Run::open(&self.path)
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        // A complete file has its name by now, and there is nothing to remove.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
