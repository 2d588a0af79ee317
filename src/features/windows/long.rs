//! A long list of tiles, with its blocks.

use super::blocks::Blocks;
use super::tiles::{Content, Tile};

/// A list with its blocks.
#[derive(Clone, Debug)]
pub struct Long<A: Content> {
    pub list: Vec<Tile<A>>,
    pub blocks: Blocks<A>,
}

impl<A: Content> Long<A> {
    /// Builds the blocks, where there are none.
    pub fn condense(&mut self) {
        if !self.blocks.are_built() {
            self.blocks = Blocks::build(&self.list);
        }
    }

    /// Lets go of the first `gone` tiles, of more.
    pub fn let_go(&mut self, gone: usize) {
        self.list.drain(..gone);
        self.blocks.let_go(gone);
        let left = self.list.len();
        if self.list.capacity() > 2 * left {
            self.list.shrink_to(left + left / 4);
        }
    }

    /// Bytes on the heap, beside the contents of tiles.
    pub fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Tile<A>>() + self.blocks.heap_bytes()
    }

    /// Changes the tile at `position`, where `new` is inserted first, if there is one; as
    /// [`Tiles::change`](super::tiles::Tiles::change).
    pub fn change(
        &mut self,
        position: usize,
        new: Option<Tile<A>>,
        newest: i64,
        change: impl FnOnce(&mut A, Option<&mut A::Merged>) -> bool,
    ) {
        let is_new = new.is_some();
        if let Some(tile) = new {
            if self.list.len() == self.list.capacity() {
                // Doubling, as a vector does by itself, wastes half.
                self.list.reserve_exact(1 + self.list.len() / 4);
            }
            if self.blocks.are_built() {
                if position == self.list.len() {
                    self.blocks.cover_last(&self.list);
                } else {
                    self.blocks.make_room(tile.number, newest);
                }
            }
            self.list.insert(position, tile);
        }
        let is_last = position + 1 == self.list.len();
        let Some(tile) = self.list.get_mut(position) else {
            return;
        };
        let block = (!is_last).then(|| self.blocks.holding(position)).flatten();
        let Some((block, tiles)) = block else {
            change(&mut tile.content, None);
            return;
        };
        let merged = block.merged.as_mut();
        let is_merged = merged.is_some();
        let done = change(&mut tile.content, merged);
        if (is_merged && !done) || (!is_merged && is_new && block.is_due()) {
            block.merged = self.list.get(tiles).and_then(A::merged);
        }
    }
}
