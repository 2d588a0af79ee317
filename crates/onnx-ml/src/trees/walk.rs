//! The walk: from the root to a leaf, one comparison a level. For single rows, and for trees that are
//! too large for the sweep.
//!
//! A node is eight bytes (sixteen in float64), and siblings lie side by side:
//!
//! ```text
//!            ┌──────────────┬────────────────────────┐
//!   node     │ cut          │ column │ left child    │      right child = left child + 1
//!            └──────────────┴────────────────────────┘
//!            ┌──────────────┬────────────────────────┐
//!   leaf     │ what it adds │ column │ itself        │      of a column that is −∞ in every row
//!            └──────────────┴────────────────────────┘
//! ```
//!
//! One step is `place = left child + !(value[column] <= cut)`, without a branch, and a leaf steps
//! onto itself, because −∞ is at most anything. So many walks are under way at once, and the loop
//! ends when none has moved: the time to fetch a node is spent on the others. For one row the walks
//! are eight trees, or in AVX-512 up to 64, sixteen a vector; for many rows they are as many rows of
//! one tree.
//!
//! What a leaf adds is in its node when the tree adds to one sum only; else the node holds the place
//! of a row of a table.

use super::ensemble::{Child, Ensemble};
use super::lower::{Lowered, SplitTree, Value};
use crate::processor::Simd;

/// Rows that are worked on together; also the distance of two columns in a block.
pub(crate) const BLOCK: usize = 256;

/// Walks under way at the same time in the portable loops.
const ABREAST: usize = 8;

/// Trees whose leaves one row finds before they are added up.
pub(crate) const TREES_ABREAST: usize = 64;

/// What [`Tree::target`] is when a leaf adds to every sum.
const EVERY: u32 = u32::MAX;

/// Node or leaf; see the picture above.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct Node<T> {
    pub cut: T,
    pub link: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Tree {
    /// The sum that its leaves add to, or [`EVERY`].
    target: u32,
}

/// Trees laid out for walking.
#[derive(Debug, Clone)]
pub(crate) struct Walk<T> {
    nodes: Vec<Node<T>>,
    trees: Vec<Tree>,
    /// For each tree the place of its first node; the root is there, and links count from there.
    firsts: Vec<u32>,
    /// Rows of `targets` numbers, one for each leaf of the trees that add to every sum.
    table: Vec<T>,
    targets: usize,
    /// The number of columns; one more follows them, which is −∞.
    columns: usize,
    /// The bits of a link above this are the column.
    child_bits: u32,
}

impl<T: Value> Walk<T> {
    /// Lays the trees out; `None` when columns and children do not fit into 32 bits, when leaves
    /// hold NaN, or when filling up sparse leaves would take far more memory than they do.
    pub fn new(ensemble: &Ensemble, lowered: &Lowered) -> Option<Walk<T>> {
        let largest = lowered
            .trees
            .iter()
            .map(|tree| 2 * tree.splits.len() + 1)
            .max()?;
        let bits = |count: usize| usize::BITS - count.leading_zeros();
        let child_bits = bits(largest);
        if child_bits + bits(lowered.columns.len() + 1) > 32 {
            return None;
        }
        let mut walk = Walk {
            nodes: Vec::with_capacity(lowered.trees.iter().map(|t| 2 * t.splits.len() + 1).sum()),
            trees: Vec::with_capacity(lowered.trees.len()),
            firsts: Vec::with_capacity(lowered.trees.len()),
            table: Vec::new(),
            targets: ensemble.targets,
            columns: lowered.columns.len(),
            child_bits,
        };
        let dense_limit = 4 * ensemble.weights.len() + (1 << 16);
        for tree in &lowered.trees {
            let target = single_target(ensemble, tree).unwrap_or(EVERY);
            if target == EVERY {
                let table = tree.leaves.len().checked_mul(ensemble.targets)?;
                if walk.table.len().checked_add(table)? > dense_limit {
                    return None;
                }
            }
            walk.tree(ensemble, tree, target)?;
        }
        (walk.nodes.len() < 1 << 30).then_some(walk)
    }

    /// The number of sums of a row.
    pub fn targets(&self) -> usize {
        self.targets
    }

    fn tree(&mut self, ensemble: &Ensemble, tree: &SplitTree, target: u32) -> Option<()> {
        let first = self.nodes.len();
        let weights = |leaf: u32| {
            let leaf = tree.leaves[leaf as usize];
            &ensemble.weights[leaf.first as usize..(leaf.first + leaf.count) as usize]
        };
        // Breadth first, so that the nodes that most rows visit share cache lines.
        let placeholder = Node {
            cut: T::ZERO,
            link: 0,
        };
        self.nodes.push(placeholder);
        let mut open = std::collections::VecDeque::from([(tree.root, 0usize)]);
        while let Some((child, place)) = open.pop_front() {
            let node = match child {
                Child::Branch(branch) => {
                    let split = &tree.splits[branch as usize];
                    let left = self.nodes.len() - first;
                    self.nodes.extend([placeholder, placeholder]);
                    open.push_back((split.left, left));
                    open.push_back((split.right, left + 1));
                    Node {
                        cut: T::of(split.cut),
                        link: self.link(split.column, left),
                    }
                }
                Child::Leaf(leaf) => {
                    let cut = if target == EVERY {
                        let row = u32::try_from(self.table.len() / self.targets.max(1)).ok()?;
                        let start = self.table.len();
                        self.table.resize(start + self.targets, T::ZERO);
                        for weight in weights(leaf) {
                            self.table[start + weight.target as usize] = T::of(weight.value);
                        }
                        T::of_place(row)
                    } else {
                        T::of(weights(leaf).first().map_or(0.0, |weight| weight.value))
                    };
                    if cut.is_nan() {
                        return None;
                    }
                    Node {
                        cut,
                        link: self.link(self.columns as u32, place),
                    }
                }
            };
            self.nodes[first + place] = node;
        }
        self.firsts.push(first as u32);
        self.trees.push(Tree { target });
        Some(())
    }

    fn link(&self, column: u32, child: usize) -> u32 {
        column << self.child_bits | child as u32
    }

    /// Adds what the trees give for one row to `sums`. `row` has the values of all columns and then
    /// −∞.
    pub fn add_row(&self, simd: Simd, row: &[T], sums: &mut [T]) {
        assert!(row.len() > self.columns && sums.len() == self.targets);
        let mut leaves = [T::ZERO; TREES_ABREAST];
        let groups = self
            .trees
            .chunks(TREES_ABREAST)
            .zip(self.firsts.chunks(TREES_ABREAST));
        for (trees, firsts) in groups {
            // SAFETY: `tree` made every link: its child is a node of the same tree (for a left
            // child, so is the one after it), and its column is at most `columns`, which the
            // assertion above has found `row` to hold.
            #[expect(unsafe_code, reason = "the inner loop of the kernel")]
            unsafe {
                if !T::walk_row_simd(simd, &self.nodes, firsts, self.child_bits, row, &mut leaves) {
                    for (firsts, leaves) in firsts.chunks(ABREAST).zip(leaves.chunks_mut(ABREAST)) {
                        match firsts.try_into() {
                            Ok(firsts) => self.walk_trees::<ABREAST>(firsts, row, leaves),
                            Err(_) => {
                                for (first, leaf) in firsts.iter().zip(leaves.chunks_mut(1)) {
                                    self.walk_trees::<1>(&[*first], row, leaf);
                                }
                            }
                        }
                    }
                }
            }
            for (tree, leaf) in trees.iter().zip(&leaves) {
                if tree.target == EVERY {
                    let start = leaf.place() as usize * self.targets;
                    for (sum, value) in sums.iter_mut().zip(&self.table[start..]) {
                        *sum = sum.plus(*value);
                    }
                } else {
                    let sum = &mut sums[tree.target as usize];
                    *sum = sum.plus(*leaf);
                }
            }
        }
    }

    /// One row through `N` trees that begin at `firsts`; what their leaves hold goes to `leaves`.
    ///
    /// # Safety
    /// `firsts` are those of trees; `row` has a value for each column and one more.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the inner loop of the kernel")]
    unsafe fn walk_trees<const N: usize>(&self, firsts: &[u32; N], row: &[T], leaves: &mut [T]) {
        let mask = (1u32 << self.child_bits) - 1;
        let mut places = [0u32; N];
        loop {
            let mut moved = 0;
            for (place, first) in places.iter_mut().zip(firsts) {
                // SAFETY: the caller's promise, and every link leads to a node and a column.
                let next = unsafe {
                    let node = self.nodes.get_unchecked((first + *place) as usize);
                    let value = *row.get_unchecked((node.link >> self.child_bits) as usize);
                    (node.link & mask) + goes_right(value, node.cut)
                };
                moved |= next ^ *place;
                *place = next;
            }
            if moved == 0 {
                break;
            }
        }
        for ((place, first), leaf) in places.iter().zip(firsts).zip(leaves) {
            *leaf = self.nodes[(first + place) as usize].cut;
        }
    }

    /// Adds what the trees in `range` give for the rows of a block to `sums`, which holds [`BLOCK`]
    /// numbers for each target. `values` holds [`BLOCK`] numbers for each column and then as many
    /// −∞; sums beyond `count` are left as they are.
    pub fn add_block(
        &self,
        simd: Simd,
        range: std::ops::Range<usize>,
        values: &[T],
        count: usize,
        sums: &mut [T],
    ) {
        assert!(values.len() >= (self.columns + 1) * BLOCK && sums.len() >= self.targets * BLOCK);
        let mut places = [0u32; BLOCK];
        for (tree, first) in self.trees[range.clone()].iter().zip(&self.firsts[range]) {
            let nodes = &self.nodes[*first as usize..];
            if !T::walk_simd(simd, nodes, self.child_bits, values, count, &mut places) {
                for first in (0..count).step_by(ABREAST) {
                    self.walk_rows(nodes, &values[first..], &mut places[first..]);
                }
            }
            for (row, place) in places[..count].iter().enumerate() {
                let leaf = nodes[*place as usize].cut;
                if tree.target == EVERY {
                    let start = leaf.place() as usize * self.targets;
                    let values = &self.table[start..start + self.targets];
                    for (target, value) in values.iter().enumerate() {
                        let sum = &mut sums[target * BLOCK + row];
                        *sum = sum.plus(*value);
                    }
                } else {
                    let sum = &mut sums[tree.target as usize * BLOCK + row];
                    *sum = sum.plus(leaf);
                }
            }
        }
    }

    /// [`ABREAST`] rows of a block through one tree.
    #[inline(always)]
    fn walk_rows(&self, nodes: &[Node<T>], values: &[T], places: &mut [u32]) {
        let mask = (1u32 << self.child_bits) - 1;
        let mut at = [0u32; ABREAST];
        loop {
            let mut moved = 0;
            for (row, place) in at.iter_mut().enumerate() {
                let node = nodes[*place as usize];
                let value = values[(node.link >> self.child_bits) as usize * BLOCK + row];
                let next = (node.link & mask) + goes_right(value, node.cut);
                moved |= next ^ *place;
                *place = next;
            }
            if moved == 0 {
                break;
            }
        }
        places[..ABREAST].copy_from_slice(&at);
    }
}

/// 1 to the right, 0 to the left. Not "greater": NaN goes right too.
#[inline(always)]
#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "one instruction, and what it does with NaN is meant"
)]
fn goes_right<T: Value>(value: T, cut: T) -> u32 {
    u32::from(!(value <= cut))
}

/// The sum that all leaves of the tree add to, if it is one.
pub(crate) fn single_target(ensemble: &Ensemble, tree: &SplitTree) -> Option<u32> {
    let mut target = None;
    for leaf in &tree.leaves {
        if leaf.count > 1 {
            return None;
        }
        if leaf.count == 1 {
            let found = ensemble.weights[leaf.first as usize].target;
            if *target.get_or_insert(found) != found {
                return None;
            }
        }
    }
    target
}
