//! How far two distributions of scores are apart: the population stability index.
//!
//! The scores of the one that answers are cut into ten bins of equal size; the index is the sum over the
//! bins of `(q - p) ln(q / p)`, where `p` and `q` are the shares of its scores and of the other's in the
//! bin. By custom less than 0.1 is no shift, and more than 0.25 a large one. It is a number of the
//! distributions and not of customers: it says nothing when the customers themselves differ, and it
//! stays small when every customer gets another score of the same spread.

/// So many bins where the scores of the reference differ enough.
pub const BINS: usize = 10;

/// A score, and how many requests it stands for.
pub type Weighted = (f64, f64);

/// The population stability index of `other` against `reference`; `None` when one of them is empty.
pub fn drift(reference: &[Weighted], other: &[Weighted]) -> Option<f64> {
    let bounds = bounds(reference);
    let expected = shares(reference, &bounds)?;
    let found = shares(other, &bounds)?;
    let bins = expected.iter().zip(&found);
    Some(bins.map(|(p, q)| (q - p) * (q / p).ln()).sum())
}

/// The upper bounds, inclusive, of all bins but the last: just below the lowest score, then every tenth
/// of the scores. Scores that many requests have get a bin of their own that way, also when they all have
/// the same.
fn bounds(reference: &[Weighted]) -> Vec<f64> {
    let mut sorted: Vec<Weighted> = reference.to_vec();
    sorted.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut bounds: Vec<f64> = Vec::with_capacity(BINS + 1);
    bounds.extend(sorted.first().map(|(lowest, _)| lowest.next_down()));
    let mut passed = 0.0;
    let mut next = 1;
    for (score, weight) in &sorted {
        passed += weight;
        let mut is_bound = false;
        while next <= BINS && passed >= total * next as f64 / BINS as f64 - 1e-9 * total {
            next += 1;
            is_bound = true;
        }
        if is_bound {
            bounds.push(*score);
        }
    }
    bounds.dedup();
    bounds
}

/// The share of the scores in each bin. A bin without any counts as half a score, so that one that only
/// the other side has is not infinitely far away.
fn shares(scores: &[Weighted], bounds: &[f64]) -> Option<Vec<f64>> {
    let total: f64 = scores.iter().map(|(_, weight)| weight).sum();
    if scores.is_empty() || total <= 0.0 {
        return None;
    }
    let mut bins = vec![0.0; bounds.len() + 1];
    for (score, weight) in scores {
        bins[bounds.partition_point(|bound| bound < score)] += weight;
    }
    let half = 0.5 / scores.len() as f64;
    let all = 1.0 + half * bins.len() as f64;
    Some(
        bins.iter()
            .map(|weight| (weight / total + half) / all)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sigmoid(log_odds: f64) -> f64 {
        1.0 / (1.0 + (-log_odds).exp())
    }

    /// Scores of a logistic model whose log-odds are about normal, shifted.
    fn scores(seed: u64, count: usize, shift: f64) -> Vec<Weighted> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        (0..count)
            .map(|_| (sigmoid(normal() + shift), 1.0))
            .collect()
    }

    #[test]
    fn the_same_distribution_is_near_and_a_shifted_one_far() {
        for seed in 0..20 {
            let reference = scores(seed, 500, 0.0);
            let same = drift(&reference, &scores(seed + 100, 500, 0.0)).unwrap();
            assert!(same < 0.15, "{seed}: {same}");
            let shifted = drift(&reference, &scores(seed + 200, 500, 1.0)).unwrap();
            assert!(shifted > 0.4, "{seed}: {shifted}");
        }
    }

    #[test]
    fn a_weight_of_three_is_three_scores() {
        let reference = scores(1, 300, 0.0);
        let other = scores(2, 300, 0.5);
        let thrice: Vec<Weighted> = other.iter().map(|(score, _)| (*score, 3.0)).collect();
        assert_eq!(drift(&reference, &other), drift(&reference, &thrice));
    }

    #[test]
    fn scores_that_are_all_the_same_drift_up_and_down() {
        let all = |score: f64| vec![(score, 1.0); 500];
        assert_eq!(drift(&all(0.5), &all(0.5)), Some(0.0));
        for moved in [0.4, 0.5_f64.next_down(), 0.5_f64.next_up(), 0.6] {
            let found = drift(&all(0.5), &all(moved)).unwrap();
            assert!(found > 5.0, "{moved}: {found}");
        }
        let two: Vec<Weighted> = (0..500).map(|n| (f64::from(n % 2), 1.0)).collect();
        assert!(drift(&two, &two).unwrap() < 1e-12);
        assert!(drift(&two, &all(0.5)).unwrap() > 1.0);
        assert_eq!(drift(&[], &two), None);
        assert_eq!(drift(&two, &[]), None);
    }
}
