//! The embedded online store: an LSM tree (fjall) in the server's data directory.
//!
//! A row is one entity of one view: the key is `view`, a zero byte, and the entity's key; the
//! value is a protobuf list of named features. Writes are acknowledged after the journal has been
//! synced; concurrent writers share one sync. Reads do not wait for anything but the tree.
//!
//! One process at a time may open a directory.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use prost::Message;
use tokio::sync::Mutex;

use super::{OnlineStore, Profile, StoreError, StoreFuture, StoredValue, Update};
use crate::features::value::Value;

/// Writers of different entities rarely meet on one of these locks.
const WRITE_LOCKS: usize = 256;

/// Memory for recently read blocks, in bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The store in a directory of this machine.
pub struct EmbeddedStore {
    database: Database,
    profiles: Keyspace,
    /// A read-modify-write holds the lock its key hashes to.
    write_locks: Vec<Mutex<()>>,
    hasher: RandomState,
    journal: Arc<JournalSync>,
}

/// Lets concurrent writers share one sync of the journal.
struct JournalSync {
    /// How many writes the journal has received.
    written: AtomicU64,
    /// Up to which of them it has been synced; held while syncing.
    synced: Mutex<u64>,
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`.
    ///
    /// # Errors
    /// When another process has it open, or the directory cannot be read or written.
    pub fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => StoreError::InUse(dir.display().to_string()),
            error => StoreError::Io(format!("opening {}: {error}", dir.display())),
        };
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .open()
            .map_err(failed)?;
        let profiles = database
            .keyspace("profiles", KeyspaceCreateOptions::default)
            .map_err(failed)?;
        Ok(EmbeddedStore {
            database,
            profiles,
            write_locks: (0..WRITE_LOCKS).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            journal: Arc::new(JournalSync {
                written: AtomicU64::new(0),
                synced: Mutex::new(0),
            }),
        })
    }

    fn read_row(&self, view: &str, row_key: &[u8]) -> Result<Option<Profile>, StoreError> {
        let bytes = self.profiles.get(row_key).map_err(io_error)?;
        bytes.map(|bytes| decode_profile(view, &bytes)).transpose()
    }

    fn lock_of(&self, row_key: &[u8]) -> &Mutex<()> {
        &self.write_locks[self.hasher.hash_one(row_key) as usize % WRITE_LOCKS]
    }

    /// Returns when everything written before the call is on disk.
    async fn sync(&self) -> Result<(), StoreError> {
        let mine = self.journal.written.fetch_add(1, Ordering::SeqCst) + 1;
        let mut synced = self.journal.synced.lock().await;
        if *synced >= mine {
            return Ok(());
        }
        let covers = self.journal.written.load(Ordering::SeqCst);
        let database = self.database.clone();
        let persisted =
            tokio::task::spawn_blocking(move || database.persist(PersistMode::SyncData)).await;
        match persisted {
            Ok(Ok(())) => {
                *synced = covers;
                Ok(())
            }
            Ok(Err(error)) => Err(io_error(error)),
            Err(error) => Err(StoreError::Io(error.to_string())),
        }
    }
}

impl OnlineStore for EmbeddedStore {
    fn read<'a>(&'a self, view: &'a str, key: &'a str) -> StoreFuture<'a, Option<Profile>> {
        Box::pin(std::future::ready(self.read_row(view, &row_key(view, key))))
    }

    fn update<'a>(&'a self, view: &'a str, updates: Vec<Update>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            for update in updates {
                let row_key = row_key(view, &update.key);
                let _writing = self.lock_of(&row_key).lock().await;
                let mut profile = self.read_row(view, &row_key)?.unwrap_or_default();
                for (name, value) in update.features {
                    profile.set(name, value);
                }
                self.profiles
                    .insert(row_key, encode_profile(&profile))
                    .map_err(io_error)?;
            }
            self.sync().await
        })
    }

    fn delete<'a>(&'a self, view: &'a str, key: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let row_key = row_key(view, key);
            {
                let _writing = self.lock_of(&row_key).lock().await;
                if !self.profiles.contains_key(&row_key).map_err(io_error)? {
                    return Ok(false);
                }
                self.profiles.remove(row_key).map_err(io_error)?;
            }
            self.sync().await?;
            Ok(true)
        })
    }
}

fn io_error(error: fjall::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

/// A view's name holds no zero byte, so that no two (view, key) pairs share a row.
fn row_key(view: &str, key: &str) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(view.len() + 1 + key.len());
    row_key.extend_from_slice(view.as_bytes());
    row_key.push(0);
    row_key.extend_from_slice(key.as_bytes());
    row_key
}

/// A stored row. Field numbers are the format: never reuse one.
#[derive(Clone, PartialEq, Message)]
struct ProfileRow {
    #[prost(message, repeated, tag = "1")]
    features: Vec<FeatureRow>,
}

#[derive(Clone, PartialEq, Message)]
struct FeatureRow {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(sint64, tag = "2")]
    as_of_us: i64,
    /// Null when absent.
    #[prost(oneof = "ValueRow", tags = "3, 4, 5, 6")]
    value: Option<ValueRow>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ValueRow {
    #[prost(bool, tag = "3")]
    Bool(bool),
    #[prost(sint64, tag = "4")]
    Int64(i64),
    #[prost(double, tag = "5")]
    Float64(f64),
    #[prost(string, tag = "6")]
    String(String),
}

fn encode_profile(profile: &Profile) -> Vec<u8> {
    let row = |(name, stored): &(String, StoredValue)| FeatureRow {
        name: name.clone(),
        as_of_us: stored.as_of_us,
        value: match &stored.value {
            Value::Null => None,
            Value::Bool(flag) => Some(ValueRow::Bool(*flag)),
            Value::Int64(integer) => Some(ValueRow::Int64(*integer)),
            Value::Float64(float) => Some(ValueRow::Float64(*float)),
            Value::String(text) => Some(ValueRow::String(text.clone())),
        },
    };
    ProfileRow {
        features: profile.features.iter().map(row).collect(),
    }
    .encode_to_vec()
}

fn decode_profile(view: &str, bytes: &[u8]) -> Result<Profile, StoreError> {
    let row = ProfileRow::decode(bytes).map_err(|error| StoreError::Damaged {
        view: view.to_owned(),
        problem: error.to_string(),
    })?;
    let feature = |row: FeatureRow| {
        let value = match row.value {
            None => Value::Null,
            Some(ValueRow::Bool(flag)) => Value::Bool(flag),
            Some(ValueRow::Int64(integer)) => Value::Int64(integer),
            Some(ValueRow::Float64(float)) => Value::Float64(float),
            Some(ValueRow::String(text)) => Value::String(text),
        };
        (
            row.name,
            StoredValue {
                value,
                as_of_us: row.as_of_us,
            },
        )
    };
    Ok(Profile {
        features: row.features.into_iter().map(feature).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: Value, as_of_us: i64) -> StoredValue {
        StoredValue { value, as_of_us }
    }

    fn update(key: &str, name: &str, value: Value, as_of_us: i64) -> Update {
        let features = vec![(name.to_owned(), stored(value, as_of_us))];
        Update {
            key: key.to_owned(),
            features,
        }
    }

    #[tokio::test]
    async fn a_partial_update_keeps_the_other_features_and_their_times() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path()).unwrap();
        let first = vec![
            update("c1", "tenure", Value::Int64(3), 10),
            update("c1", "contract", Value::String("One year".into()), 10),
        ];
        store.update("customer", first).await.unwrap();
        store
            .update("customer", vec![update("c1", "tenure", Value::Null, 20)])
            .await
            .unwrap();
        let profile = store.read("customer", "c1").await.unwrap().unwrap();
        assert_eq!(profile.get("tenure"), Some(&stored(Value::Null, 20)));
        assert_eq!(
            profile.get("contract"),
            Some(&stored(Value::String("One year".into()), 10))
        );
        assert_eq!(store.read("custome", "rc1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_reopening_and_gone_after_deleting() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path()).unwrap();
        store
            .update("v", vec![update("c1", "x", Value::Float64(0.1), 1)])
            .await
            .unwrap();
        drop(store);
        let store = EmbeddedStore::open(dir.path()).unwrap();
        let profile = store.read("v", "c1").await.unwrap().unwrap();
        assert_eq!(profile.get("x"), Some(&stored(Value::Float64(0.1), 1)));
        assert!(store.delete("v", "c1").await.unwrap());
        assert!(!store.delete("v", "c1").await.unwrap());
        assert_eq!(store.read("v", "c1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_directory_is_open_in_one_store_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _first = EmbeddedStore::open(dir.path()).unwrap();
        assert!(matches!(
            EmbeddedStore::open(dir.path()),
            Err(StoreError::InUse(_))
        ));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_updates_of_one_entity_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path()).unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for index in 0..32 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let name = format!("f{index:02}");
                store
                    .update("v", vec![update("c", &name, Value::Int64(index), 1)])
                    .await
            });
        }
        while let Some(result) = writers.join_next().await {
            result.unwrap().unwrap();
        }
        assert_eq!(
            store.read("v", "c").await.unwrap().unwrap().features.len(),
            32
        );
    }
}
