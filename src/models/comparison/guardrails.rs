//! The limits a canary is held to, and whether they are kept.
//!
//! Each limit is of the canary *beside the champion in the same stretch of time*: where everything fails
//! or is slow, that is not the canary's doing. And each needs so many requests before it says anything, and
//! then a distance that chance does not explain (three standard deviations): they are looked at every
//! second for as long as a canary lasts, and a good one is to stay.

use std::time::Duration;

use super::drift::{BINS, drift};
use super::window::Period;
use super::words::{count, percent, time};
use crate::models::rollout::Guardrails;

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

/// How many standard deviations are no chance.
const DEVIATIONS: f64 = 3.0;

/// The same for the stability index, which is large by chance more often than a normal variable.
const DRIFT_DEVIATIONS: f64 = 4.0;

/// The limits of one canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How far back they look.
    pub window: Duration,
    /// How far the share of requests that fail may lie above the champion's.
    pub max_error_rate: f64,
    /// How many times as long as the champion it may take, at the 95th percentile.
    pub max_latency_ratio: f64,
    /// How far the distribution of its scores may lie from the champion's, as a population stability
    /// index.
    pub max_score_drift: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window: Duration::from_secs(60),
            max_error_rate: 0.02,
            max_latency_ratio: 2.0,
            max_score_drift: 0.25,
        }
    }
}

impl Limits {
    /// These limits, but where the canary has its own.
    ///
    /// # Errors
    /// The setting that is wrong, what was found and what was expected.
    pub fn with(mut self, own: &Guardrails) -> Result<Limits, String> {
        for (limit, own) in [
            (&mut self.max_error_rate, own.max_error_rate),
            (&mut self.max_latency_ratio, own.max_latency_ratio),
            (&mut self.max_score_drift, own.max_score_drift),
        ] {
            *limit = own.unwrap_or(*limit);
        }
        self.check()?;
        Ok(self)
    }

    /// Whether the limits can be meant.
    ///
    /// # Errors
    /// The setting that is wrong, what was found and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(3600));
        if self.window < shortest || self.window > longest {
            let found = humantime::format_duration(self.window);
            return Err(format!(
                "window: expected a time from 1s to 1h, found {found}"
            ));
        }
        // Written so that what is no number is refused.
        let wrong = |name: &str, expected: &str, found: f64| {
            Err(format!("{name}: expected {expected}, found {found}"))
        };
        if !(0.0..=1.0).contains(&self.max_error_rate) {
            let expected = "a share from 0 to 1";
            return wrong("max_error_rate", expected, self.max_error_rate);
        }
        if !(1.0..=1e9).contains(&self.max_latency_ratio) {
            let expected = "a ratio from 1 to 1e9";
            return wrong("max_latency_ratio", expected, self.max_latency_ratio);
        }
        if !(f64::MIN_POSITIVE..=1e9).contains(&self.max_score_drift) {
            let expected = "an index above 0, up to 1e9";
            return wrong("max_score_drift", expected, self.max_score_drift);
        }
        Ok(())
    }
}

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

/// How far apart two shares of that size may be by chance, in so many requests; nothing is known of a
/// side without any.
fn chance(share: f64, requests: u64, other_requests: u64) -> f64 {
    if requests == 0 || other_requests == 0 {
        return 0.0;
    }
    let variance = share * (1.0 - share);
    DEVIATIONS * (variance * (1.0 / requests as f64 + 1.0 / other_requests as f64)).sqrt()
}

/// How large the stability index of two samples of the same distribution may be by chance; nothing where
/// there are enough scores for that not to matter. Over the sum of the inverse sizes the index is about a
/// chi-square of as many degrees of freedom as there are bins: its mean, and so many deviations more.
pub fn drift_by_chance(scores: usize, other_scores: usize) -> f64 {
    if scores.min(other_scores) >= MIN_SCORES_FOR_DRIFT {
        return 0.0;
    }
    let bins = BINS as f64;
    let per_bin = 1.0 / scores.max(1) as f64 + 1.0 / other_scores.max(1) as f64;
    per_bin * (bins + DRIFT_DEVIATIONS * (2.0 * bins).sqrt())
}

/// How far the scores of both are apart; `None` before there are so many that chance does not matter.
pub fn drift_between(canary: &Period, champion: &Period) -> Option<f64> {
    let enough = canary.scores.len().min(champion.scores.len()) >= MIN_SCORES_FOR_DRIFT;
    enough
        .then(|| drift(&champion.scores, &canary.scores))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::comparison::window::Window;

    /// A period with so many requests: answered ones with scores about `score` that took `took_us`, then
    /// failed ones.
    fn period(succeeded: u64, failed: u64, took_us: u64, score: f64) -> Period {
        let mut window = Window::new(Duration::from_secs(60));
        let mut random = fastrand::Rng::with_seed(succeeded + took_us);
        for number in 0..succeeded {
            let at = Duration::from_millis(number * 50_000 / succeeded.max(1));
            let score = score + (random.f64() - 0.5) * 0.2;
            // One in forty takes ten times as long, on either side.
            let took = if number % 40 == 0 {
                10 * took_us
            } else {
                took_us
            };
            window.success(at, score, Duration::from_micros(took), number as u32);
        }
        for _ in 0..failed {
            window.failure(Duration::from_secs(50));
        }
        window.period(Duration::from_secs(51))
    }

    fn judged(canary: &Period, champion: &Period) -> Option<Broken> {
        judge(&Limits::default(), canary, champion).map(|breach| breach.limit)
    }

    #[test]
    fn a_canary_like_the_champion_stays() {
        let champion = period(20_000, 5, 80, 0.4);
        for requests in [1, 30, 500, 5000] {
            let canary = period(requests, 0, 90, 0.4);
            assert_eq!(judged(&canary, &champion), None, "{requests}");
        }
    }

    #[test]
    fn errors_count_from_five_of_twenty_on_and_beside_those_of_the_champion() {
        let champion = period(2280, 0, 80, 0.4);
        assert_eq!(judged(&period(15, 4, 80, 0.4), &champion), None);
        assert_eq!(judged(&period(0, 19, 80, 0.4), &champion), None);
        let failing = judged(&period(15, 5, 80, 0.4), &champion);
        assert_eq!(failing, Some(Broken::ErrorRate));
        let breach = judge(&Limits::default(), &period(79, 41, 80, 0.4), &champion);
        assert_eq!(
            breach.map(|breach| breach.words).as_deref(),
            Some("41 of 120 requests failed (34 %), the champion 0 of 2,280")
        );
        // Where the champion fails as often, it is not the canary.
        let failing_too = period(2000, 600, 80, 0.4);
        assert_eq!(judged(&period(100, 25, 80, 0.4), &failing_too), None);
        // Without a champion that answers at all, errors still are errors.
        let none = Period::default();
        let failing = judged(&period(100, 25, 80, 0.4), &none);
        assert_eq!(failing, Some(Broken::ErrorRate));
    }

    #[test]
    fn what_chance_explains_is_no_breach() {
        // One in five fails on both sides, five of the canary's first twenty.
        let failing = period(1600, 400, 80, 0.4);
        assert_eq!(judged(&period(15, 5, 80, 0.4), &failing), None);
        // Whoever shares a busy machine is interrupted for 20 ms every now and then.
        let interrupted = |requests: u32, seed: u64| {
            let mut window = Window::new(Duration::from_secs(60));
            let mut random = fastrand::Rng::with_seed(seed);
            for number in 0..requests {
                let took = if random.f64() < 0.05 { 20_000 } else { 500 };
                let at = Duration::from_millis(u64::from(number % 50_000));
                window.success(at, random.f64(), Duration::from_micros(took), number);
            }
            window.period(Duration::from_secs(51))
        };
        for seed in 0..200 {
            let champion = interrupted(2000, 1000 + seed);
            let canary = interrupted(60 + 5 * seed as u32, seed);
            assert_eq!(judged(&canary, &champion), None, "{seed}");
        }
    }

    #[test]
    fn slow_is_twice_as_long_and_a_millisecond_more() {
        let champion = period(2000, 0, 900, 0.4);
        assert_eq!(judged(&period(100, 0, 1700, 0.4), &champion), None);
        let slow = judged(&period(100, 0, 2000, 0.4), &champion);
        assert_eq!(slow, Some(Broken::Latency));
        // Ten times as long, but not a millisecond more.
        assert_eq!(
            judged(&period(100, 0, 800, 0.4), &period(2000, 0, 80, 0.4)),
            None
        );
        // Fifty requests, or eight that together take a second.
        assert_eq!(judged(&period(49, 0, 5000, 0.4), &champion), None);
        assert_eq!(judged(&period(7, 0, 300_000, 0.4), &champion), None);
        let breach = judge(&Limits::default(), &period(8, 0, 300_000, 0.4), &champion);
        let words = breach.map(|breach| breach.words).unwrap_or_default();
        assert!(
            words.starts_with("half of its requests took more than 300 ms"),
            "{words}"
        );
        // Nothing to compare with.
        assert_eq!(
            judged(&period(100, 0, 50_000, 0.4), &Period::default()),
            None
        );
    }

    #[test]
    fn a_large_drift_shows_on_fifty_customers_and_a_small_one_on_five_hundred() {
        let champion = period(5000, 0, 80, 0.4);
        let drifted = Some(Broken::ScoreDrift);
        // Nobody of the canary's has a score that the champion's customers have.
        for score in [0.2, 0.6] {
            assert_eq!(judged(&period(49, 0, 80, score), &champion), None);
            assert_eq!(judged(&period(50, 0, 80, score), &champion), drifted);
            let few = period(49, 0, 80, 0.4);
            assert_eq!(judged(&period(500, 0, 80, score), &few), None);
        }
        // An index of about 0.7, which chance may bring about where there are few.
        assert_eq!(judged(&period(500, 0, 80, 0.416), &champion), drifted);
        assert!((0.5..1.0).contains(&drift_by_chance(50, 5000)));
        assert!(drift_by_chance(100, 100) < drift_by_chance(50, 100));
        assert_eq!(drift_by_chance(500, 500), 0.0);
    }

    #[test]
    fn few_customers_of_the_same_distribution_have_not_drifted() {
        let champion = period(1000, 0, 80, 0.4);
        for seed in 0..2000_u32 {
            let customers = 50 + u64::from(seed % 450);
            let mut window = Window::new(Duration::from_secs(60));
            let mut random = fastrand::Rng::with_seed(u64::from(seed));
            for number in 0..customers {
                let score = 0.4 + (random.f64() - 0.5) * 0.2;
                let took = Duration::from_micros(80);
                window.success(Duration::from_secs(1), score, took, number as u32);
            }
            let canary = window.period(Duration::from_secs(2));
            assert_eq!(judged(&canary, &champion), None, "{seed}: {customers}");
        }
    }

    #[test]
    fn a_canary_may_have_limits_of_its_own_and_wrong_ones_are_refused() {
        let own = |text: &str| {
            let own: Guardrails = serde_json::from_str(text).unwrap();
            Limits::default().with(&own)
        };
        let limits = own(r#"{"max_score_drift": 1.5}"#).unwrap();
        assert_eq!((limits.max_error_rate, limits.max_score_drift), (0.02, 1.5));
        assert_eq!(own("{}"), Ok(Limits::default()));
        for (text, word) in [
            (r#"{"max_error_rate": -0.1}"#, "max_error_rate"),
            (r#"{"max_latency_ratio": 0.9}"#, "max_latency_ratio"),
            (r#"{"max_score_drift": 0}"#, "max_score_drift"),
        ] {
            let problem = own(text).unwrap_err();
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }
}
