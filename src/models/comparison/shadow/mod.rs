//! A version in shadow beside the one that answered, row for row.
//!
//! Each row that was answered while the version was in shadow gives a pair of scores and of times, or an
//! error, or was left out because too many waited. Counts are of all rows; the rank correlation and the
//! drift of the last 4,096 pairs. 90 KiB for a shadow.
//!
//! The times of the two are not quite alike: the served version runs for a waiting caller, the shadow on
//! a thread of low priority that gives way to everybody. On a machine with nothing to spare the shadow's
//! longest times are longer for that reason alone; the median tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::canary::MAX_ERROR;
use super::distribution::{DifferenceReport, Differences, Distribution};
use super::drift::{Weighted, drift};
use super::guardrails::{
    FEW_REQUESTS, FEWEST_SCORES_FOR_DRIFT, LONG_TOGETHER_US, Limits, MIN_SCORES_FOR_DRIFT,
    drift_by_chance,
};
use super::ranks::rank_correlation;
use super::words::{count, percent, time};
use crate::clock;
use crate::features::value::shorten;

/// How many pairs are kept for rank correlation and drift.
const RECENT: usize = 4096;

/// Rows before a shadow is said to fail, and before it is said to be slow.
const MIN_ROWS_FOR_ERRORS: u64 = 20;
const MIN_PAIRS_FOR_LATENCY: u64 = 50;

/// Less than this more than the served version, in microseconds, is noise whatever the ratio.
const MIN_LATENCY_US: f64 = 1000.0;

/// A shadow version since it took that role.
#[derive(Debug)]
pub struct ShadowComparison {
    since_us: i64,
    /// Rows that were not run because too many waited. Counted by those who answer.
    dropped: AtomicU64,
    /// Rows that were run and are not in the ledger, which had to keep its room for predictions.
    unrecorded: AtomicU64,
    counts: Mutex<Counts>,
    /// What the metrics have already.
    published: Mutex<Totals>,
}

/// How many rows came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub pairs: u64,
    pub errors: u64,
    pub dropped: u64,
    pub unrecorded: u64,
}

#[derive(Debug, Default)]
struct Counts {
    errors: u64,
    last_error: Option<(String, i64)>,
    differences: Differences,
    took: Distribution,
    served_took: Distribution,
    pairs: u64,
    /// The last pairs, shadow and served, in no order.
    recent: Vec<(f64, f64)>,
}

/// A score of both versions for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    pub score: f64,
    pub served_score: f64,
    /// How long each ran, in microseconds.
    pub micros: f64,
    pub served_micros: f64,
}

/// How a shadow version compares with the ones that answered.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ShadowReport {
    /// When the version went into shadow, or the server started after that.
    pub since: String,
    /// Rows that both versions scored.
    pub pairs: u64,
    /// Rows that the shadow version failed on.
    pub errors: u64,
    /// Of all that it ran.
    pub error_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<String>,
    /// Rows that it was not run on, because more waited than it keeps up with.
    pub dropped: u64,
    /// Rows that it was run on and that are not in the ledger, which keeps its room for predictions.
    pub unrecorded: u64,
    pub difference: DifferenceReport,
    /// Spearman's, over the last 4,096 pairs; absent where there is no order to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_correlation: Option<f64>,
    /// The stability index of the shadow's scores against the served ones, over the last 4,096 pairs;
    /// absent before there are 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_drift: Option<f64>,
    pub latency: LatencyReport,
    /// What would have rolled the version back in canary, in words; empty when nothing.
    pub faults: Vec<String>,
}

/// How long both versions ran, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LatencyReport {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub served_p50_ms: f64,
    pub served_p95_ms: f64,
    pub served_p99_ms: f64,
}

impl Default for ShadowComparison {
    /// Begins now.
    fn default() -> Self {
        ShadowComparison {
            since_us: clock::now_us(),
            dropped: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            counts: Mutex::default(),
            published: Mutex::default(),
        }
    }
}

impl ShadowComparison {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row that both scored.
    pub fn pair(&self, pair: Pair) {
        let mut counts = self.lock();
        let counts = &mut *counts;
        counts.differences.add(pair.score, pair.served_score);
        counts.took.add(pair.micros);
        counts.served_took.add(pair.served_micros);
        let scores = (pair.score, pair.served_score);
        match counts.recent.len() < RECENT {
            true => counts.recent.push(scores),
            false => {
                let oldest = usize::try_from(counts.pairs % RECENT as u64).unwrap_or(0);
                counts.recent[oldest] = scores;
            }
        }
        counts.pairs += 1;
    }

    /// A row that the shadow failed on.
    pub fn failure(&self, problem: &str) {
        let problem = shorten(problem, MAX_ERROR);
        let mut counts = self.lock();
        counts.errors += 1;
        counts.last_error = Some((problem, clock::now_us()));
    }

    /// A row that it was not run on. Takes no lock.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A row that it was run on and that the ledger did not take.
    pub fn unrecorded(&self) {
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
    }

    pub fn totals(&self) -> Totals {
        let counts = self.lock();
        Totals {
            pairs: counts.pairs,
            errors: counts.errors,
            dropped: self.dropped.load(Ordering::Relaxed),
            unrecorded: self.unrecorded.load(Ordering::Relaxed),
        }
    }

    /// What has come since this was last asked.
    pub fn unpublished(&self) -> Totals {
        let totals = self.totals();
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *published, totals);
        Totals {
            pairs: totals.pairs.saturating_sub(before.pairs),
            errors: totals.errors.saturating_sub(before.errors),
            dropped: totals.dropped.saturating_sub(before.dropped),
            unrecorded: totals.unrecorded.saturating_sub(before.unrecorded),
        }
    }

    /// Everything that is known. `limits` are those a canary would be held to. Takes about a millisecond,
    /// none of it under the lock.
    pub fn report(&self, limits: &Limits) -> ShadowReport {
        let counts = {
            let counts = self.lock();
            Counts {
                errors: counts.errors,
                last_error: counts.last_error.clone(),
                differences: counts.differences.clone(),
                took: counts.took.clone(),
                served_took: counts.served_took.clone(),
                pairs: counts.pairs,
                recent: counts.recent.clone(),
            }
        };
        let run = counts.pairs + counts.errors;
        let rows = counts.recent.len();
        let drift = (rows >= FEWEST_SCORES_FOR_DRIFT).then(|| counts.drift());
        let drift = drift.flatten();
        let score_drift = drift.filter(|_| rows >= MIN_SCORES_FOR_DRIFT);
        let (last_error, last_error_at) = counts.last_error.clone().unzip();
        ShadowReport {
            since: clock::to_rfc3339(self.since_us),
            pairs: counts.pairs,
            errors: counts.errors,
            error_rate: counts.errors as f64 / run.max(1) as f64,
            last_error,
            last_error_at: last_error_at.map(clock::to_rfc3339),
            dropped: self.dropped.load(Ordering::Relaxed),
            unrecorded: self.unrecorded.load(Ordering::Relaxed),
            difference: counts.differences.report(),
            rank_correlation: rank_correlation(&counts.recent),
            score_drift,
            latency: counts.latency(),
            faults: counts.faults(limits, drift),
        }
    }
}

impl Counts {
    fn drift(&self) -> Option<f64> {
        let served: Vec<Weighted> = self.recent.iter().map(|pair| (pair.1, 1.0)).collect();
        let shadow: Vec<Weighted> = self.recent.iter().map(|pair| (pair.0, 1.0)).collect();
        drift(&served, &shadow)
    }

    fn latency(&self) -> LatencyReport {
        let took = |quantile| self.took.quantile(quantile) / 1e3;
        let served = |quantile| self.served_took.quantile(quantile) / 1e3;
        LatencyReport {
            p50_ms: took(0.5),
            p95_ms: took(0.95),
            p99_ms: took(0.99),
            served_p50_ms: served(0.5),
            served_p95_ms: served(0.95),
            served_p99_ms: served(0.99),
        }
    }

    fn faults(&self, limits: &Limits, drift: Option<f64>) -> Vec<String> {
        let mut faults = Vec::new();
        let run = self.pairs + self.errors;
        let error_rate = self.errors as f64 / run.max(1) as f64;
        if run >= MIN_ROWS_FOR_ERRORS && error_rate > limits.max_error_rate {
            let last = self.last_error.as_ref();
            faults.push(format!(
                "fails: {} of {} rows ({}); last: {}",
                count(self.errors),
                count(run),
                percent(error_rate),
                last.map_or("", |(problem, _)| problem.as_str())
            ));
        }
        // By the median: see above what the low priority does to the longest times.
        let (took, served) = (self.took.quantile(0.5), self.served_took.quantile(0.5));
        let is_slow = took > served * limits.max_latency_ratio && took > served + MIN_LATENCY_US;
        // A few are enough once they have taken long together: so slow a version is run on few.
        let together = took * self.pairs as f64;
        let enough = self.pairs >= MIN_PAIRS_FOR_LATENCY
            || (self.pairs >= FEW_REQUESTS && together >= LONG_TOGETHER_US as f64);
        if enough && is_slow {
            faults.push(format!(
                "slow: half of its rows took more than {}, of the version that answered {} ({} rows)",
                time(took),
                time(served),
                count(self.pairs)
            ));
        }
        let rows = self.recent.len();
        let allowed = limits.max_score_drift + drift_by_chance(rows, rows);
        if let Some(drift) = drift.filter(|drift| *drift > allowed) {
            let report = self.differences.report();
            faults.push(format!(
                "drifts: stability index {drift:.2} against the scores that were served, {:+.4} on \
                 average ({} rows)",
                report.mean,
                count(self.pairs)
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
