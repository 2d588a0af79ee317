//! The sweep in AVX-512 (F, BW and VL): 64 rows a vector.

use std::arch::x86_64::*;

use super::sweep::{Feature, Node};
use super::walk::{self, BLOCK, TREES_ABREAST};

/// See [`super::simd::Simd::sweep`]; 64 × `V` rows. Two comparisons a node go through the one
/// port that compares to masks; `V` chains of them run side by side, since each waits for its own.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "loads through pointers")]
pub(super) unsafe fn sweep<const V: usize>(nodes: &[Node], ranks: &[u8], leaves: &mut [u8; BLOCK]) {
    let mut reached = [_mm512_setzero_si512(); V];
    for node in nodes {
        let cut = _mm512_set1_epi32(node.cut as i32);
        let here = _mm512_set1_epi32(node.here as i32);
        let right = _mm512_set1_epi32(node.right as i32);
        let ranks = &ranks[node.ranks as usize..][..64 * V];
        for (vector, reached) in reached.iter_mut().enumerate() {
            // SAFETY: the slice has 64 × V bytes.
            let rank = unsafe { _mm512_loadu_si512(ranks.as_ptr().add(64 * vector).cast()) };
            let arrived = _mm512_cmpeq_epi8_mask(*reached, here);
            let goes = _mm512_mask_cmpgt_epu8_mask(arrived, rank, cut);
            *reached = _mm512_mask_mov_epi8(*reached, goes, right);
        }
    }
    for (vector, reached) in reached.iter().enumerate() {
        // SAFETY: V is at most 4, so that 64 × V bytes are inside the block.
        unsafe { _mm512_storeu_si512(leaves.as_mut_ptr().add(64 * vector).cast(), *reached) };
    }
}

/// See [`super::simd::Simd::add_leaves`]: the table is in registers, a look-up is two permutations.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "loads through pointers")]
pub(super) unsafe fn add_leaves(
    table: &[f32; 64],
    leaves: &[u8; BLOCK],
    count: usize,
    sums: &mut [f32; BLOCK],
) {
    let part = |place: usize| {
        // SAFETY: `place` is 0, 16, 32 or 48 of 64.
        unsafe { _mm512_loadu_ps(table.as_ptr().add(place)) }
    };
    let (first, second, third, fourth) = (part(0), part(16), part(32), part(48));
    let bit = _mm512_set1_epi32(32);
    for row in (0..count).step_by(16) {
        // SAFETY: `row` is a multiple of 16 below BLOCK, itself a multiple of 16.
        let (leaf, sum) = unsafe {
            (
                _mm_loadu_si128(leaves.as_ptr().add(row).cast()),
                _mm512_loadu_ps(sums.as_ptr().add(row)),
            )
        };
        let leaf = _mm512_cvtepu8_epi32(leaf);
        let low = _mm512_permutex2var_ps(first, leaf, second);
        let high = _mm512_permutex2var_ps(third, leaf, fourth);
        let value = _mm512_mask_mov_ps(low, _mm512_test_epi32_mask(leaf, bit), high);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(row), _mm512_add_ps(sum, value)) };
    }
}

/// The ranks of `feature` for the first `count` rows: in `below` NaN has rank 0, in `above` 255.
/// Sixteen binary searches at once, whose pivots are looked up in registers.
///
/// `feature.feature < width` and `count * width <= rows.len()`, `count <= BLOCK`, `width < 2^20`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "loads through pointers")]
pub(super) unsafe fn rank(
    feature: &Feature,
    rows: &[f32],
    width: usize,
    count: usize,
    below: &mut [u8; BLOCK],
    above: &mut [u8; BLOCK],
) {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(width as i32));
    let one = _mm512_set1_epi32(1);
    let levels = feature.levels.as_slice();
    let pivots = |place: usize| {
        let vector = &levels[place..place + 16];
        // SAFETY: the slice has 16 numbers.
        unsafe { _mm512_loadu_ps(vector.as_ptr()) }
    };
    for row in (0..count).step_by(16) {
        let left = count - row;
        let wanted: __mmask16 = if left >= 16 { !0 } else { (1u16 << left) - 1 };
        // SAFETY: the lanes of `wanted` are rows below `count`; their places are inside `rows`, and
        // 15 × width fits 32 bits.
        let value = unsafe {
            let base = rows.as_ptr().add(row * width + feature.feature);
            _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), wanted, places, base.cast())
        };
        let mut rank = _mm512_setzero_si512();
        for level in 0..feature.depth {
            let pivot = match level {
                0..=4 => _mm512_permutexvar_ps(rank, pivots(16 * level)),
                5 => _mm512_permutex2var_ps(pivots(80), rank, pivots(96)),
                6 => {
                    let low = _mm512_permutex2var_ps(pivots(112), rank, pivots(128));
                    let high = _mm512_permutex2var_ps(pivots(144), rank, pivots(160));
                    let bit = _mm512_test_epi32_mask(rank, _mm512_set1_epi32(32));
                    _mm512_mask_mov_ps(low, bit, high)
                }
                _ => {
                    let bit = _mm512_test_epi32_mask(rank, _mm512_set1_epi32(32));
                    let low = _mm512_permutex2var_ps(pivots(176), rank, pivots(192));
                    let high = _mm512_permutex2var_ps(pivots(208), rank, pivots(224));
                    let lower = _mm512_mask_mov_ps(low, bit, high);
                    let low = _mm512_permutex2var_ps(pivots(240), rank, pivots(256));
                    let high = _mm512_permutex2var_ps(pivots(272), rank, pivots(288));
                    let upper = _mm512_mask_mov_ps(low, bit, high);
                    let bit = _mm512_test_epi32_mask(rank, _mm512_set1_epi32(64));
                    _mm512_mask_mov_ps(lower, bit, upper)
                }
            };
            let right = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(pivot, value);
            rank = _mm512_add_epi32(rank, rank);
            rank = _mm512_mask_add_epi32(rank, right, rank, one);
        }
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let over = _mm512_mask_mov_epi32(rank, nan, _mm512_set1_epi32(255));
        // SAFETY: `row` is a multiple of 16 below BLOCK, itself a multiple of 16.
        unsafe {
            _mm_storeu_si128(
                below.as_mut_ptr().add(row).cast(),
                _mm512_cvtepi32_epi8(rank),
            );
            _mm_storeu_si128(
                above.as_mut_ptr().add(row).cast(),
                _mm512_cvtepi32_epi8(over),
            );
        }
    }
}

/// Vectors of 16 rows whose walks are under way at the same time.
const WALKS: usize = 4;

/// The leaf of one tree that each row of a block reaches. Three gathers a level: the node's two
/// halves and the row's value.
///
/// Every link in `nodes` leads to a node and a column that are there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "gathers")]
pub(super) unsafe fn walk(
    nodes: &[walk::Node<f32>],
    child_bits: u32,
    values: &[f32],
    count: usize,
    places: &mut [u32; BLOCK],
) {
    let mask = _mm512_set1_epi32(((1u32 << child_bits) - 1) as i32);
    let shift = _mm_cvtsi32_si128(child_bits as i32);
    let one = _mm512_set1_epi32(1);
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let cuts = nodes.as_ptr().cast::<u8>();
    for first in (0..count).step_by(16 * WALKS) {
        let mut at = [_mm512_setzero_si512(); WALKS];
        loop {
            let mut moved = 0;
            for (vector, at) in at.iter_mut().enumerate() {
                let rows = _mm512_add_epi32(lanes, _mm512_set1_epi32((first + 16 * vector) as i32));
                // SAFETY: the places are those of nodes, since every link leads to a node; the
                // column is one of `values`, of BLOCK numbers each; rows are below BLOCK.
                let (cut, link, value) = unsafe {
                    let cut = _mm512_i32gather_ps::<8>(*at, cuts.cast());
                    let link = _mm512_i32gather_epi32::<8>(*at, cuts.add(4).cast());
                    let column = _mm512_srl_epi32(link, shift);
                    let place = _mm512_add_epi32(_mm512_slli_epi32::<8>(column), rows);
                    (
                        cut,
                        link,
                        _mm512_i32gather_ps::<4>(place, values.as_ptr().cast()),
                    )
                };
                // Not "greater": NaN goes right too.
                let right = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(value, cut);
                let left_child = _mm512_and_si512(link, mask);
                let next = _mm512_mask_add_epi32(left_child, right, left_child, one);
                moved |= _mm512_cmpneq_epi32_mask(next, *at);
                *at = next;
            }
            if moved == 0 {
                break;
            }
        }
        for (vector, at) in at.iter().enumerate() {
            // SAFETY: `first` is a multiple of 64 below BLOCK.
            unsafe {
                _mm512_storeu_si512(places.as_mut_ptr().add(first + 16 * vector).cast(), *at)
            };
        }
    }
}

/// What the leaves hold that one row reaches in each of the trees: sixteen trees a vector, and up to
/// four vectors whose walks are under way at the same time. Lanes that have arrived gather no more.
///
/// # Safety
/// Every link in `nodes`, counted from its tree's place in `firsts`, leads to a node, and to a column
/// that `row` holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[expect(unsafe_code, reason = "gathers")]
pub(super) unsafe fn walk_row(
    nodes: &[walk::Node<f32>],
    firsts: &[u32],
    child_bits: u32,
    row: &[f32],
    leaves: &mut [f32; TREES_ABREAST],
) {
    const VECTORS: usize = TREES_ABREAST / 16;
    let mask = _mm512_set1_epi32(((1u32 << child_bits) - 1) as i32);
    let shift = _mm_cvtsi32_si128(child_bits as i32);
    let one = _mm512_set1_epi32(1);
    let base = nodes.as_ptr().cast::<u8>();
    let mut first = [_mm512_setzero_si512(); VECTORS];
    let mut walking = [0 as __mmask16; VECTORS];
    for (vector, firsts) in firsts.chunks(16).enumerate().take(VECTORS) {
        let lanes: __mmask16 = if firsts.len() == 16 {
            !0
        } else {
            (1u16 << firsts.len()) - 1
        };
        // SAFETY: the lanes are those of the slice.
        first[vector] = unsafe { _mm512_maskz_loadu_epi32(lanes, firsts.as_ptr().cast()) };
        walking[vector] = lanes;
    }
    let mut at = first;
    let mut cuts = [_mm512_setzero_ps(); VECTORS];
    loop {
        let mut moved = 0;
        for vector in 0..VECTORS {
            let lanes = walking[vector];
            if lanes == 0 {
                continue;
            }
            let places = at[vector];
            // SAFETY: the caller's promise: places of nodes and columns of the row.
            let (cut, link, value) = unsafe {
                let cut = _mm512_mask_i32gather_ps::<8>(cuts[vector], lanes, places, base.cast());
                let link =
                    _mm512_mask_i32gather_epi32::<8>(mask, lanes, places, base.add(4).cast());
                let column = _mm512_srl_epi32(link, shift);
                (
                    cut,
                    link,
                    _mm512_mask_i32gather_ps::<4>(cut, lanes, column, row.as_ptr().cast()),
                )
            };
            // Not "greater": NaN goes right too.
            let right = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(value, cut);
            let child = _mm512_add_epi32(_mm512_and_si512(link, mask), first[vector]);
            let next = _mm512_mask_add_epi32(child, right, child, one);
            walking[vector] = _mm512_mask_cmpneq_epi32_mask(lanes, next, places);
            moved |= walking[vector];
            at[vector] = next;
            cuts[vector] = cut;
        }
        if moved == 0 {
            break;
        }
    }
    for (vector, cuts) in cuts.iter().enumerate() {
        // SAFETY: VECTORS × 16 numbers fill `leaves`.
        unsafe { _mm512_storeu_ps(leaves.as_mut_ptr().add(16 * vector), *cuts) };
    }
}
