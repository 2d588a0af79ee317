//! `/v2`: the Open Inference Protocol over HTTP, for every loaded model as it is: what there is,
//! whether it is ready, and how it was used. Running it is in [`super::infer`].
//!
//! Inputs and outputs are those of the ONNX graph; features and calibration are not involved. The
//! answers are made by [`crate::models::describe`].

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::models::catalog::FindError;
use crate::models::describe::{self, ModelConfig, ModelMetadata, ServerMetadata, StatisticsReport};
use crate::serve::App;

/// The server is alive.
#[derive(Serialize, ToSchema)]
pub struct LiveReply {
    live: bool,
}

/// Whether the server or a model is ready.
#[derive(Serialize, ToSchema)]
pub struct ReadyReply {
    ready: bool,
    /// Why not; empty when it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// 503 with the reasons, or 200 when there are none.
fn ready_reply(reasons: Vec<String>) -> (StatusCode, Json<ReadyReply>) {
    let ready = reasons.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(ReadyReply { ready, reasons }))
}

/// Name, version and extensions of the server.
#[utoipa::path(get, path = "/v2", tag = "inference",
    responses((status = 200, description = "Server metadata", body = ServerMetadata)))]
pub async fn server_metadata() -> Json<ServerMetadata> {
    Json(describe::server())
}

/// Is the server alive?
#[utoipa::path(get, path = "/v2/health/live", tag = "inference",
    responses((status = 200, description = "It answers", body = LiveReply)))]
pub async fn server_live() -> Json<LiveReply> {
    Json(LiveReply { live: true })
}

/// Is the server ready?
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference",
    responses(
        (status = 200, description = "Ready", body = ReadyReply),
        (status = 503, description = "Not ready; the reasons are listed", body = ReadyReply),
    ))]
pub async fn server_ready(State(app): State<Arc<App>>) -> (StatusCode, Json<ReadyReply>) {
    ready_reply(app.not_ready())
}

/// Inputs and outputs of a model's champion.
#[utoipa::path(get, path = "/v2/models/{name}", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Metadata", body = ModelMetadata),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
    ))]
pub async fn model_metadata(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Json<ModelMetadata>, ApiError> {
    Ok(Json(describe::metadata(
        &app.scorer.repository,
        &name,
        None,
    )?))
}

/// Inputs and outputs of one version.
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Metadata", body = ModelMetadata),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
    ))]
pub async fn model_version_metadata(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<Json<ModelMetadata>, ApiError> {
    let repository = &app.scorer.repository;
    Ok(Json(describe::metadata(repository, &name, Some(&version))?))
}

/// Is a model ready?
#[utoipa::path(get, path = "/v2/models/{name}/ready", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Ready", body = ReadyReply),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "No version is ready; the reasons are listed", body = ReadyReply),
    ))]
pub async fn model_ready(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<(StatusCode, Json<ReadyReply>), ApiError> {
    ready(&app, &name, None)
}

/// Is one version ready?
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}/ready", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Ready", body = ReadyReply),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such version", body = ErrorBody),
        (status = 503, description = "Refused; the reason is listed", body = ReadyReply),
    ))]
pub async fn model_version_ready(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<(StatusCode, Json<ReadyReply>), ApiError> {
    ready(&app, &name, Some(&version))
}

/// The configuration of a model's champion, as Triton describes one.
#[utoipa::path(get, path = "/v2/models/{name}/config", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Configuration", body = ModelConfig),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
    ))]
pub async fn model_config(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Json<ModelConfig>, ApiError> {
    config(&app, &name, None)
}

/// The configuration of one version.
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}/config", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Configuration", body = ModelConfig),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
    ))]
pub async fn model_version_config(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<Json<ModelConfig>, ApiError> {
    config(&app, &name, Some(&version))
}

/// How often every version that is ready was asked, and where the time went.
#[utoipa::path(get, path = "/v2/models/stats", tag = "inference",
    responses((status = 200, description = "Statistics", body = StatisticsReport)))]
pub async fn all_statistics(
    State(app): State<Arc<App>>,
) -> Result<Json<StatisticsReport>, ApiError> {
    statistics(&app, None, None)
}

/// The same of every version of a model that is ready.
#[utoipa::path(get, path = "/v2/models/{name}/stats", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Statistics", body = StatisticsReport),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
    ))]
pub async fn model_statistics(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Json<StatisticsReport>, ApiError> {
    statistics(&app, Some(&name), None)
}

/// The same of one version.
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}/stats", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Statistics", body = StatisticsReport),
        (status = 400, description = "The path is not UTF-8", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
    ))]
pub async fn model_version_statistics(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<Json<StatisticsReport>, ApiError> {
    statistics(&app, Some(&name), Some(&version))
}

fn config(app: &App, name: &str, version: Option<&str>) -> Result<Json<ModelConfig>, ApiError> {
    let config = describe::config(&app.scorer.repository, name, version, app.config.max_rows)?;
    Ok(Json(config))
}

fn statistics(
    app: &App,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Json<StatisticsReport>, ApiError> {
    let report = describe::statistics(&app.scorer.repository, name, version)?;
    Ok(Json(report))
}

fn ready(
    app: &App,
    name: &str,
    version: Option<&str>,
) -> Result<(StatusCode, Json<ReadyReply>), ApiError> {
    match app.scorer.repository.find(name, version) {
        Ok(_) => Ok(ready_reply(Vec::new())),
        Err(FindError::NotReady { reason }) => Ok(ready_reply(vec![reason])),
        Err(unknown) => Err(unknown.into()),
    }
}
