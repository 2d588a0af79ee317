//! The columns of the exported table `inferences`: one row per inference request.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `prediction_id` | string | UUID |
//! | `at` | timestamp (µs, UTC) | when it was answered |
//! | `model`, `version`, `model_digest` | string | what answered, and the digest of the model file (hexadecimal) |
//! | `request_id` | string or null | the caller's own id of the request |
//! | `rows` | uint64 | rows of the request |
//! | `inputs`, `outputs` | string | JSON object: tensor to `{"datatype", "shape", "data"}` |
//!
//! `datatype` is the protocol's name, `data` the flat elements exactly as `/v2` prints them, null
//! when the request was too large to be logged whole.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder};
use arrow::datatypes::{DataType as ColumnType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use onnx_ml::DataType;
use serde::{Serialize, Serializer};

use super::rows::{BATCH_BYTES, BATCH_ROWS, text, time, uuid_text};
use crate::ledger::record::{Inference, InferenceTensor};
use crate::models::binary;
use crate::models::tensors::{JsonElements, protocol_name};
use crate::models::version::hexadecimal;

/// Gathers rows of the table `inferences`.
#[derive(Default)]
pub struct InferenceRows {
    prediction_id: StringBuilder,
    at: TimestampMicrosecondBuilder,
    model: StringBuilder,
    version: StringBuilder,
    model_digest: StringBuilder,
    request_id: StringBuilder,
    row_count: UInt64Builder,
    inputs: StringBuilder,
    outputs: StringBuilder,
    rows: usize,
    json_bytes: usize,
}

impl InferenceRows {
    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("prediction_id", false),
            time("at"),
            text("model", false),
            text("version", false),
            text("model_digest", false),
            text("request_id", true),
            Field::new("rows", ColumnType::UInt64, false),
            text("inputs", false),
            text("outputs", false),
        ]))
    }

    /// Adds one inference.
    ///
    /// # Errors
    /// The tensor whose data are not elements of its type and shape; nothing is added then.
    pub fn push(&mut self, inference: &Inference) -> Result<(), String> {
        let inputs = tensors_json(&inference.inputs)?;
        let outputs = tensors_json(&inference.outputs)?;
        self.prediction_id
            .append_value(uuid_text(&inference.prediction_id));
        self.at.append_value(inference.at_us);
        self.model.append_value(&inference.model);
        self.version.append_value(&inference.version);
        self.model_digest
            .append_value(hexadecimal(&inference.digest));
        self.request_id.append_option(inference.request_id.as_ref());
        self.row_count.append_value(inference.rows);
        self.json_bytes += inputs.len() + outputs.len();
        self.inputs.append_value(inputs);
        self.outputs.append_value(outputs);
        self.rows += 1;
        Ok(())
    }

    /// Whether it is time to take the batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.json_bytes >= BATCH_BYTES
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.json_bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.prediction_id.finish()),
            Arc::new(self.at.finish().with_timezone("UTC")),
            Arc::new(self.model.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.model_digest.finish()),
            Arc::new(self.request_id.finish()),
            Arc::new(self.row_count.finish()),
            Arc::new(self.inputs.finish()),
            Arc::new(self.outputs.finish()),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}

/// One tensor as the table shows it.
#[derive(Serialize)]
struct TensorJson<'a> {
    /// Null for a type that only a later version knows.
    datatype: Option<&'static str>,
    shape: &'a [u64],
    data: Option<JsonElements>,
}

/// Tensors by name, in their order.
struct TensorsJson<'a>(Vec<(&'a str, TensorJson<'a>)>);

impl Serialize for TensorsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, tensor)| (name, tensor)))
    }
}

fn tensors_json(tensors: &[InferenceTensor]) -> Result<String, String> {
    let mut by_name = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let data_type = DataType::from_onnx(tensor.data_type).ok();
        let data = match (data_type, &tensor.data) {
            (Some(data_type), Some(bytes)) => Some(elements(data_type, &tensor.shape, bytes)?),
            _ => None,
        };
        let json = TensorJson {
            datatype: data_type.map(protocol_name),
            shape: &tensor.shape,
            data,
        };
        by_name.push((tensor.name.as_str(), json));
    }
    serde_json::to_string(&TensorsJson(by_name)).map_err(|error| error.to_string())
}

fn elements(data_type: DataType, shape: &[u64], bytes: &[u8]) -> Result<JsonElements, String> {
    let shape: Result<Vec<usize>, _> = shape.iter().map(|&dim| usize::try_from(dim)).collect();
    let shape = shape.map_err(|error| format!("a dimension of a tensor: {error}"))?;
    let tensor = binary::from_bytes(data_type, &shape, bytes)
        .map_err(|problem| format!("the data of a tensor: {problem}"))?;
    Ok(JsonElements(tensor.into_data()))
}
