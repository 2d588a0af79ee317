//! What the embedded store promises: it is a function of the log, whatever is interrupted, evicted or
//! read meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::features::change::{Change, Event, KeyColumn, ProfileUpdate, Removal, What};
use crate::features::value::Value;
use crate::features::views::Views;
use crate::features::windows::MAX_PENDING;
use crate::ingest::route::route;
use crate::store::entity::{Action, named_value};

const HOUR_US: i64 = 3_600_000_000;
const START_US: i64 = 1_700_000_000_000_000;

const CUSTOMER: &str = r#"
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
const MORE: &str = r#"
[[feature]]
name = "longest_30d"
type = "float64"
aggregate = { event = "ticket", function = "max", window = "30d", value = "minutes" }
"#;

/// The batches of a log, numbered.
#[derive(Default)]
struct Log {
    batches: Vec<(u64, i64, Vec<Change>)>,
    next: u64,
    known_at_us: i64,
}

impl Log {
    fn new() -> Log {
        Log {
            batches: Vec::new(),
            next: 1,
            known_at_us: START_US,
        }
    }

    fn push(&mut self, changes: Vec<Change>) -> usize {
        let count = changes.len() as u64;
        self.batches.push((self.next, self.known_at_us, changes));
        self.next += count;
        self.batches.len() - 1
    }

    fn apply(&self, batch: usize, store: &EmbeddedStore, views: &Views) -> Vec<Applied> {
        let (sequence, known_at_us, changes) = &self.batches[batch];
        let mut routed = route(views, changes.clone());
        routed.number(*sequence, *known_at_us);
        let applied = store.inner.apply(&routed.as_batch(7)).unwrap();
        routed.per_change(&applied)
    }

    /// What a start does: applies what the store may not have.
    fn replay(&self, store: &EmbeddedStore, views: &Views) {
        let watermark = store.watermark();
        for (index, (sequence, _, changes)) in self.batches.iter().enumerate() {
            if sequence + changes.len() as u64 > watermark.sequence {
                self.apply(index, store, views);
            }
        }
    }
}

fn views(text: &str) -> Views {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("customer.toml"), text).unwrap();
    Views::load(dir.path()).unwrap()
}

fn view(views: &Views) -> Arc<View> {
    Arc::clone(views.get("customer").unwrap())
}

fn options(cache_bytes: usize) -> Options {
    Options {
        cache_bytes,
        recent_events_in_memory: 16,
        ..Options::default()
    }
}

fn open(dir: &Path, cache_bytes: usize) -> EmbeddedStore {
    EmbeddedStore::open_with(dir, options(cache_bytes)).unwrap()
}

fn change(what: What) -> Change {
    Change {
        known_at_us: None,
        what: Some(what),
    }
}

fn update(key: &str, tenure: i64, occurred_at_us: i64) -> Change {
    change(What::Update(ProfileUpdate {
        view: "customer".to_owned(),
        key: key.to_owned(),
        occurred_at_us,
        features: vec![named_value("tenure", &Value::Int64(tenure))],
    }))
}

fn ticket(key: &str, event_id: &str, occurred_at_us: i64) -> Change {
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

fn removal(key: &str) -> Change {
    change(What::Removal(Removal {
        view: "customer".to_owned(),
        key: key.to_owned(),
    }))
}

/// Every entity with its bytes.
fn state(store: &EmbeddedStore, view: &View) -> BTreeMap<String, Vec<u8>> {
    let mut state = BTreeMap::new();
    let collect = |key: &str, entity: &Entity| {
        state.insert(key.to_owned(), entity.encode(view));
    };
    store.for_each(view, collect).unwrap();
    state
}

fn read(store: &EmbeddedStore, view: &Arc<View>, key: &str, at_us: i64) -> Option<Snapshot> {
    store.inner.read(view, key, at_us).unwrap()
}

/// Copies the store as a power cut would leave it; what it holds in memory is not in the copy.
fn crashed(dir: &Path, store: &EmbeddedStore) -> TempDir {
    store.inner.recent.settle();
    let copy = tempfile::tempdir().unwrap();
    copy_folder(dir, copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
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

/// What can happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Op>),
    /// So many hours go by.
    Wait(i64),
    Read(u8),
    Checkpoint,
    Crash,
    Restart,
}

#[derive(Clone, Debug)]
enum Op {
    Ticket {
        key: u8,
        id: u8,
        hours_ago: i64,
    },
    Update {
        key: u8,
        tenure: i64,
        hours_ago: i64,
    },
    Remove {
        key: u8,
    },
}

impl Op {
    fn change(&self, known_at_us: i64) -> Change {
        match self {
            Op::Ticket { key, id, hours_ago } => {
                let occurred_at_us = known_at_us - hours_ago * HOUR_US;
                ticket(&format!("C-{key}"), &format!("E-{id}"), occurred_at_us)
            }
            Op::Update {
                key,
                tenure,
                hours_ago,
            } => {
                let occurred_at_us = known_at_us - hours_ago * HOUR_US;
                update(&format!("C-{key}"), *tenure, occurred_at_us)
            }
            Op::Remove { key } => removal(&format!("C-{key}")),
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6_u8, 0..12_u8, 0..800_i64)
            .prop_map(|(key, id, hours_ago)| Op::Ticket { key, id, hours_ago }),
        3 => (0..6_u8, any::<i64>(), 0..48_i64)
            .prop_map(|(key, tenure, hours_ago)| Op::Update { key, tenure, hours_ago }),
        1 => (0..6_u8).prop_map(|key| Op::Remove { key }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec(any_op(), 1..8).prop_map(Step::Apply),
        2 => prop_oneof![Just(1), Just(4), Just(23), Just(24), Just(30)].prop_map(Step::Wait),
        3 => (0..6_u8).prop_map(Step::Read),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_store_that_is_interrupted_ends_as_one_that_is_not(
        steps in prop::collection::vec(any_step(), 1..40),
        cache_bytes in prop_oneof![Just(0), Just(64 * 700), Just(1 << 30)],
    ) {
        let views = views(CUSTOMER);
        let view = view(&views);
        let whole_dir = tempfile::tempdir().unwrap();
        let whole = open(whole_dir.path(), 1 << 30);
        let mut dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), cache_bytes);
        let mut log = Log::new();
        for step in steps {
            match step {
                Step::Apply(ops) => {
                    let now_us = log.known_at_us;
                    let batch = log.push(ops.iter().map(|op| op.change(now_us)).collect());
                    let expected = log.apply(batch, &whole, &views);
                    prop_assert_eq!(log.apply(batch, &store, &views), expected);
                }
                Step::Wait(hours) => log.known_at_us += hours * HOUR_US,
                Step::Read(key) => {
                    let key = format!("C-{key}");
                    let at_us = log.known_at_us;
                    let expected = read(&whole, &view, &key, at_us);
                    prop_assert_eq!(read(&store, &view, &key, at_us), expected);
                }
                Step::Checkpoint => store.inner.checkpoint().unwrap(),
                Step::Crash => {
                    let copy = crashed(dir.path(), &store);
                    store.inner.schedule.crash();
                    drop(store);
                    dir = copy;
                    store = open(dir.path(), cache_bytes);
                    log.replay(&store, &views);
                }
                Step::Restart => {
                    drop(store);
                    store = open(dir.path(), cache_bytes);
                    prop_assert_eq!(store.watermark().sequence.max(1), log.next);
                }
            }
        }
        prop_assert_eq!(state(&store, &view), state(&whole, &view));
    }
}

#[test]
fn an_event_sent_again_within_24_hours_is_recognised_also_after_a_restart() {
    let views = views(CUSTOMER);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    let first = log.push(vec![ticket("C-1", "E-1", START_US)]);
    assert_eq!(log.apply(first, &store, &views), [Applied::Done]);
    drop(store);

    let store = open(dir.path(), 1 << 20);
    log.known_at_us += 24 * HOUR_US - 1;
    let again = log.push(vec![
        ticket("C-1", "E-1", START_US),
        ticket("C-2", "E-1", START_US),
    ]);
    assert_eq!(
        log.apply(again, &store, &views),
        [Applied::Duplicate, Applied::Done],
        "an id is one customer's"
    );
    log.known_at_us += 1;
    let later = log.push(vec![ticket("C-1", "E-1", START_US)]);
    assert_eq!(log.apply(later, &store, &views), [Applied::Done]);
    assert_eq!(
        log.apply(later, &store, &views),
        [Applied::Done],
        "an event is no duplicate of itself"
    );
    let view = view(&views);
    let snapshot = read(&store, &view, "C-1", log.known_at_us).unwrap();
    assert_eq!(snapshot.windows, [Value::Int64(2)]);
}

#[test]
fn what_is_cached_keeps_to_its_budget_and_nothing_is_lost() {
    const BUDGET: usize = 512 * 1024;
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), BUDGET);
    let mut log = Log::new();
    let key = |index: i64| format!("C-{index}");
    for chunk in 0..50 {
        let updates = (0..100).map(|index| update(&key(chunk * 100 + index), chunk, START_US));
        let batch = log.push(updates.collect());
        log.apply(batch, &store, &views);
        let usage = store.usage();
        assert!(usage.bytes <= BUDGET, "{usage:?}");
    }
    let usage = store.usage();
    assert!(usage.entities < 5_000 && usage.entities > 100, "{usage:?}");
    for index in 0..5_000 {
        let snapshot = read(&store, &view, &key(index), START_US).unwrap();
        let tenure = &snapshot.profile.get("tenure").unwrap().value;
        assert_eq!(tenure, &Value::Int64(index / 100));
    }
    assert!(store.usage().bytes <= BUDGET);
    store.inner.checkpoint().unwrap();
    assert_eq!(store.usage().dirty, 0);
}

#[test]
fn readers_beside_the_applier_see_every_change_that_was_applied() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    // Hardly anything stays in memory, so that reads, evictions and checkpoints meet.
    let store = open(dir.path(), 64 * 800);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (store, view, done) = (&store, &view, &done);
            scope.spawn(move || {
                let mut newest = [0; 16];
                let mut turn = reader;
                while !done.load(Ordering::Relaxed) {
                    turn = (turn + 7) % 16;
                    let Some(found) = read(store, view, &format!("C-{turn}"), START_US) else {
                        continue;
                    };
                    let tenure = &found.profile.get("tenure").unwrap().value;
                    assert_eq!(tenure, &Value::Int64(found.applied as i64));
                    assert!(found.applied >= newest[turn], "went back in time");
                    newest[turn] = found.applied;
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.inner.checkpoint().unwrap();
            }
        });
        let mut log = Log::new();
        for round in 0..400_usize {
            let first = log.next as i64;
            let keys = (0..4).map(|index| (round * 5 + index * 3) % 16);
            let keys: Vec<String> = keys.map(|key| format!("C-{key}")).collect();
            let updates = keys.iter().zip(first..);
            let updates = updates.map(|(key, number)| update(key, number, START_US + number));
            let batch = log.push(updates.collect());
            log.apply(batch, &store, &views);
            for (key, number) in keys.iter().zip(first..) {
                let found = read(&store, &view, key, START_US).unwrap();
                assert_eq!(found.applied as i64, number);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_changed_view_reads_what_was_stored_under_the_old_one() {
    let old_views = views(CUSTOMER);
    let new_views = views(&format!("{CUSTOMER}{MORE}"));
    let (old, new) = (view(&old_views), view(&new_views));
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 20);
    let mut log = Log::new();
    let minute_us = 60_000_000;
    let at_us = START_US + 10 * minute_us;
    let first = log.push(vec![
        update("C-1", 3, START_US),
        ticket("C-1", "E-1", START_US),
    ]);
    log.apply(first, &store, &old_views);
    // It is newer than its row, and a reader comes with the new view.
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(1), Value::Null]);

    log.known_at_us += minute_us;
    let second = log.push(vec![ticket("C-1", "E-2", START_US + minute_us)]);
    log.apply(second, &store, &new_views);
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2), Value::Float64(2.5)]);

    // A request that began under the old view takes nothing away.
    store.inner.checkpoint().unwrap();
    let found = read(&store, &old, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2)]);
    log.known_at_us += minute_us;
    let third = log.push(vec![update("C-1", 4, START_US)]);
    log.apply(third, &store, &new_views);
    let found = read(&store, &new, "C-1", at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(2), Value::Float64(2.5)]);
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(4));
}

#[test]
fn rows_of_older_data_directories_are_read() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    {
        let database = fjall::Database::builder(dir.path()).open().unwrap();
        let options = fjall::KeyspaceCreateOptions::default;
        let profiles = database.keyspace("profiles", options).unwrap();
        let mut entity = Entity::default();
        let update = ProfileUpdate {
            occurred_at_us: START_US,
            features: vec![named_value("tenure", &Value::Int64(5))],
            ..ProfileUpdate::default()
        };
        entity.fold(&view, &Action::Update(&update), 0, START_US);
        profiles
            .insert(row_key("customer", "C-1"), entity.encode(&view))
            .unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let store = open(dir.path(), 1 << 20);
    assert_eq!(store.watermark(), Watermark::default());
    let found = read(&store, &view, "C-1", START_US).unwrap();
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(5));
    assert_eq!(state(&store, &view).len(), 1);
}

#[test]
fn a_damaged_row_concerns_its_entity_only_until_that_is_removed() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    let row = row_key("customer", "C-1");
    store.inner.rows.put(&row, Some(vec![0xFF; 9])).unwrap();

    let first = log.push(vec![
        update("C-1", 1, START_US),
        update("C-2", 2, START_US),
        ticket("C-1", "E-1", START_US),
    ]);
    let applied = log.apply(first, &store, &views);
    for refused in [&applied[0], &applied[2]] {
        assert!(
            matches!(refused, Applied::Refused(why) if why.contains("customer is damaged")),
            "{refused:?}"
        );
    }
    assert_eq!(applied[1], Applied::Done);
    let damaged = store.inner.read(&view, "C-1", START_US);
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
    assert!(read(&store, &view, "C-2", START_US).is_some());
    store.inner.checkpoint().unwrap();

    // Removed, it begins anew; the event that was refused may come again.
    let second = log.push(vec![
        removal("C-1"),
        ticket("C-1", "E-1", START_US),
        update("C-1", 7, START_US),
    ]);
    assert_eq!(log.apply(second, &store, &views), vec![Applied::Done; 3]);
    drop(store);
    let store = open(dir.path(), 1 << 20);
    let found = read(&store, &view, "C-1", START_US).unwrap();
    assert_eq!(found.windows, [Value::Int64(1)]);
    assert_eq!(found.profile.get("tenure").unwrap().value, Value::Int64(7));
}

#[test]
fn an_event_that_was_refused_counts_when_it_is_sent_again() {
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    let store = open(dir.path(), 1 << 20);
    // As many events in the future as are kept, and one more.
    let id = |number: usize| format!("E-{number}");
    let future = (0..=MAX_PENDING).map(|number| ticket("C-1", &id(number), START_US + HOUR_US));
    let batch = log.push(future.collect());
    let applied = log.apply(batch, &store, &views);
    assert_eq!(applied[..MAX_PENDING], vec![Applied::Done; MAX_PENDING]);
    assert!(
        matches!(&applied[MAX_PENDING], Applied::Refused(why) if why.contains("in the future"))
    );

    log.known_at_us += 2 * HOUR_US;
    let late = ticket("C-1", &id(MAX_PENDING), START_US + HOUR_US);
    let batch = log.push(vec![late.clone(), late]);
    let applied = log.apply(batch, &store, &views);
    assert_eq!(applied, [Applied::Done, Applied::Duplicate]);
    let found = read(&store, &view, "C-1", log.known_at_us).unwrap();
    assert_eq!(found.windows, [Value::Int64(MAX_PENDING as i64 + 1)]);
}

#[test]
fn features_are_kept_whatever_the_view_knows_of_them() {
    // "zeal" and "able" were declared once, "tenure" is.
    let views = views(CUSTOMER);
    let view = view(&views);
    let dir = tempfile::tempdir().unwrap();
    let mut entity = Entity::default();
    let write = |entity: &mut Entity, name: &str, value: Value, occurred_at_us: i64| {
        let update = ProfileUpdate {
            occurred_at_us,
            features: vec![named_value(name, &value)],
            ..ProfileUpdate::default()
        };
        entity.fold(&view, &Action::Update(&update), 1, START_US);
    };
    write(
        &mut entity,
        "zeal",
        Value::String("ä".repeat(300)),
        START_US,
    );
    write(&mut entity, "tenure", Value::Int64(i64::MIN), i64::MAX);
    write(&mut entity, "able", Value::Bool(true), i64::MIN);
    write(&mut entity, "empty", Value::Null, 0);
    write(&mut entity, "half", Value::Float64(-0.5), -1);
    let store = open(dir.path(), 1 << 20);
    let row = row_key("customer", "C-1");
    store
        .inner
        .rows
        .put(&row, Some(entity.encode(&view)))
        .unwrap();
    let found = read(&store, &view, "C-1", START_US).unwrap();
    let features: Vec<_> = found
        .profile
        .iter()
        .map(|(name, stored)| (name, stored.value.clone(), stored.as_of_us))
        .collect();
    let expected = [
        ("able", Value::Bool(true), i64::MIN),
        ("empty", Value::Null, 0),
        ("half", Value::Float64(-0.5), -1),
        ("tenure", Value::Int64(i64::MIN), i64::MAX),
        ("zeal", Value::String("ä".repeat(300)), START_US),
    ];
    assert_eq!(features, expected);
    assert_eq!(
        Entity::decode(&view, &entity.encode(&view)).unwrap(),
        entity
    );
    // An older value does not replace a newer one.
    write(&mut entity, "tenure", Value::Int64(1), i64::MAX - 1);
    assert_eq!(
        Entity::decode(&view, &entity.encode(&view)).unwrap(),
        entity
    );
    let tenure = entity.snapshot(&view, START_US).profile;
    assert_eq!(tenure.get("tenure").unwrap().value, Value::Int64(i64::MIN));
}

#[test]
fn an_entity_of_ten_features_and_ten_windows_is_small() {
    let mut text = "[view]\nname = \"customer\"\nentity = \"customer_id\"\n".to_owned();
    for index in 0..10 {
        let kind = if index % 5 == 0 { "string" } else { "float64" };
        text += &format!("[[feature]]\nname = \"stored_{index}\"\ntype = \"{kind}\"\n");
    }
    let views = views(&text);
    let view = view(&views);
    let mut entity = Entity::default();
    let features = (0..10).map(|index| {
        let value = match index % 5 {
            0 => Value::String("month-to-month".to_owned()),
            _ => Value::Float64(f64::from(index) + 0.3),
        };
        named_value(&format!("stored_{index}"), &value)
    });
    let update = ProfileUpdate {
        occurred_at_us: START_US,
        features: features.collect(),
        ..ProfileUpdate::default()
    };
    entity.fold(&view, &Action::Update(&update), 1, START_US);
    assert!(entity.heap_bytes() <= 160, "{} bytes", entity.heap_bytes());
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path(), 0);
    let second = EmbeddedStore::open(dir.path());
    assert!(matches!(second, Err(StoreError::InUse(_))));
}
