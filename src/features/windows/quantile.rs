//! Quantiles within 1 % of the value.
//!
//! Values are counted in buckets whose bounds grow by the same factor each, so that the middle of a
//! bucket is within 1 % of everything in it, whatever its size. Negative values have buckets of
//! their own, and so has zero. A tile keeps at most 512 buckets; the lowest values share the lowest
//! one when there are more, which takes values that differ by a factor of more than 28,000. Which
//! buckets there are and what they count does not depend on the order of the values.
//!
//! The quantile `q` of `n` values is the one of rank `floor(q * (n - 1))`, the smallest having rank 0.

/// The most buckets of a tile.
pub const MAX_BUCKETS: usize = 512;

/// The most buckets of a window that are sorted when it is read.
const MAX_SORTED: usize = 256;

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
    pub list: Vec<Bucket>,
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
                if self.list.len() == self.list.capacity() {
                    self.list.reserve_exact(1 + self.list.len() / 4);
                }
                self.list.insert(position, bucket);
                if self.list.len() > MAX_BUCKETS {
                    let lowest = self.list.remove(0);
                    let count = &mut self.list[0].count;
                    *count = count.saturating_add(lowest.count);
                }
            }
        }
    }

    pub fn merge(&mut self, other: &Buckets) {
        other
            .list
            .iter()
            .for_each(|bucket| self.add_bucket(*bucket));
    }

    pub fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Bucket>()
    }
}

/// The quantile `q` (0 to 1) of all values of `tiles`.
pub fn quantile<'a>(tiles: impl Iterator<Item = &'a Buckets> + Clone, q: f64) -> Option<f64> {
    let mut buckets: Vec<(i32, u64)> = tiles
        .flat_map(|tile| tile.list.iter())
        .map(|bucket| (bucket.key, u64::from(bucket.count)))
        .collect();
    if buckets.len() > MAX_SORTED {
        buckets = counted(&buckets);
    } else {
        buckets.sort_unstable();
    }
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    let rank = (q * (total.saturating_sub(1)) as f64).floor() as u64;
    let mut below = 0;
    let found = buckets.iter().find(|(_, count)| {
        below += count;
        below > rank
    });
    found.or(buckets.last()).map(|(key, _)| middle_of(*key))
}

/// The sums of buckets of the same key, in order, by a counter for every key there could be: quicker
/// than sorting many.
fn counted(buckets: &[(i32, u64)]) -> Vec<(i32, u64)> {
    let keys = || buckets.iter().map(|(key, _)| *key);
    let (Some(lowest), Some(highest)) = (keys().min(), keys().max()) else {
        return Vec::new();
    };
    let place = |key: i32| usize::try_from(key - lowest).unwrap_or_default();
    let mut counts = vec![0; place(highest) + 1];
    for (key, count) in buckets {
        counts[place(*key)] += count;
    }
    (lowest..)
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
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

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            mut values in prop::collection::vec(
                prop_oneof![-1e3..1e3f64, Just(0.0), 1e-3..1e3f64], 1..200),
            q in 0.0..=1.0f64,
        ) {
            let tiles: Vec<Buckets> = values.chunks(7).map(of).collect();
            let found = quantile(tiles.iter(), q).unwrap();
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
