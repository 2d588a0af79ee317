//! Section `[score_batch]`: many customers in one request.

use std::num::NonZero;
use std::time::Duration;

use serde::Deserialize;

/// How `POST /v1/score/batch` is bounded, `[score_batch]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreBatchConfig {
    /// Threads of the lowest priority that these requests share; half of the cores when left out.
    pub threads: Option<NonZero<usize>>,
    /// How many such requests run at once; over it the answer is 429.
    pub max_requests: usize,
    /// The longest line of NDJSON, in bytes; over it the answer is 413.
    pub max_line_bytes: usize,
    /// The largest message (a batch or a dictionary) of an Arrow stream, in bytes, and the most that all
    /// dictionaries together may keep; over it the answer is 413.
    pub max_arrow_bytes: usize,
    /// Answers that may wait for a client to take them, in bytes; until they are fewer, no more of the
    /// body is read.
    pub answer_bytes: usize,
    /// How long a request may stand still, with neither a byte coming nor one being taken.
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
}

impl Default for ScoreBatchConfig {
    fn default() -> Self {
        ScoreBatchConfig {
            threads: None,
            max_requests: 4,
            max_line_bytes: 1024 * 1024,
            max_arrow_bytes: 32 * 1024 * 1024,
            answer_bytes: 16 * 1024 * 1024,
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl ScoreBatchConfig {
    /// How many threads, on a machine with so many cores.
    pub fn threads_of(&self, cores: usize) -> usize {
        self.threads.map_or((cores / 2).max(1), NonZero::get)
    }
}
