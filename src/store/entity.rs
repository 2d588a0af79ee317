//! One entity of one view in the online store, and the only code that applies a change to it.
//!
//! An [`Entity`] is what is kept of, say, one customer: the profile as it was last written, the tiles
//! of its windows, and the number of the last change that went into it. Every store keeps it as the
//! same bytes. The offline simulation of history folds the same changes with the same function.

use std::sync::Arc;

use prost::Message;

use super::{Profile, Snapshot, StoreError, StoredValue};
use crate::features::change::{EventIdentity, NamedValue, ProfileUpdate, Scalar};
use crate::features::value::Value;
use crate::features::view::View;
use crate::features::windows::{Contributions, TooManyPending, WindowState};

/// What the store knows of one entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// Shared with the readers that hold it.
    pub profile: Arc<Profile>,
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
                self.update(update);
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
    fn update(&mut self, update: &ProfileUpdate) {
        let profile = Arc::make_mut(&mut self.profile);
        for feature in &update.features {
            let stored = profile.get(&feature.name);
            if stored.is_some_and(|stored| stored.as_of_us > update.occurred_at_us) {
                continue;
            }
            let value = StoredValue {
                value: from_scalar(feature.value.as_ref()),
                as_of_us: update.occurred_at_us,
            };
            profile.set(feature.name.clone(), value);
        }
    }

    /// What a reader sees at `at_us`.
    pub fn snapshot(&self, view: &View, at_us: i64) -> Snapshot {
        Snapshot {
            profile: Arc::clone(&self.profile),
            windows: view.windows().values(&self.windows, at_us),
            applied: self.applied,
        }
    }

    /// The bytes that a store keeps.
    pub fn encode(&self, view: &View) -> Vec<u8> {
        let feature = |(name, stored): &(String, StoredValue)| FeatureRow {
            name: name.clone(),
            as_of_us: stored.as_of_us,
            value: to_scalar(&stored.value),
        };
        let mut windows = Vec::new();
        view.windows().encode(&self.windows, &mut windows);
        let row = EntityRow {
            features: self.profile.features.iter().map(feature).collect(),
            windows,
            applied: self.applied,
        };
        row.encode_to_vec()
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
        let row = EntityRow::decode(bytes).map_err(|error| damaged(error.to_string()))?;
        let feature = |row: FeatureRow| {
            let value = StoredValue {
                value: from_scalar(row.value.as_ref()),
                as_of_us: row.as_of_us,
            };
            (row.name, value)
        };
        Ok(Entity {
            profile: Arc::new(Profile {
                features: row.features.into_iter().map(feature).collect(),
            }),
            windows: view
                .windows()
                .decode_after(&row.windows, row.applied)
                .map_err(damaged)?,
            applied: row.applied,
        })
    }

    /// Bytes it takes in memory, about.
    pub fn heap_bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::String(text) => text.capacity(),
            _ => 0,
        };
        let features = self.profile.features.iter();
        let texts: usize = features
            .map(|(name, stored)| name.capacity() + text(&stored.value))
            .sum();
        let slots = self.profile.features.capacity() * size_of::<(String, StoredValue)>();
        texts + slots + self.windows.heap_bytes()
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

/// A stored entity. Field numbers are the format: never reuse one.
#[derive(Clone, PartialEq, Message)]
struct EntityRow {
    #[prost(message, repeated, tag = "1")]
    features: Vec<FeatureRow>,
    #[prost(bytes = "vec", tag = "2")]
    windows: Vec<u8>,
    #[prost(uint64, tag = "3")]
    applied: u64,
}

#[derive(Clone, PartialEq, Message)]
struct FeatureRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(sint64, tag = "2")]
    as_of_us: i64,
    /// Null when absent.
    #[prost(oneof = "Scalar", tags = "3, 4, 5, 6")]
    value: Option<Scalar>,
}
