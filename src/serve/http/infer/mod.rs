//! `/v2/models/…/infer`: tensors in, tensors out, of a loaded model as it is.
//!
//! This is the path that is walked most, so it is short and straight, and reads from top to bottom:
//!
//! 1. [`infer`] – the body is taken as one piece of memory, within its limit.
//! 2. [`Inference::schedule`](crate::infer::Inference::schedule) – what follows is done here and now
//!    when it is small, elsewhere when it is not.
//! 3. [`read`] – JSON, numbers straight into tensors; no tree of values in between.
//! 4. [`bind`] – tensors to the graph's inputs, from JSON or from bytes behind it.
//! 5. [`Inference::run`](crate::infer::Inference::run) – the graph, and the row in the ledger.
//! 6. [`render`] – the answer, written once into the memory that is sent.
//!
//! The data of a tensor is JSON or bytes: the binary tensor data extension. With bytes, the header
//! `Inference-Header-Content-Length` says how long the JSON is, and behind it follow the bytes of
//! those inputs whose parameters hold `binary_data_size`, in their order. Outputs are answered in
//! the same way where the request asks for it, by `binary_data` of an output or
//! `binary_data_output` of the request. [`crate::models::binary`] says what the bytes are. A length
//! of 0 means that there is no JSON: see [`crate::infer::raw`]. What `content_type` in parameters
//! means is in [`crate::infer::content`].

pub mod bind;
pub mod read;
pub mod render;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};

use self::read::InferBody;
use self::render::{Answer, InferReply};
use super::body::SizeLimit;
use super::compression;
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::admission::deadline;
use crate::features::value::shorten;
use crate::infer::error::InferError;
use crate::infer::{Call, Inference, Turn, content, raw};
use crate::models::version::ModelVersion;
use crate::serve::App;

/// How long the JSON of a body is, of which the rest is binary.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// JSON of more bytes than this is not looked into before it is a request's turn: its timeout counts
/// from then on.
const MOST_READ_AHEAD: usize = 16 * 1024;

/// Run a model's champion on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/infer", tag = "inference",
    params(
        ("name" = String, Path, description = "Model"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Length of the JSON when bytes of tensors follow it"),
    ),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs; bytes that were asked for follow the JSON, whose length is in Inference-Header-Content-Length",
            content((InferReply = "application/json"), (String = "application/octet-stream"))),
        (status = 400, description = "Not JSON, or a field or tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 501, description = "A part of the protocol that this server does not have", body = ErrorBody),
        (status = 503, description = "The inference cannot be recorded now; see Retry-After", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    ))]
pub async fn model_infer(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    infer(&app, &name, None, Instant::now(), &head.headers, body).await
}

/// Run one version on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/versions/{version}/infer", tag = "inference",
    params(
        ("name" = String, Path, description = "Model"),
        ("version" = String, Path, description = "Version"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Length of the JSON when bytes of tensors follow it"),
    ),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs; bytes that were asked for follow the JSON, whose length is in Inference-Header-Content-Length",
            content((InferReply = "application/json"), (String = "application/octet-stream"))),
        (status = 400, description = "Not JSON, or a field or tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 501, description = "A part of the protocol that this server does not have", body = ErrorBody),
        (status = 503, description = "The inference cannot be recorded now; see Retry-After", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    ))]
pub async fn model_version_infer(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let (version, arrived) = (Some(version.as_str()), Instant::now());
    infer(&app, &name, version, arrived, &head.headers, body).await
}

/// Answers one request.
pub async fn infer<B>(
    app: &App,
    name: &str,
    version: Option<&str>,
    arrived: Instant,
    headers: &HeaderMap,
    body: B,
) -> Result<Response, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let mut call = super::call::call(app, arrived, headers)?;
    let limit = match headers.contains_key(JSON_LENGTH) {
        true => SizeLimit::tensors(app),
        false => SizeLimit::ordinary(app),
    };
    let mut json = super::body::read_decoded(headers, body, app, limit).await?;
    let length = json_length(headers, json.len())?;
    let request_bytes = json.len();
    let binary = length.map(|length| json.split_off(length));
    // Read, JSON takes more than its size; bytes do not.
    let most = app.config.max_body_bytes;
    if json.len() > most {
        return Err(InferError::too_large(format!(
            "body: its JSON is over the limit of {most} bytes (max_body_bytes)"
        ))
        .into());
    }
    let model = app.inference.find(name, version)?;
    if json.len() <= MOST_READ_AHEAD && !app.inference.runs_at_once(&model, request_bytes) {
        // It may have to wait for its turn, and is told there when its time is up.
        call.hurry(read::timeout_us(&json).and_then(deadline::from_triton));
    }
    let accepted = compression::accepted_coding(headers);
    let inner_call = call.clone();
    let work = move |inference: &Inference, model: &ModelVersion, turn: &mut Turn| {
        let body = Body { json, binary };
        let answer = answer(inference, model, body, &inner_call, turn)?;
        Ok(answer.encoded(accepted))
    };
    let answer = app
        .inference
        .schedule(&model, request_bytes, &call, work)
        .await?;
    Ok(answer.into_response())
}

/// The bytes of a request: its JSON, and what stands behind it.
pub struct Body {
    pub json: Bytes,
    /// `None` when the whole body is JSON.
    pub binary: Option<Bytes>,
}

/// From the bytes of a request to those of its answer.
///
/// # Errors
/// What is wrong with the request, by field, or why it cannot be answered now.
pub fn answer(
    inference: &Inference,
    model: &ModelVersion,
    body: Body,
    call: &Call,
    turn: &mut Turn,
) -> Result<Answer, InferError> {
    if let (true, Some(bytes)) = (body.json.is_empty(), &body.binary) {
        // The header says that there is no JSON: the bytes of the only input are all there is.
        let inputs = raw::raw_input(model, inference.max_rows, bytes)?;
        let ran = inference.run(model, inputs, None, turn)?;
        return render::render(model, None, ran, &bind::all_outputs(model, true));
    }
    let given = read::read(&body.json)?;
    let is_frame = given.content_type.as_deref() == Some(content::FRAME);
    let requested = bind::requested_outputs(model, &given)?;
    let id = given.id.clone();
    let timeout = given.timeout_us.and_then(deadline::from_triton);
    let inputs = bind::inputs(model, given, body.binary, inference.max_rows)?;
    call.check_deadline(timeout)?;
    let ran = inference.run(model, inputs, id.as_deref(), turn)?;
    match is_frame {
        true => render::render_frame(model, id.as_deref(), ran, &requested),
        false => render::render(model, id.as_deref(), ran, &requested),
    }
}

/// The length that the header gives, which is within the body.
fn json_length(headers: &HeaderMap, body_bytes: usize) -> Result<Option<usize>, InferError> {
    let refuse = |problem: String| {
        InferError::invalid(format!("header Inference-Header-Content-Length: {problem}"))
    };
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refuse("expected one, found several".to_owned()));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only {
        let found = shorten(&text, 40);
        return Err(refuse(format!(
            "expected a number of bytes, found {found:?}"
        )));
    }
    match text.parse::<usize>() {
        Ok(length) if length <= body_bytes => Ok(Some(length)),
        _ => Err(refuse(format!(
            "expected at most the {body_bytes} bytes of the body, found {}",
            shorten(&text, 40)
        ))),
    }
}
