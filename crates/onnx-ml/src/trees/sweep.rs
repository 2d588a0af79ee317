//! The sweep: many rows at once through every node of a tree, a byte a row.
//!
//! Two ideas make a node cost a fraction of a cycle per row.
//!
//! *Ranks instead of values.* A column is only ever compared with the cuts that occur in the trees.
//! Its value is replaced, exactly, by how many of the cuts lie below it: `x <= cuts[i]` is
//! `rank(x) <= i`. With at most 255 different cuts a feature, a rank is a byte (as in histogram
//! boosting, whose models rarely have more), and one vector instruction compares 32 or 64 rows.
//! Trees whose cuts are too many together are split into groups with ranks of their own.
//!
//! *Leaves counted from the left, visited in pre-order.* Each row keeps one byte: the leftmost leaf
//! that it can still reach. A node covers the leaves from `here` on; its right subtree begins at leaf
//! `right`. In pre-order a row has reached a node exactly when its byte is `here`: nothing
//! before the node has sent it past, and whatever would send it further comes later. So a node is
//!
//! ```text
//!   leaf[row] = if leaf[row] == here && rank[column][row] > cut { right } else { leaf[row] }
//!
//!                 x≤3 here 0 right 3            row A: x=1 y=9    row B: x=5
//!                /   \                          ────────────────  ────────────
//!     here 0  y≤7     z≤1 here 3    x≤3 (0→3)   0                 3
//!     right 2 / \     / \ right 4   y≤7 (0→2)   2                 3  (not at 0)
//!        w≤2 /   2   3   4          w≤2 (0→1)   2  (not at 0)     3
//!           0 1                     z≤1 (3→4)   2  (not at 3)     3 or 4
//! ```
//!
//! two comparisons and a select, for all rows, without a branch, a gather or a dependence on the
//! shape of the tree; memory is read in order. At the end the byte is the leaf. That is as
//! many operations as the tree has nodes, not as a path is long: for 64 leaves and 64 rows a vector
//! it is about two cycles a row and tree. The idea of visiting all nodes in a fixed order and keeping
//! the leftmost leaf is QuickScorer's (Lucchese et al., SIGIR 2015), whose bit-vectors of
//! leaves V-QuickScorer (Lucchese et al., SIGIR 2016) applies to several rows and RapidScorer (Ye et
//! al., KDD 2018) shortens; here the bit-vector has become an interval and its AND a select, which
//! takes one byte a row where those take one bit a leaf.
//!
//! A row's sum is made tree by tree in float32, whatever the number of rows or the width of vectors.

use std::collections::{HashMap, HashSet};

use super::ensemble::{Child, Ensemble};
use super::lower::{Column, Lowered, SplitTree};
use super::walk::{BLOCK, single_target};
use crate::processor::Simd;

/// Leaves that a byte can count.
const MOST_LEAVES: usize = 256;
/// Cuts of a feature whose ranks fit a byte.
const MOST_CUTS: usize = 255;
/// Trees with fewer leaves and several targets are walked.
const FEW_LEAVES: usize = 8;
/// Columns of a group: the ranks of a block take 256 bytes each.
const MOST_COLUMNS: usize = 1 << 13;

/// A node, each byte four times so that it can be broadcast to a vector by the load alone.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(16))]
pub(crate) struct Node {
    /// Rows whose rank is above go right.
    pub cut: u32,
    /// The first leaf below the node.
    pub here: u32,
    /// The first leaf below its right child.
    pub right: u32,
    /// Where the column begins in the block's ranks.
    pub ranks: u32,
}

#[derive(Debug, Clone, PartialEq)]
struct Tree {
    nodes: std::ops::Range<usize>,
    /// Its leaves' values for each target from `targets.start` on.
    table: usize,
    /// Entries for one target: 64 or 256.
    stride: usize,
    targets: std::ops::Range<usize>,
}

/// How the ranks of a feature are found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Feature {
    pub feature: usize,
    /// Ascending.
    pub cuts: Vec<f32>,
    /// The cuts as a binary search reads them, level by level; see [`levels`].
    pub levels: Vec<f32>,
    /// The number of levels.
    pub depth: usize,
    /// Where the ranks go in which NaN is above all cuts.
    pub nan_right: Option<usize>,
    /// Where the ranks go in which NaN is below all cuts.
    pub nan_left: Option<usize>,
}

/// Trees that share their ranks.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    nodes: Vec<Node>,
    trees: Vec<Tree>,
    features: Vec<Feature>,
    /// Columns of sets, and where they go.
    sets: Vec<(Column, usize)>,
    tables: Vec<f32>,
    /// Bytes of the ranks of a block.
    pub rank_bytes: usize,
}

impl Sweep {
    /// Lays out as many of the trees from `first` on as can share their ranks: one at least if it
    /// has at most [`MOST_LEAVES`], else none.
    pub fn new(ensemble: &Ensemble, lowered: &Lowered, first: usize) -> (Sweep, usize) {
        let mut shared = Shared::default();
        let mut taken = 0;
        for tree in &lowered.trees[first..] {
            // Their rows of the table would be empty for the most part.
            let wasteful =
                tree.leaves.len() < FEW_LEAVES && single_target(ensemble, tree).is_none();
            let fits = tree.leaves.len() <= MOST_LEAVES && !wasteful;
            if !fits || !shared.add(tree, &lowered.columns) {
                break;
            }
            taken += 1;
        }
        let mut sweep = Sweep {
            nodes: Vec::new(),
            trees: Vec::new(),
            features: Vec::new(),
            sets: Vec::new(),
            tables: Vec::new(),
            rank_bytes: 0,
        };
        let places = sweep.place_columns(&lowered.columns, shared);
        for tree in &lowered.trees[first..first + taken] {
            sweep.tree(ensemble, tree, &places);
        }
        (sweep, taken)
    }

    /// Gives each column its place among the ranks.
    fn place_columns(&mut self, columns: &[Column], mut shared: Shared) -> HashMap<u32, Place> {
        let mut places = HashMap::new();
        let mut feature_places: HashMap<usize, usize> = HashMap::new();
        let mut numbers: Vec<u32> = shared.columns.into_iter().collect();
        // In their order, for a layout that is the same each time.
        numbers.sort_unstable();
        for number in numbers {
            let column = &columns[number as usize];
            let offset = self.rank_bytes;
            self.rank_bytes += BLOCK;
            if column.set.is_some() {
                self.sets.push((column.clone(), offset));
                places.insert(
                    number,
                    Place {
                        offset,
                        feature: None,
                    },
                );
                continue;
            }
            let place = *feature_places.entry(column.feature).or_insert_with(|| {
                let cuts = shared.cuts.remove(&column.feature).unwrap_or_default();
                let (levels, depth) = levels(&cuts);
                self.features.push(Feature {
                    feature: column.feature,
                    cuts,
                    levels,
                    depth,
                    nan_right: None,
                    nan_left: None,
                });
                self.features.len() - 1
            });
            let feature = &mut self.features[place];
            if column.nan_left {
                feature.nan_left = Some(offset);
            } else {
                feature.nan_right = Some(offset);
            }
            places.insert(
                number,
                Place {
                    offset,
                    feature: Some(place),
                },
            );
        }
        places
    }

    fn tree(&mut self, ensemble: &Ensemble, tree: &SplitTree, places: &HashMap<u32, Place>) {
        let first_node = self.nodes.len();
        let mut leaves: Vec<u32> = Vec::with_capacity(tree.leaves.len());
        // Pre-order with an explicit stack: a node's right child is only placed when the whole left
        // subtree is, and then tells its parent where it begins.
        let mut open: Vec<(Child, Option<usize>)> = vec![(tree.root, None)];
        while let Some((child, parent)) = open.pop() {
            let here = leaves.len() as u32;
            if let Some(parent) = parent {
                self.nodes[parent].right = four(here);
            }
            match child {
                Child::Leaf(leaf) => leaves.push(leaf),
                Child::Branch(branch) => {
                    let split = &tree.splits[branch as usize];
                    let place = &places[&split.column];
                    // Members of a set have rank 0.
                    let rank = place.feature.map_or(0, |feature| {
                        let cuts = &self.features[feature].cuts;
                        cuts.partition_point(|cut| *cut < split.cut as f32) as u32
                    });
                    open.push((split.right, Some(self.nodes.len())));
                    open.push((split.left, None));
                    self.nodes.push(Node {
                        cut: four(rank),
                        here: four(here),
                        right: 0,
                        ranks: place.offset as u32,
                    });
                }
            }
        }
        let targets = match single_target(ensemble, tree) {
            Some(target) => target as usize..target as usize + 1,
            None if tree.leaves.iter().all(|leaf| leaf.count == 0) => 0..0,
            None => 0..ensemble.targets,
        };
        let stride = if leaves.len() <= 64 { 64 } else { MOST_LEAVES };
        let table = self.tables.len();
        self.tables.resize(table + stride * targets.len(), 0.0);
        for (place, leaf) in leaves.iter().enumerate() {
            let leaf = tree.leaves[*leaf as usize];
            let weights = leaf.first as usize..(leaf.first + leaf.count) as usize;
            for weight in &ensemble.weights[weights] {
                let row = (weight.target as usize - targets.start) * stride;
                self.tables[table + row + place] = weight.value as f32;
            }
        }
        self.trees.push(Tree {
            nodes: first_node..self.nodes.len(),
            table,
            stride,
            targets,
        });
    }

    /// Adds what the trees give for the rows to `sums`, which holds [`BLOCK`] numbers for each
    /// target. `rows` is row-major with `width` columns, `count` of them and at most [`BLOCK`];
    /// sums beyond `count` are left with nothing of meaning. `ranks` is scratch.
    pub fn add_block(
        &self,
        simd: Simd,
        rows: &[f32],
        width: usize,
        count: usize,
        ranks: &mut [u8],
        sums: &mut [f32],
    ) {
        let ranks = &mut ranks[..self.rank_bytes];
        for feature in &self.features {
            simd.rank(feature, rows, width, count, ranks);
        }
        for (column, offset) in &self.sets {
            for row in 0..count {
                let seen = column.see(rows[row * width + column.feature]);
                ranks[offset + row] = u8::from(seen > 0.0);
            }
        }
        let mut leaves = [0u8; BLOCK];
        for tree in &self.trees {
            simd.sweep(&self.nodes[tree.nodes.clone()], ranks, count, &mut leaves);
            for target in tree.targets.clone() {
                let table = tree.table + (target - tree.targets.start) * tree.stride;
                let table = &self.tables[table..table + tree.stride];
                let sums = &mut sums[target * BLOCK..][..BLOCK];
                simd.add_leaves(table, &leaves, count, sums);
            }
        }
    }
}

/// The byte in each of four places.
fn four(byte: u32) -> u32 {
    byte * 0x0101_0101
}

/// Where a column's ranks are, and which of [`Sweep::features`] they are of, unless of a set.
struct Place {
    offset: usize,
    feature: Option<usize>,
}

/// What the trees of a group read.
#[derive(Default)]
struct Shared {
    columns: HashSet<u32>,
    /// Ascending, by feature.
    cuts: HashMap<usize, Vec<f32>>,
}

impl Shared {
    /// Adds what a tree reads; `false`, and nothing added, if that becomes too much.
    fn add(&mut self, tree: &SplitTree, columns: &[Column]) -> bool {
        let mut added_columns = Vec::new();
        let mut added_cuts = Vec::new();
        let mut fits = true;
        for split in &tree.splits {
            if self.columns.insert(split.column) {
                added_columns.push(split.column);
            }
            let column = &columns[split.column as usize];
            if column.set.is_none() {
                let known = self.cuts.entry(column.feature).or_default();
                let cut = split.cut as f32;
                let place = known.partition_point(|known| *known < cut);
                if known.get(place) != Some(&cut) {
                    known.insert(place, cut);
                    added_cuts.push((column.feature, cut));
                    fits &= known.len() <= MOST_CUTS;
                }
            }
        }
        // A tree alone always fits: it has fewer splits than leaves.
        fits &= self.columns.len() <= MOST_COLUMNS;
        if !fits {
            for number in added_columns {
                self.columns.remove(&number);
            }
            for (feature, cut) in added_cuts {
                if let Some(known) = self.cuts.get_mut(&feature) {
                    known.retain(|known| *known != cut);
                }
            }
        }
        fits
    }
}

/// The pivots of a binary search, level after level: level `l` has 2^l of them, at the start of
/// max(16, 2^l) places, so that a level is read as whole vectors. Missing cuts are +∞, which is
/// below nothing.
fn levels(cuts: &[f32]) -> (Vec<f32>, usize) {
    let depth = (usize::BITS - cuts.len().leading_zeros()) as usize;
    let full = (1usize << depth) - 1;
    let mut levels = Vec::new();
    for level in 0..depth {
        let count = 1usize << level;
        let step = (full + 1) >> level;
        for index in 0..count.max(16) {
            let place = index * step + step / 2 - 1;
            let pivot = if index < count { cuts.get(place) } else { None };
            levels.push(pivot.copied().unwrap_or(f32::INFINITY));
        }
    }
    (levels, depth)
}
