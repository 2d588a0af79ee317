//! `POST /v1/features/{view}`: rows of features for many entities of a running server.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{SizeLimit, read_decoded};
use super::call::call;
use super::error::{ApiError, ErrorBody};
use super::events::{SHOWN_REFUSED, run_sized};
use super::features::view_of;
use super::path::PathParams;
use crate::clock;
use crate::features::value::shorten;
use crate::infer::error::InferError;
use crate::ingest::event::Form;
use crate::ingest::rows::{RefusedRow, RowBatch, RowForm, RowReader};
use crate::serve::App;
use crate::store::entity::Applied;

/// What became of the rows.
#[derive(Serialize, ToSchema)]
pub struct PushReply {
    /// On disk.
    written: usize,
    /// The first 100 of those that were refused.
    refused: Vec<RefusedRowReply>,
    /// How many were refused.
    refused_total: usize,
    /// Why, when all were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// A row that was not written.
#[derive(Serialize, ToSchema)]
pub struct RefusedRowReply {
    /// Its index among the rows of the body, from 0.
    index: usize,
    /// The field, what was found and what was expected.
    error: String,
}

/// The body of a refusal of all rows.
#[derive(Serialize, ToSchema)]
pub struct PushRefused {
    /// Why; of several rows, the first's reason.
    pub error: String,
    #[schema(required = false)]
    pub written: usize,
    #[schema(required = false)]
    pub refused: Vec<RefusedRowReply>,
    #[schema(required = false)]
    pub refused_total: usize,
}

/// Write features of many entities: a row for each, as a JSON list, as lines of JSON, or as CSV.
///
/// A row has the key columns, features by name, and perhaps `occurred_at`. Rows that are right are
/// written although others of the same body are refused.
#[utoipa::path(
    post, path = "/v1/features/{view}", tag = "features",
    params(("view" = String, Path, description = "The feature view")),
    request_body(content(
        (Vec<Object> = "application/json", example = json!([{"customer_id": "C-000001", "tenure": 12}])),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
    )),
    responses(
        (status = 200, description = "Those not refused are on disk", body = PushReply),
        (status = 400, description = "The body cannot be read, or a header or the path is wrong; nothing was written", body = ErrorBody),
        (status = 404, description = "Unknown view", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large, or too many rows", body = ErrorBody),
        (status = 415, description = "A form or an encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "All were refused, with `error` and the reasons; or the body has no rows at all", body = PushRefused),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "Cannot be put on disk now; send them again", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    )
)]
pub async fn push_features(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    // Before the body is read: the time that takes counts.
    let call = call(&app, Instant::now(), request.headers())?;
    let (mut head, body) = request.into_parts();
    let PathParams(view) = PathParams::<String>::from_request_parts(&mut head, &app).await?;
    let view = view_of(&app, &view)?;
    let form = form_of(&head.headers)?;
    let bytes = read_decoded(&head.headers, body, &app, SizeLimit::events(&app)).await?;
    let entered = app.admission.enter_in_turn(call.priority).await;
    let _in_flight = entered.map_err(InferError::from)?;
    call.check_deadline(None)?;
    let batch = run_sized(&app, &call, bytes.len(), {
        let app = Arc::clone(&app);
        move || {
            let reader = RowReader::new(&view, &app.config.events, clock::now_us());
            reader.read(&bytes, form)
        }
    });
    write(&app, batch.await??).await
}

/// The form that the content type names; JSON when it names none.
fn form_of(headers: &HeaderMap) -> Result<RowForm, ApiError> {
    let content_type = match headers.get(header::CONTENT_TYPE) {
        Some(value) => value.to_str().unwrap_or("unreadable"),
        None => "",
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("text/csv") {
        return Ok(RowForm::Csv);
    }
    if let Ok(Form::Json) = Form::of_content_type(Some(content_type)) {
        return Ok(RowForm::Json);
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "header Content-Type: expected application/json, application/x-ndjson or text/csv, found {:?}",
            shorten(content_type, 64)
        ),
    ))
}

async fn write(app: &App, batch: RowBatch) -> Result<Response, ApiError> {
    let RowBatch {
        changes,
        indexes,
        mut refused,
    } = batch;
    let mut written = 0;
    if !changes.is_empty() {
        let applied = app.ingest.submit(changes).await?;
        for (index, applied) in indexes.into_iter().zip(applied) {
            match applied {
                Applied::Refused(error) => refused.push(RefusedRow { index, error }),
                _ => written += 1,
            }
        }
        refused.sort_by_key(|row| row.index);
    }
    let refused_total = refused.len();
    let first = refused.first().filter(|_| written == 0);
    let error = first.map(|first| match refused_total {
        1 => first.error.clone(),
        several => format!(
            "all {several} rows were refused; the first: {}",
            first.error
        ),
    });
    let status = match error {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let shown = refused.into_iter().take(SHOWN_REFUSED);
    let reply = PushReply {
        written,
        refused: shown
            .map(|RefusedRow { index, error }| RefusedRowReply { index, error })
            .collect(),
        refused_total,
        error,
    };
    Ok((status, Json(reply)).into_response())
}
