//! Finding texts that the file fixes: categories and labels.
//!
//! Looking up a category is most of what encoding one costs, and categories are short. A text is told by
//! its length, its first eight bytes and its last eight, which are all of it up to sixteen bytes; only
//! longer ones are compared whole. The table has room for four times its keys and is hashed with a seed
//! of its own, so that no file can choose keys that collide.

use std::hash::{BuildHasher, RandomState};

use compact_str::CompactString;

use super::lookup::Repeated;

/// Texts up to this length are known by their ends.
const SHORT: usize = 16;

/// Places of texts.
#[derive(Debug)]
pub(crate) struct TextLookup {
    /// A power of two of entries, those that are free with [`FREE`] as their length.
    entries: Vec<Entry>,
    /// The keys, for those that are long.
    keys: Vec<CompactString>,
    seeds: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    ends: Ends,
    key: usize,
    place: usize,
}

/// The length of a text, its first bytes and its last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    length: usize,
    first: u64,
    last: u64,
}

/// No text has this length.
const FREE: usize = usize::MAX;

impl Ends {
    #[inline(always)]
    fn of(text: &[u8]) -> Ends {
        let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
                (Some(first), Some(last)) => (
                    u64::from(u32::from_le_bytes(*first)),
                    u64::from(u32::from_le_bytes(*last)),
                ),
                _ => {
                    // Up to three bytes: the first, the middle and the last.
                    let at = |place: usize| text.get(place).map_or(0, |byte| u64::from(*byte));
                    let end = text.len().saturating_sub(1);
                    (at(0) << 8 | at(text.len() / 2), at(end))
                }
            },
        };
        Ends {
            length: text.len(),
            first,
            last,
        }
    }
}

impl TextLookup {
    pub fn new(
        keys: impl IntoIterator<Item = (CompactString, usize)>,
        repeated: Repeated,
    ) -> TextLookup {
        let keys: Vec<(CompactString, usize)> = keys.into_iter().collect();
        let random = RandomState::new();
        let size = (4 * keys.len()).next_power_of_two();
        let free = Entry {
            ends: Ends {
                length: FREE,
                first: 0,
                last: 0,
            },
            key: 0,
            place: 0,
        };
        let mut lookup = TextLookup {
            entries: vec![free; size],
            keys: Vec::with_capacity(keys.len()),
            seeds: [random.hash_one(0), random.hash_one(1)],
        };
        for (key, place) in keys {
            let (at, is_there) = lookup.entry(&key);
            if is_there && repeated == Repeated::First {
                continue;
            }
            lookup.entries[at] = Entry {
                ends: Ends::of(key.as_bytes()),
                key: lookup.keys.len(),
                place,
            };
            lookup.keys.push(key);
        }
        lookup
    }

    #[inline]
    pub fn find(&self, text: &CompactString) -> Option<usize> {
        let (at, is_there) = self.entry(text);
        is_there.then(|| self.entries[at].place)
    }

    /// Where the text is, or where it would be.
    #[inline(always)]
    fn entry(&self, text: &CompactString) -> (usize, bool) {
        let ends = Ends::of(text.as_bytes());
        let mask = self.entries.len() - 1;
        let left = ends.first ^ self.seeds[0];
        let right = ends.last ^ self.seeds[1].wrapping_add(ends.length as u64);
        let product = u128::from(left) * u128::from(right);
        let mut at = (product as u64 ^ (product >> 64) as u64) as usize & mask;
        // Three quarters are free, so this ends.
        loop {
            let entry = &self.entries[at];
            if entry.ends == ends && (ends.length <= SHORT || self.keys[entry.key] == *text) {
                return (at, true);
            }
            if entry.ends.length == FREE {
                return (at, false);
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize, at: usize, letter: char) -> CompactString {
        let letters = (0..length).map(|place| if place == at { letter } else { 'a' });
        letters.collect()
    }

    #[test]
    fn texts_of_any_length_are_found_and_their_neighbours_are_not() {
        let keys: Vec<CompactString> = (0..40)
            .map(|length| text(length, length / 2, 'x'))
            .collect();
        let lookup = TextLookup::new(keys.iter().cloned().zip(0..), Repeated::Last);
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(lookup.find(key), Some(place), "{key}");
        }
        for length in 1..45 {
            for at in 0..length {
                assert_eq!(lookup.find(&text(length, at, 'y')), None);
            }
        }
    }

    #[test]
    fn texts_that_differ_in_one_byte_are_told_apart() {
        let mut keys = Vec::new();
        for length in 1..24 {
            keys.extend((0..length).map(|at| text(length, at, 'x')));
        }
        let lookup = TextLookup::new(keys.iter().cloned().zip(0..), Repeated::Last);
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(lookup.find(key), Some(place), "{key}");
        }
    }

    #[test]
    fn of_repeated_keys_the_asked_one_counts() {
        let keys = || [("a", 0), ("b", 1), ("a", 2)].map(|(key, place)| (key.into(), place));
        let find = |lookup: TextLookup, key: &str| lookup.find(&key.into());
        assert_eq!(find(TextLookup::new(keys(), Repeated::First), "a"), Some(0));
        assert_eq!(find(TextLookup::new(keys(), Repeated::Last), "a"), Some(2));
        assert_eq!(find(TextLookup::new([], Repeated::Last), ""), None);
    }
}
