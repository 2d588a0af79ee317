//! What is said of a version in shadow: figures, and which limit of a canary it would have broken.
//!
//! The times of the two versions are not quite alike: the served version runs for a waiting caller, the
//! shadow on a thread of low priority that gives way to everybody. On a machine with nothing to spare the
//! shadow's longest times are longer for that reason alone; the median tells.

use std::sync::atomic::Ordering;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Counts, ShadowComparison};
use crate::clock;
use crate::models::comparison::distribution::DifferenceReport;
use crate::models::comparison::drift::{Weighted, drift};
use crate::models::comparison::guardrails::{
    FEW_REQUESTS, FEWEST_SCORES_FOR_DRIFT, LONG_TOGETHER_US, Limits, MIN_SCORES_FOR_DRIFT,
    drift_by_chance,
};
use crate::models::comparison::ranks::rank_correlation;
use crate::models::comparison::words::{count, percent, time};

/// Rows before a shadow is said to fail, and before it is said to be slow.
const MIN_ROWS_FOR_ERRORS: u64 = 20;
const MIN_PAIRS_FOR_LATENCY: u64 = 50;

/// Less than this more than the served version, in microseconds, is noise whatever the ratio.
const MIN_LATENCY_US: f64 = 1000.0;

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

impl ShadowComparison {
    /// Everything that is known. `limits` are those a canary would be held to. Takes about a millisecond,
    /// none of it under the lock.
    pub fn report(&self, limits: &Limits) -> ShadowReport {
        let counts = self.lock().clone();
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
