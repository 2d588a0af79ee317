//! What ingestion promises: changes are applied in the order of the log, once, and a server that died
//! ends where one that did not would be.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bellwether::features::change::{Change, Event, KeyColumn, ProfileUpdate, Removal, What};
use bellwether::features::value::Value;
use bellwether::features::view::View;
use bellwether::features::views::Views;
use bellwether::ingest::{CurrentViews, Ingest};
use bellwether::ledger::{
    ChangeBatch, Ledger, LedgerError, LedgerOptions, export_parquet, read_changes, verify,
};
use bellwether::store::embedded::EmbeddedStore;
use bellwether::store::entity::{Applied, named_value};
use bellwether::store::{OnlineStore, read_one};

const VIEW: &str = r#"
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "tenure"
type = "int64"
"#;

struct Server {
    ingest: Ingest,
    store: Arc<dyn OnlineStore>,
    view: Arc<View>,
}

fn views(dir: &Path) -> CurrentViews {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("customer.toml"), VIEW).unwrap();
    Arc::new(ArcSwap::from_pointee(Views::load(dir).unwrap()))
}

fn start(dir: &Path, store: &str) -> Server {
    start_with(dir, store, LedgerOptions::default()).unwrap()
}

fn start_with(dir: &Path, store: &str, options: LedgerOptions) -> Result<Server, String> {
    let views = views(&dir.join("features"));
    let view = Arc::clone(views.load().get("customer").unwrap());
    let ledger = Ledger::open(dir, options).map_err(|error| error.to_string())?;
    let store: Arc<dyn OnlineStore> = Arc::new(EmbeddedStore::open(&dir.join(store)).unwrap());
    let ingest = Ingest::start(views, Arc::new(ledger), Arc::clone(&store), dir.to_owned());
    Ok(Server {
        ingest: ingest.map_err(|error| error.to_string())?,
        store,
        view,
    })
}

fn update(key: &str, tenure: i64, occurred_at_us: i64) -> Change {
    let update = ProfileUpdate {
        view: "customer".to_owned(),
        key: key.to_owned(),
        occurred_at_us,
        features: vec![named_value("tenure", &Value::Int64(tenure))],
    };
    Change {
        known_at_us: None,
        what: Some(What::Update(update)),
    }
}

fn event(key: &str, event_id: &str) -> Change {
    let event = Event {
        event_id: event_id.to_owned(),
        event: "ticket".to_owned(),
        keys: vec![KeyColumn {
            column: "customer_id".to_owned(),
            value: key.to_owned(),
        }],
        occurred_at_us: 5,
        properties: String::new(),
    };
    Change {
        known_at_us: None,
        what: Some(What::Event(event)),
    }
}

fn removal(key: &str) -> Change {
    let removal = Removal {
        view: "customer".to_owned(),
        key: key.to_owned(),
    };
    Change {
        known_at_us: None,
        what: Some(What::Removal(removal)),
    }
}

async fn tenure(server: &Server, key: &str) -> Option<Value> {
    let at_us = bellwether::clock::now_us();
    let snapshot = read_one(&*server.store, &server.view, key, at_us)
        .await
        .unwrap()?;
    let stored = snapshot.profile.get("tenure");
    Some(stored.map_or(Value::Null, |stored| stored.value.clone()))
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_store_and_in_the_log_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "store");
    let first = vec![update("a", 1, 10), event("b", "e1"), event("b", "e1")];
    let applied = server.ingest.submit(first).await.unwrap();
    assert_eq!(applied, [Applied::Done, Applied::Done, Applied::Duplicate]);
    // An older value does not replace a newer one.
    server.ingest.submit(vec![update("a", 9, 3)]).await.unwrap();
    assert_eq!(tenure(&server, "a").await, Some(Value::Int64(1)));
    // Known by an event only.
    assert_eq!(tenure(&server, "b").await, Some(Value::Null));
    let applied = server
        .ingest
        .submit(vec![removal("a"), removal("a")])
        .await
        .unwrap();
    assert_eq!(applied, [Applied::Done, Applied::Absent]);
    assert_eq!(tenure(&server, "a").await, None);

    // Beside the running server the log can be read.
    let mut batches: Vec<ChangeBatch> = Vec::new();
    read_changes(dir.path(), 0, |batch| {
        batches.push(batch);
        Ok::<(), LedgerError>(())
    })
    .unwrap();
    let numbers: Vec<(u64, usize)> = batches
        .iter()
        .map(|b| (b.sequence, b.changes.len()))
        .collect();
    assert_eq!(numbers, [(1, 3), (4, 1), (5, 2)]);
    assert!(
        batches
            .windows(2)
            .all(|pair| pair[0].known_at_us <= pair[1].known_at_us)
    );
    drop(server);
    let report = verify(dir.path()).unwrap();
    assert!(report.sound && report.changes == 6, "{report}");
    let output = dir.path().join("export");
    let exported = export_parquet(dir.path(), &output).unwrap();
    assert_eq!(exported.change_rows, 6);
    assert!(output.join("changes-00001.parquet").is_file());
}

#[tokio::test]
async fn a_store_that_lost_everything_is_rebuilt_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), "store");
    for round in 0..20 {
        let changes = (0..50).map(|key| update(&format!("c{key}"), round * 100 + key, round));
        server.ingest.submit(changes.collect()).await.unwrap();
    }
    server
        .ingest
        .submit(vec![removal("c7"), event("c8", "x")])
        .await
        .unwrap();
    drop(server);

    // An empty store beside the same log.
    let server = start(dir.path(), "another");
    assert_eq!(tenure(&server, "c3").await, Some(Value::Int64(1903)));
    assert_eq!(tenure(&server, "c7").await, None);
    let applied = server
        .ingest
        .submit(vec![event("c8", "x"), update("c7", 1, 1)])
        .await
        .unwrap();
    assert_eq!(applied, [Applied::Duplicate, Applied::Done]);
}

#[tokio::test]
async fn a_start_that_cannot_read_the_log_to_be_replayed_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = || LedgerOptions {
        segment_bytes: 16 * 1024,
        ..LedgerOptions::default()
    };
    let server = start_with(dir.path(), "store", options()).unwrap();
    for round in 0..20 {
        let changes = (0..200).map(|key| update(&format!("c{round}-{key}"), key, round));
        server.ingest.submit(changes.collect()).await.unwrap();
    }
    drop(server);
    let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("ledger"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    std::fs::write(&segments[0], bytes).unwrap();

    // A store that has everything needs nothing of that segment.
    drop(start_with(dir.path(), "store", options()).unwrap());
    // One that has to be rebuilt says what it cannot read, rather than to serve a part.
    let error = start_with(dir.path(), "another", options()).err().unwrap();
    let name = segments[0].file_name().unwrap().to_str().unwrap();
    assert!(
        error.contains(name) && error.contains("damaged at byte"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_many_callers_are_numbered_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(start(dir.path(), "store"));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..16 {
        let server = Arc::clone(&server);
        callers.spawn(async move {
            for round in 0..20 {
                let changes = vec![update(&format!("c{caller}"), round, round); 3];
                server.ingest.submit(changes).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    for caller in 0..16 {
        assert_eq!(
            tenure(&server, &format!("c{caller}")).await,
            Some(Value::Int64(19))
        );
    }
    drop(server);
    let report = verify(dir.path()).unwrap();
    assert!(report.sound && report.changes == 16 * 20 * 3, "{report}");
}
