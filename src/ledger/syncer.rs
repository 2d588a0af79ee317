//! The thread that makes written records durable.
//!
//! `fdatasync` takes from a tenth of a millisecond to a second, depending on the disk and its load.
//! It has a thread of its own so that predictions go on being written into the file meanwhile; the
//! 50 ms promise depends on writes, not on syncs. After a successful sync the same thread adds the
//! outcome ids to the index, for the same reason.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use super::disk::DiskFile;
use super::index::{IndexEntry, OutcomeIndex, Position};
use super::queue::{Queue, SyncReport};

/// One sync to be done.
pub struct SyncRequest {
    /// The file.
    pub file: Arc<DiskFile>,
    /// Outcome ids whose records become durable by it.
    pub entries: Vec<IndexEntry>,
    /// How far the index is complete with them; `None` leaves the index alone.
    pub watermark: Option<Position>,
}

/// Serves requests until the writer has gone.
pub fn run(requests: Receiver<SyncRequest>, queue: Arc<Queue>, index: Arc<OutcomeIndex>) {
    for request in requests {
        let started = Instant::now();
        let result = request.file.sync();
        metrics::histogram!("bellwether_ledger_sync_seconds")
            .record(started.elapsed().as_secs_f64());
        let indexed = match (&result, request.watermark) {
            (Ok(()), Some(watermark)) => match index.commit(&request.entries, watermark) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(%error, "outcome ids could not be indexed; restart the server to rebuild the index");
                    false
                }
            },
            _ => request.entries.is_empty(),
        };
        queue.post_sync(SyncReport {
            result,
            entries: request.entries,
            indexed,
        });
    }
}
