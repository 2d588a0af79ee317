//! Columns: the values of one feature as an Arrow array, and back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};

use super::value::{FeatureType, Value};

/// A column of `kind` from values that fit it or are null.
pub fn to_array(kind: FeatureType, values: &[&Value]) -> ArrayRef {
    match kind {
        FeatureType::String => {
            let texts = values.iter().map(|value| match value {
                Value::String(text) => Some(text.as_str()),
                _ => None,
            });
            Arc::new(texts.collect::<StringArray>())
        }
        FeatureType::Int64 => {
            let integers = values.iter().map(|value| match value {
                Value::Int64(integer) => Some(*integer),
                _ => None,
            });
            Arc::new(integers.collect::<Int64Array>())
        }
        FeatureType::Float64 => {
            let floats = values.iter().map(|value| match value {
                Value::Float64(float) => Some(*float),
                Value::Int64(integer) => Some(*integer as f64),
                _ => None,
            });
            Arc::new(floats.collect::<Float64Array>())
        }
        FeatureType::Bool => {
            let flags = values.iter().map(|value| match value {
                Value::Bool(flag) => Some(*flag),
                _ => None,
            });
            Arc::new(flags.collect::<BooleanArray>())
        }
    }
}

/// The value in `row` of a column.
pub fn value_at(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Value::String(texts.value(row).to_owned());
    }
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        return Value::Int64(integers.value(row));
    }
    if let Some(floats) = column.as_primitive_opt::<Float64Type>() {
        return Value::Float64(floats.value(row));
    }
    column
        .as_boolean_opt()
        .map_or(Value::Null, |flags| Value::Bool(flags.value(row)))
}
