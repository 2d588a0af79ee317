//! What can happen to an entity: an event, an update of its profile, its removal.
//!
//! A [`Change`] is both a row of the ledger's log and what the online store applies, so the field
//! numbers below are an on-disk format: a number is never given a new meaning, and a new field means
//! "as before" when it is absent.
//!
//! This file holds data only. What a change does to an entity is in `crate::store::entity`.

use xxhash_rust::xxh3::Xxh3Default;

/// Separates the parts of a composite key. No key holds a control character.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// Something that happened, and when we learned it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// When it was learned, microseconds since the Unix epoch, where that is not when it was logged:
    /// in history that is loaded later.
    #[prost(sint64, optional, tag = "1")]
    pub known_at_us: Option<i64>,
    /// What happened; a row of a later format without it is passed over.
    #[prost(oneof = "What", tags = "2, 3, 4")]
    pub what: Option<What>,
}

/// The kinds of change.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum What {
    #[prost(message, tag = "2")]
    Event(Event),
    #[prost(message, tag = "3")]
    Update(ProfileUpdate),
    #[prost(message, tag = "4")]
    Removal(Removal),
}

/// Something that happened to one or more entities, counted by the windows of their views.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// The sender's id, unique among the events of an entity.
    #[prost(string, tag = "1")]
    pub event_id: String,
    /// What kind of event, for example `ticket`.
    #[prost(string, tag = "2")]
    pub event: String,
    /// The key columns it came with, in any order.
    #[prost(message, repeated, tag = "3")]
    pub keys: Vec<KeyColumn>,
    /// When it happened, microseconds since the Unix epoch.
    #[prost(sint64, tag = "4")]
    pub occurred_at_us: i64,
    /// A JSON object as text; empty when there are none.
    #[prost(string, tag = "5")]
    pub properties: String,
}

/// A key column of an event with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyColumn {
    #[prost(string, tag = "1")]
    pub column: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// New values of some features of one entity; the others keep theirs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProfileUpdate {
    #[prost(string, tag = "1")]
    pub view: String,
    /// The key; the parts of a composite one joined by [`KEY_SEPARATOR`].
    #[prost(string, tag = "2")]
    pub key: String,
    /// From when on the values hold, microseconds since the Unix epoch.
    #[prost(sint64, tag = "3")]
    pub occurred_at_us: i64,
    #[prost(message, repeated, tag = "4")]
    pub features: Vec<NamedValue>,
}

/// A feature's new value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedValue {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Null when absent.
    #[prost(oneof = "Scalar", tags = "3, 4, 5, 6")]
    pub value: Option<Scalar>,
}

/// A value that is not null, as it is stored.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Scalar {
    #[prost(bool, tag = "3")]
    Bool(bool),
    #[prost(sint64, tag = "4")]
    Int64(i64),
    #[prost(double, tag = "5")]
    Float64(f64),
    #[prost(string, tag = "6")]
    String(String),
}

/// The end of an entity in one view: its profile and windows are forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Removal {
    #[prost(string, tag = "1")]
    pub view: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

impl Event {
    /// The value of a key column.
    pub fn key(&self, column: &str) -> Option<&str> {
        let found = self.keys.iter().find(|key| key.column == column);
        found.map(|key| key.value.as_str())
    }
}

/// How long an event is remembered, so that one that is sent again is recognised: 24 hours, in
/// microseconds.
pub const REMEMBERED_US: i64 = 24 * 3_600 * 1_000_000;

/// The identity of an event for one entity of one view. Two events with the same identity are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventIdentity(pub u128);

impl EventIdentity {
    /// The identity of `event_id` for the entity `key` of `view`: XXH3-128 over the three.
    pub fn new(view: &str, key: &str, event_id: &str) -> EventIdentity {
        let mut hasher = Xxh3Default::new();
        for part in [view, key, event_id] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        EventIdentity(hasher.digest128())
    }
}
