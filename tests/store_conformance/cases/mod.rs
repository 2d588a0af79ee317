//! What every online store promises.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether::features::value::Value;
use bellwether::store::entity::Applied;
use bellwether::store::{Snapshot, StoreError};

use crate::world::*;

type Case = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The promises by name. Each is kept in a world of its own.
pub const CASES: &[(&str, Case)] = &[
    ("nothing is known of what was never written", |world| {
        Box::pin(unknown(world))
    }),
    ("an update of some features keeps the others", |world| {
        Box::pin(partial_updates(world))
    }),
    (
        "the value of the latest time wins, and of equal times the last",
        |world| Box::pin(times(world)),
    ),
    ("null is a value", |world| Box::pin(null(world))),
    ("a removal forgets everything, once", |world| {
        Box::pin(removals(world))
    }),
    ("an event is applied once in 24 hours", |world| {
        Box::pin(duplicates(world))
    }),
    ("changes of one batch happen in their order", |world| {
        Box::pin(order_in_a_batch(world))
    }),
    ("no two keys are the same entity", |world| {
        Box::pin(keys(world))
    }),
    ("many entities at once", |world| {
        Box::pin(many_entities(world))
    }),
    ("many changes of one entity at once", |world| {
        Box::pin(many_changes(world))
    }),
    (
        "a scan finds every entity that stays, whatever comes and goes",
        |world| Box::pin(scans(world)),
    ),
    (
        "several entities are read at once, in the order asked",
        |world| Box::pin(reads(world)),
    ),
    ("a reader sees a change whole or not at all", |world| {
        Box::pin(whole_changes(world))
    }),
    ("everything is there after a restart", |world| {
        Box::pin(restart(world))
    }),
    ("a batch applied again changes nothing", |world| {
        Box::pin(replay(world))
    }),
    ("windows count what happened in them", |world| {
        Box::pin(windows_of_time(world))
    }),
    (
        "an event after the clock counts from its time on",
        |world| Box::pin(future(world)),
    ),
];

async fn unknown(world: &World) {
    let server = world.open("a");
    assert_eq!(server.read(world.customers(), "C-1").await, None);
    let none = server.store.read(&[], NOON).await.unwrap();
    assert!(none.is_empty());
}

async fn partial_updates(world: &World) {
    let mut server = world.open("a");
    let first = update(
        "C-1",
        &[("plan", text("Fiber")), ("tenure", Value::Int64(3))],
    );
    assert_eq!(server.apply(&[first]).await, [Applied::Done]);
    let second = [
        ("tenure", Value::Int64(-4)),
        ("charges", Value::Float64(0.1)),
        ("active", Value::Bool(true)),
    ];
    server.apply(&[update("C-1", &second)]).await;
    let snapshot = server.read(world.customers(), "C-1").await.unwrap();
    let values: Vec<(&str, &Value)> = snapshot
        .profile
        .iter()
        .map(|(name, stored)| (name, &stored.value))
        .collect();
    assert_eq!(
        values,
        [
            ("active", &Value::Bool(true)),
            ("charges", &Value::Float64(0.1)),
            ("plan", &text("Fiber")),
            ("tenure", &Value::Int64(-4)),
        ]
    );
    assert_eq!(snapshot.applied, server.sequence - 1);
    // The other view's entity of that key is another one.
    assert_eq!(server.read(world.sites(), "C-1").await, None);
}

async fn times(world: &World) {
    let mut server = world.open("a");
    let customers = world.customers();
    let at = |time, plan| update_at("customer", "C-1", time, &[("plan", text(plan))]);
    server.apply(&[at(NOON, "of noon")]).await;
    server.apply(&[at(NOON - 1, "older")]).await;
    assert_eq!(
        server.value(customers, "C-1", "plan").await,
        Some(text("of noon"))
    );
    server.apply(&[at(NOON, "of noon, later")]).await;
    assert_eq!(
        server.value(customers, "C-1", "plan").await,
        Some(text("of noon, later"))
    );
    server
        .apply(&[at(NOON + 1, "newer"), at(NOON - HOUR, "much older")])
        .await;
    let snapshot = server.read(customers, "C-1").await.unwrap();
    let plan = snapshot.profile.get("plan").unwrap();
    assert_eq!((&plan.value, plan.as_of_us), (&text("newer"), NOON + 1));
    // Feature by feature: an older update still brings what was not there.
    let older = [("plan", text("oldest")), ("tenure", Value::Int64(9))];
    server
        .apply(&[update_at("customer", "C-1", NOON - HOUR, &older)])
        .await;
    assert_eq!(
        server.value(customers, "C-1", "plan").await,
        Some(text("newer"))
    );
    assert_eq!(
        server.value(customers, "C-1", "tenure").await,
        Some(Value::Int64(9))
    );
}

async fn null(world: &World) {
    let mut server = world.open("a");
    server
        .apply(&[update("C-1", &[("plan", Value::Null)])])
        .await;
    let customers = world.customers();
    assert_eq!(
        server.value(customers, "C-1", "plan").await,
        Some(Value::Null)
    );
    assert_eq!(server.value(customers, "C-1", "tenure").await, None);
    // An update without features makes the entity known.
    server.apply(&[update("C-2", &[])]).await;
    assert!(server.read(customers, "C-2").await.is_some());
}

async fn removals(world: &World) {
    let mut server = world.open("a");
    let customers = world.customers();
    assert_eq!(server.apply(&[removal("C-1")]).await, [Applied::Absent]);
    server
        .apply(&[
            update("C-1", &[("plan", text("Fiber"))]),
            event("C-1", "e1"),
        ])
        .await;
    assert_eq!(
        server.apply(&[removal("C-1"), removal("C-1")]).await,
        [Applied::Done, Applied::Absent]
    );
    assert_eq!(server.read(customers, "C-1").await, None);
    // What comes later begins anew, also with an earlier time.
    let before = update_at(
        "customer",
        "C-1",
        NOON - HOUR,
        &[("tenure", Value::Int64(1))],
    );
    server.apply(&[before]).await;
    let snapshot = server.read(customers, "C-1").await.unwrap();
    assert_eq!(snapshot.profile.len(), 1);
    // An event that was counted before the removal is still known.
    assert_eq!(
        server.apply(&[event("C-1", "e1")]).await,
        [Applied::Duplicate]
    );
    // In one batch.
    let changes = [
        update("C-2", &[("plan", text("Fiber"))]),
        removal("C-2"),
        update("C-2", &[("tenure", Value::Int64(2))]),
        update("C-3", &[("plan", text("Fiber"))]),
        removal("C-3"),
    ];
    server.apply(&changes).await;
    assert_eq!(server.value(customers, "C-2", "plan").await, None);
    assert_eq!(
        server.value(customers, "C-2", "tenure").await,
        Some(Value::Int64(2))
    );
    assert_eq!(server.read(customers, "C-3").await, None);
}

async fn duplicates(world: &World) {
    let mut server = world.open("a");
    assert_eq!(server.apply(&[event("C-1", "e1")]).await, [Applied::Done]);
    assert_eq!(
        server.apply(&[event("C-1", "e1")]).await,
        [Applied::Duplicate]
    );
    let again = [
        event("C-1", "e2"),
        event("C-1", "e1"),
        event("C-1", "e2"),
        event("C-1", "e3"),
    ];
    let expected = [
        Applied::Done,
        Applied::Duplicate,
        Applied::Duplicate,
        Applied::Done,
    ];
    assert_eq!(server.apply(&again).await, expected);
    // Another entity's event of that id is another event.
    assert_eq!(server.apply(&[event("C-2", "e1")]).await, [Applied::Done]);
    let late = server
        .apply_at(NOON + 24 * HOUR - 1, &[event("C-1", "e1")])
        .await;
    assert_eq!(late.unwrap(), [Applied::Duplicate]);
    let later = server
        .apply_at(NOON + 24 * HOUR, &[event("C-1", "e1")])
        .await;
    assert_eq!(later.unwrap(), [Applied::Done]);
    // A customer known only by events exists.
    let snapshot = server
        .read_at(world.customers(), "C-2", NOON + 24 * HOUR)
        .await;
    assert!(snapshot.unwrap().profile.is_empty());
}

async fn order_in_a_batch(world: &World) {
    let mut server = world.open("a");
    let mut changes = Vec::new();
    for round in 0..50 {
        for customer in 0..3 {
            let key = format!("C-{customer}");
            changes.push(update(
                &key,
                &[("tenure", Value::Int64(round * 3 + customer))],
            ));
            changes.push(event(&key, &format!("e{}", round / 2)));
        }
    }
    let applied = server.apply(&changes).await;
    for customer in 0..3 {
        let key = format!("C-{customer}");
        let tenure = server.value(world.customers(), &key, "tenure").await;
        assert_eq!(tenure, Some(Value::Int64(49 * 3 + customer)));
    }
    let duplicates = applied
        .iter()
        .filter(|applied| **applied == Applied::Duplicate);
    assert_eq!(duplicates.count(), 25 * 3);
}

async fn keys(world: &World) {
    let mut server = world.open("a");
    let keys = odd_keys();
    for (number, key) in keys.iter().enumerate() {
        let number = Value::Int64(number as i64);
        let done = server
            .apply(&[update(key, &[("tenure", number)]), event(key, "e1")])
            .await;
        assert_eq!(done, [Applied::Done, Applied::Done], "{key:?}");
        let risk = [("risk", Value::Float64(0.5))];
        server.apply(&[update_at("site", key, NOON, &risk)]).await;
    }
    for (number, key) in keys.iter().enumerate() {
        let tenure = server.value(world.customers(), key, "tenure").await;
        assert_eq!(tenure, Some(Value::Int64(number as i64)), "{key:?}");
        assert_eq!(
            server.apply(&[event(key, "e1")]).await,
            [Applied::Duplicate],
            "{key:?}"
        );
        server.apply(&[removal(key)]).await;
        assert_eq!(server.read(world.customers(), key).await, None, "{key:?}");
        let risk = server.value(world.sites(), key, "risk").await;
        assert_eq!(risk, Some(Value::Float64(0.5)), "{key:?}");
    }
}

async fn many_entities(world: &World) {
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

async fn scans(world: &World) {
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

async fn many_changes(world: &World) {
    let mut server = world.open("a");
    let mut changes: Vec<_> = (0..5_000)
        .map(|number| event("C-1", &format!("e{number}")))
        .collect();
    let applied = server.apply(&changes).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Done));
    changes.push(event("C-1", "new"));
    let applied = server.apply(&changes).await;
    let (new, known) = applied.split_last().unwrap();
    assert_eq!(*new, Applied::Done);
    assert!(known.iter().all(|applied| *applied == Applied::Duplicate));
    let long = "x".repeat(1024 * 1024);
    server
        .apply(&[update("C-1", &[("plan", text(&long))])])
        .await;
    assert_eq!(
        server.value(world.customers(), "C-1", "plan").await,
        Some(text(&long))
    );
}

async fn reads(world: &World) {
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

async fn whole_changes(world: &World) {
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

async fn restart(world: &World) {
    let mut server = world.open("a");
    for number in 0..20 {
        let key = format!("C-{number}");
        server
            .apply(&[update(&key, &[("plan", text("Fiber"))]), event(&key, "e1")])
            .await;
    }
    server.apply(&[removal("C-3")]).await;
    server.store.checkpoint().await.unwrap();
    let before = server.read(world.customers(), "C-1").await;
    let watermark = server.store.watermark();
    assert_eq!(watermark.sequence, server.sequence);
    drop(server);

    let mut server = world.open("a");
    assert_eq!(server.store.watermark(), watermark);
    assert_eq!(server.read(world.customers(), "C-1").await, before);
    assert_eq!(server.read(world.customers(), "C-3").await, None);
    assert_eq!(
        server.apply(&[event("C-1", "e1")]).await,
        [Applied::Duplicate]
    );
    assert_eq!(server.apply(&[event("C-1", "e2")]).await, [Applied::Done]);
}

async fn replay(world: &World) {
    let mut server = world.open("a");
    server
        .apply(&[update("C-0", &[("plan", text("first"))])])
        .await;
    server.store.checkpoint().await.unwrap();
    let changes = [
        update("C-1", &[("plan", text("before"))]),
        event("C-1", "e1"),
        removal("C-1"),
        update("C-1", &[("tenure", Value::Int64(7))]),
        event("C-1", "e2"),
        update("C-0", &[("plan", text("second"))]),
    ];
    let first = server.sequence;
    server.apply(&changes).await;
    let state = [
        server.read(world.customers(), "C-0").await,
        server.read(world.customers(), "C-1").await,
    ];
    drop(server);
    // The process died before another checkpoint: the log has more than the watermark says.
    let server = world.open("a");
    let from = server.store.watermark().sequence;
    assert!(from <= first + changes.len() as u64);
    // Twice, because a start may be interrupted as well.
    for _ in 0..2 {
        server.apply_as(first, NOON, &changes).await.unwrap();
        let replayed = [
            server.read(world.customers(), "C-0").await,
            server.read(world.customers(), "C-1").await,
        ];
        assert_eq!(replayed, state);
    }
}

async fn windows_of_time(world: &World) {
    let mut server = world.open("a");
    // Out of order, one of them twice, one too old for any window.
    let events = [
        event_at("C-1", "now", NOON),
        event_at("C-1", "half an hour ago", NOON - HOUR / 2),
        event_at("C-1", "a day ago", NOON - 24 * HOUR),
        event_at("C-1", "now", NOON),
        event_at("C-1", "two months ago", NOON - 60 * 24 * HOUR),
        event_at("C-2", "now", NOON),
    ];
    server.apply(&events).await;
    let found = async |server: &Server, at_us| {
        let snapshot = server
            .read_at(world.customers(), "C-1", at_us)
            .await
            .unwrap();
        let found = windows(world.customers(), &snapshot);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tickets_1h", "tickets_30d", "minutes", "channel"]);
        found
            .into_iter()
            .map(|(_, value)| value)
            .collect::<Vec<Value>>()
    };
    let at_noon = [
        Value::Int64(2),
        Value::Int64(3),
        Value::Float64(4.5),
        text("now"),
    ];
    assert_eq!(found(&server, NOON).await, at_noon);
    let in_two_hours = [
        Value::Int64(0),
        Value::Int64(3),
        Value::Float64(4.5),
        text("now"),
    ];
    assert_eq!(found(&server, NOON + 2 * HOUR).await, in_two_hours);
    // A late one, learned an hour later, and again after a restart.
    let late = event_at("C-1", "late", NOON - SECOND);
    let learned = server
        .apply_at(NOON + HOUR, std::slice::from_ref(&late))
        .await;
    assert_eq!(learned.unwrap(), [Applied::Done]);
    server.store.checkpoint().await.unwrap();
    drop(server);
    let mut server = world.open("a");
    let again = server.apply_at(NOON + HOUR, &[late]).await;
    assert_eq!(again.unwrap(), [Applied::Duplicate]);
    let with_late = [
        Value::Int64(2),
        Value::Int64(4),
        Value::Float64(6.0),
        text("now"),
    ];
    assert_eq!(found(&server, NOON + HOUR).await, with_late);
    // Windows and profile of an entity do not disturb each other.
    server
        .apply(&[update("C-1", &[("plan", text("Fiber"))])])
        .await;
    assert_eq!(found(&server, NOON + HOUR).await, with_late);
    server.apply(&[removal("C-1"), update("C-1", &[])]).await;
    let empty = [
        Value::Int64(0),
        Value::Int64(0),
        Value::Float64(0.0),
        Value::Null,
    ];
    assert_eq!(found(&server, NOON + HOUR).await, empty);
}

async fn future(world: &World) {
    let mut server = world.open("a");
    let soon = event_at("C-1", "soon", NOON + 3 * SECOND);
    assert_eq!(
        server.apply(&[event("C-1", "before"), soon]).await,
        [Applied::Done, Applied::Done]
    );
    for (at_us, count) in [(NOON, 1), (NOON + 3 * SECOND, 2)] {
        let snapshot = server
            .read_at(world.customers(), "C-1", at_us)
            .await
            .unwrap();
        let (_, tickets) = &windows(world.customers(), &snapshot)[0];
        assert_eq!(*tickets, Value::Int64(count));
    }
    // Only so many are kept; one that is refused leaves the entity as it was, and may come again.
    let crowd: Vec<_> = (0..500)
        .map(|number| event_at("C-2", &format!("e{number}"), NOON + HOUR + number))
        .collect();
    let applied = server.apply(&crowd).await;
    let refused = applied
        .iter()
        .position(|applied| matches!(applied, Applied::Refused(_)))
        .unwrap();
    let snapshot = server
        .read_at(world.customers(), "C-2", NOON + 2 * HOUR)
        .await
        .unwrap();
    let (_, tickets) = &windows(world.customers(), &snapshot)[1];
    assert_eq!(*tickets, Value::Int64(refused as i64));
}
