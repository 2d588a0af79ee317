//! What a read of a window touches: whole blocks, and tiles where there is none.

use std::slice;

use super::blocks::{Block, block_of};
use super::tiles::{Content, Tile};

/// Tiles of a window that are merged by themselves before they are merged with others.
pub enum Group<'a, A: Content> {
    Merged(&'a A::Merged),
    Tiles(&'a [Tile<A>]),
}

/// The groups of a window.
#[derive(Clone)]
pub struct Groups<'a, A: Content> {
    tiles: &'a [Tile<A>],
    /// Those of the tiles, where there are any.
    blocks: &'a [Block<A>],
    /// How many tiles of the first block are not in the window.
    cut: usize,
}

impl<'a, A: Content> Groups<'a, A> {
    /// Of the tiles in a window, and the blocks from the first of them on, `cut` of whose tiles are
    /// before the window.
    pub fn of(tiles: &'a [Tile<A>], blocks: &'a [Block<A>], cut: usize) -> Groups<'a, A> {
        Groups { tiles, blocks, cut }
    }
}

impl<'a, A: Content> Iterator for Groups<'a, A> {
    type Item = Group<'a, A>;

    fn next(&mut self) -> Option<Group<'a, A>> {
        let (last, others) = self.tiles.split_last()?;
        let Some(oldest) = others.first() else {
            self.tiles = &[];
            return Some(Group::Tiles(slice::from_ref(last)));
        };
        if !A::ROUNDS && self.blocks.is_empty() {
            return Some(Group::Tiles(std::mem::take(&mut self.tiles)));
        }
        let mut merged = None;
        let size = match self.blocks.split_first() {
            Some((block, rest)) => {
                let cut = std::mem::take(&mut self.cut);
                self.blocks = rest;
                merged = block.merged.as_ref().filter(|_| cut == 0);
                block.len() - cut
            }
            None => {
                let block = block_of(oldest.number);
                let mut size = 1;
                while size < others.len() && block_of(others[size].number) == block {
                    size += 1;
                }
                size
            }
        };
        let (group, rest) = self.tiles.split_at_checked(size)?;
        self.tiles = rest;
        Some(merged.map_or(Group::Tiles(group), Group::Merged))
    }
}
