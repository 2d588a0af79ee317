//! `POST /v1/outcomes`: what happened after a prediction.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::JsonBody;
use super::customers::{check_customer_id, check_text};
use super::error::{ApiError, ErrorBody};
use crate::clock;
use crate::features::value::shorten;
use crate::ledger::{MAX_OUTCOME_ID_BYTES, Outcome, outcome_content_hash};
use crate::serve::App;

/// The longest name of an outcome, in bytes.
const MAX_OUTCOME_BYTES: usize = 128;

/// How far in the future an outcome may lie: the clocks of sender and server differ.
const MAX_CLOCK_SKEW_US: i64 = 5 * 60 * 1_000_000;

/// What happened, to whom or after which prediction.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeBody {
    /// Makes sending twice harmless; chosen by the sender. Made up by the server when left out.
    #[serde(default)]
    #[schema(example = "crm-48213", max_length = 256)]
    outcome_id: Option<String>,
    /// The prediction it belongs to; this or `customer_id` is needed.
    #[serde(default)]
    #[schema(example = "019aa0b2-7c3e-7d53-9c3f-0242ac120002")]
    prediction_id: Option<String>,
    /// The customer it happened to.
    #[serde(default)]
    #[schema(example = "C-000001")]
    customer_id: Option<String>,
    /// What happened, as named by the model's `[label] outcome`.
    #[schema(example = "churn")]
    outcome: String,
    /// A number that goes with it: revenue, 1 or 0.
    #[serde(default)]
    #[schema(example = 1.0)]
    value: Option<f64>,
    /// When it happened, RFC 3339; now when left out.
    #[serde(default)]
    #[schema(example = "2026-01-31T12:00:00Z")]
    occurred_at: Option<String>,
}

/// The outcome is on disk.
#[derive(Serialize, ToSchema)]
pub struct OutcomeReply {
    outcome_id: String,
    /// This outcome had been recorded before; nothing was added.
    duplicate: bool,
}

/// Record an outcome. It is on disk when this answers.
#[utoipa::path(
    post, path = "/v1/outcomes", tag = "outcomes",
    request_body = OutcomeBody,
    responses(
        (status = 200, description = "On disk", body = OutcomeReply),
        (status = 400, description = "Not JSON", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 409, description = "The outcome_id was used for another outcome", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "A field is wrong; it is named", body = ErrorBody),
        (status = 503, description = "Cannot be recorded now; send it again with the same outcome_id", body = ErrorBody),
    )
)]
pub async fn record_outcome(
    State(app): State<Arc<App>>,
    JsonBody(body): JsonBody<OutcomeBody>,
) -> Result<Json<OutcomeReply>, ApiError> {
    let outcome = into_outcome(body)?;
    let receipt = app.scorer.ledger.append_outcome(outcome).await?;
    Ok(Json(OutcomeReply {
        outcome_id: receipt.outcome_id,
        duplicate: receipt.duplicate,
    }))
}

fn into_outcome(body: OutcomeBody) -> Result<Outcome, ApiError> {
    let now_us = clock::now_us();
    let prediction_id = body
        .prediction_id
        .as_deref()
        .map(|text| {
            Uuid::parse_str(text).map_err(|_| {
                let found = shorten(text, 64);
                ApiError::unprocessable(format!("prediction_id: expected a UUID, found {found:?}"))
            })
        })
        .transpose()?;
    if let Some(customer_id) = &body.customer_id {
        check_customer_id(customer_id)?;
    }
    if prediction_id.is_none() && body.customer_id.is_none() {
        return Err(ApiError::unprocessable(
            "prediction_id: give this or customer_id",
        ));
    }
    check_text("outcome", &body.outcome, MAX_OUTCOME_BYTES)?;
    if let Some(outcome_id) = &body.outcome_id {
        check_text("outcome_id", outcome_id, MAX_OUTCOME_ID_BYTES)?;
    }
    let sent_at_us = body
        .occurred_at
        .as_deref()
        .map(|text| {
            clock::from_rfc3339(text)
                .map_err(|problem| ApiError::unprocessable(format!("occurred_at: {problem}")))
        })
        .transpose()?;
    if sent_at_us.is_some_and(|time_us| time_us > now_us + MAX_CLOCK_SKEW_US) {
        return Err(ApiError::unprocessable("occurred_at: lies in the future"));
    }
    let content_hash = outcome_content_hash(
        prediction_id.as_ref().map(|id| id.as_bytes().as_slice()),
        body.customer_id.as_deref(),
        &body.outcome,
        body.value,
        sent_at_us,
    );
    Ok(Outcome {
        outcome_id: body
            .outcome_id
            .unwrap_or_else(|| Uuid::now_v7().to_string()),
        prediction_id: prediction_id.map(|id| id.into_bytes().to_vec().into()),
        customer_id: body.customer_id,
        outcome: body.outcome,
        value: body.value,
        occurred_at_us: sent_at_us.unwrap_or(now_us),
        received_at_us: now_us,
        content_hash,
    })
}
