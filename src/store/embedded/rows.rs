//! The rows on disk: one per entity, in an LSM tree (fjall).
//!
//! The key of a row is the name of its view, a zero byte, and the entity's key; its value is that of
//! [`Entity::encode`](crate::store::entity::Entity::encode). One more row, whose key no view can have,
//! says up to where the log is in the others. It shares their keyspace, so that whenever it is on
//! disk, so is everything that was written before it.

use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::config::{PartitioningPolicy, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice};

use crate::store::{StoreError, Watermark};

/// Memory for recently read blocks, in bytes.
const BLOCK_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Memory for rows that are not yet sorted into files, in bytes.
pub const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;
/// Rows that may wait in memory to be sorted into files before a checkpoint is made to wait, in tables.
/// The tree itself has no such bound: behind a long compaction they would pile up.
const CHECKPOINT_WAITS_AT: u64 = 3;
/// The same for whoever applies changes, whose entities may have to make room for others: later, so that
/// a checkpoint does not hold him up.
const CHANGES_WAIT_AT: u64 = 6;
/// How often a writer that waits looks again.
const ROOM_POLL: Duration = Duration::from_millis(5);
/// Journal kept at most, in bytes; it is read at every open.
const JOURNAL_BYTES: u64 = 256 * 1024 * 1024;
/// Names of views begin with a letter.
const MARK_KEY: &[u8] = b"\xFFwatermark";

/// Up to where the rows have the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub watermark: Watermark,
    /// When the last change before it was known, microseconds since the Unix epoch.
    pub known_at_us: i64,
}

impl Default for Mark {
    fn default() -> Self {
        Mark {
            watermark: Watermark::default(),
            known_at_us: i64::MIN,
        }
    }
}

/// A row to be written: its key, and its value, or none to remove it.
pub type RowWrite = (std::sync::Arc<[u8]>, Option<Vec<u8>>);

/// Who writes rows.
#[derive(Clone, Copy)]
pub enum Writer {
    Checkpoint,
    Changes,
}

/// Some rows of a view, in the order of their keys.
pub struct RowPage {
    /// The key of the row, and its value.
    pub rows: Vec<(Slice, Slice)>,
    /// Others may follow.
    pub is_cut: bool,
}

pub struct Rows {
    database: Database,
    entities: Keyspace,
    memtable_bytes: u64,
}

impl Rows {
    /// Opens or creates the rows in `dir`, which are sorted into files by `memtable_bytes`.
    pub fn open(dir: &Path, memtable_bytes: u64) -> Result<Rows, StoreError> {
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => StoreError::InUse(dir.display().to_string()),
            error => StoreError::Io(format!("opening {}: {error}", dir.display())),
        };
        // What was written since the last checkpoint is in the log, so the journal may wait for it.
        let database = Database::builder(dir)
            .cache_size(BLOCK_CACHE_BYTES)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES)
            .manual_journal_persist(true)
            .open()
            .map_err(failed)?;
        // Nothing is pinned in memory, so that memory does not grow with the number of entities.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable_bytes)
                .filter_block_pinning_policy(PinningPolicy::all(false))
                .index_block_pinning_policy(PinningPolicy::all(false))
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let entities = database.keyspace("profiles", options).map_err(failed)?;
        Ok(Rows {
            database,
            entities,
            memtable_bytes,
        })
    }

    pub fn get(&self, row_key: &[u8]) -> Result<Option<Slice>, StoreError> {
        self.entities.get(row_key).map_err(io_error)
    }

    /// How many bytes of rows may wait in memory to be sorted into files when somebody writes more.
    pub fn waits_at(&self, writer: Writer) -> u64 {
        let tables = match writer {
            Writer::Checkpoint => CHECKPOINT_WAITS_AT,
            Writer::Changes => CHANGES_WAIT_AT,
        };
        tables * self.memtable_bytes
    }

    /// Waits until there is room for what somebody writes; not longer than `at_most`, because a disk that
    /// fails is for the write to tell.
    pub fn wait_for_room(&self, writer: Writer, at_most: Duration) {
        let started = Instant::now();
        let bytes = self.waits_at(writer);
        while self.unsorted_bytes() > bytes && started.elapsed() < at_most {
            std::thread::sleep(ROOM_POLL);
        }
    }

    /// Writes one row, or removes it.
    pub fn put(&self, row_key: &[u8], value: Option<Vec<u8>>) -> Result<(), StoreError> {
        match value {
            Some(value) => self.entities.insert(row_key, value),
            None => self.entities.remove(row_key),
        }
        .map_err(io_error)
    }

    /// Writes many rows.
    pub fn put_all<'a>(&self, rows: impl Iterator<Item = &'a RowWrite>) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for (row_key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.entities, &row_key[..], value.as_slice()),
                None => batch.remove(&self.entities, &row_key[..]),
            }
        }
        batch.commit().map_err(io_error)
    }

    /// Says that everything before `mark` is in the rows, and makes them and that durable.
    pub fn commit(&self, mark: Mark) -> Result<(), StoreError> {
        let mut value = [0_u8; 24];
        value[..8].copy_from_slice(&mark.watermark.sequence.to_be_bytes());
        value[8..16].copy_from_slice(&mark.watermark.segment.to_be_bytes());
        value[16..].copy_from_slice(&mark.known_at_us.to_be_bytes());
        self.entities
            .insert(MARK_KEY, value.as_slice())
            .map_err(io_error)?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(io_error)
    }

    /// What [`Rows::commit`] said last; the beginning of the log in a new directory.
    pub fn mark(&self) -> Result<Mark, StoreError> {
        let Some(value) = self.get(MARK_KEY)? else {
            return Ok(Mark::default());
        };
        let numbers: Option<[[u8; 8]; 3]> = (value.len() == 24).then(|| {
            let mut numbers = [[0; 8]; 3];
            for (number, bytes) in numbers.iter_mut().zip(value.chunks_exact(8)) {
                number.copy_from_slice(bytes);
            }
            numbers
        });
        let Some([sequence, segment, known_at_us]) = numbers else {
            return Err(StoreError::Io(format!(
                "the store's position in the log is damaged: found {} bytes, expected 24; remove the \
                 store's directory to have it built again from the log",
                value.len()
            )));
        };
        Ok(Mark {
            watermark: Watermark {
                sequence: u64::from_be_bytes(sequence),
                segment: u64::from_be_bytes(segment),
            },
            known_at_us: i64::from_be_bytes(known_at_us),
        })
    }

    /// Bytes of rows that are not yet in files.
    pub fn unsorted_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Bytes in memory: blocks that were read, and rows that are not yet in files.
    pub fn bytes(&self) -> u64 {
        self.database.cache_size() + self.unsorted_bytes()
    }

    /// Every row of a view as it is now, key by key: the entity's key and its value.
    pub fn for_each(
        &self,
        view: &str,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let prefix = row_key(view, "");
        for row in self.entities.prefix(&prefix) {
            let (row_key, value) = row.into_inner().map_err(io_error)?;
            each(&row_key[prefix.len()..], &value)?;
        }
        Ok(())
    }

    /// The rows of a view behind the entity `after`: at most `limit`, and not many more than `bytes`.
    pub fn page(
        &self,
        view: &str,
        after: Option<&str>,
        limit: usize,
        bytes: usize,
    ) -> Result<RowPage, StoreError> {
        let from = match after {
            Some(key) => Bound::Excluded(row_key(view, key)),
            None => Bound::Included(row_key(view, "")),
        };
        // Behind all keys of the view: what follows its name is one more than zero.
        let mut end = row_key(view, "");
        if let Some(last) = end.last_mut() {
            *last = 1;
        }
        let mut page = RowPage {
            rows: Vec::new(),
            is_cut: false,
        };
        let mut taken = 0;
        for row in self.entities.range((from, Bound::Excluded(end))) {
            let (row_key, value) = row.into_inner().map_err(io_error)?;
            taken += row_key.len() + value.len();
            page.rows.push((row_key, value));
            page.is_cut = page.rows.len() >= limit || taken >= bytes;
            if page.is_cut {
                break;
            }
        }
        Ok(page)
    }
}

/// A view's name holds no zero byte, so that no two (view, key) pairs share a row.
pub fn row_key(view: &str, key: &str) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(view.len() + 1 + key.len());
    row_key.extend_from_slice(view.as_bytes());
    row_key.push(0);
    row_key.extend_from_slice(key.as_bytes());
    row_key
}

fn io_error(error: fjall::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMTABLE: u64 = 128 * 1024;
    const BATCH: usize = 16;
    const ROW: usize = 1024;
    /// What a row takes besides its key and value, rounded up.
    const OVERHEAD: u64 = 256;

    /// Rows come much faster than they can be sorted into files.
    #[test]
    fn who_waits_for_room_keeps_memory_bounded_and_loses_nothing() {
        for writer in [Writer::Checkpoint, Writer::Changes] {
            let dir = tempfile::tempdir().unwrap();
            let rows = Rows::open(dir.path(), MEMTABLE).unwrap();
            let batch_bytes = BATCH as u64 * (ROW as u64 + OVERHEAD);
            let (mut most, batches) = (0, 600);
            for batch in 0..batches {
                rows.wait_for_room(writer, Duration::from_secs(60));
                let key = |row: usize| row_key("customer", &format!("{batch:04}-{row:02}"));
                let write = |row: usize| (key(row).into(), Some(vec![batch as u8; ROW]));
                let writes: Vec<RowWrite> = (0..BATCH).map(write).collect();
                rows.put_all(writes.iter()).unwrap();
                most = most.max(rows.unsorted_bytes());
            }
            assert!(most > rows.waits_at(writer) / 2, "{most}");
            assert!(most <= rows.waits_at(writer) + batch_bytes, "{most}");
            rows.commit(Mark::default()).unwrap();
            drop(rows);
            let rows = Rows::open(dir.path(), MEMTABLE).unwrap();
            let (mut found, mut wrong) = (0, 0);
            rows.for_each("customer", |key, value| {
                let batch: usize = std::str::from_utf8(&key[..4]).unwrap().parse().unwrap();
                found += 1;
                wrong += usize::from(value != vec![batch as u8; ROW]);
                Ok(())
            })
            .unwrap();
            assert_eq!((found, wrong), (batches * BATCH, 0));
        }
    }
}
