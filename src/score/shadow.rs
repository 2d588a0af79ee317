//! Versions in shadow: run on the rows that were answered, after the answer.
//!
//! A request hands its row over and goes on: nothing of a shadow version can change, delay or fail an
//! answer. One thread of low priority takes the rows one after the other and takes at most a share of one
//! core, all shadow versions together. What it does not keep up with is left out and counted; at most
//! `shadow_queue` rows and [`MAX_WAITING_BYTES`] wait.
//!
//! A shadow version sees what the served one saw: the same stored values and windows, at the same time,
//! with the same overrides. Only entities that it points to and the served version does not are read when
//! its turn comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use uuid::Uuid;

use super::assemble::{Assembled, RowInput, assemble};
use super::choose::{need, predict};
use super::read_related;
use super::related::Related;
use crate::clock;
use crate::config::RolloutConfig;
use crate::features::value::{Value, shorten};
use crate::features::view::View;
use crate::ledger::{Ledger, ShadowScore};
use crate::models::comparison::shadow::Pair;
use crate::models::scoring::Scored;
use crate::models::version::ModelVersion;
use crate::priority;
use crate::store::{OnlineStore, Snapshot};

/// How many bytes of rows may wait.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// How often the thread looks for rows while there is traffic: whoever answers never wakes it.
const LOOK: Duration = Duration::from_millis(2);

/// After so long without a row the thread sleeps until there is one.
const IDLE: Duration = Duration::from_secs(1);

/// The shortest rest that is worth going to sleep for.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// The longest part of a run that is rested for: a version that takes minutes does not keep the others
/// waiting for as long again.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long the end of the server waits for the row at hand.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How many characters of a problem go into the ledger.
const MAX_PROBLEM: usize = 500;

/// A row that was answered, for the shadow versions to run on.
pub struct ShadowJob {
    pub prediction_id: Uuid,
    /// The time of the request.
    pub at_us: i64,
    pub customer_id: String,
    pub view: Arc<View>,
    /// The features, by column, that `related` has what is known for.
    pub at_hand: Vec<bool>,
    pub snapshot: Snapshot,
    pub overrides: Vec<(usize, Value)>,
    pub context: Vec<(usize, Value)>,
    pub related: Related,
    /// What was answered, of each model that has shadow versions.
    pub served: Vec<Served>,
}

/// What one model answered, and its versions in shadow.
pub struct Served {
    pub shadows: Arc<[Arc<ModelVersion>]>,
    pub version: Arc<ModelVersion>,
    pub score: f64,
    pub took: Duration,
}

/// Where rows wait for the thread.
pub struct Shadows {
    sender: SyncSender<ShadowJob>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Taken by the thread.
    receiver: Mutex<Option<Receiver<ShadowJob>>>,
}

impl Default for Shadows {
    fn default() -> Self {
        Shadows::new(RolloutConfig::default().shadow_queue)
    }
}

impl Shadows {
    /// Room for so many rows.
    pub fn new(queue: usize) -> Shadows {
        let (sender, receiver) = sync_channel(queue);
        Shadows {
            sender,
            waiting_bytes: Arc::default(),
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// Takes a row, or leaves it out and counts that when there is no room. Never waits.
    pub fn offer(&self, job: ShadowJob) {
        let bytes = job.bytes();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refused = match waiting + bytes > MAX_WAITING_BYTES {
            true => Some(job),
            false => self.sender.try_send(job).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(job)
                | std::sync::mpsc::TrySendError::Disconnected(job) => job,
            }),
        };
        if let Some(job) = refused {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let versions = job.served.iter().flat_map(|served| served.shadows.iter());
            for version in versions {
                if let Some(comparison) = version.statistics.watched.shadow() {
                    comparison.dropped();
                }
            }
        }
    }

    /// Starts the thread; a second call does nothing. Related entities are read on `runtime`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        &self,
        store: Arc<dyn OnlineStore>,
        ledger: Arc<Ledger>,
        runtime: Handle,
        config: &crate::config::Config,
    ) -> std::io::Result<Option<ShadowThread>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(receiver) = receiver.take() else {
            return Ok(None);
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            receiver,
            waiting_bytes: Arc::clone(&self.waiting_bytes),
            stopping: Arc::clone(&stopping),
            store,
            ledger,
            runtime,
            // The rest of the ledger's room is for predictions.
            most_queued: config.ledger_queue_rows / 4,
            rest_per_work: 1.0 / config.rollout.shadow_cpu_share - 1.0,
        };
        let thread = std::thread::Builder::new().name("shadow".to_owned());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Some(ShadowThread { stopping, thread }))
    }
}

/// The thread that runs shadow versions.
pub struct ShadowThread {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ShadowThread {
    /// Ends it after the row at hand, and leaves it to itself when that takes longer than a second: a
    /// version that does not come back must not keep the server from stopping. Blocks.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        let patience = Instant::now();
        while !self.thread.is_finished() && patience.elapsed() < STOP_PATIENCE {
            std::thread::sleep(LOOK);
        }
        if self.thread.is_finished() {
            // Its result carries nothing: a panic there has been reported by the panic handler.
            let _ = self.thread.join();
        } else {
            tracing::warn!("a shadow version is still running; it is left behind");
        }
    }
}

struct Worker {
    receiver: Receiver<ShadowJob>,
    waiting_bytes: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    store: Arc<dyn OnlineStore>,
    ledger: Arc<Ledger>,
    runtime: Handle,
    /// While more rows wait for the ledger, scores of shadow versions are not recorded.
    most_queued: usize,
    /// How long to rest for a second of work.
    rest_per_work: f64,
}

impl Worker {
    fn run(&self) {
        priority::lower();
        let mut last = Instant::now();
        let mut owed = Duration::ZERO;
        while let Some(job) = self.next(last) {
            let began = Instant::now();
            self.waiting_bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
            self.work(&job);
            drop(job);
            last = Instant::now();
            owed += last.duration_since(began).mul_f64(self.rest_per_work);
            if owed >= SHORTEST_REST {
                self.rest(owed.min(LONGEST_REST));
                owed = owed.saturating_sub(last.elapsed()).min(SHORTEST_REST);
            }
        }
    }

    /// The next row; `None` when the server stops. `last` is when there was one.
    fn next(&self, last: Instant) -> Option<ShadowJob> {
        while !self.stopping.load(Ordering::Relaxed) {
            match self.receiver.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if last.elapsed() < IDLE => std::thread::sleep(LOOK),
                // Whoever brings the first row after a pause wakes the thread, and nobody after that.
                Err(TryRecvError::Empty) => match self.receiver.recv_timeout(IDLE / 4) {
                    Ok(job) => return Some(job),
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {}
                },
            }
        }
        None
    }

    /// Sleeps, but not through the end of the server.
    fn rest(&self, owed: Duration) {
        let began = Instant::now();
        while !self.stopping.load(Ordering::Relaxed) {
            match owed.checked_sub(began.elapsed()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(IDLE / 4)),
                _ => return,
            }
        }
    }

    /// Runs every shadow version on the row, compares and records.
    fn work(&self, job: &ShadowJob) {
        let tried = || {
            job.served
                .iter()
                .flat_map(|served| served.shadows.iter().map(move |shadow| (served, shadow)))
        };
        let shadows = tried().map(|(_, shadow)| shadow);
        let assembled = caught(|| self.assemble(job, shadows));
        for (served, shadow) in tried() {
            let began = Instant::now();
            let told = match &assembled {
                Ok(assembled) => {
                    caught(|| predict(shadow, &job.view, assembled, None).map(|told| told.scored))
                }
                Err(problem) => Err(problem.clone()),
            };
            let took = began.elapsed();
            // Out of shadow meanwhile: of no interest to anybody.
            let Some(comparison) = shadow.statistics.watched.shadow() else {
                continue;
            };
            match &told {
                Ok(scored) => comparison.pair(Pair {
                    score: scored.score,
                    served_score: served.score,
                    micros: took.as_secs_f64() * 1e6,
                    served_micros: served.took.as_secs_f64() * 1e6,
                }),
                Err(problem) => comparison.failure(problem),
            }
            let row = row(job, served, shadow, told, took);
            let has_room = self.ledger.queue_depth() <= self.most_queued;
            if !has_room || self.ledger.append_shadow_score(&row).is_err() {
                comparison.unrecorded();
            }
        }
    }

    /// The features of the row that any of the shadow versions reads. One that does not bind to the view
    /// is passed over: running it says why.
    fn assemble<'a>(
        &self,
        job: &ShadowJob,
        shadows: impl Iterator<Item = &'a Arc<ModelVersion>>,
    ) -> Result<Assembled, String> {
        let mut needed = vec![false; job.view.features().len()];
        for shadow in shadows {
            let _ = need(&mut needed, shadow, &job.view);
        }
        job.view.close_over_inputs(&mut needed);
        let row = RowInput {
            key: &job.customer_id,
            profile: Some(&job.snapshot.profile),
            overrides: &job.overrides,
            context: &job.context,
            windows: &job.snapshot.windows,
        };
        let is_at_hand = needed
            .iter()
            .zip(&job.at_hand)
            .all(|(needed, at_hand)| !needed || *at_hand);
        let read;
        let related = match is_at_hand {
            true => &job.related,
            false => {
                let reading = read_related(&*self.store, &job.view, &row, &needed, job.at_us);
                read = self
                    .runtime
                    .block_on(reading)
                    .map_err(|error| error.to_string())?;
                &read
            }
        };
        assemble(&job.view, &[row], related, &needed).map_err(|error| error.to_string())
    }
}

/// What `work` gives; a panic in it is its failure and not the thread's.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic: Box<dyn Any + Send>| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panicked: {}", said.unwrap_or_default()))
    })
}

fn row(
    job: &ShadowJob,
    served: &Served,
    shadow: &ModelVersion,
    told: Result<Scored, String>,
    took: Duration,
) -> ShadowScore {
    let (scored, problem) = match told {
        Ok(scored) => (Some(scored), None),
        Err(problem) => (None, Some(shorten(&problem, MAX_PROBLEM))),
    };
    ShadowScore {
        prediction_id: job.prediction_id.into_bytes().to_vec().into(),
        at_us: clock::now_us(),
        customer_id: job.customer_id.clone(),
        model: shadow.name.clone(),
        version: shadow.version.clone(),
        digest: shadow.digest.to_vec().into(),
        score: scored.as_ref().map(|scored| scored.score),
        label: scored.and_then(|scored| scored.label),
        problem,
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        served_version: served.version.version.clone(),
        served_score: served.score,
    }
}

impl ShadowJob {
    /// What it takes in memory, about; what others hold as well is counted too.
    fn bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::String(text) => text.len(),
            _ => 0,
        };
        let named = self.overrides.iter().chain(&self.context);
        let stored = self.snapshot.profile.iter();
        let texts: usize = named.map(|(_, value)| text(value)).sum::<usize>()
            + stored.map(|(_, stored)| text(&stored.value)).sum::<usize>()
            + self.snapshot.windows.iter().map(text).sum::<usize>();
        let values = self.overrides.len()
            + self.context.len()
            + self.snapshot.profile.len()
            + self.snapshot.windows.len();
        size_of::<ShadowJob>()
            + self.customer_id.len()
            + self.at_hand.len()
            + texts
            + values * 2 * size_of::<Value>()
            + self.served.len() * size_of::<Served>()
    }
}
