//! A canary beside the champion: what happened to the customers of each in the same stretch of time.
//!
//! Every request to a model with a canary is counted here, on one side or the other, under a lock that is
//! held for some tens of nanoseconds. 240 KiB for a canary; nothing for a model without one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

use super::guardrails::{Breach, Broken, Limits, drift_between, judge};
use super::window::{Period, Window};
use crate::clock;
use crate::features::value::shorten;

/// The most characters of an error that are kept.
pub const MAX_ERROR: usize = 300;

/// Which of the two a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Canary,
    Champion,
}

/// The requests to a model since one of its versions became its canary.
#[derive(Debug)]
pub struct CanaryWatch {
    since: Instant,
    since_us: i64,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    limits: Limits,
    canary: Window,
    champion: Window,
    requests: u64,
    errors: u64,
    last_error: Option<String>,
}

/// What happened to both in the window of the guardrails.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CanaryReport {
    /// When the version became the canary, or the server started after that.
    pub since: String,
    /// Requests that the canary was to answer since then.
    pub requests: u64,
    /// How many of these it failed on; the champion answered them.
    pub errors: u64,
    /// What it said when it last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The last seconds, on both sides: as many as the guardrails look back.
    pub canary: PeriodReport,
    pub champion: PeriodReport,
    /// The stability index of the canary's scores against the champion's; absent before both have
    /// answered 500 customers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_drift: Option<f64>,
    /// The limits that are in force.
    pub guardrails: GuardrailReport,
    /// The limit that is broken now, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breach: Option<String>,
}

/// One side's requests in the window of the guardrails.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PeriodReport {
    pub requests: u64,
    pub errors: u64,
    pub error_rate: f64,
    /// How many customers the scores are of: those of a sample where there are many.
    pub customers: usize,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub mean_score: f64,
}

/// The limits of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GuardrailReport {
    pub window_s: f64,
    pub max_error_rate: f64,
    pub max_latency_ratio: f64,
    pub max_score_drift: f64,
}

impl Default for CanaryWatch {
    /// Begins now, with the usual limits.
    fn default() -> Self {
        let limits = Limits::default();
        CanaryWatch {
            since: Instant::now(),
            since_us: clock::now_us(),
            counts: Mutex::new(Counts {
                limits,
                canary: Window::new(limits.window),
                champion: Window::new(limits.window),
                requests: 0,
                errors: 0,
                last_error: None,
            }),
        }
    }
}

impl CanaryWatch {
    /// Holds the canary to other limits from now on. Where they look back another time than before, what
    /// they judge by begins anew.
    pub fn hold_to(&self, limits: Limits) {
        let mut counts = self.lock();
        if counts.limits.window != limits.window {
            counts.canary = Window::new(limits.window);
            counts.champion = Window::new(limits.window);
        }
        counts.limits = limits;
    }

    /// Every change is whole when a panic elsewhere could interrupt it, so a poisoned lock is taken as it
    /// is.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of the customer with that key that `side` answered with `score`; the version ran for
    /// `took`.
    pub fn success(&self, side: Side, customer: &str, score: f64, took: Duration) {
        // Half of the hash is enough to tell a few thousand customers apart.
        let customer = xxh3_64(customer.as_bytes()) as u32;
        let at = self.since.elapsed();
        let mut counts = self.lock();
        match side {
            Side::Canary => {
                counts.requests += 1;
                counts.canary.success(at, score, took, customer);
            }
            Side::Champion => counts.champion.success(at, score, took, customer),
        }
    }

    /// A request that `side` failed on.
    pub fn failure(&self, side: Side, problem: &str) {
        let at = self.since.elapsed();
        let problem = (side == Side::Canary).then(|| shorten(problem, MAX_ERROR));
        let mut counts = self.lock();
        match side {
            Side::Canary => {
                counts.requests += 1;
                counts.errors += 1;
                counts.last_error = problem;
                counts.canary.failure(at);
            }
            Side::Champion => counts.champion.failure(at),
        }
    }

    /// The limit that is broken now, with the last error where it is the one of errors.
    pub fn breach(&self) -> Option<Breach> {
        self.now().breach()
    }

    /// Copied under the lock, in some tens of microseconds, and worked out without it: a request may wait
    /// for the one and not for the other.
    fn now(&self) -> Now {
        let at = self.since.elapsed();
        let counts = self.lock();
        let (canary, champion) = (counts.canary.clone(), counts.champion.clone());
        let mut now = Now {
            limits: counts.limits,
            canary: Period::default(),
            champion: Period::default(),
            requests: counts.requests,
            errors: counts.errors,
            last_error: counts.last_error.clone(),
        };
        drop(counts);
        now.canary = canary.period(at);
        now.champion = champion.period(at);
        now
    }

    /// Everything that is known, for who looks at it.
    pub fn report(&self) -> CanaryReport {
        let now = self.now();
        CanaryReport {
            since: clock::to_rfc3339(self.since_us),
            requests: now.requests,
            errors: now.errors,
            score_drift: drift_between(&now.canary, &now.champion),
            canary: now.canary.report(),
            champion: now.champion.report(),
            guardrails: GuardrailReport {
                window_s: now.limits.window.as_secs_f64(),
                max_error_rate: now.limits.max_error_rate,
                max_latency_ratio: now.limits.max_latency_ratio,
                max_score_drift: now.limits.max_score_drift,
            },
            breach: now.breach().map(|breach| breach.words),
            last_error: now.last_error,
        }
    }
}

/// What is known at one moment.
struct Now {
    limits: Limits,
    canary: Period,
    champion: Period,
    requests: u64,
    errors: u64,
    last_error: Option<String>,
}

impl Now {
    fn breach(&self) -> Option<Breach> {
        let mut breach = judge(&self.limits, &self.canary, &self.champion)?;
        if let (Broken::ErrorRate, Some(error)) = (breach.limit, &self.last_error) {
            breach.words.push_str("; last: ");
            breach.words.push_str(error);
        }
        Some(breach)
    }
}

impl Period {
    fn report(&self) -> PeriodReport {
        PeriodReport {
            requests: self.requests,
            errors: self.failed,
            error_rate: self.error_rate(),
            customers: self.scores.len(),
            p50_ms: self.time(0.5) / 1e3,
            p95_ms: self.time(0.95) / 1e3,
            p99_ms: self.time(0.99) / 1e3,
            mean_score: self.mean_score(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_on_both_sides_is_reported_and_judged() {
        let watch = CanaryWatch::default();
        let took = Duration::from_micros(100);
        for number in 0..60_u32 {
            watch.success(Side::Champion, "C", 0.5, took);
            match number % 3 {
                0 => watch.failure(Side::Canary, "the score is NaN, not a number"),
                _ => watch.success(Side::Canary, "C", 0.5, took),
            }
        }
        let breach = watch.breach().unwrap();
        assert_eq!(breach.limit, Broken::ErrorRate);
        assert_eq!(
            breach.words,
            "20 of 60 requests failed (33 %), the champion 0 of 60; last: the score is NaN, not a number"
        );
        let report = watch.report();
        assert_eq!((report.requests, report.errors), (60, 20));
        assert_eq!((report.canary.requests, report.champion.requests), (60, 60));
        assert_eq!(report.canary.p95_ms, 0.1);
        assert_eq!(report.breach.as_deref(), Some(breach.words.as_str()));
        assert_eq!(report.score_drift, None);
    }

    #[test]
    fn other_limits_hold_at_once_and_another_window_begins_anew() {
        let watch = CanaryWatch::default();
        for _ in 0..30 {
            watch.failure(Side::Canary, "no");
        }
        assert!(watch.breach().is_some());
        let lenient = Limits {
            max_error_rate: 1.0,
            ..Limits::default()
        };
        watch.hold_to(lenient);
        assert_eq!((watch.breach(), watch.report().canary.errors), (None, 30));
        watch.hold_to(Limits {
            window: Duration::from_secs(600),
            ..Limits::default()
        });
        let report = watch.report();
        assert_eq!((report.errors, report.canary.errors), (30, 0));
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let watch = CanaryWatch::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        watch.success(Side::Canary, "C", 0.5, Duration::ZERO);
                        watch.failure(Side::Canary, &"x".repeat(1000));
                        watch.success(Side::Champion, "C", 0.5, Duration::ZERO);
                    }
                });
            }
        });
        let report = watch.report();
        assert_eq!((report.requests, report.errors), (8000, 4000));
        assert_eq!(
            (report.canary.requests, report.champion.requests),
            (8000, 4000)
        );
        assert!(
            report
                .last_error
                .is_some_and(|error| error.len() <= MAX_ERROR + 4)
        );
    }
}
