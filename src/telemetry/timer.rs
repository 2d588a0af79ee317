//! How long something took, how often: a histogram that counts without a lock.
//!
//! Kept beside what it times, and gone with it; [`super::exposition`] writes it down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets, in nanoseconds: 5 µs to 2.5 s. The last bucket has none.
const BOUNDS_NS: [u64; 18] = [
    5_000,
    10_000,
    20_000,
    40_000,
    60_000,
    80_000,
    100_000,
    150_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
];

/// A histogram of durations: 160 bytes.
#[derive(Debug, Default)]
pub struct Timer {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Timer {
    /// Counts a duration.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts the time since then; returns now.
    pub fn lap(&self, since: Instant) -> Instant {
        let now = Instant::now();
        self.record(now.duration_since(since));
        now
    }

    /// For each bound in seconds, how many durations did not exceed it.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        let bounded = BOUNDS_NS.iter().zip(&self.counts);
        bounded
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (*bound as f64 / 1e9, total)
            })
            .collect()
    }

    /// How many durations exceeded every bound.
    pub fn beyond(&self) -> u64 {
        self.counts[BOUNDS_NS.len()].load(Ordering::Relaxed)
    }

    /// All of them together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9
    }
}
