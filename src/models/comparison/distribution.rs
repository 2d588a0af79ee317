//! Counts of numbers in bins, from which quantiles are read.

use serde::Serialize;
use utoipa::ToSchema;

/// The binary exponent of the lowest bin: 2^-40, about 1e-12.
const LOWEST_EXPONENT: i32 = -40;
/// How many powers of two there are bins for: up to 2^40, about 1e12.
const OCTAVES: usize = 80;
/// Bins to a power of two: a quantile is at most 1/32 off.
const PARTS: usize = 16;

/// How often numbers of which size were added, none of them negative. 5 KiB.
#[derive(Debug, Clone)]
pub struct Distribution {
    bins: Box<[u32]>,
    zeros: u64,
    count: u64,
    sum: f64,
    max: f64,
}

impl Default for Distribution {
    fn default() -> Self {
        Distribution {
            bins: vec![0; OCTAVES * PARTS].into_boxed_slice(),
            zeros: 0,
            count: 0,
            sum: 0.0,
            max: 0.0,
        }
    }
}

impl Distribution {
    /// Adds a number. What is below the lowest bin counts as zero, what is above the highest as that, and
    /// what is no number is left out.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let value = value.clamp(0.0, f64::MAX);
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        match bin_of(value) {
            Some(bin) => self.bins[bin] = self.bins[bin].saturating_add(1),
            None => self.zeros += 1,
        }
    }

    /// How many numbers were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The mean; 0 of none.
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum / count as f64,
        }
    }

    /// The number that the share `quantile` of all does not exceed, to within the width of a bin; 0 of
    /// none.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let binned: u64 = self.bins.iter().map(|&count| u64::from(count)).sum();
        let rank = quantile.clamp(0.0, 1.0) * (self.zeros + binned) as f64;
        let mut passed = self.zeros;
        if rank <= passed as f64 {
            return 0.0;
        }
        if quantile >= 1.0 {
            return self.max;
        }
        for (bin, &count) in self.bins.iter().enumerate() {
            passed += u64::from(count);
            if rank <= passed as f64 {
                return middle_of(bin).min(self.max);
            }
        }
        self.max
    }
}

/// The bin of a number that is not negative; `None` for what counts as zero.
fn bin_of(value: f64) -> Option<usize> {
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1023;
    let octave = usize::try_from(exponent - LOWEST_EXPONENT).ok()?;
    // The first bits of the mantissa: a linear division of the power of two.
    let part = usize::try_from((bits >> 48) & 0xf).unwrap_or(0);
    Some(match octave < OCTAVES {
        true => octave * PARTS + part,
        false => OCTAVES * PARTS - 1,
    })
}

fn middle_of(bin: usize) -> f64 {
    let exponent = LOWEST_EXPONENT + i32::try_from(bin / PARTS).unwrap_or(0);
    let within = 1.0 + ((bin % PARTS) as f64 + 0.5) / PARTS as f64;
    within * 2.0_f64.powi(exponent)
}

/// The bounds of the bins for differences of scores, on both sides of zero.
const DIFFERENCES: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0, 1000.0];
const DIFFERENCE_BINS: usize = 2 * DIFFERENCES.len() + 1;

/// How often one score was above or below another, by how much.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    absolute: Distribution,
    sum: f64,
    equal: u64,
    bins: [u64; DIFFERENCE_BINS],
}

/// The difference of two versions' scores of the same row, over all rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct DifferenceReport {
    /// Of the shadow's score less the served one.
    pub mean: f64,
    pub mean_absolute: f64,
    /// The median of the absolute difference; like the others to within 3 %.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    /// Pairs of scores that are the same to the last bit.
    pub identical: u64,
    /// How many differences lie where; bins without any are left out.
    pub histogram: Vec<DifferenceBin>,
}

/// Differences from `from` (inclusive above zero) up to `to`; without a bound on that side when it is
/// absent.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DifferenceBin {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
    pub count: u64,
}

impl Differences {
    /// Adds the scores of a row.
    pub fn add(&mut self, shadow: f64, served: f64) {
        let difference = shadow - served;
        if !difference.is_finite() {
            return;
        }
        self.sum += difference;
        self.absolute.add(difference.abs());
        if shadow.to_bits() == served.to_bits() {
            self.equal += 1;
        }
        let steps = DIFFERENCES.partition_point(|bound| *bound <= difference.abs());
        let middle = DIFFERENCES.len();
        let bin = match difference < 0.0 {
            true => middle - steps,
            false => middle + steps,
        };
        self.bins[bin] += 1;
    }

    pub fn report(&self) -> DifferenceReport {
        let middle = DIFFERENCES.len();
        // The bounds in ascending order: those below zero, then those above.
        let bound = |index: usize| match index < middle {
            true => -DIFFERENCES[middle - 1 - index],
            false => DIFFERENCES[index - middle],
        };
        let counts = self.bins.iter().enumerate();
        let histogram = counts
            .filter(|(_, count)| **count > 0)
            .map(|(bin, &count)| DifferenceBin {
                from: bin.checked_sub(1).map(bound),
                to: (bin < 2 * middle).then(|| bound(bin)),
                count,
            });
        let count = self.absolute.count();
        DifferenceReport {
            mean: self.sum / count.max(1) as f64,
            mean_absolute: self.absolute.mean(),
            p50: self.absolute.quantile(0.5),
            p90: self.absolute.quantile(0.9),
            p99: self.absolute.quantile(0.99),
            max: self.absolute.max(),
            identical: self.equal,
            histogram: histogram.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_any_size_of_number_are_within_the_width_of_a_bin() {
        for scale in [1e-9, 1e-3, 1.0, 1e6] {
            let mut distribution = Distribution::default();
            for number in 1..=10_000 {
                distribution.add(f64::from(number) * scale);
            }
            for quantile in [0.01, 0.5, 0.9, 0.99] {
                let expected = quantile * 10_000.0 * scale;
                let found = distribution.quantile(quantile);
                let off = (found / expected - 1.0).abs();
                assert!(off < 0.04, "{quantile} of {scale}: {found}, not {expected}");
            }
            assert_eq!(distribution.max(), 10_000.0 * scale);
            assert_eq!(distribution.quantile(1.0), 10_000.0 * scale);
            assert!((distribution.mean() / (5000.5 * scale) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn what_is_no_number_or_beyond_the_bins_does_no_harm() {
        let mut distribution = Distribution::default();
        assert_eq!(
            (distribution.quantile(0.5), distribution.mean()),
            (0.0, 0.0)
        );
        for value in [f64::NAN, -1.0, 0.0, 1e-300, f64::MIN_POSITIVE / 2.0] {
            distribution.add(value);
        }
        assert_eq!((distribution.count(), distribution.quantile(0.9)), (4, 0.0));
        distribution.add(f64::INFINITY);
        distribution.add(1e300);
        assert!(distribution.quantile(0.9) > 1e11);
    }

    #[test]
    fn differences_are_counted_by_sign_and_size() {
        let mut differences = Differences::default();
        for (shadow, served) in [
            (0.5, 0.5),
            (0.5, 0.5005),
            (0.5, 0.6),
            (0.9, 0.5),
            (5000.0, 0.0),
            (-5000.0, 0.0),
            (f64::NAN, 0.5),
        ] {
            differences.add(shadow, served);
        }
        let report = differences.report();
        let found: Vec<(Option<f64>, Option<f64>, u64)> = report
            .histogram
            .iter()
            .map(|bin| (bin.from, bin.to, bin.count))
            .collect();
        let expected = [
            (None, Some(-1000.0), 1),
            (Some(-0.1), Some(-0.03), 1),
            (Some(-0.001), Some(0.001), 2),
            (Some(0.3), Some(1.0), 1),
            (Some(1000.0), None, 1),
        ];
        assert_eq!(found, expected);
        assert_eq!((report.identical, report.max), (1, 5000.0));
        assert!((report.mean - (0.4 - 0.1 - 0.0005) / 6.0).abs() < 1e-12);
    }
}
