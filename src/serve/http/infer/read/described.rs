//! An inference request as the API's description has it. What cannot be read is read again into this, to
//! say which field is wrong; the requests that are answered never come here.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Tensors to run a model on.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code)] // Its fields are read by what describes the API.
pub struct InferBody {
    /// Given back in the answer.
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
#[allow(dead_code)]
pub struct InferParameters {
    /// Answer every output as bytes that does not say otherwise itself.
    #[serde(default)]
    binary_data_output: Option<bool>,
    /// Microseconds after which the answer is of no use; the work is not begun then.
    #[serde(default)]
    timeout: Option<u64>,
    /// What the inputs are together: `pd` for the columns of a table.
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
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
#[allow(dead_code)]
pub struct InputParameters {
    /// How many of the bytes behind the JSON are this input's.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    binary_data_size: Option<Value>,
    /// What the elements are: `np`, or `str` for text.
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
pub struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Option<OutputChoice>,
}

#[derive(Deserialize, ToSchema)]
#[allow(dead_code)]
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
