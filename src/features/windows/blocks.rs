//! Blocks: sixteen tiles put together, so that reading a window touches few things.
//!
//! Block `b` is made of the tiles `16 * b` up to the next multiple of sixteen. A window takes the tiles
//! at its old edge one by one, then whole blocks, then the last tile. The last tile of a list is in no
//! block: events mostly come in order and change that tile alone, so blocks change only when a
//! new tile begins, or when an event is late.
//!
//! A block only repeats what its tiles say. So a value is the same to the last bit whether blocks are
//! kept or not: what is merged is either merged alike in any order (whole numbers, sets, the least
//! and greatest), or, where rounding could tell, in the order of the tiles, block by block, also where
//! no block is kept. Blocks are not in the bytes of a state.

use std::ops::Range;

use super::tiles::{Content, Tile, low_bits};

/// How many tiles a block has when there are events in all of them.
pub const BLOCK_TILES: usize = 16;

/// A block of fewer tiles is read tile by tile.
const MIN_MERGED: usize = 4;

/// The blocks of a list without its last tile, oldest first; none of a list that has not been
/// condensed since it was read from bytes.
#[derive(Clone, Debug)]
pub struct Blocks<A: Content> {
    list: Vec<Block<A>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Block<A: Content> {
    /// The low bits of the number of its first tile, whether or not that is there.
    number: u32,
    tiles: u8,
    /// Its tiles together; none of few tiles, of the block that windows are about to leave behind,
    /// and where it does not pay.
    pub merged: Option<A::Merged>,
}

/// The number of the block that a tile is in, as the low bits of its first tile's.
pub fn block_of(tile: u32) -> u32 {
    tile - tile % BLOCK_TILES as u32
}

impl<A: Content> Default for Blocks<A> {
    fn default() -> Self {
        Blocks { list: Vec::new() }
    }
}

impl<A: Content> Block<A> {
    /// How many tiles it has.
    pub fn len(&self) -> usize {
        usize::from(self.tiles)
    }

    /// Whether to try and merge its tiles now that it has one more. Not each time: it may not pay, and
    /// to find out is work.
    pub fn is_due(&self) -> bool {
        self.len().is_multiple_of(MIN_MERGED)
    }
}

impl<A: Content> Blocks<A> {
    /// The blocks of a list of tiles.
    pub fn build(tiles: &[Tile<A>]) -> Blocks<A> {
        let covered = tiles.split_last().map_or(tiles, |(_, covered)| covered);
        let in_block = |a: &Tile<A>, b: &Tile<A>| block_of(a.number) == block_of(b.number);
        let blocks = covered.chunk_by(in_block).map(|tiles| Block {
            number: tiles.first().map_or(0, |tile| block_of(tile.number)),
            tiles: tiles.len() as u8,
            merged: (tiles.len() >= MIN_MERGED)
                .then(|| A::merged(tiles))
                .flatten(),
        });
        let list = blocks.collect();
        Blocks { list }
    }

    pub fn are_built(&self) -> bool {
        !self.list.is_empty()
    }

    /// Takes the last tile of a list in, before another one is appended.
    pub fn cover_last(&mut self, tiles: &[Tile<A>]) {
        let Some(last) = tiles.last() else {
            return;
        };
        let number = block_of(last.number);
        match self.list.last_mut() {
            Some(block) if block.number == number => {
                block.tiles += 1;
                if let Some(merged) = &mut block.merged {
                    let is_in = A::append(merged, &last.content);
                    if !is_in {
                        block.merged = None;
                    }
                } else if block.is_due() {
                    let begin = tiles.len() - block.len();
                    block.merged = A::merged(&tiles[begin..]);
                }
            }
            _ => self.list.push(Block {
                number,
                tiles: 1,
                merged: None,
            }),
        }
    }

    /// Counts a tile in that is about to be inserted before the last one.
    pub fn make_room(&mut self, tile: u32, newest: i64) {
        let age = |number: u32| low_bits(newest).wrapping_sub(number);
        let number = block_of(tile);
        let found = self
            .list
            .binary_search_by(|block| age(number).cmp(&age(block.number)));
        match found {
            Ok(found) => self.list[found].tiles += 1,
            Err(position) => {
                let block = Block {
                    number,
                    tiles: 1,
                    merged: None,
                };
                self.list.insert(position, block);
            }
        }
    }

    /// The block that holds the tile at `position` of the list, and where its tiles are.
    pub fn holding(&mut self, position: usize) -> Option<(&mut Block<A>, Range<usize>)> {
        let mut begin = 0;
        for block in &mut self.list {
            let end = begin + block.len();
            if position < end {
                return Some((block, begin..end));
            }
            begin = end;
        }
        None
    }

    /// The blocks from the tile at `position` on, and how many tiles of the first are before it.
    pub fn from(&self, position: usize) -> (&[Block<A>], usize) {
        let mut begin = 0;
        for (number, block) in self.list.iter().enumerate() {
            let end = begin + block.len();
            if position < end {
                return (&self.list[number..], position - begin);
            }
            begin = end;
        }
        (&[], 0)
    }

    /// The list lost its first `gone` tiles. A window soon leaves the rest of their block as well, so
    /// that is not merged again.
    pub fn let_go(&mut self, gone: usize) {
        let mut left = gone;
        let whole = self.list.iter().take_while(|block| {
            let is_gone = block.len() <= left;
            left -= if is_gone { block.len() } else { 0 };
            is_gone
        });
        let whole = whole.count();
        self.list.drain(..whole);
        if left > 0
            && let Some(cut) = self.list.first_mut()
        {
            cut.tiles -= left as u8;
            cut.merged = None;
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let merged = self.list.iter().filter_map(|block| block.merged.as_ref());
        let merged: usize = merged.map(A::merged_heap_bytes).sum();
        self.list.capacity() * size_of::<Block<A>>() + merged
    }

    /// Whether they are those of these tiles, and what is merged is what the tiles say.
    #[cfg(test)]
    pub fn are_right(&self, tiles: &[Tile<A>]) -> bool {
        let mut begin = 0;
        let right = self.list.iter().all(|block| {
            let some = &tiles[begin..begin + block.len()];
            begin += block.len();
            let merged = block.merged.as_ref();
            let same = merged.is_none_or(|ours| A::merged(some).is_none_or(|all| all == *ours));
            same && some
                .iter()
                .all(|tile| block_of(tile.number) == block.number)
        });
        let numbers: Vec<u32> = self.list.iter().map(|block| block.number).collect();
        let mut different = numbers.clone();
        different.dedup();
        right && (!self.are_built() || begin + 1 == tiles.len()) && numbers == different
    }
}
