//! One request from its first rows to its last answer, on the threads whose work can wait.
//!
//! Rows are read, scored, recorded and answered piece by piece. Between two pieces others have their turn,
//! the versions and views that are in force are looked at anew, and it is seen whether the server stops.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use metrics::{counter, gauge};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::super::error::ApiError;
use super::super::guard::still_admitted;
use super::answers::{Receiver, Sender, way};
use super::chunks::Chunks;
use super::rows::{BadRow, rows_of};
use super::write::{Outcome, Writer};
use crate::score::bulk::{Asked, Moment, Row};
use crate::serve::App;
use crate::serve::auth::{Caller, Scope};

/// Rows for the ledger that may be ahead of these, so that its room is for those who cannot wait.
const MOST_QUEUED: usize = 4096;

/// How long the ledger may be busy.
const LEDGER_PATIENCE: Duration = Duration::from_secs(30);

/// A request.
pub struct Run {
    pub app: Arc<App>,
    pub asked: Asked,
    pub chunks: Chunks,
    pub writer: Writer,
    /// Rows that were answered or refused.
    pub rows: u64,
    pub place: OwnedSemaphorePermit,
    /// Whose it is.
    pub caller: Caller,
}

/// Rows that were read, and what they were read for.
struct Piece {
    moment: Moment,
    rows: Vec<Result<Row, BadRow>>,
}

/// Counts a request for as long as it runs.
struct InFlight;

impl InFlight {
    fn begin() -> InFlight {
        gauge!("bellwether_score_batch_in_flight").increment(1.0);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!("bellwether_score_batch_in_flight").decrement(1.0);
    }
}

fn count_request(outcome: &'static str) {
    counter!("bellwether_score_batch_requests_total", "outcome" => outcome).increment(1);
}

fn count_rows(outcome: &'static str, rows: usize) {
    counter!("bellwether_score_batch_rows_total", "outcome" => outcome).increment(rows as u64);
}

/// Runs a request to its end. `begin` is told whether its answer begins, once its first rows are there, or
/// else why it does not.
pub async fn run(mut run: Run, begin: oneshot::Sender<Result<Receiver, ApiError>>) {
    let counted = InFlight::begin();
    let config = &run.app.config.score_batch;
    let (sender, receiver) = way(config.answer_bytes, config.stall_timeout);
    let mut end = run.app.score_pool.end();
    let mut next = run.next_in_time(&mut end).await;
    if let Err(problem) = next {
        count_request("refused");
        // What the client still sends is read by whoever answers; the place is free for others meanwhile.
        drop((run.place, run.chunks));
        // Nobody may be there any more to hear it.
        let _ = begin.send(Err(problem));
        return;
    }
    if begin.send(Ok(receiver)).is_err() {
        return count_request("gone");
    }
    loop {
        let (bytes, problem) = match next {
            Ok(Some(piece)) => run.answer(piece).await,
            Ok(None) => {
                let (bytes, problem) = ends(run.writer.end());
                match (sender.send(bytes).await, problem) {
                    (Ok(()), None) => {
                        count_request("done");
                        // A client that has its answer may ask again at once.
                        drop((run.place, counted));
                        sender.finish();
                    }
                    (Ok(()), Some(_)) => count_request("failed"),
                    (Err(_), _) => count_request("gone"),
                }
                return;
            }
            Err(problem) => (Bytes::new(), Some(problem)),
        };
        let sent = tokio::select! {
            sent = sender.send(bytes) => Some(sent),
            () = ended(&mut end) => None,
        };
        let Some(sent) = sent else {
            return run.break_off(sender, stopping()).await;
        };
        if let Err(problem) = sent {
            tracing::info!(rows = run.rows, %problem, "a score batch ended");
            return count_request("gone");
        }
        if let Some(problem) = problem {
            return run.break_off(sender, problem).await;
        }
        // Another request may have waited for this thread.
        tokio::task::yield_now().await;
        next = run.next_in_time(&mut end).await;
    }
}

/// Resolves when requests have to end.
async fn ended(end: &mut watch::Receiver<bool>) {
    // An error says that the server has gone, which is an end, too.
    let _ = end.wait_for(|end| *end).await;
}

fn stopping() -> ApiError {
    ApiError::unavailable(
        "the server is stopping; send the rows that have no answer again",
        5,
    )
}

fn ends(bytes: Result<Vec<u8>, String>) -> (Bytes, Option<ApiError>) {
    match bytes {
        Ok(bytes) => (bytes.into(), None),
        Err(problem) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (Bytes::new(), Some(ApiError::new(status, problem)))
        }
    }
}

impl Run {
    /// The next rows, unless the server stops before they are there.
    async fn next_in_time(
        &mut self,
        end: &mut watch::Receiver<bool>,
    ) -> Result<Option<Piece>, ApiError> {
        tokio::select! {
            biased;
            () = ended(end) => Err(stopping()),
            next = self.next() => next,
        }
    }

    async fn next(&mut self) -> Result<Option<Piece>, ApiError> {
        let Some(chunk) = self.chunks.next().await? else {
            return Ok(None);
        };
        // A body may come for hours: it is scored for as long as its key is in force.
        still_admitted(&self.app, &self.caller, Scope::Score)?;
        let models = self.asked.models.as_deref();
        let moment = self.app.scorer.moment(models).await?;
        let rows = rows_of(&chunk, &moment.view)?;
        Ok(Some(Piece { moment, rows }))
    }

    /// The answers for some rows, and what keeps it from giving more.
    async fn answer(&mut self, piece: Piece) -> (Bytes, Option<ApiError>) {
        let scorer = &self.app.scorer;
        let mut good = Vec::with_capacity(piece.rows.len());
        // Of whom each row is, and what is wrong with it.
        let mut read = Vec::with_capacity(piece.rows.len());
        for row in piece.rows {
            match row {
                Ok(row) => {
                    read.push((Some(row.customer_id.clone()), None));
                    good.push(row);
                }
                Err(bad) => read.push((bad.customer_id, Some(bad.error))),
            }
        }
        let scored = scorer.score_rows(&piece.moment, &self.asked, good).await;
        let mut scored = scored.into_iter();
        let mut outcomes = Vec::with_capacity(read.len());
        let mut problem = None;
        for (customer_id, error) in read {
            let told = match error {
                Some(error) => Err(error),
                None => match scored.next() {
                    Some(Ok(answered)) => {
                        if let Some(record) = &answered.record {
                            let ledger = &scorer.ledger;
                            let recorded = ledger.append_prediction_in_time(
                                record,
                                MOST_QUEUED,
                                LEDGER_PATIENCE,
                            );
                            // What is not recorded is no answer, nor is what comes behind it.
                            if let Err(error) = recorded.await {
                                problem = Some(ApiError::from(error));
                                break;
                            }
                        }
                        Ok(answered.answer)
                    }
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("was not scored".to_owned()),
                },
            };
            outcomes.push(Outcome { customer_id, told });
        }
        let scored = outcomes
            .iter()
            .filter(|outcome| outcome.told.is_ok())
            .count();
        count_rows("scored", scored);
        count_rows("refused", outcomes.len() - scored);
        let first = self.rows + 1;
        self.rows += outcomes.len() as u64;
        let (bytes, unwritten) = ends(self.writer.write(first, outcomes));
        (bytes, problem.or(unwritten))
    }

    /// Says why there are no more answers, where that can be said; else the answer breaks off.
    async fn break_off(self, sender: Sender, problem: ApiError) {
        count_request("failed");
        let is_callers = problem.is_callers();
        let message = problem.into_message();
        tracing::info!(rows = self.rows, error = message, "a score batch broke off");
        let Some(line) = self.writer.break_off(&message) else {
            return;
        };
        sender.last(line.into());
        drop(self.place);
        if is_callers {
            // A client that sends before it listens is let finish, so that it sees the answer.
            self.chunks.discard().await;
        }
        sender.finish();
    }
}
