//! What the applier does while the disk under the store fails, with a store whose disk fails when told.

use std::sync::atomic::AtomicU32;

use arc_swap::ArcSwap;

use super::*;
use crate::features::change::{Change, ProfileUpdate, What};
use crate::features::view::View;
use crate::ingest::{Ingest, IngestError, STUCK_AFTER};
use crate::ledger::{Ledger, LedgerOptions};
use crate::store::{Batch, Snapshot, StoreFuture, Watermark};

/// Applies everything, unless its disk fails.
#[derive(Default)]
struct FailingStore {
    is_failing: AtomicBool,
    tried: AtomicU32,
}

impl OnlineStore for FailingStore {
    fn read<'a>(
        &'a self,
        wanted: &'a [(&'a Arc<View>, &'a str)],
        _at_us: i64,
    ) -> StoreFuture<'a, Vec<Option<Snapshot>>> {
        Box::pin(async { Ok(vec![None; wanted.len()]) })
    }

    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> StoreFuture<'a, Vec<Vec<Applied>>> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        let outcome = if self.is_failing.load(Ordering::SeqCst) {
            Err(StoreError::Io("no space left on device".to_owned()))
        } else {
            let views = batch.views.iter();
            Ok(views
                .map(|part| vec![Applied::Done; part.work.len()])
                .collect())
        };
        Box::pin(async { outcome })
    }

    fn watermark(&self) -> Watermark {
        Watermark::default()
    }

    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct World {
    store: Arc<FailingStore>,
    ingest: Ingest,
    _dir: tempfile::TempDir,
}

fn start(stuck_after: Duration) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = "[view]\nname = 'customer'\nentity = 'customer_id'\n\
                [[feature]]\nname = 'tenure'\ntype = 'int64'\n";
    let features = dir.path().join("features");
    std::fs::create_dir_all(&features).unwrap();
    std::fs::write(features.join("customer.toml"), file).unwrap();
    let views = Arc::new(ArcSwap::from_pointee(Views::load(&features).unwrap()));
    let ledger = Arc::new(Ledger::open(dir.path(), LedgerOptions::default()).unwrap());
    let store = Arc::new(FailingStore::default());
    let ingest = Ingest::start_with(
        views,
        ledger,
        Arc::clone(&store) as Arc<dyn OnlineStore>,
        dir.path().to_owned(),
        stuck_after,
    );
    World {
        store,
        ingest: ingest.unwrap(),
        _dir: dir,
    }
}

fn update() -> Change {
    let update = ProfileUpdate {
        view: "customer".to_owned(),
        key: "C-1".to_owned(),
        ..ProfileUpdate::default()
    };
    Change {
        known_at_us: None,
        what: Some(What::Update(update)),
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_disk_that_fails_for_long_makes_the_server_unready_until_it_works_again() {
    let world = start(Duration::ZERO);
    assert!(world.ingest.healthy());
    world.store.is_failing.store(true, Ordering::SeqCst);
    let submitted = world.ingest.submit(vec![update()]);
    let watch = async {
        wait_until("it says that it is not ready", || !world.ingest.healthy()).await;
        world.store.is_failing.store(false, Ordering::SeqCst);
        wait_until("it is ready again", || world.ingest.healthy()).await;
    };
    let (applied, ()) = tokio::join!(submitted, watch);
    // What waited is applied and acknowledged, or its caller has left; it is not lost.
    assert!(matches!(applied, Ok(_) | Err(IngestError::Unconfirmed)));
    wait_until("nothing waits", || world.ingest.waiting() == 0).await;
    assert_eq!(
        world.ingest.submit(vec![update()]).await.unwrap(),
        [Applied::Done]
    );
}

#[tokio::test]
async fn a_disk_that_fails_for_a_moment_does_not_make_the_server_unready() {
    let world = start(STUCK_AFTER);
    world.store.is_failing.store(true, Ordering::SeqCst);
    let submitted = world.ingest.submit(vec![update()]);
    let watch = async {
        wait_until("it tries again", || {
            world.store.tried.load(Ordering::SeqCst) > 2
        })
        .await;
        assert!(world.ingest.healthy());
        world.store.is_failing.store(false, Ordering::SeqCst);
    };
    let (applied, ()) = tokio::join!(submitted, watch);
    assert_eq!(applied.unwrap(), [Applied::Done]);
}
