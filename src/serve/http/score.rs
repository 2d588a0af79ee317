//! `POST /v1/score`: predictions for one customer.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use utoipa::ToSchema;

use super::body::JsonBody;
use super::call::call;
use super::customers::check_customer_id;
use super::error::{ApiError, ErrorBody};
use crate::infer::error::InferError;
use crate::models::manifest::TaskKind;
use crate::score::reasons::Reasons;
use crate::score::{Prediction, ScoreAnswer, ScoreRequest};
use crate::serve::App;

/// The most models one request may name.
const MAX_MODELS: usize = 64;

/// Which customer to score, with what.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreBody {
    /// The customer's key.
    #[schema(example = "C-000001", min_length = 1, max_length = 256)]
    customer_id: String,
    /// Names of models; all that read the customer's view when left out.
    #[serde(default)]
    #[schema(example = json!(["churn"]), max_items = 64)]
    models: Option<Vec<String>>,
    /// Values to use instead of the stored ones, by feature name.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = json!({"contract": "Two year"}))]
    features: Option<Map<String, serde_json::Value>>,
    /// What is known of the request itself: values of the view's request features, by name.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = json!({"channel": "app"}))]
    context: Option<Map<String, serde_json::Value>>,
    /// How many reasons to give with each prediction.
    #[serde(default)]
    #[schema(example = 3)]
    explain: Option<u16>,
}

/// Predictions for one customer, recorded in the ledger under `prediction_id`.
#[derive(Serialize, ToSchema)]
pub struct ScoreReply {
    /// UUIDv7; name it when reporting an outcome.
    #[schema(example = "019aa0b2-7c3e-7d53-9c3f-0242ac120002")]
    prediction_id: String,
    customer_id: String,
    predictions: Vec<PredictionReply>,
    features: QualityReply,
}

/// What one model version said.
#[derive(Serialize, ToSchema)]
pub struct PredictionReply {
    model: String,
    version: String,
    /// A probability for a classifier, the value for a regression.
    score: f64,
    /// For an affinity model: the best choice the customer does not hold; absent when all are held.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<ReasonsReply>,
}

/// base + contributions + other is the raw score: log-odds for a classifier.
#[derive(Serialize, ToSchema)]
pub struct ReasonsReply {
    /// The raw score of the model's reference customer.
    base: f64,
    contributions: Vec<ContributionReply>,
    /// The features that are not listed, and what only combinations of features explain.
    other: f64,
}

#[derive(Serialize, ToSchema)]
pub struct ContributionReply {
    feature: String,
    #[schema(value_type = serde_json::Value)]
    value: serde_json::Value,
    contribution: f64,
}

/// What to know about the feature values that were used.
#[derive(Serialize, ToSchema)]
pub struct QualityReply {
    /// Older than the feature's max_age.
    stale: Vec<String>,
    /// Without a value: the declared default was used, or missing passed on to the model.
    missing: Vec<String>,
    /// With a value that is not among the feature's declared ones.
    unknown: Vec<String>,
    /// `unavailable` when the store could not be read and the server is told to go on with declared
    /// defaults; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "unavailable")]
    store: Option<&'static str>,
}

/// Score one customer.
#[utoipa::path(
    post, path = "/v1/score", tag = "score",
    request_body = ScoreBody,
    responses(
        (status = 200, description = "Predictions, recorded in the ledger", body = ScoreReply),
        (status = 400, description = "Not JSON, or a header is wrong; it is named", body = ErrorBody),
        (status = 404, description = "Unknown customer or model", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "A field is wrong; it is named", body = ErrorBody),
        (status = 429, description = "More requests than are taken at once; see Retry-After", body = ErrorBody),
        (status = 503, description = "The store cannot be read or the prediction not be recorded now; see Retry-After", body = ErrorBody),
        (status = 504, description = "The deadline passed before the work was begun", body = ErrorBody),
    )
)]
pub async fn score(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<ScoreReply>, ApiError> {
    // Before the body is read: the time that takes counts.
    let call = call(&app, Instant::now(), request.headers())?;
    let JsonBody(body) = JsonBody::<ScoreBody>::from_request(request, &app).await?;
    let request = into_request(body)?;
    // One row is a matter of microseconds: it runs here, as soon as those that came with it are
    // counted.
    let entered = app.admission.enter_in_turn(call.priority).await;
    let _in_flight = entered.map_err(InferError::from)?;
    call.check_deadline(None)?;
    let answer = app.scorer.score(&request).await?;
    Ok(Json(render(request.customer_id, answer)))
}

fn into_request(body: ScoreBody) -> Result<ScoreRequest, ApiError> {
    check_customer_id(&body.customer_id)?;
    if let Some(models) = &body.models {
        check_models(models)?;
    }
    Ok(ScoreRequest {
        customer_id: body.customer_id,
        models: body.models,
        overrides: body.features.unwrap_or_default(),
        context: body.context.unwrap_or_default(),
        explain: body.explain.map(usize::from),
    })
}

/// Refuses a list of models that is empty, too long, or names one twice.
///
/// # Errors
/// 422 with what is wrong.
pub fn check_models(models: &[String]) -> Result<(), ApiError> {
    if models.is_empty() {
        let message = "models: empty; name at least one, or leave it out for all";
        return Err(ApiError::unprocessable(message));
    }
    if models.len() > MAX_MODELS {
        let message = format!(
            "models: {} names, at most {MAX_MODELS} are allowed",
            models.len()
        );
        return Err(ApiError::unprocessable(message));
    }
    for (index, name) in models.iter().enumerate() {
        if models[..index].contains(name) {
            let name = crate::features::value::shorten(name, 64);
            let message = format!("models[{index}]: {name:?} is named twice");
            return Err(ApiError::unprocessable(message));
        }
    }
    Ok(())
}

/// An answer as the caller sees it.
pub fn render(customer_id: String, answer: ScoreAnswer) -> ScoreReply {
    ScoreReply {
        prediction_id: answer.prediction_id.to_string(),
        customer_id,
        predictions: answer
            .predictions
            .into_iter()
            .map(render_prediction)
            .collect(),
        features: QualityReply {
            stale: answer.quality.stale,
            missing: answer.quality.missing,
            unknown: answer.quality.unknown,
            store: answer.quality.store_lost.then_some("unavailable"),
        },
    }
}

fn render_prediction(prediction: Prediction) -> PredictionReply {
    PredictionReply {
        model: prediction.version.name.clone(),
        version: prediction.version.version.clone(),
        score: prediction.scored.score,
        label: prediction.scored.label,
        reasons: prediction.reasons.map(render_reasons),
    }
}

/// Reasons as the caller sees them.
pub fn render_reasons(reasons: Reasons) -> ReasonsReply {
    ReasonsReply {
        base: reasons.base,
        contributions: reasons
            .contributions
            .into_iter()
            .map(|reason| ContributionReply {
                feature: reason.feature,
                value: reason.value.to_json(),
                contribution: reason.contribution,
            })
            .collect(),
        other: reasons.other,
    }
}

/// The word for a task in the API.
pub fn task_word(task: TaskKind) -> &'static str {
    match task {
        TaskKind::Binary => "binary",
        TaskKind::Affinity => "affinity",
        TaskKind::Regression => "regression",
    }
}
