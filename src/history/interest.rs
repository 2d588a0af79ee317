//! Which entities observations are of, and how far they see: changes of other entities, and later ones,
//! need not be sorted.
//!
//! Memory: 64 MB at most; when observations are of more than [`MAX_ENTITIES`] entities, the changes of
//! all are taken.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, Int64Array, StringArray};
use xxhash_rust::xxh3::xxh3_64;

/// Beyond this many entities they are not told apart.
pub const MAX_ENTITIES: usize = 2_000_000;

/// What observations are interested in; filled while they are read, taken when they are.
#[derive(Debug)]
pub struct Interest {
    gathered: Mutex<Gathered>,
}

/// The interest of all observations.
#[derive(Debug)]
pub struct Gathered {
    /// Hashes of the keys; `None` for all entities. Two keys of the same hash are taken both.
    entities: Option<HashSet<u64>>,
    /// The last place that any of them sees.
    until: i64,
}

impl Default for Interest {
    fn default() -> Interest {
        Interest {
            gathered: Mutex::new(Gathered {
                entities: Some(HashSet::new()),
                until: i64::MIN,
            }),
        }
    }
}

impl Interest {
    /// Adds observations: whom they are of, and the last place that each sees.
    pub fn add(&self, keys: &StringArray, untils: &Int64Array) {
        let mut guard = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = &mut *guard;
        for row in (0..keys.len()).filter(|&row| keys.is_valid(row)) {
            gathered.until = gathered.until.max(untils.value(row));
            if let Some(entities) = &mut gathered.entities {
                entities.insert(xxh3_64(keys.value(row).as_bytes()));
                if entities.len() > MAX_ENTITIES {
                    gathered.entities = None;
                }
            }
        }
    }

    /// What was added, which is nothing from then on.
    pub fn take(&self) -> Gathered {
        let mut guard = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = Gathered {
            entities: Some(HashSet::new()),
            until: i64::MIN,
        };
        std::mem::replace(&mut *guard, nothing)
    }
}

impl Gathered {
    /// Whether a change of the entity `key` at `place` may matter.
    pub fn covers(&self, key: &str, place: i64) -> bool {
        let known = self.entities.as_ref();
        place <= self.until
            && known.is_none_or(|entities| entities.contains(&xxh3_64(key.as_bytes())))
    }
}
