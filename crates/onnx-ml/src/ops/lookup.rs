//! Finding numbers that the file fixes: categories and labels. Texts are found by `text_lookup`.
//!
//! The tables are made when the file is loaded. Few keys are compared one after another, which beats
//! any hashing; whole numbers that lie close together are a table; the rest is hashed, with a seed
//! of its own, so that no file can choose keys that collide.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Up to this many keys are compared one after another.
const FEW: usize = 8;

/// Which of two equal keys counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeated {
    First,
    Last,
}

/// Places of keys.
#[derive(Debug)]
pub(crate) enum Lookup<K, S> {
    Few(Vec<(K, usize)>),
    Many(HashMap<K, usize, S>),
}

/// Places of numbers.
pub(crate) type NumberLookup<K> = Lookup<K, Factor>;

impl<K: Eq + Hash, S: BuildHasher + Default> Lookup<K, S> {
    pub fn new(keys: impl IntoIterator<Item = (K, usize)>, repeated: Repeated) -> Lookup<K, S> {
        let mut places = HashMap::with_hasher(S::default());
        for (key, place) in keys {
            match repeated {
                Repeated::First => {
                    places.entry(key).or_insert(place);
                }
                Repeated::Last => {
                    places.insert(key, place);
                }
            }
        }
        if places.len() > FEW {
            return Lookup::Many(places);
        }
        let mut few: Vec<(K, usize)> = places.into_iter().collect();
        few.sort_by_key(|(_, place)| *place);
        Lookup::Few(few)
    }

    pub fn find<Q>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        match self {
            Lookup::Few(places) => {
                for (candidate, place) in places {
                    if candidate.borrow() == key {
                        return Some(*place);
                    }
                }
                None
            }
            Lookup::Many(places) => places.get(key).copied(),
        }
    }
}

/// Hashes numbers of 64 bits by multiplication with a random one. Keys chosen without knowing it collide
/// no more often than by chance, and it costs a fraction of the usual hash.
#[derive(Debug, Clone)]
pub(crate) struct Factor(u64);

impl Default for Factor {
    fn default() -> Factor {
        // Each `RandomState` has keys of its own.
        Factor(RandomState::new().hash_one(0) | 1)
    }
}

impl BuildHasher for Factor {
    type Hasher = Product;

    fn build_hasher(&self) -> Product {
        Product {
            factor: self.0,
            hash: 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Product {
    factor: u64,
    hash: u64,
}

impl Hasher for Product {
    fn finish(&self) -> u64 {
        self.hash
    }

    /// Nothing but numbers is looked up here.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ self.hash) * u128::from(self.factor);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number as u64);
    }
}

/// Places of whole numbers.
#[derive(Debug)]
pub(crate) enum IntegerLookup {
    /// One entry per number from `first` on; [`NOWHERE`] for those that are no keys.
    Table {
        first: i64,
        places: Vec<usize>,
    },
    Scattered(NumberLookup<i64>),
}

const NOWHERE: usize = usize::MAX;

impl IntegerLookup {
    pub fn new(keys: &[(i64, usize)], repeated: Repeated) -> IntegerLookup {
        let least = keys.iter().map(|(key, _)| *key).min();
        let most = keys.iter().map(|(key, _)| *key).max();
        if let (Some(first), Some(last)) = (least, most)
            && let Some(span) = last.checked_sub(first)
            && let Ok(span) = usize::try_from(span)
            && span < keys.len().saturating_mul(4)
        {
            let mut places = vec![NOWHERE; span + 1];
            for (key, place) in keys {
                if let Some(entry) = entry(first, *key).and_then(|at| places.get_mut(at))
                    && (*entry == NOWHERE || repeated == Repeated::Last)
                {
                    *entry = *place;
                }
            }
            return IntegerLookup::Table { first, places };
        }
        IntegerLookup::Scattered(Lookup::new(keys.iter().copied(), repeated))
    }

    pub fn find(&self, key: i64) -> Option<usize> {
        match self {
            IntegerLookup::Table { first, places } => {
                let place = places.get(entry(*first, key)?).copied()?;
                (place != NOWHERE).then_some(place)
            }
            IntegerLookup::Scattered(places) => places.find(&key),
        }
    }
}

fn entry(first: i64, key: i64) -> Option<usize> {
    usize::try_from(key.checked_sub(first)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_repeated_keys_the_asked_one_counts() {
        for extra in [0, 100] {
            let mut keys = vec![(1, 0), (2, 1), (1, 2)];
            keys.extend((0..extra).map(|i| (1000 * i + 10_000, 3)));
            assert_eq!(IntegerLookup::new(&keys, Repeated::First).find(1), Some(0));
            assert_eq!(IntegerLookup::new(&keys, Repeated::Last).find(1), Some(2));
            let lookup = NumberLookup::new(keys.iter().copied(), Repeated::Last);
            assert_eq!(lookup.find(&1), Some(2));
            assert_eq!(lookup.find(&7), None);
        }
    }

    #[test]
    fn the_ends_of_the_range_are_keys_like_others() {
        let lookup = IntegerLookup::new(&[(i64::MIN, 0), (i64::MAX, 1)], Repeated::Last);
        assert_eq!(lookup.find(i64::MIN), Some(0));
        assert_eq!(lookup.find(i64::MAX), Some(1));
        assert_eq!(lookup.find(0), None);
        let lookup = IntegerLookup::new(&[(5, 0), (7, 1)], Repeated::Last);
        for absent in [i64::MIN, 4, 6, 8, i64::MAX] {
            assert_eq!(lookup.find(absent), None);
        }
        assert_eq!(IntegerLookup::new(&[], Repeated::Last).find(0), None);
    }
}
