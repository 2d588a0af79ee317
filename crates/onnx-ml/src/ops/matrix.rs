//! The product of two matrices.
//!
//! Every element of the result is one sum over the inner dimension, in its order, kept in float64
//! and rounded once. The product of two float32 numbers is exact in float64, so it makes no
//! difference whether it is added in one instruction or in two: the bits are the same with whatever
//! instructions the processor has, however many rows there are and however many threads work on
//! them.
//!
//! The right matrix is first packed into panels of eight columns. A few rows at a time, widened to
//! float64, meet a panel with their sums in registers, so that each number loaded is used for
//! several products; and some tens of rows meet it before the next, so that it stays in the nearest
//! cache. (The scheme of K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008, without its outermost loops, which pay for matrices larger than those of
//! tabular models.)

use std::sync::Mutex;

use crate::operator::{Context, OpError, operations};
use crate::processor::Simd;
use crate::tensor::{DataType, Element};

/// Columns of a panel: eight float64 fill one register of AVX-512 and two of AVX.
pub(super) const WIDTH: usize = 8;
/// Rows that meet a panel before the next panel is taken: at most this many,
const CHUNK: usize = 64;
/// and at most with this many elements, unless a single block of rows has more.
const CHUNK_ELEMENTS: usize = 1 << 15;
/// The most rows of a block.
const MOST_ROWS: usize = 8;
/// Products of single numbers that are worth another thread.
const WORTH_A_THREAD: usize = 1 << 18;

/// What matrices of floating point are made of.
pub(crate) trait Factor: Element + Copy {
    /// Whether the product of two is exact in float64.
    const EXACT: bool;
    fn wide(self) -> f64;
    fn round(value: f64) -> Self;
}

impl Factor for f32 {
    const EXACT: bool = true;
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn round(value: f64) -> f32 {
        value as f32
    }
}

impl Factor for f64 {
    const EXACT: bool = false;
    fn wide(self) -> f64 {
        self
    }
    fn round(value: f64) -> f64 {
        value
    }
}

/// The right matrix in panels: for eight columns all their rows, then the next eight columns. The
/// last panel is filled up with zeros.
#[derive(Debug)]
pub(crate) struct Packed<T> {
    panels: Vec<[T; WIDTH]>,
    pub inner: usize,
    pub columns: usize,
}

impl<T: Factor> Packed<T> {
    /// The bytes that packing a matrix takes.
    pub fn bytes(inner: usize, columns: usize) -> u64 {
        let panels = columns.div_ceil(WIDTH) as u64;
        let rows = panels.saturating_mul(inner as u64);
        rows.saturating_mul((WIDTH * size_of::<T>()) as u64)
    }

    /// The rows of panel `panel`, which holds eight columns.
    pub fn panel(&self, panel: usize) -> &[[T; WIDTH]] {
        &self.panels[panel * self.inner..(panel + 1) * self.inner]
    }

    /// Whether a number times zero is zero for all of them.
    pub fn is_finite(&self) -> bool {
        let mut weights = self.panels.iter().flatten();
        weights.all(|weight| weight.wide().is_finite())
    }

    /// Packs a matrix of `inner` rows and `columns` columns, or, if `transposed`, the other way
    /// round.
    pub fn new(values: &[T], inner: usize, columns: usize, transposed: bool) -> Packed<T> {
        let (row_step, column_step) = if transposed { (1, inner) } else { (columns, 1) };
        let mut panels = Vec::with_capacity(columns.div_ceil(WIDTH) * inner);
        for first in (0..columns).step_by(WIDTH) {
            let width = WIDTH.min(columns - first);
            for row in 0..inner {
                let mut weights = [T::default(); WIDTH];
                for (column, weight) in weights[..width].iter_mut().enumerate() {
                    *weight = values[row * row_step + (first + column) * column_step];
                }
                panels.push(weights);
            }
        }
        Packed {
            panels,
            inner,
            columns,
        }
    }
}

/// A matrix to be added: where its rows and columns are found (a step of zero repeats one), and what
/// it is multiplied by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addend<'a, T> {
    pub values: &'a [T],
    pub row_step: usize,
    pub column_step: usize,
    pub scale: f64,
}

/// `scale * left * right + addend`.
#[derive(Debug)]
pub(crate) struct Product<'a, T> {
    /// `rows` times `right.inner` elements.
    pub left: &'a [T],
    pub rows: usize,
    pub right: &'a Packed<T>,
    pub scale: f64,
    pub addend: Option<Addend<'a, T>>,
}

impl<T: Factor> Product<'_, T> {
    /// Computes the product, on several threads if it is worth it.
    pub fn compute(&self, context: &Context<'_>) -> Result<Vec<T>, OpError> {
        let columns = self.right.columns;
        let Some(elements) = self.rows.checked_mul(columns) else {
            return Err(OpError::Value(format!(
                "a matrix of {} rows and {columns} columns is too large",
                self.rows
            )));
        };
        context.reserve(elements, T::DATA_TYPE)?;
        let widened = self.right.inner.saturating_mul(2 * MOST_ROWS);
        context.reserve(widened.max(CHUNK_ELEMENTS), DataType::F64)?;
        let mut results = vec![T::default(); elements];
        if elements == 0 {
            return Ok(results);
        }
        let work = elements.saturating_mul(self.right.inner);
        context.work(operations(&[work]))?;
        match context.pool {
            Some(pool) if pool.threads() > 1 && work >= 2 * WORTH_A_THREAD => {
                let rows_worth = WORTH_A_THREAD.div_ceil(columns.saturating_mul(self.right.inner));
                let part_rows = rows_worth.next_multiple_of(CHUNK);
                let parts: Vec<Mutex<&mut [T]>> = results
                    .chunks_mut(part_rows.saturating_mul(columns))
                    .map(Mutex::new)
                    .collect();
                pool.run(parts.len(), &|part| {
                    if let Some(Ok(mut results)) = parts.get(part).map(Mutex::lock) {
                        self.rows(part * part_rows, &mut results);
                    }
                });
            }
            _ => self.rows(0, &mut results),
        }
        Ok(results)
    }

    /// The rows from `first` on that fill `results`, with the best instructions there are.
    fn rows(&self, first: usize, results: &mut [T]) {
        match Simd::detect() {
            Simd::Portable => rows_in_blocks::<T, 2, false>(self, first, results),
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: the processor has the instructions, as `detect` has found.
            Simd::Avx2 => unsafe { rows_avx2(self, first, results) },
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { rows_avx512(self, first, results) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn rows_avx512<T: Factor>(product: &Product<'_, T>, first: usize, results: &mut [T]) {
    rows_in_blocks::<T, MOST_ROWS, true>(product, first, results);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rows_avx2<T: Factor>(product: &Product<'_, T>, first: usize, results: &mut [T]) {
    rows_in_blocks::<T, 4, true>(product, first, results);
}

/// The rows from `first` on that fill `results`, `ROWS` at a time. `FUSED`: there is an instruction
/// that multiplies and adds.
#[inline(always)]
fn rows_in_blocks<T: Factor, const ROWS: usize, const FUSED: bool>(
    product: &Product<'_, T>,
    first: usize,
    results: &mut [T],
) {
    let rows = results.len() / product.right.columns;
    let whole = rows - rows % ROWS;
    let (blocks, rest) = results.split_at_mut(whole * product.right.columns);
    if whole > 0 {
        whole_blocks::<T, ROWS, FUSED>(product, first, blocks);
    }
    if whole < rows {
        whole_blocks::<T, 1, FUSED>(product, first + whole, rest);
    }
}

/// As [`rows_in_blocks`], for a multiple of `ROWS` rows.
#[inline(always)]
fn whole_blocks<T: Factor, const ROWS: usize, const FUSED: bool>(
    product: &Product<'_, T>,
    first: usize,
    results: &mut [T],
) {
    let (inner, columns) = (product.right.inner, product.right.columns);
    let chunk_rows = chunk_rows(inner).next_multiple_of(ROWS);
    let blocks = (results.len() / columns).min(chunk_rows) / ROWS;
    let mut left: Vec<[f64; ROWS]> = Vec::with_capacity(blocks * inner);
    for (chunk, results) in results.chunks_mut(chunk_rows * columns).enumerate() {
        let first = first + chunk * chunk_rows;
        let rows = results.len() / columns;
        left.clear();
        for row in (first..first + rows).step_by(ROWS) {
            widen(
                &product.left[row * inner..(row + ROWS) * inner],
                inner,
                &mut left,
            );
        }
        for panel in 0..columns.div_ceil(WIDTH) {
            let weights = product.right.panel(panel);
            let column = panel * WIDTH;
            for block in 0..rows / ROWS {
                let left = &left[block * inner..(block + 1) * inner];
                let sums = block_sums::<T, ROWS, FUSED>(left, weights);
                for (offset, sums) in sums.iter().enumerate() {
                    let row = block * ROWS + offset;
                    let to = &mut results[row * columns + column..(row + 1) * columns];
                    let place = (first + row, column);
                    finish(product.scale, product.addend.as_ref(), place, sums, to);
                }
            }
        }
    }
}

/// Rows that meet a panel before the next panel is taken, so many that they stay in a near cache.
fn chunk_rows(inner: usize) -> usize {
    (CHUNK_ELEMENTS / inner.max(1)).clamp(1, CHUNK)
}

/// Appends `ROWS` rows as float64, the elements that meet the same weights side by side.
#[inline(always)]
fn widen<T: Factor, const ROWS: usize>(rows: &[T], inner: usize, to: &mut Vec<[f64; ROWS]>) {
    let start = to.len();
    to.resize(start + inner, [0.0; ROWS]);
    for row in 0..ROWS {
        let values = &rows[row * inner..(row + 1) * inner];
        for (slot, value) in to[start..].iter_mut().zip(values) {
            slot[row] = value.wide();
        }
    }
}

/// The sums of `ROWS` rows with one panel.
#[inline(always)]
fn block_sums<T: Factor, const ROWS: usize, const FUSED: bool>(
    left: &[[f64; ROWS]],
    weights: &[[T; WIDTH]],
) -> [[f64; WIDTH]; ROWS] {
    let mut sums = [[0.0; WIDTH]; ROWS];
    for (values, weights) in left.iter().zip(weights) {
        let mut wide = [0.0; WIDTH];
        for (wide, weight) in wide.iter_mut().zip(weights) {
            *wide = weight.wide();
        }
        for (sums, value) in sums.iter_mut().zip(values) {
            for (sum, weight) in sums.iter_mut().zip(&wide) {
                *sum = if FUSED && T::EXACT {
                    value.mul_add(*weight, *sum)
                } else {
                    *sum + *value * *weight
                };
            }
        }
    }
    sums
}

/// Scales the sums of one row in one panel, adds what is to be added and writes the results to the
/// row, of which `to` is what begins at the column. `place` is row and column.
#[inline(always)]
pub(super) fn finish<T: Factor>(
    scale: f64,
    addend: Option<&Addend<'_, T>>,
    (row, column): (usize, usize),
    sums: &[f64; WIDTH],
    to: &mut [T],
) {
    let mut values: &[T] = &[];
    let (mut step, mut factor) = (0, 0.0);
    if let Some(addend) = addend {
        values = &addend.values[row * addend.row_step + column * addend.column_step..];
        step = addend.column_step;
        factor = addend.scale;
    }
    let value = |place: usize| values.get(place).map_or(0.0, |value| factor * value.wide());
    // Eight at once, unless the last columns are fewer.
    if let Some(to) = to.first_chunk_mut::<WIDTH>() {
        let mut added = [value(0); WIDTH];
        if step == 1
            && let Some(values) = values.first_chunk::<WIDTH>()
        {
            for (added, value) in added.iter_mut().zip(values) {
                *added = factor * value.wide();
            }
        }
        for ((to, sum), added) in to.iter_mut().zip(sums).zip(&added) {
            *to = T::round(sum * scale + added);
        }
    } else {
        for (place, (to, sum)) in to.iter_mut().zip(sums).enumerate() {
            *to = T::round(sum * scale + value(place * step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            numbers.push((state >> 8) as f32 / 8_388_608.0 - 1.0);
        }
        numbers
    }

    #[test]
    fn rows_have_the_same_bits_in_blocks_of_any_size_and_with_any_instructions() {
        let (rows, inner, columns) = (131, 37, 21);
        let left = numbers(rows * inner, 1);
        let right = Packed::new(&numbers(inner * columns, 2), inner, columns, false);
        let bias = numbers(columns, 3);
        let product = Product {
            left: &left,
            rows,
            right: &right,
            scale: 0.7,
            addend: Some(Addend {
                values: &bias,
                row_step: 0,
                column_step: 1,
                scale: 1.3,
            }),
        };
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut plain = vec![0.0; rows * columns];
        rows_in_blocks::<f32, 2, false>(&product, 0, &mut plain);
        let mut fused = vec![0.0; rows * columns];
        rows_in_blocks::<f32, 4, true>(&product, 0, &mut fused);
        assert_eq!(bits(&plain), bits(&fused));
        let mut detected = vec![0.0; rows * columns];
        product.rows(0, &mut detected);
        assert_eq!(bits(&plain), bits(&detected));
        for row in [0, 64, 130] {
            let mut alone = vec![0.0; columns];
            product.rows(row, &mut alone);
            assert_eq!(bits(&alone), bits(&plain[row * columns..][..columns]));
        }
    }
}
