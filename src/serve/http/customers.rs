//! `/v1/customers/{id}`: the current features of one customer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use utoipa::ToSchema;

use super::body::JsonBody;
use super::error::{ApiError, ErrorBody};
use crate::clock;
use crate::features::value::{Value, shorten};
use crate::score::assemble::{RowInput, assemble, value_at};
use crate::serve::App;
use crate::store::{Profile, StoredValue, Update};

/// The longest customer key, in bytes.
const MAX_ID_BYTES: usize = 256;

/// New values of some features; the others keep theirs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomerBody {
    /// Values by feature name; null says that the value is known to be empty.
    #[schema(value_type = Object, example = json!({"tenure": 12, "total_charges": null}))]
    features: Map<String, serde_json::Value>,
}

/// What was written.
#[derive(Serialize, ToSchema)]
pub struct WrittenReply {
    customer_id: String,
    /// When, RFC 3339.
    as_of: String,
    /// Features whose new value is not among the declared ones.
    unknown: Vec<String>,
}

/// The current view of one customer.
#[derive(Serialize, ToSchema)]
pub struct CustomerReply {
    customer_id: String,
    /// Stored and derived features by name; a feature never written is not listed.
    features: BTreeMap<String, FeatureReply>,
}

/// A value and its time.
#[derive(Serialize, ToSchema)]
pub struct FeatureReply {
    #[schema(value_type = serde_json::Value)]
    value: serde_json::Value,
    /// When it was written, RFC 3339; of a derived feature, when the oldest value it was computed
    /// from was written; null when it was computed from defaults only.
    as_of: Option<String>,
}

/// Read a customer's features.
#[utoipa::path(
    get, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path, description = "The customer's key")),
    responses(
        (status = 200, description = "Stored and derived features", body = CustomerReply),
        (status = 400, description = "The key is not UTF-8", body = ErrorBody),
        (status = 404, description = "Unknown customer", body = ErrorBody),
        (status = 422, description = "The key is not allowed", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn get_customer(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<CustomerReply>, ApiError> {
    let customer_id = customer_id(id)?;
    let view = app.scorer.customer_view()?;
    let profile = app.scorer.store.read(&view.name, &customer_id).await?;
    let profile = profile.ok_or_else(|| unknown_customer(&customer_id))?;

    let mut features = BTreeMap::new();
    for (name, stored) in &profile.features {
        let as_of = Some(clock::to_rfc3339(stored.as_of_us));
        features.insert(
            name.clone(),
            FeatureReply {
                value: stored.value.to_json(),
                as_of,
            },
        );
    }
    let needed = vec![true; view.features().len()];
    let row = RowInput {
        profile: Some(&profile),
        overrides: &[],
    };
    let assembled = assemble(view, &[row], &needed)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    for (column, feature) in view.features().iter().enumerate() {
        if feature.expression.is_some() {
            let value = value_at(assembled.batch.column(column), 0).to_json();
            let as_of = oldest_input(view, &profile, column).map(clock::to_rfc3339);
            features.insert(feature.name.clone(), FeatureReply { value, as_of });
        }
    }
    Ok(Json(CustomerReply {
        customer_id,
        features,
    }))
}

/// When the oldest stored value that a derived feature is computed from was written.
fn oldest_input(
    view: &crate::features::view::View,
    profile: &Profile,
    column: usize,
) -> Option<i64> {
    let mut inputs = vec![false; view.features().len()];
    inputs[column] = true;
    view.close_over_inputs(&mut inputs);
    let stored = view
        .stored_features()
        .iter()
        .enumerate()
        .filter(|(index, _)| inputs[*index]);
    stored
        .filter_map(|(_, feature)| profile.get(&feature.name))
        .map(|value| value.as_of_us)
        .min()
}

/// Write some of a customer's features.
#[utoipa::path(
    put, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path, description = "The customer's key")),
    request_body = CustomerBody,
    responses(
        (status = 200, description = "Written and on disk", body = WrittenReply),
        (status = 400, description = "Not JSON", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "A feature is wrong; it is named; nothing was written", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn put_customer(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
    JsonBody(body): JsonBody<CustomerBody>,
) -> Result<Json<WrittenReply>, ApiError> {
    let customer_id = customer_id(id)?;
    let view = app.scorer.customer_view()?;
    let as_of_us = clock::now_us();
    let mut features = Vec::with_capacity(body.features.len());
    let mut unknown = Vec::new();
    for (name, json) in &body.features {
        let (_, value, is_unknown): (usize, Value, bool) = view
            .read_value(name, json)
            .map_err(|error| ApiError::unprocessable(format!("features.{error}")))?;
        if is_unknown {
            unknown.push(name.clone());
        }
        features.push((name.clone(), StoredValue { value, as_of_us }));
    }
    let update = Update {
        key: customer_id.clone(),
        features,
    };
    app.scorer.store.update(&view.name, vec![update]).await?;
    Ok(Json(WrittenReply {
        customer_id,
        as_of: clock::to_rfc3339(as_of_us),
        unknown,
    }))
}

/// Remove a customer's features. Ledger rows stay: they are history.
#[utoipa::path(
    delete, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path, description = "The customer's key")),
    responses(
        (status = 204, description = "Removed"),
        (status = 400, description = "The key is not UTF-8", body = ErrorBody),
        (status = 404, description = "Unknown customer", body = ErrorBody),
        (status = 422, description = "The key is not allowed", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn delete_customer(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<StatusCode, ApiError> {
    let customer_id = customer_id(id)?;
    let view = app.scorer.customer_view()?;
    if app.scorer.store.delete(&view.name, &customer_id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown_customer(&customer_id))
    }
}

fn unknown_customer(customer_id: &str) -> ApiError {
    ApiError::not_found(format!(
        "customer_id {:?}: no such customer",
        shorten(customer_id, 128)
    ))
}

fn customer_id(
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<String, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::bad_request("customer_id: not UTF-8"))?;
    check_customer_id(&id)?;
    Ok(id)
}

/// Refuses keys that no customer can have.
///
/// # Errors
/// 422 for an empty key, one over 256 bytes, or one with control characters.
pub fn check_customer_id(id: &str) -> Result<(), ApiError> {
    check_text("customer_id", id, MAX_ID_BYTES)
}

/// Refuses text that no key or name can be.
///
/// # Errors
/// 422 naming the field: empty, over `limit` bytes, or with control characters.
pub fn check_text(field: &str, text: &str, limit: usize) -> Result<(), ApiError> {
    let problem = if text.is_empty() {
        "empty".to_owned()
    } else if text.len() > limit {
        format!("{} bytes long, at most {limit} are allowed", text.len())
    } else if text.chars().any(char::is_control) {
        "holds control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::unprocessable(format!("{field}: {problem}")))
}
