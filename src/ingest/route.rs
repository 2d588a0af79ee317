//! From changes to the entities that they concern.
//!
//! An event concerns every view whose key columns it carries; an update and a removal name theirs. A
//! change that concerns no view that is declared is passed over: it was refused when it came in, or
//! its view is gone.

use std::sync::Arc;

use crate::features::change::{Change, Event, EventIdentity, KEY_SEPARATOR, What};
use crate::features::view::View;
use crate::features::views::Views;
use crate::features::windows::Contributions;
use crate::store::entity::{Action, Applied};
use crate::store::{Batch, ViewWork, Work};

/// A batch of changes with what is computed of them once for all entities.
pub struct Routed {
    sequence: u64,
    known_at_us: i64,
    changes: Vec<Change>,
    views: Vec<RoutedView>,
}

struct RoutedView {
    view: Arc<View>,
    contributions: Contributions,
    /// The change, its key, and its row in `contributions` when it is an event.
    work: Vec<(usize, String, usize)>,
}

/// Finds the entities of `changes`, which are not numbered yet.
pub fn route(views: &Views, changes: Vec<Change>) -> Routed {
    let mut routed = Vec::new();
    for view in views.all() {
        let mut work = Vec::new();
        let mut events: Vec<&Event> = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            if let Some(key) = entity_of(view, change) {
                work.push((index, key, events.len()));
                if let Some(What::Event(event)) = &change.what {
                    events.push(event);
                }
            }
        }
        if !work.is_empty() {
            routed.push(RoutedView {
                view: Arc::clone(view),
                contributions: view.windows().read_events(events.into_iter()),
                work,
            });
        }
    }
    Routed {
        sequence: 0,
        known_at_us: 0,
        changes,
        views: routed,
    }
}

/// The key of the entity of `view` that `change` concerns, if it concerns one.
pub fn entity_of(view: &View, change: &Change) -> Option<String> {
    match &change.what {
        Some(What::Event(event)) => key_of(view, event),
        Some(What::Update(update)) if update.view == view.name => Some(update.key.clone()),
        Some(What::Removal(removal)) if removal.view == view.name => Some(removal.key.clone()),
        _ => None,
    }
}

/// The key of the entity of `view` that `event` happened to, when it carries all its columns.
pub fn key_of(view: &View, event: &Event) -> Option<String> {
    let mut columns = view.key_columns().iter();
    let mut key = event.key(columns.next()?)?.to_owned();
    for column in columns {
        key.push(KEY_SEPARATOR);
        key.push_str(event.key(column)?);
    }
    Some(key)
}

impl Routed {
    /// Numbers the changes from `sequence` on, learned at `known_at_us`.
    pub fn number(&mut self, sequence: u64, known_at_us: i64) {
        self.sequence = sequence;
        self.known_at_us = known_at_us;
    }

    /// The same changes with the same numbers, under other views.
    pub fn again(self, views: &Views) -> Routed {
        let mut routed = route(views, self.changes);
        routed.number(self.sequence, self.known_at_us);
        routed
    }

    /// What a store applies; the batch is in `segment` of the log.
    pub fn as_batch(&self, segment: u64) -> Batch<'_> {
        let views = self.views.iter().map(|routed| {
            let work = routed.work.iter().filter_map(|(change, key, row)| {
                let action = match self.changes.get(*change)?.what.as_ref()? {
                    What::Event(event) => Action::Event {
                        identity: EventIdentity::new(&routed.view.name, key, &event.event_id),
                        contributions: &routed.contributions,
                        row: *row,
                    },
                    What::Update(update) => Action::Update(update),
                    What::Removal(_) => Action::Remove,
                };
                Some(Work {
                    change: *change,
                    key: key.clone(),
                    action,
                })
            });
            ViewWork {
                view: Arc::clone(&routed.view),
                work: work.collect(),
            }
        });
        Batch {
            sequence: self.sequence,
            changes: self.changes.len(),
            segment,
            known_at_us: self.known_at_us,
            views: views.collect(),
        }
    }

    /// What became of each change: of one that concerns several entities, the first thing that is not
    /// [`Applied::Done`].
    pub fn per_change(&self, applied: &[Vec<Applied>]) -> Vec<Applied> {
        let mut outcome = vec![Applied::Done; self.changes.len()];
        for (routed, applied) in self.views.iter().zip(applied) {
            for ((change, _, _), applied) in routed.work.iter().zip(applied) {
                if outcome[*change] == Applied::Done {
                    outcome[*change] = applied.clone();
                }
            }
        }
        outcome
    }
}
