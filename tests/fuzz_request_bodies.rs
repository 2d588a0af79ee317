//! Fuzz targets for request bodies and request lines, through the whole request stack.
//!
//! Promises: whatever is sent, the server does not panic and does not answer 5xx (those that refuse
//! are allowed: 503 when it is busy, 501 for what it does not have, 504 when it is too late); every refusal is a JSON object with a message that is not longer than
//! it needs to be.
//!
//! Each target is a short random run in `cargo test`. The same target runs guided by coverage, for
//! as long as one likes, with
//!
//! ```sh
//! cargo install cargo-bolero --locked
//! cargo bolero test --sanitizer NONE any_score_body_is_answered
//! ```
//!
//! Inputs that it finds are kept in `tests/__fuzz__/` and replayed by `cargo test`. A failure of a
//! random run names its seed; `BOLERO_RANDOM_SEED=…` repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::panic::AssertUnwindSafe;

use axum::http::{Method, StatusCode, Uri};
use bellwether::serve::http::infer::read::{self, InferBody};
use bolero::TypeGenerator;
use bolero::generator::produce;
use common::in_process::{Answer, InProcess};
use common::json_edit::{self, JsonEdit};
use common::mutate::{Edit, Mutation, apply_edits};
use common::{TARGET_TIME, committed};
use serde_json::{Value, json};

/// A valid body with edits that keep it JSON, and then edits of its bytes.
#[derive(Debug, Clone, TypeGenerator)]
struct HostileBody {
    seed: u8,
    #[generator(produce::<Vec<JsonEdit>>().with().len(0usize..=3))]
    json_edits: Vec<JsonEdit>,
    #[generator(produce::<Vec<Edit>>().with().len(0usize..=2))]
    byte_edits: Vec<Edit>,
}

/// Tokens that mean something in JSON or in a body.
const JSON_WORDS: &[&str] = &[
    "null",
    "true",
    "-",
    "1e999",
    "-1e-999",
    "1E400",
    "0x1",
    "NaN",
    "Infinity",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "\\",
    "\u{feff}",
    "{\"\":",
    "[[[[[[[[[[[[[[[[",
    "18446744073709551616",
    "-9223372036854775809",
    "0.1e1",
    "\"features\":",
    "\"explain\":65536,",
    "\"customer_id\":\"C-1\",",
    "\"data\":[",
    "\"shape\":[",
];

impl HostileBody {
    fn bytes(&self, seeds: &[Value]) -> Vec<u8> {
        let mut document = seeds[usize::from(self.seed) % seeds.len()].clone();
        for edit in &self.json_edits {
            json_edit::apply(&mut document, edit);
        }
        let texts: Vec<Vec<u8>> = seeds
            .iter()
            .map(|seed| seed.to_string().into_bytes())
            .collect();
        let bytes = document.to_string().into_bytes();
        apply_edits(bytes, &self.byte_edits, &texts, JSON_WORDS)
    }
}

/// Sends edited bodies to one route and checks every answer.
fn fuzz_body(
    iterations: usize,
    method: Method,
    path: &'static str,
    seeds: Vec<Value>,
    check: impl Fn(&Answer) + std::panic::RefUnwindSafe,
) {
    let server = InProcess::start().with_customer();
    // Given that every seed is accepted as it is: edits of refused bodies would test little
    for seed in &seeds {
        let answer = server.send_json(method.clone(), path, seed);
        assert!(answer.status.is_success(), "{seed}: {}", answer.text());
        check(&answer);
    }
    let server = AssertUnwindSafe(server);
    bolero::check!()
        .with_type::<HostileBody>()
        .with_iterations(iterations)
        .with_test_time(TARGET_TIME)
        .for_each(|body: &HostileBody| {
            // When an edited body is sent, then the answer is sound
            let answer = server.send(method.clone(), Uri::from_static(path), body.bytes(&seeds));
            answer.assert_sound();
            if answer.status.is_success() {
                check(&answer);
            }
        });
}

#[test]
fn any_score_body_is_answered() {
    let seeds = vec![
        json!({"customer_id": "C-1"}),
        json!({"customer_id": "C-1", "models": ["churn", "upsell"], "explain": 3}),
        json!({"customer_id": "C-1", "models": ["churn"], "explain": 19, "features": {
            "tenure": 3, "contract": "Two year", "monthly_charges": 20.25, "total_charges": null,
            "senior_citizen": 1, "internet_service": "Fiber optic",
        }}),
        json!({"customer_id": "C-1", "context": {}, "features": {"tickets_30d": 2}}),
    ];
    fuzz_body(1000, Method::POST, "/v1/score", seeds, |answer| {
        let reply = answer.json();
        assert!(reply["prediction_id"].is_string(), "{reply}");
        for prediction in reply["predictions"].as_array().unwrap() {
            let score = prediction["score"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&score), "{reply}");
        }
    });
}

#[test]
fn any_outcome_body_is_answered() {
    let seeds = vec![
        json!({"customer_id": "C-1", "outcome": "churn"}),
        json!({
            "outcome_id": "crm-1", "prediction_id": "019aa0b2-7c3e-7d53-9c3f-0242ac120002",
            "customer_id": "C-1", "outcome": "addon_accepted", "value": 12.5,
            "occurred_at": "2026-01-31T12:00:00+01:00",
        }),
    ];
    fuzz_body(1000, Method::POST, "/v1/outcomes", seeds, |answer| {
        assert!(answer.json()["outcome_id"].is_string());
    });
}

#[test]
fn any_customer_body_is_answered() {
    let seeds = vec![
        json!({"features": {}}),
        json!({"features": {
            "gender": "Male", "senior_citizen": 0, "tenure": 24, "monthly_charges": 99.95,
            "total_charges": null, "contract": "Two year", "payment_method": "Mailed check",
        }}),
    ];
    fuzz_body(1000, Method::PUT, "/v1/customers/C-3", seeds, |answer| {
        assert!(answer.json()["unknown"].is_array());
    });
}

#[test]
fn any_body_of_events_is_answered() {
    let event = json!({
        "event_id": "1", "event": "ticket", "customer_id": "C-1",
        "occurred_at": "2026-01-31T12:00:00+01:00", "properties": {"minutes": 1.5},
    });
    let cloud_event = json!({
        "specversion": "1.0", "id": "2", "source": "/crm", "type": "ticket", "subject": "C-1",
        "time": "2026-01-31T12:00:00Z", "data": {"customer_id": 17},
    });
    let seeds = vec![
        event.clone(),
        cloud_event.clone(),
        json!([event, cloud_event, {"event_id": "3", "event": "bill", "customer_id": 17}]),
    ];
    fuzz_body(1000, Method::POST, "/v1/events", seeds, |answer| {
        let reply = answer.json();
        assert!(reply["refused"].is_array() && reply.get("error").is_none());
    });
}

#[test]
fn any_rows_of_features_are_answered() {
    let seeds = vec![
        json!({"customer_id": "C-1", "tenure": 3, "occurred_at": "2026-01-31T12:00:00Z"}),
        json!([{"customer_id": "C-1", "contract": "Two year"}, {"customer_id": 4, "tenure": null}]),
    ];
    fuzz_body(
        1000,
        Method::POST,
        "/v1/features/customer",
        seeds,
        |answer| {
            assert!(answer.json()["written"].is_u64());
        },
    );
}

#[test]
fn any_inference_body_is_answered() {
    let seeds = vec![inference_body(1, false), inference_body(3, true)];
    fuzz_body(
        1000,
        Method::POST,
        "/v2/models/churn/infer",
        seeds,
        |answer| {
            assert!(answer.json()["outputs"].is_array());
        },
    );
}

#[test]
fn inference_bodies_are_read_as_the_description_says() {
    let seeds = [
        inference_body(1, false),
        inference_body(3, true),
        json!({
            "id": "all", "parameters": {"binary_data_output": true, "timeout": 5, "content_type": "pd"},
            "inputs": [{
                "name": "x", "shape": [1, 2], "datatype": "INT64", "data": [[1, -2.0]],
                "parameters": {"binary_data_size": 8, "content_type": "np"},
            }],
            "outputs": [{"name": "y", "parameters": {"binary_data": false, "classification": 1}}],
        }),
    ];
    let seeds = seeds.map(|seed| seed.to_string().into_bytes());
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(5000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            // Given a text that may be a request
            let text = mutation.apply(&seeds, JSON_WORDS);
            match read::read(&text) {
                // When it is taken, then it is JSON and what is described
                Ok(_) => {
                    assert!(serde_json::from_slice::<Value>(&text).is_ok());
                    assert!(serde_json::from_slice::<InferBody>(&text).is_ok());
                }
                // When it is not, then a field is named
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(": ") && message.len() < 1000, "{message}");
                }
            }
        });
}

#[test]
fn any_binary_inference_body_is_answered() {
    let server = InProcess::start();
    let path = "/v2/models/churn/infer";
    let seeds: Vec<Vec<u8>> = [1, 3].map(binary_inference_body).into();
    let header = "inference-header-content-length";
    let json_length = |body: &[u8]| {
        // The seeds' JSON ends with a line break
        let end = body.windows(2).position(|pair| pair == b"}\n");
        end.map_or(0, |end| end + 2)
    };
    for seed in &seeds {
        let length = json_length(seed).to_string();
        let answer = server.send_with(Method::POST, path, &[(header, &length)], seed.clone());
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let given = AssertUnwindSafe((server, seeds));
    bolero::check!()
        .with_type::<(Mutation, i8)>()
        .with_iterations(1000)
        .with_test_time(TARGET_TIME)
        .for_each(|(mutation, shift): &(Mutation, i8)| {
            // Given a body with changes and a header that may be wrong by a few bytes
            let (server, seeds) = &*given;
            let body = mutation.apply(seeds, JSON_WORDS);
            let shift = if shift % 4 == 0 { i64::from(*shift) } else { 0 };
            let length = (json_length(&body) as i64 + shift).to_string();
            // When it is sent, then the answer is sound
            let answer = server.send_with(Method::POST, path, &[(header, &length)], body);
            answer.assert_sound();
        });
}

#[test]
fn any_index_body_is_answered() {
    let seeds = vec![json!({}), json!({"ready": true}), json!(null)];
    fuzz_body(
        1000,
        Method::POST,
        "/v2/repository/index",
        seeds,
        |answer| {
            assert!(answer.json().is_array());
        },
    );
}

/// The first golden row of the churn model as an inference request of `rows` rows.
fn inference_body(rows: usize, nested: bool) -> Value {
    let golden: Value = serde_json::from_slice(&committed("models/churn/1/golden.json")).unwrap();
    let row = golden["rows"][0]["inputs"].as_object().unwrap();
    let mut inputs = Vec::new();
    for (name, value) in row {
        let integer = ["senior_citizen", "tenure"].contains(&name.as_str());
        let datatype = match value {
            Value::String(_) => "BYTES",
            _ if integer && churn_input_is_integer(name) => "INT64",
            _ => "FP32",
        };
        let data = match nested {
            true => json!(vec![vec![value]; rows]),
            false => json!(vec![value; rows]),
        };
        inputs.push(json!({"name": name, "shape": [rows, 1], "datatype": datatype, "data": data}));
    }
    json!({"id": "seed", "inputs": inputs, "outputs": [{"name": "probabilities"}]})
}

/// The same request with every tensor as bytes behind the JSON, which ends with a line break.
fn binary_inference_body(rows: usize) -> Vec<u8> {
    let mut body = inference_body(rows, false);
    let mut binary = Vec::new();
    for input in body["inputs"].as_array_mut().unwrap() {
        let input = input.as_object_mut().unwrap();
        let datatype = input["datatype"].as_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        for value in input.remove("data").unwrap().as_array().unwrap() {
            match datatype.as_str() {
                "BYTES" => {
                    let text = value.as_str().unwrap().as_bytes();
                    bytes.extend((text.len() as u32).to_le_bytes());
                    bytes.extend(text);
                }
                "INT64" => bytes.extend(value.as_i64().unwrap().to_le_bytes()),
                _ => {
                    let number = value.as_f64().map_or(f32::NAN, |number| number as f32);
                    bytes.extend(number.to_le_bytes());
                }
            }
        }
        input.insert(
            "parameters".to_owned(),
            json!({"binary_data_size": bytes.len()}),
        );
        binary.append(&mut bytes);
    }
    body["parameters"] = json!({"binary_data_output": true});
    let mut bytes = body.to_string().into_bytes();
    bytes.push(b'\n');
    bytes.append(&mut binary);
    bytes
}

fn churn_input_is_integer(name: &str) -> bool {
    let graph = onnx_ml::Model::from_bytes(&committed("models/churn/1/model.onnx")).unwrap();
    let input = graph.inputs().iter().find(|input| input.name == name);
    input.unwrap().data_type == onnx_ml::DataType::I64
}

#[test]
fn any_request_line_is_answered() {
    let seeds: Vec<Vec<u8>> = [
        "GET /v1/customers/C-1",
        "DELETE /v1/customers/C-2",
        "PUT /v1/customers/C-%31",
        "GET /v1/features/customer/C-1",
        "DELETE /v1/features/customer/C-2",
        "PUT /v1/features/customer/C-%31",
        "POST /v1/features/customer",
        "POST /v1/events",
        "POST /v1/score",
        "GET /v1/models",
        "GET /v2/models/churn",
        "GET /v2/models/churn/versions/1",
        "GET /v2/models/churn/ready",
        "GET /v2/models/churn/versions/1/ready",
        "POST /v2/models/churn/versions/1/infer",
        "POST /v2/models/churn/infer?x=1",
        "GET /livez",
        "GET /openapi.json",
    ]
    .iter()
    .map(|line| line.as_bytes().to_vec())
    .collect();
    let words = [
        "%FF",
        "%00",
        "%2F",
        "%",
        "..",
        "/",
        "//",
        "?",
        "C-1",
        "churn",
        "upsell",
        "versions",
        "1",
        "18446744073709551616",
        "-1",
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "BREW",
        "%F0%9F%A6%80",
    ];
    let server = AssertUnwindSafe(InProcess::start().with_customer());
    bolero::check!()
        .with_type::<Mutation>()
        .with_iterations(3000)
        .with_test_time(TARGET_TIME)
        .for_each(|mutation: &Mutation| {
            // Given a line that is one of HTTP
            let line = mutation.apply(&seeds, &words);
            let mut parts = line.splitn(2, |byte| *byte == b' ');
            let method = Method::from_bytes(parts.next().unwrap_or_default());
            let uri = Uri::try_from(parts.next().unwrap_or_default());
            let (Ok(method), Ok(uri)) = (method, uri) else {
                return;
            };
            // The body of an answer to HEAD is left out by the protocol, and to CONNECT there is
            // none.
            if method == Method::HEAD || method == Method::CONNECT {
                return;
            }
            // When it is sent, then the answer is sound
            server.send(method, uri, b"{}".to_vec()).assert_sound();
        });
}

#[test]
fn a_path_that_is_no_utf8_is_refused_like_everything_else() {
    let server = InProcess::start();
    for path in [
        "/v1/customers/%FF",
        "/v1/features/customer/%FF",
        "/v2/models/%FF",
        "/v2/models/%FF/ready",
        "/v2/models/churn/versions/%FF",
    ] {
        let answer = server.send(Method::GET, Uri::from_static(path), Vec::new());
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        answer.assert_sound();
    }
    for path in [
        "/v2/models/%FF/infer",
        "/v2/models/churn/versions/%FF/infer",
    ] {
        let answer = server.send(Method::POST, Uri::from_static(path), b"{}".to_vec());
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        answer.assert_sound();
    }
}
