//! Arrow columns of features to tensors: which types go together, and what a missing value becomes.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as ColumnType, Float64Type, Int64Type};
use onnx_ml::{CompactString, Data, DataType, Element, Tensor};

use crate::features::value::FeatureType;

/// Whether a feature of type `feature` can be given to an input of type `input`, and whether that
/// input can express a missing value.
pub fn compatibility(feature: FeatureType, input: DataType) -> Option<MissingAs> {
    match (feature, input) {
        (FeatureType::String, DataType::String) => Some(MissingAs::EmptyText),
        (FeatureType::Int64 | FeatureType::Float64 | FeatureType::Bool, DataType::F32)
        | (FeatureType::Int64 | FeatureType::Float64 | FeatureType::Bool, DataType::F64) => {
            Some(MissingAs::NaN)
        }
        (FeatureType::Int64 | FeatureType::Bool, DataType::I64)
        | (FeatureType::Bool, DataType::Bool) => Some(MissingAs::Nothing),
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
    input: DataType,
    flat: bool,
) -> Result<Tensor, String> {
    let data = match input {
        DataType::F32 => Data::F32(gather(columns, rows, |column, places| {
            fill_floats(column, places, |number| number as f32)
        })?),
        DataType::F64 => Data::F64(gather(columns, rows, |column, places| {
            fill_floats(column, places, |number| number)
        })?),
        DataType::I64 => Data::I64(gather(columns, rows, fill_integers)?),
        DataType::Bool => Data::Bool(gather(columns, rows, fill_flags)?),
        DataType::String => Data::String(match columns {
            [column] if column.len() == rows => texts(column)?,
            _ => gather(columns, rows, fill_texts)?,
        }),
        other => {
            return Err(format!(
                "inputs of type {other} cannot be bound to features"
            ));
        }
    };
    let shape: &[usize] = if flat {
        &[rows]
    } else {
        &[rows, columns.len()]
    };
    Tensor::from_data(shape, data).map_err(|error| error.to_string())
}

/// The places of one column in a row-major tensor: every `columns`-th element.
type Places<'a, T> = std::iter::StepBy<std::slice::IterMut<'a, T>>;

/// Lets `fill` put each column into its places.
fn gather<T: Element>(
    columns: &[&ArrayRef],
    rows: usize,
    fill: impl Fn(&ArrayRef, Places<'_, T>) -> Result<(), String>,
) -> Result<Vec<T>, String> {
    let mut values = vec![T::default(); rows * columns.len()];
    for (first, column) in columns.iter().enumerate() {
        if column.len() != rows {
            return Err(format!(
                "a column has {} rows, expected {rows}",
                column.len()
            ));
        }
        if rows > 0 {
            fill(column, values[first..].iter_mut().step_by(columns.len()))?;
        }
    }
    Ok(values)
}

fn fill_floats<T>(
    column: &ArrayRef,
    places: Places<'_, T>,
    convert: impl Fn(f64) -> T,
) -> Result<(), String> {
    match column.data_type() {
        ColumnType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            for (row, (place, value)) in places.zip(floats.values()).enumerate() {
                let missing = floats.is_null(row);
                *place = convert(if missing { f64::NAN } else { *value });
            }
        }
        ColumnType::Int64 => {
            let integers = column.as_primitive::<Int64Type>();
            for (row, (place, value)) in places.zip(integers.values()).enumerate() {
                let missing = integers.is_null(row);
                *place = convert(if missing { f64::NAN } else { *value as f64 });
            }
        }
        ColumnType::Boolean => {
            let flags = column.as_boolean();
            for (row, place) in places.enumerate() {
                let flag = f64::from(u8::from(flags.value(row)));
                *place = convert(if flags.is_null(row) { f64::NAN } else { flag });
            }
        }
        _ => return Err(does_not_fit(column)),
    }
    Ok(())
}

fn fill_integers(column: &ArrayRef, places: Places<'_, i64>) -> Result<(), String> {
    refuse_nulls(column)?;
    match column.data_type() {
        ColumnType::Int64 => {
            let integers = column.as_primitive::<Int64Type>();
            for (place, value) in places.zip(integers.values()) {
                *place = *value;
            }
        }
        ColumnType::Boolean => {
            let flags = column.as_boolean();
            for (row, place) in places.enumerate() {
                *place = i64::from(flags.value(row));
            }
        }
        _ => return Err(does_not_fit(column)),
    }
    Ok(())
}

fn fill_flags(column: &ArrayRef, places: Places<'_, bool>) -> Result<(), String> {
    refuse_nulls(column)?;
    let flags = column
        .as_boolean_opt()
        .ok_or_else(|| does_not_fit(column))?;
    for (row, place) in places.enumerate() {
        *place = flags.value(row);
    }
    Ok(())
}

/// The texts of the only column.
fn texts(column: &ArrayRef) -> Result<Vec<CompactString>, String> {
    let texts = column
        .as_string_opt::<i32>()
        .ok_or_else(|| does_not_fit(column))?;
    let text = |text: Option<&str>| text.map(CompactString::from).unwrap_or_default();
    Ok(texts.iter().map(text).collect())
}

/// The places hold empty text, which is what a null becomes.
fn fill_texts(column: &ArrayRef, places: Places<'_, CompactString>) -> Result<(), String> {
    let texts = column
        .as_string_opt::<i32>()
        .ok_or_else(|| does_not_fit(column))?;
    for (row, place) in places.enumerate() {
        if texts.is_valid(row) {
            *place = CompactString::from(texts.value(row));
        }
    }
    Ok(())
}

fn refuse_nulls(column: &ArrayRef) -> Result<(), String> {
    match (0..column.len()).find(|row| column.is_null(*row)) {
        None => Ok(()),
        Some(row) => Err(format!("row {row}: the input cannot take a missing value")),
    }
}

fn does_not_fit(column: &ArrayRef) -> String {
    let found = column.data_type();
    format!("a column of type {found} does not fit the input")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};

    use super::*;

    fn column(array: impl Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    #[test]
    fn columns_of_any_numbers_become_rows_of_floats_with_nan_for_missing() {
        let floats = column(Float64Array::from(vec![Some(0.5), None]));
        let integers = column(Int64Array::from(vec![None, Some(-7)]));
        let flags = column(BooleanArray::from(vec![Some(true), None]));
        let columns = [&floats, &integers, &flags];
        let tensor = from_columns(&columns, 2, DataType::F64, false).unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        let found = tensor.as_slice::<f64>().unwrap();
        let expected = [0.5, f64::NAN, 1.0, f64::NAN, -7.0, f64::NAN];
        for (found, expected) in found.iter().zip(expected) {
            assert!(*found == expected || (found.is_nan() && expected.is_nan()));
        }
        // And a part of a column is read from where it begins
        let rest = [&integers.slice(1, 1)];
        let tensor = from_columns(&rest, 1, DataType::F32, true).unwrap();
        assert_eq!(tensor, Tensor::vector(vec![-7.0_f32]));
    }

    #[test]
    fn missing_text_is_empty_and_a_missing_integer_is_refused_by_row() {
        let texts = column(StringArray::from(vec![Some("Two year"), None]));
        let tensor = from_columns(&[&texts], 2, DataType::String, true).unwrap();
        let expected = vec![CompactString::from("Two year"), CompactString::default()];
        assert_eq!(tensor, Tensor::vector(expected));
        let integers = column(Int64Array::from(vec![Some(3), None]));
        let problem = from_columns(&[&integers], 2, DataType::I64, true).unwrap_err();
        assert!(problem.contains("row 1"), "{problem}");
    }

    #[test]
    fn every_pair_of_types_is_bound_exactly_when_compatibility_says_so() {
        let columns = [
            (FeatureType::String, column(StringArray::from(vec!["a"]))),
            (FeatureType::Int64, column(Int64Array::from(vec![1]))),
            (FeatureType::Float64, column(Float64Array::from(vec![1.0]))),
            (FeatureType::Bool, column(BooleanArray::from(vec![true]))),
        ];
        for (feature, column) in &columns {
            for input in DataType::ALL {
                let bound = from_columns(&[column], 1, input, false);
                let compatible = compatibility(*feature, input).is_some();
                assert_eq!(bound.is_ok(), compatible, "{feature:?} to {input}");
                // And no rows are no trouble
                let none = from_columns(&[&column.slice(0, 0)], 0, input, false);
                assert!(none.is_ok() || !compatible);
            }
        }
    }
}
