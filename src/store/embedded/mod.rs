//! The embedded online store: entities in memory, written back to an LSM tree (fjall) in the server's
//! data directory, behind the log.
//!
//! * [`cache`] – the entities in memory, decoded;
//! * [`rows`] – the rows on disk, and up to where the log is in them;
//! * [`recent`] – the events of 24 hours, for recognising those that are sent again;
//! * [`checkpoint`] – writing what has changed, every half minute.
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

mod cache;
mod checkpoint;
mod recent;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::oneshot;

use self::cache::{Cache, Found, Usage, read_row};
use self::checkpoint::Schedule;
use self::recent::{Recent, Record};
use self::rows::{Mark, Rows, row_key};
use super::entity::{Action, Applied, Entity};
use super::{Batch, OnlineStore, Snapshot, StoreError, StoreFuture, Watermark, Work};
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
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 512 * 1024 * 1024,
            checkpoint_every: Duration::from_secs(30),
            checkpoint_changes: 4_000_000,
            recent_events_in_memory: recent::TAIL_RECORDS,
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

/// An event that is in a batch twice, for one entity: where in the view's work.
struct Repeated {
    view: usize,
    first: usize,
    again: usize,
}

/// How an event is remembered.
fn record_of(work: &Work<'_>, batch: &Batch<'_>) -> Option<Record> {
    match &work.action {
        Action::Event { identity, .. } => Some(Record {
            identity: identity.0,
            sequence: batch.sequence + work.change as u64,
            known_at_us: batch.known_at_us,
        }),
        _ => None,
    }
}

/// A piece of work of a batch, in the shard of its entity.
struct Piece {
    view: usize,
    work: usize,
    row_key: Vec<u8>,
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
        let rows = Rows::open(dir)?;
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

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut shard = self.cache.lock(shard);
            if shard.keep_read(&row_key, view, &entity, version) {
                shard.evict(&self.rows, self.cache.shard_bytes())?;
                drop(shard);
                return Ok(Some(entity.snapshot(view, at_us)));
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

    fn apply(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Applied>>, StoreError> {
        let _changing = self.changing();
        let works = batch.views.iter().map(|part| part.work.len());
        let mut outcome: Vec<_> = works.map(|work| vec![Applied::Done; work]).collect();
        let repeated = self.recognise(batch, &mut outcome)?;
        let mut pieces: Vec<Vec<Piece>> = Vec::new();
        pieces.resize_with(self.cache.shards(), Vec::new);
        for (view, part) in batch.views.iter().enumerate() {
            for (index, work) in part.work.iter().enumerate() {
                if outcome[view][index] == Applied::Duplicate {
                    continue;
                }
                let row_key = row_key(&part.view.name, &work.key);
                pieces[self.cache.shard_of(&row_key)].push(Piece {
                    view,
                    work: index,
                    row_key,
                });
            }
        }
        for (shard, pieces) in pieces.iter().enumerate() {
            if !pieces.is_empty() {
                self.apply_to_shard(shard, pieces, batch, &mut outcome)?;
            }
        }
        self.remember(batch, &outcome)?;
        for Repeated { view, first, again } in repeated {
            // What became of the first became of it: a duplicate only of one that was applied.
            if outcome[view][first] != Applied::Done {
                outcome[view][again] = outcome[view][first].clone();
            }
        }
        let mut progress = self.progress();
        progress.applied = Mark {
            watermark: Watermark {
                sequence: batch.sequence + batch.changes as u64,
                segment: batch.segment,
            },
            known_at_us: progress.applied.known_at_us.max(batch.known_at_us),
        };
        let since = progress.applied.watermark.sequence - progress.checkpointed.watermark.sequence;
        drop(progress);
        self.schedule.changes_waiting(since);
        Ok(outcome)
    }

    /// Marks the events that were applied in the last 24 hours or come a second time in the batch, and
    /// returns the latter.
    fn recognise(
        &self,
        batch: &Batch<'_>,
        outcome: &mut [Vec<Applied>],
    ) -> Result<Vec<Repeated>, StoreError> {
        let mut session = self.recent.session(batch.known_at_us)?;
        let mut repeated = Vec::new();
        for (view, (part, outcome)) in batch.views.iter().zip(outcome).enumerate() {
            let mut seen: HashMap<u128, usize> = HashMap::with_capacity(part.work.len());
            for (index, work) in part.work.iter().enumerate() {
                let Some(record) = record_of(work, batch) else {
                    continue;
                };
                let first = *seen.entry(record.identity).or_insert(index);
                let is_repeated = first != index;
                if is_repeated {
                    repeated.push(Repeated {
                        view,
                        first,
                        again: index,
                    });
                }
                if is_repeated || session.is_duplicate(&record)? {
                    self.meters.duplicates.increment(1);
                    outcome[index] = Applied::Duplicate;
                }
            }
        }
        Ok(repeated)
    }

    /// Remembers the events that were applied. One that was refused may come again.
    fn remember(&self, batch: &Batch<'_>, outcome: &[Vec<Applied>]) -> Result<(), StoreError> {
        let mut session = self.recent.session(batch.known_at_us)?;
        for (part, outcome) in batch.views.iter().zip(outcome) {
            for (work, outcome) in part.work.iter().zip(outcome) {
                if *outcome == Applied::Done
                    && let Some(record) = record_of(work, batch)
                {
                    session.remember(record)?;
                }
            }
        }
        Ok(())
    }

    fn apply_to_shard(
        &self,
        shard: usize,
        pieces: &[Piece],
        batch: &Batch<'_>,
        outcome: &mut [Vec<Applied>],
    ) -> Result<(), StoreError> {
        // Rows are read while others use the shard. Nobody else changes entities, so a row that is
        // not in memory now stays as it is.
        let missing: Vec<&Piece> = {
            let shard = self.cache.lock(shard);
            pieces
                .iter()
                .filter(|piece| !shard.holds(&piece.row_key))
                .collect()
        };
        let mut loaded = Vec::with_capacity(missing.len());
        let mut damaged: HashMap<&[u8], String> = HashMap::new();
        for piece in &missing {
            let view = &batch.views[piece.view].view;
            match read_row(&self.rows, &piece.row_key, view) {
                Ok(entity) => loaded.push((*piece, entity)),
                // This entity's changes are refused; all others go on.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::error!(view = view.name, %error, "changes of an entity are refused");
                    damaged.insert(&piece.row_key, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.meters.misses.increment(missing.len() as u64);
        self.meters
            .hits
            .increment((pieces.len() - missing.len()) as u64);
        let mut shard = self.cache.lock(shard);
        for (piece, entity) in loaded {
            shard.keep_loaded(&piece.row_key, &batch.views[piece.view].view, entity);
        }
        for piece in pieces {
            let part = &batch.views[piece.view];
            let work = &part.work[piece.work];
            let sequence = batch.sequence + work.change as u64;
            if let Some(problem) = damaged.get(piece.row_key.as_slice())
                && !matches!(work.action, Action::Remove)
            {
                outcome[piece.view][piece.work] = Applied::Refused(problem.clone());
                continue;
            }
            let applied = shard.change(&self.rows, &piece.row_key, &part.view, |entity| {
                if entity
                    .as_ref()
                    .is_some_and(|entity| entity.applied >= sequence)
                {
                    self.meters.replayed.increment(1);
                    return (Applied::Done, false);
                }
                if matches!(work.action, Action::Remove) {
                    return match entity.take() {
                        Some(_) => (Applied::Done, true),
                        None => (Applied::Absent, false),
                    };
                }
                let entity = entity.get_or_insert_default();
                let applied = entity.fold(&part.view, &work.action, sequence, batch.known_at_us);
                (applied, true)
            })?;
            outcome[piece.view][piece.work] = applied;
        }
        shard.evict(&self.rows, self.cache.shard_bytes())
    }

    /// Changes one entity beside the log.
    /// Changes an entity that exists by something that is not in the log; it lasts from the next
    /// checkpoint on.
    fn change_entity(
        &self,
        view: &Arc<View>,
        key: &str,
        change: impl FnOnce(&mut Entity),
    ) -> Result<(), StoreError> {
        let _changing = self.changing();
        let row_key = row_key(&view.name, key);
        let mut shard = self.cache.lock(self.cache.shard_of(&row_key));
        shard.change(&self.rows, &row_key, view, |entity| match entity {
            Some(entity) => {
                change(entity);
                ((), true)
            }
            None => ((), false),
        })?;
        shard.evict(&self.rows, self.cache.shard_bytes())?;
        drop(shard);
        self.progress().filled = true;
        Ok(())
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
