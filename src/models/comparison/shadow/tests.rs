//! What a comparison says of shadows that are like the version that answers, and of others.

use super::*;
use crate::models::comparison::guardrails::Limits;

fn pair(score: f64, served_score: f64, micros: f64) -> Pair {
    Pair {
        score,
        served_score,
        micros,
        served_micros: 80.0,
    }
}

fn scores(count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |number| f64::from(number) / f64::from(count))
}

fn faults(comparison: &ShadowComparison) -> Vec<String> {
    comparison.report(&Limits::default()).faults
}

#[test]
fn the_same_scores_are_no_fault() {
    let comparison = ShadowComparison::default();
    for score in scores(10_000) {
        comparison.pair(pair(score, score, 120.0));
    }
    let report = comparison.report(&Limits::default());
    assert_eq!(
        (report.pairs, report.errors, report.dropped),
        (10_000, 0, 0)
    );
    assert_eq!(report.difference.identical, 10_000);
    assert_eq!(report.rank_correlation, Some(1.0));
    assert_eq!(report.score_drift, Some(0.0));
    assert!((0.115..0.125).contains(&report.latency.p50_ms));
    assert_eq!(report.faults, [""; 0]);
}

#[test]
fn each_fault_is_named_with_its_figures() {
    let failing = ShadowComparison::default();
    for number in 0..100_u32 {
        match number % 4 {
            0 => failing.failure("the score is NaN, not a number"),
            _ => failing.pair(pair(0.5, 0.5, 80.0)),
        }
    }
    let said = "fails: 25 of 100 rows (25 %); last: the score is NaN, not a number";
    assert_eq!(faults(&failing), [said]);

    let slow = ShadowComparison::default();
    for score in scores(100) {
        slow.pair(pair(score, score, 20_000.0));
    }
    let found = faults(&slow);
    assert!(
        found[0].starts_with("slow: half of its rows took more than 20 ms"),
        "{found:?}"
    );

    let drifting = ShadowComparison::default();
    for score in scores(1000) {
        drifting.pair(pair(score + 0.3, score, 80.0));
    }
    let found = faults(&drifting);
    assert!(
        found[0].starts_with("drifts: stability index") && found[0].contains("+0.3000"),
        "{found:?}"
    );
    // The order is as it was.
    let report = drifting.report(&Limits::default());
    assert_eq!(report.rank_correlation, Some(1.0));
}

#[test]
fn what_is_plain_needs_few_rows() {
    // A tenth of a second each.
    let slow = ShadowComparison::default();
    for score in scores(9) {
        slow.pair(pair(score, score, 100_000.0));
    }
    assert_eq!(faults(&slow), [""; 0]);
    for score in scores(4) {
        slow.pair(pair(score, score, 100_000.0));
    }
    assert!(faults(&slow)[0].starts_with("slow: "));

    let drifting = ShadowComparison::default();
    for score in scores(49) {
        drifting.pair(pair(score + 1.0, score, 80.0));
    }
    assert_eq!(faults(&drifting), [""; 0]);
    drifting.pair(pair(1.5, 0.5, 80.0));
    assert!(faults(&drifting)[0].starts_with("drifts: "));
    // The index itself is told when it is one of the version and not of chance.
    assert_eq!(drifting.report(&Limits::default()).score_drift, None);
}

#[test]
fn a_few_rows_are_no_verdict() {
    let comparison = ShadowComparison::default();
    for _ in 0..19 {
        comparison.failure("no");
    }
    assert_eq!(faults(&comparison), [""; 0]);
    comparison.dropped();
    let totals = Totals {
        errors: 19,
        dropped: 1,
        ..Totals::default()
    };
    assert_eq!(comparison.unpublished(), totals);
    assert_eq!(comparison.unpublished(), Totals::default());
    comparison.unrecorded();
    assert_eq!(comparison.unpublished().unrecorded, 1);
}

#[test]
fn correlation_and_drift_are_of_the_last_pairs() {
    let comparison = ShadowComparison::default();
    for score in scores(5000) {
        comparison.pair(pair(1.0 - score, score, 80.0));
    }
    let before = comparison.report(&Limits::default());
    assert!(before.rank_correlation.unwrap() < -0.99);
    for score in scores(4096) {
        comparison.pair(pair(score, score, 80.0));
    }
    let after = comparison.report(&Limits::default());
    assert_eq!(
        (after.rank_correlation, after.score_drift),
        (Some(1.0), Some(0.0))
    );
}
