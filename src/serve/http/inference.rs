//! `/v2`: the Open Inference Protocol over JSON, for every loaded model as it is.
//!
//! Inputs and outputs are those of the ONNX graph; features, calibration and the ledger are not
//! involved. Data may be flat or nested, always row-major. The binary tensor extension is not
//! offered, and the server metadata does not announce it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::body::JsonBody;
use super::error::{ApiError, ErrorBody};
use super::operation::HealthReply;
use super::path::PathParams;
use crate::features::value::shorten;
use crate::models::scoring::shape_text;
use crate::models::tensors;
use crate::models::version::ModelVersion;
use crate::serve::App;

/// Requests of more elements than this leave the request's thread.
const MAX_INLINE_ELEMENTS: usize = 4096;

/// How many large requests run at once; further ones wait for their turn.
static LARGE_REQUESTS: Semaphore = Semaphore::const_new(2);

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

/// Tensors to run a model on.
#[derive(Deserialize, ToSchema)]
pub struct InferBody {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<InputTensor>,
    /// The outputs to give; all when left out.
    #[serde(default)]
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize, ToSchema)]
pub struct InputTensor {
    name: String,
    shape: Vec<u64>,
    #[schema(example = "FP32")]
    datatype: String,
    /// The elements in row-major order, flat or nested.
    #[schema(value_type = Vec<serde_json::Value>)]
    data: Value,
}

#[derive(Deserialize, ToSchema)]
pub struct RequestedOutput {
    name: String,
}

#[derive(Serialize, ToSchema)]
pub struct InferReply {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

#[derive(Serialize, ToSchema)]
pub struct OutputTensor {
    name: String,
    datatype: &'static str,
    shape: Vec<u64>,
    #[schema(value_type = Vec<serde_json::Value>)]
    data: Vec<Value>,
}

/// Name, version and extensions of the server.
#[utoipa::path(get, path = "/v2", tag = "inference",
    responses((status = 200, description = "Server metadata", body = ServerReply)))]
pub async fn server_metadata() -> Json<ServerReply> {
    Json(ServerReply {
        name: "bellwether",
        version: env!("CARGO_PKG_VERSION"),
        extensions: vec!["model_repository(index)"],
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
    let bytes = super::body::read(request.into_body(), &app).await?;
    let body = if bytes.iter().all(u8::is_ascii_whitespace) {
        IndexBody::default()
    } else {
        super::body::parse::<Option<IndexBody>>(&bytes)?.unwrap_or_default()
    };
    let index = app
        .scorer
        .repository
        .entries()
        .filter(|entry| !body.ready || entry.state.is_ok())
        .map(|entry| IndexReply {
            name: entry.name.clone(),
            version: entry.version.clone(),
            state: if entry.state.is_ok() {
                "READY"
            } else {
                "UNAVAILABLE"
            },
            reason: entry.state.as_ref().err().cloned().unwrap_or_default(),
        });
    Ok(Json(index.collect()))
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

/// Run a model's champion on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/infer", tag = "inference",
    params(("name" = String, Path, description = "Model")),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs", body = InferReply),
        (status = 400, description = "Not JSON, or a tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 422, description = "JSON of another shape", body = ErrorBody),
    ))]
pub async fn model_infer(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    JsonBody(body): JsonBody<InferBody>,
) -> Result<Json<InferReply>, ApiError> {
    infer(&app, &name, None, body).await
}

/// Run one version on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/versions/{version}/infer", tag = "inference",
    params(("name" = String, Path, description = "Model"), ("version" = String, Path, description = "Version")),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs", body = InferReply),
        (status = 400, description = "Not JSON, or a tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 422, description = "JSON of another shape", body = ErrorBody),
    ))]
pub async fn model_version_infer(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
    JsonBody(body): JsonBody<InferBody>,
) -> Result<Json<InferReply>, ApiError> {
    infer(&app, &name, Some(&version), body).await
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
    let describe = |info: &onnx_ml::TensorInfo| TensorReply {
        name: info.name.clone(),
        datatype: tensors::protocol_name(info.datum_type),
        shape: info
            .shape
            .iter()
            .map(|dim| dim.map_or(-1, |dim| dim as i64))
            .collect(),
    };
    Ok(Json(MetadataReply {
        name: found.name.clone(),
        versions,
        platform: "onnx_tract",
        inputs: found.graph.inputs().iter().map(describe).collect(),
        outputs: found.graph.outputs().iter().map(describe).collect(),
    }))
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

async fn infer(
    app: &Arc<App>,
    name: &str,
    version: Option<&str>,
    body: InferBody,
) -> Result<Json<InferReply>, ApiError> {
    let model = app
        .scorer
        .repository
        .find(name, version)
        .map_err(ApiError::not_found)?;
    let elements = check_sizes(&body, app.config.max_rows)?;
    if elements <= MAX_INLINE_ELEMENTS {
        return run(model, body).map(Json);
    }
    // A large request must not hold up the small ones on this thread.
    let model = Arc::clone(model);
    let failed = |error: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let _turn = LARGE_REQUESTS
        .acquire()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let outcome = tokio::task::spawn_blocking(move || run(&model, body)).await;
    outcome
        .map_err(|error| failed(error.to_string()))?
        .map(Json)
}

/// Refuses shapes that claim more than the bounds; returns the number of elements claimed.
fn check_sizes(body: &InferBody, max_rows: usize) -> Result<usize, ApiError> {
    let mut elements: u64 = 0;
    for input in &body.inputs {
        let rows = input.shape.first().copied().unwrap_or(1);
        if rows > max_rows as u64 {
            let name = shorten(&input.name, 64);
            let message =
                format!("input {name:?}: shape: {rows} rows, at most {max_rows} are allowed");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let claimed = input
            .shape
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let total = claimed.and_then(|claimed| elements.checked_add(claimed));
        elements = total
            .filter(|total| *total <= u64::from(u32::MAX))
            .ok_or_else(|| {
                let name = shorten(&input.name, 64);
                let shape = shorten(&format!("{:?}", input.shape), 100);
                let message = format!("input {name:?}: shape: {shape} is too large");
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            })?;
    }
    Ok(elements as usize)
}

fn run(model: &ModelVersion, body: InferBody) -> Result<InferReply, ApiError> {
    let graph = &model.graph;
    let mut by_name: Vec<Option<&InputTensor>> = vec![None; graph.inputs().len()];
    for (index, input) in body.inputs.iter().enumerate() {
        let known = graph
            .inputs()
            .iter()
            .position(|info| info.name == input.name);
        let Some(position) = known else {
            let names: Vec<&str> = graph
                .inputs()
                .iter()
                .map(|info| info.name.as_str())
                .collect();
            return Err(ApiError::bad_request(format!(
                "inputs[{index}].name: {:?} is no input of {}; the inputs are {}",
                shorten(&input.name, 64),
                model.name,
                shorten(&names.join(", "), 1000)
            )));
        };
        if by_name[position].replace(input).is_some() {
            let message = format!("inputs[{index}].name: {:?} is given twice", input.name);
            return Err(ApiError::bad_request(message));
        }
    }
    let mut inputs = Vec::with_capacity(by_name.len());
    for (info, given) in graph.inputs().iter().zip(by_name) {
        let given = given
            .ok_or_else(|| ApiError::bad_request(format!("inputs: {:?} is missing", info.name)))?;
        let tensor = read_tensor(info, given).map_err(|problem| {
            ApiError::bad_request(format!("input {:?}: {problem}", info.name))
        })?;
        inputs.push(tensor);
    }
    let outputs = graph
        .run(inputs)
        .map_err(|error| ApiError::bad_request(format!("{}: {error}", model.name)))?;
    let positions = match &body.outputs {
        None => (0..outputs.len()).collect(),
        Some(requested) if requested.is_empty() => (0..outputs.len()).collect(),
        Some(requested) => requested_positions(model, requested)?,
    };
    let mut rendered = Vec::with_capacity(positions.len());
    for position in positions {
        let tensor = &outputs[position];
        rendered.push(OutputTensor {
            name: graph.outputs()[position].name.clone(),
            datatype: tensors::protocol_name(tensor.datum_type()),
            shape: tensor.shape().iter().map(|&dim| dim as u64).collect(),
            data: tensors::to_json(tensor)
                .map_err(|problem| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem))?,
        });
    }
    Ok(InferReply {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id: body.id,
        outputs: rendered,
    })
}

fn requested_positions(
    model: &ModelVersion,
    requested: &[RequestedOutput],
) -> Result<Vec<usize>, ApiError> {
    let mut positions = Vec::with_capacity(requested.len().min(64));
    for (index, output) in requested.iter().enumerate() {
        let outputs = model.graph.outputs();
        let position = outputs
            .iter()
            .position(|info| info.name == output.name)
            .ok_or_else(|| {
                let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).collect();
                ApiError::bad_request(format!(
                    "outputs[{index}].name: {:?} is no output of {}; the outputs are {}",
                    shorten(&output.name, 64),
                    model.name,
                    names.join(", ")
                ))
            })?;
        if positions.contains(&position) {
            let message = format!(
                "outputs[{index}].name: {:?} is asked for twice",
                output.name
            );
            return Err(ApiError::bad_request(message));
        }
        positions.push(position);
    }
    Ok(positions)
}

fn read_tensor(info: &onnx_ml::TensorInfo, given: &InputTensor) -> Result<onnx_ml::Tensor, String> {
    let expected = tensors::protocol_name(info.datum_type);
    if given.datatype != expected {
        let found = shorten(&given.datatype, 32);
        return Err(format!("datatype: expected {expected}, found {found:?}"));
    }
    let shape: Vec<usize> = given.shape.iter().map(|&dim| dim as usize).collect();
    let fits = shape.len() == info.shape.len()
        && shape
            .iter()
            .zip(&info.shape)
            .all(|(dim, info)| info.is_none_or(|info| info == *dim));
    if !fits {
        return Err(format!(
            "shape: expected {}, found {}",
            shape_text(&info.shape),
            shorten(&format!("{shape:?}"), 100)
        ));
    }
    let count: usize = shape.iter().product();
    let mut data = Vec::with_capacity(count.min(1 << 20));
    flatten(&given.data, shape.len().max(1), &mut data)?;
    if data.len() != count {
        return Err(format!(
            "data: {} elements do not fill the shape {shape:?}",
            data.len()
        ));
    }
    tensors::from_json(info.datum_type, &shape, &data).map_err(|problem| format!("data: {problem}"))
}

/// Collects the elements of flat or nested arrays, at most `depth` deep.
fn flatten<'a>(data: &'a Value, depth: usize, elements: &mut Vec<&'a Value>) -> Result<(), String> {
    match data {
        Value::Array(items) if depth > 0 => {
            for item in items {
                flatten(item, depth - 1, elements)?;
            }
            Ok(())
        }
        Value::Array(_) => Err("data: nested deeper than the shape".to_owned()),
        Value::Object(_) => Err("data: expected an array of elements, found an object".to_owned()),
        element => {
            elements.push(element);
            Ok(())
        }
    }
}
