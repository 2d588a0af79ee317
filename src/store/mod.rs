//! The online store: the current feature values of every entity, read on each score.
//!
//! [`OnlineStore`] is what the rest of the server sees; [`embedded::EmbeddedStore`] keeps the
//! data in the server's own directory. A store keeps values as they were written, by feature
//! name: it knows nothing of types, defaults or ranges (see `crate::features`), so a changed view
//! never makes stored data unreadable.

pub mod embedded;

use std::future::Future;
use std::pin::Pin;

use crate::features::value::Value;

/// A stored value and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredValue {
    pub value: Value,
    /// Microseconds since the Unix epoch.
    pub as_of_us: i64,
}

/// Everything stored of one entity in one view: feature names with their values, sorted by name.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Profile {
    pub features: Vec<(String, StoredValue)>,
}

impl Profile {
    /// The stored value of the feature `name`.
    pub fn get(&self, name: &str) -> Option<&StoredValue> {
        let found = self
            .features
            .binary_search_by(|(stored, _)| stored.as_str().cmp(name));
        found.ok().map(|index| &self.features[index].1)
    }

    /// Sets a feature, replacing its earlier value.
    pub fn set(&mut self, name: String, value: StoredValue) {
        match self
            .features
            .binary_search_by(|(stored, _)| stored.cmp(&name))
        {
            Ok(index) => self.features[index].1 = value,
            Err(index) => self.features.insert(index, (name, value)),
        }
    }
}

/// New values for one entity; features not named keep their value.
#[derive(Clone, Debug)]
pub struct Update {
    pub key: String,
    pub features: Vec<(String, StoredValue)>,
}

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the directory open.
    #[error(
        "the store in {0} is in use by another process; stop that server or use another --data-dir"
    )]
    InUse(String),
    /// Reading or writing failed; the data on disk is as it was.
    #[error("the online store failed: {0}")]
    Io(String),
    /// A stored row cannot be decoded.
    #[error("the stored profile of view {view} is damaged: {problem}")]
    Damaged { view: String, problem: String },
}

/// What a store operation returns.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The current values of every entity, by view and key.
///
/// A write that has been acknowledged survives the loss of the process and of the machine.
/// Concurrent updates of one entity are applied one after the other, none is lost.
pub trait OnlineStore: Send + Sync {
    /// The profile of `key` in `view`; `None` when nothing was ever written.
    fn read<'a>(&'a self, view: &'a str, key: &'a str) -> StoreFuture<'a, Option<Profile>>;

    /// Applies updates in order, each a partial write; acknowledged together.
    fn update<'a>(&'a self, view: &'a str, updates: Vec<Update>) -> StoreFuture<'a, ()>;

    /// Removes the profile of `key`; `false` when there was none.
    fn delete<'a>(&'a self, view: &'a str, key: &'a str) -> StoreFuture<'a, bool>;
}
