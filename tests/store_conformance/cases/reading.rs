//! Readers: one entity, some, or all, while others write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether::features::value::Value;
use bellwether::store::entity::Applied;
use bellwether::store::{Snapshot, StoreError};

use crate::world::*;

pub async fn many_entities(world: &World) {
    let mut server = world.open("a");
    let names: Vec<String> = (0..3_500).map(|number| format!("C-{number}")).collect();
    let tenure = |name: &String| Value::Int64(name.len() as i64);
    let changes: Vec<_> = names
        .iter()
        .map(|name| update(name, &[("tenure", tenure(name))]))
        .collect();
    let applied = server.apply(&changes).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Done));
    let wanted: Vec<_> = names
        .iter()
        .map(|name| (world.customers(), name.as_str()))
        .collect();
    let found = server.store.read(&wanted, NOON).await.unwrap();
    assert_eq!(found.len(), names.len());
    for (name, found) in names.iter().zip(found) {
        let found = found.unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(found.profile.get("tenure").unwrap().value, tenure(name));
    }
}

pub async fn scans(world: &World) {
    let mut server = world.open("a");
    let view = world.customers();
    let stays = |number: i64| {
        format!(
            "{}-{number}",
            ["C", "{}", "ü *", "a\u{1f}b"][number as usize % 4]
        )
    };
    let tenure = |number: i64| [("tenure", Value::Int64(number))];
    let changes: Vec<_> = (0..700).map(|n| update(&stays(n), &tenure(n))).collect();
    server.apply(&changes).await;
    server
        .apply(&[update("gone", &tenure(1)), removal("gone")])
        .await;
    server
        .apply(&[event("C-0", "e1"), event("only events", "e1")])
        .await;
    server
        .apply(&[update_at(
            "site",
            "C-1",
            NOON,
            &[("risk", Value::Float64(0.5))],
        )])
        .await;

    let mut found: Vec<(String, Snapshot)> = Vec::new();
    let mut after: Option<String> = None;
    for number in 0.. {
        let page = server
            .store
            .scan(view, after.as_deref(), 50, NOON)
            .await
            .unwrap();
        assert!(
            page.entities.len() < 500,
            "a page is not much longer than asked for"
        );
        found.extend(page.entities);
        let Some(next) = page.next else { break };
        after = Some(next);
        // Others come and go before and behind, and one changes.
        let (first, last) = (format!("!{number}"), format!("~{number}"));
        server
            .apply(&[update(&first, &tenure(0)), update(&last, &tenure(0))])
            .await;
        server
            .apply(&[removal(&first), update("only events", &tenure(number))])
            .await;
    }
    let in_order = server.store.scans_in_order();
    assert!(
        !in_order || found.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "each comes once"
    );
    let known: BTreeMap<String, Snapshot> = found.into_iter().collect();
    for number in 0..700 {
        let snapshot = &known[&stays(number)];
        assert_eq!(
            snapshot.profile.get("tenure").unwrap().value,
            Value::Int64(number)
        );
        let now = server.read(view, &stays(number)).await.unwrap();
        assert_eq!(*snapshot, now);
    }
    assert!(known.contains_key("only events") && !known.contains_key("gone"));
    let sites = server
        .store
        .scan(world.sites(), None, 50, NOON)
        .await
        .unwrap();
    assert_eq!((sites.entities.len(), sites.next), (1, None));
    if !in_order {
        let nowhere = server.store.scan(view, Some("C-1"), 50, NOON).await;
        assert!(matches!(nowhere, Err(StoreError::Place(_))));
    }
}

pub async fn reads(world: &World) {
    let mut server = world.open("a");
    let risk = [("risk", Value::Float64(0.25))];
    server
        .apply(&[
            update("C-1", &[("plan", text("Fiber"))]),
            update_at("site", "S-1", NOON, &risk),
        ])
        .await;
    let (customers, sites) = (world.customers(), world.sites());
    let wanted = [
        (sites, "S-1"),
        (customers, "C-2"),
        (customers, "C-1"),
        (sites, "S-1"),
        (sites, "C-1"),
    ];
    let found = server.store.read(&wanted, NOON).await.unwrap();
    let value = |snapshot: &Option<Snapshot>, name| {
        snapshot
            .as_ref()
            .map(|snapshot| snapshot.profile.get(name).unwrap().value.clone())
    };
    assert_eq!(value(&found[0], "risk"), Some(Value::Float64(0.25)));
    assert_eq!(found[1], None);
    assert_eq!(value(&found[2], "plan"), Some(text("Fiber")));
    assert_eq!(found[3], found[0]);
    assert_eq!(found[4], None);
}

pub async fn whole_changes(world: &World) {
    let mut server = world.open("a");
    let both = |number: i64| {
        let charges = Value::Float64(number as f64);
        update(
            "C-1",
            &[("tenure", Value::Int64(number)), ("charges", charges)],
        )
    };
    server.apply(&[both(0)]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..3 {
        let store = Arc::clone(&server.store);
        let customers = Arc::clone(world.customers());
        let is_over = Arc::clone(&is_over);
        readers.push(tokio::spawn(async move {
            let (mut last, mut count) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let found = bellwether::store::read_one(&*store, &customers, "C-1", NOON).await;
                let profile = found.unwrap().unwrap().profile;
                let Value::Int64(tenure) = profile.get("tenure").unwrap().value else {
                    panic!("{profile:?}");
                };
                let charges = Value::Float64(tenure as f64);
                assert_eq!(profile.get("charges").unwrap().value, charges);
                assert!(tenure >= last, "{tenure} after {last}");
                last = tenure;
                count += 1;
                tokio::task::yield_now().await;
            }
            count
        }));
    }
    for number in 1..300 {
        server.apply(&[both(number)]).await;
        // What was applied is seen by every read that begins later.
        let tenure = server.value(world.customers(), "C-1", "tenure").await;
        assert_eq!(tenure, Some(Value::Int64(number)));
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}
