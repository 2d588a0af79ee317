//! The embedded online store: entities in memory, written back to an LSM tree (fjall) in the server's
//! data directory, behind the log.
//!
//! * [`apply`] – from a batch of the log to entities;
//! * [`cache`] – the entities in memory, decoded;
//! * [`rows`] – the rows on disk, and up to where the log is in them;
//! * [`recent`] – the events of 24 hours, for recognising those that are sent again;
//! * [`checkpoint`] – writing what has changed, every half minute;
//! * [`scan`] – reading every entity, page by page.
//!
//! ## Promises
//!
//! * The state is that of the log. A change is in memory when [`OnlineStore::apply`] returns, and on
//!   disk with the next checkpoint; what a crash takes is applied again from the log. Rows may be newer
//!   than the watermark says, never older: an entity knows the last change that went into it, and
//!   takes no earlier one again.
//! * A read that finds its entity in memory waits for no disk.
//! * Memory: [`Options::cache_bytes`] for entities (exceeded by what one batch touches, and by what a
//!   checkpoint is writing), some 150 MB for rows on their way to disk and from it, and what [`recent`]
//!   says.
//!
//! A removed entity leaves no trace: if its removal is replayed, so is everything that came after it.
//! One process at a time may open a directory.

mod apply;
mod cache;
mod checkpoint;
mod recent;
mod rows;
mod scan;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::oneshot;

use self::cache::{Cache, Found, Usage, read_row};
use self::checkpoint::Schedule;
use self::recent::Recent;
use self::rows::{Mark, Rows, row_key};
use super::entity::{Applied, Entity};
use super::scan::Page;
use super::{Batch, OnlineStore, Snapshot, StoreError, StoreFuture, Watermark};
use crate::features::view::View;
use crate::features::windows::WindowState;

/// How often a reader looks again when the entity changes while it is read from disk.
const TRIES: usize = 3;

/// How the store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of entities kept in memory.
    pub cache_bytes: usize,
    /// A checkpoint is made this often, if anything has changed,
    pub checkpoint_every: Duration,
    /// and when so many changes were applied since the last one.
    pub checkpoint_changes: u64,
    /// Events that are remembered in memory before they are sorted into a file.
    pub recent_events_in_memory: usize,
    /// Bytes of rows that are sorted into a file at a time; some times as many may be in memory.
    pub memtable_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 512 * 1024 * 1024,
            checkpoint_every: Duration::from_secs(30),
            checkpoint_changes: 4_000_000,
            recent_events_in_memory: recent::TAIL_RECORDS,
            memtable_bytes: rows::MEMTABLE_BYTES,
        }
    }
}

/// The store in a directory of this machine.
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    checkpoints: Option<JoinHandle<()>>,
}

struct Inner {
    rows: Rows,
    cache: Cache,
    recent: Recent,
    /// Held by whoever changes entities: they are changed by one at a time.
    changing: Mutex<()>,
    progress: Mutex<Progress>,
    /// Held during a checkpoint.
    checkpointing: Mutex<()>,
    schedule: Schedule,
    meters: Meters,
}

/// How far the store is.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Up to where changes are applied.
    applied: Mark,
    /// Up to where they are on disk.
    checkpointed: Mark,
    /// Entities were changed since by something that is not in the log.
    filled: bool,
}

struct Meters {
    hits: Counter,
    misses: Counter,
    replayed: Counter,
    duplicates: Counter,
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    /// When another process has it open, or the directory cannot be read or written.
    pub fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        EmbeddedStore::open_with(dir, Options::default())
    }

    /// Opens or creates the store in `dir`, set up otherwise.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with(dir: &Path, options: Options) -> Result<EmbeddedStore, StoreError> {
        let rows = Rows::open(dir, options.memtable_bytes)?;
        let mark = rows.mark()?;
        let recent = Recent::open(
            &dir.join("events"),
            mark.watermark.sequence,
            mark.known_at_us,
            options.recent_events_in_memory,
        )?;
        let inner = Arc::new(Inner {
            rows,
            cache: Cache::new(options.cache_bytes),
            recent,
            changing: Mutex::default(),
            progress: Mutex::new(Progress {
                applied: mark,
                checkpointed: mark,
                filled: false,
            }),
            checkpointing: Mutex::default(),
            schedule: Schedule::new(options.checkpoint_every, options.checkpoint_changes),
            meters: Meters::default(),
        });
        let checkpoints = {
            let inner = Arc::clone(&inner);
            let thread = std::thread::Builder::new().name("checkpoint".to_owned());
            let spawned = thread.spawn(move || inner.make_checkpoints());
            spawned.map_err(|error| {
                StoreError::Io(format!("cannot start the thread for checkpoints: {error}"))
            })?
        };
        Ok(EmbeddedStore {
            inner,
            checkpoints: Some(checkpoints),
        })
    }

    /// Calls `each` with every entity of a view, key by key: as it is when the call begins, or newer.
    /// Entities are read and changed meanwhile.
    ///
    /// # Errors
    /// When the store fails, or a row cannot be decoded.
    pub fn for_each(
        &self,
        view: &View,
        mut each: impl FnMut(&str, &Entity),
    ) -> Result<(), StoreError> {
        self.inner.checkpoint()?;
        self.inner.rows.for_each(&view.name, |key, value| {
            let entity = Entity::decode(view, value)?;
            let key = std::str::from_utf8(key).map_err(|_| StoreError::Damaged {
                view: view.name.clone(),
                problem: "a key is not UTF-8".to_owned(),
            })?;
            each(key, &entity);
            Ok(())
        })
    }

    /// How many entities are in memory, with how many bytes, and how many are newer than their rows.
    pub fn usage(&self) -> Usage {
        self.inner.cache.usage()
    }
}

impl Drop for EmbeddedStore {
    /// Writes what has changed, so that the next start replays nothing.
    fn drop(&mut self) {
        self.inner.schedule.close();
        if let Some(checkpoints) = self.checkpoints.take() {
            // A panic there has been reported by the panic handler.
            let _ = checkpoints.join();
        }
    }
}

impl OnlineStore for EmbeddedStore {
    fn for_each_late(
        &self,
        view: &Arc<View>,
        each: &mut dyn FnMut(&str, u64),
    ) -> Result<(), StoreError> {
        self.for_each(view, |key, entity| {
            let late = view.windows().late(&entity.windows);
            let mut numbers: Vec<u64> = late.into_iter().map(|(_, after)| after).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into_iter().for_each(|after| each(key, after));
        })
    }

    fn fill_windows(
        &self,
        view: &Arc<View>,
        key: &str,
        earlier: &WindowState,
        after: u64,
    ) -> Result<(), StoreError> {
        self.inner.change_entity(view, key, |entity| {
            view.windows().fill(&mut entity.windows, earlier, after);
        })
    }

    fn read<'a>(
        &'a self,
        wanted: &'a [(&'a Arc<View>, &'a str)],
        at_us: i64,
    ) -> StoreFuture<'a, Vec<Option<Snapshot>>> {
        let read = |&(view, key): &(&Arc<View>, &str)| self.inner.read(view, key, at_us);
        Box::pin(std::future::ready(wanted.iter().map(read).collect()))
    }

    fn scan<'a>(
        &'a self,
        view: &'a Arc<View>,
        after: Option<&'a str>,
        limit: usize,
        at_us: i64,
    ) -> StoreFuture<'a, Page> {
        Box::pin(std::future::ready(
            self.inner.scan(view, after, limit, at_us),
        ))
    }

    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> StoreFuture<'a, Vec<Vec<Applied>>> {
        Box::pin(std::future::ready(self.inner.apply(batch)))
    }

    fn watermark(&self) -> Watermark {
        self.inner.progress().checkpointed.watermark
    }

    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        let (reply, answer) = oneshot::channel();
        self.inner.schedule.request(reply);
        Box::pin(async {
            let ended = |_| StoreError::Io("the thread for checkpoints has ended".to_owned());
            answer.await.map_err(ended)?
        })
    }
}

impl Inner {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(
        &self,
        view: &Arc<View>,
        key: &str,
        at_us: i64,
    ) -> Result<Option<Snapshot>, StoreError> {
        let row_key = row_key(&view.name, key);
        let shard = self.cache.shard_of(&row_key);
        for _ in 0..TRIES {
            let version = match self.cache.lock(shard).find(&row_key, view, at_us)? {
                Found::Snapshot(snapshot) => {
                    self.meters.hits.increment(1);
                    return Ok(snapshot);
                }
                Found::InRow { version } => version,
            };
            // Others use the shard while the row is read.
            self.meters.misses.increment(1);
            let Some(entity) = read_row(&self.rows, &row_key, view)? else {
                return Ok(None);
            };
            let snapshot = entity.snapshot(view, at_us);
            let mut shard = self.cache.lock(shard);
            if shard.keep_read(&row_key, view, entity, version) {
                shard.evict(&self.rows, self.cache.shard_bytes())?;
                return Ok(Some(snapshot));
            }
        }
        // It changes all the time: nobody changes it while the shard is locked.
        let mut shard = self.cache.lock(shard);
        match shard.find(&row_key, view, at_us)? {
            Found::Snapshot(snapshot) => Ok(snapshot),
            Found::InRow { .. } => {
                let entity = read_row(&self.rows, &row_key, view)?;
                Ok(entity.map(|entity| entity.snapshot(view, at_us)))
            }
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Meters {
            hits: metrics::counter!("bellwether_store_cache_hits_total"),
            misses: metrics::counter!("bellwether_store_cache_misses_total"),
            replayed: metrics::counter!("bellwether_store_replayed_total"),
            duplicates: metrics::counter!("bellwether_store_duplicates_total"),
        }
    }
}
