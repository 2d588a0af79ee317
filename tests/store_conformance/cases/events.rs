//! Events: counted once, in the windows that they fall into.

use bellwether::features::value::Value;
use bellwether::store::entity::Applied;

use crate::world::*;

pub async fn duplicates(world: &World) {
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

pub async fn many_changes(world: &World) {
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

pub async fn windows_of_time(world: &World) {
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

pub async fn future(world: &World) {
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
