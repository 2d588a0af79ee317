//! Rates: a token bucket for each key that has one.
//!
//! A bucket holds `burst` tokens and gets `rate` new ones a second; a request takes one. It is kept as
//! one number, the time at which the bucket will be full again, so that taking is one atomic
//! operation and nothing runs in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one key may take.
#[derive(Debug)]
pub struct Bucket {
    /// The time in which one token comes, in nanoseconds.
    interval_ns: u64,
    /// The time in which an empty bucket fills.
    capacity_ns: u64,
    begun: Instant,
    /// When it will be full again, in nanoseconds since `begun`.
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// A full bucket. A rate of 0 or less is taken as the lowest there is.
    pub fn new(rate_per_second: f64, burst: u32) -> Bucket {
        // The cast saturates; a day at most, so that sums stay far from overflow.
        let interval_ns = ((1e9 / rate_per_second) as u64).clamp(1, 86_400_000_000_000);
        Bucket {
            interval_ns,
            capacity_ns: interval_ns.saturating_mul(u64::from(burst.max(1))),
            begun: Instant::now(),
            full_at_ns: AtomicU64::new(0),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long it takes until there is one, when there is none now; nothing is taken then.
    pub fn take(&self) -> Result<(), Duration> {
        let now_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now_ns)
    }

    fn take_at(&self, now_ns: u64) -> Result<(), Duration> {
        let limit_ns = now_ns.saturating_add(self.capacity_ns);
        let mut full_at_ns = self.full_at_ns.load(Ordering::Relaxed);
        loop {
            let then_ns = full_at_ns.max(now_ns).saturating_add(self.interval_ns);
            if then_ns > limit_ns {
                return Err(Duration::from_nanos(then_ns - limit_ns));
            }
            let taken = self.full_at_ns.compare_exchange_weak(
                full_at_ns,
                then_ns,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return Ok(()),
                Err(newer) => full_at_ns = newer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        // Given ten a second, three at once
        let bucket = Bucket::new(10.0, 3);
        // When three come at once, then they are let through, and the fourth waits a tenth of a second
        for _ in 0..3 {
            assert_eq!(bucket.take_at(0), Ok(()));
        }
        assert_eq!(bucket.take_at(0), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take_at(SECOND / 20), Err(Duration::from_millis(50)));
        assert_eq!(bucket.take_at(SECOND / 10), Ok(()));
        assert!(bucket.take_at(SECOND / 10).is_err());
        // And a bucket that was left alone is full again, and no fuller
        for _ in 0..3 {
            assert_eq!(bucket.take_at(100 * SECOND), Ok(()));
        }
        assert!(bucket.take_at(100 * SECOND).is_err());
    }

    #[test]
    fn over_any_time_no_more_than_burst_and_rate_are_let_through() {
        let (rate, burst) = (250.0, 40);
        let bucket = Bucket::new(rate, burst);
        let mut random = fastrand::Rng::with_seed(7);
        let (mut now, mut let_through) = (0, 0_u64);
        for _ in 0..50_000 {
            now += random.u64(0..4_000_000);
            let_through += u64::from(bucket.take_at(now).is_ok());
        }
        let most = u64::from(burst) + (now as f64 / 1e9 * rate) as u64 + 1;
        assert!(let_through <= most, "{let_through} of {most}");
        assert!(let_through > most * 9 / 10, "{let_through} of {most}");
    }

    #[test]
    fn threads_that_take_at_once_share_one_bucket() {
        let bucket = Bucket::new(1e-3, 1000);
        let taken = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..1000 {
                        taken.fetch_add(u64::from(bucket.take().is_ok()), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1000);
    }

    #[test]
    fn extreme_rates_neither_panic_nor_let_everything_through() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            let bucket = Bucket::new(rate, u32::MAX);
            assert_eq!(bucket.take_at(u64::MAX / 2), Ok(()), "{rate}");
            let one = Bucket::new(rate, 0);
            assert_eq!(one.take_at(0), Ok(()), "{rate}");
            assert!(one.take_at(0).is_err(), "{rate}");
        }
    }
}
