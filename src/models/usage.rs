//! How often a version scored customers, how that went, and how long it took.
//!
//! Counters since the server started, kept through reloads of the version. Counting takes no lock but
//! for the message of a failure. Whoever wants a period reads twice and takes the difference.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::features::value::shorten;

/// Steps to a doubling: latencies are known to an eighth.
const STEPS: usize = 8;

/// The logarithm to base 2 of the nanoseconds at which the counting begins: about a microsecond.
const FIRST_DOUBLING: u32 = 10;

/// Doublings that are told apart: to about 17 seconds.
const DOUBLINGS: usize = 24;

const BUCKETS: usize = STEPS * DOUBLINGS;

/// How many characters of a failure's message are kept.
const MAX_MESSAGE: usize = 500;

/// The counters of one version's scores.
#[derive(Debug)]
pub struct Usage {
    answered: AtomicU64,
    failed: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
    last_failure: Mutex<Option<Failure>>,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub at_us: i64,
}

/// The counters as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageCounts {
    /// Scores that answered somebody.
    pub answered: u64,
    /// Scores that failed: another version answered, or nobody.
    pub failed: u64,
    latencies: [u64; BUCKETS],
}

impl Default for Usage {
    fn default() -> Usage {
        Usage {
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latencies: std::array::from_fn(|_| AtomicU64::new(0)),
            last_failure: Mutex::new(None),
        }
    }
}

impl Usage {
    /// A score that was given, and how long the model took for it, reasons included.
    pub fn answered(&self, took: Duration) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// A score that was not given.
    pub fn failed(&self, problem: &str, took: Duration) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.latencies[bucket(took)].fetch_add(1, Ordering::Relaxed);
        let failure = Failure {
            message: shorten(problem, MAX_MESSAGE),
            at_us: clock::now_us(),
        };
        let mut last = self.last_failure.lock();
        let last = last.as_deref_mut();
        match last {
            Ok(last) => *last = Some(failure),
            Err(poisoned) => **poisoned.get_mut() = Some(failure),
        }
    }

    /// What went wrong last, if anything did.
    pub fn last_failure(&self) -> Option<Failure> {
        let last = self.last_failure.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many scores answered somebody.
    pub fn answered_total(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many failed.
    pub fn failed_total(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The counters now. A score may be in one and not yet in another.
    pub fn read(&self) -> UsageCounts {
        UsageCounts {
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            latencies: std::array::from_fn(|index| self.latencies[index].load(Ordering::Relaxed)),
        }
    }
}

impl UsageCounts {
    /// What was counted after `earlier`, which was read from the same counters.
    pub fn since(&self, earlier: &UsageCounts) -> UsageCounts {
        UsageCounts {
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
            latencies: std::array::from_fn(|index| {
                self.latencies[index].saturating_sub(earlier.latencies[index])
            }),
        }
    }

    /// The latency that a share of the scores, 0.5 for the median, does not exceed, to an eighth;
    /// `None` without scores.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.latencies.iter().sum();
        if total == 0 {
            return None;
        }
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut counted = 0;
        for (index, count) in self.latencies.iter().enumerate() {
            counted += count;
            if counted >= wanted {
                return Some(middle(index));
            }
        }
        None
    }
}

/// The bucket of a latency; the first and the last take what is beyond them.
fn bucket(took: Duration) -> usize {
    let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let ns = ns.max(1 << FIRST_DOUBLING);
    let doubling = ns.ilog2();
    // The three binary digits after the first.
    let step = (ns >> (doubling - STEPS.ilog2())) as usize - STEPS;
    let index = (doubling - FIRST_DOUBLING) as usize * STEPS + step;
    index.min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(index: usize) -> Duration {
    let width = 1_u64 << (FIRST_DOUBLING as usize + index / STEPS - STEPS.ilog2() as usize);
    let low = (STEPS + index % STEPS) as u64 * width;
    Duration::from_nanos(low + width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_known_to_an_eighth() {
        for ns in (11..34).flat_map(|doubling| [1_u64 << doubling, (1 << doubling) * 7 / 5]) {
            let usage = Usage::default();
            usage.answered(Duration::from_nanos(ns));
            let found = usage.read().quantile(0.5).unwrap().as_nanos() as f64;
            assert!((found / ns as f64 - 1.0).abs() <= 0.125, "{ns}: {found}");
        }
        // Whatever is beyond counts as the nearest.
        for took in [Duration::ZERO, Duration::from_nanos(3), Duration::MAX] {
            let usage = Usage::default();
            usage.answered(took);
            assert!(usage.read().quantile(1.0).is_some());
        }
    }

    #[test]
    fn a_period_is_the_difference_of_two_readings() {
        let usage = Usage::default();
        for _ in 0..90 {
            usage.answered(Duration::from_micros(10));
        }
        let earlier = usage.read();
        assert_eq!(earlier.since(&earlier).quantile(0.5), None);
        for _ in 0..8 {
            usage.answered(Duration::from_millis(10));
        }
        usage.failed("no number", Duration::from_millis(90));
        usage.failed("no number again", Duration::from_millis(90));
        let period = usage.read().since(&earlier);
        assert_eq!((period.answered, period.failed), (8, 2));
        let millis = |share| period.quantile(share).unwrap().as_secs_f64() * 1e3;
        assert!((millis(0.5) / 10.0 - 1.0).abs() < 0.125);
        assert!((millis(0.95) / 90.0 - 1.0).abs() < 0.125);
        assert_eq!(usage.last_failure().unwrap().message, "no number again");
    }
}
