//! Section `[rollout]`: how versions in shadow and in canary are watched.

use std::time::Duration;

use serde::Deserialize;

use crate::models::comparison::guardrails::Limits;

/// How versions in shadow and in canary are watched, `[rollout]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// How many answers may wait for their shadow versions to be run; over it they are counted and left
    /// out of the comparison.
    pub shadow_queue: usize,
    /// How much of one core the shadow versions of all models may take together, from 0.01 to 1.
    pub shadow_cpu_share: f64,
    /// How far back a canary's guardrails look.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How far the share of a canary's requests that fail may lie above the champion's.
    pub max_error_rate: f64,
    /// How many times as long as the champion a canary may take, at the 95th percentile.
    pub max_latency_ratio: f64,
    /// How far the distribution of a canary's scores may lie from the champion's: a population stability
    /// index.
    pub max_score_drift: f64,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        let guardrails = Limits::default();
        RolloutConfig {
            shadow_queue: 1024,
            shadow_cpu_share: 0.5,
            window: guardrails.window,
            max_error_rate: guardrails.max_error_rate,
            max_latency_ratio: guardrails.max_latency_ratio,
            max_score_drift: guardrails.max_score_drift,
        }
    }
}

impl RolloutConfig {
    /// The limits of a canary that is started without its own.
    pub fn guardrails(&self) -> Limits {
        Limits {
            window: self.window,
            max_error_rate: self.max_error_rate,
            max_latency_ratio: self.max_latency_ratio,
            max_score_drift: self.max_score_drift,
        }
    }

    /// Whether the settings can be right.
    ///
    /// # Errors
    /// The setting that is wrong, what was found and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=1_000_000).contains(&self.shadow_queue) {
            let found = self.shadow_queue;
            return Err(format!(
                "rollout.shadow_queue: expected 1 to 1,000,000 answers, found {found}"
            ));
        }
        if !(0.01..=1.0).contains(&self.shadow_cpu_share) {
            let found = self.shadow_cpu_share;
            return Err(format!(
                "rollout.shadow_cpu_share: expected a share of one core from 0.01 to 1, found {found}"
            ));
        }
        let guardrails = self.guardrails().check();
        guardrails.map_err(|problem| format!("rollout.{problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right_and_a_wrong_setting_is_named() {
        assert_eq!(RolloutConfig::default().check(), Ok(()));
        assert_eq!(RolloutConfig::default().guardrails(), Limits::default());
        for (text, named) in [
            ("shadow_queue = 0", "rollout.shadow_queue"),
            ("shadow_cpu_share = 0", "rollout.shadow_cpu_share"),
            ("shadow_cpu_share = nan", "rollout.shadow_cpu_share"),
            ("window = '100ms'", "rollout.window"),
            ("max_error_rate = 1.5", "rollout.max_error_rate"),
            ("max_latency_ratio = 0.5", "rollout.max_latency_ratio"),
            ("max_score_drift = -1", "rollout.max_score_drift"),
        ] {
            let config: RolloutConfig = toml::from_str(text).unwrap();
            let problem = config.check().unwrap_err();
            assert!(problem.starts_with(named), "{text}: {problem}");
        }
        assert!(toml::from_str::<RolloutConfig>("shadow_cpu = 0.5").is_err());
    }
}
