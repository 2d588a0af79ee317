//! Which events were applied in the last 24 hours: how one that is sent again is recognised.
//!
//! An event has an identity of 128 bits, a hash. The newest identities are in a hash table, the tail,
//! and in a file that is only appended to. A tail that is full, or some hours old, is sealed: sorted
//! into a [`run`], a file that is looked up where it lies. A thread merges runs of a size, four to one,
//! and deletes them when the last of their events is 24 hours old.
//!
//! ## Promises
//!
//! * An event is compared with those that came before it in the log, not with itself or a later one:
//!   replaying the log gives the same answers.
//! * After [`Recent::sync`] everything that was added is durable.
//! * Memory: two tails of [`TAIL_RECORDS`], one being filled and one being sealed (about 17 MB each, and
//!   15 MB while one is sorted); [`FILTERS_IN_MEMORY`]; 8 bytes for 512 records on disk. Disk: 34 bytes
//!   for each event of 24 hours, and as much again while files are merged.

pub mod run;
mod tail;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use self::run::{Run, RunWriter};
use self::tail::Tail;
use crate::store::StoreError;

/// How long an event is remembered, in microseconds.
pub const REMEMBERED_US: i64 = 24 * 3_600 * 1_000_000;

/// Records of a full tail: what a hash table of 2^19 places takes.
pub const TAIL_RECORDS: usize = 7 << 16;

/// Filters of the newest files that are kept in memory, in bytes. Those of older ones are read where
/// they lie, 64 bytes for a look-up, most often from the operating system's cache.
pub const FILTERS_IN_MEMORY: usize = 24 * 1024 * 1024;

/// The longest time between the first and the last event of a file, in microseconds: files are deleted
/// as a whole.
const SPAN_US: i64 = 3 * 3_600 * 1_000_000;

/// An event that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub identity: u128,
    /// The number of its change.
    pub sequence: u64,
    /// Microseconds since the Unix epoch.
    pub known_at_us: i64,
}

impl Record {
    pub const BYTES: usize = 32;

    fn encode(&self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        bytes[..16].copy_from_slice(&self.identity.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..].copy_from_slice(&self.known_at_us.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Record::BYTES]) -> Record {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(number)
        };
        Record {
            identity: Record::identity_of(bytes),
            sequence: number(16),
            known_at_us: number(24) as i64,
        }
    }

    fn identity_of(bytes: &[u8; Record::BYTES]) -> u128 {
        let mut identity = [0; 16];
        identity.copy_from_slice(&bytes[..16]);
        u128::from_be_bytes(identity)
    }

    /// Whether an event with the same identity, `later`, is this one sent again.
    fn makes_duplicate(&self, later: &Record) -> bool {
        let age_us = later.known_at_us.saturating_sub(self.known_at_us);
        self.sequence < later.sequence && age_us < REMEMBERED_US
    }
}

/// The events that are remembered.
pub struct Recent {
    shared: Arc<Shared>,
    upkeep: Option<JoinHandle<()>>,
}

struct Shared {
    dir: PathBuf,
    tail_records: usize,
    state: Mutex<State>,
    /// Signalled when there is something to do for the upkeep, and when it has done something.
    changed: Condvar,
}

struct State {
    tail: Tail,
    /// A full tail that is being sorted into a file.
    sealing: Option<Arc<Tail>>,
    /// By their first change.
    runs: Vec<Kept>,
    /// Up to when changes are checkpointed: what is compared from now on is known then or later.
    checkpointed_us: i64,
    /// The number of the next file.
    next_file: u64,
    /// The table of an earlier tail, empty, to be used again.
    spare: Option<tail::Events>,
    buffer: Vec<u8>,
    /// Why the upkeep cannot go on.
    failed: Option<String>,
    closing: bool,
}

/// An open file, and its filters if they are in memory.
#[derive(Clone)]
struct Kept {
    run: Arc<Run>,
    filters: Option<Arc<[u8]>>,
}

/// What adds events of one batch; nobody else does meanwhile.
pub struct Session<'a> {
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
}

impl Recent {
    /// Opens the events in `dir` that were applied before the change `sequence`, which is where the
    /// replay begins; `checkpointed_us` is when the last of them was known. A tail has about
    /// `tail_records`.
    pub fn open(
        dir: &Path,
        sequence: u64,
        checkpointed_us: i64,
        tail_records: usize,
    ) -> Result<Recent, StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::Io(format!("the recent events in {}: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let files = Files::list(dir).map_err(failed)?;
        let mut next_file = files.last_number + 1;
        let mut runs = Vec::new();
        for path in &files.runs {
            let run = open_run(path)?;
            if run.extent.first_sequence < sequence {
                runs.push(run);
            } else {
                // The replay brings all of it again. Kept, it could be merged with earlier files, and the
                // file of what lies between, which is replayed, too, would look contained in that.
                std::fs::remove_file(path).map_err(failed)?;
            }
        }
        let records = tail::read_all(&files.tails, sequence).map_err(failed)?;
        if let (Some(first), Some(last)) = (
            records.iter().map(|record| record.sequence).min(),
            records.iter().map(|record| record.sequence).max(),
        ) {
            let path = run_path(dir, first, last, next_file);
            next_file += 1;
            let mut writer = RunWriter::create(path, first, last).map_err(failed)?;
            for record in records {
                writer.add(record).map_err(failed)?;
            }
            runs.push(writer.finish().map_err(failed)?);
        }
        for tail in &files.tails {
            std::fs::remove_file(tail).map_err(failed)?;
        }
        runs.sort_by_key(|run| run.extent.first_sequence);
        let mut state = State {
            tail: Tail::default(),
            sealing: None,
            runs: remove_contained(runs).map_err(failed)?,
            checkpointed_us,
            next_file,
            spare: None,
            buffer: Vec::new(),
            failed: None,
            closing: false,
        };
        state.load_filters().map_err(failed)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            tail_records,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let upkeep = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("recent-events".to_owned())
                .spawn(move || upkeep::run(&shared))
                .map_err(failed)?
        };
        Ok(Recent {
            shared,
            upkeep: Some(upkeep),
        })
    }

    /// Begins to add the events of a batch that was known at `known_at_us`. Waits while two tails are
    /// full.
    ///
    /// # Errors
    /// When a full tail cannot be written.
    pub fn session(&self, known_at_us: i64) -> Result<Session<'_>, StoreError> {
        let mut state = self.shared.lock();
        while state.tail.is_full(self.shared.tail_records, known_at_us) {
            if state.sealing.is_none() {
                let sealed = state.seal_tail();
                sealed.map_err(|error| self.shared.failed(&error))?;
                self.shared.changed.notify_all();
            } else if let Some(problem) = &state.failed {
                return Err(StoreError::Io(problem.clone()));
            } else {
                state = self.shared.wait(state);
            }
        }
        Ok(Session {
            shared: &self.shared,
            state,
        })
    }

    /// Makes durable what was added.
    pub fn sync(&self) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| self.shared.failed(&error);
        let mut state = self.shared.lock();
        let mut files = Vec::new();
        files.extend(state.tail.flush().map_err(failed)?);
        if let Some(sealing) = &state.sealing {
            files.extend(sealing.file().map_err(failed)?);
        }
        drop(state);
        for file in files {
            file.sync_data().map_err(failed)?;
        }
        sync_directory(&self.shared.dir).map_err(failed)
    }

    /// Says that everything known before `checkpointed_us` is checkpointed and not compared again:
    /// older events than 24 hours before may go.
    pub fn checkpointed(&self, checkpointed_us: i64) {
        self.shared.lock().checkpointed_us = checkpointed_us;
        self.shared.changed.notify_all();
    }

    /// Waits until nothing is left to be sealed, merged or deleted.
    #[cfg(test)]
    pub fn settle(&self) {
        let mut state = self.shared.lock();
        while state.failed.is_none() && state.next_job(self.shared.tail_records).is_some() {
            state = self.shared.wait(state);
        }
    }

    /// How many files there are.
    #[cfg(test)]
    pub fn files(&self) -> usize {
        self.shared.lock().runs.len()
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(upkeep) = self.upkeep.take() {
            // A panic there has been reported by the panic handler.
            let _ = upkeep.join();
        }
    }
}

impl Session<'_> {
    /// Whether an earlier change was the same event, in the last 24 hours.
    pub fn is_duplicate(&mut self, record: &Record) -> Result<bool, StoreError> {
        let found = self.state.is_duplicate(record);
        found.map_err(|error| self.shared.failed(&error))
    }

    /// Remembers an event that was applied.
    pub fn remember(&mut self, record: Record) -> Result<(), StoreError> {
        let added = self.state.remember(&self.shared.dir, record);
        added.map_err(|error| self.shared.failed(&error))
    }
}

impl State {
    fn is_duplicate(&mut self, record: &Record) -> std::io::Result<bool> {
        let tail = self.tail.find(record.identity);
        if tail.is_some_and(|tail| tail.sequence == record.sequence) {
            return Ok(false);
        }
        let sealing = self.sealing.as_ref();
        let sealing = sealing.and_then(|sealing| sealing.find(record.identity));
        for found in [tail, sealing].into_iter().flatten() {
            if found.makes_duplicate(record) {
                return Ok(true);
            }
        }
        for kept in self.runs.iter().rev() {
            let age_us = record.known_at_us.saturating_sub(kept.run.extent.newest_us);
            if age_us >= REMEMBERED_US {
                continue;
            }
            let mut duplicate = false;
            kept.run.find(
                record.identity,
                kept.filters.as_deref(),
                &mut self.buffer,
                |found| duplicate |= found.makes_duplicate(record),
            )?;
            if duplicate {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn remember(&mut self, dir: &Path, record: Record) -> std::io::Result<()> {
        let tail = self.tail.find(record.identity);
        if tail.is_some_and(|tail| tail.sequence == record.sequence) {
            return Ok(());
        }
        let number = &mut self.next_file;
        self.tail.add(record, || {
            *number += 1;
            tail_path(dir, *number - 1)
        })
    }

    fn seal_tail(&mut self) -> std::io::Result<()> {
        self.tail.flush()?;
        let empty = Tail::with(self.spare.take().unwrap_or_default());
        self.sealing = Some(Arc::new(std::mem::replace(&mut self.tail, empty)));
        Ok(())
    }

    /// Reads the filters of the newest files into memory.
    fn load_filters(&mut self) -> std::io::Result<()> {
        let mut bytes = 0;
        for kept in self.runs.iter_mut().rev() {
            bytes += kept.run.filter_bytes();
            if bytes > FILTERS_IN_MEMORY {
                break;
            }
            kept.filters = Some(kept.run.read_filters()?.into());
        }
        Ok(())
    }

    /// Lets go of the filters of older files, where those of the newest take the room.
    fn drop_filters(&mut self) {
        let mut bytes = 0;
        for kept in self.runs.iter_mut().rev() {
            bytes += kept.run.filter_bytes();
            if bytes > FILTERS_IN_MEMORY {
                kept.filters = None;
            }
        }
    }

    fn add_run(&mut self, kept: Kept) {
        self.runs.push(kept);
        self.runs.sort_by_key(|kept| kept.run.extent.first_sequence);
        self.drop_filters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &std::io::Error) -> StoreError {
        let dir = self.dir.display();
        StoreError::Io(format!("the recent events in {dir}: {error}"))
    }
}

/// The files of a folder.
struct Files {
    runs: BTreeSet<PathBuf>,
    tails: BTreeSet<PathBuf>,
    last_number: u64,
}

impl Files {
    /// Lists them, and removes what was not completed.
    fn list(dir: &Path) -> std::io::Result<Files> {
        let mut files = Files {
            runs: BTreeSet::new(),
            tails: BTreeSet::new(),
            last_number: 0,
        };
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str());
            let number = number.and_then(|stem| stem.rsplit('-').next()?.parse().ok());
            files.last_number = files.last_number.max(number.unwrap_or(0));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("run") => drop(files.runs.insert(path)),
                Some("tail") => drop(files.tails.insert(path)),
                Some("partial") => std::fs::remove_file(path)?,
                _ => {}
            }
        }
        Ok(files)
    }
}

fn run_path(dir: &Path, first_sequence: u64, last_sequence: u64, number: u64) -> PathBuf {
    dir.join(format!(
        "{first_sequence:020}-{last_sequence:020}-{number:08}.run"
    ))
}

fn tail_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.tail"))
}

fn open_run(path: &Path) -> Result<Run, StoreError> {
    Run::open(path).map_err(|error| {
        StoreError::Io(format!(
            "{}: {error}; without this file the server starts, but events of its time that are sent \
             again are counted twice",
            path.display()
        ))
    })
}

/// Removes files whose events are all in another: they were merged, or sealed again after a replay.
fn remove_contained(runs: Vec<Run>) -> std::io::Result<Vec<Kept>> {
    let mut kept: Vec<Kept> = Vec::new();
    for run in runs {
        if kept
            .iter()
            .any(|other| other.run.extent.contains(&run.extent))
        {
            std::fs::remove_file(&run.path)?;
            continue;
        }
        let mut others = Vec::new();
        for other in kept {
            if run.extent.contains(&other.run.extent) {
                std::fs::remove_file(&other.run.path)?;
            } else {
                others.push(other);
            }
        }
        kept = others;
        kept.push(Kept {
            run: Arc::new(run),
            filters: None,
        });
    }
    Ok(kept)
}

/// Makes creations and renames in `directory` durable, where a directory can be opened as a file.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Fills `buffer` from `offset` on.
#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset` on.
#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}
