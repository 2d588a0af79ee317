//! The limits a canary is held to, and whether they are kept.
//!
//! Each limit is of the canary *beside the champion in the same stretch of time*: where everything fails
//! or is slow, that is not the canary's doing. And each needs so many requests before it says anything, and
//! then a distance that chance does not explain: they are looked at every second for as long as a canary
//! lasts, and a good one is to stay.
//!
//! * `limits` – what is allowed, as it is configured.
//! * `chance` – how far two samples of the same may lie apart.

mod chance;
mod limits;
#[cfg(test)]
mod tests;

use self::chance::chance;
pub use self::chance::drift_by_chance;
pub use self::limits::Limits;
use super::drift::drift;
use super::window::Period;
use super::words::{count, percent, time};

/// Requests and errors of the canary before its error rate is judged.
const MIN_REQUESTS_FOR_ERRORS: u64 = 20;
const MIN_ERRORS: u64 = 5;

/// Requests on both sides before latency is judged by its 95th percentile.
const MIN_REQUESTS_FOR_LATENCY: u64 = 50;

/// So many requests are enough to judge it by the median, once they have taken so long together: a
/// version that takes a tenth of a second is not left to fifty customers.
pub const FEW_REQUESTS: u64 = 8;
pub const LONG_TOGETHER_US: u64 = 1_000_000;

/// Less than this more than the champion, in microseconds, is noise whatever the ratio.
const MIN_LATENCY_US: f64 = 1000.0;

/// Customers on both sides from which on chance hardly moves the stability index; for a shadow, rows.
pub const MIN_SCORES_FOR_DRIFT: usize = 500;

/// Customers on both sides, for a shadow rows, from which on a large drift is seen for what it is.
pub const FEWEST_SCORES_FOR_DRIFT: usize = 50;

/// Which limit was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    ErrorRate,
    Latency,
    ScoreDrift,
}

impl Broken {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Broken::ErrorRate => "error_rate",
            Broken::Latency => "latency",
            Broken::ScoreDrift => "score_drift",
        }
    }
}

/// A limit that was broken, and by how much, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub limit: Broken,
    pub words: String,
}

/// The first limit that `canary` breaks beside `champion`, if any; the gravest come first.
pub fn judge(limits: &Limits, canary: &Period, champion: &Period) -> Option<Breach> {
    let breach = |limit, words| Some(Breach { limit, words });
    if let Some(words) = fails(limits, canary, champion) {
        return breach(Broken::ErrorRate, words);
    }
    if let Some(words) = is_slow(limits, canary, champion) {
        return breach(Broken::Latency, words);
    }
    breach(Broken::ScoreDrift, has_drifted(limits, canary, champion)?)
}

fn fails(limits: &Limits, canary: &Period, champion: &Period) -> Option<String> {
    let enough = canary.requests >= MIN_REQUESTS_FOR_ERRORS && canary.failed >= MIN_ERRORS;
    let both = canary.requests + champion.requests;
    let mean_rate = (canary.failed + champion.failed) as f64 / both.max(1) as f64;
    let chance = chance(mean_rate, canary.requests, champion.requests);
    let allowed = champion.error_rate() + limits.max_error_rate + chance;
    (enough && canary.error_rate() > allowed).then(|| {
        format!(
            "{} of {} requests failed ({}), the champion {} of {}",
            count(canary.failed),
            count(canary.requests),
            percent(canary.error_rate()),
            count(champion.failed),
            count(champion.requests)
        )
    })
}

fn is_slow(limits: &Limits, canary: &Period, champion: &Period) -> Option<String> {
    let fewest = canary.succeeded().min(champion.succeeded());
    let limit = |usual: f64| (usual * limits.max_latency_ratio).max(usual + MIN_LATENCY_US);
    let (quantile, name, is_slow) = if fewest >= MIN_REQUESTS_FOR_LATENCY {
        let over = canary.share_over(limit(champion.time(0.95)));
        let chance = chance(0.05, canary.timed() as u64, champion.timed() as u64);
        (
            0.95,
            "95 % of its requests took up to",
            over > 0.05 + chance,
        )
    } else if fewest >= FEW_REQUESTS && canary.run_us >= LONG_TOGETHER_US {
        let is_slow = canary.time(0.5) > limit(champion.time(0.5));
        (0.5, "half of its requests took more than", is_slow)
    } else {
        return None;
    };
    let (took, usual) = (canary.time(quantile), champion.time(quantile));
    is_slow.then(|| {
        format!(
            "{name} {}, of the champion's {} ({:.1} times as long; {} and {} requests)",
            time(took),
            time(usual),
            took / usual.max(1.0),
            count(canary.succeeded()),
            count(champion.succeeded())
        )
    })
}

fn has_drifted(limits: &Limits, canary: &Period, champion: &Period) -> Option<String> {
    if canary.scores.len().min(champion.scores.len()) < FEWEST_SCORES_FOR_DRIFT {
        return None;
    }
    let drift = drift(&champion.scores, &canary.scores)?;
    let chance = drift_by_chance(canary.scores.len(), champion.scores.len());
    (drift > limits.max_score_drift + chance).then(|| {
        format!(
            "its scores have drifted from the champion's: stability index {drift:.2}, mean score {:.4} \
             of {} customers, the champion's {:.4} of {}",
            canary.mean_score(),
            count(canary.scores.len() as u64),
            champion.mean_score(),
            count(champion.scores.len() as u64)
        )
    })
}

/// How far the scores of both are apart; `None` before there are so many that chance does not matter.
pub fn drift_between(canary: &Period, champion: &Period) -> Option<f64> {
    let enough = canary.scores.len().min(champion.scores.len()) >= MIN_SCORES_FOR_DRIFT;
    enough
        .then(|| drift(&champion.scores, &canary.scores))
        .flatten()
}
