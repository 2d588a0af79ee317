//! How many different values there were.
//!
//! A tile keeps the 64-bit hashes of up to 64 values; above that it becomes a HyperLogLog of 1,024
//! registers. A window whose tiles are all hashes, at most 1,024 of them, is counted exactly;
//! otherwise the count is an estimate with a standard error of 3.3 %. Either way it depends only on
//! which values there were, not on their order or repetition.
//!
//! Which of the two it is must not depend on what is kept of blocks. So a block remembers how many
//! hashes its tiles have, one that is in several counted as often, and has registers only where no
//! window with all of its tiles could be counted exactly.

use super::groups::{Group, Groups};
use super::registers::{REGISTERS, Registers, estimate, note, raise, registers_of};
use super::tiles::{Content, Tile};

/// The most hashes a tile keeps one by one.
pub const MAX_HASHES: usize = 64;

/// The most hashes of one window that are counted one by one.
const MAX_COUNTED: usize = 1024;

#[derive(Clone, Debug, PartialEq)]
pub enum Distinct {
    /// Sorted.
    Few(Box<[u64]>),
    Many(Box<Registers>),
}

/// The tiles of a block together.
#[derive(Clone, Debug, PartialEq)]
pub enum Together {
    /// All tiles are hashes; these are the different ones, sorted.
    Few {
        hashes: Vec<u64>,
        /// How many the tiles have.
        kept: usize,
    },
    Many(Box<Registers>),
}

impl Default for Distinct {
    fn default() -> Self {
        Distinct::Few(Box::default())
    }
}

impl Distinct {
    pub fn add(&mut self, hash: u64) {
        match self {
            Distinct::Few(hashes) => {
                if let Err(position) = hashes.binary_search(&hash) {
                    let mut more = std::mem::take(hashes).into_vec();
                    more.reserve_exact(1);
                    more.insert(position, hash);
                    *self = if more.len() > MAX_HASHES {
                        Distinct::Many(registers_of(&more))
                    } else {
                        Distinct::Few(more.into_boxed_slice())
                    };
                }
            }
            Distinct::Many(registers) => note(registers, hash),
        }
    }

    /// The same for a tile of a block of which is kept `together`; whether that says so now.
    pub fn add_late(&mut self, hash: u64, together: Option<&mut Together>) -> bool {
        let before = self.kept();
        self.add(hash);
        together.is_some_and(|together| together.add(hash, before, self.kept()))
    }

    /// How many hashes it keeps; none of a HyperLogLog.
    fn kept(&self) -> Option<usize> {
        match self {
            Distinct::Few(hashes) => Some(hashes.len()),
            Distinct::Many(_) => None,
        }
    }

    fn raise(&self, registers: &mut Registers) {
        match self {
            Distinct::Few(hashes) => hashes.iter().for_each(|hash| note(registers, *hash)),
            Distinct::Many(theirs) => raise(registers, theirs),
        }
    }
}

impl Content for Distinct {
    type Merged = Together;

    fn merge(&mut self, other: &Distinct) {
        match other {
            Distinct::Few(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            Distinct::Many(theirs) => {
                if let Distinct::Few(hashes) = self {
                    *self = Distinct::Many(registers_of(hashes));
                }
                if let Distinct::Many(ours) = self {
                    raise(ours, theirs);
                }
            }
        }
    }

    fn merged(tiles: &[Tile<Distinct>]) -> Option<Together> {
        let kept = tiles
            .iter()
            .try_fold(0, |sum, tile| Some(sum + tile.content.kept()?));
        if let Some(kept) = kept
            && kept <= MAX_COUNTED
        {
            let mut hashes = Vec::with_capacity(kept);
            for tile in tiles {
                if let Distinct::Few(more) = &tile.content {
                    hashes.extend_from_slice(more);
                }
            }
            hashes.sort_unstable();
            hashes.dedup();
            hashes.shrink_to_fit();
            return Some(Together::Few { hashes, kept });
        }
        let mut registers = Box::new([0; REGISTERS]);
        tiles
            .iter()
            .for_each(|tile| tile.content.raise(&mut registers));
        Some(Together::Many(registers))
    }

    fn append(together: &mut Together, next: &Distinct) -> bool {
        if let Together::Few { hashes, kept } = together {
            if let Distinct::Few(more) = next
                && *kept + more.len() <= MAX_COUNTED
            {
                *kept += more.len();
                more.iter().for_each(|hash| insert(hashes, *hash));
                return true;
            }
            *together = Together::Many(registers_of(hashes));
        }
        if let Together::Many(registers) = together {
            next.raise(registers);
        }
        true
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Distinct::Few(hashes) => size_of_val::<[u64]>(hashes),
            Distinct::Many(_) => REGISTERS,
        }
    }

    fn merged_heap_bytes(together: &Together) -> usize {
        match together {
            Together::Few { hashes, .. } => hashes.capacity() * size_of::<u64>(),
            Together::Many(_) => REGISTERS,
        }
    }
}

impl Together {
    /// Adds a hash to one of the tiles, which kept so many hashes before and after; whether it is what
    /// the tiles say now.
    fn add(&mut self, hash: u64, before: Option<usize>, after: Option<usize>) -> bool {
        match self {
            Together::Few { hashes, kept } => {
                let more = before.zip(after).map(|(before, after)| after - before);
                match more {
                    Some(more) if *kept + more <= MAX_COUNTED => {
                        *kept += more;
                        insert(hashes, hash);
                        true
                    }
                    _ => false,
                }
            }
            Together::Many(registers) => {
                note(registers, hash);
                true
            }
        }
    }

    fn raise(&self, registers: &mut Registers) {
        match self {
            Together::Few { hashes, .. } => hashes.iter().for_each(|hash| note(registers, *hash)),
            Together::Many(theirs) => raise(registers, theirs),
        }
    }
}

fn insert(hashes: &mut Vec<u64>, hash: u64) {
    if let Err(position) = hashes.binary_search(&hash) {
        if hashes.len() == hashes.capacity() {
            hashes.reserve_exact(1 + hashes.len() / 4);
        }
        hashes.insert(position, hash);
    }
}

/// How many different values there were in all of a window.
pub fn count(groups: Groups<'_, Distinct>) -> u64 {
    let mut few = Vec::new();
    let mut kept = 0;
    for group in groups.clone() {
        match group {
            Group::Merged(Together::Few { hashes, kept: more }) => {
                few.push(hashes.as_slice());
                kept += more;
            }
            Group::Merged(Together::Many(_)) => return estimated(groups),
            Group::Tiles(tiles) => {
                for tile in tiles {
                    let Distinct::Few(hashes) = &tile.content else {
                        return estimated(groups);
                    };
                    few.push(hashes);
                    kept += hashes.len();
                }
            }
        }
        if kept > MAX_COUNTED {
            return estimated(groups);
        }
    }
    counted(&few)
}

/// How many different hashes there are in lists without repetition: by a table that is at most half
/// full, in which a hash is at the place that its first bits say or soon after.
fn counted(lists: &[&[u64]]) -> u64 {
    if let [list] = lists {
        return list.len() as u64;
    }
    let kept: usize = lists.iter().map(|list| list.len()).sum();
    let places_bits = (2 * kept).max(2).next_power_of_two().ilog2();
    let mut table = vec![0u64; 1 << places_bits];
    let (mut count, mut zero) = (0, 0);
    for hash in lists.iter().copied().flatten().copied() {
        if hash == 0 {
            zero = 1;
            continue;
        }
        let mut place = (hash >> (u64::BITS - places_bits)) as usize;
        while table[place] != hash {
            if table[place] == 0 {
                table[place] = hash;
                count += 1;
            } else {
                place = (place + 1) % table.len();
            }
        }
    }
    count + zero
}

fn estimated(groups: Groups<'_, Distinct>) -> u64 {
    let mut registers = [0; REGISTERS];
    for group in groups {
        match group {
            Group::Merged(together) => together.raise(&mut registers),
            Group::Tiles(tiles) => tiles
                .iter()
                .for_each(|tile| tile.content.raise(&mut registers)),
        }
    }
    estimate(&registers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::windows::tiles::Tiles;

    fn hash(value: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&value.to_le_bytes())
    }

    fn of(values: impl Iterator<Item = u64>) -> Distinct {
        let mut distinct = Distinct::default();
        values.for_each(|value| distinct.add(hash(value)));
        distinct
    }

    /// How many there are in tiles one after the other.
    fn count_of(tiles: Vec<Distinct>) -> u64 {
        let tiles = (0..)
            .zip(tiles)
            .map(|(number, content)| Tile { number, content });
        let tiles = Tiles::of(tiles.collect());
        count(tiles.since(0, 1_000))
    }

    #[test]
    fn few_values_are_counted_exactly_over_many_tiles() {
        let tiles = (0..20).map(|tile| of(tile * 30..tile * 30 + 50)).collect();
        assert_eq!(count_of(tiles), 19 * 30 + 50);
        assert_eq!(count_of(Vec::new()), 0);
    }

    #[test]
    fn any_hashes_are_counted() {
        let beside = [0, 1, u64::MAX, u64::MAX - 1, 1];
        assert_eq!(counted(&[&beside, &[0, 2]]), 5);
        let crowded: Vec<u64> = (u64::MAX - 1023..=u64::MAX).collect();
        assert_eq!(counted(&[&crowded, &[]]), 1024);
    }

    #[test]
    fn many_values_are_estimated_within_a_tenth() {
        for number in [65, 100, 1_000, 10_000, 1_000_000] {
            let estimated = count_of(vec![of(0..number)]) as f64;
            let error = (estimated / number as f64 - 1.0).abs();
            assert!(error < 0.1, "{number}: {estimated}");
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let forward = of((0..500).chain(0..500));
        assert_eq!(forward, of((0..500).rev()));
        let mut halves = of(0..300);
        halves.merge(&of(200..500));
        assert_eq!(halves, forward);
        let mut few = of(0..10);
        few.merge(&of(5..500));
        assert_eq!(few, forward);
    }
}
