//! Inference on tensors, as the Open Inference Protocol understands it, without a wire format: find
//! a model, check its inputs, run it.
//!
//! HTTP and gRPC read their own form of a request and call the same three functions, in this order:
//! [`Inference::find`], [`Inference::schedule`] around everything that takes time, and inside it
//! [`Inference::run`]. So a refusal has the same words and a request the same rights, whichever way
//! it came.
//!
//! * [`inputs`] – tensors by name, checked against the graph.
//! * [`columns`], [`cells`] – the columns of tables as inputs, and their values as elements.
//! * [`content`] – what MLServer's clients say of tensors besides their type.
//! * [`raw`] – bytes alone as a model's only input.
//! * [`error`] – refusals, in kinds that protocols have codes for.
//!
//! Inputs and outputs are those of the ONNX graph; features and calibration are not involved.

pub mod cells;
pub mod columns;
pub mod content;
pub mod error;
pub mod inputs;
pub mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onnx_ml::{RunError, Tensor};
use uuid::Uuid;

use crate::admission::{Admission, Priority, Turned, deadline};
use crate::clock;
use crate::config::Config;
use crate::features::value::shorten;
use crate::ledger::{InferenceRow, Ledger};
use crate::models::repository::Repository;
use crate::models::version::ModelVersion;
use error::{InferError, Kind};

/// Requests of more bytes than this leave the connection's thread.
const MAX_INLINE_BYTES: usize = 16 * 1024;

/// Models that take longer than this for a small request leave the connection's thread.
const MAX_INLINE_TIME: Duration = Duration::from_micros(500);

/// What a caller asked for besides tensors.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the request had arrived.
    pub arrived: Instant,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    pub priority: Priority,
}

impl Call {
    /// A call that arrives now, waits for as long as it takes, and is waited for.
    pub fn now() -> Call {
        Call {
            arrived: Instant::now(),
            deadline: None,
            priority: Priority::Online,
        }
    }

    /// Takes note of what the request says of its deadline inside.
    pub fn hurry(&mut self, timeout: Option<Duration>) {
        self.deadline = self.earliest(timeout);
    }

    fn earliest(&self, timeout: Option<Duration>) -> Option<Instant> {
        let inner = timeout.map(|timeout| self.arrived + timeout);
        self.deadline.into_iter().chain(inner).min()
    }

    /// Refuses to begin work whose deadline has passed; `timeout` is what the request said of it
    /// inside.
    ///
    /// # Errors
    /// The deadline has passed.
    pub fn check_deadline(&self, timeout: Option<Duration>) -> Result<(), InferError> {
        match deadline::has_passed(self.earliest(timeout)) {
            true => Err(Turned::Expired.into()),
            false => Ok(()),
        }
    }
}

/// Runs models on tensors.
pub struct Inference {
    repository: Arc<Repository>,
    admission: Admission,
    ledger: Arc<Ledger>,
    /// The most rows in one request.
    pub max_rows: usize,
    /// Tensors of requests that have more than this, in bytes, are recorded by their shapes.
    max_logged_tensor_bytes: usize,
}

/// What a model said, and under which id that is recorded.
#[derive(Debug)]
pub struct Ran {
    pub prediction_id: Uuid,
    /// In the order of the graph.
    pub outputs: Vec<Tensor>,
}

/// A request whose turn it is, and where its time went.
#[derive(Debug)]
pub struct Turn {
    began: Instant,
    queued: Duration,
    rows: u64,
    input: Duration,
    infer: Duration,
}

impl Turn {
    /// It is the call's turn now.
    pub fn begin(call: &Call) -> Turn {
        let began = Instant::now();
        Turn {
            began,
            queued: began.saturating_duration_since(call.arrived),
            rows: 0,
            input: Duration::ZERO,
            infer: Duration::ZERO,
        }
    }
}

impl Inference {
    pub fn new(
        repository: Arc<Repository>,
        admission: Admission,
        ledger: Arc<Ledger>,
        config: &Config,
    ) -> Inference {
        Inference {
            repository,
            admission,
            ledger,
            max_rows: config.max_rows,
            max_logged_tensor_bytes: config.max_logged_tensor_bytes,
        }
    }

    /// The version of a model that is asked for: its champion when `version` is `None`.
    ///
    /// # Errors
    /// There is none, or it is not ready.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<ModelVersion>, InferError> {
        Ok(self.repository.find(name, version)?)
    }

    /// Whether [`Inference::schedule`] does such a request here and now.
    pub fn runs_at_once(&self, model: &ModelVersion, request_bytes: usize) -> bool {
        request_bytes <= MAX_INLINE_BYTES && model.pace.is_quick()
    }

    /// Does `work` where it belongs: here and now when the request is small, so that nothing is
    /// handed over; otherwise on a thread of its own once there is a place, so that it does not hold
    /// up the small requests of this thread. Counts the request in the model's statistics.
    ///
    /// # Errors
    /// Those of `work`, and the refusals of a server that has too much to do.
    pub async fn schedule<T, W>(
        self: &Arc<Self>,
        model: &Arc<ModelVersion>,
        request_bytes: usize,
        call: &Call,
        work: W,
    ) -> Result<T, InferError>
    where
        T: Send + 'static,
        W: FnOnce(&Inference, &ModelVersion, &mut Turn) -> Result<T, InferError> + Send + 'static,
    {
        let small = request_bytes <= MAX_INLINE_BYTES;
        if self.runs_at_once(model, request_bytes) {
            let _in_flight = self.admission.enter_in_turn(call.priority).await?;
            call.check_deadline(None)?;
            return self.take_turn(model, call, small, work);
        }
        let permit = self.admission.admit(call.priority, call.deadline).await?;
        let (inference, model, call) = (Arc::clone(self), Arc::clone(model), call.clone());
        let done = tokio::task::spawn_blocking(move || {
            // The place is taken until the work is over, also when the caller has gone.
            let _permit = permit;
            inference.take_turn(&model, &call, small, work)
        });
        done.await
            .map_err(|error| InferError::internal(error.to_string()))?
    }

    /// Does the work and counts it.
    fn take_turn<T>(
        &self,
        model: &ModelVersion,
        call: &Call,
        small: bool,
        work: impl FnOnce(&Inference, &ModelVersion, &mut Turn) -> Result<T, InferError>,
    ) -> Result<T, InferError> {
        let mut turn = Turn::begin(call);
        let done = work(self, model, &mut turn);
        let total = turn.began.elapsed();
        let Turn {
            queued,
            rows,
            input,
            infer,
            ..
        } = turn;
        match &done {
            Ok(_) => {
                let output = total.saturating_sub(input + infer);
                model.statistics.success(rows, queued, input, infer, output);
                if small {
                    model.pace.note(infer);
                }
            }
            Err(_) => model.statistics.failure(queued + total),
        }
        done
    }

    /// Runs a model and records what it was given and what it said; `request_id` is the caller's own.
    ///
    /// # Errors
    /// What the graph made of the inputs, or that it cannot be recorded now: what is not recorded is
    /// not answered.
    pub fn run(
        &self,
        model: &ModelVersion,
        inputs: Vec<Tensor>,
        request_id: Option<&str>,
        turn: &mut Turn,
    ) -> Result<Ran, InferError> {
        let rows = inputs.first().and_then(|tensor| tensor.shape().first());
        turn.rows = rows.map_or(1, |rows| *rows as u64);
        let now_us = clock::now_us();
        let prediction_id = clock::new_id_at(now_us);
        let mut row = InferenceRow::begin(
            &model.ledger_template,
            prediction_id,
            now_us,
            request_id,
            turn.rows,
            self.max_logged_tensor_bytes,
        );
        for (info, tensor) in model.graph.inputs().iter().zip(&inputs) {
            row.input(&info.name, tensor);
        }
        let read = Instant::now();
        turn.input = read - turn.began;
        let outputs = model
            .graph
            .run(inputs)
            .map_err(|error| refusal(model, &error))?;
        turn.infer = read.elapsed();
        for (info, tensor) in model.graph.outputs().iter().zip(&outputs) {
            row.output(&info.name, tensor);
        }
        self.ledger.append_inference(row.finish()?)?;
        Ok(Ran {
            prediction_id,
            outputs,
        })
    }
}

/// What a run that failed means for the caller.
fn refusal(model: &ModelVersion, error: &RunError) -> InferError {
    let message = shorten(&format!("{}: {error}", model.name), 2000);
    let kind = match error {
        RunError::Defect { .. } => Kind::Internal,
        RunError::TooLarge { .. } => Kind::TooLarge,
        _ => Kind::Invalid,
    };
    InferError::new(kind, message)
}

/// How long a model takes for a small request, as seen lately.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds; `u64::MAX` until the first request.
    typical_ns: AtomicU64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            typical_ns: AtomicU64::new(u64::MAX),
        }
    }
}

impl Pace {
    /// Whether it can run on a connection's thread; not before it has been measured elsewhere.
    pub fn is_quick(&self) -> bool {
        self.typical_ns.load(Ordering::Relaxed) <= MAX_INLINE_TIME.as_nanos() as u64
    }

    /// Takes note of one run.
    pub fn note(&self, time: Duration) {
        let new = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let old = self.typical_ns.load(Ordering::Relaxed);
        // Written only when it has changed: a write takes the memory away from all other cores.
        if new / 2 <= old && old / 2 <= new {
            return;
        }
        let typical = match old {
            u64::MAX => new,
            // One slow run says little.
            old => old - old / 4 + new / 4,
        };
        self.typical_ns.store(typical, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_quick_once_it_was_seen_to_be_and_no_longer_when_it_is_slow() {
        let pace = Pace::default();
        assert!(!pace.is_quick());
        pace.note(Duration::from_micros(4));
        assert!(pace.is_quick());
        // A single slow run changes little, lasting slowness does.
        pace.note(Duration::from_micros(600));
        assert!(pace.is_quick());
        for _ in 0..20 {
            pace.note(Duration::from_millis(5));
        }
        assert!(!pace.is_quick());
        for _ in 0..60 {
            pace.note(Duration::from_micros(4));
        }
        assert!(pace.is_quick());
    }
}
