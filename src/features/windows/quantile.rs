//! Quantiles within 1 % of the value.
//!
//! Values are counted in buckets whose bounds grow by the same factor each, so that the middle of a
//! bucket is within 1 % of everything in it, whatever its size. Negative values have buckets of
//! their own, and so has zero. A tile keeps at most 512 buckets; the lowest values share the lowest
//! one when there are more, which takes values that differ by a factor of more than 28,000. Which
//! buckets there are and what they count does not depend on the order of the values.
//!
//! The quantile `q` of `n` values is the one of rank `floor(q * (n - 1))`, the smallest having rank 0.

use super::groups::{Group, Groups};
use super::tiles::{Content, Tile};

/// The most buckets of a tile.
pub const MAX_BUCKETS: usize = 512;

/// So many keys for each bucket are too many to have a counter each.
const SPARSE: usize = 16;

/// The relative error.
const ACCURACY: f64 = 0.01;

/// Added to the numbers of buckets so that those of all positive floats are above zero.
const OFFSET: i32 = 40_000;

/// No bucket of a float has a number further from zero.
pub const MAX_KEY: u32 = 2 * OFFSET as u32;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// In the order of the values: negative for negative ones, 0 for zero.
    pub key: i32,
    pub count: u32,
}

/// The buckets of a tile, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    pub list: Box<[Bucket]>,
}

/// The buckets of the tiles of a block together: as many as the tiles have.
#[derive(Clone, Debug, PartialEq)]
pub struct Together {
    list: Vec<Bucket>,
}

fn growth() -> f64 {
    (1.0 + ACCURACY) / (1.0 - ACCURACY)
}

/// The bucket of a value.
fn key_of(value: f64) -> i32 {
    if value == 0.0 {
        return 0;
    }
    let key = (value.abs().ln() / growth().ln()).ceil() as i32 + OFFSET;
    if value < 0.0 { -key } else { key }
}

/// The value in the middle of a bucket.
fn middle_of(key: i32) -> f64 {
    if key == 0 {
        return 0.0;
    }
    let power = f64::from(key.abs() - OFFSET);
    // In logarithms, because the upper bound of the last bucket is above the largest float.
    let logarithm = power * growth().ln() + (2.0 / (growth() + 1.0)).ln();
    let middle = logarithm.exp().min(f64::MAX);
    if key < 0 { -middle } else { middle }
}

impl Buckets {
    pub fn add(&mut self, value: f64) {
        self.add_bucket(Bucket {
            key: key_of(value),
            count: 1,
        });
    }

    /// The same for a tile of a block of which is kept `together`; whether that says so now.
    pub fn add_late(&mut self, value: f64, together: Option<&mut Together>) -> bool {
        // A full one may put the value, or others, in another bucket.
        let may_move = self.list.len() >= MAX_BUCKETS;
        self.add(value);
        let key = key_of(value);
        let add = |together: &mut Together| together.add(Bucket { key, count: 1 });
        !may_move && together.is_some_and(add)
    }

    fn add_bucket(&mut self, bucket: Bucket) {
        match self.list.binary_search_by_key(&bucket.key, |b| b.key) {
            Ok(found) => {
                let count = &mut self.list[found].count;
                *count = count.saturating_add(bucket.count);
            }
            // Lower than all that still have their own.
            Err(0) if self.list.len() >= MAX_BUCKETS => {
                let count = &mut self.list[0].count;
                *count = count.saturating_add(bucket.count);
            }
            Err(position) => {
                let mut more = std::mem::take(&mut self.list).into_vec();
                more.reserve_exact(1);
                more.insert(position, bucket);
                if more.len() > MAX_BUCKETS {
                    let lowest = more.remove(0);
                    let count = &mut more[0].count;
                    *count = count.saturating_add(lowest.count);
                }
                self.list = more.into_boxed_slice();
            }
        }
    }
}

impl Together {
    /// Adds to a bucket; false when it would overflow.
    fn add(&mut self, bucket: Bucket) -> bool {
        match self.list.binary_search_by_key(&bucket.key, |b| b.key) {
            Ok(found) => {
                let count = &mut self.list[found].count;
                let more = count.checked_add(bucket.count);
                *count = more.unwrap_or(*count);
                more.is_some()
            }
            Err(position) => {
                if self.list.len() == self.list.capacity() {
                    self.list.reserve_exact(1 + self.list.len() / 4);
                }
                self.list.insert(position, bucket);
                true
            }
        }
    }
}

impl Content for Buckets {
    type Merged = Together;

    fn merge(&mut self, other: &Buckets) {
        other
            .list
            .iter()
            .for_each(|bucket| self.add_bucket(*bucket));
    }

    fn merged(tiles: &[Tile<Buckets>]) -> Option<Together> {
        let lists: Vec<&[Bucket]> = tiles.iter().map(|tile| &*tile.content.list).collect();
        let mut list = Vec::new();
        for (key, count) in counted(&lists) {
            let count = u32::try_from(count).ok()?;
            list.push(Bucket { key, count });
        }
        list.shrink_to_fit();
        Some(Together { list })
    }

    fn append(together: &mut Together, next: &Buckets) -> bool {
        next.list.iter().all(|bucket| together.add(*bucket))
    }

    fn heap_bytes(&self) -> usize {
        size_of_val::<[Bucket]>(&self.list)
    }

    fn merged_heap_bytes(together: &Together) -> usize {
        together.list.capacity() * size_of::<Bucket>()
    }
}

/// The quantile `q` (0 to 1) of all values of a window.
pub fn quantile(groups: Groups<'_, Buckets>, q: f64) -> Option<f64> {
    let mut lists: Vec<&[Bucket]> = Vec::new();
    for group in groups {
        match group {
            Group::Merged(together) => lists.push(&together.list),
            Group::Tiles(tiles) => lists.extend(tiles.iter().map(|tile| &*tile.content.list)),
        }
    }
    let buckets = counted(&lists);
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    let rank = (q * (total.saturating_sub(1)) as f64).floor() as u64;
    let mut below = 0;
    let found = buckets.iter().find(|(_, count)| {
        below += count;
        below > rank
    });
    found.or(buckets.last()).map(|(key, _)| middle_of(*key))
}

/// The buckets of all lists, by key. Where there are many close together, by a counter for every key
/// there could be, which is quicker than sorting.
fn counted(lists: &[&[Bucket]]) -> Vec<(i32, u64)> {
    let lowest = lists
        .iter()
        .filter_map(|list| list.first())
        .map(|b| b.key)
        .min();
    let highest = lists
        .iter()
        .filter_map(|list| list.last())
        .map(|b| b.key)
        .max();
    let (Some(lowest), Some(highest)) = (lowest, highest) else {
        return Vec::new();
    };
    let buckets = lists.iter().copied().flatten();
    let number: usize = lists.iter().map(|list| list.len()).sum();
    // Keys are at most 18 bits.
    let keys = (highest - lowest) as usize + 1;
    if keys > SPARSE * number {
        let mut sorted: Vec<(i32, u64)> = buckets.map(|b| (b.key, b.count.into())).collect();
        sorted.sort_unstable();
        sorted.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        return sorted;
    }
    let mut counts = vec![0u64; keys];
    for bucket in buckets {
        if let Some(count) = counts.get_mut((bucket.key - lowest) as usize) {
            *count += u64::from(bucket.count);
        }
    }
    let counts = (lowest..).zip(counts);
    counts.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::windows::tiles::Tiles;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Buckets {
        let mut buckets = Buckets::default();
        values.iter().for_each(|value| buckets.add(*value));
        buckets
    }

    #[test]
    fn the_ends_of_the_floats_have_buckets() {
        for value in [f64::MAX, f64::MIN_POSITIVE, 5e-324, -f64::MAX, -5e-324] {
            let key = key_of(value);
            assert!(key.unsigned_abs() < MAX_KEY && key != 0, "{value}");
            assert_eq!(key > 0, value > 0.0);
            assert!(middle_of(key).is_finite());
        }
    }

    #[test]
    fn a_late_value_is_in_the_block_or_the_block_is_merged_again() {
        let full: Vec<f64> = (0..600).map(|n| 1.1f64.powi(n - 300)).collect();
        let numbered = |(number, values): (u32, &[f64])| Tile {
            number,
            content: of(values),
        };
        let tiles: Vec<Tile<Buckets>> = (0..).zip([&full[..], &full[..7]]).map(numbered).collect();
        for (tile, value) in [(0, 1e-9), (0, 1e100), (0, 1.0), (1, 1e-9), (1, 2.0)] {
            let mut tiles = tiles.clone();
            let mut together = Buckets::merged(&tiles).unwrap();
            let done = tiles[tile].content.add_late(value, Some(&mut together));
            assert!(
                !done || together == Buckets::merged(&tiles).unwrap(),
                "{tile} {value}"
            );
            // Only where values may move from bucket to bucket is it not as simple.
            assert_eq!(done, tile == 1);
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            mut values in prop::collection::vec(
                prop_oneof![-1e3..1e3f64, Just(0.0), 1e-3..1e3f64], 1..200),
            q in 0.0..=1.0f64,
        ) {
            let tiles = (0..).zip(values.chunks(7).map(of));
            let tiles = tiles.map(|(number, content)| Tile { number, content }).collect();
            let found = quantile(Tiles::of(tiles).since(0, 1_000), q).unwrap();
            values.sort_by(f64::total_cmp);
            let rank = (q * (values.len() - 1) as f64).floor() as usize;
            let exact = values[rank];
            prop_assert!((found - exact).abs() <= exact.abs() * 0.010_001, "{found} {exact}");
        }

        #[test]
        fn the_order_of_values_does_not_matter_even_above_the_bound(
            exponents in prop::collection::vec(-300.0..300.0f64, 600..1000),
        ) {
            let values: Vec<f64> = exponents.iter().map(|e| 10f64.powf(*e)).collect();
            let forward = of(&values);
            prop_assert!(forward.list.len() <= MAX_BUCKETS);
            let backward: Vec<f64> = values.iter().rev().copied().collect();
            prop_assert_eq!(&of(&backward), &forward);
            let mut halves = of(&values[..300]);
            halves.merge(&of(&values[300..]));
            prop_assert_eq!(&halves, &forward);
        }
    }
}
