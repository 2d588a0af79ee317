//! `/v1/features/{view}/{key}`: the current features of one entity of any view. The parts of a
//! composite key are further segments of the path, in the order of the key columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use utoipa::ToSchema;

use super::body::JsonBody;
use super::customers::{self, FeatureReply, check_text};
use super::error::{ApiError, ErrorBody};
use super::path::percent_decode;
use crate::clock;
use crate::features::change::KEY_SEPARATOR;
use crate::features::value::shorten;
use crate::features::view::{View, suggestion};
use crate::ingest::event::draft::MAX_ID_BYTES;
use crate::ingest::rows::update_time;
use crate::serve::App;
use crate::store::read_one;

/// New values of some features; the others keep theirs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturesBody {
    /// Values by feature name; null says that the value is known to be empty.
    #[schema(value_type = Object, example = json!({"tenure": 12, "total_charges": null}))]
    features: Map<String, serde_json::Value>,
    /// From when on they hold, RFC 3339; now when left out. What is stored since a later time stays.
    #[serde(default)]
    #[schema(example = "2026-01-31T12:00:00Z")]
    occurred_at: Option<String>,
}

/// What was written.
#[derive(Serialize, ToSchema)]
pub struct FeaturesWritten {
    view: String,
    /// The key columns with their values.
    #[schema(value_type = Object)]
    key: BTreeMap<String, String>,
    /// From when on the values hold, RFC 3339.
    as_of: String,
    /// Features whose new value is not among the declared ones.
    unknown: Vec<String>,
}

/// The current features of one entity.
#[derive(Serialize, ToSchema)]
pub struct FeaturesReply {
    view: String,
    /// The key columns with their values.
    #[schema(value_type = Object)]
    key: BTreeMap<String, String>,
    /// Features by name; a stored one that was never written is not listed.
    features: BTreeMap<String, FeatureReply>,
}

/// Read the features of one entity.
#[utoipa::path(
    get, path = "/v1/features/{view}/{key}", tag = "features",
    params(
        ("view" = String, Path, description = "The feature view"),
        ("key" = String, Path, description = "The entity's key; the parts of a composite one are further segments"),
    ),
    responses(
        (status = 200, description = "Its features", body = FeaturesReply),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "Unknown view or entity", body = ErrorBody),
        (status = 422, description = "The key is not allowed", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn get_features(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<FeaturesReply>, ApiError> {
    let entity = entity_of(&app, &uri)?;
    let view = &entity.view;
    let now_us = clock::now_us();
    let snapshot = read_one(&*app.scorer.store, view, &entity.key, now_us).await?;
    let snapshot = snapshot.ok_or_else(|| entity.unknown())?;
    Ok(Json(FeaturesReply {
        features: customers::describe(&app, view, &entity.key, &snapshot, now_us).await?,
        view: view.name.clone(),
        key: entity.parts,
    }))
}

/// Write some features of one entity.
#[utoipa::path(
    put, path = "/v1/features/{view}/{key}", tag = "features",
    params(
        ("view" = String, Path, description = "The feature view"),
        ("key" = String, Path, description = "The entity's key; the parts of a composite one are further segments"),
    ),
    request_body = FeaturesBody,
    responses(
        (status = 200, description = "Written and on disk", body = FeaturesWritten),
        (status = 400, description = "Not JSON, or the path is not UTF-8", body = ErrorBody),
        (status = 404, description = "Unknown view", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
        (status = 422, description = "The key or a feature is wrong; it is named; nothing was written", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn put_features(
    State(app): State<Arc<App>>,
    uri: Uri,
    JsonBody(body): JsonBody<FeaturesBody>,
) -> Result<Json<FeaturesWritten>, ApiError> {
    let entity = entity_of(&app, &uri)?;
    let now_us = clock::now_us();
    let as_of_us = match &body.occurred_at {
        Some(text) => {
            update_time(text, &app.config.events, now_us).map_err(ApiError::unprocessable)?
        }
        None => now_us,
    };
    let view = &entity.view;
    let unknown = customers::write(&app, view, &entity.key, &body.features, as_of_us).await?;
    Ok(Json(FeaturesWritten {
        view: view.name.clone(),
        key: entity.parts,
        as_of: clock::to_rfc3339(as_of_us),
        unknown,
    }))
}

/// Remove what is stored of one entity, its windows included. Ledger rows stay: they are history.
#[utoipa::path(
    delete, path = "/v1/features/{view}/{key}", tag = "features",
    params(
        ("view" = String, Path, description = "The feature view"),
        ("key" = String, Path, description = "The entity's key; the parts of a composite one are further segments"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "Unknown view or entity", body = ErrorBody),
        (status = 422, description = "The key is not allowed", body = ErrorBody),
        (status = 503, description = "The store is not available", body = ErrorBody),
    )
)]
pub async fn delete_features(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    let entity = entity_of(&app, &uri)?;
    match customers::remove(&app, &entity.view, &entity.key).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(entity.unknown()),
    }
}

/// The entity that a path names.
struct Entity {
    view: Arc<View>,
    key: String,
    parts: BTreeMap<String, String>,
}

impl Entity {
    fn unknown(&self) -> ApiError {
        let parts = self.parts.iter();
        let parts: Vec<String> = parts
            .map(|(column, value)| format!("{column} {:?}", shorten(value, 128)))
            .collect();
        let view = &self.view.name;
        ApiError::not_found(format!("{}: not known in view {view}", parts.join(", ")))
    }
}

/// The view and the key in a path. They are taken from the path as it was sent, because an encoded
/// slash belongs to a part of the key and a plain one stands between two.
fn entity_of(app: &App, uri: &Uri) -> Result<Entity, ApiError> {
    let path = uri.path().strip_prefix("/v1/features/").unwrap_or_default();
    let mut segments = Vec::new();
    for segment in path.split('/') {
        let decoded = percent_decode(segment);
        segments.push(decoded.ok_or_else(|| ApiError::bad_request("path: not UTF-8"))?);
    }
    let view = view_of(app, &segments[0])?;
    let columns = view.key_columns();
    let values = &segments[1..];
    if values.len() != columns.len() {
        return Err(ApiError::unprocessable(format!(
            "path: expected /v1/features/{}/{{{}}}, found {} segments behind the view",
            view.name,
            columns.join("}/{"),
            values.len()
        )));
    }
    for (column, value) in columns.iter().zip(values) {
        check_text(column, value, MAX_ID_BYTES)?;
    }
    let key = values.join(&KEY_SEPARATOR.to_string());
    let parts = columns.iter().cloned().zip(values.iter().cloned());
    Ok(Entity {
        view: Arc::clone(&view),
        key,
        parts: parts.collect(),
    })
}

/// The view called `name`.
///
/// # Errors
/// 404 with a suggestion.
pub fn view_of(app: &App, name: &str) -> Result<Arc<View>, ApiError> {
    let views = app.scorer.views();
    views.get(name).cloned().ok_or_else(|| {
        let names = views.all().iter().map(|view| view.name.as_str());
        ApiError::not_found(format!(
            "view {:?}: no such view{}",
            shorten(name, 64),
            suggestion(name, names)
        ))
    })
}
