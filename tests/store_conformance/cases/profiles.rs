//! What is known of an entity: what was written last, by its time, until it is removed.

use bellwether::features::value::Value;
use bellwether::store::entity::Applied;

use crate::world::*;

pub async fn unknown(world: &World) {
    let server = world.open("a");
    assert_eq!(server.read(world.customers(), "C-1").await, None);
    let none = server.store.read(&[], NOON).await.unwrap();
    assert!(none.is_empty());
}

pub async fn partial_updates(world: &World) {
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

pub async fn times(world: &World) {
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

pub async fn null(world: &World) {
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

pub async fn removals(world: &World) {
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

pub async fn order_in_a_batch(world: &World) {
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

pub async fn keys(world: &World) {
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
