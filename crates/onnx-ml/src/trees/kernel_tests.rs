//! Every kernel gives the bits of the plain evaluator, whatever the trees, the rows and their number.

use super::ensemble::{Aggregate, Branch, Child, Ensemble, Leaf, Test, Tree, Way, Weight};
use super::evaluator::{Evaluator, Sums};
use super::plain;
use crate::pool::ScopedThreads;
use crate::processor::Simd;

/// A small generator of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Numbers that meet each other often, and all that are special.
    fn number(&mut self) -> f32 {
        const SPECIAL: [f32; 8] = [
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            f32::MIN_POSITIVE,
            -1e-45,
            f32::MAX,
            f32::MIN,
        ];
        match self.below(6) {
            0 => SPECIAL[self.below(SPECIAL.len())],
            1 => self.below(7) as f32 - 3.0,
            _ => (self.below(4001) as f32 - 2000.0) / 128.0,
        }
    }

    fn test(&mut self) -> Test {
        let t = f64::from(self.number());
        match self.below(12) {
            0 => Test::Below(t),
            1 => Test::Above(t),
            2 => Test::AtLeast(t),
            3 => Test::Equals(t),
            4 => Test::Differs(t),
            5 => {
                let mut set: Vec<f64> = (0..self.below(5))
                    .map(|_| f64::from(self.number()))
                    .collect();
                set.sort_by(f64::total_cmp);
                set.dedup();
                Test::Member(set.into_boxed_slice())
            }
            6 => Test::Always(self.below(2) == 0),
            _ => Test::AtMost(t),
        }
    }
}

struct Kind {
    trees: usize,
    leaves: usize,
    features: usize,
    targets: usize,
    /// A leaf adds to every sum, else to one that its tree decides.
    dense: bool,
}

fn ensemble(random: &mut Random, kind: &Kind) -> Ensemble {
    let mut weights = Vec::new();
    let mut trees = Vec::new();
    for number in 0..kind.trees {
        let leaves = 1 + random.below(kind.leaves);
        let mut tree = Tree {
            root: Child::Leaf(0),
            branches: Vec::new(),
            leaves: Vec::new(),
        };
        // Grown from the root: a leaf that is still open becomes a branch, or stays.
        let mut open: Vec<Option<(usize, bool)>> = vec![None];
        while let Some(place) =
            (!open.is_empty()).then(|| open.swap_remove(random.below(open.len())))
        {
            let grows = tree.leaves.len() + open.len() + 1 < leaves;
            let child = if grows {
                tree.branches.push(Branch {
                    feature: random.below(kind.features) as u32,
                    test: random.test(),
                    missing: if random.below(2) == 0 {
                        Way::Yes
                    } else {
                        Way::No
                    },
                    yes: Child::Leaf(0),
                    no: Child::Leaf(0),
                });
                let branch = tree.branches.len() - 1;
                open.push(Some((branch, true)));
                open.push(Some((branch, false)));
                Child::Branch(branch as u32)
            } else {
                let first = weights.len() as u32;
                let targets = if kind.dense {
                    0..kind.targets
                } else {
                    number % kind.targets..number % kind.targets + 1
                };
                for target in targets {
                    let value = f64::from((random.below(2001) as f32 - 1000.0) / 777.0);
                    weights.push(Weight {
                        target: target as u32,
                        value,
                    });
                }
                let count = weights.len() as u32 - first;
                tree.leaves.push(Leaf { first, count });
                Child::Leaf(tree.leaves.len() as u32 - 1)
            };
            match place {
                None => tree.root = child,
                Some((branch, true)) => tree.branches[branch].yes = child,
                Some((branch, false)) => tree.branches[branch].no = child,
            }
        }
        trees.push(tree);
    }
    Ensemble {
        features: kind.features,
        targets: kind.targets,
        trees,
        weights,
        aggregate: Aggregate::Sum,
        wide: false,
    }
}

fn rows(random: &mut Random, ensemble: &Ensemble, count: usize) -> Vec<f32> {
    // Beside numbers of all kinds: thresholds of the trees, and their neighbours.
    let mut thresholds = vec![0.0f32];
    for branch in ensemble.trees.iter().flat_map(|tree| &tree.branches) {
        if let Test::AtMost(t) | Test::Below(t) | Test::Above(t) | Test::AtLeast(t) = branch.test {
            thresholds.push(t as f32);
        }
    }
    let each = (0..count * ensemble.features).map(|_| {
        let near = thresholds[random.below(thresholds.len())];
        match random.below(8) {
            0 => f32::NAN,
            1 | 2 => near,
            3 => near.next_up(),
            4 => near.next_down(),
            _ => random.number(),
        }
    });
    each.collect()
}

fn bits(sums: &Sums<f32>) -> Vec<u32> {
    sums.scores.iter().map(|sum| sum.to_bits()).collect()
}

fn check(kind: &Kind, seed: u64, counts: &[usize]) {
    let mut random = Random(seed);
    let ensemble = ensemble(&mut random, kind);
    for count in counts {
        let rows = rows(&mut random, &ensemble, *count);
        let expected = plain::sums(&ensemble, true, &rows, kind.features, *count);
        for simd in Simd::all() {
            let evaluator = Evaluator::with_simd(ensemble.clone(), false, simd);
            let found = evaluator.sums_f32(&rows, kind.features, *count, None);
            assert_eq!(
                bits(&found),
                bits(&expected),
                "seed {seed}, {count} rows, {simd:?}"
            );
            let threads = evaluator.sums_f32(&rows, kind.features, *count, Some(&ScopedThreads(3)));
            assert_eq!(
                bits(&threads),
                bits(&expected),
                "seed {seed}, {count} rows, threads"
            );
        }
    }
}

const COUNTS: &[usize] = &[0, 1, 5, 31, 64, 65, 257, 600];

/// Miri takes a thousand times as long.
fn seeds() -> std::ops::Range<u64> {
    if cfg!(miri) { 1..2 } else { 1..5 }
}

fn counts() -> &'static [usize] {
    if cfg!(miri) { &[1, 7, 33] } else { COUNTS }
}

#[test]
fn small_trees_give_the_bits_of_the_plain_evaluator() {
    for seed in seeds() {
        check(
            &Kind {
                trees: 21,
                leaves: 64,
                features: 7,
                targets: 1,
                dense: false,
            },
            seed,
            counts(),
        );
    }
}

#[test]
fn trees_of_up_to_256_leaves_do_too() {
    for seed in seeds() {
        check(
            &Kind {
                trees: 9,
                leaves: 256,
                features: 3,
                targets: 1,
                dense: false,
            },
            seed,
            counts(),
        );
    }
}

#[test]
fn trees_of_more_leaves_do_too() {
    for seed in seeds() {
        check(
            &Kind {
                trees: 5,
                leaves: 900,
                features: 30,
                targets: 1,
                dense: false,
            },
            seed,
            counts(),
        );
    }
}

#[test]
fn trees_of_all_sizes_for_several_targets_do_too() {
    for seed in seeds() {
        check(
            &Kind {
                trees: 12,
                leaves: 400,
                features: 5,
                targets: 3,
                dense: true,
            },
            seed,
            counts(),
        );
        check(
            &Kind {
                trees: 12,
                leaves: 40,
                features: 5,
                targets: 4,
                dense: false,
            },
            seed,
            counts(),
        );
    }
}

#[test]
fn a_batch_larger_than_a_part_does_too() {
    let many = if cfg!(miri) { 40 } else { 9000 };
    check(
        &Kind {
            trees: 3,
            leaves: 30,
            features: 4,
            targets: 2,
            dense: true,
        },
        5,
        &[many],
    );
}

#[test]
fn float64_trees_give_the_bits_of_the_plain_evaluator() {
    for seed in seeds() {
        let mut random = Random(seed);
        let kind = Kind {
            trees: 9,
            leaves: 300,
            features: 5,
            targets: 2,
            dense: true,
        };
        let mut ensemble = ensemble(&mut random, &kind);
        let rows = rows(&mut random, &ensemble, 50);
        let mut wide: Vec<f64> = rows.iter().copied().map(f64::from).collect();
        for value in &mut wide {
            if random.below(3) == 0 {
                *value = value.next_up();
            }
        }
        for is_wide in [false, true] {
            ensemble.wide = is_wide;
            let expected = plain::sums(&ensemble, true, &wide, 5, 50);
            let evaluator = Evaluator::new(ensemble.clone(), false);
            let found = evaluator.sums_f64(&wide, 5, 50, None);
            let bits = |sums: &Sums<f64>| {
                sums.scores
                    .iter()
                    .map(|sum| sum.to_bits())
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(&found), bits(&expected), "seed {seed}");
        }
    }
}
