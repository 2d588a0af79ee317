//! `POST /v1/events`: what happened, to be counted by window features.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{SizeLimit, read_decoded};
use super::call::call;
use super::error::{ApiError, ErrorBody};
use super::path::percent_decode;
use crate::clock;
use crate::infer::Call;
use crate::infer::error::InferError;
use crate::ingest::event::cloud::Attributes;
use crate::ingest::event::{EventBatch, Form, Reader, RefusedEvent};
use crate::ingest::take::{Origin, Taken, take};
use crate::serve::App;

/// A body of at most this many bytes is read where the request is; a larger one takes a place of its
/// own, so that reading it keeps no other request waiting.
pub const MAX_INLINE_BYTES: usize = 32 * 1024;

/// How many refused events are listed.
pub const SHOWN_REFUSED: usize = 100;

/// Something that happened to an entity.
#[derive(ToSchema)]
pub struct EventBody {
    /// Chosen by the sender, unique among the events of an entity: what makes sending twice harmless.
    #[schema(example = "crm-48213", min_length = 1, max_length = 256)]
    pub event_id: String,
    /// What happened: letters, digits, `_`, `.` and `-`.
    #[schema(example = "ticket", min_length = 1, max_length = 128)]
    pub event: String,
    /// To whom. For other entities their key columns by their own names; with several, the event
    /// reaches several views.
    #[schema(example = "C-000001", required = false)]
    pub customer_id: String,
    /// When it happened, RFC 3339; now when left out.
    #[schema(example = "2026-01-31T12:00:00Z", required = false)]
    pub occurred_at: Option<String>,
    /// What window features filter by and aggregate.
    #[schema(value_type = Object, required = false, example = json!({"severity": "high", "minutes": 12}))]
    pub properties: serde_json::Value,
}

/// One event or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum EventsBody {
    One(EventBody),
    Many(Vec<EventBody>),
}

/// What became of the events.
#[derive(Serialize, ToSchema)]
pub struct EventsReply {
    /// On disk and counted.
    accepted: usize,
    /// Taken before; nothing was added.
    duplicates: usize,
    /// The first 100 of those that were refused.
    refused: Vec<RefusedReply>,
    /// How many were refused.
    refused_total: usize,
    /// Why, when all were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// An event that was not taken.
#[derive(Serialize, ToSchema)]
pub struct RefusedReply {
    /// Its index among the events of the body, from 0.
    index: usize,
    /// The line on which it begins, from 1, when the body has one event after another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line: Option<usize>,
    /// Its id; null when it has none.
    event_id: Option<String>,
    /// The field, what was found and what was expected.
    error: String,
}

/// Send events: one, a list, or one on each line. They are on disk and counted when this answers.
///
/// Events that are right are taken although others of the same body are refused.
#[utoipa::path(
    post, path = "/v1/events", tag = "events",
    request_body(
        description = "JSON as described, or one object after another; or CloudEvents, also in binary \
                       mode with headers ce-*; or an Arrow IPC stream with a row for each event",
        content(
            (EventsBody = "application/json"),
            (String = "application/x-ndjson"),
            (Object = "application/cloudevents+json"),
            (Vec<Object> = "application/cloudevents-batch+json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        )
    ),
    responses(
        (status = 200, description = "Those not refused are on disk and counted", body = EventsReply),
        (status = 400, description = "The body cannot be read, or a header is wrong; nothing was taken", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large, or too many events", body = ErrorBody),
        (status = 415, description = "A form or an encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "All were refused, with `error` and the reasons; or the body has no events at all", body = EventsRefused),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "Cannot be put on disk now; send them again with the same ids", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    )
)]
pub async fn post_events(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the body is read: the time that takes counts.
    let call = call(&app, Instant::now(), request.headers())?;
    let (head, body) = request.into_parts();
    let attributes = binary_attributes(&head.headers)?;
    let form = match attributes {
        Some(_) => Form::CloudEvents,
        None => form_of(&head.headers)?,
    };
    let bytes = read_decoded(&head.headers, body, &app, SizeLimit::events(&app)).await?;
    let entered = app.admission.enter_in_turn(call.priority).await;
    let _in_flight = entered.map_err(InferError::from)?;
    call.check_deadline(None)?;
    let batch = run_sized(&app, &call, bytes.len(), {
        let app = Arc::clone(&app);
        move || read_batch(&app, form, attributes, &bytes)
    });
    let batch = batch.await??;
    let taken = take(&app.ingest, &app.ingest.views(), batch, Origin::Http).await?;
    Ok(render(taken))
}

/// The body of a refusal of all events.
#[derive(Serialize, ToSchema)]
pub struct EventsRefused {
    /// Why; of several events, the first's reason.
    pub error: String,
    #[schema(required = false)]
    pub accepted: usize,
    #[schema(required = false)]
    pub duplicates: usize,
    #[schema(required = false)]
    pub refused: Vec<RefusedReply>,
    #[schema(required = false)]
    pub refused_total: usize,
}

/// Runs the work of a small body here, that of a large one on a place of its own.
///
/// # Errors
/// Those of a server that has too much to do.
pub async fn run_sized<T: Send + 'static>(
    app: &App,
    call: &Call,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= MAX_INLINE_BYTES {
        return Ok(work());
    }
    let permit = app.admission.admit(call.priority, call.deadline).await;
    let permit = permit.map_err(InferError::from)?;
    let done = tokio::task::spawn_blocking(move || {
        // The place is taken until the work is over, also when the caller has gone.
        let _permit = permit;
        work()
    });
    done.await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn read_batch(
    app: &App,
    form: Form,
    attributes: Option<Attributes>,
    bytes: &Bytes,
) -> Result<EventBatch, ApiError> {
    let views = app.ingest.views();
    let reader = Reader::new(&views, &app.config.events, clock::now_us());
    let read = match attributes {
        Some(attributes) => reader.read_binary(attributes, bytes),
        None => reader.read(bytes, form),
    };
    read.map_err(ApiError::from)
}

fn form_of(headers: &HeaderMap) -> Result<Form, ApiError> {
    let content_type = match headers.get(header::CONTENT_TYPE) {
        Some(value) => Some(value.to_str().unwrap_or("unreadable")),
        None => None,
    };
    Form::of_content_type(content_type).map_err(|found| {
        ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "header Content-Type: expected application/json, application/x-ndjson, \
                 application/cloudevents+json, application/cloudevents-batch+json or \
                 application/vnd.apache.arrow.stream, found {:?}",
                crate::features::value::shorten(found, 64)
            ),
        )
    })
}

/// The attributes of a CloudEvent in binary mode; none when the request is no such event.
fn binary_attributes(headers: &HeaderMap) -> Result<Option<Attributes>, ApiError> {
    if !headers.contains_key("ce-specversion") && !headers.contains_key("ce-id") {
        return Ok(None);
    }
    let attribute = |name: &str| -> Result<Option<String>, ApiError> {
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        let text = value.to_str().ok().and_then(percent_decode);
        text.map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "header {name}: expected ASCII, with everything else percent-encoded as UTF-8"
            ))
        })
    };
    Ok(Some(Attributes {
        specversion: attribute("ce-specversion")?,
        id: attribute("ce-id")?,
        kind: attribute("ce-type")?,
        time: attribute("ce-time")?,
        subject: attribute("ce-subject")?,
        content_type: attribute("content-type")?,
    }))
}

fn render(taken: Taken) -> Response {
    let refused_total = taken.refused.len();
    let nothing_taken = refused_total > 0 && taken.accepted + taken.duplicates == 0;
    let error = taken.refused.first().filter(|_| nothing_taken);
    let error = error.map(|first| match refused_total {
        1 => first.error.clone(),
        several => format!(
            "all {several} events were refused; the first: {}",
            first.error
        ),
    });
    let status = match nothing_taken {
        true => StatusCode::UNPROCESSABLE_ENTITY,
        false => StatusCode::OK,
    };
    let refused = taken.refused.into_iter().take(SHOWN_REFUSED);
    let reply = EventsReply {
        accepted: taken.accepted,
        duplicates: taken.duplicates,
        refused: refused.map(RefusedReply::from).collect(),
        refused_total,
        error,
    };
    (status, Json(reply)).into_response()
}

impl From<RefusedEvent> for RefusedReply {
    fn from(refused: RefusedEvent) -> RefusedReply {
        RefusedReply {
            index: refused.index,
            line: refused.line,
            event_id: refused.event_id,
            error: refused.error,
        }
    }
}
