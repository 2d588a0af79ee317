//! Tensors in and out: from feature columns, from JSON, to numbers and to JSON.
//!
//! Shapes are row-major. Conversions never lose a value silently: what does not fit is an error
//! that says which element.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use ndarray::{ArrayD, IxDyn};
use onnx_ml::{DatumType, Tensor};
use serde_json::Value as Json;

use crate::features::value::{FeatureType, describe_json};

/// Whether a feature of type `feature` can be given to an input of type `input`, and whether that
/// input can express a missing value.
pub fn compatibility(feature: FeatureType, input: DatumType) -> Option<MissingAs> {
    match (feature, input) {
        (FeatureType::String, DatumType::String) => Some(MissingAs::EmptyText),
        (FeatureType::Int64 | FeatureType::Float64 | FeatureType::Bool, DatumType::F32)
        | (FeatureType::Int64 | FeatureType::Float64 | FeatureType::Bool, DatumType::F64) => {
            Some(MissingAs::NaN)
        }
        (FeatureType::Int64 | FeatureType::Bool, DatumType::I64)
        | (FeatureType::Bool, DatumType::Bool) => Some(MissingAs::Nothing),
        _ => None,
    }
}

/// What an input receives for a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingAs {
    NaN,
    EmptyText,
    /// The input's type has no such value: the feature needs a default.
    Nothing,
}

/// A tensor of shape `[rows, columns.len()]` (or `[rows]` when `flat`) of type `input` from
/// feature columns of equal length. Nulls become NaN or empty text.
///
/// # Errors
/// When a column does not have a type that [`compatibility`] allows, or a null meets an input
/// that cannot express it.
pub fn from_columns(
    columns: &[&ArrayRef],
    rows: usize,
    input: DatumType,
    flat: bool,
) -> Result<Tensor, String> {
    let shape: &[usize] = if flat {
        &[rows]
    } else {
        &[rows, columns.len()]
    };
    match input {
        DatumType::F32 => gather(columns, rows, shape, |column, row| {
            number_at(column, row).map(|number| number.unwrap_or(f64::NAN) as f32)
        }),
        DatumType::F64 => gather(columns, rows, shape, |column, row| {
            number_at(column, row).map(|number| number.unwrap_or(f64::NAN))
        }),
        DatumType::I64 => gather(columns, rows, shape, |column, row| {
            if column.is_null(row) {
                return None;
            }
            match column.as_boolean_opt() {
                Some(flags) => Some(i64::from(flags.value(row))),
                None => column
                    .as_primitive_opt::<Int64Type>()
                    .map(|integers| integers.value(row)),
            }
        }),
        DatumType::Bool => gather(columns, rows, shape, |column, row| {
            column
                .as_boolean_opt()
                .filter(|flags| flags.is_valid(row))
                .map(|flags| flags.value(row))
        }),
        DatumType::String => gather(columns, rows, shape, |column, row| {
            let texts = column.as_string_opt::<i32>()?;
            Some(if texts.is_null(row) {
                String::new()
            } else {
                texts.value(row).to_owned()
            })
        }),
        other => Err(format!(
            "inputs of type {other:?} cannot be bound to features"
        )),
    }
}

fn gather<T: onnx_ml::Datum>(
    columns: &[&ArrayRef],
    rows: usize,
    shape: &[usize],
    mut value_at: impl FnMut(&ArrayRef, usize) -> Option<T>,
) -> Result<Tensor, String> {
    let mut values = Vec::with_capacity(rows * columns.len());
    for row in 0..rows {
        for column in columns {
            let value = value_at(column, row).ok_or_else(|| {
                format!(
                    "row {row}: a {} value does not fit the input",
                    column.data_type()
                )
            })?;
            values.push(value);
        }
    }
    tensor(shape, values)
}

/// The number in a numeric or boolean column; `Some(None)` for null, `None` for another type.
fn number_at(column: &ArrayRef, row: usize) -> Option<Option<f64>> {
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return Some(floats.is_valid(row).then(|| floats.value(row)));
    }
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        return Some(integers.is_valid(row).then(|| integers.value(row) as f64));
    }
    let flags = column.as_boolean_opt()?;
    Some(
        flags
            .is_valid(row)
            .then(|| f64::from(u8::from(flags.value(row)))),
    )
}

fn tensor<T: onnx_ml::Datum>(shape: &[usize], values: Vec<T>) -> Result<Tensor, String> {
    let count = values.len();
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map(Tensor::from)
        .map_err(|_| format!("{count} values do not fill the shape {shape:?}"))
}

/// A tensor from a flat list of JSON values in row-major order. `null` is NaN for floating point
/// types and empty text for strings, as missing values are for features.
///
/// # Errors
/// The position of the first element that is not of the type, or the count that does not fit.
pub fn from_json(datum_type: DatumType, shape: &[usize], data: &[&Json]) -> Result<Tensor, String> {
    match datum_type {
        DatumType::F32 => fill(shape, data, "a number", |v| json_float(v).map(|f| f as f32)),
        DatumType::F64 => fill(shape, data, "a number", json_float),
        DatumType::Bool => fill(shape, data, "a boolean", Json::as_bool),
        DatumType::String => fill(shape, data, "a string", |value| match value {
            Json::Null => Some(String::new()),
            value => value.as_str().map(str::to_owned),
        }),
        DatumType::I8 => fill(shape, data, "an 8-bit integer", json_integer::<i8>),
        DatumType::I16 => fill(shape, data, "a 16-bit integer", json_integer::<i16>),
        DatumType::I32 => fill(shape, data, "a 32-bit integer", json_integer::<i32>),
        DatumType::I64 => fill(shape, data, "a 64-bit integer", json_integer::<i64>),
        DatumType::U8 => fill(shape, data, "an unsigned 8-bit integer", json_integer::<u8>),
        DatumType::U16 => fill(
            shape,
            data,
            "an unsigned 16-bit integer",
            json_integer::<u16>,
        ),
        DatumType::U32 => fill(
            shape,
            data,
            "an unsigned 32-bit integer",
            json_integer::<u32>,
        ),
        DatumType::U64 => fill(
            shape,
            data,
            "an unsigned 64-bit integer",
            json_integer::<u64>,
        ),
        other => Err(format!("tensors of type {other:?} cannot be sent as JSON")),
    }
}

fn fill<T: onnx_ml::Datum>(
    shape: &[usize],
    data: &[&Json],
    expected: &str,
    read: impl Fn(&Json) -> Option<T>,
) -> Result<Tensor, String> {
    let mut values = Vec::with_capacity(data.len());
    for (position, element) in data.iter().enumerate() {
        let value = read(element).ok_or_else(|| {
            format!(
                "element {position}: expected {expected}, found {}",
                describe_json(element)
            )
        })?;
        values.push(value);
    }
    tensor(shape, values)
}

fn json_float(value: &Json) -> Option<f64> {
    if value.is_null() {
        Some(f64::NAN)
    } else {
        value.as_f64()
    }
}

fn json_integer<T: TryFrom<i128>>(value: &Json) -> Option<T> {
    let number = match (value.as_i64(), value.as_u64(), value.as_f64()) {
        (Some(signed), _, _) => i128::from(signed),
        (_, Some(unsigned), _) => i128::from(unsigned),
        (_, _, Some(float)) if float.fract() == 0.0 && float.abs() < 1e18 => float as i128,
        _ => return None,
    };
    T::try_from(number).ok()
}

/// A floating point tensor as float64 values in row-major order; float32 is widened exactly.
///
/// # Errors
/// When the tensor is of another type.
pub fn to_f64(tensor: &Tensor) -> Result<Vec<f64>, String> {
    match tensor.datum_type() {
        DatumType::F32 => Ok(elements::<f32>(tensor)?
            .into_iter()
            .map(f64::from)
            .collect()),
        DatumType::F64 => elements::<f64>(tensor),
        other => Err(format!("expected a floating point tensor, found {other:?}")),
    }
}

/// The tensor's elements as JSON in row-major order; NaN and infinities become null.
///
/// # Errors
/// When the tensor's type has no JSON form.
pub fn to_json(tensor: &Tensor) -> Result<Vec<Json>, String> {
    fn all<T: onnx_ml::Datum + Clone + Into<Json>>(tensor: &Tensor) -> Result<Vec<Json>, String> {
        Ok(elements::<T>(tensor)?.into_iter().map(Into::into).collect())
    }
    match tensor.datum_type() {
        // Through the shortest decimal of the float32, not of its float64 neighbour.
        DatumType::F32 => Ok(elements::<f32>(tensor)?
            .into_iter()
            .map(|float| serde_json::json!(float))
            .collect()),
        DatumType::F64 => all::<f64>(tensor),
        DatumType::Bool => all::<bool>(tensor),
        DatumType::String => all::<String>(tensor),
        DatumType::I8 => all::<i8>(tensor),
        DatumType::I16 => all::<i16>(tensor),
        DatumType::I32 => all::<i32>(tensor),
        DatumType::I64 => all::<i64>(tensor),
        DatumType::U8 => all::<u8>(tensor),
        DatumType::U16 => all::<u16>(tensor),
        DatumType::U32 => all::<u32>(tensor),
        DatumType::U64 => all::<u64>(tensor),
        other => Err(format!("tensors of type {other:?} cannot be sent as JSON")),
    }
}

fn elements<T: onnx_ml::Datum + Clone>(tensor: &Tensor) -> Result<Vec<T>, String> {
    let view = tensor
        .to_plain_array_view::<T>()
        .map_err(|error| error.to_string())?;
    Ok(view.iter().cloned().collect())
}

/// The Open Inference Protocol's name of a tensor type.
pub fn protocol_name(datum_type: DatumType) -> &'static str {
    match datum_type {
        DatumType::Bool => "BOOL",
        DatumType::U8 => "UINT8",
        DatumType::U16 => "UINT16",
        DatumType::U32 => "UINT32",
        DatumType::U64 => "UINT64",
        DatumType::I8 => "INT8",
        DatumType::I16 => "INT16",
        DatumType::I32 => "INT32",
        DatumType::I64 => "INT64",
        DatumType::F16 => "FP16",
        DatumType::F32 => "FP32",
        DatumType::F64 => "FP64",
        DatumType::String => "BYTES",
        _ => "UNKNOWN",
    }
}
