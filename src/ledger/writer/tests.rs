//! What the writer does when the disk fails, with failures injected below it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::handle::prediction_frame;
use super::super::queue::Queue;
use super::super::*;

fn prediction(number: u64) -> Prediction {
    Prediction {
        prediction_id: uuid::Uuid::now_v7().as_bytes().to_vec().into(),
        customer_id: format!("customer-{number}"),
        at_us: 1_700_000_000_000_000 + number as i64,
        view: "customer".to_string(),
        ..Prediction::default()
    }
}

fn outcome(id: &str) -> Outcome {
    Outcome {
        outcome_id: id.to_string(),
        outcome: "churned".to_string(),
        ..Outcome::default()
    }
}

/// Appends up to `rows` predictions and returns how many were taken before the failing disk was
/// noticed: the first one at least.
fn append_until_refused(ledger: &Ledger, rows: u64) -> u64 {
    let taken =
        (0..rows).take_while(|number| ledger.append_prediction(prediction(*number)).is_ok());
    let taken = taken.count() as u64;
    assert!(taken > 0);
    taken
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "timed out: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::test]
async fn a_failing_write_is_repeated_until_it_works_and_loses_nothing() {
    // Given a ledger with some rows, on a disk that then fails four writes, half done each
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions::default();
    let faults = options.faults.clone();
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    ledger.append_outcome(outcome("before")).await.unwrap();
    faults.writes.store(4, Ordering::SeqCst);
    // When an outcome and predictions come in
    let taken = append_until_refused(&ledger, 10);
    wait_until("the failure is noticed", || !ledger.healthy());
    let refused = ledger.append_prediction(prediction(99));
    assert_eq!(
        refused,
        Err(AppendError::Unavailable),
        "nothing is accepted while the disk fails"
    );
    // Then it heals by itself and everything accepted is there
    wait_until("the disk works again", || ledger.healthy());
    ledger.append_outcome(outcome("after")).await.unwrap();
    ledger.close().unwrap();
    let report = verify(data_dir.path()).unwrap();
    assert!(report.sound, "{report}");
    assert_eq!(
        (report.predictions, report.outcomes, report.segments),
        (taken, 2, 1)
    );
}

#[tokio::test]
async fn after_a_failed_sync_unsynced_records_are_written_again_to_a_new_segment() {
    // Given a ledger with a durable outcome, on a disk whose next two syncs fail
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions::default();
    let faults = options.faults.clone();
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    ledger.append_outcome(outcome("durable")).await.unwrap();
    faults.syncs.store(2, Ordering::SeqCst);
    // When an outcome is appended
    let receipt = ledger.append_outcome(outcome("unlucky")).await.unwrap();
    // Then it is acknowledged all the same, once it is durable in a new segment
    assert!(!receipt.duplicate);
    assert!(
        ledger
            .append_outcome(outcome("unlucky"))
            .await
            .unwrap()
            .duplicate
    );
    ledger.append_outcome(outcome("later")).await.unwrap();
    ledger.close().unwrap();
    let report = verify(data_dir.path()).unwrap();
    assert!(report.sound, "{report}");
    assert_eq!((report.outcomes, report.segments), (3, 2));
    assert!(
        report.abandoned_bytes > 0,
        "the copy in the first segment does not count"
    );
    // And the ledger goes on after a restart
    let ledger = Ledger::open(data_dir.path(), LedgerOptions::default()).unwrap();
    for id in ["durable", "unlucky", "later"] {
        assert!(
            ledger.append_outcome(outcome(id)).await.unwrap().duplicate,
            "{id}"
        );
    }
}

#[tokio::test]
async fn an_outcome_that_cannot_be_confirmed_says_so_and_a_retry_tells() {
    // Given a disk that fails longer than an outcome may wait
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions {
        outcome_deadline: Duration::from_millis(50),
        ..LedgerOptions::default()
    };
    let faults = options.faults.clone();
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    faults.syncs.store(4, Ordering::SeqCst);
    // When an outcome is appended
    let result = ledger.append_outcome(outcome("slow")).await;
    // Then it is reported as unconfirmed, and later, by the same id, as recorded
    assert_eq!(result, Err(OutcomeError::Unconfirmed { waited_ms: 50 }));
    wait_until("the disk works again", || ledger.healthy());
    assert!(
        ledger
            .append_outcome(outcome("slow"))
            .await
            .unwrap()
            .duplicate
    );
}

#[tokio::test]
async fn a_full_disk_at_close_is_reported_with_the_rows_lost() {
    // Given a disk that takes no writes any more
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions {
        close_patience: Duration::from_millis(100),
        ..LedgerOptions::default()
    };
    let faults = options.faults.clone();
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    faults.writes.store(u32::MAX, Ordering::SeqCst);
    let taken = append_until_refused(&ledger, 7);
    // When the ledger is closed
    let result = ledger.close();
    // Then it gives up in bounded time and says what was lost
    assert!(
        matches!(result, Err(LedgerError::LostAtClose { rows }) if rows == taken),
        "{result:?}, {taken} rows were taken"
    );
}

#[tokio::test]
async fn a_full_queue_refuses_rows_until_the_writer_has_caught_up() {
    // Given a queue of ten rows in front of a writer that gathers for 10 ms
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions {
        queue_rows: 10,
        linger: Duration::from_millis(10),
        ..LedgerOptions::default()
    };
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    // When rows come faster than they are written
    let mut accepted = 0;
    let refusal = loop {
        match ledger.append_prediction(prediction(accepted)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    // Then the queue refuses at its bound, stays healthy, and takes rows again later
    assert!(
        matches!(refusal, AppendError::Full { rows: 10, .. }),
        "{refusal:?}"
    );
    assert!(ledger.healthy());
    wait_until("the queue is written", || ledger.queue_depth() == 0);
    ledger.append_prediction(prediction(accepted)).unwrap();
    ledger.close().unwrap();
    assert_eq!(
        ledger.append_prediction(prediction(0)),
        Err(AppendError::Closed)
    );
    assert_eq!(verify(data_dir.path()).unwrap().predictions, accepted + 1);
}

#[test]
fn a_caller_writes_what_is_waiting_when_the_writer_thread_is_late() {
    // Given a ledger whose writer thread is not run at all, and a queue that calls 1 ms late
    let data_dir = tempfile::tempdir().unwrap();
    let ledger_dir = ledger_directory(data_dir.path());
    std::fs::create_dir_all(&ledger_dir).unwrap();
    let options = LedgerOptions::default();
    let recovered = recovery::recover(&ledger_dir, &options).unwrap();
    let queue = Arc::new(Queue::new(100, 1_000_000, Duration::from_millis(1)));
    let index = Arc::new(recovered.index);
    let (sync_requests, sync_receiver) = std::sync::mpsc::channel();
    let path = recovered.segment.path.clone();
    let state = super::Writer::new(
        ledger_dir,
        options,
        Arc::clone(&queue),
        Arc::clone(&index),
        recovered.segment,
    );
    let shared = Mutex::new(Some(state));
    // When predictions wait longer than that
    assert_eq!(
        queue.push_row(&prediction_frame(&prediction(1)).unwrap()),
        Ok(false)
    );
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(
        queue.push_row(&prediction_frame(&prediction(2)).unwrap()),
        Ok(true),
        "the caller is asked to help"
    );
    shared.lock().unwrap().as_mut().unwrap().help();
    // Then they are in the file, and no longer wait
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.windows(10).any(|window| window == b"customer-2"));
    assert_eq!(queue.depth(), 0);
    // And the thread, once it runs, makes them durable without being woken by anything else
    let syncer_queue = Arc::clone(&queue);
    let syncer = std::thread::spawn(move || syncer::run(sync_receiver, syncer_queue, index));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| super::run(&shared, &queue, &sync_requests));
        wait_until("synced", || {
            let slot = shared.lock().unwrap();
            slot.as_ref()
                .is_some_and(|writer| writer.synced_position == writer.written_position)
        });
        queue.close();
        assert_eq!(writer.join().unwrap(), 0);
    });
    drop(sync_requests);
    syncer.join().unwrap();
    assert_eq!(verify(data_dir.path()).unwrap().predictions, 2);
}
