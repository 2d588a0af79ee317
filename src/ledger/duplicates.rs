//! Finds ids that occur more than once among any number of ids, in bounded memory.
//!
//! Up to [`IDS_IN_MEMORY`] ids of 16 bytes are kept in memory; beyond that all of them are spread
//! over 256 temporary files by one of their bytes, and each file is sorted on its own. Memory is
//! then at most 32 MiB or a 256th of all ids, whichever is more. The temporary files are removed at
//! the end, also after an error.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::LedgerError;

/// An id, or the digest of a longer one.
pub type ShortId = [u8; 16];

/// Ids that are kept in memory (32 MiB).
const IDS_IN_MEMORY: usize = 2 * 1024 * 1024;
const PARTITIONS: usize = 256;

/// What occurs more than once.
#[derive(Debug, Default)]
pub struct Duplicates {
    /// Rows beyond the first of each id.
    pub extra_rows: u64,
    /// The ids; none in a sound ledger, so their number is not bounded.
    pub ids: HashSet<ShortId>,
}

/// Collects ids; see the module.
pub struct DuplicateFinder {
    in_memory: Vec<ShortId>,
    capacity: usize,
    spilled: Option<Spill>,
}

/// The temporary files.
struct Spill {
    directory: PathBuf,
    files: Vec<BufWriter<File>>,
}

/// 16 bytes that stand for an id of any length.
pub fn short_id(id: &[u8]) -> ShortId {
    let digest = Sha256::digest(id);
    let mut short = [0u8; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

impl DuplicateFinder {
    /// A finder with the documented bound.
    pub fn new() -> DuplicateFinder {
        DuplicateFinder::with_capacity(IDS_IN_MEMORY)
    }

    /// A finder that keeps `capacity` ids in memory.
    fn with_capacity(capacity: usize) -> DuplicateFinder {
        DuplicateFinder {
            in_memory: Vec::new(),
            capacity,
            spilled: None,
        }
    }

    /// Adds one id.
    pub fn add(&mut self, id: ShortId) -> Result<(), LedgerError> {
        if self.in_memory.len() >= self.capacity {
            self.spill()?;
        }
        self.in_memory.push(id);
        Ok(())
    }

    /// Moves what is in memory to the temporary files.
    fn spill(&mut self) -> Result<(), LedgerError> {
        let spill = match &mut self.spilled {
            Some(spill) => spill,
            None => self.spilled.insert(Spill::create()?),
        };
        for id in self.in_memory.drain(..) {
            // The last byte is random in a UUIDv7 and in a digest; the first ones are not in a
            // UUIDv7.
            let file = &mut spill.files[id[15] as usize];
            file.write_all(&id).map_err(LedgerError::io(
                &spill.directory,
                "writing a temporary file",
            ))?;
        }
        Ok(())
    }

    /// Everything that was added more than once.
    pub fn finish(mut self) -> Result<Duplicates, LedgerError> {
        let mut duplicates = Duplicates::default();
        if self.spilled.is_none() {
            count_duplicates(&mut self.in_memory, &mut duplicates);
            return Ok(duplicates);
        }
        self.spill()?;
        let Some(spill) = &mut self.spilled else {
            return Ok(duplicates);
        };
        let mut bytes = Vec::new();
        for partition in 0..PARTITIONS {
            let path = spill.directory.join(partition.to_string());
            spill.files[partition]
                .flush()
                .map_err(LedgerError::io(&path, "writing a temporary file"))?;
            bytes.clear();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .map_err(LedgerError::io(&path, "reading a temporary file"))?;
            let mut ids: Vec<ShortId> = bytes.as_chunks::<16>().0.to_vec();
            count_duplicates(&mut ids, &mut duplicates);
        }
        Ok(duplicates)
    }
}

fn count_duplicates(ids: &mut [ShortId], duplicates: &mut Duplicates) {
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if pair[0] == pair[1] {
            duplicates.extra_rows += 1;
            duplicates.ids.insert(pair[0]);
        }
    }
}

impl Spill {
    fn create() -> Result<Spill, LedgerError> {
        let directory = std::env::temp_dir().join(format!("bellwether-ids-{}", Uuid::now_v7()));
        std::fs::create_dir(&directory).map_err(LedgerError::io(
            &directory,
            "creating a temporary directory",
        ))?;
        let mut spill = Spill {
            directory,
            files: Vec::with_capacity(PARTITIONS),
        };
        for partition in 0..PARTITIONS {
            let path = spill.directory.join(partition.to_string());
            let file = File::create_new(&path)
                .map_err(LedgerError::io(&path, "creating a temporary file"))?;
            spill.files.push(BufWriter::new(file));
        }
        Ok(spill)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "temporary files could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_in_memory_and_on_disk_alike() {
        for capacity in [1_000_000, 100] {
            // Given 5,000 different ids of which ten occur three times
            let mut finder = DuplicateFinder::with_capacity(capacity);
            for number in 0..5_000u32 {
                finder.add(short_id(&number.to_le_bytes())).unwrap();
            }
            for number in 0..10u32 {
                finder.add(short_id(&number.to_le_bytes())).unwrap();
                finder.add(short_id(&number.to_le_bytes())).unwrap();
            }
            let directory = finder.spilled.as_ref().map(|spill| spill.directory.clone());
            // When they are counted
            let duplicates = finder.finish().unwrap();
            // Then exactly these are reported, and no temporary file is left
            assert_eq!(
                (duplicates.extra_rows, duplicates.ids.len()),
                (20, 10),
                "capacity {capacity}"
            );
            assert!(directory.is_none_or(|directory| !directory.exists()));
        }
    }
}
