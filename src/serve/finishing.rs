//! Work that is finished and recorded also when the caller who began it goes away.
//!
//! It runs beside the connections, and the server waits for it when it stops.

use std::future::Future;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The work under way.
#[derive(Default)]
pub struct Finishing {
    tasks: Mutex<JoinSet<()>>,
    /// Where it runs: a connection's thread may end before it.
    runtime: OnceLock<Handle>,
}

/// The work ended without a result: it panicked, or the server stopped.
#[derive(Debug, thiserror::Error)]
#[error("the server could not finish what was asked for")]
pub struct Unfinished;

impl Finishing {
    /// Says where the work runs from now on.
    pub fn run_on(&self, runtime: Handle) {
        // Only the first counts: there is one runtime.
        let _ = self.runtime.set(runtime);
    }

    /// Begins `work` and waits for its result. Work whose caller goes away goes on.
    ///
    /// # Errors
    /// When it ends without a result.
    pub async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unfinished> {
        let (reply, result) = oneshot::channel();
        let task = async move {
            // Nobody may be there any more to hear it.
            let _ = reply.send(work.await);
        };
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            match self.runtime.get() {
                Some(runtime) => tasks.spawn_on(task, runtime),
                None => tasks.spawn(task),
            };
        }
        result.await.map_err(|_| Unfinished)
    }

    /// Waits for what is under way until then at most; returns how much had to be given up.
    pub async fn wait(&self, until: Instant) -> usize {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        match tokio::time::timeout_at(until.into(), all).await {
            Ok(()) => 0,
            Err(_) => {
                let given_up = tasks.len();
                tasks.shutdown().await;
                given_up
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_without_its_caller_and_is_waited_for() {
        let finishing = Finishing::default();
        let done = Arc::new(AtomicBool::new(false));
        let (go, gone) = oneshot::channel::<()>();
        let work = {
            let done = Arc::clone(&done);
            async move {
                let _ = gone.await;
                done.store(true, Ordering::Relaxed);
            }
        };
        // The caller asks once and goes away.
        {
            let mut asked = Box::pin(finishing.finish(work));
            assert!(futures_util::poll!(&mut asked).is_pending());
        }
        go.send(()).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        assert_eq!(finishing.wait(until).await, 0);
        assert!(done.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_result_comes_back_and_a_panic_is_an_error() {
        let finishing = Finishing::default();
        assert_eq!(finishing.finish(async { 7 }).await.unwrap(), 7);
        let failed = finishing.finish(async { assert!(finishing_fails(), "as planned") });
        assert!(failed.await.is_err());
        let stuck = finishing.finish(std::future::pending::<()>());
        assert!(futures_util::poll!(Box::pin(stuck)).is_pending());
        assert_eq!(finishing.wait(Instant::now()).await, 1);
    }

    /// The stop has one deadline for connections and for this: what they used up is not given again.
    #[tokio::test]
    async fn after_the_deadline_only_what_is_ready_is_finished() {
        let finishing = Finishing::default();
        let ready = finishing.finish(std::future::ready(()));
        let stuck = finishing.finish(std::future::pending::<()>());
        assert!(futures_util::poll!(Box::pin(ready)).is_pending());
        assert!(futures_util::poll!(Box::pin(stuck)).is_pending());
        // Given that what is ready has ended by itself
        tokio::task::yield_now().await;
        let passed = Instant::now() - Duration::from_secs(1);
        assert_eq!(finishing.wait(passed).await, 1);
    }

    fn finishing_fails() -> bool {
        false
    }
}
