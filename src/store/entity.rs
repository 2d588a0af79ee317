//! One entity of one view in the online store, and the only code that applies a change to it.
//!
//! An [`Entity`] is what is kept of, say, one customer: the profile as it was last written, the tiles
//! of its windows, and the number of the last change that went into it. Every store keeps it as the
//! same bytes. The offline simulation of history folds the same changes with the same function.

use std::sync::Arc;

use super::memory::allocated;
use super::packed::{Datum, Entry, Packed};
use super::row::Row;
use super::{Snapshot, StoreError};
use crate::features::change::{EventIdentity, NamedValue, ProfileUpdate, Scalar};
use crate::features::value::Value;
use crate::features::view::View;
use crate::features::windows::{Contributions, TooManyPending, WindowState};

/// What the store knows of one entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// The stored features, packed under the view that it is decoded or folded under.
    features: Packed,
    pub windows: WindowState,
    /// The number of the last change that was applied.
    pub applied: u64,
}

/// What a change does to one entity of one view.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// An event: its identity, and where its contributions are.
    Event {
        identity: EventIdentity,
        contributions: &'a Contributions,
        row: usize,
    },
    Update(&'a ProfileUpdate),
    Remove,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// An event with this identity was applied in the last 24 hours.
    Duplicate,
    /// There was nothing to remove.
    Absent,
    /// It cannot be applied; the entity is as it was.
    Refused(String),
}

impl Entity {
    /// Applies `action`, which is no duplicate, as change number `sequence`, known at `known_at_us`.
    /// `Remove` is for the caller: it removes the whole entity.
    pub fn fold(
        &mut self,
        view: &View,
        action: &Action<'_>,
        sequence: u64,
        known_at_us: i64,
    ) -> Applied {
        let applied = match action {
            Action::Event {
                contributions, row, ..
            } => match view
                .windows()
                .apply(&mut self.windows, contributions, *row, known_at_us)
            {
                Ok(()) => Applied::Done,
                Err(problem @ TooManyPending { .. }) => Applied::Refused(problem.to_string()),
            },
            Action::Update(update) => {
                self.update(view, update);
                Applied::Done
            }
            Action::Remove => {
                *self = Entity::default();
                Applied::Done
            }
        };
        self.applied = sequence;
        applied
    }

    /// The values that hold from the latest time on win; at the same time those that came last.
    fn update(&mut self, view: &View, update: &ProfileUpdate) {
        let mut entries: Vec<Entry<'_>> = self.features.entries(view).collect();
        for feature in &update.features {
            let entry = Entry {
                name: &feature.name,
                as_of_us: update.occurred_at_us,
                value: Datum::of(feature.value.as_ref()),
            };
            match entries.binary_search_by(|stored| stored.name.cmp(entry.name)) {
                Ok(found) if entries[found].as_of_us > entry.as_of_us => {}
                Ok(found) => entries[found] = entry,
                Err(place) => entries.insert(place, entry),
            }
        }
        self.features = Packed::pack(view, &entries);
    }

    /// What a reader sees at `at_us`.
    pub fn snapshot(&self, view: &Arc<View>, at_us: i64) -> Snapshot {
        Snapshot {
            profile: self.features.profile(view),
            windows: view.windows().values(&self.windows, at_us),
            applied: self.applied,
        }
    }

    /// The bytes that a store keeps.
    pub fn encode(&self, view: &View) -> Vec<u8> {
        let mut windows = Vec::new();
        view.windows().encode(&self.windows, &mut windows);
        let row = Row {
            features: self.features.entries(view).collect(),
            windows: &windows,
            applied: self.applied,
        };
        row.write()
    }

    /// Reads the bytes that a store kept.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(view: &View, bytes: &[u8]) -> Result<Entity, StoreError> {
        let damaged = |problem: String| StoreError::Damaged {
            view: view.name.clone(),
            problem,
        };
        let row = Row::read(bytes).map_err(damaged)?;
        let windows = view.windows().decode_after(row.windows, row.applied);
        Ok(Entity {
            features: Packed::pack(view, &row.features),
            windows: windows.map_err(damaged)?,
            applied: row.applied,
        })
    }

    /// Bytes it takes beside its own size.
    pub fn heap_bytes(&self) -> usize {
        let windows = self.windows.heap_bytes();
        // Windows count what they use; what the allocator adds is an eighth of it on the average.
        allocated(self.features.len()) + windows + windows / 8
    }
}

/// A value as a change carries it.
pub fn to_scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some(Scalar::Bool(*flag)),
        Value::Int64(integer) => Some(Scalar::Int64(*integer)),
        Value::Float64(float) => Some(Scalar::Float64(*float)),
        Value::String(text) => Some(Scalar::String(text.clone())),
    }
}

/// A change's value as features have it.
pub fn from_scalar(scalar: Option<&Scalar>) -> Value {
    match scalar {
        None => Value::Null,
        Some(Scalar::Bool(flag)) => Value::Bool(*flag),
        Some(Scalar::Int64(integer)) => Value::Int64(*integer),
        Some(Scalar::Float64(float)) => Value::Float64(*float),
        Some(Scalar::String(text)) => Value::String(text.clone()),
    }
}

/// A named value of a change.
pub fn named_value(name: &str, value: &Value) -> NamedValue {
    NamedValue {
        name: name.to_owned(),
        value: to_scalar(value),
    }
}
