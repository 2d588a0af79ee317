//! `/v2/models/…/infer`: tensors in, tensors out, of a loaded model as it is.
//!
//! The data of a tensor is JSON, flat or nested and always row-major, or bytes: the binary tensor
//! data extension. Then the header `Inference-Header-Content-Length` says how long the JSON is, and
//! behind it follow the bytes of those inputs whose parameters hold `binary_data_size`, in their
//! order. Outputs are answered in the same way where the request asks for it, by `binary_data` of
//! an output or `binary_data_output` of the request. [`crate::models::binary`] says what the bytes
//! are.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use onnx_ml::{RunError, Tensor, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::body::SizeLimit;
use super::error::{ApiError, ErrorBody};
use super::path::PathParams;
use crate::features::value::{describe_json, shorten};
use crate::models::scoring::shape_text;
use crate::models::tensors::{self, JsonElements};
use crate::models::{binary, version::ModelVersion};
use crate::serve::App;

/// How long the JSON of a body is, of which the rest is binary.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Requests of more elements than this leave the request's thread.
const MAX_INLINE_ELEMENTS: usize = 4096;

/// How many large requests run at once; further ones wait for their turn.
static LARGE_REQUESTS: Semaphore = Semaphore::const_new(2);

/// Tensors to run a model on.
#[derive(Deserialize, ToSchema)]
pub struct InferBody {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<InferParameters>,
    inputs: Vec<InputTensor>,
    /// The outputs to give; all when left out.
    #[serde(default)]
    outputs: Option<Vec<RequestedOutput>>,
}

#[derive(Deserialize, ToSchema)]
pub struct InferParameters {
    /// Answer every output as bytes that does not say otherwise itself.
    #[serde(default)]
    binary_data_output: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
pub struct InputTensor {
    name: String,
    shape: Vec<u64>,
    #[schema(example = "FP32")]
    datatype: String,
    #[serde(default)]
    parameters: Option<InputParameters>,
    /// The elements in row-major order, flat or nested. Left out when they are sent as bytes.
    #[serde(default)]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    data: Option<Value>,
}

#[derive(Deserialize, ToSchema)]
pub struct InputParameters {
    /// How many of the bytes behind the JSON are this input's.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    binary_data_size: Option<Value>,
}

#[derive(Deserialize, ToSchema)]
pub struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Option<OutputChoice>,
}

#[derive(Deserialize, ToSchema)]
pub struct OutputChoice {
    /// Answer this output as bytes, or, when false, as JSON.
    #[serde(default)]
    binary_data: Option<bool>,
    /// Not supported.
    #[serde(default)]
    #[schema(ignore)]
    classification: Option<Value>,
    /// Not supported.
    #[serde(default)]
    #[schema(ignore)]
    shared_memory_region: Option<Value>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    /// The elements in row-major order; absent when they are sent as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    data: Option<JsonElements>,
}

#[derive(Serialize, ToSchema)]
pub struct OutputParameters {
    /// How many of the bytes behind the JSON are this output's.
    binary_data_size: usize,
}

/// An inference request as it came: its JSON and the bytes behind it.
pub struct InferRequest {
    body: InferBody,
    /// `None` when the whole body is JSON.
    binary: Option<Bytes>,
}

impl FromRequest<Arc<App>> for InferRequest {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let limit = match parts.headers.contains_key(JSON_LENGTH) {
            true => SizeLimit::tensors(app),
            false => SizeLimit::ordinary(app),
        };
        let mut json = super::body::read(body, app, limit).await?;
        let length = json_length(&parts.headers, json.len())?;
        let binary = length.map(|length| json.split_off(length));
        // Parsed, JSON takes many times its size; bytes do not.
        let most = app.config.max_body_bytes;
        if json.len() > most {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("body: its JSON is over the limit of {most} bytes (max_body_bytes)"),
            ));
        }
        let body = super::body::parse(&json)?;
        Ok(InferRequest { body, binary })
    }
}

/// The length that the header gives, which is within the body.
fn json_length(headers: &HeaderMap, body_bytes: usize) -> Result<Option<usize>, ApiError> {
    let refuse = |problem: String| {
        ApiError::bad_request(format!("header Inference-Header-Content-Length: {problem}"))
    };
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refuse("expected one, found several".to_owned()));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only {
        let found = shorten(&text, 40);
        return Err(refuse(format!(
            "expected a number of bytes, found {found:?}"
        )));
    }
    match text.parse::<usize>() {
        Ok(length) if length <= body_bytes => Ok(Some(length)),
        _ => Err(refuse(format!(
            "expected at most the {body_bytes} bytes of the body, found {}",
            shorten(&text, 40)
        ))),
    }
}

/// Run a model's champion on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/infer", tag = "inference",
    params(
        ("name" = String, Path, description = "Model"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Length of the JSON when bytes of tensors follow it"),
    ),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs; bytes that were asked for follow the JSON, whose length is in Inference-Header-Content-Length", body = InferReply),
        (status = 400, description = "Not JSON, or a tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such model, or none of its versions is ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 422, description = "JSON of another shape", body = ErrorBody),
    ))]
pub async fn model_infer(
    State(app): State<Arc<App>>,
    PathParams(name): PathParams<String>,
    request: InferRequest,
) -> Result<Response, ApiError> {
    infer(&app, &name, None, request).await
}

/// Run one version on tensors.
#[utoipa::path(post, path = "/v2/models/{name}/versions/{version}/infer", tag = "inference",
    params(
        ("name" = String, Path, description = "Model"),
        ("version" = String, Path, description = "Version"),
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Length of the JSON when bytes of tensors follow it"),
    ),
    request_body = InferBody,
    responses(
        (status = 200, description = "Outputs; bytes that were asked for follow the JSON, whose length is in Inference-Header-Content-Length", body = InferReply),
        (status = 400, description = "Not JSON, or a tensor is wrong; it is named", body = ErrorBody),
        (status = 404, description = "No such version, or it is not ready", body = ErrorBody),
        (status = 408, description = "Body not complete in time", body = ErrorBody),
        (status = 413, description = "Body or batch too large", body = ErrorBody),
        (status = 422, description = "JSON of another shape", body = ErrorBody),
    ))]
pub async fn model_version_infer(
    State(app): State<Arc<App>>,
    PathParams((name, version)): PathParams<(String, String)>,
    request: InferRequest,
) -> Result<Response, ApiError> {
    infer(&app, &name, Some(&version), request).await
}

async fn infer(
    app: &Arc<App>,
    name: &str,
    version: Option<&str>,
    request: InferRequest,
) -> Result<Response, ApiError> {
    let model = app
        .scorer
        .repository
        .find(name, version)
        .map_err(ApiError::not_found)?;
    let elements = check_sizes(&request.body, app.config.max_rows)?;
    if elements <= MAX_INLINE_ELEMENTS {
        return run(model, request).map(Answer::into_response);
    }
    // A large request must not hold up the small ones on this thread.
    let model = Arc::clone(model);
    let _turn = LARGE_REQUESTS
        .acquire()
        .await
        .map_err(|error| internal(error.to_string()))?;
    let outcome = tokio::task::spawn_blocking(move || run(&model, request)).await;
    outcome
        .map_err(|error| internal(error.to_string()))?
        .map(Answer::into_response)
}

fn internal(problem: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem)
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

fn run(model: &ModelVersion, request: InferRequest) -> Result<Answer, ApiError> {
    let InferRequest { body, binary } = request;
    let positions = input_positions(model, &body.inputs)?;
    let requested = requested_outputs(model, &body)?;
    let ranges = binary_ranges(&body.inputs, binary.as_ref().map(Bytes::len))?;
    let binary = binary.unwrap_or_default();
    let mut inputs = Vec::with_capacity(positions.len());
    for (info, index) in model.graph.inputs().iter().zip(positions) {
        let source = match &ranges[index] {
            Some(range) => Source::Bytes(&binary[range.clone()]),
            None => Source::Json(json_data(&body.inputs, index)?),
        };
        let tensor = read_tensor(info, &body.inputs[index], source).map_err(|problem| {
            ApiError::bad_request(format!("input {:?}: {problem}", info.name))
        })?;
        inputs.push(tensor);
    }
    // The graph keeps nothing of them, and a large request is large twice until it is dropped.
    drop((body.inputs, binary));
    let outputs = model.graph.run(inputs).map_err(|error| {
        let message = shorten(&format!("{}: {error}", model.name), 2000);
        match error {
            RunError::Defect { .. } => internal(message),
            RunError::TooLarge { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            _ => ApiError::bad_request(message),
        }
    })?;
    render(model, body.id, outputs, &requested)
}

/// For each input of the graph, which of the given ones it is.
fn input_positions(model: &ModelVersion, given: &[InputTensor]) -> Result<Vec<usize>, ApiError> {
    let infos = model.graph.inputs();
    let mut positions: Vec<Option<usize>> = vec![None; infos.len()];
    for (index, input) in given.iter().enumerate() {
        let Some(position) = infos.iter().position(|info| info.name == input.name) else {
            let names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
            return Err(ApiError::bad_request(format!(
                "inputs[{index}].name: {:?} is no input of {}; the inputs are {}",
                shorten(&input.name, 64),
                model.name,
                shorten(&names.join(", "), 1000)
            )));
        };
        if positions[position].replace(index).is_some() {
            let message = format!("inputs[{index}].name: {:?} is given twice", input.name);
            return Err(ApiError::bad_request(message));
        }
    }
    let mut found = Vec::with_capacity(positions.len());
    for (info, position) in infos.iter().zip(positions) {
        let position = position
            .ok_or_else(|| ApiError::bad_request(format!("inputs: {:?} is missing", info.name)))?;
        found.push(position);
    }
    Ok(found)
}

/// Where the bytes of each input are, for those that are sent as bytes. `binary_bytes` is how many
/// there are, `None` when the whole body is JSON.
fn binary_ranges(
    given: &[InputTensor],
    binary_bytes: Option<usize>,
) -> Result<Vec<Option<Range<usize>>>, ApiError> {
    let mut ranges = Vec::with_capacity(given.len());
    let mut start = 0;
    for (index, input) in given.iter().enumerate() {
        let parameters = input.parameters.as_ref();
        let Some(size) = parameters.and_then(|parameters| parameters.binary_data_size.as_ref())
        else {
            ranges.push(None);
            continue;
        };
        let refuse = |problem: String| {
            let field = format!("inputs[{index}].parameters.binary_data_size");
            Err(ApiError::bad_request(format!("{field}: {problem}")))
        };
        let Some(binary_bytes) = binary_bytes else {
            return refuse(
                "expected the header Inference-Header-Content-Length with the length of the JSON, \
                 found none"
                    .to_owned(),
            );
        };
        if input.data.is_some() {
            return refuse("expected it or `data`, found both".to_owned());
        }
        let left = binary_bytes - start;
        let size = match size.as_u64().map(usize::try_from) {
            Some(Ok(size)) if size <= left => size,
            Some(_) => {
                return refuse(format!(
                    "expected at most {left} (the bytes behind the JSON that are left), found {size}"
                ));
            }
            None => {
                return refuse(format!(
                    "expected a number of bytes, found {}",
                    describe_json(size)
                ));
            }
        };
        ranges.push(Some(start..start + size));
        start += size;
    }
    match binary_bytes {
        Some(found) if found != start => Err(ApiError::bad_request(format!(
            "body: expected {start} bytes behind the JSON (the binary_data_size of all inputs), \
             found {found}"
        ))),
        _ => Ok(ranges),
    }
}

/// The `data` of an input that is not sent as bytes.
fn json_data(given: &[InputTensor], index: usize) -> Result<&Value, ApiError> {
    given[index].data.as_ref().ok_or_else(|| {
        ApiError::unprocessable(format!(
            "inputs[{index}]: expected `data` or the parameter `binary_data_size`, found neither"
        ))
    })
}

/// An output that is asked for.
struct Requested {
    position: usize,
    as_bytes: bool,
}

fn requested_outputs(model: &ModelVersion, body: &InferBody) -> Result<Vec<Requested>, ApiError> {
    let outputs = model.graph.outputs();
    let parameters = body.parameters.as_ref();
    let all_as_bytes = parameters
        .and_then(|parameters| parameters.binary_data_output)
        .unwrap_or(false);
    let named = body.outputs.as_deref().unwrap_or_default();
    if named.is_empty() {
        let all = (0..outputs.len()).map(|position| Requested {
            position,
            as_bytes: all_as_bytes,
        });
        return Ok(all.collect());
    }
    let mut requested: Vec<Requested> = Vec::with_capacity(named.len().min(64));
    for (index, output) in named.iter().enumerate() {
        let position = outputs
            .iter()
            .position(|info| info.name == output.name)
            .ok_or_else(|| {
                let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).collect();
                ApiError::bad_request(format!(
                    "outputs[{index}].name: {:?} is no output of {}; the outputs are {}",
                    shorten(&output.name, 64),
                    model.name,
                    shorten(&names.join(", "), 1000)
                ))
            })?;
        if requested.iter().any(|earlier| earlier.position == position) {
            let message = format!(
                "outputs[{index}].name: {:?} is asked for twice",
                output.name
            );
            return Err(ApiError::bad_request(message));
        }
        let mut as_bytes = all_as_bytes;
        if let Some(choice) = &output.parameters {
            for (name, value) in [
                ("classification", &choice.classification),
                ("shared_memory_region", &choice.shared_memory_region),
            ] {
                if value.is_some() {
                    let message = format!("outputs[{index}].parameters.{name}: is not supported");
                    return Err(ApiError::bad_request(message));
                }
            }
            as_bytes = choice.binary_data.unwrap_or(all_as_bytes);
        }
        requested.push(Requested { position, as_bytes });
    }
    Ok(requested)
}

/// Where the elements of an input are.
enum Source<'a> {
    Json(&'a Value),
    Bytes(&'a [u8]),
}

fn read_tensor(
    info: &TensorInfo,
    given: &InputTensor,
    source: Source<'_>,
) -> Result<Tensor, String> {
    let expected = tensors::protocol_name(info.data_type);
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
    // An input that the file gives no dimensions is shown as [N, N] and takes others as well; the
    // graph itself knows which it is.
    if !fits && info.shape != [None, None] {
        return Err(format!(
            "shape: expected {}, found {}",
            shape_text(&info.shape),
            shorten(&format!("{shape:?}"), 100)
        ));
    }
    let data = match source {
        Source::Json(data) => data,
        Source::Bytes(bytes) => {
            return binary::from_bytes(info.data_type, &shape, bytes)
                .map_err(|problem| format!("binary_data_size: {problem}"));
        }
    };
    let count: usize = shape.iter().product();
    let mut elements = Vec::with_capacity(count.min(1 << 20));
    flatten(data, shape.len().max(1), &mut elements)?;
    if elements.len() != count {
        return Err(format!(
            "data: {} elements do not fill the shape {}",
            elements.len(),
            shorten(&format!("{shape:?}"), 100)
        ));
    }
    tensors::from_json(info.data_type, &shape, &elements)
        .map_err(|problem| format!("data: {problem}"))
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

/// A written answer.
struct Answer {
    /// JSON, and the bytes of outputs behind it.
    body: Vec<u8>,
    /// How long the JSON is, when bytes were asked for.
    json_length: Option<usize>,
}

fn render(
    model: &ModelVersion,
    id: Option<String>,
    outputs: Vec<Tensor>,
    requested: &[Requested],
) -> Result<Answer, ApiError> {
    let mut outputs: Vec<Option<Tensor>> = outputs.into_iter().map(Some).collect();
    let mut binary = Vec::new();
    let mut rendered = Vec::with_capacity(requested.len());
    for output in requested {
        // No output is asked for twice, so each is still there.
        let Some(tensor) = outputs.get_mut(output.position).and_then(Option::take) else {
            return Err(internal(format!("{}: an output is missing", model.name)));
        };
        let datatype = tensors::protocol_name(tensor.data_type());
        let shape = tensor.shape().iter().map(|&dim| dim as u64).collect();
        let mut parameters = None;
        let mut data = None;
        if output.as_bytes {
            let binary_data_size = binary::write(tensor.data(), &mut binary).map_err(internal)?;
            parameters = Some(OutputParameters { binary_data_size });
        } else {
            data = Some(JsonElements(tensor.into_data()));
        }
        rendered.push(OutputTensor {
            name: model.graph.outputs()[output.position].name.clone(),
            datatype,
            shape,
            parameters,
            data,
        });
    }
    let reply = InferReply {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id,
        outputs: rendered,
    };
    let mut body = serde_json::to_vec(&reply).map_err(|error| internal(error.to_string()))?;
    let is_binary = requested.iter().any(|output| output.as_bytes);
    let json_length = is_binary.then_some(body.len());
    body.append(&mut binary);
    Ok(Answer { body, json_length })
}

impl Answer {
    fn into_response(self) -> Response {
        let content_type = match self.json_length {
            Some(_) => "application/octet-stream",
            None => "application/json",
        };
        let mut response = self.body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(length) = self.json_length {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        response
    }
}
