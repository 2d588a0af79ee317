//! What a job counts: the distribution of the scores, and what was missing or unusual in the input.
//!
//! Counts of chunks are added up in the order of the rows, so that a job that was interrupted comes to the
//! same figures as one that was not.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::bands::Bands;
use super::plan::Plan;
use super::rows::{Answer, count_problems};
use crate::models::manifest::TaskKind;
use crate::models::scoring::Scoring;
use crate::score::given::Notes;

/// Counts of some rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// In the order of the plan.
    pub models: Vec<ModelStatistics>,
    /// By name; those that the models read.
    pub features: BTreeMap<String, FeatureStatistics>,
}

/// The scores of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelStatistics {
    pub scores: Distribution,
    /// How many rows got each label; of an affinity, how many got none as well.
    pub labels: BTreeMap<String, u64>,
    /// How many scores are in each of the plan's bands; nothing when it has none for the model.
    pub bands: Vec<u64>,
}

/// What to know of a feature's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureStatistics {
    /// Without a value: the default was used, or missing passed on.
    pub missing: u64,
    /// With a value that is not among the declared ones.
    pub unknown: u64,
    pub out_of_range: u64,
    /// Of the online store: older than the feature's `max_age`.
    #[serde(default)]
    pub stale: u64,
}

/// Bits of the fraction that a bucket keeps: buckets are at most 1.6 % wide.
const FRACTION_BITS: u32 = 6;
/// Numbers smaller than 2^-40 are counted as 0.
const SMALLEST_EXPONENT: i64 = -40;

/// Many numbers, in buckets whose width is relative to their size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// Bucket, count.
    buckets: BTreeMap<i64, u64>,
}

impl Distribution {
    pub fn add(&mut self, numbers: impl Iterator<Item = f64>) {
        // Scores that follow each other are in a few buckets: those counts are kept in one place.
        let mut recent: Vec<(i64, u64)> = Vec::new();
        for number in numbers {
            if self.count == 0 {
                (self.min, self.max) = (number, number);
            }
            self.count += 1;
            self.sum += number;
            self.min = self.min.min(number);
            self.max = self.max.max(number);
            recent.push((bucket_of(number), 1));
        }
        recent.sort_unstable();
        for same in recent.chunk_by(|left, right| left.0 == right.0) {
            *self.buckets.entry(same[0].0).or_default() += same.len() as u64;
        }
    }

    fn merge(&mut self, other: &Distribution) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.min, self.max) = (other.min, other.max);
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The number that a share `q` of all is at most, to within a bucket.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.count as f64).ceil().max(1.0);
        let mut before = 0;
        for (bucket, count) in &self.buckets {
            before += count;
            if before as f64 >= rank {
                return Some(middle_of(*bucket).clamp(self.min, self.max));
            }
        }
        None
    }

    /// How many numbers are in each band; a bucket counts where its middle is.
    pub fn in_bands(&self, bands: &Bands) -> Vec<u64> {
        let mut counts = vec![0; bands.count()];
        for (bucket, count) in &self.buckets {
            counts[bands.of(middle_of(*bucket).clamp(self.min, self.max))] += count;
        }
        counts
    }

    /// How many numbers are in each of `bins` parts of equal width from `low` to `high`; a bucket counts
    /// where its middle is.
    pub fn histogram(&self, low: f64, high: f64, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for (bucket, count) in &self.buckets {
            let middle = middle_of(*bucket).clamp(self.min, self.max);
            let share = (middle - low) / (high - low);
            let bin = (share * bins as f64).max(0.0) as usize;
            if let Some(last) = bins.checked_sub(1) {
                counts[bin.min(last)] += count;
            }
        }
        counts
    }
}

/// The bucket of a number: buckets of larger numbers are larger, those of negative ones negative.
fn bucket_of(number: f64) -> i64 {
    let kept = (number.abs().to_bits() >> (52 - FRACTION_BITS)) as i64;
    let bucket = kept - smallest_bucket();
    match (bucket <= 0, number < 0.0) {
        (true, _) => 0,
        (false, false) => bucket,
        (false, true) => -bucket,
    }
}

fn smallest_bucket() -> i64 {
    (1023 + SMALLEST_EXPONENT) << FRACTION_BITS
}

fn middle_of(bucket: i64) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let kept = (bucket.abs() + smallest_bucket()) as u64;
    let low = f64::from_bits(kept << (52 - FRACTION_BITS));
    let high = f64::from_bits((kept + 1) << (52 - FRACTION_BITS));
    let middle = low + (high - low) / 2.0;
    if bucket < 0 { -middle } else { middle }
}

impl Statistics {
    /// Nothing counted yet.
    pub fn new(plan: &Plan) -> Statistics {
        Statistics {
            models: vec![ModelStatistics::default(); plan.models.len()],
            features: BTreeMap::new(),
        }
    }

    /// Counts the answers of the rows that are given, of the plan's model number `index`.
    pub fn add_scores(
        &mut self,
        plan: &Plan,
        index: usize,
        scoring: &Scoring,
        answer: &Answer,
        rows: impl Iterator<Item = usize> + Clone,
    ) {
        let Some(model) = self.models.get_mut(index) else {
            return;
        };
        let scores = rows.clone().map(|row| answer.picked.scores[row]);
        if let Some(bands) = plan.bands.get(index).and_then(Option::as_ref) {
            model.bands.resize(bands.count(), 0);
            for score in scores.clone() {
                model.bands[bands.of(score)] += 1;
            }
        }
        model.scores.add(scores);
        if scoring.task == TaskKind::Affinity {
            let labels: Vec<&str> = scoring.labels().collect();
            let mut counts = vec![0; labels.len() + 1];
            for row in rows {
                let choice = answer.picked.choices[row].unwrap_or(labels.len());
                counts[choice.min(labels.len())] += 1;
            }
            let names = labels.into_iter().chain([NO_LABEL]);
            for (label, count) in names.zip(counts).filter(|(_, count)| *count > 0) {
                *model.labels.entry(label.to_owned()).or_default() += count;
            }
        }
    }

    /// Counts what is missing and unusual in the rows that were scored: `given` as it was read, `served`
    /// with defaults and derived features.
    pub fn add_features(
        &mut self,
        plan: &Plan,
        given: &[Option<ArrayRef>],
        unknown: &[u64],
        served: &RecordBatch,
    ) {
        let derived = plan.view.derived_columns();
        for (column, feature) in plan.view.features().iter().enumerate() {
            if !plan.needed[column] {
                continue;
            }
            let (missing, out_of_range) = match (derived.contains(&column), &given[column]) {
                (true, _) => count_problems(served.column(column), feature),
                // What is out of range was rejected.
                (false, Some(given)) => (given.null_count() as u64, 0),
                (false, None) => (served.num_rows() as u64, 0),
            };
            let counts = self.features.entry(feature.name.clone()).or_default();
            counts.missing += missing;
            counts.out_of_range += out_of_range;
            counts.unknown += unknown[column];
        }
    }

    /// Counts what is unusual in the values of the online store; nothing of other inputs.
    pub fn add_notes(&mut self, plan: &Plan, notes: &[Notes]) {
        for (feature, notes) in plan.view.features().iter().zip(notes) {
            if let Some(counts) = self.features.get_mut(&feature.name) {
                counts.unknown += notes.unknown;
                counts.out_of_range += notes.out_of_range;
                counts.stale += notes.stale;
            }
        }
    }

    /// Adds the counts of the rows that follow.
    pub fn merge(&mut self, other: &Statistics) {
        for (model, other) in self.models.iter_mut().zip(&other.models) {
            model.scores.merge(&other.scores);
            model
                .bands
                .resize(model.bands.len().max(other.bands.len()), 0);
            for (count, other) in model.bands.iter_mut().zip(&other.bands) {
                *count += other;
            }
            for (label, count) in &other.labels {
                *model.labels.entry(label.clone()).or_default() += count;
            }
        }
        for (name, other) in &other.features {
            let counts = match self.features.get_mut(name) {
                Some(counts) => counts,
                None => self.features.entry(name.clone()).or_default(),
            };
            counts.missing += other.missing;
            counts.unknown += other.unknown;
            counts.out_of_range += other.out_of_range;
            counts.stale += other.stale;
        }
    }
}

/// What rows without a label are counted as.
pub const NO_LABEL: &str = "(none)";

/// Whether the scores of a task are from 0 to 1.
pub fn is_share(scoring: &Scoring) -> bool {
    scoring.task != TaskKind::Regression
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_has_no_mean_and_no_quantile() {
        let none = Distribution::default();
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        assert_eq!(none.histogram(0.0, 1.0, 4), [0; 4]);
    }

    #[test]
    fn bins_are_of_equal_width_and_hold_everything() {
        let mut scores = Distribution::default();
        scores.add([0.0, 0.1, 0.3, 0.3, 0.9, 1.0].into_iter());
        assert_eq!(scores.histogram(0.0, 1.0, 4), [2, 2, 0, 2]);
    }

    proptest! {
        #[test]
        fn quantiles_are_right_to_within_a_bucket(
            mut numbers in prop::collection::vec(-1e6..1e6_f64, 1..200),
            q in 0.0..1.0_f64,
            cut in 0..200_usize,
        ) {
            let mut all = Distribution::default();
            let mut rest = Distribution::default();
            let cut = cut.min(numbers.len());
            all.add(numbers[..cut].iter().copied());
            rest.add(numbers[cut..].iter().copied());
            all.merge(&rest);
            numbers.sort_by(f64::total_cmp);
            let rank = ((q * numbers.len() as f64).ceil() as usize).max(1);
            let exact = numbers[rank - 1];
            let found = all.quantile(q).unwrap();
            prop_assert!((found - exact).abs() <= exact.abs() * 0.016 + 1e-12, "{} {}", found, exact);
            prop_assert_eq!(all.count, numbers.len() as u64);
            prop_assert_eq!(all.histogram(-1e6, 1e6, 7).iter().sum::<u64>(), all.count);
            prop_assert_eq!((all.min, all.max), (numbers[0], numbers[numbers.len() - 1]));
        }
    }
}
