//! Tensors in and out: from feature columns, from JSON, to numbers and to JSON. Their
//! form as bytes is in [`super::binary`].
//!
//! * `columns` – Arrow columns of features to tensors.
//! * `json` – JSON to tensors and back.
//!
//! Shapes are row-major. Conversions never lose a value silently: what does not fit is an error
//! that says which element.

mod columns;
mod json;

use onnx_ml::{Data, DataType, Tensor};

pub use self::columns::{MissingAs, compatibility, from_columns};
pub use self::json::{JsonElements, from_json, to_json};

/// A floating point tensor as float64 values in row-major order; narrower types are widened exactly.
///
/// # Errors
/// When the tensor is of another type.
pub fn to_f64(tensor: &Tensor) -> Result<Vec<f64>, String> {
    match tensor.data() {
        Data::F16(values) => Ok(values.iter().map(|value| value.to_f64()).collect()),
        Data::F32(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
        Data::F64(values) => Ok(values.clone()),
        other => Err(format!(
            "expected a floating point tensor, found {}",
            other.data_type()
        )),
    }
}

/// A shape for messages: `[N, 19]`.
pub fn shape_text(shape: &[Option<usize>]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| dim.map_or("N".to_owned(), |dim| dim.to_string()))
        .collect();
    format!("[{}]", dims.join(", "))
}

/// The Open Inference Protocol's name of a tensor type.
pub fn protocol_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bool => "BOOL",
        DataType::U8 => "UINT8",
        DataType::U16 => "UINT16",
        DataType::U32 => "UINT32",
        DataType::U64 => "UINT64",
        DataType::I8 => "INT8",
        DataType::I16 => "INT16",
        DataType::I32 => "INT32",
        DataType::I64 => "INT64",
        DataType::F16 => "FP16",
        DataType::F32 => "FP32",
        DataType::F64 => "FP64",
        DataType::String => "BYTES",
    }
}
