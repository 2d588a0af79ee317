//! What takes part in admission: scores and inferences are turned away when too many are in flight, and
//! not begun when their time is up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail loudly"
)]

mod common;

use axum::http::{Method, StatusCode};
use bellwether::admission::Priority;
use common::in_process::{Answer, InProcess};
use serde_json::{Value, json};

fn score(server: &InProcess, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"customer_id": "C-1"}).to_string().into_bytes();
    server.send_with(Method::POST, "/v1/score", headers, body)
}

/// The `error` of a refusal.
fn error_of(answer: &Answer) -> String {
    match &answer.json()["error"] {
        Value::String(error) => error.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn scores_are_turned_away_when_too_many_are_in_flight_and_taken_again_afterwards() {
    let server = InProcess::start().with_customer();
    // Given as many requests in flight as there may be
    let admission = &server.app().admission;
    let mut in_flight = Vec::new();
    while let Ok(one) = admission.enter(Priority::Online) {
        in_flight.push(one);
    }
    // When a score is asked for, then it is turned away with a hint when to come back
    let answer = score(&server, &[]);
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
    assert!(error_of(&answer).contains("max_queue"), "{}", answer.text());
    // When half of them are over, then scores are taken again, but not those that can wait
    in_flight.truncate(in_flight.len() / 2 + 1);
    assert_eq!(score(&server, &[]).status, StatusCode::OK);
    let can_wait = score(&server, &[("bellwether-priority", "batch")]);
    assert_eq!(can_wait.status, StatusCode::TOO_MANY_REQUESTS);
    // When all are over, then nothing is left behind
    in_flight.clear();
    assert_eq!(
        score(&server, &[("bellwether-priority", "batch")]).status,
        StatusCode::OK
    );
    assert_eq!(server.app().in_flight(), 0);
}

#[test]
fn a_score_whose_time_is_up_is_not_begun() {
    let server = InProcess::start().with_customer();
    let answer = score(&server, &[("bellwether-timeout-ms", "0")]);
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(error_of(&answer).contains("deadline"), "{}", answer.text());
    assert_eq!(server.app().in_flight(), 0);
}

#[test]
fn headers_that_are_wrong_are_named() {
    let server = InProcess::start().with_customer();
    for (header, name) in [
        ("bellwether-timeout-ms", "Bellwether-Timeout-Ms"),
        ("bellwether-priority", "Bellwether-Priority"),
    ] {
        let answer = score(&server, &[(header, "soon")]);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(error_of(&answer).contains(name), "{}", answer.text());
    }
}
