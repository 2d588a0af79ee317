//! The most frequent values.
//!
//! A tile counts up to 256 different values exactly. Above that a new value takes the place of the
//! least frequent one and continues its count (space-saving): no value is counted too low, and one
//! that is in more than 1/256 of a tile's events is always found. Only above that bound does the
//! order of events matter. A window adds up what its tiles counted, without such a bound, and so does
//! a block: what it says is what its tiles say.

use std::collections::HashMap;

use super::accumulators::cut;
use super::groups::{Group, Groups};
use super::tiles::{Content, Tile};

/// The most different values of a tile.
pub const MAX_VALUES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub value: Box<str>,
    pub count: u32,
}

/// The values of a tile, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub list: Box<[Counted]>,
}

/// The values of the tiles of a block together, sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct Together {
    list: Vec<Counted>,
}

impl Counts {
    pub fn add(&mut self, value: &str) {
        self.add_times(cut(value), 1);
    }

    /// The same for a tile of a block of which is kept `together`; whether that says so now.
    pub fn add_late(&mut self, value: &str, together: Option<&mut Together>) -> bool {
        // In a full one another value may lose its place.
        let may_lose = self.list.len() >= MAX_VALUES;
        self.add(value);
        !may_lose && together.is_some_and(|together| together.add(cut(value), 1))
    }

    fn add_times(&mut self, value: &str, times: u32) {
        let position = match position(&self.list, value) {
            Ok(found) => {
                let count = &mut self.list[found].count;
                *count = count.saturating_add(times);
                return;
            }
            Err(position) => position,
        };
        let mut more = std::mem::take(&mut self.list).into_vec();
        if more.len() < MAX_VALUES {
            more.reserve_exact(1);
            let count = times;
            let value = value.into();
            more.insert(position, Counted { value, count });
        } else {
            // The last one among equals goes.
            let rarest = (0..more.len()).rev().min_by_key(|index| more[*index].count);
            let count = rarest.map_or(0, |rarest| more.remove(rarest).count);
            let position = self::position(&more, value).unwrap_or_else(|position| position);
            let value = value.into();
            let count = count.saturating_add(times);
            more.insert(position, Counted { value, count });
        }
        self.list = more.into_boxed_slice();
    }
}

fn position(list: &[Counted], value: &str) -> Result<usize, usize> {
    list.binary_search_by(|counted| counted.value.as_ref().cmp(value))
}

impl Together {
    /// Counts a value; false when its count would overflow.
    fn add(&mut self, value: &str, times: u32) -> bool {
        match position(&self.list, value) {
            Ok(found) => {
                let count = &mut self.list[found].count;
                let more = count.checked_add(times);
                *count = more.unwrap_or(*count);
                more.is_some()
            }
            Err(position) => {
                if self.list.len() == self.list.capacity() {
                    self.list.reserve_exact(1 + self.list.len() / 4);
                }
                let value = value.into();
                let count = times;
                self.list.insert(position, Counted { value, count });
                true
            }
        }
    }
}

impl Content for Counts {
    type Merged = Together;

    fn merge(&mut self, other: &Counts) {
        for counted in &other.list {
            self.add_times(&counted.value, counted.count);
        }
    }

    /// Texts take memory, so only where at least half of them are saved.
    fn merged(tiles: &[Tile<Counts>]) -> Option<Together> {
        let lists: Vec<&[Counted]> = tiles.iter().map(|tile| &*tile.content.list).collect();
        let kept: usize = lists.iter().map(|list| list.len()).sum();
        let mut sums = added_up(&lists, kept / 2)?;
        sums.sort_unstable();
        let counted = sums.into_iter().map(|(value, count)| {
            let count = u32::try_from(count).ok()?;
            let value = value.into();
            Some(Counted { value, count })
        });
        Some(Together {
            list: counted.collect::<Option<_>>()?,
        })
    }

    fn append(together: &mut Together, next: &Counts) -> bool {
        let mut all = next.list.iter();
        all.all(|counted| together.add(&counted.value, counted.count))
    }

    fn heap_bytes(&self) -> usize {
        heap_bytes(&self.list, self.list.len())
    }

    fn merged_heap_bytes(together: &Together) -> usize {
        heap_bytes(&together.list, together.list.capacity())
    }
}

fn heap_bytes(list: &[Counted], capacity: usize) -> usize {
    let texts: usize = list.iter().map(|counted| counted.value.len()).sum();
    capacity * size_of::<Counted>() + texts
}

/// The `k` most frequent values of a window, the most frequent first, equally frequent ones by their
/// text.
pub fn most_frequent(groups: Groups<'_, Counts>, k: usize) -> Vec<&str> {
    let mut lists: Vec<&[Counted]> = Vec::new();
    for group in groups {
        match group {
            Group::Merged(together) => lists.push(&together.list),
            Group::Tiles(tiles) => lists.extend(tiles.iter().map(|tile| &*tile.content.list)),
        }
    }
    let order = |a: &(&str, u64), b: &(&str, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
    let mut sums = added_up(&lists, usize::MAX).unwrap_or_default();
    if sums.len() > k && k > 0 {
        sums.select_nth_unstable_by(k - 1, order);
        sums.truncate(k);
    }
    sums.sort_unstable_by(order);
    sums.into_iter().take(k).map(|(value, _)| value).collect()
}

/// The values of all lists with the sums of their counts, in any order; none when there are more than
/// `most` values.
fn added_up<'a>(lists: &[&'a [Counted]], most: usize) -> Option<Vec<(&'a str, u64)>> {
    let mut sums: HashMap<&str, u64> = HashMap::new();
    for list in lists {
        for counted in *list {
            *sums.entry(&counted.value).or_default() += u64::from(counted.count);
        }
        if sums.len() > most {
            return None;
        }
    }
    Some(sums.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::windows::tiles::Tiles;

    /// The most frequent values of tiles one after the other.
    fn most_of(tiles: &[Counts], k: usize) -> Vec<String> {
        let tiles = (0..).zip(tiles.iter().cloned());
        let tiles = tiles
            .map(|(number, content)| Tile { number, content })
            .collect();
        let tiles = Tiles::of(tiles);
        let most = most_frequent(tiles.since(0, 1_000), k);
        most.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn by_count_then_by_value() {
        let mut first = Counts::default();
        ["b", "a", "c", "a"]
            .iter()
            .for_each(|value| first.add(value));
        let mut second = Counts::default();
        ["c", "d"].iter().for_each(|value| second.add(value));
        assert_eq!(
            most_of(&[first.clone(), second.clone()], 3),
            ["a", "c", "b"]
        );
        first.merge(&second);
        assert_eq!(most_of(&[first], 9), ["a", "c", "b", "d"]);
    }

    #[test]
    fn a_late_value_is_in_the_block_or_the_block_is_merged_again() {
        let of = |number: u32, different: usize| {
            let mut content = Counts::default();
            (0..different).for_each(|value| content.add(&format!("value {value}")));
            Tile { number, content }
        };
        let tiles = [of(0, MAX_VALUES), of(1, MAX_VALUES), of(2, 10), of(3, 10)];
        for (tile, value) in [(0, "new"), (0, "value 7"), (3, "new"), (3, "value 7")] {
            let mut tiles = tiles.clone();
            let mut together = Counts::merged(&tiles).unwrap();
            let done = tiles[tile].content.add_late(value, Some(&mut together));
            assert!(
                !done || together == Counts::merged(&tiles).unwrap(),
                "{tile} {value}"
            );
            assert_eq!(done, tile == 3);
        }
    }

    #[test]
    fn a_block_is_kept_where_values_repeat() {
        let of = |number: u32, value: &str| {
            let mut content = Counts::default();
            content.add(value);
            Tile { number, content }
        };
        assert_eq!(Counts::merged(&[of(0, "a"), of(1, "b"), of(2, "a")]), None);
        let merged = Counts::merged(&[of(0, "a"), of(1, "b"), of(2, "a"), of(3, "b")]);
        assert_eq!(merged.map(|merged| merged.list.len()), Some(2));
    }

    #[test]
    fn a_frequent_value_is_found_among_thousands() {
        let mut counts = Counts::default();
        for number in 0..20_000 {
            counts.add(&format!("rare {number}"));
            if number % 50 == 0 {
                counts.add("frequent");
            }
        }
        assert_eq!(counts.list.len(), MAX_VALUES);
        assert_eq!(most_of(&[counts], 1), ["frequent"]);
    }
}
