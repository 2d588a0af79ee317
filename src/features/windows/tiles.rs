//! Tiles: what happened, cut into stretches of time of one length.
//!
//! Tile `k` of a track with the hop `h` covers the times `(k*h, (k+1)*h]`. Only tiles in which
//! something happened exist, oldest first. Since nothing later than the clock is ever added, a
//! window is always the newest part of the list.
//!
//! A tile is kept by the low 32 bits of its number: with tiles of no more than a few hundred
//! different ages alive, the clock tells the rest.
//!
//! A short list is nothing but its tiles, in exactly the memory they need. A long one has blocks as
//! well ([`super::blocks`]), so that reading a window does not touch all of its tiles.

use std::fmt::Debug;

use super::blocks::{BLOCK_TILES, Blocks};
use super::groups::Groups;
use super::long::Long;

/// Longer lists have blocks.
const SHORT: usize = 2 * BLOCK_TILES;

/// Where to put something: the number of its tile and of the tile in which the clock is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub tile: i64,
    pub newest: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tile<A> {
    /// Its low bits.
    pub number: u32,
    pub content: A,
}

/// What a tile holds, and how several are put together.
pub trait Content: Clone + Debug + PartialEq {
    /// Several tiles put together: as much as the value of any window needs to know of them.
    type Merged: Clone + Debug + PartialEq;

    /// Whether rounding tells what was merged first. Then it is always the tiles of a block.
    const ROUNDS: bool = false;

    /// Adds what the same tile holds elsewhere.
    fn merge(&mut self, other: &Self);

    /// Puts tiles together, oldest first. None when reading would gain less from it than it is worth
    /// in memory.
    fn merged(tiles: &[Tile<Self>]) -> Option<Self::Merged>;

    /// Adds the tile that follows to what [`Content::merged`] made of those before it, with the same
    /// outcome to the last bit; false when it cannot.
    fn append(merged: &mut Self::Merged, next: &Self) -> bool;

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// Bytes on the heap.
    fn merged_heap_bytes(_: &Self::Merged) -> usize {
        0
    }
}

/// Two lists are equal when their tiles are; blocks follow from these.
#[derive(Clone, Debug)]
pub enum Tiles<A: Content> {
    Short(Box<[Tile<A>]>),
    Long(Box<Long<A>>),
}

impl<A: Content> Default for Tiles<A> {
    fn default() -> Self {
        Tiles::Short(Box::default())
    }
}

impl<A: Content> PartialEq for Tiles<A> {
    fn eq(&self, other: &Self) -> bool {
        self.list() == other.list()
    }
}

/// The low bits of a tile's number.
pub fn low_bits(tile: i64) -> u32 {
    tile as u32
}

impl<A> Tile<A> {
    /// How many tiles before the newest this one is.
    fn age(&self, newest: i64) -> u32 {
        low_bits(newest).wrapping_sub(self.number)
    }
}

impl<A: Content> Tiles<A> {
    /// Of tiles in order. A long list gets its blocks when [`Tiles::condense`] is called.
    pub fn of(list: Vec<Tile<A>>) -> Tiles<A> {
        if list.len() <= SHORT {
            return Tiles::Short(list.into_boxed_slice());
        }
        let blocks = Blocks::default();
        Tiles::Long(Box::new(Long { list, blocks }))
    }

    /// The tiles without their blocks.
    fn into_list(self) -> Vec<Tile<A>> {
        match self {
            Tiles::Short(list) => list.into_vec(),
            Tiles::Long(long) => long.list,
        }
    }

    fn list(&self) -> &[Tile<A>] {
        match self {
            Tiles::Short(list) => list,
            Tiles::Long(long) => &long.list,
        }
    }

    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// Changes the content of a tile, made by `empty` when there is none yet. `change` is given what
    /// is kept of its block as well, if anything, and says whether it did the same to that; if not,
    /// it is merged again.
    pub fn change(
        &mut self,
        place: Place,
        empty: impl FnOnce() -> A,
        change: impl FnOnce(&mut A, Option<&mut A::Merged>) -> bool,
    ) {
        let age = low_bits(place.newest).wrapping_sub(low_bits(place.tile));
        // Events mostly come in order, so the tile is at the end.
        let list = self.list();
        let mut position = list.len();
        while position > 0 && list[position - 1].age(place.newest) < age {
            position -= 1;
        }
        let found = position > 0 && list[position - 1].age(place.newest) == age;
        let new = if found {
            position -= 1;
            None
        } else {
            let number = low_bits(place.tile);
            let content = empty();
            Some(Tile { number, content })
        };
        self.grow_if_full(new.is_some());
        match self {
            Tiles::Short(list) => {
                if let Some(tile) = new {
                    insert(list, position, tile);
                }
                change(&mut list[position].content, None);
            }
            Tiles::Long(long) => long.change(position, new, place.newest, change),
        }
    }

    /// Makes a short list that has no room for another tile a long one.
    fn grow_if_full(&mut self, is_more: bool) {
        if let Tiles::Short(list) = self
            && is_more
            && list.len() == SHORT
        {
            let list = std::mem::take(list).into_vec();
            let blocks = Blocks::build(&list);
            *self = Tiles::Long(Box::new(Long { list, blocks }));
        }
    }

    /// Adds the tiles of another list that are before `below`; those that both have are merged.
    pub fn merge(&mut self, theirs: &Self, newest: i64, below: i64) {
        let is_below = |tile: &&Tile<A>| newest.saturating_sub(tile.age(newest).into()) < below;
        let mut theirs = theirs.list().iter().take_while(is_below).peekable();
        let ours = std::mem::take(self).into_list();
        let mut both = Vec::with_capacity(ours.len());
        for mut our in ours {
            let age = our.age(newest);
            while let Some(older) = theirs.next_if(|their| their.age(newest) > age) {
                both.push(older.clone());
            }
            if let Some(same) = theirs.next_if(|their| their.age(newest) == age) {
                our.content.merge(&same.content);
            }
            both.push(our);
        }
        both.extend(theirs.cloned());
        *self = Tiles::of(both);
        self.condense();
    }

    /// The position of the first tile from number `first` on.
    fn start(&self, first: i64, newest: i64) -> usize {
        let oldest_age = newest.saturating_sub(first);
        self.list()
            .partition_point(|tile| i64::from(tile.age(newest)) > oldest_age)
    }

    /// The oldest tile from number `first` on.
    pub fn first_since(&self, first: i64, newest: i64) -> Option<&A> {
        let tile = self.list().get(self.start(first, newest))?;
        Some(&tile.content)
    }

    /// The tiles from number `first` on, in groups: each block's, the oldest first and as far as it
    /// is in the window, and the last tile by itself. Where rounding tells, which tiles are together
    /// does not depend on what is kept of blocks.
    pub fn since(&self, first: i64, newest: i64) -> Groups<'_, A> {
        let start = self.start(first, newest);
        match self {
            Tiles::Short(list) => Groups::of(&list[start..], &[], 0),
            Tiles::Long(long) => {
                let (blocks, cut) = long.blocks.from(start);
                Groups::of(&long.list[start..], blocks, cut)
            }
        }
    }

    /// Every tile with its number, oldest first.
    pub fn iter(&self, newest: i64) -> impl Iterator<Item = (i64, &A)> {
        self.list().iter().map(move |tile| {
            let number = newest.saturating_sub(i64::from(tile.age(newest)));
            (number, &tile.content)
        })
    }
}

/// A list of tiles, whatever they hold.
pub trait List {
    fn is_empty(&self) -> bool;

    /// The number of the oldest tile.
    fn oldest(&self, newest: i64) -> Option<i64>;

    /// Lets go of the tiles before `first`; `newest` is still the tile of the clock by which the
    /// tiles were numbered.
    fn let_go_before(&mut self, first: i64, newest: i64);

    /// Builds the blocks of a long list, where there are none.
    fn condense(&mut self);

    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize;

    /// Whether what is kept of blocks is what their tiles say.
    #[cfg(test)]
    fn blocks_are_right(&self) -> bool;
}

impl<A: Content> List for Tiles<A> {
    fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    fn oldest(&self, newest: i64) -> Option<i64> {
        let first = self.list().first()?;
        Some(newest.saturating_sub(i64::from(first.age(newest))))
    }

    fn let_go_before(&mut self, first: i64, newest: i64) {
        let gone = self.start(first, newest);
        let left = self.len() - gone;
        if gone == 0 {
            return;
        }
        match self {
            Tiles::Long(long) if left > SHORT / 2 => long.let_go(gone),
            _ => {
                let mut list = std::mem::take(self).into_list();
                list.drain(..gone);
                *self = Tiles::Short(list.into_boxed_slice());
            }
        }
    }

    fn condense(&mut self) {
        if let Tiles::Long(long) = self {
            long.condense();
        }
    }

    fn heap_bytes(&self) -> usize {
        let contents = self.list().iter().map(|tile| tile.content.heap_bytes());
        let list = match self {
            Tiles::Short(list) => size_of_val::<[_]>(list),
            Tiles::Long(long) => size_of::<Long<A>>() + long.heap_bytes(),
        };
        list + contents.sum::<usize>()
    }

    #[cfg(test)]
    fn blocks_are_right(&self) -> bool {
        match self {
            Tiles::Short(list) => list.len() <= SHORT,
            Tiles::Long(long) => long.blocks.are_right(&long.list),
        }
    }
}

/// Inserts a tile into a list that takes no more memory than it needs.
fn insert<A>(list: &mut Box<[Tile<A>]>, position: usize, tile: Tile<A>) {
    let mut longer = std::mem::take(list).into_vec();
    longer.reserve_exact(1);
    longer.insert(position, tile);
    *list = longer.into_boxed_slice();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::windows::accumulators::Count;
    use crate::features::windows::groups::Group;

    fn place(tile: i64, newest: i64) -> Place {
        Place { tile, newest }
    }

    fn add(tiles: &mut Tiles<Count>, place: Place) {
        tiles.change(place, Count::default, |count, _| {
            count.0 += 1;
            false
        });
    }

    fn numbers(tiles: &Tiles<Count>, newest: i64) -> Vec<i64> {
        tiles.iter(newest).map(|(number, _)| number).collect()
    }

    /// The tiles that a window touches, and what they count.
    fn read(tiles: &Tiles<Count>, first: i64, newest: i64) -> (usize, u64) {
        tiles
            .since(first, newest)
            .fold((0, 0), |(touched, sum), group| match group {
                Group::Merged(count) => (touched + 1, sum + count),
                Group::Tiles(some) => {
                    let count: u64 = some.iter().map(|tile| u64::from(tile.content.0)).sum();
                    (touched + some.len(), sum + count)
                }
            })
    }

    #[test]
    fn tiles_are_in_order_whatever_the_order_of_events() {
        let newest = 1 << 40;
        let mut tiles = Tiles::default();
        for back in [3, 0, 7, 3, 5, 7] {
            add(&mut tiles, place(newest - back, newest));
        }
        assert_eq!(
            numbers(&tiles, newest),
            [newest - 7, newest - 5, newest - 3, newest]
        );
        assert_eq!(read(&tiles, newest - 5, newest), (3, 4));
        tiles.let_go_before(newest - 4, newest);
        // The clock went on by some tiles.
        assert_eq!(numbers(&tiles, newest + 2), [newest - 3, newest]);
        assert_eq!(tiles.oldest(newest + 2), Some(newest - 3));
    }

    #[test]
    fn nothing_is_left_when_all_are_old() {
        let mut tiles = Tiles::default();
        add(&mut tiles, place(-1, 0));
        tiles.let_go_before(1, 0);
        assert!(tiles.is_empty());
        assert_eq!(tiles.heap_bytes(), 0);
        assert!(tiles.since(i64::MIN, i64::MAX).next().is_none());
    }

    #[test]
    fn a_read_touches_a_handful_of_tiles() {
        // The numbers pass the end of 32 bits on the way.
        let begin = (1 << 32) - 300;
        let mut tiles = Tiles::default();
        for newest in begin..begin + 1_000 {
            add(&mut tiles, place(newest, newest));
            tiles.let_go_before(newest - 180, newest);
            let first = begin.max(newest - 180);
            let (touched, sum) = read(&tiles, first, newest);
            assert_eq!(sum, (newest - first + 1) as u64);
            assert!(touched <= 2 * BLOCK_TILES, "{touched}");
            assert!(tiles.blocks_are_right());
        }
        // Late ones, into tiles that are there.
        let newest = begin + 999;
        for back in [0, 1, 17, 100, 180] {
            add(&mut tiles, place(newest - back, newest));
            assert!(tiles.blocks_are_right());
        }
        assert_eq!(read(&tiles, newest - 180, newest).1, 186);
        assert_eq!(read(&tiles, newest - 99, newest).1, 103);
    }
}
