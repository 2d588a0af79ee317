//! Two models on the same labelled rows: is the new one better than the one that serves?
//!
//! Both are measured on every resample of the rows, so what chance gives to one it gives to the
//! other, and their difference has an interval of its own (the paired bootstrap of Efron and
//! Tibshirani). Whole customers are drawn, not rows: several predictions of one customer are not
//! independent, and intervals that took them for it would be too narrow.
//!
//! The verdict goes by log loss: scores are used as probabilities, and log loss is what gets worse
//! when either the order of the scores or their level does. A candidate is better or worse when the
//! interval of the difference leaves out zero, and else there is no clear difference.

use std::collections::HashMap;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::bootstrap::{Estimate, RESAMPLES, SEED, quantile};
use crate::metrics::{CalibrationBin, Metrics, ScoredRows, rounded};

/// Rows that neither model was fitted on, with what both say and what happened.
#[derive(Debug)]
pub struct ComparedRows<'a> {
    pub labels: &'a [bool],
    /// Which rows are of one customer.
    pub customers: &'a [u64],
    pub candidate: &'a [f64],
    pub champion: &'a [f64],
}

/// Both models, measured.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub verdict: Verdict,
    pub rows: usize,
    pub positives: usize,
    pub customers: usize,
    pub candidate: Assessment,
    pub champion: Assessment,
    /// Candidate less champion.
    pub difference: Difference,
}

/// What the comparison says about the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    #[serde(rename = "better")]
    Better,
    #[serde(rename = "worse")]
    Worse,
    #[serde(rename = "no clear difference")]
    NoClearDifference,
}

/// How good the scores of one model are.
#[derive(Debug, Clone, Serialize)]
pub struct Assessment {
    /// Mean negative log-likelihood of what happened; smaller is better.
    pub log_loss: Estimate,
    #[serde(flatten)]
    pub metrics: Metrics<Estimate>,
    pub calibration: Vec<CalibrationBin>,
}

/// Candidate less champion.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Negative when the candidate is better.
    pub log_loss: Estimate,
    /// Positive when the candidate is better.
    pub roc_auc: Estimate,
    /// Negative when the candidate is better.
    pub brier_score: Estimate,
}

impl Verdict {
    pub fn as_words(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoClearDifference => "no clear difference",
        }
    }
}

/// Measures both models on the same rows; all slices are of equal length, scores are in `0..=1`.
///
/// Nothing if the rows do not hold both classes.
pub fn compare(rows: &ComparedRows) -> Option<Comparison> {
    let candidate = Scored::new(rows.candidate, rows.labels);
    let champion = Scored::new(rows.champion, rows.labels);
    let plain = vec![1.0; rows.labels.len()];
    let measured = (candidate.measure(&plain)?, champion.measure(&plain)?);

    let (groups, customers) = numbered(rows.customers);
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut resampled = Vec::with_capacity(RESAMPLES);
    let mut drawn = vec![0.0; customers];
    let mut weights = plain;
    for _ in 0..RESAMPLES {
        drawn.fill(0.0);
        for _ in 0..customers {
            drawn[random.random_range(0..customers)] += 1.0;
        }
        for (weight, group) in weights.iter_mut().zip(&groups) {
            *weight = drawn[*group];
        }
        // A resample that holds one class only is left out.
        let both = (candidate.measure(&weights), champion.measure(&weights));
        if let (Some(candidate), Some(champion)) = both {
            resampled.push((candidate, champion));
        }
    }

    let resampled = Resampled {
        measured,
        resampled,
    };
    let difference = Difference {
        log_loss: resampled.difference(|measures| measures.log_loss),
        roc_auc: resampled.difference(|measures| measures.metrics.roc_auc),
        brier_score: resampled.difference(|measures| measures.metrics.brier_score),
    };
    let verdict = if difference.log_loss.high < 0.0 {
        Verdict::Better
    } else if difference.log_loss.low > 0.0 {
        Verdict::Worse
    } else {
        Verdict::NoClearDifference
    };
    Some(Comparison {
        verdict,
        rows: rows.labels.len(),
        positives: candidate.rows.positives(),
        customers,
        candidate: resampled.assess(|(candidate, _)| candidate, &candidate.rows),
        champion: resampled.assess(|(_, champion)| champion, &champion.rows),
        difference,
    })
}

/// The rows in the order of one model's scores.
struct Scored {
    rows: ScoredRows,
    order: Vec<usize>,
}

/// What one model scores on one weighting of the rows.
struct Measures {
    log_loss: f64,
    metrics: Metrics<f64>,
}

impl Scored {
    fn new(scores: &[f64], labels: &[bool]) -> Scored {
        Scored {
            rows: ScoredRows::new(scores, labels),
            order: ScoredRows::order(scores),
        }
    }

    /// `weights` are in the order in which the rows were given.
    fn measure(&self, weights: &[f64]) -> Option<Measures> {
        let weights: Vec<f64> = self.order.iter().map(|row| weights[*row]).collect();
        Some(Measures {
            metrics: self.rows.weighted_metrics(&weights)?,
            log_loss: self.rows.log_loss(&weights),
        })
    }
}

type Both = (Measures, Measures);

/// The measures of candidate and champion on the rows as they are and on every resample.
struct Resampled {
    measured: Both,
    resampled: Vec<Both>,
}

impl Resampled {
    fn difference(&self, measure: fn(&Measures) -> f64) -> Estimate {
        self.estimate(|(candidate, champion)| measure(candidate) - measure(champion))
    }

    fn assess(&self, model: fn(&Both) -> &Measures, rows: &ScoredRows) -> Assessment {
        let estimate =
            |measure: fn(&Metrics<f64>) -> f64| self.estimate(|both| measure(&model(both).metrics));
        Assessment {
            log_loss: self.estimate(|both| model(both).log_loss),
            metrics: Metrics {
                roc_auc: estimate(|metrics| metrics.roc_auc),
                average_precision: estimate(|metrics| metrics.average_precision),
                top_decile_lift: estimate(|metrics| metrics.top_decile_lift),
                brier_score: estimate(|metrics| metrics.brier_score),
                expected_calibration_error: estimate(|metrics| metrics.expected_calibration_error),
            },
            calibration: rows.calibration(),
        }
    }

    fn estimate(&self, measure: impl Fn(&Both) -> f64) -> Estimate {
        let mut values: Vec<f64> = self.resampled.iter().map(&measure).collect();
        values.sort_by(f64::total_cmp);
        Estimate {
            value: rounded(measure(&self.measured)),
            low: rounded(quantile(&values, 0.025)),
            high: rounded(quantile(&values, 0.975)),
        }
    }
}

/// The customers as numbers from 0, and how many there are.
fn numbered(customers: &[u64]) -> (Vec<usize>, usize) {
    let mut numbers = HashMap::new();
    let mut groups = Vec::with_capacity(customers.len());
    for customer in customers {
        let next = numbers.len();
        groups.push(*numbers.entry(*customer).or_insert(next));
    }
    (groups, numbers.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400 rows of 400 customers whose true probability rises with the row.
    fn rows() -> (Vec<bool>, Vec<f64>) {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let truth: Vec<f64> = (0..400)
            .map(|row| 0.05 + 0.9 * f64::from(row) / 400.0)
            .collect();
        let labels = truth.iter().map(|p| random.random_range(0.0..1.0) < *p);
        (labels.collect(), truth)
    }

    fn compared(labels: &[bool], candidate: &[f64], champion: &[f64]) -> Comparison {
        let customers: Vec<u64> = (0..labels.len() as u64).collect();
        compare(&ComparedRows {
            labels,
            customers: &customers,
            candidate,
            champion,
        })
        .unwrap()
    }

    #[test]
    fn the_verdict_goes_by_a_difference_that_chance_does_not_explain() {
        let (labels, truth) = rows();
        let constant = vec![0.5; labels.len()];
        let better = compared(&labels, &truth, &constant);
        assert_eq!(better.verdict, Verdict::Better);
        assert!(better.difference.log_loss.value < 0.0);
        assert!(better.difference.roc_auc.low > 0.0);
        assert_eq!(compared(&labels, &constant, &truth).verdict, Verdict::Worse);
        // The same order and another level: worse as a probability.
        let squeezed: Vec<f64> = truth.iter().map(|p| 0.9 + p / 100.0).collect();
        let worse = compared(&labels, &squeezed, &truth);
        assert_eq!(worse.verdict, Verdict::Worse);
        assert_eq!(worse.difference.roc_auc.value, 0.0);
    }

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let (labels, truth) = rows();
        let same = compared(&labels, &truth, &truth);
        assert_eq!(same.verdict, Verdict::NoClearDifference);
        assert_eq!(same.difference.log_loss.low, 0.0);
        assert_eq!(same.difference.log_loss.high, 0.0);
    }

    #[test]
    fn repeated_customers_widen_the_intervals() {
        // Given every row twice, once as other customers and once as the same ones.
        let (labels, truth) = rows();
        let labels = [labels.clone(), labels].concat();
        let scores = [truth.clone(), truth].concat();
        let half = labels.len() as u64 / 2;
        let width = |customers: Vec<u64>| {
            let comparison = compare(&ComparedRows {
                labels: &labels,
                customers: &customers,
                candidate: &scores,
                champion: &scores,
            });
            let auc = comparison.unwrap().candidate.metrics.roc_auc;
            auc.high - auc.low
        };
        // Then the same ones are seen to carry less information.
        let independent = width((0..2 * half).collect());
        let repeated = width((0..2 * half).map(|row| row % half).collect());
        assert!(repeated > 1.2 * independent, "{repeated} and {independent}");
    }

    #[test]
    fn one_class_alone_cannot_be_compared() {
        let rows = ComparedRows {
            labels: &[true, true],
            customers: &[1, 2],
            candidate: &[0.1, 0.2],
            champion: &[0.1, 0.2],
        };
        assert!(compare(&rows).is_none());
    }
}
