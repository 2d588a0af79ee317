//! Calls: from a path to the function that answers it.
//!
//! tonic cuts the frames, and this module decides who answers them. There is no generated code: a
//! call without streams is one arm of a `match` that decodes, calls a function and encodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prost::bytes::Bytes;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};

use super::call::{self, Asked};
use super::codec::{FrameCodec, decode, encode};
use super::config::ModelConfigResponse;
use super::messages::{
    Empty, HealthRequest, ModelRequest, RepositoryIndexRequest, ServerLiveResponse,
};
use super::stream::{Answers, InferStream};
use super::{bounds, describe, health, infer, repository, status};
use crate::features::value::shorten;
use crate::serve::App;
use crate::serve::auth::{Access, Caller, Scope};

/// The largest message of a call that needs no key: it holds a name at most.
const MAX_PUBLIC_MESSAGE_BYTES: usize = 16 * 1024;

const PUBLIC: Access = Access::Public;
const SCORE: Access = Access::Needs(Scope::Score);
const DEPLOY: Access = Access::Needs(Scope::Deploy);

/// The calls that are answered, by their paths, and what they ask for.
const CALLS: [(&str, Access); 14] = [
    ("/inference.GRPCInferenceService/ModelInfer", SCORE),
    (STREAM_INFER, SCORE),
    ("/inference.GRPCInferenceService/ServerLive", PUBLIC),
    ("/inference.GRPCInferenceService/ServerReady", PUBLIC),
    ("/inference.GRPCInferenceService/ModelReady", SCORE),
    ("/inference.GRPCInferenceService/ServerMetadata", SCORE),
    ("/inference.GRPCInferenceService/ModelMetadata", SCORE),
    ("/inference.GRPCInferenceService/ModelConfig", SCORE),
    ("/inference.GRPCInferenceService/ModelStatistics", SCORE),
    ("/inference.GRPCInferenceService/RepositoryIndex", DEPLOY),
    (MODEL_LOAD, DEPLOY),
    (
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        DEPLOY,
    ),
    ("/grpc.health.v1.Health/Check", PUBLIC),
    (HEALTH_WATCH, PUBLIC),
];

const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const MODEL_LOAD: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How long a model may take to load before its caller is told that it is still under way.
const LOAD_PATIENCE: Duration = Duration::from_secs(3600);

/// Answers any request to the gRPC port, and counts it.
pub async fn answer(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let call = CALLS
        .into_iter()
        .find(|(known, _)| *known == request.uri().path());
    let response = dispatch(&app, call, request).await;
    // A refusal has its code in the headers; after an answer it is in the trailers, and is 0. Of a
    // stream it is the code it began with.
    let code = format!("{:?}", code_of(&response));
    let name = call.map_or("none", |(path, _)| path);
    metrics::histogram!("bellwether_grpc_seconds", "call" => name).record(started.elapsed());
    metrics::counter!("bellwether_grpc_requests_total", "call" => name, "code" => code)
        .increment(1);
    response
}

async fn dispatch(
    app: &Arc<App>,
    call: Option<(&'static str, Access)>,
    request: Request,
) -> Response {
    if let Some(refusal) = refuse_other_protocols(&request) {
        return refusal;
    }
    let Some((path, access)) = call else {
        let path = shorten(request.uri().path(), 100);
        return Status::unimplemented(format!("no call {path} here")).into_http();
    };
    let caller = match app.auth.admit(request.headers(), access) {
        Ok(caller) => caller,
        Err(denial) => return status::denied(&denial).into_http(),
    };
    let asked = match call::asked(request.headers()) {
        Ok(asked) => asked,
        Err(status) => return status.into_http(),
    };
    let limit = match access {
        Access::Public => MAX_PUBLIC_MESSAGE_BYTES,
        Access::Needs(_) => app.config.max_tensor_body_bytes,
    };
    // Of compressed messages the limit is on what they decompress to. Answers are sent as they are:
    // numbers hardly compress.
    let mut grpc = Grpc::new(FrameCodec)
        .max_decoding_message_size(limit)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    let within = app.config.request_timeout;
    let app = Arc::clone(app);
    let response = match path {
        STREAM_INFER => {
            let service = StreamInfer { app, asked, caller };
            grpc.streaming(service, request).await
        }
        HEALTH_WATCH => {
            // Its one message has to come in time; the answers go on for as long as they are wanted.
            let watched = grpc.server_streaming(Watch { app }, request);
            match tokio::time::timeout(within, watched).await {
                Ok(response) => response,
                Err(_) => Status::deadline_exceeded("the message did not come in time").into_http(),
            }
        }
        _ => {
            let unary = Unary {
                app,
                path,
                asked,
                caller,
            };
            let answered = grpc.unary(unary, request);
            // Loading a model takes as long as it takes.
            let patience = match path {
                MODEL_LOAD => LOAD_PATIENCE,
                _ => within,
            };
            match tokio::time::timeout(patience, answered).await {
                Ok(response) => response,
                Err(_) => return not_complete(patience).into_http(),
            }
        }
    };
    // tonic says OUT_OF_RANGE of a message over the limit, which nothing else here does; the code
    // that clients know for it is another.
    match code_of(&response) {
        Code::OutOfRange => too_large(limit).into_http(),
        _ => response.map(axum::body::Body::new),
    }
}

/// The code in the headers of a response, where a refusal has it.
fn code_of<B>(response: &axum::http::Response<B>) -> Code {
    let header = response.headers().get(Status::GRPC_STATUS);
    header.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// A message over the limit; it is not read.
pub fn too_large(limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "message: over the limit of {limit} bytes (max_tensor_body_bytes)"
    ))
}

fn not_complete(within: Duration) -> Status {
    Status::deadline_exceeded(format!(
        "not answered after {within:?} (request_timeout); was the request sent to its end?"
    ))
}

/// What is no gRPC gets an HTTP status, as gRPC's description over HTTP/2 says.
fn refuse_other_protocols(request: &Request) -> Option<Response> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc && request.method() == Method::POST {
        return None;
    }
    let message = "this port speaks gRPC; HTTP and JSON are on the other one\n";
    Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response())
}

/// A call with one message each way.
struct Unary {
    app: Arc<App>,
    path: &'static str,
    asked: Asked,
    caller: Caller,
}

type Answered<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Answered<Bytes>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Answered<Bytes> {
        let (app, path, asked) = (Arc::clone(&self.app), self.path, self.asked);
        let caller = self.caller.clone();
        Box::pin(async move {
            let message = request.into_inner();
            let reply = answer_unary(&app, path, message, asked, &caller).await?;
            Ok(tonic::Response::new(reply))
        })
    }
}

async fn answer_unary(
    app: &Arc<App>,
    path: &str,
    message: Bytes,
    asked: Asked,
    caller: &Caller,
) -> Result<Bytes, Status> {
    let (service, method) = path.rsplit_once('/').unwrap_or_default();
    if service == "/grpc.health.v1.Health" {
        let query: HealthRequest = decode(message)?;
        return Ok(encode(&health::check(app, &query.service)?));
    }
    if method == "ModelInfer" {
        bounds::check_infer_request(&message, app.config.max_body_bytes)?;
        let size = message.len();
        let answered = infer::infer(app, decode(message)?, size, asked).await;
        return Ok(encode(&answered.map_err(status::of)?));
    }
    // The other messages hold a name or two; what is larger is refused by the same bound as JSON.
    let limit = app.config.max_body_bytes;
    if message.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "message: over the limit of {limit} bytes (max_body_bytes)"
        )));
    }
    Ok(match method {
        "ServerLive" => {
            decode::<Empty>(message)?;
            encode(&ServerLiveResponse { live: true })
        }
        "ServerReady" => {
            decode::<Empty>(message)?;
            encode(&describe::server_ready(app))
        }
        "ServerMetadata" => {
            decode::<Empty>(message)?;
            encode(&describe::server_metadata())
        }
        "ModelReady" => {
            let query: ModelRequest = decode(message)?;
            encode(&describe::model_ready(app, &query))
        }
        "ModelMetadata" => {
            let query: ModelRequest = decode(message)?;
            encode(&describe::model_metadata(app, &query)?)
        }
        "ModelConfig" => {
            let query: ModelRequest = decode(message)?;
            let config = describe::model_config(app, &query)?;
            encode(&ModelConfigResponse::from(config))
        }
        "ModelStatistics" => {
            let query: ModelRequest = decode(message)?;
            encode(&describe::statistics(app, &query)?)
        }
        "RepositoryModelLoad" => encode(&repository::load(app, caller, decode(message)?).await?),
        "RepositoryModelUnload" => {
            encode(&repository::unload(app, caller, decode(message)?).await?)
        }
        "RepositoryIndex" => {
            let query: RepositoryIndexRequest = decode(message)?;
            encode(&describe::repository_index(app, query.ready))
        }
        _ => return Err(Status::unimplemented(format!("{method} is not supported"))),
    })
}

/// ModelStreamInfer: messages both ways.
struct StreamInfer {
    app: Arc<App>,
    asked: Asked,
    caller: Caller,
}

impl StreamingService<Bytes> for StreamInfer {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Answered<Answers>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Answered<Answers> {
        let (app, caller) = (Arc::clone(&self.app), self.caller.clone());
        let stream = InferStream::new(app, request.into_inner(), self.asked, caller);
        Box::pin(async move { Ok(tonic::Response::new(stream.answers())) })
    }
}

/// Watch of `grpc.health.v1.Health`: one message in, a stream out.
struct Watch {
    app: Arc<App>,
}

impl ServerStreamingService<Bytes> for Watch {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Answered<Answers>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Answered<Answers> {
        let app = Arc::clone(&self.app);
        Box::pin(async move {
            let asked: HealthRequest = decode(request.into_inner())?;
            Ok(tonic::Response::new(health::watch(app, &asked.service)))
        })
    }
}
