//! Intervals for the measures of a report, by resampling the hold-out rows.
//!
//! The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", chapter
//! 13): draw as many rows as there are with replacement, measure, repeat, and take the 2.5 % and
//! 97.5 % quantiles. It covers the chance of which customers were held out, not that of which
//! customers the model was trained on. The seed is fixed, so a report can be reproduced.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::metrics::{Metrics, ScoredRows, rounded};

/// Number of resamples.
pub const RESAMPLES: usize = 1_000;
/// Seed of the resampling.
pub const SEED: u64 = 7;

/// A measured value with its 95 % interval, rounded to six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// All measures of `rows` with their intervals.
///
/// Nothing if the rows do not hold both classes. A resample that holds only one is left out.
pub fn estimate(rows: &ScoredRows) -> Option<Metrics<Estimate>> {
    let measured = rows.metrics()?;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut resampled = Vec::with_capacity(RESAMPLES);
    let mut weights = vec![0.0; rows.len()];
    for _ in 0..RESAMPLES {
        weights.fill(0.0);
        for _ in 0..rows.len() {
            weights[random.random_range(0..rows.len())] += 1.0;
        }
        resampled.extend(rows.weighted_metrics(&weights));
    }

    let interval = |measure: fn(&Metrics<f64>) -> f64| {
        let mut values: Vec<f64> = resampled.iter().map(measure).collect();
        values.sort_by(f64::total_cmp);
        Estimate {
            value: rounded(measure(&measured)),
            low: rounded(quantile(&values, 0.025)),
            high: rounded(quantile(&values, 0.975)),
        }
    };
    Some(Metrics {
        roc_auc: interval(|metrics| metrics.roc_auc),
        average_precision: interval(|metrics| metrics.average_precision),
        top_decile_lift: interval(|metrics| metrics.top_decile_lift),
        brier_score: interval(|metrics| metrics.brier_score),
        expected_calibration_error: interval(|metrics| metrics.expected_calibration_error),
    })
}

/// The quantile of sorted values, interpolated linearly; NaN if there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let position = share * last as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_values() {
        let sorted = [0.0, 10.0, 20.0, 30.0];
        assert_eq!(quantile(&sorted, 0.0), 0.0);
        assert_eq!(quantile(&sorted, 0.5), 15.0);
        assert_eq!(quantile(&sorted, 1.0), 30.0);
    }

    #[test]
    fn intervals_are_the_same_each_time_and_hold_the_value() {
        // Given 200 rows whose scores order the classes imperfectly.
        let scores: Vec<f64> = (0..200).map(|row| f64::from(row) / 200.0).collect();
        let labels: Vec<bool> = (0..200).map(|row| row % 3 == 0 || row > 150).collect();
        let rows = ScoredRows::new(&scores, &labels);
        // When intervals are drawn twice.
        let first = estimate(&rows).unwrap();
        let second = estimate(&rows).unwrap();
        // Then they are equal, and each value lies inside its interval.
        assert_eq!(first, second);
        let auc = first.roc_auc;
        assert!(auc.low < auc.value && auc.value < auc.high, "{auc:?}");
        assert!(auc.high - auc.low < 0.2, "{auc:?}");
    }
}
