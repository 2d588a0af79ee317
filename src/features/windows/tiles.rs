//! Tiles: what happened, cut into stretches of time of one length.
//!
//! Tile `k` of a track with the hop `h` covers the times `(k*h, (k+1)*h]`. Only tiles in which
//! something happened exist, oldest first. Since nothing later than the clock is ever added, a
//! window is always the newest part of the list.
//!
//! A tile is kept by the low 32 bits of its number: with tiles of no more than a few hundred
//! different ages alive, the clock tells the rest.

/// Where to put something: the number of its tile and of the tile in which the clock is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub tile: i64,
    pub newest: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tile<A> {
    number: u32,
    pub content: A,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tiles<A> {
    list: Vec<Tile<A>>,
}

impl<A> Default for Tiles<A> {
    fn default() -> Self {
        Tiles { list: Vec::new() }
    }
}

/// The low bits of a tile's number.
fn low_bits(tile: i64) -> u32 {
    tile as u32
}

impl<A> Tile<A> {
    /// How many tiles before the newest this one is.
    fn age(&self, newest: i64) -> u32 {
        low_bits(newest).wrapping_sub(self.number)
    }
}

impl<A> Tiles<A> {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The content of a tile, made by `empty` when there is none yet.
    pub fn at(&mut self, place: Place, empty: impl FnOnce() -> A) -> &mut A {
        let age = low_bits(place.newest).wrapping_sub(low_bits(place.tile));
        // Events mostly come in order, so the tile is at the end.
        let mut position = self.list.len();
        while position > 0 && self.list[position - 1].age(place.newest) < age {
            position -= 1;
        }
        let found = position > 0 && self.list[position - 1].age(place.newest) == age;
        if found {
            position -= 1;
        } else {
            self.make_room();
            let tile = Tile {
                number: low_bits(place.tile),
                content: empty(),
            };
            self.list.insert(position, tile);
        }
        &mut self.list[position].content
    }

    /// Doubling, as a vector does by itself, wastes half of what short lists take.
    fn make_room(&mut self) {
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(1 + self.list.len() / 4);
        }
    }

    /// Appends a tile that is newer than all there are; whether it is.
    pub fn append(&mut self, place: Place, content: A) -> bool {
        let number = low_bits(place.tile);
        let age = low_bits(place.newest).wrapping_sub(number);
        let newer = self
            .list
            .last()
            .is_none_or(|last| last.age(place.newest) > age);
        if newer {
            self.make_room();
            self.list.push(Tile { number, content });
        }
        newer
    }

    /// The number of the oldest tile.
    pub fn oldest(&self, newest: i64) -> Option<i64> {
        let first = self.list.first()?;
        Some(newest.saturating_sub(i64::from(first.age(newest))))
    }

    /// Lets go of the tiles before `first`; `newest` is still the tile of the clock by which the
    /// tiles were numbered.
    pub fn let_go_before(&mut self, first: i64, newest: i64) {
        let gone = self.list.len() - self.since(first, newest).len();
        if gone == self.list.len() {
            self.list = Vec::new();
        } else if gone > 0 {
            self.list.drain(..gone);
            if self.list.capacity() > 8 + 4 * self.list.len() {
                self.list.shrink_to_fit();
            }
        }
    }

    /// The tiles from number `first` on.
    pub fn since(&self, first: i64, newest: i64) -> &[Tile<A>] {
        let oldest_age = newest.saturating_sub(first);
        let start = self
            .list
            .partition_point(|tile| i64::from(tile.age(newest)) > oldest_age);
        &self.list[start..]
    }

    /// Every tile with its number, oldest first.
    pub fn iter(&self, newest: i64) -> impl Iterator<Item = (i64, &A)> {
        self.list.iter().map(move |tile| {
            let number = newest.saturating_sub(i64::from(tile.age(newest)));
            (number, &tile.content)
        })
    }

    /// Bytes on the heap, beside what `inside` says of the contents.
    pub fn heap_bytes(&self, inside: impl Fn(&A) -> usize) -> usize {
        let contents: usize = self.list.iter().map(|tile| inside(&tile.content)).sum();
        self.list.capacity() * size_of::<Tile<A>>() + contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tiles: &Tiles<u32>, newest: i64) -> Vec<i64> {
        tiles.iter(newest).map(|(number, _)| number).collect()
    }

    #[test]
    fn tiles_are_in_order_whatever_the_order_of_events() {
        let newest = 1 << 40;
        let mut tiles = Tiles::default();
        for back in [3, 0, 7, 3, 5, 7] {
            let place = Place {
                tile: newest - back,
                newest,
            };
            *tiles.at(place, || 0) += 1;
        }
        assert_eq!(
            numbers(&tiles, newest),
            [newest - 7, newest - 5, newest - 3, newest]
        );
        let counts: Vec<u32> = tiles
            .since(newest - 5, newest)
            .iter()
            .map(|t| t.content)
            .collect();
        assert_eq!(counts, [1, 2, 1]);
        tiles.let_go_before(newest - 4, newest);
        // The clock went on by some tiles.
        assert_eq!(numbers(&tiles, newest + 2), [newest - 3, newest]);
        assert_eq!(tiles.oldest(newest + 2), Some(newest - 3));
    }

    #[test]
    fn nothing_is_left_when_all_are_old() {
        let mut tiles = Tiles::default();
        *tiles.at(
            Place {
                tile: -1,
                newest: 0,
            },
            || 0,
        ) += 1;
        tiles.let_go_before(1, 0);
        assert!(tiles.is_empty());
        assert_eq!(tiles.heap_bytes(|_| 0), 0);
        assert!(tiles.since(i64::MIN, i64::MAX).is_empty());
    }
}
