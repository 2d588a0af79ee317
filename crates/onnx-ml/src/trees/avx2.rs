//! The sweep in AVX2: 32 rows a vector.

use std::arch::x86_64::*;

use super::sweep::Node;
use super::walk::BLOCK;

/// Vectors of 32 rows that are worked on side by side.
const WIDE: usize = 4;

/// See [`super::simd::Simd::sweep`].
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads through pointers")]
pub(super) unsafe fn sweep(nodes: &[Node], ranks: &[u8], count: usize, leaves: &mut [u8; BLOCK]) {
    for first in (0..count).step_by(32 * WIDE) {
        let mut reached = [_mm256_setzero_si256(); WIDE];
        for node in nodes {
            let cut = _mm256_set1_epi32(node.cut as i32);
            let here = _mm256_set1_epi32(node.here as i32);
            let right = _mm256_set1_epi32(node.right as i32);
            let ranks = &ranks[node.ranks as usize + first..][..32 * WIDE];
            for (vector, reached) in reached.iter_mut().enumerate() {
                // SAFETY: the slice has 32 × WIDE bytes.
                let rank = unsafe { _mm256_loadu_si256(ranks.as_ptr().add(32 * vector).cast()) };
                let arrived = _mm256_cmpeq_epi8(*reached, here);
                // There is no unsigned comparison: a rank is at most the cut if it is the lesser.
                let stays = _mm256_cmpeq_epi8(_mm256_min_epu8(rank, cut), rank);
                let goes = _mm256_andnot_si256(stays, arrived);
                *reached = _mm256_blendv_epi8(*reached, right, goes);
            }
        }
        for (vector, reached) in reached.iter().enumerate() {
            // SAFETY: `first` is 0 or 128 and the block has 256 bytes.
            unsafe {
                _mm256_storeu_si256(
                    leaves.as_mut_ptr().add(first + 32 * vector).cast(),
                    *reached,
                )
            };
        }
    }
}
