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
use crate::features::change::{Change, ProfileUpdate, Removal, What};
use crate::features::column::value_at;
use crate::features::value::{Value, shorten};
use crate::features::view::{Holds, Role, View};
use crate::score::assemble::{Assembled, RowInput, Source, assemble};
use crate::score::read_related;
use crate::serve::App;
use crate::store::entity::{Applied, named_value};
use crate::store::{Snapshot, read_one};

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
    /// Stored, window, related and derived features by name; a stored feature never written is not
    /// listed.
    features: BTreeMap<String, FeatureReply>,
}

/// A value and its time.
#[derive(Serialize, ToSchema)]
pub struct FeatureReply {
    #[schema(value_type = serde_json::Value)]
    value: serde_json::Value,
    /// When it was written, RFC 3339; of a window feature, now; of a derived feature, when the oldest
    /// value it was computed from was written; null when that is a default.
    as_of: Option<String>,
}

/// Read a customer's features.
#[utoipa::path(
    get, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path, description = "The customer's key")),
    responses(
        (status = 200, description = "Features as of now", body = CustomerReply),
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
    let view = &app.scorer.customer_view()?;
    let now_us = clock::now_us();
    let snapshot = read_one(&*app.scorer.store, view, &customer_id, now_us).await?;
    let snapshot = snapshot.ok_or_else(|| unknown_customer(&customer_id))?;
    let features = describe(&app, view, &customer_id, &snapshot, now_us).await?;
    Ok(Json(CustomerReply {
        customer_id,
        features,
    }))
}

/// The features of the entity `key` as of `now_us`, by name.
///
/// # Errors
/// When they cannot be computed, or what they are related to cannot be read.
pub async fn describe(
    app: &App,
    view: &View,
    key: &str,
    snapshot: &Snapshot,
    now_us: i64,
) -> Result<BTreeMap<String, FeatureReply>, ApiError> {
    let profile = &snapshot.profile;

    let mut features = BTreeMap::new();
    for (name, stored) in profile.iter() {
        let as_of = Some(clock::to_rfc3339(stored.as_of_us));
        let value = stored.value.to_json();
        features.insert(name.to_owned(), FeatureReply { value, as_of });
    }
    let needed = vec![true; view.features().len()];
    let context: Vec<(usize, Value)> = view.request_time(now_us).collect();
    let row = RowInput {
        key,
        profile: Some(profile),
        overrides: &[],
        context: &context,
        windows: &snapshot.windows,
    };
    let related = read_related(&*app.scorer.store, view, &row, &needed, now_us).await?;
    let assembled = assemble(view, &[row], &related, &needed)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    for (column, feature) in view.features().iter().enumerate() {
        if matches!(feature.role, Role::Stored | Role::Request) {
            continue;
        }
        let as_of = as_of(view, &assembled, column, now_us);
        let value = value_at(assembled.batch.column(column), 0);
        let reply = FeatureReply {
            value: shown(&value, feature.holds),
            as_of: as_of.map(clock::to_rfc3339),
        };
        features.insert(feature.name.clone(), reply);
    }
    Ok(features)
}

/// A value as it is shown: maps and lists, which columns hold as text, as what they are.
fn shown(value: &Value, holds: Holds) -> serde_json::Value {
    match (value, holds) {
        (Value::String(text), Holds::Map | Holds::List) => {
            serde_json::from_str(text).unwrap_or_else(|_| value.to_json())
        }
        _ => value.to_json(),
    }
}

/// As of when the value of a column holds.
fn as_of(view: &View, assembled: &Assembled, column: usize, now_us: i64) -> Option<i64> {
    let of_input = |column: usize| {
        let origin = assembled.origin(0, column)?;
        match origin.source {
            Source::Window => Some(now_us),
            _ => origin.as_of_us,
        }
    };
    if view.features()[column].role != Role::Derived {
        return of_input(column);
    }
    let mut inputs = vec![false; view.features().len()];
    inputs[column] = true;
    view.close_over_inputs(&mut inputs);
    let inputs = (0..inputs.len()).filter(|&input| inputs[input]);
    inputs.filter_map(of_input).min()
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
    let view = &app.scorer.customer_view()?;
    let as_of_us = clock::now_us();
    let unknown = write(&app, view, &customer_id, &body.features, as_of_us).await?;
    Ok(Json(WrittenReply {
        customer_id,
        as_of: clock::to_rfc3339(as_of_us),
        unknown,
    }))
}

/// Writes some features of one entity as of a time, and returns the names of those whose value is not
/// among the declared ones.
///
/// # Errors
/// 422 naming the feature that is wrong, and those of the store; nothing was written then.
pub async fn write(
    app: &App,
    view: &View,
    key: &str,
    new: &Map<String, serde_json::Value>,
    as_of_us: i64,
) -> Result<Vec<String>, ApiError> {
    let mut features = Vec::with_capacity(new.len());
    let mut unknown = Vec::new();
    for (name, json) in new {
        let (_, value, is_unknown): (usize, Value, bool) = view
            .read_value(name, json)
            .map_err(|error| ApiError::unprocessable(format!("features.{error}")))?;
        if is_unknown {
            unknown.push(name.clone());
        }
        features.push(named_value(name, &value));
    }
    let update = ProfileUpdate {
        view: view.name.clone(),
        key: key.to_owned(),
        occurred_at_us: as_of_us,
        features,
    };
    let change = Change {
        known_at_us: None,
        what: Some(What::Update(update)),
    };
    app.ingest.submit(vec![change]).await?;
    Ok(unknown)
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
    let view = &app.scorer.customer_view()?;
    if remove(&app, view, &customer_id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown_customer(&customer_id))
    }
}

/// Removes what is stored of one entity, and says whether there was anything.
///
/// # Errors
/// Those of the store.
pub async fn remove(app: &App, view: &View, key: &str) -> Result<bool, ApiError> {
    let removal = Removal {
        view: view.name.clone(),
        key: key.to_owned(),
    };
    let change = Change {
        known_at_us: None,
        what: Some(What::Removal(removal)),
    };
    let applied = app.ingest.submit(vec![change]).await?;
    Ok(applied == [Applied::Done])
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
