//! The product of a matrix with one-hot encoded texts among its columns, without that matrix.
//!
//! A one times a weight is the weight, and adding a zero changes no sum; so the sum over the inner
//! dimension is that of the categories' weights and of the products of the other columns, taken in the
//! same order. The bits are those of [`super::matrix`] for the matrix written out.

use compact_str::CompactString;
use smallvec::SmallVec;

use super::matrix::{Addend, Factor, Packed, WIDTH, finish};
use super::one_hot_encoder::OneHotEncoder;
use super::text_lookup::TextLookup;
use crate::operator::{Context, OpError, operations};
use crate::processor::Simd;
use crate::tensor::DataType;

/// The most rows whose sums are kept at a time.
const BLOCK: usize = 64;

/// Some columns of the left matrix, in row-major order with so many values in a row.
#[derive(Debug)]
pub(crate) enum Columns<'a> {
    Numbers {
        values: &'a [f32],
        width: usize,
    },
    /// Each text stands for as many columns as there are categories.
    Texts {
        values: &'a [CompactString],
        width: usize,
        encoder: &'a OneHotEncoder,
        places: &'a TextLookup,
    },
}

impl Columns<'_> {
    /// How many columns of the matrix they stand for.
    pub fn inner(&self) -> usize {
        match self {
            Columns::Numbers { width, .. } => *width,
            Columns::Texts { width, encoder, .. } => width.saturating_mul(encoder.width),
        }
    }
}

/// `scale * left * right + addend`.
#[derive(Debug)]
pub(crate) struct EncodedProduct<'a> {
    pub left: SmallVec<[Columns<'a>; 4]>,
    pub rows: usize,
    /// Of finite numbers.
    pub right: &'a Packed<f32>,
    pub scale: f64,
    pub addend: Option<Addend<'a, f32>>,
}

impl EncodedProduct<'_> {
    /// Computes the product; `None` when a text is of no category and its encoder forbids that.
    pub fn compute(&self, context: &Context<'_>) -> Result<Option<Vec<f32>>, OpError> {
        let columns = self.right.columns;
        let elements = self.rows.saturating_mul(columns);
        context.reserve(elements, DataType::F32)?;
        let panels = columns.div_ceil(WIDTH);
        let block = self.rows.min(BLOCK);
        context.reserve(panels.saturating_mul(block * WIDTH), DataType::F64)?;
        let mut cells = 0;
        for part in &self.left {
            let (Columns::Numbers { width, .. } | Columns::Texts { width, .. }) = part;
            cells += width;
        }
        context.work(operations(&[self.rows, cells, columns]))?;
        let mut results = vec![0.0; elements];
        if elements == 0 {
            return Ok(Some(results));
        }
        let is_known = match Simd::detect() {
            Simd::Portable => rows::<false>(self, &mut results),
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: the processor has the instructions, as `detect` has found.
            Simd::Avx2 => unsafe { rows_avx2(self, &mut results) },
            #[cfg(target_arch = "x86_64")]
            #[expect(
                unsafe_code,
                reason = "the instructions are there only on some processors"
            )]
            // SAFETY: as above.
            Simd::Avx512 => unsafe { rows_avx512(self, &mut results) },
        };
        Ok(is_known.then_some(results))
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn rows_avx512(product: &EncodedProduct<'_>, results: &mut [f32]) -> bool {
    rows::<true>(product, results)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rows_avx2(product: &EncodedProduct<'_>, results: &mut [f32]) -> bool {
    rows::<true>(product, results)
}

/// The sums of a row with one panel of the right matrix.
type Sums = [f64; WIDTH];

/// Fills `results`; whether every text is of a category that it may be of. `FUSED`: there is an
/// instruction that multiplies and adds.
#[inline(always)]
fn rows<const FUSED: bool>(product: &EncodedProduct<'_>, results: &mut [f32]) -> bool {
    let (right, columns) = (product.right, product.right.columns);
    let panels = columns.div_ceil(WIDTH);
    // For each panel those of all rows of a block, which has no more of them than it needs: mostly it is
    // a single row.
    let mut sums: Vec<Sums> = Vec::with_capacity(panels * product.rows.min(BLOCK));
    for (block, results) in results.chunks_mut(BLOCK * columns).enumerate() {
        let first = block * BLOCK;
        let rows = results.len() / columns;
        sums.clear();
        sums.resize(panels * rows, [0.0; WIDTH]);
        let mut inner = 0;
        for part in &product.left {
            let is_known = match part {
                Columns::Numbers { values, width } => {
                    let values = &values[first * width..(first + rows) * width];
                    add_numbers::<FUSED>(values, (rows, *width), inner, right, &mut sums);
                    true
                }
                Columns::Texts {
                    values,
                    width,
                    encoder,
                    places,
                } => {
                    let values = &values[first * width..(first + rows) * width];
                    let at = (inner, encoder.width);
                    let size = (rows, *width);
                    let all = add_categories(values, size, places, at, right, &mut sums);
                    all || encoder.unknown_is_zeros
                }
            };
            if !is_known {
                return false;
            }
            inner += part.inner();
        }
        for (panel, sums) in sums.chunks_exact(rows).enumerate() {
            let column = panel * WIDTH;
            for (row, sums) in sums.iter().enumerate() {
                let to = &mut results[row * columns + column..(row + 1) * columns];
                let place = (first + row, column);
                finish(product.scale, product.addend.as_ref(), place, sums, to);
            }
        }
    }
    true
}

/// Adds columns of numbers, which meet the weights from row `inner` on: so many rows of so many columns.
#[inline(always)]
fn add_numbers<const FUSED: bool>(
    values: &[f32],
    (rows, width): (usize, usize),
    inner: usize,
    right: &Packed<f32>,
    sums: &mut [Sums],
) {
    for (panel, sums) in sums.chunks_exact_mut(rows).enumerate() {
        let weights = &right.panel(panel)[inner..inner + width];
        for (row, sums) in values.chunks_exact(width).zip(sums) {
            for (value, weights) in row.iter().zip(weights) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = if FUSED {
                        value.wide().mul_add(weight.wide(), *sum)
                    } else {
                        *sum + value.wide() * weight.wide()
                    };
                }
            }
        }
    }
}

/// Adds columns of texts, so many rows of so many, each of which meets the weights of its category: for the
/// first column they begin at row `at.0`, and each column has `at.1` of them. Whether every text has a
/// category.
#[inline(always)]
fn add_categories(
    values: &[CompactString],
    (rows, width): (usize, usize),
    places: &TextLookup,
    at: (usize, usize),
    right: &Packed<f32>,
    sums: &mut [Sums],
) -> bool {
    let mut all_known = true;
    for column in 0..width {
        let first = at.0 + column * at.1;
        for (row, text) in values[column..].iter().step_by(width).enumerate() {
            // A place is always one of the encoder's columns.
            let Some(place) = places.find(text).filter(|place| *place < at.1) else {
                all_known = false;
                continue;
            };
            for (panel, sums) in sums[row..].iter_mut().step_by(rows).enumerate() {
                let weights = &right.panel(panel)[first + place];
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += weight.wide();
                }
            }
        }
    }
    all_known
}
