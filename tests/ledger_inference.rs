//! What the ledger promises about inferences, and about rows of many threads at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod ledger_common;

use std::sync::atomic::{AtomicU64, Ordering};

use bellwether::clock;
use bellwether::ledger::{
    AppendError, InferenceTemplate, Ledger, LedgerOptions, scan_segment_bytes, verify,
};
use ledger_common::{
    frame_offsets, inference, open, outcome, prediction, segment_path, write_segment,
};

#[tokio::test]
async fn inferences_are_counted_beside_predictions_and_outcomes_may_name_them() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    // Given two inferences and a prediction
    let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
    let id = clock::new_id();
    ledger.append_inference(inference(&template, id)).unwrap();
    ledger
        .append_inference(inference(&template, clock::new_id()))
        .unwrap();
    ledger.append_prediction(prediction(1, 3)).unwrap();
    // When an outcome names one of the inferences
    let mut linked = outcome("first", "churned");
    linked.prediction_id = Some(id.as_bytes().to_vec().into());
    ledger.append_outcome(linked).await.unwrap();
    ledger.close().unwrap();
    // Then all are in the log, and the report counts them by kind
    let report = verify(data_dir.path()).unwrap();
    assert!(report.sound, "{report}");
    assert_eq!(
        (report.predictions, report.inferences, report.outcomes),
        (1, 2, 1)
    );
    assert_eq!(serde_json::to_value(&report).unwrap()["inferences"], 2);
    let scan = scan_segment_bytes(&std::fs::read(segment_path(data_dir.path(), 1)).unwrap());
    assert_eq!((scan.inferences, scan.undecodable), (2, 0));
}

#[test]
fn an_inference_recorded_twice_is_noticed() {
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
    let id = clock::new_id();
    for _ in 0..2 {
        ledger.append_inference(inference(&template, id)).unwrap();
    }
    ledger.close().unwrap();
    let report = verify(data_dir.path()).unwrap();
    assert!(
        !report.sound && report.duplicate_predictions == 1,
        "{report}"
    );
}

#[test]
fn an_inference_torn_at_any_byte_is_discarded_and_those_before_it_kept() {
    // Given a ledger of three inferences, the last of them torn off at each byte in turn
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = open(data_dir.path());
    let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
    for _ in 0..3 {
        ledger
            .append_inference(inference(&template, clock::new_id()))
            .unwrap();
    }
    ledger.close().unwrap();
    let whole = std::fs::read(segment_path(data_dir.path(), 1)).unwrap();
    let (last, end) = (frame_offsets(&whole)[2], frame_offsets(&whole)[3]);
    for length in last..end {
        write_segment(data_dir.path(), &whole[..length]);
        // When it is verified, then two are there and the rest is a torn tail
        let report = verify(data_dir.path()).unwrap();
        assert!(report.sound, "torn at {length}: {report}");
        assert_eq!(
            (report.inferences, report.torn_tail_bytes),
            (2, (length - last) as u64)
        );
    }
    // And the ledger goes on from there
    let ledger = open(data_dir.path());
    ledger
        .append_inference(inference(&template, clock::new_id()))
        .unwrap();
    ledger.close().unwrap();
    let report = verify(data_dir.path()).unwrap();
    assert!(report.sound && report.inferences == 3, "{report}");
}

#[test]
fn nothing_is_lost_of_what_eight_threads_append_at_once() {
    // Given eight threads that append 10,000 rows each, every tenth a prediction, the rest inferences
    let data_dir = tempfile::tempdir().unwrap();
    let options = LedgerOptions {
        // So that segments change in the middle of it
        segment_bytes: 4 * 1024 * 1024,
        ..LedgerOptions::default()
    };
    let ledger = Ledger::open(data_dir.path(), options).unwrap();
    let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for number in 0..10_000 {
                    until_taken(|| {
                        if number % 10 == 0 {
                            ledger.append_prediction(prediction(number, 3))
                        } else {
                            ledger.append_inference(inference(&template, clock::new_id()))
                        }
                    });
                }
            });
        }
    });
    // When the ledger is closed, opened and closed again
    ledger.close().unwrap();
    open(data_dir.path()).close().unwrap();
    // Then every row is there once
    let report = verify(data_dir.path()).unwrap();
    assert!(report.sound, "{report}");
    assert_eq!((report.predictions, report.inferences), (8_000, 72_000));
}

/// Repeats an append while the queue is full; any other refusal fails the test.
fn until_taken(append: impl Fn() -> Result<(), AppendError>) {
    loop {
        match append() {
            Ok(()) => return,
            Err(AppendError::Full { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn closing_while_rows_come_in_writes_all_that_were_accepted_and_no_other() {
    for round in 0..5 {
        // Given four threads that append until the ledger is closed
        let data_dir = tempfile::tempdir().unwrap();
        let ledger = open(data_dir.path());
        let template = InferenceTemplate::new("gbdt", "3", &[9; 32]);
        let accepted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        match ledger.append_inference(inference(&template, clock::new_id())) {
                            Ok(()) => accepted.fetch_add(1, Ordering::Relaxed),
                            Err(AppendError::Full { .. }) => {
                                std::thread::yield_now();
                                continue;
                            }
                            Err(refused) => {
                                assert_eq!(refused, AppendError::Closed);
                                return;
                            }
                        };
                    }
                });
            }
            // When it is closed in the middle of that
            while accepted.load(Ordering::Relaxed) < 1_000 * (round + 1) {
                std::thread::yield_now();
            }
            ledger.close().unwrap();
        });
        // Then exactly the accepted rows are in the log
        let report = verify(data_dir.path()).unwrap();
        assert!(report.sound, "{report}");
        assert_eq!(report.inferences, accepted.into_inner());
    }
}
