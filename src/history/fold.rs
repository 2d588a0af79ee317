//! One entity's past, change by change, as the online store saw it.
//!
//! The store folds the changes of the log into entities; this folds the same changes of one entity
//! with the same function, and knows of duplicates what the store knows. So whatever order the plan
//! brings them in, the values are those that were served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::features::change::{EventIdentity, REMEMBERED_US};
use crate::features::view::View;
use crate::store::Snapshot;
use crate::store::entity::{Action, Applied, Entity};

/// The state of one entity after the changes so far.
#[derive(Debug, Default)]
pub struct EntityPast {
    /// None before the first change and after a removal.
    entity: Option<Entity>,
    /// The events of the last 24 hours with when they were learned, and in that order.
    seen: HashMap<EventIdentity, i64>,
    order: VecDeque<(i64, EventIdentity)>,
}

impl EntityPast {
    /// Applies the next change, as change number `sequence`, known at `known_at_us`.
    pub fn apply(
        &mut self,
        view: &View,
        action: &Action<'_>,
        sequence: u64,
        known_at_us: i64,
    ) -> Applied {
        match action {
            Action::Event { identity, .. } if self.is_duplicate(*identity, known_at_us) => {
                return Applied::Duplicate;
            }
            Action::Remove => {
                return match self.entity.take() {
                    Some(_) => Applied::Done,
                    None => Applied::Absent,
                };
            }
            _ => {}
        }
        let entity = self.entity.get_or_insert_default();
        let applied = entity.fold(view, action, sequence, known_at_us);
        if let (Action::Event { identity, .. }, Applied::Done) = (action, &applied) {
            self.seen.insert(*identity, known_at_us);
            self.order.push_back((known_at_us, *identity));
        }
        applied
    }

    /// What a reader saw at `at_us`; `None` when nothing was known of the entity.
    pub fn snapshot(&self, view: &Arc<View>, at_us: i64) -> Option<Snapshot> {
        let entity = self.entity.as_ref()?;
        Some(entity.snapshot(view, at_us))
    }

    /// The tiles of the entity's windows as bytes; `None` when nothing is known of it.
    pub fn windows(&self, view: &View) -> Option<Vec<u8>> {
        let entity = self.entity.as_ref()?;
        let mut bytes = Vec::new();
        view.windows().encode(&entity.windows, &mut bytes);
        Some(bytes)
    }

    /// Whether the event was applied in the last 24 hours. One that was refused may come again.
    fn is_duplicate(&mut self, identity: EventIdentity, known_at_us: i64) -> bool {
        while let Some(&(known, oldest)) = self.order.front() {
            if known_at_us.saturating_sub(known) < REMEMBERED_US {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&oldest);
        }
        self.seen.contains_key(&identity)
    }
}
