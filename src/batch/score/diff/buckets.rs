//! Rows of a run in files, by a hash of their key: who is in a bucket of one run is in the same bucket of
//! the other.
//!
//! A record is the length of the key in four bytes, the key, and eight bytes for each score. Files are
//! opened for each append: there may be more of them than a process may have open.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::table::ScoreRows;
use crate::features::change::KEY_SEPARATOR;

/// What the buffers of all buckets take together.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// What a bucket is meant to hold, and how many there are.
const BUCKET_BYTES: u64 = 16 * 1024 * 1024;
const FEWEST_BUCKETS: u64 = 8;
const MOST_BUCKETS: u64 = 256;

/// What is in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u64,
    pub bytes: u64,
}

/// Buckets that are being filled.
pub struct Buckets {
    folder: PathBuf,
    name: String,
    seed: u64,
    buffers: Vec<Vec<u8>>,
    buffer_bytes: usize,
    sizes: Vec<Size>,
    key: String,
    record: Vec<u8>,
}

/// How many buckets so many bytes are spread over.
pub fn count_for(bytes: u64) -> usize {
    let count = (bytes / BUCKET_BYTES).clamp(FEWEST_BUCKETS, MOST_BUCKETS);
    usize::try_from(count).unwrap_or_default()
}

/// The file of a bucket.
pub fn file_of(folder: &Path, name: &str, index: usize) -> PathBuf {
    folder.join(format!("{name}-{index:03}.bucket"))
}

impl Buckets {
    /// Begins `count` empty buckets; what is there of the name is removed.
    ///
    /// # Errors
    /// When the folder does not let that be.
    pub fn create(folder: &Path, name: &str, count: usize, seed: u64) -> Result<Buckets, String> {
        for index in 0..count {
            remove(folder, name, index)?;
        }
        Ok(Buckets {
            folder: folder.to_owned(),
            name: name.to_owned(),
            seed,
            buffers: vec![Vec::new(); count],
            buffer_bytes: BUFFER_BYTES / count.max(1),
            sizes: vec![Size::default(); count],
            key: String::new(),
            record: Vec::new(),
        })
    }

    /// Puts rows where they belong.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn add_batch(&mut self, batch: &ScoreRows) -> Result<(), String> {
        let mut key = std::mem::take(&mut self.key);
        let mut record = std::mem::take(&mut self.record);
        for row in 0..batch.rows {
            key.clear();
            for (index, part) in batch.keys.iter().enumerate() {
                if index > 0 {
                    key.push(KEY_SEPARATOR);
                }
                key.push_str(part.value(row));
            }
            record.clear();
            let length = u32::try_from(key.len()).map_err(|error| error.to_string())?;
            record.extend_from_slice(&length.to_le_bytes());
            record.extend_from_slice(key.as_bytes());
            for scores in &batch.scores {
                record.extend_from_slice(&scores.value(row).to_le_bytes());
            }
            self.add(key.as_bytes(), &record)?;
        }
        (self.key, self.record) = (key, record);
        Ok(())
    }

    /// Puts a record where its key belongs.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn add(&mut self, key: &[u8], record: &[u8]) -> Result<(), String> {
        let hash = xxh3_64_with_seed(key, self.seed);
        let index = (hash % self.buffers.len().max(1) as u64) as usize;
        let (Some(buffer), Some(size)) = (self.buffers.get_mut(index), self.sizes.get_mut(index))
        else {
            return Ok(());
        };
        size.rows += 1;
        size.bytes += record.len() as u64;
        buffer.extend_from_slice(record);
        match buffer.len() >= self.buffer_bytes {
            true => self.flush(index),
            false => Ok(()),
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), String> {
        let path = file_of(&self.folder, &self.name, index);
        let Some(buffer) = self.buffers.get_mut(index) else {
            return Ok(());
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(buffer)
        };
        append().map_err(|error| format!("{}: {error}", path.display()))?;
        buffer.clear();
        Ok(())
    }

    /// Completes the buckets, and says what each holds. One without rows has no file.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn finish(mut self) -> Result<Vec<Size>, String> {
        for index in 0..self.buffers.len() {
            self.flush(index)?;
        }
        Ok(self.sizes)
    }
}

/// Brings the buckets of these sizes to disk.
///
/// # Errors
/// When the disk does not take them.
pub fn sync(folder: &Path, name: &str, sizes: &[Size]) -> Result<(), String> {
    let filled = sizes.iter().enumerate().filter(|(_, size)| size.rows > 0);
    for (index, _) in filled {
        let path = file_of(folder, name, index);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Removes the file of a bucket, if it is there.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(folder: &Path, name: &str, index: usize) -> Result<(), String> {
    let path = file_of(folder, name, index);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A record of a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'b> {
    pub key: &'b [u8],
    /// Eight bytes for each score.
    pub scores: &'b [u8],
    /// The whole record.
    pub bytes: &'b [u8],
}

/// Takes the next record with `scores` scores from `bytes`; `None` at their end, or when they are broken.
pub fn next_record<'b>(bytes: &mut &'b [u8], scores: usize) -> Option<Record<'b>> {
    let all = *bytes;
    let (length, rest) = all.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (key, rest) = rest.split_at_checked(length)?;
    let (scores, rest) = rest.split_at_checked(8 * scores)?;
    *bytes = rest;
    Some(Record {
        key,
        scores,
        bytes: all.get(..all.len() - rest.len())?,
    })
}

/// A score of a record.
pub fn score_at(scores: &[u8], index: usize) -> f64 {
    let bytes = scores.get(8 * index..).and_then(|rest| rest.first_chunk());
    bytes.map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes))
}
