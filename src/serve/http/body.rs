//! Reading request bodies: bounded in size and time, and described well when they are wrong.
//! Compressed ones are inflated by [`super::compression`]; of what is refused [`super::leftover`] reads
//! the rest.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Path;

use super::compression;
use super::error::ApiError;
use crate::features::value::shorten;
use crate::serve::App;

/// A JSON request body.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read_decoded(&parts.headers, body, app, SizeLimit::ordinary(app)).await?;
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
    let field = field_of(error.path());
    let inner = error.into_inner();
    let message = shorten(&format!("{field}: {inner}"), 500);
    match inner.classify() {
        serde_json::error::Category::Data => Err(ApiError::unprocessable(message)),
        _ => Err(ApiError::bad_request(message)),
    }
}

/// The field in which a JSON text ends that was cut off; `body` outside of all fields.
pub fn field_at_end(text: &[u8]) -> String {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, Value>(&mut deserializer) {
        Err(error) => field_of(error.path()),
        Ok(_) => "body".to_owned(),
    }
}

fn field_of(path: &Path) -> String {
    let path = path.to_string();
    match path.as_str() {
        "." => "body".to_owned(),
        path => shorten(path, 200),
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

    /// For events and for rows of features.
    pub fn events(app: &App) -> SizeLimit {
        SizeLimit {
            bytes: app.config.events.max_body_bytes,
            setting: "events.max_body_bytes",
        }
    }

    /// For the files of a version of a model.
    pub fn upload(app: &App) -> SizeLimit {
        let bytes = app.config.repository.max_upload_bytes;
        SizeLimit {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            setting: "repository.max_upload_bytes",
        }
    }

    /// For observations that are joined with history.
    pub fn observations(app: &App) -> SizeLimit {
        SizeLimit {
            bytes: app.config.history.max_body_bytes,
            setting: "history.max_body_bytes",
        }
    }

    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// The refusal of what is over it. `what` says of the body what is: `it is` when nothing.
    pub fn exceeded(self, what: &str) -> ApiError {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "body: {what} over the limit of {} bytes ({})",
                self.bytes, self.setting
            ),
        )
    }
}

/// Reads a whole body as [`read`] does and, when it is compressed, inflates it. The limit holds for
/// what is sent and for what it is inflated to.
///
/// # Errors
/// As [`read`]; 415 for an encoding that is not understood, 400 when it is damaged.
pub async fn read_decoded<B>(
    headers: &HeaderMap,
    body: B,
    app: &App,
    limit: SizeLimit,
) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    let bytes = read(body, app, limit).await?;
    match compression::request_coding(headers)? {
        Some(coding) if !bytes.is_empty() => compression::inflate_body(coding, bytes, limit).await,
        _ => Ok(bytes),
    }
}

/// Reads a whole body within the limit and the configured time.
///
/// # Errors
/// 413 over the size, 408 over the time, 400 when the client stops sending.
pub async fn read<B>(body: B, app: &App, limit: SizeLimit) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    match tokio::time::timeout(app.config.request_timeout, collect(body, limit)).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("body: not complete after {:?}", app.config.request_timeout),
        )
        .closing()),
    }
}

async fn collect<B>(mut body: B, limit: SizeLimit) -> Result<Bytes, ApiError>
where
    B: HttpBody<Data = Bytes, Error: Display> + Unpin,
{
    // What the client says it sends: that it is too much is believed at once.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit.bytes {
        return Err(limit.exceeded("it is"));
    }
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
            return Err(limit.exceeded("it is"));
        }
        // Nearly every body is one frame, which is then passed on without a copy.
        match &first {
            None => first = Some(data),
            Some(start) => {
                if rest.is_empty() {
                    rest.reserve_exact(announced.max(start.len() + data.len()));
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
