//! The inner loops of the sweep, for the instructions this processor has.
//!
//! Every variant does the same comparisons of bytes and the same additions of float32 in the same
//! order for a row, so the results have the same bits.

use super::sweep::{Feature, Node};
use super::walk::{self, BLOCK, TREES_ABREAST};
use crate::processor::Simd;

impl Simd {
    /// The ranks of one feature for the first `count` rows of a block.
    pub fn rank(
        self,
        feature: &Feature,
        rows: &[f32],
        width: usize,
        count: usize,
        ranks: &mut [u8],
    ) {
        assert!(count <= BLOCK && feature.feature < width && count * width <= rows.len());
        #[cfg(target_arch = "x86_64")]
        if self == Simd::Avx512 && width < 1 << 20 {
            let mut below = [0u8; BLOCK];
            let mut above = [0u8; BLOCK];
            // SAFETY: `detect` has found the instructions; the assertion above is what it asks for.
            #[expect(unsafe_code, reason = "a function for processors with AVX-512")]
            unsafe {
                super::avx512::rank(feature, rows, width, count, &mut below, &mut above);
            }
            store(feature.nan_left, ranks, &below);
            store(feature.nan_right, ranks, &above);
            return;
        }
        for row in 0..count {
            let value = rows[row * width + feature.feature];
            let rank = rank_of(feature, value);
            if let Some(offset) = feature.nan_left {
                ranks[offset + row] = rank;
            }
            if let Some(offset) = feature.nan_right {
                ranks[offset + row] = if value.is_nan() { u8::MAX } else { rank };
            }
        }
    }

    /// The leaf that each row of a block reaches.
    pub fn sweep(self, nodes: &[Node], ranks: &[u8], count: usize, leaves: &mut [u8; BLOCK]) {
        #[cfg(target_arch = "x86_64")]
        match self {
            Simd::Avx512 => {
                // SAFETY: `detect` has found the instructions.
                #[expect(unsafe_code, reason = "a function for processors with AVX-512")]
                unsafe {
                    match count.div_ceil(64) {
                        1 => super::avx512::sweep::<1>(nodes, ranks, leaves),
                        2 => super::avx512::sweep::<2>(nodes, ranks, leaves),
                        3 => super::avx512::sweep::<3>(nodes, ranks, leaves),
                        _ => super::avx512::sweep::<4>(nodes, ranks, leaves),
                    }
                }
                return;
            }
            Simd::Avx2 => {
                // SAFETY: `detect` has found the instructions.
                #[expect(unsafe_code, reason = "a function for processors with AVX2")]
                unsafe {
                    super::avx2::sweep(nodes, ranks, count, leaves);
                }
                return;
            }
            Simd::Portable => {}
        }
        let rows = count.div_ceil(64) * 64;
        leaves.fill(0);
        for node in nodes {
            let (cut, here, right) = (node.cut as u8, node.here as u8, node.right as u8);
            let ranks = &ranks[node.ranks as usize..][..rows];
            for (leaf, rank) in leaves[..rows].iter_mut().zip(ranks) {
                let goes = (*leaf == here) & (*rank > cut);
                *leaf = if goes { right } else { *leaf };
            }
        }
    }

    /// The place of the leaf that each row of a block reaches; `false` when this variant has no
    /// walk of its own. See [`super::walk::Walk::add_block`].
    pub fn walk(
        self,
        nodes: &[walk::Node<f32>],
        child_bits: u32,
        values: &[f32],
        count: usize,
        places: &mut [u32; BLOCK],
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Simd::Avx512 {
            // SAFETY: `detect` has found the instructions; `Walk` made the nodes, so that every
            // link leads to a node and a column that are there.
            #[expect(unsafe_code, reason = "a function for processors with AVX-512")]
            unsafe {
                super::avx512::walk(nodes, child_bits, values, count, places);
            }
            return true;
        }
        false
    }

    /// What the leaves hold that one row reaches in up to [`TREES_ABREAST`] trees; `false` when this
    /// variant has no walk of its own. See [`super::walk::Walk::add_row`].
    ///
    /// # Safety
    /// Every link in `nodes`, counted from its tree's place in `firsts`, leads to a node, and to a
    /// column that `row` holds.
    #[expect(unsafe_code, reason = "kernels trust their layout")]
    pub unsafe fn walk_row(
        self,
        nodes: &[walk::Node<f32>],
        firsts: &[u32],
        child_bits: u32,
        row: &[f32],
        leaves: &mut [f32; TREES_ABREAST],
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Simd::Avx512 {
            // SAFETY: `detect` has found the instructions; the rest is the caller's promise.
            unsafe { super::avx512::walk_row(nodes, firsts, child_bits, row, leaves) };
            return true;
        }
        false
    }

    /// Adds the value of each row's leaf to the row's sum. `table` has 64 or 256 entries; leaves
    /// are below its length.
    pub fn add_leaves(self, table: &[f32], leaves: &[u8; BLOCK], count: usize, sums: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if self == Simd::Avx512
            && let (Ok(table), Ok(sums)) = (<&[f32; 64]>::try_from(table), sums.try_into())
        {
            // SAFETY: `detect` has found the instructions.
            #[expect(unsafe_code, reason = "a function for processors with AVX-512")]
            unsafe {
                super::avx512::add_leaves(table, leaves, count, sums);
            }
            return;
        }
        for (sum, leaf) in sums.iter_mut().zip(&leaves[..count]) {
            *sum += table[usize::from(*leaf)];
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn store(offset: Option<usize>, ranks: &mut [u8], block: &[u8; BLOCK]) {
    if let Some(offset) = offset {
        ranks[offset..offset + BLOCK].copy_from_slice(block);
    }
}

/// How many cuts are below the value; none for NaN.
fn rank_of(feature: &Feature, value: f32) -> u8 {
    let mut rank = 0usize;
    let mut first = 0;
    for level in 0..feature.depth {
        let pivot = feature.levels[first + rank];
        rank = 2 * rank + usize::from(pivot < value);
        first += (1usize << level).max(16);
    }
    rank as u8
}
