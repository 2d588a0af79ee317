//! [`Evaluator`]: the sums of an ensemble, by the kernels that suit its trees.
//!
//! Which kernel does what is decided once, from the shape of the trees:
//!
//! | rows | trees | kernel |
//! |---|---|---|
//! | few | any | [`super::walk`], eight trees abreast |
//! | many | at most 256 leaves, at most 255 cuts a feature together | [`super::sweep`] |
//! | many | larger | [`super::walk`], many rows of one tree abreast |
//! | any | float64, or sparse leaves, or a minimum or maximum is asked for | walk or [`super::plain`], row by row |
//!
//! Rows are worked on in blocks of [`BLOCK`], whose columns stay in the first-level cache while the
//! trees pass by; the trees of one ensemble pass by once a block, in order.

use std::sync::{Mutex, OnceLock, PoisonError};

use smallvec::SmallVec;

use super::ensemble::{Aggregate, Ensemble};
use super::lower::{Column, Lowered, Value, lower};
use super::plain;
use super::sweep::Sweep;
use super::walk::{BLOCK, Walk};
use crate::pool::Pool;
use crate::processor::Simd;

/// Fewer rows than this are walked one by one: a sweep costs as much for one row as for 64.
const FEW_TO_SWEEP: usize = 6;
/// The same where large trees are walked with 64 rows abreast.
const FEW_TO_WALK: usize = 32;
/// With more columns than this, blocks would not stay in any cache, and large trees are walked row by
/// row.
const MANY_COLUMNS: usize = 1 << 13;
/// With more sums of a row than this, the sums of a block would not either.
const MANY_TARGETS: usize = 1 << 10;
/// Rows of one part of a batch that a thread takes.
const PART: usize = 16 * BLOCK;

/// Trees, ready to run. They are laid out for the type of numbers that the first run brings, which is
/// the same in every run of a graph.
#[derive(Debug)]
pub(crate) struct Evaluator {
    features: usize,
    targets: usize,
    /// The caller must know of every sum whether a leaf added to it.
    presence: bool,
    simd: Simd,
    row_cost: usize,
    kernel: OnceLock<Kernel>,
    /// Until they are laid out.
    source: Mutex<Option<Ensemble>>,
}

#[derive(Debug)]
enum Kernel {
    Narrow(Narrow),
    Wide(Wide),
    Plain {
        ensemble: Ensemble,
        all_present: bool,
    },
}

/// Trees over float32.
#[derive(Debug)]
struct Narrow {
    columns: Vec<Column>,
    walk: Walk<f32>,
    /// Runs of trees in order.
    segments: Vec<Segment>,
    simd: Simd,
}

#[derive(Debug)]
enum Segment {
    Sweep(Sweep),
    Walk(std::ops::Range<usize>),
}

/// Trees over float64.
#[derive(Debug)]
struct Wide {
    columns: Vec<Column>,
    walk: Walk<f64>,
}

/// What the leaves of each row give, row by row: sums, or for `Min` and `Max` the least and the
/// greatest. Without base values and not yet divided by the number of trees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sums<T> {
    /// `rows * targets` elements; 0 where no leaf gave anything.
    pub scores: Vec<T>,
    /// For each element whether any leaf gave it something; `None` when all were given something,
    /// or when nobody asked.
    pub present: Option<Vec<bool>>,
}

impl Evaluator {
    /// `presence` says that the caller must know of every sum whether a leaf added to it.
    pub fn new(ensemble: Ensemble, presence: bool) -> Evaluator {
        Evaluator::with_simd(ensemble, presence, Simd::detect())
    }

    /// As [`Evaluator::new`], with a given variant of the kernels.
    pub fn with_simd(ensemble: Ensemble, presence: bool, simd: Simd) -> Evaluator {
        Evaluator {
            features: ensemble.features,
            targets: ensemble.targets,
            presence,
            simd,
            row_cost: ensemble.row_cost(),
            kernel: OnceLock::new(),
            source: Mutex::new(Some(ensemble)),
        }
    }

    /// The number of columns that rows have at least.
    pub fn features(&self) -> usize {
        self.features
    }

    /// About how many comparisons and additions a row takes at most.
    pub fn row_cost(&self) -> usize {
        self.row_cost
    }

    /// The number of sums of a row.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// Compares and adds in float32. `rows` has `count` rows of `width` values, which are at least
    /// [`Evaluator::features`]. Not for ensembles that are `wide`.
    pub fn sums_f32(
        &self,
        rows: &[f32],
        width: usize,
        count: usize,
        pool: Option<&dyn Pool>,
    ) -> Sums<f32> {
        match self.kernel(false) {
            Kernel::Narrow(narrow) => {
                in_parts(count, self.targets, pool, |first, count, scores| {
                    let rows = &rows[first * width..(first + count) * width];
                    narrow.add(rows, width, count, self.targets, scores);
                })
            }
            Kernel::Plain {
                ensemble,
                all_present,
            } => plain::sums(ensemble, *all_present, rows, width, count),
            // Laid out for an input of the other type, which a graph does not change.
            Kernel::Wide(_) => {
                let wide: Vec<f64> = rows.iter().copied().map(f64::from).collect();
                let sums = self.sums_f64(&wide, width, count, pool);
                let scores = sums.scores.into_iter().map(|sum| sum as f32).collect();
                Sums {
                    scores,
                    present: sums.present,
                }
            }
        }
    }

    /// Compares and adds in float64, whether or not the ensemble is `wide`.
    pub fn sums_f64(
        &self,
        rows: &[f64],
        width: usize,
        count: usize,
        pool: Option<&dyn Pool>,
    ) -> Sums<f64> {
        match self.kernel(true) {
            Kernel::Wide(wide) => in_parts(count, self.targets, pool, |first, count, scores| {
                let rows = &rows[first * width..(first + count) * width];
                let (walk, columns) = (&wide.walk, &wide.columns);
                add_rows(Simd::Portable, walk, columns, rows, width, scores);
            }),
            Kernel::Plain {
                ensemble,
                all_present,
            } => plain::sums(ensemble, *all_present, rows, width, count),
            Kernel::Narrow(_) => {
                let narrow: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
                let sums = self.sums_f32(&narrow, width, count, pool);
                let scores = sums.scores.into_iter().map(f64::from).collect();
                Sums {
                    scores,
                    present: sums.present,
                }
            }
        }
    }

    /// The trees as they are laid out, for float64 or float32 if that is still to be done.
    fn kernel(&self, wide: bool) -> &Kernel {
        self.kernel.get_or_init(|| {
            let source = self
                .source
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            // There is a source as long as there is no kernel.
            let mut ensemble = source.unwrap_or_else(|| Ensemble::empty(self.targets));
            let all_present = plain::all_present(&ensemble);
            let summed = matches!(ensemble.aggregate, Aggregate::Sum | Aggregate::Average);
            if summed && (all_present || !self.presence) {
                ensemble.wide |= wide;
                let lowered = lower(&ensemble);
                if ensemble.wide {
                    if let Some(walk) = Walk::new(&ensemble, &lowered) {
                        return Kernel::Wide(Wide {
                            columns: lowered.columns,
                            walk,
                        });
                    }
                } else if let Some(walk) = Walk::new(&ensemble, &lowered) {
                    return Kernel::Narrow(Narrow {
                        segments: segments(&ensemble, &lowered),
                        columns: lowered.columns,
                        walk,
                        simd: self.simd,
                    });
                }
            }
            Kernel::Plain {
                ensemble,
                all_present,
            }
        })
    }
}

/// The sums to which `add` adds those of parts of the rows, on the pool's threads when there are parts
/// enough. A row's sum does not depend on the part it is in.
fn in_parts<T: Value>(
    count: usize,
    targets: usize,
    pool: Option<&dyn Pool>,
    add: impl Fn(usize, usize, &mut [T]) + Sync,
) -> Sums<T> {
    let mut scores = vec![T::ZERO; count * targets];
    match pool.filter(|pool| pool.threads() > 1 && count > PART && targets > 0) {
        None => add(0, count, &mut scores),
        Some(pool) => {
            let parts = scores.chunks_mut(PART * targets).map(Mutex::new);
            let parts: Vec<Mutex<&mut [T]>> = parts.collect();
            pool.run(parts.len(), &|part| {
                let first = part * PART;
                if let Some(Ok(mut scores)) = parts.get(part).map(Mutex::lock) {
                    add(first, PART.min(count - first), &mut scores);
                }
            });
        }
    }
    Sums {
        scores,
        present: None,
    }
}

impl Narrow {
    fn add(&self, rows: &[f32], width: usize, count: usize, targets: usize, scores: &mut [f32]) {
        let walks = self
            .segments
            .iter()
            .any(|segment| matches!(segment, Segment::Walk(_)));
        let few = if walks { FEW_TO_WALK } else { FEW_TO_SWEEP };
        let unblocked = targets > MANY_TARGETS || (walks && self.columns.len() > MANY_COLUMNS);
        if count < few || unblocked {
            add_rows(self.simd, &self.walk, &self.columns, rows, width, scores);
            return;
        }
        let rank_bytes = self.segments.iter().map(|segment| match segment {
            Segment::Sweep(sweep) => sweep.rank_bytes,
            Segment::Walk(_) => 0,
        });
        let mut ranks = vec![0u8; rank_bytes.max().unwrap_or(0)];
        let mut values = Vec::new();
        if walks {
            values = vec![f32::NEG_INFINITY; (self.columns.len() + 1) * BLOCK];
        }
        let mut sums = vec![0.0f32; targets * BLOCK];
        let blocks = rows
            .chunks(BLOCK * width.max(1))
            .zip(scores.chunks_mut(BLOCK * targets.max(1)));
        for (block, (rows, scores)) in blocks.enumerate() {
            let rows_here = BLOCK.min(count - block * BLOCK);
            if walks {
                self.transpose(rows, width, rows_here, &mut values);
            }
            sums.fill(0.0);
            for segment in &self.segments {
                match segment {
                    Segment::Sweep(sweep) => {
                        sweep.add_block(self.simd, rows, width, rows_here, &mut ranks, &mut sums);
                    }
                    Segment::Walk(trees) => {
                        let trees = trees.clone();
                        self.walk
                            .add_block(self.simd, trees, &values, rows_here, &mut sums);
                    }
                }
            }
            for (target, sums) in sums.chunks_exact(BLOCK).enumerate() {
                for (row, sum) in sums[..rows_here].iter().enumerate() {
                    scores[row * targets + target] = *sum;
                }
            }
        }
    }

    fn transpose(&self, rows: &[f32], width: usize, count: usize, values: &mut [f32]) {
        for (column, values) in self.columns.iter().zip(values.chunks_exact_mut(BLOCK)) {
            for (row, value) in values[..count].iter_mut().enumerate() {
                *value = column.see(rows[row * width + column.feature]);
            }
        }
    }
}

/// Row by row.
fn add_rows<T: Value>(
    simd: Simd,
    walk: &Walk<T>,
    columns: &[Column],
    rows: &[T],
    width: usize,
    scores: &mut [T],
) {
    let mut values: SmallVec<[T; 64]> = SmallVec::new();
    // At least one, though no score is there if there is no target.
    let targets = walk.targets().max(1);
    for (row, scores) in scores.chunks_exact_mut(targets).enumerate() {
        let row = &rows[row * width..(row + 1) * width];
        values.clear();
        values.extend(columns.iter().map(|column| column.see(row[column.feature])));
        values.push(T::NEG_INFINITY);
        walk.add_row(simd, &values, scores);
    }
}

/// Runs of trees that can be swept, and of trees that are walked.
fn segments(ensemble: &Ensemble, lowered: &Lowered) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut first = 0;
    while first < lowered.trees.len() {
        let (sweep, taken) = Sweep::new(ensemble, lowered, first);
        if taken > 0 {
            segments.push(Segment::Sweep(sweep));
            first += taken;
        } else {
            match segments.last_mut() {
                Some(Segment::Walk(trees)) => trees.end += 1,
                _ => segments.push(Segment::Walk(first..first + 1)),
            }
            first += 1;
        }
    }
    segments
}
