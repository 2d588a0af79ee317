//! The plain evaluator: row by row, tree by tree. What the fast kernels are tested against, and what
//! evaluates the ensembles that they do not cover.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::tensor::Element;
use crate::trees::ensemble::{Aggregate, Branch, Child, Ensemble, Leaf, Test, Tree, Way, Weight};
use crate::trees::evaluator::Sums;

/// The two types of numbers in which ensembles are evaluated.
pub(crate) trait Real:
    Element
    + Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Real for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f32(value: f32) -> f32 {
        value
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f32(value: f32) -> f64 {
        f64::from(value)
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
}

/// What the leaves of each row give. `rows` has `count` rows of `columns` values.
pub(crate) fn sums<T: Real>(
    ensemble: &Ensemble,
    all_present: bool,
    rows: &[T],
    columns: usize,
    count: usize,
) -> Sums<T> {
    let targets = ensemble.targets;
    let mut scores = vec![T::default(); count * targets];
    // The least and the greatest are told apart from nothing at all by this too.
    let extreme = matches!(ensemble.aggregate, Aggregate::Min | Aggregate::Max);
    let mut present = vec![
        false;
        if all_present && !extreme {
            0
        } else {
            count * targets
        }
    ];
    for number in 0..count {
        let row = &rows[number * columns..(number + 1) * columns];
        let place = number * targets;
        let scores = &mut scores[place..place + targets];
        let present = present.get_mut(place..place + targets);
        add_row(ensemble, row, scores, present);
    }
    Sums {
        scores,
        present: (!all_present).then_some(present),
    }
}

fn add_row<T: Real>(
    ensemble: &Ensemble,
    row: &[T],
    scores: &mut [T],
    mut present: Option<&mut [bool]>,
) {
    for tree in &ensemble.trees {
        for weight in weights(ensemble, leaf(tree, row)) {
            let value = T::from_f64(weight.value);
            let target = weight.target as usize;
            let score = &mut scores[target];
            let first = match &mut present {
                Some(present) => !std::mem::replace(&mut present[target], true),
                None => false,
            };
            match ensemble.aggregate {
                Aggregate::Sum | Aggregate::Average => *score = *score + value,
                Aggregate::Min if first || value < *score => *score = value,
                Aggregate::Max if first || value > *score => *score = value,
                Aggregate::Min | Aggregate::Max => {}
            }
        }
    }
}

fn weights(ensemble: &Ensemble, leaf: Leaf) -> &[Weight] {
    let first = leaf.first as usize;
    &ensemble.weights[first..first + leaf.count as usize]
}

/// The leaf that a row reaches.
fn leaf<T: Real>(tree: &Tree, row: &[T]) -> Leaf {
    let mut child = tree.root;
    loop {
        match child {
            Child::Leaf(place) => return tree.leaves[place as usize],
            Child::Branch(place) => {
                let branch = &tree.branches[place as usize];
                child = match way(branch, row[branch.feature as usize]) {
                    Way::Yes => branch.yes,
                    Way::No => branch.no,
                };
            }
        }
    }
}

/// The way on from a branch.
pub(crate) fn way<T: Real>(branch: &Branch, value: T) -> Way {
    if value.partial_cmp(&value).is_none() {
        return branch.missing;
    }
    let holds = match &branch.test {
        Test::AtMost(threshold) => value <= T::from_f64(*threshold),
        Test::Below(threshold) => value < T::from_f64(*threshold),
        Test::Above(threshold) => value > T::from_f64(*threshold),
        Test::AtLeast(threshold) => value >= T::from_f64(*threshold),
        Test::Equals(number) => value == T::from_f64(*number),
        Test::Differs(number) => value != T::from_f64(*number),
        Test::Member(set) => {
            let value = value.to_f64();
            let place = set.partition_point(|member| *member < value);
            set.get(place).is_some_and(|member| *member == value)
        }
        Test::Always(answer) => *answer,
    };
    if holds { Way::Yes } else { Way::No }
}

/// Whether every row gives every target something: each has a tree all of whose leaves give it some.
pub(crate) fn all_present(ensemble: &Ensemble) -> bool {
    // There may be far more targets than anything in the file.
    if ensemble.targets > ensemble.weights.len() {
        return false;
    }
    let mut certain = vec![false; ensemble.targets];
    let mut left = ensemble.targets;
    let mut counts = vec![0usize; ensemble.targets];
    for tree in &ensemble.trees {
        if left == 0 {
            break;
        }
        for leaf in &tree.leaves {
            for weight in weights(ensemble, *leaf) {
                counts[weight.target as usize] += 1;
            }
        }
        // A target that every leaf gives something is one of the first leaf's.
        for weight in tree
            .leaves
            .first()
            .map_or(&[][..], |first| weights(ensemble, *first))
        {
            let target = weight.target as usize;
            if counts[target] == tree.leaves.len() && !certain[target] {
                certain[target] = true;
                left -= 1;
            }
        }
        for leaf in &tree.leaves {
            for weight in weights(ensemble, *leaf) {
                counts[weight.target as usize] = 0;
            }
        }
    }
    left == 0
}
