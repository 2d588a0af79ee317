//! What a shared store promises besides: servers agree, and an outage hangs and loses nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellwether::config::StoreConfig;
use bellwether::features::change::Change;
use bellwether::features::value::Value;
use bellwether::store::StoreError;
use bellwether::store::entity::Applied;

use crate::servers::{RedisServer, redis_is_installed};
use crate::settings;
use crate::world::*;

/// Much longer than any time that is configured here, much shorter than for ever.
const NO_HANG: Duration = Duration::from_secs(30);

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
}

/// A store with these settings is not available, and says why in words that hold `reason`.
pub fn is_refused(config: &StoreConfig, reason: &str) {
    run(async {
        let world = World::new(Some(config.clone()));
        let server = world.open("a");
        let problem = server
            .store
            .read(&[(world.customers(), "C-1")], NOON)
            .await
            .unwrap_err();
        assert!(matches!(problem, StoreError::Unavailable(_)), "{problem}");
        assert!(problem.to_string().contains(reason), "{problem}");
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    });
}

#[test]
fn servers_that_write_the_same_entities_agree_and_nothing_is_lost_or_doubled() {
    if !redis_is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let mut writers = Vec::new();
        for (number, feature) in ["plan", "tenure", "charges"].into_iter().enumerate() {
            let mut server = world.open(&format!("server-{number}"));
            // All send the same events, as a broker may deliver them, each in another order; and each
            // writes a feature of its own.
            writers.push(tokio::spawn(async move {
                let mut done: BTreeMap<String, u32> = BTreeMap::new();
                for round in 0..40_i64 {
                    let mut changes = Vec::new();
                    for customer in 0..5_i64 {
                        let key = format!("C-{customer}");
                        let value = match feature {
                            "plan" => text(&round.to_string()),
                            "tenure" => Value::Int64(round),
                            _ => Value::Float64(round as f64),
                        };
                        changes.push(update_at(
                            "customer",
                            &key,
                            NOON + round,
                            &[(feature, value)],
                        ));
                        let turn = (round + 13 * number as i64) % 40;
                        changes.push(event(&key, &format!("e{turn}")));
                    }
                    let applied = server.apply(&changes).await;
                    for (index, applied) in
                        applied.into_iter().enumerate().filter(|(i, _)| i % 2 == 1)
                    {
                        let turn = (round + 13 * number as i64) % 40;
                        let count = done.entry(format!("C-{} e{turn}", index / 2)).or_default();
                        *count += u32::from(applied == Applied::Done);
                    }
                }
                (server, done)
            }));
        }
        let mut done: BTreeMap<String, u32> = BTreeMap::new();
        let mut servers = Vec::new();
        for writer in writers {
            let (server, of_server) = writer.await.unwrap();
            for (event, count) in of_server {
                *done.entry(event).or_default() += count;
            }
            servers.push(server);
        }
        assert_eq!(done.len(), 5 * 40);
        assert!(done.values().all(|count| *count == 1), "{done:?}");
        for customer in 0..5 {
            let key = format!("C-{customer}");
            let first = servers[0].read(world.customers(), &key).await;
            let counted = windows(world.customers(), first.as_ref().unwrap());
            assert_eq!(counted[1], ("tickets_30d".to_owned(), Value::Int64(40)));
            assert_eq!(counted[2], ("minutes".to_owned(), Value::Float64(60.0)));
            for server in &servers {
                assert_eq!(server.read(world.customers(), &key).await, first);
                assert_eq!(
                    server.value(world.customers(), &key, "plan").await,
                    Some(text("39"))
                );
                assert_eq!(
                    server.value(world.customers(), &key, "tenure").await,
                    Some(Value::Int64(39))
                );
                assert_eq!(
                    server.value(world.customers(), &key, "charges").await,
                    Some(Value::Float64(39.0))
                );
            }
        }
    });
}

#[test]
fn a_replay_does_not_undo_what_another_server_wrote_since() {
    if !redis_is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let mut first = world.open("a");
        let changes = [update("C-1", &[("plan", text("old"))]), removal("C-1")];
        let number = first.sequence;
        first.apply(&changes).await;
        let mut second = world.open("b");
        second
            .apply(&[update("C-1", &[("tenure", Value::Int64(1))])])
            .await;
        // The first one died before a checkpoint, and sends its log again.
        let first = world.open("a");
        first.apply_as(number, NOON, &changes).await.unwrap();
        assert_eq!(
            second.value(world.customers(), "C-1", "tenure").await,
            Some(Value::Int64(1))
        );
        assert_eq!(second.value(world.customers(), "C-1", "plan").await, None);
    });
}

/// Asks until there is an answer.
async fn until_it_answers(server: &Server, world: &World) {
    let deadline = Instant::now() + NO_HANG;
    while let Err(problem) = server.store.read(&[(world.customers(), "C-1")], NOON).await {
        assert!(
            Instant::now() < deadline,
            "it does not come back: {problem}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends changes, which may be sent again, until there is an answer: with so little patience a busy
/// machine is as good as lost for a moment.
async fn apply_until_it_answers(server: &Server, changes: &[Change]) -> Vec<Applied> {
    let deadline = Instant::now() + NO_HANG;
    loop {
        match server.apply_as(server.sequence, NOON, changes).await {
            Ok(applied) => return applied,
            Err(problem) => assert!(Instant::now() < deadline, "not applied: {problem}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_lost_server_fails_reads_and_writes_without_a_hang_and_is_used_again_when_it_is_back() {
    if !redis_is_installed() {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    run(async {
        let config = StoreConfig {
            timeout: Duration::from_millis(200),
            ..settings(&redis.url())
        };
        let world = World::new(Some(config));
        let mut server = world.open("a");
        until_it_answers(&server, &world).await;
        let changes = [
            update("C-1", &[("plan", text("Fiber"))]),
            event("C-1", "e1"),
        ];
        for silent in [true, false] {
            if silent {
                redis.freeze();
            } else {
                redis.kill();
            }
            for _ in 0..10 {
                let wanted = [(world.customers(), "C-1")];
                let read = server.store.read(&wanted, NOON);
                let read = tokio::time::timeout(NO_HANG, read)
                    .await
                    .expect("a read hangs");
                assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
                let apply = server.apply_as(server.sequence, NOON, &changes);
                let apply = tokio::time::timeout(NO_HANG, apply)
                    .await
                    .expect("a write hangs");
                assert!(
                    matches!(apply, Err(StoreError::Unavailable(_))),
                    "{apply:?}"
                );
            }
            if silent {
                redis.thaw();
            } else {
                redis.restart();
            }
            until_it_answers(&server, &world).await;
            // What was refused is sent again until it works; the script is known again as well. A
            // frozen server may have done it when it woke.
            apply_until_it_answers(&server, &changes).await;
            server.sequence += 2;
            let again = apply_until_it_answers(&server, &[event("C-1", "e1")]).await;
            server.sequence += 1;
            assert_eq!(again, [Applied::Duplicate]);
            // With a patience that a busy machine does not exhaust.
            let patient = World::new(Some(settings(&redis.url())));
            assert_eq!(
                patient
                    .open("b")
                    .value(patient.customers(), "C-1", "plan")
                    .await,
                Some(text("Fiber"))
            );
        }
    });
}

#[test]
fn a_server_that_is_not_there_at_the_start_is_used_when_it_comes() {
    if !redis_is_installed() {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    redis.kill();
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let server = world.open("a");
        let problem = server.store.read(&[(world.customers(), "C-1")], NOON).await;
        assert!(
            matches!(problem, Err(StoreError::Unavailable(_))),
            "{problem:?}"
        );
        redis.restart();
        until_it_answers(&server, &world).await;
    });
}

#[test]
fn scripts_that_the_server_has_forgotten_are_sent_again() {
    if !redis_is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let mut server = world.open("a");
        for number in 0..3 {
            let flushed: String = redis::cmd("SCRIPT")
                .arg("FLUSH")
                .query(&mut redis.admin())
                .unwrap();
            assert_eq!(flushed, "OK");
            let done = server
                .apply(&[event("C-1", &format!("e{number}")), event("C-2", "e")])
                .await;
            assert_eq!(done[0], Applied::Done);
        }
    });
}

#[test]
fn user_password_and_database_are_used_and_not_repeated() {
    if !redis_is_installed() {
        return;
    }
    // The rights that the guide for operations names, and no others.
    let rights = "+get +mget +set +getrange +evalsha +script|load +ping +select";
    let mut arguments = vec![
        "--requirepass",
        "x",
        "--user",
        "bellwether",
        "on",
        ">hunter2",
        "~bw:*",
    ];
    arguments.extend(rights.split(' '));
    let redis = RedisServer::start(&arguments);
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}/3", redis.port);
    is_refused(&settings(&url("")), "uthentication");
    is_refused(&settings(&url("bellwether:hunter22@")), "uthentication");
    run(async {
        let world = World::new(Some(settings(&url("bellwether:hunter2@"))));
        let mut server = world.open("a");
        assert_eq!(server.apply(&[event("C-1", "e1")]).await, [Applied::Done]);
    });
    let client = redis::Client::open(format!("redis://:x@127.0.0.1:{}/3", redis.port)).unwrap();
    let size: u32 = redis::cmd("DBSIZE")
        .query(&mut client.get_connection().unwrap())
        .unwrap();
    assert_eq!(size, 2);
}

#[test]
fn an_event_is_forgotten_after_a_day_and_an_entity_never() {
    if !redis_is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let mut server = world.open("a");
        server.apply(&[event("C-1", "e1")]).await;
        let mut admin = redis.admin();
        let mut ttl = |key: &str| redis::cmd("TTL").arg(key).query::<i64>(&mut admin).unwrap();
        assert_eq!(ttl("bw:{customer:C-1}"), -1);
        let mut keys = crate::servers::keys(&redis);
        keys.retain(|key| key.contains(":e:"));
        assert_eq!(keys.len(), 1);
        assert!(ttl(&keys[0]) > 86_000);
        server.apply(&[removal("C-1")]).await;
        assert!(ttl("bw:{customer:C-1}") > 86_000);
    });
}

#[test]
fn a_value_that_cannot_be_read_refuses_its_changes_and_no_others() {
    if !redis_is_installed() {
        return;
    }
    let redis = RedisServer::start(&[]);
    run(async {
        let world = World::new(Some(settings(&redis.url())));
        let mut server = world.open("a");
        let _: () = redis::cmd("SET")
            .arg("bw:{customer:C-1}")
            .arg("somebody else's")
            .query(&mut redis.admin())
            .unwrap();
        let applied = server
            .apply(&[event("C-1", "e1"), event("C-2", "e1")])
            .await;
        assert!(
            matches!(&applied[0], Applied::Refused(problem) if problem.contains("damaged")),
            "{applied:?}"
        );
        assert_eq!(applied[1], Applied::Done);
        let problem = server
            .store
            .read(&[(world.customers(), "C-1")], NOON)
            .await
            .unwrap_err();
        assert!(matches!(problem, StoreError::Damaged { .. }), "{problem}");
    });
}
