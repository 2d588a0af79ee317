//! Section `[history]`: how the server reads its own history.

use std::time::Duration;

use serde::Deserialize;

/// How the server reads its own history, `[history]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// The most observations in one request for a training set; over it the answer is 422.
    pub max_rows: u64,
    /// The largest body of such a request, in bytes; over it the answer is 413.
    pub max_body_bytes: usize,
    /// Memory for sorting, in bytes; what does not fit is put aside in the data directory.
    pub memory_bytes: usize,
    /// What may be put aside there, in bytes; a request that needs more is refused.
    pub temp_bytes: u64,
    /// How often a sample of the predictions made since the last time is recomputed and compared; zero
    /// for never.
    #[serde(with = "humantime_serde")]
    pub consistency_interval: Duration,
    /// How many predictions at most.
    pub consistency_sample: usize,
    /// A ledger larger than this, in bytes, is not read for that: `bellwether ledger consistency` is
    /// for large ones, on a machine that has the time.
    pub consistency_max_log_bytes: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            max_rows: 1_000_000,
            max_body_bytes: 64 * 1024 * 1024,
            memory_bytes: 256 * 1024 * 1024,
            temp_bytes: 8 * 1024 * 1024 * 1024,
            consistency_interval: Duration::from_secs(600),
            consistency_sample: 200,
            consistency_max_log_bytes: 4 * 1024 * 1024 * 1024,
        }
    }
}
