//! How often a version was asked, how that went, and where the time went.
//!
//! Counters since the server started, kept through reloads of the version. Counting takes no lock
//! and orders nothing: a reader may see a request in one counter and not yet in another, and sees
//! every counter exactly once the requests are answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::comparison::watched::Watched;
use super::usage::Usage;
use crate::clock;
use crate::telemetry::timer::Timer;

/// The counters of one version.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Scores of customers; everything else here counts inferences on tensors.
    pub scores: Usage,
    /// How long it took to score a customer, reasons included.
    pub took: Timer,
    /// How it does beside the version that answers, while it is in shadow or in canary.
    pub watched: Watched,
    succeeded: AtomicU64,
    failed: AtomicU64,
    failed_ns: AtomicU64,
    rows: AtomicU64,
    queue_ns: AtomicU64,
    input_ns: AtomicU64,
    infer_ns: AtomicU64,
    output_ns: AtomicU64,
    /// Milliseconds since the Unix epoch; 0 when it was never asked.
    last_ms: AtomicU64,
}

/// The counters as they were read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub succeeded: u64,
    pub failed: u64,
    pub failed_ns: u64,
    /// Rows of the requests that succeeded.
    pub rows: u64,
    pub queue_ns: u64,
    pub input_ns: u64,
    pub infer_ns: u64,
    pub output_ns: u64,
    pub last_ms: u64,
}

impl Statistics {
    /// A request that was answered: its rows, and how long it waited, its tensors were read, the
    /// graph ran, and its outputs were written.
    pub fn success(
        &self,
        rows: u64,
        queue: Duration,
        input: Duration,
        infer: Duration,
        output: Duration,
    ) {
        add(&self.succeeded, 1);
        add(&self.rows, rows);
        // Most requests never wait.
        if !queue.is_zero() {
            add(&self.queue_ns, nanoseconds(queue));
        }
        add(&self.input_ns, nanoseconds(input));
        add(&self.infer_ns, nanoseconds(infer));
        add(&self.output_ns, nanoseconds(output));
        self.touch();
    }

    /// A request to this version that was refused or failed, after `elapsed`.
    pub fn failure(&self, elapsed: Duration) {
        add(&self.failed, 1);
        add(&self.failed_ns, nanoseconds(elapsed));
        self.touch();
    }

    /// The counters now.
    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            succeeded: read(&self.succeeded),
            failed: read(&self.failed),
            failed_ns: read(&self.failed_ns),
            rows: read(&self.rows),
            queue_ns: read(&self.queue_ns),
            input_ns: read(&self.input_ns),
            infer_ns: read(&self.infer_ns),
            output_ns: read(&self.output_ns),
            last_ms: read(&self.last_ms),
        }
    }

    fn touch(&self) {
        let now_ms = clock::now_us() / 1000;
        let now_ms = u64::try_from(now_ms).unwrap_or_default();
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_at_once_on_several_threads_is_counted_exactly() {
        let statistics = Statistics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let ns = Duration::from_nanos;
                        statistics.success(3, Duration::ZERO, ns(5), ns(7), ns(11));
                        statistics.failure(ns(2));
                    }
                });
            }
        });
        let counts = statistics.read();
        assert!(counts.last_ms > 0);
        let expected = Counts {
            succeeded: 4000,
            failed: 4000,
            failed_ns: 8000,
            rows: 12_000,
            queue_ns: 0,
            input_ns: 20_000,
            infer_ns: 28_000,
            output_ns: 44_000,
            last_ms: counts.last_ms,
        };
        assert_eq!(counts, expected);
    }
}
