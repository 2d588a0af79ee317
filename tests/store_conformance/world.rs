//! What a case works with: a store, changes to put into it, and what can be read from it.

use std::path::Path;
use std::sync::Arc;

use bellwether::config::StoreConfig;
use bellwether::features::change::{
    Change, Event, KEY_SEPARATOR, KeyColumn, NamedValue, ProfileUpdate, Removal, What,
};
use bellwether::features::value::Value;
use bellwether::features::view::View;
use bellwether::features::views::Views;
use bellwether::ingest::route::route;
use bellwether::store::embedded::EmbeddedStore;
use bellwether::store::entity::{Applied, named_value};
use bellwether::store::redis::RedisStore;
use bellwether::store::{OnlineStore, Snapshot, StoreError, read_one};
use tempfile::TempDir;

/// A moment; the cases count from here, so that no clock has a part in them.
pub const NOON: i64 = 1_780_000_000_000_000;
pub const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3_600 * SECOND;

const CUSTOMER: &str = r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "plan"
type = "string"
[[feature]]
name = "tenure"
type = "int64"
[[feature]]
name = "charges"
type = "float64"
[[feature]]
name = "active"
type = "bool"
[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = ["1h", "30d"] }
[[feature]]
name = "minutes"
type = "float64"
aggregate = { event = "ticket", function = "sum", value = "minutes", window = "30d" }
[[feature]]
name = "channel"
type = "string"
aggregate = { event = "ticket", function = "last", value = "channel", window = "30d" }
"#;

const SITE: &str = r#"
[view]
name = "site"
entity = "site_id"
[[feature]]
name = "risk"
type = "float64"
"#;

/// Where the stores of a case are.
pub struct World {
    pub views: Views,
    dir: TempDir,
    /// The shared store's settings; the embedded one without.
    shared: Option<StoreConfig>,
}

impl World {
    pub fn new(shared: Option<StoreConfig>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let features = dir.path().join("features");
        std::fs::create_dir(&features).unwrap();
        std::fs::write(features.join("customer.toml"), CUSTOMER).unwrap();
        std::fs::write(features.join("site.toml"), SITE).unwrap();
        World {
            views: Views::load(&features).unwrap(),
            dir,
            shared,
        }
    }

    pub fn customers(&self) -> &Arc<View> {
        self.views.get("customer").unwrap()
    }

    pub fn sites(&self) -> &Arc<View> {
        self.views.get("site").unwrap()
    }

    /// Opens the store of the server `name`, as it would be after a start.
    pub fn open(&self, name: &str) -> Server {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let store = open_store(&dir, self.shared.as_ref()).unwrap();
        let sequence = store.watermark().sequence.max(1);
        Server {
            store,
            views: self.views.clone(),
            sequence,
        }
    }
}

fn open_store(
    dir: &Path,
    shared: Option<&StoreConfig>,
) -> Result<Arc<dyn OnlineStore>, StoreError> {
    Ok(match shared {
        Some(config) => Arc::new(RedisStore::open(config, dir)?),
        None => Arc::new(EmbeddedStore::open(&dir.join("store"))?),
    })
}

/// A server's way to its store.
pub struct Server {
    pub store: Arc<dyn OnlineStore>,
    views: Views,
    /// The number of its next change.
    pub sequence: u64,
}

impl Server {
    /// Applies changes that were learned at `known_at_us`.
    pub async fn apply_at(
        &mut self,
        known_at_us: i64,
        changes: &[Change],
    ) -> Result<Vec<Applied>, StoreError> {
        let first = self.sequence;
        self.sequence += changes.len() as u64;
        self.apply_as(first, known_at_us, changes).await
    }

    /// Applies changes under numbers of the caller's choice, as a replay of the log does.
    pub async fn apply_as(
        &self,
        first: u64,
        known_at_us: i64,
        changes: &[Change],
    ) -> Result<Vec<Applied>, StoreError> {
        let mut routed = route(&self.views, changes.to_vec());
        routed.number(first, known_at_us);
        let applied = self.store.apply(&routed.as_batch(0)).await?;
        Ok(routed.per_change(&applied))
    }

    /// Applies changes that were learned at noon.
    pub async fn apply(&mut self, changes: &[Change]) -> Vec<Applied> {
        self.apply_at(NOON, changes).await.unwrap()
    }

    pub async fn read(&self, view: &Arc<View>, key: &str) -> Option<Snapshot> {
        self.read_at(view, key, NOON).await
    }

    pub async fn read_at(&self, view: &Arc<View>, key: &str, at_us: i64) -> Option<Snapshot> {
        read_one(&*self.store, view, key, at_us).await.unwrap()
    }

    /// The stored value of a feature; `None` when the entity or the value is not there.
    pub async fn value(&self, view: &Arc<View>, key: &str, feature: &str) -> Option<Value> {
        let snapshot = self.read(view, key).await?;
        snapshot
            .profile
            .get(feature)
            .map(|stored| stored.value.clone())
    }
}

pub fn update_at(view: &str, key: &str, occurred_at_us: i64, values: &[(&str, Value)]) -> Change {
    let features: Vec<NamedValue> = values
        .iter()
        .map(|(name, value)| named_value(name, value))
        .collect();
    Change {
        known_at_us: None,
        what: Some(What::Update(ProfileUpdate {
            view: view.to_owned(),
            key: key.to_owned(),
            occurred_at_us,
            features,
        })),
    }
}

/// An update of a customer at noon.
pub fn update(key: &str, values: &[(&str, Value)]) -> Change {
    update_at("customer", key, NOON, values)
}

pub fn removal(key: &str) -> Change {
    Change {
        known_at_us: None,
        what: Some(What::Removal(Removal {
            view: "customer".to_owned(),
            key: key.to_owned(),
        })),
    }
}

/// An event of a customer, a second before noon.
pub fn event(key: &str, event_id: &str) -> Change {
    event_at(key, event_id, NOON - SECOND)
}

pub fn event_at(key: &str, event_id: &str, occurred_at_us: i64) -> Change {
    Change {
        known_at_us: None,
        what: Some(What::Event(Event {
            event_id: event_id.to_owned(),
            event: "ticket".to_owned(),
            keys: vec![KeyColumn {
                column: "customer_id".to_owned(),
                value: key.to_owned(),
            }],
            occurred_at_us,
            properties: format!(r#"{{"minutes": 1.5, "channel": "{event_id}"}}"#),
        })),
    }
}

/// The window values of a snapshot by name.
pub fn windows(view: &View, snapshot: &Snapshot) -> Vec<(String, Value)> {
    let names = view.features()[view.window_columns()].iter();
    let names = names.map(|feature| feature.name.clone());
    names.zip(snapshot.windows.iter().cloned()).collect()
}

pub fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// Keys that are hard on parsers, each of them allowed.
pub fn odd_keys() -> Vec<String> {
    let composite = format!("household{KEY_SEPARATOR}7");
    let swapped = format!("household{KEY_SEPARATOR}{KEY_SEPARATOR}7");
    let mut keys: Vec<String> = [
        " ",
        "a b",
        "{",
        "}",
        "{}",
        "}{",
        "{customer:a}",
        "a}b",
        ":",
        "a:b",
        "a:e:00",
        "*",
        "?",
        "[a-z]",
        "\"",
        "'",
        "\\",
        "$1",
        "%41",
        "ключ",
        "客户",
        "👩‍👩‍👧",
        "é",
        "e\u{301}",
        "a\u{200b}",
        "null",
        "0",
        "-0",
        "A",
        "a",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.extend([
        composite,
        swapped,
        "k".repeat(256),
        format!("{}}}", "k".repeat(255)),
    ]);
    keys
}
