//! What is there after a restart, and what a log that is applied again does to it.

use bellwether::features::value::Value;
use bellwether::store::entity::Applied;

use crate::world::*;

pub async fn restart(world: &World) {
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

pub async fn replay(world: &World) {
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
