//! Which events were applied in the last 24 hours: how one that is sent again is recognised.
//!
//! An event has an identity of 128 bits, a hash. The newest identities are in a hash table, the tail,
//! and in a file that is only appended to. A tail that is full, or some hours old, is sealed: sorted
//! into a [`run`], a file that is looked up where it lies. A thread merges runs of a size, four to one,
//! and deletes them when the last of their events is 24 hours old.
//!
//! * [`record`] – how an event is remembered; [`tail`], [`run`] – the two kinds of file;
//! * [`filters`] – what keeps look-ups from reading files in vain;
//! * [`files`] – the folder, and what a start finds there; [`upkeep`] – the thread.
//!
//! ## Promises
//!
//! * An event is compared with those that came before it in the log, not with itself or a later one:
//!   replaying the log gives the same answers.
//! * After [`Recent::sync`] everything that was added is durable.
//! * Memory: two tails of [`TAIL_RECORDS`], one being filled and one being sealed (about 17 MB each, and
//!   15 MB while one is sorted); [`FILTERS_IN_MEMORY`], taken with the first full tail; 8 bytes for 512
//!   records on disk. Disk: 34 bytes for each event of 24 hours, and as much again while files are merged.

mod files;
mod filters;
mod record;
mod run;
mod tail;
#[cfg(test)]
mod tests;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use self::files::{sync_directory, tail_path};
use self::filters::{Filters, Pool};
pub use self::record::Record;
use self::run::Run;
use self::tail::Tail;
use crate::features::change::REMEMBERED_US;
use crate::store::StoreError;

/// Records of a full tail: what a hash table of 2^19 places takes.
pub const TAIL_RECORDS: usize = 7 << 16;

/// Filters of the newest files that are kept in memory, in bytes. Those of older ones are read where
/// they lie, 64 bytes for a look-up, most often from the operating system's cache.
pub const FILTERS_IN_MEMORY: usize = 24 * 1024 * 1024;

/// The longest time between the first and the last event of a file, in microseconds: files are deleted
/// as a whole.
const SPAN_US: i64 = 3 * 3_600 * 1_000_000;

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
    /// Memory for their filters.
    pool: Pool,
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
struct Kept {
    run: Arc<Run>,
    filters: Option<Filters>,
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
        let failed = |error| files::failed(dir, &error);
        let (runs, next_file) = files::open_all(dir, sequence)?;
        let kept = |run| Kept {
            run: Arc::new(run),
            filters: None,
        };
        let state = State {
            tail: Tail::default(),
            sealing: None,
            runs: runs.into_iter().map(kept).collect(),
            pool: Pool::new(FILTERS_IN_MEMORY),
            checkpointed_us,
            next_file,
            spare: None,
            buffer: Vec::new(),
            failed: None,
            closing: false,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            tail_records,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        upkeep::load_filters(&shared).map_err(failed)?;
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

    /// Bytes it has in memory, about.
    pub fn bytes(&self) -> usize {
        self.shared.lock().bytes()
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
                kept.filters.as_ref(),
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

    fn add_run(&mut self, run: Run) {
        self.runs.push(Kept {
            run: Arc::new(run),
            filters: None,
        });
        self.runs.sort_by_key(|kept| kept.run.extent.first_sequence);
    }

    /// Bytes in memory.
    fn bytes(&self) -> usize {
        let tails = [Some(&self.tail), self.sealing.as_deref()];
        let tails = tails.into_iter().flatten().map(Tail::bytes);
        let spare = self.spare.as_ref().map_or(0, tail::bytes_of);
        let fences = self.runs.iter().map(|kept| kept.run.groups() * 8);
        tails.sum::<usize>() + spare + fences.sum::<usize>() + self.pool.bytes()
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
        files::failed(&self.dir, error)
    }
}
