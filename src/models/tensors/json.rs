//! JSON to tensors and back. Floating point numbers are written exactly; what JSON cannot say is null.

use onnx_ml::{CompactString, Data, DataType, Element, Tensor, f16};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::features::value::describe_json;

/// A tensor from a flat list of JSON values in row-major order. `null` is NaN for floating point
/// types and empty text for strings, as missing values are for features.
///
/// # Errors
/// The position of the first element that is not of the type, or the count that does not fit.
pub fn from_json(data_type: DataType, shape: &[usize], data: &[&Json]) -> Result<Tensor, String> {
    match data_type {
        DataType::F16 => fill(shape, data, "a number", |v| {
            json_float(v).map(f16::from_f64)
        }),
        DataType::F32 => fill(shape, data, "a number", |v| json_float(v).map(|f| f as f32)),
        DataType::F64 => fill(shape, data, "a number", json_float),
        DataType::Bool => fill(shape, data, "a boolean", Json::as_bool),
        DataType::String => fill(shape, data, "a string", |value| match value {
            Json::Null => Some(CompactString::default()),
            value => value.as_str().map(CompactString::from),
        }),
        DataType::I8 => fill(shape, data, "an 8-bit integer", json_integer::<i8>),
        DataType::I16 => fill(shape, data, "a 16-bit integer", json_integer::<i16>),
        DataType::I32 => fill(shape, data, "a 32-bit integer", json_integer::<i32>),
        DataType::I64 => fill(shape, data, "a 64-bit integer", json_integer::<i64>),
        DataType::U8 => fill(shape, data, "an unsigned 8-bit integer", json_integer::<u8>),
        DataType::U16 => fill(
            shape,
            data,
            "an unsigned 16-bit integer",
            json_integer::<u16>,
        ),
        DataType::U32 => fill(
            shape,
            data,
            "an unsigned 32-bit integer",
            json_integer::<u32>,
        ),
        DataType::U64 => fill(
            shape,
            data,
            "an unsigned 64-bit integer",
            json_integer::<u64>,
        ),
    }
}

fn fill<T: Element>(
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
    Tensor::new(shape, values).map_err(|error| error.to_string())
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

/// A tensor's elements that are written as a JSON array in row-major order. Floating point numbers
/// are written as the float64 numbers they are exactly; NaN and infinities become null.
#[derive(Debug)]
pub struct JsonElements(pub Data);

impl Serialize for JsonElements {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Data::Bool(values) => serializer.collect_seq(values),
            Data::U8(values) => serializer.collect_seq(values),
            Data::U16(values) => serializer.collect_seq(values),
            Data::U32(values) => serializer.collect_seq(values),
            Data::U64(values) => serializer.collect_seq(values),
            Data::I8(values) => serializer.collect_seq(values),
            Data::I16(values) => serializer.collect_seq(values),
            Data::I32(values) => serializer.collect_seq(values),
            Data::I64(values) => serializer.collect_seq(values),
            Data::F16(values) => serializer.collect_seq(values.iter().map(|v| v.to_f64())),
            Data::F32(values) => serializer.collect_seq(values.iter().map(|v| f64::from(*v))),
            Data::F64(values) => serializer.collect_seq(values),
            Data::String(values) => serializer.collect_seq(values.iter().map(|v| v.as_str())),
        }
    }
}

/// The tensor's elements as JSON, as [`JsonElements`] writes them.
pub fn to_json(tensor: &Tensor) -> Vec<Json> {
    match serde_json::to_value(JsonElements(tensor.data().clone())) {
        Ok(Json::Array(elements)) => elements,
        // Writing into memory cannot fail, and what is written is an array.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_keeps_the_exact_float_and_has_null_for_what_it_cannot_say() {
        let tensor = Tensor::vector(vec![0.1_f32, f32::NAN, f32::INFINITY]);
        assert_eq!(
            to_json(&tensor),
            [json!(0.1_f32 as f64), json!(null), json!(null)]
        );
        let half = Tensor::vector(vec![f16::from_f32(0.1)]);
        assert_eq!(to_json(&half), [json!(0.0999755859375)]);
        let read = from_json(DataType::F16, &[1], &[&json!(0.1)]).unwrap();
        assert_eq!(read, half);
    }
}
