//! Entities in memory: their budget, and who reads them while they come and go.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::entity::Action;

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
