//! Taking events that were read: into the log and the store, and into the metrics.

use super::event::{EventBatch, RefusedEvent};
use super::{Ingest, IngestError};
use crate::clock;
use crate::features::change::{Change, What};
use crate::features::views::Views;
use crate::store::entity::Applied;

/// Where events come from; a label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Http,
    Nats,
    File,
}

impl Origin {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Http => "http",
            Origin::Nats => "nats",
            Origin::File => "file",
        }
    }
}

/// What became of a batch of events.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the log and applied.
    pub accepted: usize,
    /// Known already by their ids; nothing was added.
    pub duplicates: usize,
    /// In the order of the batch.
    pub refused: Vec<RefusedEvent>,
}

/// Takes the events of a batch that are right, and says what became of each.
///
/// # Errors
/// When they are not durable. Some may have been taken; sending them all again is safe.
pub async fn take(
    ingest: &Ingest,
    views: &Views,
    batch: EventBatch,
    origin: Origin,
) -> Result<Taken, IngestError> {
    let mut taken = Taken {
        refused: batch.refused,
        ..Taken::default()
    };
    if !taken.refused.is_empty() {
        count(origin, "none", "refused", taken.refused.len());
    }
    if batch.changes.is_empty() {
        return Ok(taken);
    }
    let notes: Vec<Note> = batch
        .changes
        .iter()
        .map(|change| note(views, change))
        .collect();
    let applied = ingest.submit(batch.changes).await?;
    measure(views, &notes, &applied, origin);
    for ((note, index), applied) in notes.into_iter().zip(batch.indexes).zip(applied) {
        match applied {
            Applied::Done | Applied::Absent => taken.accepted += 1,
            Applied::Duplicate => taken.duplicates += 1,
            Applied::Refused(error) => taken.refused.push(RefusedEvent {
                index,
                line: None,
                event_id: Some(note.event_id),
                error,
            }),
        }
    }
    taken.refused.sort_by_key(|refused| refused.index);
    Ok(taken)
}

/// What is still to be known of an event when it has been handed on.
struct Note {
    event_id: String,
    occurred_at_us: i64,
    /// The views that it reaches, by their place among all; those beyond 64 are not counted.
    reached: u64,
}

fn note(views: &Views, change: &Change) -> Note {
    let Some(What::Event(event)) = &change.what else {
        return Note {
            event_id: String::new(),
            occurred_at_us: i64::MAX,
            reached: 0,
        };
    };
    let mut reached = 0;
    for (place, view) in views.all().iter().enumerate().take(64) {
        let mut columns = view.key_columns().iter();
        let reaches = columns.all(|name| event.key(name).is_some());
        reached |= u64::from(reaches) << place;
    }
    Note {
        event_id: event.event_id.clone(),
        occurred_at_us: event.occurred_at_us,
        reached,
    }
}

fn count(origin: Origin, view: &str, outcome: &'static str, events: usize) {
    let labels = [
        ("source", metrics::SharedString::const_str(origin.name())),
        ("view", metrics::SharedString::from(view.to_owned())),
        ("outcome", metrics::SharedString::const_str(outcome)),
    ];
    metrics::counter!("bellwether_events_total", &labels).increment(events as u64);
}

/// Counts events for each view that they reach, and how late those were that are new.
fn measure(views: &Views, notes: &[Note], applied: &[Applied], origin: Origin) {
    for (place, view) in views.all().iter().enumerate().take(64) {
        let (mut accepted, mut duplicates, mut refused) = (0, 0, 0);
        for (note, applied) in notes.iter().zip(applied) {
            if note.reached >> place & 1 == 0 {
                continue;
            }
            match applied {
                Applied::Done | Applied::Absent => accepted += 1,
                Applied::Duplicate => duplicates += 1,
                Applied::Refused(_) => refused += 1,
            }
        }
        let outcomes = [
            ("accepted", accepted),
            ("duplicate", duplicates),
            ("refused", refused),
        ];
        for (outcome, events) in outcomes {
            if events > 0 {
                count(origin, &view.name, outcome, events);
            }
        }
    }
    let lateness =
        metrics::histogram!("bellwether_event_lateness_seconds", "source" => origin.name());
    let now_us = clock::now_us();
    for (note, applied) in notes.iter().zip(applied) {
        if *applied == Applied::Done {
            let late_us = now_us.saturating_sub(note.occurred_at_us).max(0);
            lateness.record(late_us as f64 / 1e6);
        }
    }
}
