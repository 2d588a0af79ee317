//! `/v2`: the Open Inference Protocol over HTTP, for every loaded model as it is: what there is and
//! whether it is ready. Running it is in [`super::infer`].
//!
//! Inputs and outputs are those of the ONNX graph; features, calibration and the ledger are not
//! involved.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use onnx_ml::{Labels, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::body::SizeLimit;
use super::error::{ApiError, ErrorBody};
use super::operation::HealthReply;
use super::path::PathParams;
use crate::models::tensors;
use crate::serve::App;

#[derive(Serialize, ToSchema)]
pub struct ServerReply {
    name: &'static str,
    version: &'static str,
    extensions: Vec<&'static str>,
}

/// The inputs and outputs of a model version.
#[derive(Serialize, ToSchema)]
pub struct MetadataReply {
    name: String,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorReply>,
    outputs: Vec<TensorReply>,
}

#[derive(Serialize, ToSchema)]
pub struct TensorReply {
    name: String,
    datatype: &'static str,
    /// -1 for a dimension of any size.
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<TensorParameters>,
}

/// What the graph says of a tensor besides its type.
#[derive(Serialize, ToSchema)]
pub struct TensorParameters {
    /// The classes its columns stand for, in order.
    #[schema(value_type = Vec<serde_json::Value>)]
    labels: Vec<Value>,
}

/// One version folder in the repository index.
#[derive(Serialize, ToSchema)]
pub struct IndexReply {
    name: String,
    version: String,
    /// READY or UNAVAILABLE.
    state: &'static str,
    reason: String,
}

/// Which folders to list.
#[derive(Deserialize, Default, ToSchema)]
pub struct IndexBody {
    /// List only those that are ready.
    #[serde(default)]
    ready: bool,
}

/// Name, version and extensions of the server.
#[utoipa::path(get, path = "/v2", tag = "inference",
    responses((status = 200, description = "Server metadata", body = ServerReply)))]
pub async fn server_metadata() -> Json<ServerReply> {
    Json(ServerReply {
        name: "bellwether",
        version: env!("CARGO_PKG_VERSION"),
        extensions: vec!["model_repository(index)", "binary_tensor_data"],
    })
}

/// Is the server alive?
#[utoipa::path(get, path = "/v2/health/live", tag = "inference",
    responses((status = 200, description = "It answers", body = HealthReply)))]
pub async fn server_live() -> Json<HealthReply> {
    super::operation::livez().await
}

/// Is the server ready?
#[utoipa::path(get, path = "/v2/health/ready", tag = "inference",
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 503, description = "Not ready; the reasons are listed", body = HealthReply),
    ))]
pub async fn server_ready(state: State<Arc<App>>) -> (StatusCode, Json<HealthReply>) {
    super::operation::readyz(state).await
}

/// Every version folder with its state and, when refused, the reason.
#[utoipa::path(post, path = "/v2/repository/index", tag = "inference",
    request_body(content = Option<IndexBody>),
    responses(
        (status = 200, description = "The index", body = [IndexReply]),
        (status = 400, description = "Not JSON", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body too large", body = ErrorBody),
        (status = 422, description = "A field is wrong", body = ErrorBody),
    ))]
pub async fn repository_index(
    State(app): State<Arc<App>>,
    request: axum::extract::Request,
) -> Result<Json<Vec<IndexReply>>, ApiError> {
    let bytes = super::body::read(request.into_body(), &app, SizeLimit::ordinary(&app)).await?;
    let body = if bytes.iter().all(u8::is_ascii_whitespace) {
        IndexBody::default()
    } else {
        super::body::parse::<Option<IndexBody>>(&bytes)?.unwrap_or_default()
    };
    Ok(Json(index(&app, body.ready)))
}

/// The same index, for a browser.
#[utoipa::path(get, path = "/v2/repository/index", tag = "inference",
    responses((status = 200, description = "The index", body = [IndexReply])))]
pub async fn show_repository_index(State(app): State<Arc<App>>) -> Json<Vec<IndexReply>> {
    Json(index(&app, false))
}

fn index(app: &App, only_ready: bool) -> Vec<IndexReply> {
    let entries = app.scorer.repository.entries();
    let listed = entries.filter(|entry| !only_ready || entry.state.is_ok());
    listed
        .map(|entry| IndexReply {
            name: entry.name.clone(),
            version: entry.version.clone(),
            state: if entry.state.is_ok() {
                "READY"
            } else {
                "UNAVAILABLE"
            },
            reason: entry.state.as_ref().err().cloned().unwrap_or_default(),
        })
        .collect()
}

/// Inputs and outputs of a model's champion.
#[utoipa::path(get, path = "/v2/models/{name}", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Metadata", body = MetadataReply),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
    ))]
pub async fn model_metadata(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<Json<MetadataReply>, ApiError> {
    metadata(&app, &name, None)
}

/// Inputs and outputs of one version.
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Metadata", body = MetadataReply),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
    ))]
pub async fn model_version_metadata(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<Json<MetadataReply>, ApiError> {
    metadata(&app, &name, Some(&version))
}

/// Is a model ready?
#[utoipa::path(get, path = "/v2/models/{name}/ready", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "No version is ready; the reasons are listed", body = HealthReply),
    ))]
pub async fn model_ready(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
) -> Result<(StatusCode, Json<HealthReply>), ApiError> {
    ready(&app, &name, None)
}

/// Is one version ready?
#[utoipa::path(get, path = "/v2/models/{name}/versions/{version}/ready", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    responses(
        (status = 200, description = "Ready", body = HealthReply),
        (status = 404, description = "No such version", body = ErrorBody),
        (status = 503, description = "Refused; the reason is listed", body = HealthReply),
    ))]
pub async fn model_version_ready(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
) -> Result<(StatusCode, Json<HealthReply>), ApiError> {
    ready(&app, &name, Some(&version))
}

fn metadata(app: &App, name: &str, version: Option<&str>) -> Result<Json<MetadataReply>, ApiError> {
    let found = app
        .scorer
        .repository
        .find(name, version)
        .map_err(ApiError::not_found)?;
    let versions = match version {
        Some(_) => vec![found.version.clone()],
        None => {
            let entries = app.scorer.repository.versions(name).into_iter().flatten();
            let ready = entries.filter(|entry| entry.state.is_ok());
            ready.map(|entry| entry.version.clone()).collect()
        }
    };
    Ok(Json(MetadataReply {
        name: found.name.clone(),
        versions,
        platform: "bellwether_onnx",
        inputs: found.graph.inputs().iter().map(describe).collect(),
        outputs: found.graph.outputs().iter().map(describe).collect(),
    }))
}

fn describe(info: &TensorInfo) -> TensorReply {
    let labels = info.labels.as_ref().map(|labels| match labels {
        Labels::Integers(labels) => labels.iter().map(|label| Value::from(*label)).collect(),
        Labels::Strings(labels) => labels
            .iter()
            .map(|label| Value::from(label.as_str()))
            .collect(),
    });
    let shape = info.shape.iter();
    TensorReply {
        name: info.name.clone(),
        datatype: tensors::protocol_name(info.data_type),
        shape: shape.map(|dim| dim.map_or(-1, |dim| dim as i64)).collect(),
        parameters: labels.map(|labels| TensorParameters { labels }),
    }
}

fn ready(
    app: &App,
    name: &str,
    version: Option<&str>,
) -> Result<(StatusCode, Json<HealthReply>), ApiError> {
    let repository = &app.scorer.repository;
    let known = repository.versions(name).is_some_and(|mut versions| {
        version.is_none_or(|version| versions.any(|entry| entry.version == version))
    });
    match repository.find(name, version) {
        Ok(_) => Ok((
            StatusCode::OK,
            Json(HealthReply {
                ok: true,
                reasons: Vec::new(),
            }),
        )),
        Err(reason) if known => {
            let reply = HealthReply {
                ok: false,
                reasons: vec![reason],
            };
            Ok((StatusCode::SERVICE_UNAVAILABLE, Json(reply)))
        }
        Err(reason) => Err(ApiError::not_found(reason)),
    }
}
