//! The bounds and times of the ledger, in one documented struct.

use std::time::Duration;

/// How the ledger queues, writes and syncs. `LedgerOptions::default()` is what the promises in the
/// module's documentation are stated for.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// A segment that has at least this many bytes is closed and a new one begun. Default 128 MiB.
    /// It is a soft bound: a segment may exceed it by what is written until the next sync.
    pub segment_bytes: u64,
    /// Rows that may wait to be written before further ones are refused. Default 65,536.
    pub queue_rows: usize,
    /// Bytes of waiting rows (as they go into the file; outcomes estimated) before further ones are
    /// refused. Default 64 MiB.
    pub queue_bytes: usize,
    /// How long predictions are gathered before one write puts them into the file. Default 5 ms;
    /// more than [`LedgerOptions::LONGEST_LINGER`] is taken as that, because a prediction must be
    /// in the file within 50 ms.
    pub linger: Duration,
    /// Written predictions are synced to the disk at least this often. Default 100 ms. Outcomes are
    /// synced at once.
    pub sync_interval: Duration,
    /// How long `append_outcome` waits for an outcome to be durable before it reports it as
    /// unconfirmed. Default 2 s.
    pub outcome_deadline: Duration,
    /// How long `close` keeps trying when the disk does not take writes. Default 3 s.
    pub close_patience: Duration,
    /// Failures to inject into the segment files, for the tests of this module.
    #[cfg(test)]
    pub faults: std::sync::Arc<super::disk::Faults>,
}

impl LedgerOptions {
    /// The longest time that predictions may be gathered.
    pub const LONGEST_LINGER: Duration = Duration::from_millis(10);
}

impl Default for LedgerOptions {
    fn default() -> Self {
        LedgerOptions {
            segment_bytes: 128 * 1024 * 1024,
            queue_rows: 65_536,
            queue_bytes: 64 * 1024 * 1024,
            linger: Duration::from_millis(5),
            sync_interval: Duration::from_millis(100),
            outcome_deadline: Duration::from_secs(2),
            close_patience: Duration::from_secs(3),
            #[cfg(test)]
            faults: std::sync::Arc::default(),
        }
    }
}
