//! Reading request bodies: bounded in size and time, and described well when they are wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::serve::App;

/// How much of a body that is too large is read and thrown away, so that a client that sends
/// before it listens gets to see the answer.
const MAX_DISCARDED_BYTES: usize = 32 * 1024 * 1024;
const MAX_DISCARD_TIME: Duration = Duration::from_secs(5);

/// A JSON request body.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), app, SizeLimit::ordinary(app)).await?;
        parse(&bytes).map(JsonBody)
    }
}

/// Parses JSON; the error names the field and the position.
///
/// # Errors
/// 400 for what is no JSON, 422 for JSON of another shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // The plain parser is the fast path; only what fails is parsed again with field names.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("body: empty, expected a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(ApiError::bad_request(format!("body: {error}"))),
        },
        Err(error) => error,
    };
    let path = error.path().to_string();
    let field = if path == "." { "body".to_owned() } else { path };
    let inner = error.into_inner();
    let field = crate::features::value::shorten(&field, 200);
    let message = crate::features::value::shorten(&format!("{field}: {inner}"), 500);
    match inner.classify() {
        serde_json::error::Category::Data => Err(ApiError::unprocessable(message)),
        _ => Err(ApiError::bad_request(message)),
    }
}

/// How large a body may be, and the setting that says so.
#[derive(Clone, Copy)]
pub struct SizeLimit {
    bytes: usize,
    setting: &'static str,
}

impl SizeLimit {
    /// For every body but those with tensors as bytes.
    pub fn ordinary(app: &App) -> SizeLimit {
        SizeLimit {
            bytes: app.config.max_body_bytes,
            setting: "max_body_bytes",
        }
    }

    /// For inference requests with tensors as bytes.
    pub fn tensors(app: &App) -> SizeLimit {
        SizeLimit {
            bytes: app.config.max_tensor_body_bytes,
            setting: "max_tensor_body_bytes",
        }
    }
}

/// Reads a whole body within the limit and the configured time.
///
/// # Errors
/// 413 over the size, 408 over the time, 400 when the client stops sending.
pub async fn read(body: Body, app: &App, limit: SizeLimit) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(app.config.request_timeout, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("body: not complete after {:?}", app.config.request_timeout),
        )
        .closing()),
    }
}

async fn collect(mut body: Body, limit: SizeLimit) -> Result<Bytes, ApiError> {
    let mut first: Option<Bytes> = None;
    let mut rest: Vec<u8> = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("body: could not be read: {error}")).closing()
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size += data.len();
        if size > limit.bytes {
            return Err(too_large(body, limit).await);
        }
        // Nearly every body is one frame, which is then passed on without a copy.
        match &first {
            None => first = Some(data),
            Some(start) => {
                if rest.is_empty() {
                    rest.extend_from_slice(start);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.into()
    })
}

async fn too_large(mut body: Body, limit: SizeLimit) -> ApiError {
    let discard = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > MAX_DISCARDED_BYTES {
                return false;
            }
        }
        true
    };
    let whole = tokio::time::timeout(MAX_DISCARD_TIME, discard)
        .await
        .unwrap_or(false);
    let error = ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "body: over the limit of {} bytes ({})",
            limit.bytes, limit.setting
        ),
    );
    if whole { error } else { error.closing() }
}
