//! The thread that loads models while the server serves.
//!
//! One thread, so that loads happen one after the other, of a lower priority than those that serve, so
//! that a load takes what they leave. What it replaces it also frees: memory goes back to the thread that
//! took it, which is the quickest way for it to go back to the system.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::memory;
use crate::models::version::ModelVersion;
use crate::priority;

/// How often it looks whether requests have let go of what was replaced.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

type Job = Box<dyn FnOnce() + Send>;

/// The thread, started with the first thing to do, and what it is to free.
pub struct Loader {
    jobs: OnceLock<Option<Mutex<Sender<Job>>>>,
    /// One place: those who wait do so without holding a thread, however many they are.
    turns: Arc<Semaphore>,
    leaving: Arc<Mutex<Vec<Arc<ModelVersion>>>>,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader {
            jobs: OnceLock::new(),
            turns: Arc::new(Semaphore::new(1)),
            leaving: Arc::default(),
        }
    }
}

impl Loader {
    /// Does `work` on the thread, when what was asked before is done. It is done also when the caller
    /// goes away.
    ///
    /// # Errors
    /// When there is no thread, or the work was not finished, which is a defect.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = work();
            drop(turn);
            // Whoever asked may have gone.
            let _ = answer.send(done);
        });
        self.send(job)?;
        answered.await.map_err(|_| not_finished())
    }

    /// As [`Loader::run`]; blocks. Not to be called on the thread itself.
    ///
    /// # Errors
    /// As [`Loader::run`].
    pub fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let (answer, answered) = channel();
        self.send(Box::new(move || {
            let _ = answer.send(work());
        }))?;
        answered.recv().map_err(|_| not_finished())
    }

    /// Has `work` done at some time.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn post(&self, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
        self.send(Box::new(work))
    }

    fn send(&self, job: Job) -> Result<(), String> {
        let no_thread = || "there is no thread that loads models".to_owned();
        let jobs = self.jobs.get_or_init(|| start(Arc::clone(&self.leaving)));
        let jobs = jobs.as_ref().ok_or_else(no_thread)?;
        let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.send(job).map_err(|_| no_thread())
    }

    /// Has the thread free a version when nobody uses it any more.
    pub fn leaves(&self, version: Arc<ModelVersion>) {
        // Without a thread whoever lets go last frees it.
        if self.jobs.get().is_some_and(Option::is_some) {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.push(version);
        }
    }
}

fn not_finished() -> String {
    "it was not finished, for a reason that the log has".to_owned()
}

fn start(leaving: Arc<Mutex<Vec<Arc<ModelVersion>>>>) -> Option<Mutex<Sender<Job>>> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("load-models".to_owned());
    match thread.spawn(move || work_off(&receiver, &leaving)) {
        Ok(_) => Some(Mutex::new(sender)),
        Err(error) => {
            tracing::error!(error = %error, "no thread to load models");
            None
        }
    }
}

/// Does what comes until the repository is gone.
fn work_off(jobs: &Receiver<Job>, leaving: &Mutex<Vec<Arc<ModelVersion>>>) {
    priority::lower();
    loop {
        let is_draining = free(leaving);
        let job = if is_draining {
            jobs.recv_timeout(DRAIN_INTERVAL)
        } else {
            jobs.recv().map_err(RecvTimeoutError::from)
        };
        match job {
            Ok(job) => {
                // A defect in one load is not to end all later ones. The panic hook has logged it.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Frees what nobody else holds any more; whether something is left.
fn free(leaving: &Mutex<Vec<Arc<ModelVersion>>>) -> bool {
    let mut leaving = leaving.lock().unwrap_or_else(PoisonError::into_inner);
    // Nobody can find it any more, so that who has let go does not come back.
    let (unused, used): (Vec<_>, Vec<_>) = leaving
        .drain(..)
        .partition(|version| Arc::strong_count(version) == 1);
    *leaving = used;
    let is_draining = !leaving.is_empty();
    drop(leaving);
    let is_tidy = unused.is_empty();
    for version in unused {
        let (model, version_text) = (version.name.clone(), version.version.clone());
        drop(version);
        tracing::debug!(model, version = version_text, "freed");
    }
    if !is_tidy {
        // What the load in its place left behind as well.
        memory::give_back();
    }
    is_draining
}
