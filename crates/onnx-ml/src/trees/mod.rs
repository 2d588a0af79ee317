//! Tree ensembles: `TreeEnsemble`, `TreeEnsembleClassifier` and `TreeEnsembleRegressor`.
//!
//! A file's node is read into an [`ensemble::Ensemble`] and a [`finish::Finish`] by [`parse`]; the
//! [`Evaluator`] adds up what the leaves of a row give, and `Finish` makes the outputs of that.
//!
//! | module | holds |
//! |---|---|
//! | `parse`, `parse_indexed`, `grow`, `places` | from a node's attributes to trees, everything verified |
//! | `ensemble` | trees in one form |
//! | `lower` | every test as one kind of comparison |
//! | `evaluator` | which kernel runs which trees on which rows |
//! | `walk` | the kernel for few rows and for large trees |
//! | `sweep` | the kernel for many rows and trees of at most 256 leaves |
//! | `simd`, `avx2`, `avx512` | the inner loops by processor |
//! | `plain` | evaluation by definition: the measure of the kernels, and for what they leave out |
//! | `finish`, `post` | base values, labels and transforms |
//!
//! # What was tried
//!
//! Millions of rows a second in batches of 20,000, one thread of a Xeon with AVX-512 (Sapphire
//! Rapids): 100 boosted trees of 31 leaves, 500 of 63, and a random forest of 100 trees of about 1,200
//! leaves. `ONNX_ML_SIMD` and the example `bench` measure the variants.
//!
//! | | 100 × 31 | 500 × 63 | forest |
//! |---|---|---|---|
//! | ONNX Runtime 1.31 | 0.12 | 0.021 to 0.029 | 0.056 |
//! | walk: rows one after the other, eight trees abreast | 0.31 | 0.08 | 0.32 |
//! | walk: eight rows of a tree abreast, portable | 0.33 to 0.39 | 0.07 to 0.09 | 0.30 to 0.35 |
//! | walk: 64 rows of a tree abreast, AVX-512 gathers | 1.0 | 0.17 to 0.20 | 0.68 to 0.86 |
//! | sweep, portable (SSE2) | 1.3 to 1.7 | 0.17 to 0.36 | – |
//! | sweep, AVX2 | 1.5 to 2.0 | 0.37 to 0.55 | – |
//! | sweep, AVX-512, ranks looked up in registers | 7 to 11 | 1.5 to 1.8 | – |
//!
//! In AVX2 and portable the ranks, found by binary searches one value at a time, take most of the time
//! of the smaller ensemble. One row takes 12 to 14 µs for 500 × 63 with eight trees abreast, and 8 to
//! 9.5 µs with 64 trees abreast in AVX-512; visiting all nodes with the ranks of one row in a register
//! (permute, compare, and a bit-vector of leaves per node) was worked out on paper and left: it reads
//! ten cache lines a tree where a walk reads a few.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod ensemble;
mod evaluator;
pub(crate) mod finish;
mod grow;
#[cfg(test)]
mod kernel_tests;
mod lower;
pub(crate) mod parse;
pub(crate) mod parse_indexed;
mod places;
pub(crate) mod plain;
pub(crate) mod post;
mod simd;
mod sweep;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use evaluator::{Evaluator, Sums};
