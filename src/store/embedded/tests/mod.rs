//! What the embedded store promises: it is a function of the log, whatever is interrupted, evicted or
//! read meanwhile.
//!
//! * `interrupted` – crashes, restarts and checkpoints between any changes.
//! * `memory` – what is evicted, and who reads meanwhile.
//! * `events` – events that are sent again.
//! * `rows` – what is on disk: of older views and directories, damaged, large.

mod events;
mod interrupted;
mod memory;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::features::change::{Change, Event, KeyColumn, ProfileUpdate, Removal, What};
use crate::features::value::Value;
use crate::features::views::Views;
use crate::ingest::route::route;
use crate::store::entity::named_value;

pub const HOUR_US: i64 = 3_600_000_000;
pub const START_US: i64 = 1_700_000_000_000_000;

pub const CUSTOMER: &str = r#"
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "tenure"
type = "int64"

[[feature]]
name = "tickets_30d"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "30d" }
"#;

/// One more feature, over the same events.
pub const MORE: &str = r#"
[[feature]]
name = "longest_30d"
type = "float64"
aggregate = { event = "ticket", function = "max", window = "30d", value = "minutes" }
"#;

/// The batches of a log, numbered.
#[derive(Default)]
pub struct Log {
    pub batches: Vec<(u64, i64, Vec<Change>)>,
    pub next: u64,
    pub known_at_us: i64,
}

impl Log {
    pub fn new() -> Log {
        Log {
            batches: Vec::new(),
            next: 1,
            known_at_us: START_US,
        }
    }

    pub fn push(&mut self, changes: Vec<Change>) -> usize {
        let count = changes.len() as u64;
        self.batches.push((self.next, self.known_at_us, changes));
        self.next += count;
        self.batches.len() - 1
    }

    pub fn apply(&self, batch: usize, store: &EmbeddedStore, views: &Views) -> Vec<Applied> {
        let (sequence, known_at_us, changes) = &self.batches[batch];
        let mut routed = route(views, changes.clone());
        routed.number(*sequence, *known_at_us);
        let applied = store.inner.apply(&routed.as_batch(7)).unwrap();
        routed.per_change(&applied)
    }

    /// What a start does: applies what the store may not have.
    pub fn replay(&self, store: &EmbeddedStore, views: &Views) {
        let watermark = store.watermark();
        for (index, (sequence, _, changes)) in self.batches.iter().enumerate() {
            if sequence + changes.len() as u64 > watermark.sequence {
                self.apply(index, store, views);
            }
        }
    }
}

pub fn views(text: &str) -> Views {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("customer.toml"), text).unwrap();
    Views::load(dir.path()).unwrap()
}

pub fn view(views: &Views) -> Arc<View> {
    Arc::clone(views.get("customer").unwrap())
}

pub fn options(cache_bytes: usize) -> Options {
    Options {
        cache_bytes,
        recent_events_in_memory: 16,
        ..Options::default()
    }
}

pub fn open(dir: &Path, cache_bytes: usize) -> EmbeddedStore {
    EmbeddedStore::open_with(dir, options(cache_bytes)).unwrap()
}

pub fn change(what: What) -> Change {
    Change {
        known_at_us: None,
        what: Some(what),
    }
}

pub fn update(key: &str, tenure: i64, occurred_at_us: i64) -> Change {
    change(What::Update(ProfileUpdate {
        view: "customer".to_owned(),
        key: key.to_owned(),
        occurred_at_us,
        features: vec![named_value("tenure", &Value::Int64(tenure))],
    }))
}

pub fn ticket(key: &str, event_id: &str, occurred_at_us: i64) -> Change {
    change(What::Event(Event {
        event_id: event_id.to_owned(),
        event: "ticket".to_owned(),
        keys: vec![KeyColumn {
            column: "customer_id".to_owned(),
            value: key.to_owned(),
        }],
        occurred_at_us,
        properties: r#"{"minutes": 2.5}"#.to_owned(),
    }))
}

pub fn removal(key: &str) -> Change {
    change(What::Removal(Removal {
        view: "customer".to_owned(),
        key: key.to_owned(),
    }))
}

/// Every entity with its bytes.
pub fn state(store: &EmbeddedStore, view: &View) -> BTreeMap<String, Vec<u8>> {
    let mut state = BTreeMap::new();
    let collect = |key: &str, entity: &Entity| {
        state.insert(key.to_owned(), entity.encode(view));
    };
    store.for_each(view, collect).unwrap();
    state
}

pub fn read(store: &EmbeddedStore, view: &Arc<View>, key: &str, at_us: i64) -> Option<Snapshot> {
    store.inner.read(view, key, at_us).unwrap()
}

/// Copies the store as a power cut would leave it; what it holds in memory is not in the copy.
pub fn crashed(dir: &Path, store: &EmbeddedStore) -> TempDir {
    store.inner.recent.settle();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(dir, copy.path());
    copy
}

pub fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
