//! What a canary is allowed, as it is configured for all of them and for one.

use std::time::Duration;

use crate::models::rollout::Guardrails;

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
