//! A version in shadow beside the one that answered, row for row.
//!
//! Each row that was answered while the version was in shadow gives a pair of scores and of times, or an
//! error, or was left out because too many waited. Counts are of all rows; the rank correlation and the
//! drift of the last 4,096 pairs. 90 KiB for a shadow. What is said of them is in `report`.

mod report;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use self::report::{LatencyReport, ShadowReport};
use super::canary::MAX_ERROR;
use super::distribution::{Differences, Distribution};
use crate::clock;
use crate::features::value::shorten;

/// How many pairs are kept for rank correlation and drift.
const RECENT: usize = 4096;

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

#[derive(Debug, Clone, Default)]
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
}
