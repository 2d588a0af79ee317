//! Fuzz targets for the body of `POST /v1/score/batch`, through the whole request stack.
//!
//! Promises: whatever is sent, the server does not panic and does not answer 5xx; what it refuses as a whole
//! is a JSON object with a message. Else every row has its answer, in order: predictions, or an error that
//! says which row it is. A body that goes wrong in its middle ends with an error of its own behind the answers
//! of the rows before; as an Arrow stream it breaks off.
//!
//! As the other targets, each is a short random run in `cargo test`, and runs guided by coverage with
//! `cargo bolero test --sanitizer NONE any_lines_of_rows_are_answered`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use axum::http::{Method, StatusCode};
use bolero::TypeGenerator;
use bolero::generator::produce;
use common::TARGET_TIME;
use common::in_process::{Answer, InProcess};
use common::json_edit::{self, JsonEdit};
use common::mutate::{Edit, Mutation, apply_edits};
use serde_json::{Value, json};

const LINES: &str = "application/x-ndjson";
const ARROW: &str = "application/vnd.apache.arrow.stream";
const PATH: &str = "/v1/score/batch?models=churn&record=false";

/// Lines, of which some were edited as JSON, and then the bytes of all of them.
#[derive(Debug, Clone, TypeGenerator)]
struct HostileLines {
    #[generator(produce::<Vec<(u8, Option<JsonEdit>)>>().with().len(0usize..=6))]
    lines: Vec<(u8, Option<JsonEdit>)>,
    #[generator(produce::<Vec<Edit>>().with().len(0usize..=2))]
    byte_edits: Vec<Edit>,
}

/// Tokens that mean something in lines of rows.
const LINE_WORDS: &[&str] = &[
    "null",
    "1e999",
    "NaN",
    "{",
    "}",
    "\"",
    "\n",
    "\r\n",
    "\n\n \n",
    "{}\n",
    "\\u0000",
    "\\ud800",
    "[[[[[[[[[[[[[[[[",
    "18446744073709551616",
    "\"customer_id\":\"C-1\",",
    "\"tenure\":",
    "\"features\":{",
];

fn rows() -> Vec<Value> {
    vec![
        json!({"customer_id": "C-1"}),
        json!({"customer_id": 17, "tenure": 3, "contract": "Two year", "total_charges": null}),
        json!({"customer_id": "C-1", "monthly_charges": 20.25, "internet_service": "Fiber optic"}),
        json!({"customer_id": "C-2", "senior_citizen": 1, "tenure": -1}),
    ]
}

impl HostileLines {
    fn bytes(&self, seeds: &[Value]) -> Vec<u8> {
        let mut body = Vec::new();
        for (seed, edit) in &self.lines {
            let mut row = seeds[usize::from(*seed) % seeds.len()].clone();
            if let Some(edit) = edit {
                json_edit::apply(&mut row, edit);
            }
            body.extend_from_slice(row.to_string().as_bytes());
            body.push(b'\n');
        }
        let texts: Vec<Vec<u8>> = seeds
            .iter()
            .map(|seed| format!("{seed}\n").into_bytes())
            .collect();
        apply_edits(body, &self.byte_edits, &texts, LINE_WORDS)
    }
}

/// Lines that are not blank, each of which is a row.
fn rows_in(body: &[u8]) -> usize {
    let lines = body.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.trim_ascii().is_empty()).count()
}

fn send(server: &InProcess, form: &'static str, body: Vec<u8>) -> Answer {
    // Answers as lines can be looked at, whatever the body was.
    let headers = [("content-type", form), ("accept", LINES)];
    server.send_with(Method::POST, PATH, &headers, body)
}

/// Checks the answers to rows, which are counted from 1; gives their number, and whether the request as a
/// whole went wrong behind them.
fn check_answers(answer: &Answer) -> (usize, bool) {
    let text = answer.text();
    let mut rows = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let reply: Value = serde_json::from_str(line).unwrap();
        let Some(error) = reply.get("error") else {
            rows += 1;
            let score = reply["predictions"][0]["score"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&score), "{reply}");
            continue;
        };
        let message = error.as_str().unwrap();
        assert!(!message.is_empty() && message.len() < 1000, "{reply}");
        match reply.get("row") {
            Some(row) => {
                rows += 1;
                assert_eq!(row.as_u64(), Some(rows as u64), "{reply}");
            }
            None => {
                assert!(lines.peek().is_none(), "it is the last line: {text}");
                return (rows, true);
            }
        }
    }
    (rows, false)
}

#[test]
fn any_lines_of_rows_are_answered() {
    let server = InProcess::start().with_customer();
    let seeds = rows();
    // Given that the seeds are read as rows: three are scored, and one is refused by name
    let body: String = seeds.iter().map(|seed| format!("{seed}\n")).collect();
    let answer = send(&server, LINES, body.into_bytes());
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(check_answers(&answer), (4, false), "{}", answer.text());
    assert!(answer.text().contains("\"row\":4"), "{}", answer.text());
    let server = AssertUnwindSafe(server);
    bolero::check!()
        .with_type::<HostileLines>()
        .with_iterations(1000)
        .with_test_time(TARGET_TIME)
        .for_each(|lines: &HostileLines| {
            // When edited lines are sent, then every one of them has its answer
            let body = lines.bytes(&seeds);
            let expected = rows_in(&body);
            let answer = send(&server, LINES, body);
            answer.assert_sound();
            if answer.status.is_success() {
                assert_eq!(check_answers(&answer), (expected, false));
            }
        });
}

/// A stream of one batch for each of `batches`.
fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let schema: SchemaRef = batches[0].schema();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    std::mem::take(writer.get_mut())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Text, numbers and dictionaries, with nulls, in one batch and in several.
fn streams() -> Vec<Vec<u8>> {
    let text = batch(vec![
        ("customer_id", Arc::new(StringArray::from(vec!["C-1", "x"]))),
        ("tenure", Arc::new(Int64Array::from(vec![Some(3), None]))),
        (
            "contract",
            Arc::new(StringArray::from(vec![Some("Two year"), Some("Weekly")])),
        ),
    ]);
    let contracts = vec![Some("Two year"), None, Some("One year")].into_iter();
    let dictionary: arrow::array::DictionaryArray<Int32Type> = contracts.collect();
    let numbers = batch(vec![
        ("customer_id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        (
            "monthly_charges",
            Arc::new(Float64Array::from(vec![20.25, f64::NAN, 70.0])),
        ),
        ("contract", Arc::new(dictionary)),
    ]);
    vec![
        stream(&[text.clone(), text.slice(0, 1), text.slice(0, 0), text]),
        stream(&[numbers]),
    ]
}

#[test]
fn any_arrow_stream_of_rows_is_answered() {
    let server = InProcess::start().with_customer();
    let seeds = streams();
    for (seed, rows) in seeds.iter().zip([5, 3]) {
        let answer = send(&server, ARROW, seed.clone());
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(check_answers(&answer), (rows, false), "{}", answer.text());
    }
    let server = AssertUnwindSafe(server);
    let words = [
        "customer_id",
        "tenure",
        "contract",
        "C-1",
        "\u{0}",
        "\u{ffff}",
    ];
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(1000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            // When an edited stream is sent, then the answer is sound, and so are those of the rows that
            // were read before the place where it goes wrong
            let answer = send(&server, ARROW, mutation.apply(&seeds, &words));
            answer.assert_sound();
            if answer.status.is_success() {
                check_answers(&answer);
            }
        });
}
