//! From a source's messages to changes in the store: read, submit, bury, acknowledge.
//!
//! What is promised is said in [`super::source`]. One task for each source; the next batch is fetched
//! while the last one is applied, so that at most two batches are in memory. When told to stop it
//! finishes what was delivered and acknowledges it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use tokio::sync::watch;

use super::dead_letters::DeadLetters;
use super::event::EventBatch;
use super::message::{self, Format};
use super::source::{Message, Source, SourceError};
use super::take::{Origin, take};
use super::{Ingest, IngestError};
use crate::clock;
use crate::config::EventsConfig;
use crate::features::change::Change;
use crate::ledger::AppendError;

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often the broker is asked for the lag.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How long the store is given to catch up before changes are submitted again.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A source with everything its messages need.
pub struct Runner {
    /// The name under which it is configured: in the log, in metrics, of its dead-letter file.
    pub name: String,
    pub source: Box<dyn Source>,
    pub format: Format,
    pub origin: Origin,
    pub events: EventsConfig,
    pub ingest: Arc<Ingest>,
    pub dead_letters: Arc<DeadLetters>,
    /// True when it is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Events with the message that each came in.
#[derive(Default)]
struct Part {
    changes: Vec<Change>,
    owners: Vec<usize>,
}

/// What became of the messages, counted.
struct Meters {
    connected: Gauge,
    lag: Gauge,
    received: Counter,
    redelivered: Counter,
    acknowledged: Counter,
    dead_letters: Counter,
}

impl Meters {
    fn new(source: &str) -> Meters {
        let counter = |name: &'static str| metrics::counter!(name, "source" => source.to_owned());
        let gauge = |name: &'static str| metrics::gauge!(name, "source" => source.to_owned());
        Meters {
            connected: gauge("bellwether_source_connected"),
            lag: gauge("bellwether_source_lag_messages"),
            received: counter("bellwether_source_received_total"),
            redelivered: counter("bellwether_source_redelivered_total"),
            acknowledged: counter("bellwether_source_acknowledged_total"),
            dead_letters: counter("bellwether_source_dead_letters_total"),
        }
    }
}

impl Runner {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let meters = Meters::new(&self.name);
        meters.connected.set(0.0);
        let mut pauses = Pauses::default();
        let mut said = String::new();
        while !self.is_stopping() {
            let connected = tokio::select! {
                connected = self.source.connect() => connected,
                () = stopping(self.stop.clone()) => break,
            };
            let ended = match connected {
                Ok(()) => {
                    tracing::info!(source = self.name, "source connected");
                    said.clear();
                    meters.connected.set(1.0);
                    let ended = self.consume(&meters, &mut pauses).await;
                    meters.connected.set(0.0);
                    ended
                }
                Err(error) => Err(error),
            };
            let Err(error) = ended else { break };
            // Once for each reason, not once for each try.
            let reason = error.to_string();
            if reason != said {
                tracing::warn!(
                    source = self.name,
                    reason,
                    "source unavailable; trying again"
                );
                said = reason;
            }
            self.pause(pauses.next()).await;
        }
        tracing::info!(source = self.name, "source stopped");
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits, but not longer than until it is to stop.
    async fn pause(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, stopping(self.stop.clone())).await;
    }

    /// Processes batch after batch until it is to stop.
    async fn consume(&self, meters: &Meters, pauses: &mut Pauses) -> Result<(), SourceError> {
        let mut asked = Instant::now();
        meters.lag.set(self.source.lag().await? as f64);
        let mut batch = self.source.fetch().await?;
        while !self.is_stopping() {
            let process = self.process(&batch, meters);
            let (processed, next) = tokio::join!(process, self.source.fetch());
            processed?;
            batch = next?;
            *pauses = Pauses::default();
            if asked.elapsed() >= LAG_INTERVAL {
                meters.lag.set(self.source.lag().await? as f64);
                asked = Instant::now();
            }
        }
        // What was delivered already would come again only when the broker loses patience.
        self.process(&batch, meters).await
    }

    /// Applies what the messages say, buries those that cannot be applied, acknowledges all.
    async fn process(&self, batch: &[Message], meters: &Meters) -> Result<(), SourceError> {
        if batch.is_empty() {
            return Ok(());
        }
        meters.received.increment(batch.len() as u64);
        let redelivered = batch.iter().filter(|message| message.redelivered).count();
        meters.redelivered.increment(redelivered as u64);

        let mut events = Part::default();
        let mut poison: BTreeMap<usize, String> = BTreeMap::new();
        let (views, now_us) = (self.ingest.views(), clock::now_us());
        for (index, message) in batch.iter().enumerate() {
            let contents = message::read(message, self.format, &views, &self.events, now_us);
            events.owners.extend(contents.changes.iter().map(|_| index));
            events.changes.extend(contents.changes);
            if let Some(problem) = contents.problem {
                poison.insert(index, problem);
            }
        }
        let Some(refused) = self.submit(events).await else {
            return Ok(()); // not acknowledged: the next server gets them
        };
        for (message, reason) in refused {
            poison.entry(message).or_insert(reason);
        }
        if !self.bury(batch, &poison).await {
            return Ok(());
        }
        meters.dead_letters.increment(poison.len() as u64);
        self.source.acknowledge(batch).await?;
        meters.acknowledged.increment(batch.len() as u64);
        Ok(())
    }

    /// Submits until it succeeds, and says which messages have events that are refused, with the reason;
    /// `None` when it is to stop before. Events that do not fit into one record of the log are halved;
    /// one alone that does not is refused.
    async fn submit(&self, events: Part) -> Option<Vec<(usize, String)>> {
        let mut refused = Vec::new();
        // What is still to be submitted, the next part last.
        let mut open = vec![events];
        while let Some(mut part) = open.pop() {
            match self.submit_part(&part).await? {
                Ok(more) => refused.extend(more),
                Err(too_large) if part.changes.len() <= 1 => {
                    refused.extend(part.owners.iter().map(|owner| (*owner, too_large.clone())));
                }
                Err(_) => {
                    let half = part.changes.len() / 2;
                    let rest = Part {
                        changes: part.changes.split_off(half),
                        owners: part.owners.split_off(half),
                    };
                    open.extend([rest, part]);
                }
            }
        }
        Some(refused)
    }

    /// Submits until it succeeds or is found too large, the inner error; `None` when it is to stop.
    async fn submit_part(&self, part: &Part) -> Option<Result<Vec<(usize, String)>, String>> {
        let mut pauses = Pauses::default();
        loop {
            let batch = EventBatch {
                changes: part.changes.clone(),
                indexes: part.owners.clone(),
                refused: Vec::new(),
            };
            let views = self.ingest.views();
            match take(&self.ingest, &views, batch, self.origin).await {
                Ok(taken) => {
                    self.say_recovered(&pauses, "the store takes events again");
                    let refused = taken.refused.into_iter();
                    return Some(Ok(refused
                        .map(|event| (event.index, event.error))
                        .collect()));
                }
                Err(IngestError::Log(error @ AppendError::TooLarge { .. })) => {
                    return Some(Err(error.to_string()));
                }
                Err(error) => {
                    self.say_failed(&pauses, "events cannot be applied", &error);
                    self.wait_for_store().await;
                }
            }
            self.pause(pauses.next()).await;
            if self.is_stopping() {
                return None;
            }
        }
    }

    /// What was submitted may be in the log and wait for the store. Each further try logs it again, so
    /// there is little use in one before the store has caught up.
    async fn wait_for_store(&self) {
        let patience = Instant::now() + CATCH_UP;
        while self.ingest.waiting() > 0 && Instant::now() < patience && !self.is_stopping() {
            self.pause(FIRST_PAUSE).await;
        }
    }

    /// Writes the dead letters until it succeeds; false when it is to stop before.
    async fn bury(&self, batch: &[Message], poison: &BTreeMap<usize, String>) -> bool {
        if poison.is_empty() {
            return true;
        }
        let letters: Vec<(Message, String)> = poison
            .iter()
            .map(|(index, reason)| (batch[*index].clone(), reason.clone()))
            .collect();
        if let Some((_, reason)) = letters.first() {
            let (name, count) = (&self.name, letters.len());
            // The reason names fields and quotes what was found, which may be personal: it is in the file.
            tracing::debug!(source = name, count, reason, "dead letters");
        }
        let letters = Arc::new(letters);
        let mut pauses = Pauses::default();
        loop {
            let (files, letters) = (Arc::clone(&self.dead_letters), Arc::clone(&letters));
            let written = tokio::task::spawn_blocking(move || {
                let letters: Vec<(&Message, &str)> = letters
                    .iter()
                    .map(|(message, reason)| (message, reason.as_str()))
                    .collect();
                files.append(&letters)
            });
            match written.await.unwrap_or_else(|error| Err(error.into())) {
                Ok(()) => {
                    self.say_recovered(&pauses, "dead letters are written again");
                    return true;
                }
                Err(error) => self.say_failed(&pauses, "dead letters cannot be written", &error),
            }
            self.pause(pauses.next()).await;
            if self.is_stopping() {
                return false;
            }
        }
    }

    fn say_failed(&self, pauses: &Pauses, what: &str, error: &dyn std::error::Error) {
        if pauses.is_new() {
            let reason = error.to_string();
            tracing::error!(source = self.name, reason, "{what}; trying again");
        }
    }

    fn say_recovered(&self, pauses: &Pauses, what: &str) {
        if !pauses.is_new() {
            tracing::info!(source = self.name, "{what}");
        }
    }
}

/// Resolves when it is to stop, or whoever could say so is gone.
async fn stopping(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Pauses between tries: each twice as long as the last, up to a bound, and not the same for every
/// server that lost the same broker.
#[derive(Default)]
struct Pauses {
    taken: u32,
}

impl Pauses {
    fn is_new(&self) -> bool {
        self.taken == 0
    }

    fn next(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.taken.min(10));
        self.taken += 1;
        pause
            .min(LONGEST_PAUSE)
            .mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
