//! Fuzz targets for messages over gRPC, through the calls as they are served.
//!
//! Promises: whatever is in a message, the server does not panic and does not answer INTERNAL or
//! UNKNOWN; every refusal has a message that fits into a header; a stream answers every message in
//! it, whatever the others are.
//!
//! How to run a target guided by coverage is said in `fuzz_request_bodies.rs`.

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

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bellwether::models::binary;
use bellwether::serve::grpc;
use bellwether::serve::grpc::messages::{
    InputTensor, ModelInferRequest, ModelStreamInferResponse, Parameter, ParameterValue,
    RequestedOutput,
};
use bolero::TypeGenerator;
use bolero::generator::produce;
use common::TARGET_TIME;
use common::in_process::InProcess;
use common::mutate::{Edit, apply_edits};
use http_body_util::BodyExt;
use onnx_ml::{Data, DataType};
use prost::Message;
use tower::ServiceExt;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Every call with one message each way that changes nothing.
const CALLS: [&str; 9] = [
    INFER,
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ServerMetadata",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/RepositoryIndex",
    "/grpc.health.v1.Health/Check",
];

/// Beginnings of fields, and lengths that lie.
const WORDS: &[&str] = &[
    "\u{2a}\u{0}",
    "\u{32}\u{0}",
    "\u{3a}\u{0}",
    "\u{22}\u{0}",
    "\u{2a}\u{7f}",
    "\u{3a}\u{7f}",
    "\u{2b}\u{2b}\u{2b}",
    "\u{1a}\u{2}\u{1}\u{1}",
    "churn",
    "1",
    "INT64",
    "BYTES",
    "timeout",
];

/// No header may be longer than what clients take by default.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Codes that would be this server's fault.
const UNKNOWN: &str = "2";
const INTERNAL: &str = "13";

/// A valid message with edits of its bytes.
#[derive(Debug, Clone, TypeGenerator)]
struct HostileMessage {
    seed: u8,
    call: u8,
    #[generator(produce::<Vec<Edit>>().with().len(0usize..=4))]
    edits: Vec<Edit>,
}

impl HostileMessage {
    fn bytes(&self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let message = seeds[usize::from(self.seed) % seeds.len()].clone();
        apply_edits(message, &self.edits, seeds, WORDS)
    }
}

/// The calls of a server in this process, without a socket.
struct Calls {
    server: InProcess,
    router: Router,
    runtime: tokio::runtime::Runtime,
}

struct Reply {
    messages: Vec<Vec<u8>>,
    code: String,
}

impl Calls {
    fn start() -> Calls {
        let server = InProcess::start();
        let router = grpc::router(Arc::clone(server.app()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Calls {
            server,
            router,
            runtime,
        }
    }

    fn send(&self, call: &str, messages: &[Vec<u8>]) -> Reply {
        let body: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
        let request = Request::post(call)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(body))
            .unwrap();
        let (parts, body) = self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            (parts, body.collect().await.unwrap())
        });
        assert_eq!(parts.status, StatusCode::OK);
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = checked_code(&parts.headers)
            .or_else(|| checked_code(&trailers))
            .expect("every answer has a code");
        let messages = unframe(&body.to_bytes());
        Reply { messages, code }
    }

    /// A request to `churn` with all its inputs, raw or typed.
    fn request(&self, typed: bool) -> ModelInferRequest {
        let model = self.server.app().scorer.repository.find("churn", None);
        let mut request = ModelInferRequest {
            model_name: "churn".to_owned(),
            model_version: "1".to_owned(),
            id: "42".to_owned(),
            ..ModelInferRequest::default()
        };
        for info in model.unwrap().graph.inputs() {
            let (data, datatype) = match info.data_type {
                DataType::I64 => (Data::I64(vec![12]), "INT64"),
                DataType::String => (Data::String(vec!["Yes".into()]), "BYTES"),
                _ => (Data::F32(vec![70.5]), "FP32"),
            };
            request.inputs.push(InputTensor {
                name: info.name.clone(),
                datatype: datatype.to_owned(),
                shape: vec![1, 1],
                contents: typed.then(|| grpc::contents::write(&data)).flatten(),
                ..InputTensor::default()
            });
            if !typed {
                let mut bytes = Vec::new();
                binary::write(&data, &mut bytes).unwrap();
                request.raw_input_contents.push(bytes.into());
            }
        }
        request
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut particular = self.request(false);
        let timeout = Parameter {
            value: Some(ParameterValue::Int64(60_000_000)),
        };
        particular.parameters.insert("timeout".to_owned(), timeout);
        particular.outputs.push(RequestedOutput {
            name: "probabilities".to_owned(),
            ..RequestedOutput::default()
        });
        let requests = [self.request(false), self.request(true), particular];
        requests.map(|request| request.encode_to_vec()).to_vec()
    }
}

fn checked_code(headers: &HeaderMap) -> Option<String> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    assert!(size <= MAX_HEADER_BYTES, "{size} bytes of headers");
    let code = headers.get("grpc-status")?.to_str().unwrap();
    if code != "0" {
        let message = headers.get("grpc-message").expect("a refusal says why");
        assert!(!message.is_empty());
    }
    Some(code.to_owned())
}

fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

fn unframe(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let (message, rest) = rest.split_at(length as usize);
        messages.push(message.to_vec());
        bytes = rest;
    }
    messages
}

#[test]
fn any_message_is_answered() {
    let calls = Calls::start();
    let seeds = calls.seeds();
    // Given that every seed is answered as it is
    for seed in &seeds {
        let reply = calls.send(INFER, std::slice::from_ref(seed));
        assert_eq!((reply.code.as_str(), reply.messages.len()), ("0", 1));
    }
    let calls = AssertUnwindSafe(calls);
    bolero::check!()
        .with_type::<HostileMessage>()
        .with_iterations(2000)
        .with_test_time(TARGET_TIME)
        .for_each(|hostile: &HostileMessage| {
            // When an edited one is sent, mostly to where it was made for
            let call = CALLS[usize::from(hostile.call).saturating_sub(200) % CALLS.len()];
            let reply = calls.send(call, &[hostile.bytes(&seeds)]);
            // Then it is answered or refused, and it is never our fault
            assert!(![UNKNOWN, INTERNAL].contains(&reply.code.as_str()));
            assert_eq!(reply.messages.len(), usize::from(reply.code == "0"));
        });
}

#[test]
fn any_message_in_a_stream_leaves_the_others_alone() {
    let calls = Calls::start();
    let seeds = calls.seeds();
    let calls = AssertUnwindSafe(calls);
    bolero::check!()
        .with_type::<HostileMessage>()
        .with_iterations(500)
        .with_test_time(TARGET_TIME)
        .for_each(|hostile: &HostileMessage| {
            // Given a stream whose second message is edited
            let messages = [seeds[0].clone(), hostile.bytes(&seeds), seeds[1].clone()];
            // When it is sent
            let reply = calls.send(STREAM_INFER, &messages);
            // Then the first and the third are answered all the same
            assert_eq!((reply.code.as_str(), reply.messages.len()), ("0", 3));
            for index in [0, 2] {
                let answer = ModelStreamInferResponse::decode(&*reply.messages[index]).unwrap();
                assert_eq!(answer.error_message, "");
                assert_eq!(answer.infer_response.unwrap().outputs.len(), 2);
            }
        });
}
