//! How far two samples of the same may lie apart: three standard deviations of a share, and what comes to
//! that of a stability index.

use super::MIN_SCORES_FOR_DRIFT;
use crate::models::comparison::drift::BINS;

/// How many standard deviations are no chance.
const DEVIATIONS: f64 = 3.0;

/// The same for the stability index, which is large by chance more often than a normal variable.
const DRIFT_DEVIATIONS: f64 = 4.0;

/// How far apart two shares of that size may be by chance, in so many requests; nothing is known of a
/// side without any.
pub(super) fn chance(share: f64, requests: u64, other_requests: u64) -> f64 {
    if requests == 0 || other_requests == 0 {
        return 0.0;
    }
    let variance = share * (1.0 - share);
    DEVIATIONS * (variance * (1.0 / requests as f64 + 1.0 / other_requests as f64)).sqrt()
}

/// How large the stability index of two samples of the same distribution may be by chance; nothing where
/// there are enough scores for that not to matter. Over the sum of the inverse sizes the index is about a
/// chi-square of as many degrees of freedom as there are bins: its mean, and so many deviations more.
pub fn drift_by_chance(scores: usize, other_scores: usize) -> f64 {
    if scores.min(other_scores) >= MIN_SCORES_FOR_DRIFT {
        return 0.0;
    }
    let bins = BINS as f64;
    let per_bin = 1.0 / scores.max(1) as f64 + 1.0 / other_scores.max(1) as f64;
    per_bin * (bins + DRIFT_DEVIATIONS * (2.0 * bins).sqrt())
}
