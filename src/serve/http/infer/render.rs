//! Writes the answer to an inference request, once, into the memory that is sent.
//!
//! [`InferReply`] is what the API's description is made from; the text is written by hand beside it,
//! because a third of the time of a small request would go into building it first. A test reads the
//! text back as what the description says.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use onnx_ml::Tensor;
use serde::Serialize;
use smallvec::SmallVec;
use utoipa::ToSchema;
use uuid::Uuid;

use super::JSON_LENGTH;
use super::bind::Requested;
use crate::infer::error::InferError;
use crate::infer::{Ran, content};
use crate::models::binary;
use crate::models::tensors::{self, JsonElements};
use crate::models::version::ModelVersion;
use crate::serve::http::compression::{self, Coding};

#[derive(ToSchema)]
#[allow(dead_code)] // Its fields are read by what describes the API.
pub struct InferReply {
    model_name: String,
    model_version: String,
    /// As the request gave it.
    id: Option<String>,
    parameters: ReplyParameters,
    outputs: Vec<OutputTensor>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
pub struct ReplyParameters {
    /// UUIDv7 of the inference in the ledger; name it when reporting an outcome.
    prediction_id: String,
    /// `pd` in the answer to a data frame: every output is a column.
    content_type: Option<String>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
pub struct OutputTensor {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    parameters: Option<OutputParameters>,
    /// The elements in row-major order; absent when they are sent as bytes.
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    data: Option<JsonElements>,
}

#[derive(ToSchema)]
#[allow(dead_code)]
pub struct OutputParameters {
    /// How many of the bytes behind the JSON are this output's.
    binary_data_size: Option<usize>,
    /// `str` for text in the answer to a data frame.
    content_type: Option<String>,
}

/// A written answer.
pub struct Answer {
    /// JSON, and the bytes of outputs behind it.
    body: Vec<u8>,
    /// How long the JSON is, when bytes were asked for.
    json_length: Option<usize>,
    /// What the body is encoded in.
    coding: Option<Coding>,
}

impl Answer {
    /// The answer in an encoding that the client accepts.
    pub fn encoded(self, accepted: Option<Coding>) -> Answer {
        let (body, coding) = compression::encode(self.body, accepted);
        Answer {
            body,
            coding,
            ..self
        }
    }
}

/// Room for the JSON of one row with a few outputs.
const ROOM: usize = 512;

/// Writes an answer.
///
/// # Errors
/// An output that cannot be sent as bytes.
pub fn render(
    model: &ModelVersion,
    id: Option<&str>,
    ran: Ran,
    requested: &[Requested],
) -> Result<Answer, InferError> {
    let prediction_id = ran.prediction_id;
    let items = take(model, ran.outputs, requested)?;
    let items = items.into_iter().map(|(output, tensor)| Item {
        name: &model.graph.outputs()[output.position].name,
        tensor,
        as_bytes: output.as_bytes,
        content_type: None,
    });
    write_answer(model, id, prediction_id, None, items)
}

/// Writes the answer to a data frame, which is one: see [`crate::infer::content::frame`].
///
/// # Errors
/// An output that cannot be sent as bytes.
pub fn render_frame(
    model: &ModelVersion,
    id: Option<&str>,
    ran: Ran,
    requested: &[Requested],
) -> Result<Answer, InferError> {
    let prediction_id = ran.prediction_id;
    let mut columns = Vec::new();
    for (output, tensor) in take(model, ran.outputs, requested)? {
        let info = &model.graph.outputs()[output.position];
        for column in content::frame([(info, tensor)])? {
            columns.push((column, output.as_bytes));
        }
    }
    let items = columns.iter_mut().map(|(column, as_bytes)| Item {
        name: &column.name,
        tensor: std::mem::replace(&mut column.tensor, Tensor::scalar(false)),
        as_bytes: *as_bytes,
        content_type: column.content_type,
    });
    write_answer(model, id, prediction_id, Some(content::FRAME), items)
}

/// An output to be written.
struct Item<'a> {
    name: &'a str,
    tensor: Tensor,
    as_bytes: bool,
    content_type: Option<&'static str>,
}

/// The outputs that are asked for, in the order in which they are.
fn take(
    model: &ModelVersion,
    outputs: Vec<Tensor>,
    requested: &[Requested],
) -> Result<SmallVec<[(Requested, Tensor); 4]>, InferError> {
    let mut outputs: SmallVec<[Option<Tensor>; 4]> = outputs.into_iter().map(Some).collect();
    let mut taken = SmallVec::new();
    for output in requested {
        // No output is asked for twice, so each is still there.
        let Some(tensor) = outputs.get_mut(output.position).and_then(Option::take) else {
            let message = format!("{}: an output is missing", model.name);
            return Err(InferError::internal(message));
        };
        taken.push((*output, tensor));
    }
    Ok(taken)
}

fn write_answer<'a>(
    model: &ModelVersion,
    id: Option<&str>,
    prediction_id: Uuid,
    content_type: Option<&'static str>,
    items: impl Iterator<Item = Item<'a>>,
) -> Result<Answer, InferError> {
    let mut json = Vec::with_capacity(ROOM);
    let mut bytes = Vec::new();
    let mut is_binary = false;
    json.extend_from_slice(b"{\"model_name\":");
    write(&mut json, model.name.as_str())?;
    json.extend_from_slice(b",\"model_version\":");
    write(&mut json, model.version.as_str())?;
    if let Some(id) = id {
        json.extend_from_slice(b",\"id\":");
        write(&mut json, id)?;
    }
    json.extend_from_slice(b",\"parameters\":{\"prediction_id\":\"");
    let mut text = Uuid::encode_buffer();
    let prediction_id = prediction_id.hyphenated().encode_lower(&mut text);
    json.extend_from_slice(prediction_id.as_bytes());
    json.push(b'"');
    if let Some(content_type) = content_type {
        json.extend_from_slice(b",\"content_type\":");
        write(&mut json, content_type)?;
    }
    json.extend_from_slice(b"},\"outputs\":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write(&mut json, item.name)?;
        json.extend_from_slice(b",\"datatype\":\"");
        json.extend_from_slice(tensors::protocol_name(item.tensor.data_type()).as_bytes());
        json.extend_from_slice(b"\",\"shape\":");
        write(&mut json, item.tensor.shape())?;
        let mut parameters = Parameters {
            binary_data_size: None,
            content_type: item.content_type,
        };
        if item.as_bytes {
            let written = binary::write(item.tensor.data(), &mut bytes);
            parameters.binary_data_size = Some(written.map_err(InferError::internal)?);
            is_binary = true;
        }
        if parameters.binary_data_size.is_some() || parameters.content_type.is_some() {
            json.extend_from_slice(b",\"parameters\":");
            write(&mut json, &parameters)?;
        }
        if !item.as_bytes {
            json.reserve(12 * item.tensor.len());
            json.extend_from_slice(b",\"data\":");
            write(&mut json, &JsonElements(item.tensor.into_data()))?;
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    let json_length = is_binary.then_some(json.len());
    json.append(&mut bytes);
    Ok(Answer {
        body: json,
        json_length,
        coding: None,
    })
}

/// The parameters of an output.
#[derive(Serialize)]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
}

fn write<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> Result<(), InferError> {
    serde_json::to_writer(json, value).map_err(|error| InferError::internal(error.to_string()))
}

impl IntoResponse for Answer {
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
        compression::set_headers(headers, self.coding);
        response
    }
}
