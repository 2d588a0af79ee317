//! The most frequent values.
//!
//! A tile counts up to 256 different values exactly. Above that a new value takes the place of the
//! least frequent one and continues its count (space-saving): no value is counted too low, and one
//! that is in more than 1/256 of a tile's events is always found. Only above that bound does the
//! order of events matter.

use super::accumulators::cut;

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
    pub list: Vec<Counted>,
}

impl Counts {
    pub fn add(&mut self, value: &str) {
        self.add_times(cut(value), 1);
    }

    fn add_times(&mut self, value: &str, times: u32) {
        let position = match self.position(value) {
            Ok(found) => {
                let count = &mut self.list[found].count;
                *count = count.saturating_add(times);
                return;
            }
            Err(position) => position,
        };
        if self.list.len() < MAX_VALUES {
            if self.list.len() == self.list.capacity() {
                self.list.reserve_exact(1 + self.list.len() / 4);
            }
            let count = times;
            let value = value.into();
            self.list.insert(position, Counted { value, count });
            return;
        }
        // The last one among equals goes.
        let rarest = (0..self.list.len())
            .rev()
            .min_by_key(|index| self.list[*index].count);
        if let Some(rarest) = rarest {
            let count = self.list.remove(rarest).count.saturating_add(times);
            let position = self.position(value).unwrap_or_else(|position| position);
            let value = value.into();
            self.list.insert(position, Counted { value, count });
        }
    }

    fn position(&self, value: &str) -> Result<usize, usize> {
        self.list
            .binary_search_by(|counted| counted.value.as_ref().cmp(value))
    }

    pub fn merge(&mut self, other: &Counts) {
        for counted in &other.list {
            self.add_times(&counted.value, counted.count);
        }
    }

    pub fn heap_bytes(&self) -> usize {
        let texts: usize = self.list.iter().map(|counted| counted.value.len()).sum();
        self.list.capacity() * size_of::<Counted>() + texts
    }
}

/// The `k` most frequent values of all tiles, the most frequent first, equally frequent ones by
/// their text.
pub fn most_frequent<'a>(tiles: impl Iterator<Item = &'a Counts>, k: usize) -> Vec<&'a str> {
    let mut all: Vec<(&str, u64)> = tiles
        .flat_map(|tile| tile.list.iter())
        .map(|counted| (counted.value.as_ref(), u64::from(counted.count)))
        .collect();
    all.sort_unstable();
    all.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    all.into_iter().take(k).map(|(value, _)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_count_then_by_value() {
        let mut first = Counts::default();
        ["b", "a", "c", "a"]
            .iter()
            .for_each(|value| first.add(value));
        let mut second = Counts::default();
        ["c", "d"].iter().for_each(|value| second.add(value));
        assert_eq!(
            most_frequent([&first, &second].into_iter(), 3),
            ["a", "c", "b"]
        );
        first.merge(&second);
        assert_eq!(most_frequent([&first].into_iter(), 9), ["a", "c", "b", "d"]);
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
        assert_eq!(most_frequent([&counts].into_iter(), 1), ["frequent"]);
    }
}
