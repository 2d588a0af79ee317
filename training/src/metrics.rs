//! Measures of a probabilistic classifier on labelled rows.
//!
//! Definitions are those of scikit-learn, rows with equal scores treated as it does; every measure
//! takes a weight per row, which is how often a bootstrap resample drew it (1 for the plain value).
//! The unit tests compare with figures from scikit-learn. Nothing here chooses a threshold.

use serde::Serialize;

/// Number of equal-width score bins of the calibration measures.
pub const CALIBRATION_BINS: usize = 10;

/// The five measures of a report; `T` is a number, or a number with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Metrics<T> {
    /// Area under the ROC curve: the chance that a positive row scores above a negative one.
    pub roc_auc: T,
    /// Average precision: the step-wise area under the precision-recall curve.
    pub average_precision: T,
    /// Rate of positives in the best-scored tenth of the rows over the rate in all rows.
    pub top_decile_lift: T,
    /// Mean squared difference of score and outcome.
    pub brier_score: T,
    /// Mean absolute difference of mean score and rate of positives per bin, by rows in the bin.
    pub expected_calibration_error: T,
}

/// Rounds a measure to six decimals, which is below any difference that matters: reports stay
/// readable, and the last bits of another processor do not show in them.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// One score bin: `low <= score < high`, the last bin with `high` included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibrationBin {
    pub low: f64,
    pub high: f64,
    pub rows: usize,
    pub mean_score: f64,
    pub observed_rate: f64,
}

/// Labelled scores in descending order of score.
#[derive(Debug, Clone)]
pub struct ScoredRows {
    scores: Vec<f64>,
    labels: Vec<bool>,
}

impl ScoredRows {
    /// Sorts the rows by score; both slices are of equal length, scores are in `0..=1`.
    pub fn new(scores: &[f64], labels: &[bool]) -> ScoredRows {
        let order = ScoredRows::order(scores);
        ScoredRows {
            scores: order.iter().map(|row| scores[*row]).collect(),
            labels: order.iter().map(|row| labels[*row]).collect(),
        }
    }

    /// The positions of the rows in descending order of score, equal scores in their given order.
    pub fn order(scores: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
        order
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Number of positive rows.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|label| **label).count()
    }

    /// All measures, every row counted once.
    pub fn metrics(&self) -> Option<Metrics<f64>> {
        self.weighted_metrics(&vec![1.0; self.len()])
    }

    /// All measures with one weight per row, in descending order of score.
    ///
    /// Nothing if the weighted rows do not hold both classes: ranking is not defined then.
    pub fn weighted_metrics(&self, weights: &[f64]) -> Option<Metrics<f64>> {
        let groups = self.tied_groups(weights);
        let positive: f64 = groups.iter().map(|group| group.positive).sum();
        let negative: f64 = groups.iter().map(|group| group.negative).sum();
        if positive <= 0.0 || negative <= 0.0 {
            return None;
        }
        Some(Metrics {
            roc_auc: roc_auc(&groups, positive, negative),
            average_precision: average_precision(&groups, positive),
            top_decile_lift: top_decile_lift(&groups, positive, negative),
            brier_score: self.brier_score(weights, positive + negative),
            expected_calibration_error: self.calibration_error(weights, positive + negative),
        })
    }

    /// The points (false positive rate, true positive rate) of the ROC curve, from (0, 0) to (1, 1).
    pub fn roc_curve(&self) -> Vec<(f64, f64)> {
        let negatives = (self.len() - self.positives()) as f64;
        let positives = self.positives() as f64;
        let mut points = vec![(0.0, 0.0)];
        let mut negative = 0.0;
        let mut positive = 0.0;
        for group in self.tied_groups(&vec![1.0; self.len()]) {
            negative += group.negative;
            positive += group.positive;
            points.push((negative / negatives, positive / positives));
        }
        points
    }

    /// The score bins that hold at least one row, in ascending order.
    pub fn calibration(&self) -> Vec<CalibrationBin> {
        let sums = self.bin_sums(&vec![1.0; self.len()]);
        let mut bins = Vec::new();
        for (bin, sum) in sums.iter().enumerate() {
            if sum.weight > 0.0 {
                bins.push(CalibrationBin {
                    low: bin as f64 / CALIBRATION_BINS as f64,
                    high: (bin + 1) as f64 / CALIBRATION_BINS as f64,
                    rows: sum.weight as usize,
                    mean_score: rounded(sum.score / sum.weight),
                    observed_rate: rounded(sum.positive / sum.weight),
                });
            }
        }
        bins
    }

    /// Weights of the positive and negative rows of each distinct score, best score first.
    fn tied_groups(&self, weights: &[f64]) -> Vec<TiedGroup> {
        let mut groups: Vec<TiedGroup> = Vec::new();
        let mut last_score = f64::NAN;
        for ((score, label), weight) in self.scores.iter().zip(&self.labels).zip(weights) {
            if *score != last_score {
                groups.push(TiedGroup::default());
                last_score = *score;
            }
            if let Some(group) = groups.last_mut() {
                if *label {
                    group.positive += weight;
                } else {
                    group.negative += weight;
                }
            }
        }
        groups
    }

    /// Mean negative log-likelihood of the outcomes, with one weight per row in descending order of
    /// score. A score of exactly 0 or 1 counts as one float32 step away from it.
    pub fn log_loss(&self, weights: &[f64]) -> f64 {
        const STEP: f64 = f32::EPSILON as f64 / 2.0;
        let mut sum = 0.0;
        let mut total = 0.0;
        for ((score, label), weight) in self.scores.iter().zip(&self.labels).zip(weights) {
            let score = score.clamp(STEP, 1.0 - STEP);
            let likelihood = if *label { score.ln() } else { (-score).ln_1p() };
            sum -= weight * likelihood;
            total += weight;
        }
        sum / total
    }

    fn brier_score(&self, weights: &[f64], total: f64) -> f64 {
        let mut sum = 0.0;
        for ((score, label), weight) in self.scores.iter().zip(&self.labels).zip(weights) {
            let outcome = if *label { 1.0 } else { 0.0 };
            sum += weight * (score - outcome) * (score - outcome);
        }
        sum / total
    }

    fn calibration_error(&self, weights: &[f64], total: f64) -> f64 {
        let mut sum = 0.0;
        for bin in self.bin_sums(weights) {
            // weight * |mean score - rate| with the division by the bin's weight cancelled.
            sum += (bin.score - bin.positive).abs();
        }
        sum / total
    }

    fn bin_sums(&self, weights: &[f64]) -> [BinSum; CALIBRATION_BINS] {
        let mut sums = [BinSum::default(); CALIBRATION_BINS];
        for ((score, label), weight) in self.scores.iter().zip(&self.labels).zip(weights) {
            let bin = (score * CALIBRATION_BINS as f64) as usize;
            let sum = &mut sums[bin.min(CALIBRATION_BINS - 1)];
            sum.weight += weight;
            sum.score += weight * score;
            if *label {
                sum.positive += weight;
            }
        }
        sums
    }
}

/// Weight of the rows that share one score.
#[derive(Debug, Clone, Copy, Default)]
struct TiedGroup {
    positive: f64,
    negative: f64,
}

/// Weighted sums over the rows of one calibration bin.
#[derive(Debug, Clone, Copy, Default)]
struct BinSum {
    weight: f64,
    score: f64,
    positive: f64,
}

/// Trapezoids under the ROC curve: a tie between a positive and a negative row counts one half.
fn roc_auc(groups: &[TiedGroup], positive: f64, negative: f64) -> f64 {
    let mut positive_above = 0.0;
    let mut area = 0.0;
    for group in groups {
        area += group.negative * (positive_above + group.positive / 2.0);
        positive_above += group.positive;
    }
    area / (positive * negative)
}

/// Sum of precision times the step in recall, a tied group being one step.
fn average_precision(groups: &[TiedGroup], positive: f64) -> f64 {
    let mut positive_above = 0.0;
    let mut rows_above = 0.0;
    let mut sum = 0.0;
    for group in groups {
        positive_above += group.positive;
        rows_above += group.positive + group.negative;
        if rows_above > 0.0 {
            sum += group.positive / positive * (positive_above / rows_above);
        }
    }
    sum
}

/// Exactly a tenth of the weight is taken from the top; a group that straddles the border counts
/// with the share that falls inside, which is its expectation over random orders of the ties.
fn top_decile_lift(groups: &[TiedGroup], positive: f64, negative: f64) -> f64 {
    let total = positive + negative;
    let decile = total / 10.0;
    let mut remaining = decile;
    let mut found = 0.0;
    for group in groups {
        let weight = group.positive + group.negative;
        if weight >= remaining {
            if weight > 0.0 {
                found += group.positive * remaining / weight;
            }
            break;
        }
        found += group.positive;
        remaining -= weight;
    }
    (found / decile) / (positive / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [bool; 12] = [
        true, false, true, true, false, false, true, false, false, true, false, false,
    ];
    const SCORES: [f64; 12] = [0.9, 0.9, 0.8, 0.7, 0.7, 0.7, 0.55, 0.4, 0.4, 0.4, 0.2, 0.05];

    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "expected {expected}, found {found}"
        );
    }

    #[test]
    fn measures_equal_those_of_scikit_learn_with_ties() {
        // Given twelve rows with tied scores, two of the ties across classes.
        let rows = ScoredRows::new(&SCORES, &LABELS);
        // When they are measured.
        let metrics = rows.metrics().unwrap();
        // Then the values are roc_auc_score, average_precision_score and brier_score_loss of
        // scikit-learn 1.9.1 on the same rows.
        assert_close(metrics.roc_auc, 0.7);
        assert_close(metrics.average_precision, 0.547_619_047_619_047_6);
        assert_close(metrics.brier_score, 0.237_916_666_666_666_67);
    }

    #[test]
    fn log_loss_is_the_mean_surprise_and_stays_finite() {
        let rows = ScoredRows::new(&SCORES, &LABELS);
        // The mean of -ln(score) over positives and -ln(1 - score) over negatives.
        assert_close(rows.log_loss(&[1.0; 12]), 0.6838271282016835);
        let certain = ScoredRows::new(&[1.0, 0.0], &[false, true]);
        assert!(certain.log_loss(&[1.0; 2]).is_finite());
    }

    #[test]
    fn weights_count_rows_as_scikit_learn_does() {
        // Given weights that a bootstrap resample could draw, zeros among them. The order of tied
        // rows is kept, so that weights go with the rows they are written for.
        let weights = [2.0, 0.0, 1.0, 1.0, 3.0, 0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.0];
        // When the rows are measured with them.
        let rows = ScoredRows::new(&SCORES, &LABELS);
        let metrics = rows.weighted_metrics(&weights).unwrap();
        // Then the values are scikit-learn's with `sample_weight`.
        assert_close(metrics.roc_auc, 0.671_428_571_428_571_5);
        assert_close(metrics.average_precision, 0.781_307_977_736_549_1);
        assert_close(metrics.brier_score, 0.228_541_666_666_666_67);
    }

    #[test]
    fn roc_curve_has_one_point_per_distinct_score() {
        // Given the rows with ties, when the curve is drawn.
        let points = ScoredRows::new(&SCORES, &LABELS).roc_curve();
        // Then its points are scikit-learn's roc_curve(drop_intermediate=False).
        let expected = [
            (0.0, 0.0),
            (1.0 / 7.0, 0.2),
            (1.0 / 7.0, 0.4),
            (3.0 / 7.0, 0.6),
            (3.0 / 7.0, 0.8),
            (5.0 / 7.0, 1.0),
            (6.0 / 7.0, 1.0),
            (1.0, 1.0),
        ];
        assert_eq!(points.len(), expected.len());
        for (found, expected) in points.iter().zip(expected) {
            assert_close(found.0, expected.0);
            assert_close(found.1, expected.1);
        }
    }

    #[test]
    fn lift_takes_exactly_a_tenth_of_the_rows() {
        // Given twelve rows: a tenth is 1.2 rows of the top pair, of which half are positive.
        let rows = ScoredRows::new(&SCORES, &LABELS);
        // When the lift is measured, then it is 0.5 over the overall rate of 5 in 12.
        assert_close(rows.metrics().unwrap().top_decile_lift, 0.5 / (5.0 / 12.0));
    }

    #[test]
    fn calibration_error_is_the_weighted_gap_per_bin() {
        // Given two bins: scores 0.25 with a rate of 1/2, scores 0.75 with a rate of 1.
        let rows = ScoredRows::new(&[0.25, 0.25, 0.75, 0.75], &[true, false, true, true]);
        // When the gap is measured, then both bins are off by 1/4.
        let metrics = rows.metrics().unwrap();
        assert_close(metrics.expected_calibration_error, 0.25);
        let bins = rows.calibration();
        assert_eq!(bins.len(), 2);
        assert_close(bins[0].low, 0.2);
        assert_eq!(bins[0].rows, 2);
        assert_close(bins[0].observed_rate, 0.5);
    }

    #[test]
    fn a_score_of_one_is_in_the_last_bin() {
        let rows = ScoredRows::new(&[1.0, 0.0], &[true, false]);
        let bins = rows.calibration();
        assert_close(bins[1].low, 0.9);
        assert_close(rows.metrics().unwrap().expected_calibration_error, 0.0);
    }

    #[test]
    fn one_class_alone_has_no_ranking() {
        let rows = ScoredRows::new(&[0.1, 0.9], &[true, true]);
        assert!(rows.metrics().is_none());
    }
}
