//! The entities in memory, decoded, in shards with a lock each.
//!
//! A shard keeps what was used last and lets go of the rest (second chance), writing it to its row
//! first where the row is older. An entity that is not in memory is therefore in its row as it is now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::rows::{RowWrite, Rows};
use crate::features::view::View;
use crate::store::entity::Entity;
use crate::store::memory::allocated;
use crate::store::{Snapshot, StoreError};

/// How many shards; two threads meet in one now and then only.
const SHARDS: usize = 64;

/// What a cached entity costs beside its key and its contents: the slot, with what the list of slots has
/// in reserve, and its place in the index, which is a little more than half full on the average.
const SLOT_BYTES: usize = size_of::<Slot>() * 17 / 16 + 2 * size_of::<(Arc<[u8]>, u32)>();

/// What a shared key has beside its bytes.
const KEY_BYTES: usize = 2 * size_of::<usize>();

/// The whole cache.
pub struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// Bytes that a shard keeps.
    shard_bytes: usize,
}

/// One entity in memory.
struct Slot {
    row_key: Arc<[u8]>,
    /// The view that `entity` was decoded or folded under.
    view: Arc<View>,
    /// `None`: there is no such entity.
    entity: Option<Entity>,
    /// The row is older.
    dirty: bool,
    /// A checkpoint is about to write the row: until then the slot stays.
    writing: bool,
    /// Used since the eviction last came by.
    used: bool,
    bytes: u32,
}

/// A part of the cache. Slots keep their place for as long as they are there.
#[derive(Default)]
pub struct Shard {
    index: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    dirty: usize,
    /// Moves on whenever an entity changes.
    version: u64,
}

/// How much is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub entities: usize,
    pub bytes: usize,
    pub dirty: usize,
}

/// What a shard can say of an entity at once.
pub enum Found {
    /// This is what is known of it.
    Snapshot(Option<Snapshot>),
    /// Its row says it; the version is that of the shard.
    InRow { version: u64 },
}

impl Cache {
    pub fn new(bytes: usize) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_bytes: bytes / SHARDS,
        }
    }

    /// The shard that a row's entity is in.
    pub fn shard_of(&self, row_key: &[u8]) -> usize {
        xxh3_64(row_key) as usize % SHARDS
    }

    pub fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn shards(&self) -> usize {
        SHARDS
    }

    /// How many bytes a shard keeps.
    pub fn shard_bytes(&self) -> usize {
        self.shard_bytes
    }

    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for shard in 0..SHARDS {
            let shard = self.lock(shard);
            usage.entities += shard.index.len();
            usage.bytes += shard.bytes;
            usage.dirty += shard.dirty;
        }
        usage
    }
}

impl Slot {
    fn is_under(&self, view: &Arc<View>) -> bool {
        Arc::ptr_eq(&self.view, view) || self.view.digest == view.digest
    }

    fn size(&self) -> u32 {
        let entity = self.entity.as_ref().map_or(0, Entity::heap_bytes);
        let bytes = SLOT_BYTES + allocated(KEY_BYTES + self.row_key.len()) + entity;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn value(&self) -> Option<Vec<u8>> {
        self.entity.as_ref().map(|entity| entity.encode(&self.view))
    }

    /// The entity as `view` reads it.
    fn under(&self, view: &View) -> Result<Option<Entity>, StoreError> {
        let value = self.value();
        value.map(|bytes| Entity::decode(view, &bytes)).transpose()
    }
}

impl Shard {
    pub fn holds(&self, row_key: &[u8]) -> bool {
        self.index.contains_key(row_key)
    }

    /// What a reader under `view` sees of an entity at `at_us`.
    pub fn find(
        &mut self,
        row_key: &[u8],
        view: &Arc<View>,
        at_us: i64,
    ) -> Result<Found, StoreError> {
        let version = self.version;
        let Some(slot) = self.slot(row_key) else {
            return Ok(Found::InRow { version });
        };
        slot.used = true;
        if slot.is_under(view) {
            let entity = slot.entity.as_ref();
            return Ok(Found::Snapshot(
                entity.map(|entity| entity.snapshot(view, at_us)),
            ));
        }
        if !slot.dirty && !slot.writing {
            // The row may have more than was read of it under another view.
            return Ok(Found::InRow { version });
        }
        let entity = slot.under(view)?;
        Ok(Found::Snapshot(
            entity.map(|entity| entity.snapshot(view, at_us)),
        ))
    }

    /// What a reader under `view` sees at `at_us` of an entity that is newer than its row, or may be; `None`
    /// of one that is as in its row. It does not count as used: whoever reads all of them reads each once.
    pub fn peek(
        &self,
        row_key: &[u8],
        view: &Arc<View>,
        at_us: i64,
    ) -> Result<Option<Option<Snapshot>>, StoreError> {
        let place = self.index.get(row_key);
        let slot = place.and_then(|place| self.slots.get(*place as usize)?.as_ref());
        let Some(slot) = slot.filter(|slot| slot.dirty || slot.writing) else {
            return Ok(None);
        };
        if slot.is_under(view) {
            let entity = slot.entity.as_ref();
            return Ok(Some(entity.map(|entity| entity.snapshot(view, at_us))));
        }
        let entity = slot.under(view)?;
        Ok(Some(entity.map(|entity| entity.snapshot(view, at_us))))
    }

    /// Keeps what a reader found in a row when the shard was at `version`. Returns whether that is
    /// how the entity is now.
    pub fn keep_read(
        &mut self,
        row_key: &[u8],
        view: &Arc<View>,
        entity: Entity,
        version: u64,
    ) -> bool {
        if self.version != version {
            return false;
        }
        if let Some(&place) = self.index.get(row_key) {
            let Some(slot) = &self.slots[place as usize] else {
                return true;
            };
            if slot.dirty || slot.writing || slot.is_under(view) {
                return true;
            }
            // It is there under another view, and no newer.
            self.remove(place);
        }
        self.insert(row_key, view, Some(entity));
        true
    }

    /// Keeps what the one that changes entities found in a row, unless a reader was faster.
    pub fn keep_loaded(&mut self, row_key: &[u8], view: &Arc<View>, entity: Option<Entity>) {
        if !self.holds(row_key) {
            self.insert(row_key, view, entity);
        }
    }

    /// Changes an entity, which is read from its row where that has to be. `change` returns what became
    /// of it, and whether it was changed.
    pub fn change<R>(
        &mut self,
        rows: &Rows,
        row_key: &[u8],
        view: &Arc<View>,
        change: impl FnOnce(&mut Option<Entity>) -> (R, bool),
    ) -> Result<R, StoreError> {
        if !self.holds(row_key) {
            let entity = read_row(rows, row_key, view)?;
            self.insert(row_key, view, entity);
        }
        let place = self.index.get(row_key).copied();
        let slot = place.and_then(|place| self.slots.get_mut(place as usize)?.as_mut());
        let Some(slot) = slot else {
            return Err(StoreError::Io("an entity left the cache early".to_owned()));
        };
        if !slot.is_under(view) {
            let entity = if slot.dirty || slot.writing {
                slot.under(view)?
            } else {
                read_row(rows, row_key, view)?
            };
            slot.entity = to_keep(entity);
        }
        slot.view = Arc::clone(view);
        slot.used = true;
        let (result, changed) = change(&mut slot.entity);
        let newly_dirty = changed && !slot.dirty;
        slot.dirty |= changed;
        self.dirty += usize::from(newly_dirty);
        self.version += u64::from(changed);
        let before = slot.bytes;
        slot.bytes = slot.size();
        self.bytes = self.bytes - before as usize + slot.bytes as usize;
        Ok(result)
    }

    /// Lets go of entities until the shard takes at most `bytes`.
    pub fn evict(&mut self, rows: &Rows, bytes: usize) -> Result<(), StoreError> {
        // Everything is looked at twice at most: to take its second chance, and to let it go.
        let mut looks = 2 * self.slots.len();
        while self.bytes > bytes && looks > 0 {
            looks -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = &mut self.slots[self.hand] else {
                continue;
            };
            if slot.used || slot.writing {
                slot.used = false;
                continue;
            }
            if slot.dirty {
                rows.put(&slot.row_key, slot.value())?;
                slot.dirty = false;
                self.dirty -= 1;
            }
            self.remove(self.hand as u32);
        }
        Ok(())
    }

    /// Encodes at most `limit` dirty entities from place `from` on, which are held from now on until
    /// [`Shard::written`]. Returns where to go on; `None` at the end.
    pub fn take_dirty(
        &mut self,
        from: usize,
        limit: usize,
        taken: &mut Vec<(usize, RowWrite)>,
    ) -> Option<usize> {
        for place in from..self.slots.len() {
            if taken.len() >= limit {
                return Some(place);
            }
            let Some(slot) = &mut self.slots[place] else {
                continue;
            };
            if slot.dirty {
                taken.push((place, (Arc::clone(&slot.row_key), slot.value())));
                slot.dirty = false;
                slot.writing = true;
                self.dirty -= 1;
            }
        }
        None
    }

    /// Says that the entities at `places` were written to their rows, or that this failed.
    pub fn written(&mut self, places: impl Iterator<Item = usize>, succeeded: bool) {
        for place in places {
            if let Some(Some(slot)) = self.slots.get_mut(place) {
                slot.writing = false;
                if !succeeded && !slot.dirty {
                    slot.dirty = true;
                    self.dirty += 1;
                }
            }
        }
    }

    fn slot(&mut self, row_key: &[u8]) -> Option<&mut Slot> {
        let place = *self.index.get(row_key)?;
        self.slots[place as usize].as_mut()
    }

    fn insert(&mut self, row_key: &[u8], view: &Arc<View>, entity: Option<Entity>) {
        let row_key: Arc<[u8]> = row_key.into();
        let mut slot = Slot {
            row_key: Arc::clone(&row_key),
            view: Arc::clone(view),
            entity: to_keep(entity),
            dirty: false,
            writing: false,
            used: true,
            bytes: 0,
        };
        slot.bytes = slot.size();
        self.bytes += slot.bytes as usize;
        let place = if let Some(place) = self.free.pop() {
            self.slots[place as usize] = Some(slot);
            place
        } else {
            self.make_room();
            self.slots.push(Some(slot));
            // Four thousand million slots take more memory than there is.
            (self.slots.len() - 1) as u32
        };
        self.index.insert(row_key, place);
    }

    /// Doubling, as a vector does by itself, would leave a quarter of the slots unused on the average.
    fn make_room(&mut self) {
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(16 + self.slots.len() / 8);
        }
    }

    fn remove(&mut self, place: u32) {
        if let Some(slot) = self.slots[place as usize].take() {
            self.index.remove(&slot.row_key);
            self.bytes -= slot.bytes as usize;
            self.free.push(place);
        }
    }
}

/// What stays in memory is read more than once, so its windows are made quick to read.
fn to_keep(mut entity: Option<Entity>) -> Option<Entity> {
    if let Some(entity) = &mut entity {
        entity.windows.condense();
    }
    entity
}

/// Reads an entity from its row.
pub fn read_row(rows: &Rows, row_key: &[u8], view: &View) -> Result<Option<Entity>, StoreError> {
    let bytes = rows.get(row_key)?;
    bytes.map(|bytes| Entity::decode(view, &bytes)).transpose()
}
