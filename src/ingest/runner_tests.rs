//! What the runner promises, with a broker in memory.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::features::view::View;
use crate::features::views::Views;
use crate::ingest::dead_letters::Limits;
use crate::ingest::source::SourceFuture;
use crate::ledger::{Ledger, LedgerOptions};
use crate::store::embedded::EmbeddedStore;
use crate::store::entity::Applied;
use crate::store::{Batch, OnlineStore, Snapshot, StoreError, StoreFuture, Watermark, read_one};

/// What the test sees of the broker.
#[derive(Default)]
struct Broker {
    refused_connections: usize,
    refused_acknowledgements: usize,
    waiting: VecDeque<Message>,
    delivered: Vec<Message>,
    acknowledged: Vec<u64>,
}

struct FakeSource(Arc<Mutex<Broker>>);

impl Source for FakeSource {
    fn connect(&mut self) -> SourceFuture<'_, ()> {
        Box::pin(async {
            let mut broker = self.0.lock().unwrap();
            if broker.refused_connections > 0 {
                broker.refused_connections -= 1;
                return Err(SourceError("down".to_owned()));
            }
            // What was not acknowledged comes again.
            let unsettled: Vec<Message> = std::mem::take(&mut broker.delivered)
                .into_iter()
                .filter(|message| !broker.acknowledged.contains(&message.sequence))
                .collect();
            broker.waiting.extend(unsettled);
            Ok(())
        })
    }

    fn fetch(&self) -> SourceFuture<'_, Vec<Message>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut broker = self.0.lock().unwrap();
            let batch: Vec<Message> = broker.waiting.drain(..).collect();
            broker.delivered.extend(batch.clone());
            Ok(batch)
        })
    }

    fn acknowledge<'a>(&'a self, messages: &'a [Message]) -> SourceFuture<'a, ()> {
        Box::pin(async move {
            let mut broker = self.0.lock().unwrap();
            if broker.refused_acknowledgements > 0 {
                broker.refused_acknowledgements -= 1;
                return Err(SourceError("gone".to_owned()));
            }
            broker
                .acknowledged
                .extend(messages.iter().map(|message| message.sequence));
            Ok(())
        })
    }

    fn lag(&self) -> SourceFuture<'_, u64> {
        Box::pin(async { Ok(self.0.lock().unwrap().waiting.len() as u64) })
    }
}

/// A store that can be out of reach.
struct Store {
    inner: EmbeddedStore,
    is_down: Arc<AtomicBool>,
}

impl OnlineStore for Store {
    fn read<'a>(
        &'a self,
        wanted: &'a [(&'a Arc<View>, &'a str)],
        at_us: i64,
    ) -> StoreFuture<'a, Vec<Option<Snapshot>>> {
        self.inner.read(wanted, at_us)
    }

    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> StoreFuture<'a, Vec<Vec<Applied>>> {
        if self.is_down.load(Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Unavailable("down".to_owned())) });
        }
        self.inner.apply(batch)
    }

    fn watermark(&self) -> Watermark {
        self.inner.watermark()
    }

    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        self.inner.checkpoint()
    }
}

struct World {
    dir: tempfile::TempDir,
    broker: Arc<Mutex<Broker>>,
    store: Arc<dyn OnlineStore>,
    is_down: Arc<AtomicBool>,
    view: Arc<View>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

fn event(sequence: u64) -> Message {
    let payload = json!({
        "event_id": format!("e{sequence}"), "event": "ticket", "customer_id": format!("c{sequence}"),
        "occurred_at": "2026-01-31T12:00:00Z", "properties": {}
    });
    message(sequence, payload.to_string().as_bytes())
}

fn message(sequence: u64, payload: &[u8]) -> Message {
    Message {
        payload: payload.to_vec().into(),
        headers: Vec::new(),
        stream: "events".to_owned(),
        subject: "events.ticket".to_owned(),
        sequence,
        taken_at_us: None,
        redelivered: false,
        receipt: String::new(),
    }
}

fn load_views(dir: &Path) -> Views {
    let file = "[view]\nname = 'customer'\nentity = 'customer_id'\n\
                [[feature]]\nname = 'tenure'\ntype = 'int64'\n";
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("customer.toml"), file).unwrap();
    Views::load(dir).unwrap()
}

fn start(broker: Broker) -> World {
    let dir = tempfile::tempdir().unwrap();
    let views = load_views(&dir.path().join("features"));
    let view = Arc::clone(views.get("customer").unwrap());
    let is_down = Arc::new(AtomicBool::new(false));
    let store: Arc<dyn OnlineStore> = Arc::new(Store {
        inner: EmbeddedStore::open(&dir.path().join("store")).unwrap(),
        is_down: Arc::clone(&is_down),
    });
    let ledger = Arc::new(Ledger::open(dir.path(), LedgerOptions::default()).unwrap());
    let ingest = Ingest::start(
        Arc::new(ArcSwap::from_pointee(views)),
        ledger,
        Arc::clone(&store),
        dir.path().to_owned(),
    );
    let broker = Arc::new(Mutex::new(broker));
    let (stop, stopped) = watch::channel(false);
    let runner = Runner {
        name: "crm".to_owned(),
        source: Box::new(FakeSource(Arc::clone(&broker))),
        format: Format::Json,
        origin: Origin::Nats,
        events: EventsConfig::default(),
        ingest: Arc::new(ingest.unwrap()),
        dead_letters: Arc::new(DeadLetters::new(dir.path(), "crm", Limits::default())),
        stop: stopped,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(runner.run());
    World {
        dir,
        broker,
        store,
        is_down,
        view,
        stop,
        tasks,
    }
}

impl World {
    async fn wait_for_acknowledged(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.broker.lock().unwrap().acknowledged.len() < count {
            assert!(Instant::now() < deadline, "not acknowledged");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn knows(&self, customer: &str) -> bool {
        let read = read_one(&*self.store, &self.view, customer, crate::clock::now_us());
        read.await.unwrap().is_some()
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(true).unwrap();
        self.tasks.join_all().await;
        self.dir
    }
}

#[tokio::test]
async fn events_are_applied_before_they_are_acknowledged() {
    let world = start(Broker {
        waiting: (1..=3).map(event).collect(),
        ..Broker::default()
    });
    world.wait_for_acknowledged(3).await;
    assert_eq!(world.broker.lock().unwrap().acknowledged, [1, 2, 3]);
    for customer in ["c1", "c2", "c3"] {
        assert!(world.knows(customer).await, "{customer}");
    }
    world.stop().await;
}

#[tokio::test]
async fn poison_is_buried_with_its_reason_and_does_not_hold_up_the_others() {
    let world = start(Broker {
        waiting: [event(1), message(2, b"{oops"), message(3, b"{}"), event(4)].into(),
        ..Broker::default()
    });
    world.wait_for_acknowledged(4).await;
    assert!(world.knows("c1").await && world.knows("c4").await);
    let dir = world.stop().await;
    let text = std::fs::read_to_string(dir.path().join("dead-letters/crm.ndjson")).unwrap();
    let letters: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(letters.len(), 2, "{text}");
    assert_eq!(letters[0]["sequence"], json!(2));
    assert_eq!(letters[0]["payload"], json!("{oops"));
    assert_eq!(letters[1]["sequence"], json!(3));
    for letter in letters {
        assert!(!letter["reason"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_broker_that_is_down_is_tried_again() {
    let world = start(Broker {
        refused_connections: 2,
        refused_acknowledgements: 1,
        waiting: [event(1)].into(),
        ..Broker::default()
    });
    world.wait_for_acknowledged(1).await;
    assert!(world.knows("c1").await);
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_while_the_store_is_out_of_reach() {
    let world = start(Broker::default());
    world.is_down.store(true, Ordering::SeqCst);
    world.broker.lock().unwrap().waiting.push_back(event(1));
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.broker.lock().unwrap().delivered.is_empty() {
        assert!(Instant::now() < deadline, "not fetched");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(world.broker.lock().unwrap().acknowledged.is_empty());
    world.is_down.store(false, Ordering::SeqCst);
    world.wait_for_acknowledged(1).await;
    assert!(world.knows("c1").await);
    world.stop().await;
}
