//! The gRPC interface: the Open Inference Protocol's `inference.GRPCInferenceService`, with the
//! calls that Triton adds to it, and `grpc.health.v1.Health`.
//!
//! It answers what `/v2` answers, out of the same functions. Calls that this server does not have –
//! shared memory, traces, log settings – are refused with UNIMPLEMENTED.
//!
//! A call passes through, from the wire inwards:
//!
//! * [`service`] – from its path to the function that answers it; counting.
//! * [`call`] – what its metadata asks for.
//! * [`codec`] – from frames to messages and back.
//! * [`bounds`] – what a message may make the server keep in memory.
//! * [`messages`], [`config`] – what is in a message, field by field.
//! * [`infer`], [`contents`], [`stream`] – tensors in, tensors out, once or in a stream.
//! * [`describe`], [`health`] – what there is and whether it is ready.
//! * [`repository`] – loading and unloading.
//! * [`status`] – what every refusal looks like.

pub mod bounds;
pub mod call;
pub mod codec;
pub mod config;
pub mod contents;
pub mod describe;
pub mod health;
pub mod infer;
pub mod messages;
pub mod repository;
pub mod service;
pub mod status;
pub mod stream;

use std::sync::Arc;

use axum::Router;

use super::App;

/// Everything that the gRPC port answers. Serve it over HTTP/2.
pub fn router(app: Arc<App>) -> Router {
    Router::new().fallback(service::answer).with_state(app)
}
