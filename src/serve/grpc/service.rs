//! Calls: from a path to the function that answers it.
//!
//! tonic cuts the frames, and this module decides who answers them. There is no generated code: a
//! call without streams is one arm of a `match` that decodes, calls a function and encodes.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
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
    Empty, HealthRequest, ModelRequest, RepositoryIndexRequest, RepositoryModelRequest,
    ServerLiveResponse,
};
use super::stream::{Answers, InferStream};
use super::{bounds, describe, health, infer, repository, status};
use crate::features::value::shorten;
use crate::serve::App;
use crate::serve::auth::audit::{self, Act};
use crate::serve::auth::{Access, Caller, Scope};
use crate::serve::window::paced;

/// How large a message may be, and which setting says so.
#[derive(Clone, Copy)]
pub struct Limit {
    bytes: usize,
    setting: &'static str,
}

impl Limit {
    /// Of a call that needs no key: it holds a name at most.
    const PUBLIC: Limit = Limit {
        bytes: 16 * 1024,
        setting: "not to be set; the call takes a name",
    };

    /// Of all other calls.
    pub fn tensors(app: &App) -> Limit {
        Limit {
            bytes: app.config.max_tensor_body_bytes,
            setting: "max_tensor_body_bytes",
        }
    }
}

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
    (REPOSITORY_INDEX, DEPLOY),
    (
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        DEPLOY,
    ),
    (
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        DEPLOY,
    ),
    ("/grpc.health.v1.Health/Check", PUBLIC),
    (HEALTH_WATCH, PUBLIC),
];

const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const REPOSITORY_INDEX: &str = "/inference.GRPCInferenceService/RepositoryIndex";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// How long a change may take before its caller is told that it is still under way: loading a model takes
/// as long as it takes.
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
    let recorded_as = recorded_as(path, access);
    let caller = match app.auth.admit(request.headers(), access) {
        Ok(caller) => caller,
        Err(denial) => {
            if let (Some(_), Some(id)) = (recorded_as, denial.without_right()) {
                let act = act(format!("key:{id}"), path);
                audit::refused(&app.auth, &app.scorer.ledger, &act, &denial);
            }
            return status::denied(&denial).into_http();
        }
    };
    let asked = match call::asked(request.headers()) {
        Ok(asked) => asked,
        Err(status) => return status.into_http(),
    };
    let limit = match access {
        Access::Public => Limit::PUBLIC,
        Access::Needs(_) => Limit::tensors(app),
    };
    // Of compressed messages the limit is on what they decompress to. Answers are sent as they are:
    // numbers hardly compress.
    let mut grpc = Grpc::new(FrameCodec)
        .max_decoding_message_size(limit.bytes)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    let within = app.config.request_timeout;
    let app = Arc::clone(app);
    if let Some(scope) = recorded_as {
        let act = act(caller.to_string(), path);
        let unary = Unary {
            app: Arc::clone(&app),
            path,
            asked,
            caller,
            recorded: Some((Arc::clone(&act.subject), scope)),
        };
        let answered = async move { in_known_codes(grpc.unary(unary, request).await, limit) };
        let recorded = repository::recorded(&app, act, within, answered);
        let answered = tokio::time::timeout(LOAD_PATIENCE, recorded).await;
        return answered.unwrap_or_else(|_| not_complete(LOAD_PATIENCE).into_http());
    }
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
                recorded: None,
            };
            match tokio::time::timeout(within, grpc.unary(unary, request)).await {
                Ok(response) => response,
                Err(_) => return not_complete(within).into_http(),
            }
        }
    };
    in_known_codes(response, limit)
}

/// The scope of a call that leaves a row in the audit log: those of administrators do, but for the one that
/// only looks.
fn recorded_as(path: &str, access: Access) -> Option<Scope> {
    match access {
        Access::Needs(scope) if scope.is_administrative() && path != REPOSITORY_INDEX => {
            Some(scope)
        }
        _ => None,
    }
}

/// A call as its row says it; what it is about is said by its message.
fn act(actor: String, path: &str) -> Act {
    let (_, call) = path.rsplit_once('/').unwrap_or_default();
    Act {
        actor,
        action: format!("gRPC {call}"),
        subject: Arc::default(),
    }
}

/// tonic says OUT_OF_RANGE of a message over the limit, which nothing else here does; the code that
/// clients know for it is another.
fn in_known_codes(response: axum::http::Response<tonic::body::Body>, limit: Limit) -> Response {
    match code_of(&response) {
        Code::OutOfRange => too_large(limit).into_http(),
        _ => response.map(paced),
    }
}

/// The code in the headers of a response, where a refusal has it.
fn code_of<B>(response: &axum::http::Response<B>) -> Code {
    let header = response.headers().get(Status::GRPC_STATUS);
    header.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// A message over the limit; it is not read.
pub fn too_large(limit: Limit) -> Status {
    let Limit { bytes, setting } = limit;
    Status::resource_exhausted(format!(
        "message: over the limit of {bytes} bytes ({setting})"
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
    /// Of a call that is recorded: where to say what it is about, and its scope.
    recorded: Option<(Arc<OnceLock<String>>, Scope)>,
}

type Answered<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Answered<Bytes>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Answered<Bytes> {
        let (app, path, asked) = (Arc::clone(&self.app), self.path, self.asked);
        let (caller, recorded) = (self.caller.clone(), self.recorded.clone());
        Box::pin(async move {
            let message = request.into_inner();
            if let Some((subject, scope)) = recorded {
                let name = name_in(&message, app.config.max_body_bytes);
                // It is said once: there is one message.
                let _ = subject.set(name);
                // The message may have come long after the call.
                let admitted = app.auth.still_admits(&caller, scope);
                admitted.map_err(|denial| status::denied(&denial))?;
            }
            let reply = answer_unary(&app, path, message, asked).await?;
            Ok(tonic::Response::new(reply))
        })
    }
}

/// The model that a message is about; nothing of one that is over the limit or no message.
fn name_in(message: &Bytes, limit: usize) -> String {
    if message.len() > limit {
        return String::new();
    }
    let asked = decode::<RepositoryModelRequest>(message.clone());
    asked.map(|asked| asked.model_name).unwrap_or_default()
}

async fn answer_unary(
    app: &Arc<App>,
    path: &str,
    message: Bytes,
    asked: Asked,
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
        "RepositoryModelLoad" => encode(&repository::load(app, decode(message)?).await?),
        "RepositoryModelUnload" => encode(&repository::unload(app, decode(message)?).await?),
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
