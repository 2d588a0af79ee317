//! `/v2/repository`: the model repository extension of the Open Inference Protocol. What is in the
//! repository, and loading and unloading models while requests run.
//!
//! A model is loaded from its folder as it is on disk; a request cannot bring files or settings of
//! its own. What the answers mean is said in [`crate::models::repository`].

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::SizeLimit;
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::models::describe::{self, IndexEntry};
use crate::models::repository::refuse_override;
use crate::serve::App;

/// Which folders to list.
#[derive(Deserialize, Default, ToSchema)]
pub struct IndexBody {
    /// List only those that are ready.
    #[serde(default)]
    ready: bool,
}

/// How to load or unload.
#[derive(Deserialize, Default, ToSchema)]
pub struct ChangeBody {
    /// `config` and `file:…` are refused; `unload_dependents` has no effect, because no model
    /// depends on another.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    parameters: Option<Map<String, Value>>,
}

/// Every version folder with its state and, where there is one, the reason.
#[utoipa::path(post, path = "/v2/repository/index", tag = "repository",
    request_body(content = Option<IndexBody>),
    responses(
        (status = 200, description = "The index", body = [IndexEntry]),
        (status = 400, description = "Not JSON, or a field is wrong", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
    ))]
pub async fn repository_index(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Vec<IndexEntry>>, ApiError> {
    let body: IndexBody = read_optional(&app, request).await?;
    Ok(Json(describe::index(&app.scorer.repository, body.ready)))
}

/// The same index, for a browser.
#[utoipa::path(get, path = "/v2/repository/index", tag = "repository",
    responses((status = 200, description = "The index", body = [IndexEntry])))]
pub async fn show_repository_index(State(app): State<Arc<App>>) -> Json<Vec<IndexEntry>> {
    Json(describe::index(&app.scorer.repository, false))
}

/// Load a model, or load it again, from its folder.
///
/// Versions that are new, changed or not served are loaded, the others are kept. A version that
/// fails to load goes on as it was served before.
#[utoipa::path(post, path = "/v2/repository/models/{name}/load", tag = "repository",
    params(("name" = String, Path, description = "Model")),
    request_body(content = Option<ChangeBody>),
    responses(
        (status = 200, description = "Every version of it is ready"),
        (status = 400, description = "A version could not be loaded, or no such model, or the body is wrong", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
    ))]
pub async fn load_model(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let body: ChangeBody = read_optional(&app, request).await?;
    for parameter in body.parameters.unwrap_or_default().keys() {
        refuse_override(parameter).map_err(ApiError::bad_request)?;
    }
    app.scorer.repository.load_aside(name).await?;
    Ok(StatusCode::OK)
}

/// Take a model out of service.
///
/// It stays listed and can be loaded again. Requests in flight are answered. A model that is not
/// there is out of service already.
#[utoipa::path(post, path = "/v2/repository/models/{name}/unload", tag = "repository",
    params(("name" = String, Path, description = "Model")),
    request_body(content = Option<ChangeBody>),
    responses(
        (status = 200, description = "It is out of service"),
        (status = 400, description = "The body is wrong", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 415, description = "An encoding of the body that is not understood", body = ErrorBody),
    ))]
pub async fn unload_model(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let _: ChangeBody = read_optional(&app, request).await?;
    app.scorer.repository.unload_aside(name).await?;
    Ok(StatusCode::OK)
}

/// A JSON body that may be left out.
async fn read_optional<T: DeserializeOwned + Default>(
    app: &App,
    request: Request,
) -> Result<T, ApiError> {
    let (head, body) = request.into_parts();
    let limit = SizeLimit::ordinary(app);
    let bytes = super::body::read_decoded(&head.headers, body, app, limit).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let body = super::body::parse::<Option<T>>(&bytes).map_err(ApiError::as_bad_request)?;
    Ok(body.unwrap_or_default())
}
