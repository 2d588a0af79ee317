//! Where requests with many customers run: threads of their own, of the lowest priority.
//!
//! Whoever asks for one customer goes before them, on a machine with nothing to spare as well. They are
//! few at once, and when the server stops they are told to end a little before their connections are
//! cut off.

use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::ScoreBatchConfig;
use crate::priority;

/// How long before their connections are cut off requests are ended, and the share of the time to stop
/// that this is at most.
const END_BEFORE: Duration = Duration::from_secs(2);
const END_SHARE: u32 = 4;

/// The threads, and the places on them.
pub struct ScorePool {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    places: Arc<Semaphore>,
    end: Arc<watch::Sender<bool>>,
}

impl ScorePool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When there are none to be had.
    pub fn start(config: &ScoreBatchConfig) -> std::io::Result<ScorePool> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads_of(cores))
            .thread_name("score-batch")
            .on_thread_start(priority::lowest)
            .enable_time()
            .build()?;
        Ok(ScorePool {
            runtime: Some(runtime),
            places: Arc::new(Semaphore::new(config.max_requests)),
            end: Arc::new(watch::Sender::new(false)),
        })
    }

    /// A place for a request; none when all are taken.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Runs `work` on the threads.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }

    /// True once requests have to end.
    pub fn end(&self) -> watch::Receiver<bool> {
        self.end.subscribe()
    }

    /// Has requests end in time for connections that are cut off after `at_most`.
    pub fn end_within(&self, at_most: Duration) {
        let patience = at_most - END_BEFORE.min(at_most / END_SHARE);
        let end = Arc::clone(&self.end);
        self.spawn(async move {
            tokio::time::sleep(patience).await;
            end.send_replace(true);
        });
    }
}

impl Drop for ScorePool {
    fn drop(&mut self) {
        // Nothing waits for them: what they have answered has been recorded.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_bounded_and_work_is_told_to_end() {
        let config = ScoreBatchConfig {
            max_requests: 1,
            ..ScoreBatchConfig::default()
        };
        let pool = ScorePool::start(&config).unwrap();
        let place = pool.place().unwrap();
        assert!(pool.place().is_none());
        drop(place);
        assert!(pool.place().is_some());
        let mut end = pool.end();
        assert!(!*end.borrow());
        pool.end_within(Duration::from_millis(1));
        assert!(end.wait_for(|end| *end).await.is_ok());
    }
}
