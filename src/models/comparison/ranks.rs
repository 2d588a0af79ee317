//! Rank correlation: whether two versions put the same rows into the same order.

/// Spearman's rank correlation of pairs: 1 when both sides order the rows alike, -1 when one has the
/// reverse order, about 0 when one says nothing of the other. Equal numbers share their mean rank.
/// `None` for fewer than two pairs, and when all numbers of a side are equal.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let left = ranks(pairs.iter().map(|pair| pair.0));
    let right = ranks(pairs.iter().map(|pair| pair.1));
    // Both sides have the same mean rank, ties or not.
    let mean = (pairs.len() as f64 + 1.0) / 2.0;
    let (mut both, mut of_left, mut of_right) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(&right) {
        both += (left - mean) * (right - mean);
        of_left += (left - mean).powi(2);
        of_right += (right - mean).powi(2);
    }
    let scale = (of_left * of_right).sqrt();
    (scale > 0.0).then(|| (both / scale).clamp(-1.0, 1.0))
}

/// The rank of each number from 1, in the order they came.
fn ranks(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<(f64, usize)> = numbers.zip(0..).collect();
    sorted.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let mut ranks = vec![0.0; sorted.len()];
    let mut first = 0;
    while first < sorted.len() {
        let value = sorted[first].0;
        let equal = sorted[first..].partition_point(|(other, _)| *other <= value);
        // A number that compares with nothing is still one.
        let equal = equal.max(1);
        let rank = first as f64 + (equal as f64 + 1.0) / 2.0;
        for (_, place) in &sorted[first..first + equal] {
            ranks[*place] = rank;
        }
        first += equal;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_correlation(pairs: &[(f64, f64)], expected: f64) {
        let found = rank_correlation(pairs).unwrap();
        assert!((found - expected).abs() < 1e-12, "{pairs:?}: {found}");
    }

    #[test]
    fn the_order_counts_and_not_the_distance() {
        assert_correlation(&[(0.1, 1.0), (0.2, 10.0), (0.9, 11.0)], 1.0);
        assert_correlation(&[(0.1, 3.0), (0.2, 2.0), (0.9, -7.0)], -1.0);
        assert_correlation(&[(1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (4.0, 4.0)], 0.8);
    }

    #[test]
    fn equal_numbers_share_their_mean_rank() {
        // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
        let pairs = [(0.1, 1.0), (0.2, 2.0), (0.2, 3.0), (0.3, 4.0)];
        assert_correlation(&pairs, 4.5 / (4.5_f64 * 5.0).sqrt());
    }

    #[test]
    fn where_there_is_no_order_there_is_no_correlation() {
        assert_eq!(rank_correlation(&[]), None);
        assert_eq!(rank_correlation(&[(1.0, 2.0)]), None);
        assert_eq!(rank_correlation(&[(1.0, 2.0), (1.0, 3.0)]), None);
        let not_numbers = [(f64::NAN, 1.0), (f64::NAN, 2.0), (0.5, f64::NAN)];
        assert!(rank_correlation(&not_numbers).is_none_or(f64::is_finite));
    }
}
