//! The newest events: a hash table, and a file with the same records in the order in which they came.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::SPAN_US;
use super::record::Record;

/// Identity -> number of its change, and when it was known.
pub type Events = HashMap<u128, (u64, i64)>;

/// Bytes of the file that may wait in memory.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub struct Tail {
    events: Events,
    log: Option<Log>,
}

struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    /// The lowest and the highest number of a change.
    first_sequence: u64,
    last_sequence: u64,
    oldest_us: i64,
}

impl Tail {
    /// An empty tail that uses the room of `events`, which is empty.
    pub fn with(events: Events) -> Tail {
        Tail { events, log: None }
    }

    pub fn find(&self, identity: u128) -> Option<Record> {
        let &(sequence, known_at_us) = self.events.get(&identity)?;
        Some(Record {
            identity,
            sequence,
            known_at_us,
        })
    }

    /// Whether it should be sealed before events known at `known_at_us` are added: it has almost as
    /// many as it may have (a batch does not stop in the middle), or spans too long a time.
    pub fn is_full(&self, records: usize, known_at_us: i64) -> bool {
        let Some(log) = &self.log else {
            return false;
        };
        let spans_us = known_at_us.saturating_sub(log.oldest_us);
        self.events.len() >= records - records / 16 || spans_us >= SPAN_US
    }

    /// Adds a record. `path` says where the file goes if there is none yet.
    pub fn add(&mut self, record: Record, path: impl FnOnce() -> PathBuf) -> std::io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            None => self.log.insert(Log::create(path(), &record)?),
        };
        log.file.write_all(&record.encode())?;
        log.first_sequence = log.first_sequence.min(record.sequence);
        log.last_sequence = log.last_sequence.max(record.sequence);
        self.events
            .insert(record.identity, (record.sequence, record.known_at_us));
        Ok(())
    }

    /// Hands what waits to the operating system. Returns the file, which is to be synced.
    pub fn flush(&mut self) -> std::io::Result<Option<File>> {
        if let Some(log) = &mut self.log {
            log.file.flush()?;
        }
        self.file()
    }

    /// The file, as far as it was flushed.
    pub fn file(&self) -> std::io::Result<Option<File>> {
        let log = self.log.as_ref();
        log.map(|log| log.file.get_ref().try_clone()).transpose()
    }

    /// Where the file is, and its first and last change.
    pub fn log(&self) -> Option<(&Path, u64, u64)> {
        let log = self.log.as_ref()?;
        Some((&log.path, log.first_sequence, log.last_sequence))
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn bytes(&self) -> usize {
        bytes_of(&self.events)
    }

    pub fn sorted(&self) -> Vec<Record> {
        let record = |(&identity, &(sequence, known_at_us)): (&u128, &(u64, i64))| Record {
            identity,
            sequence,
            known_at_us,
        };
        let mut records: Vec<Record> = self.events.iter().map(record).collect();
        records.sort_unstable();
        records
    }

    /// The table, emptied, to be used again.
    pub fn into_events(mut self) -> Events {
        self.events.clear();
        self.events
    }
}

/// Bytes of a table: a record and a byte for each place, of which one in eight stays empty.
pub fn bytes_of(events: &Events) -> usize {
    events.capacity() * 8 / 7 * (Record::BYTES + 1)
}

impl Log {
    fn create(path: PathBuf, first: &Record) -> std::io::Result<Log> {
        Ok(Log {
            file: BufWriter::with_capacity(BUFFER_BYTES, File::create(&path)?),
            path,
            first_sequence: first.sequence,
            last_sequence: first.sequence,
            oldest_us: first.known_at_us,
        })
    }
}

/// The records of the files `tails` whose changes come before `sequence`, sorted, each once.
///
/// Those before it were made durable before it was, so whatever else a crash may have left (a torn
/// record, old bytes) is a record that is ignored, or one that no event has the identity of.
pub fn read_all<'a>(
    tails: impl IntoIterator<Item = &'a PathBuf>,
    sequence: u64,
) -> std::io::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    for path in tails {
        bytes.clear();
        File::open(path)?.read_to_end(&mut bytes)?;
        let (chunks, _) = bytes.as_chunks::<{ Record::BYTES }>();
        let all = chunks.iter().map(Record::decode);
        records.extend(all.filter(|record| (1..sequence).contains(&record.sequence)));
    }
    records.sort_unstable();
    records.dedup();
    Ok(records)
}
