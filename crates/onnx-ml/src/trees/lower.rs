//! Every test of an ensemble as one kind: "is the value of this column at most this cut?"
//!
//! A kernel with a single comparison is a fast kernel. So that it needs no other, tests are turned
//! around here, exactly, once at load time:
//!
//! | test | left if the value is at most | left is | right is |
//! |---|---|---|---|
//! | x ≤ t | t | yes | no |
//! | x < t | the number next below t | yes | no |
//! | x > t | t | no | yes |
//! | x ≥ t | the number next below t | no | yes |
//! | x = t, x ≠ t, x ∈ S | 0, of a column that is 0 for members and 1 for others | | |
//!
//! "Next below" is exact: between a number and its predecessor there is no other. A NaN is at most
//! nothing and so goes right; where a node sends it left, the node reads a twin of the column in
//! which NaN has become −∞. A column of the kernels is thus a feature with a way for NaN, or a
//! feature with a set.

use std::collections::HashMap;

use super::ensemble::{Child, Ensemble, Leaf, Test, Way};
use super::walk::{BLOCK, Node, TREES_ABREAST};
use crate::processor::Simd;

/// A column as the kernels see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub feature: usize,
    /// NaN goes left.
    pub nan_left: bool,
    /// Instead of the value: 0 if it is one of these, 1 if not.
    pub set: Option<Box<[f64]>>,
}

/// A branch: left if the column's value is at most `cut`, right if not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    pub column: u32,
    pub cut: f64,
    pub left: Child,
    pub right: Child,
}

/// A tree of such branches, parents before children.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SplitTree {
    pub root: Child,
    pub splits: Vec<Split>,
    pub leaves: Vec<Leaf>,
}

/// The trees of an ensemble over the columns they read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lowered {
    pub columns: Vec<Column>,
    pub trees: Vec<SplitTree>,
}

/// Turns every test around.
pub(crate) fn lower(ensemble: &Ensemble) -> Lowered {
    let mut columns = Columns::default();
    let mut trees = Vec::with_capacity(ensemble.trees.len());
    for tree in &ensemble.trees {
        let mut splits = Vec::with_capacity(tree.branches.len());
        for branch in &tree.branches {
            let predecessor = |t: f64| {
                if ensemble.wide {
                    t.next_down()
                } else {
                    f64::from((t as f32).next_down())
                }
            };
            // The cut, and whether "yes" is on the left; no cut for sets.
            let ordered = match &branch.test {
                Test::AtMost(t) => Some((*t, true)),
                Test::Above(t) => Some((*t, false)),
                Test::Below(t) if *t > f64::NEG_INFINITY => Some((predecessor(*t), true)),
                Test::AtLeast(t) if *t > f64::NEG_INFINITY => Some((predecessor(*t), false)),
                _ => None,
            };
            let members: &[f64] = match &branch.test {
                Test::Equals(t) | Test::Differs(t) => std::slice::from_ref(t),
                Test::Member(set) => set,
                _ => &[],
            };
            let (cut, yes_left, set) = match ordered {
                Some((cut, yes_left)) => (cut, yes_left, None),
                None => {
                    // Of the empty set nothing is a member: everything goes right.
                    let yes_left = match &branch.test {
                        Test::Equals(_) | Test::Member(_) | Test::Below(_) => true,
                        Test::Always(answer) => !answer,
                        _ => false,
                    };
                    (0.0, yes_left, Some(members))
                }
            };
            let nan_left = (branch.missing == Way::Yes) == yes_left;
            let (left, right) = if yes_left {
                (branch.yes, branch.no)
            } else {
                (branch.no, branch.yes)
            };
            splits.push(Split {
                column: columns.find(branch.feature, nan_left, set),
                cut,
                left,
                right,
            });
        }
        trees.push(SplitTree {
            root: tree.root,
            splits,
            leaves: tree.leaves.clone(),
        });
    }
    Lowered {
        columns: columns.columns,
        trees,
    }
}

/// A column's feature, way for NaN, and set as bits.
type Key = (u32, bool, Box<[u64]>);

#[derive(Default)]
struct Columns {
    columns: Vec<Column>,
    /// Columns of sets.
    sets: HashMap<Key, u32>,
    /// The others by feature: NaN right and NaN left.
    ordered: HashMap<u32, [Option<u32>; 2]>,
}

impl Columns {
    fn find(&mut self, feature: u32, nan_left: bool, set: Option<&[f64]>) -> u32 {
        let next = self.columns.len() as u32;
        let number = match set {
            None => {
                let ways = self.ordered.entry(feature).or_default();
                *ways[usize::from(nan_left)].get_or_insert(next)
            }
            Some(set) => {
                let bits = set.iter().map(|value| (value + 0.0).to_bits()).collect();
                let key = (feature, nan_left, bits);
                *self.sets.entry(key).or_insert(next)
            }
        };
        if number == next {
            self.columns.push(Column {
                feature: feature as usize,
                nan_left,
                set: set.map(Box::from),
            });
        }
        number
    }
}

/// A number that trees compare: float32 or float64.
pub(crate) trait Value: Copy + PartialOrd + Send + Sync + 'static {
    const NEG_INFINITY: Self;
    const ZERO: Self;
    fn of(value: f64) -> Self;
    fn widen(self) -> f64;
    fn plus(self, other: Self) -> Self;
    fn is_nan(self) -> bool;
    /// The number whose bits hold a place in a table, and back.
    fn of_place(place: u32) -> Self;
    fn place(self) -> u32;
    /// [`super::walk::Walk::add_block`]'s walk of one tree with vectors of rows, if there is one for
    /// the type; `false` if not.
    fn walk_simd(
        simd: Simd,
        nodes: &[Node<Self>],
        child_bits: u32,
        values: &[Self],
        count: usize,
        places: &mut [u32; BLOCK],
    ) -> bool;
    /// [`super::walk::Walk::add_row`]'s walk of up to [`TREES_ABREAST`] trees with vectors of trees,
    /// if there is one for the type; `false` if not.
    ///
    /// # Safety
    /// Every link in `nodes`, counted from its tree's place in `firsts`, leads to a node, and to a
    /// column that `row` holds.
    #[expect(unsafe_code, reason = "kernels trust their layout")]
    unsafe fn walk_row_simd(
        simd: Simd,
        nodes: &[Node<Self>],
        firsts: &[u32],
        child_bits: u32,
        row: &[Self],
        leaves: &mut [Self; TREES_ABREAST],
    ) -> bool;
}

impl Value for f32 {
    fn walk_simd(
        simd: Simd,
        nodes: &[Node<f32>],
        child_bits: u32,
        values: &[f32],
        count: usize,
        places: &mut [u32; BLOCK],
    ) -> bool {
        simd.walk(nodes, child_bits, values, count, places)
    }
    #[expect(unsafe_code, reason = "kernels trust their layout")]
    unsafe fn walk_row_simd(
        simd: Simd,
        nodes: &[Node<f32>],
        firsts: &[u32],
        child_bits: u32,
        row: &[f32],
        leaves: &mut [f32; TREES_ABREAST],
    ) -> bool {
        // SAFETY: the same promise.
        unsafe { simd.walk_row(nodes, firsts, child_bits, row, leaves) }
    }
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    const ZERO: f32 = 0.0;
    fn of(value: f64) -> f32 {
        value as f32
    }
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn plus(self, other: f32) -> f32 {
        self + other
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn of_place(place: u32) -> f32 {
        f32::from_bits(place)
    }
    fn place(self) -> u32 {
        self.to_bits()
    }
}

impl Value for f64 {
    fn walk_simd(
        _: Simd,
        _: &[Node<f64>],
        _: u32,
        _: &[f64],
        _: usize,
        _: &mut [u32; BLOCK],
    ) -> bool {
        false
    }
    #[expect(unsafe_code, reason = "kernels trust their layout")]
    unsafe fn walk_row_simd(
        _: Simd,
        _: &[Node<f64>],
        _: &[u32],
        _: u32,
        _: &[f64],
        _: &mut [f64; TREES_ABREAST],
    ) -> bool {
        false
    }
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    const ZERO: f64 = 0.0;
    fn of(value: f64) -> f64 {
        value
    }
    fn widen(self) -> f64 {
        self
    }
    fn plus(self, other: f64) -> f64 {
        self + other
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn of_place(place: u32) -> f64 {
        f64::from_bits(u64::from(place))
    }
    fn place(self) -> u32 {
        self.to_bits() as u32
    }
}

impl Column {
    /// What the kernels see for a value.
    pub fn see<T: Value>(&self, value: T) -> T {
        match &self.set {
            None if self.nan_left && value.is_nan() => T::NEG_INFINITY,
            None => value,
            Some(set) => {
                let wide = value.widen();
                let left = if value.is_nan() {
                    self.nan_left
                } else {
                    let found = set.binary_search_by(|member| {
                        member
                            .partial_cmp(&wide)
                            .unwrap_or(std::cmp::Ordering::Less)
                    });
                    found.is_ok()
                };
                if left { T::ZERO } else { T::of(1.0) }
            }
        }
    }
}
