//! A column of a file as a column of its feature: of the feature's type, checked, with null for what is
//! missing.
//!
//! Cells are read as `features push` reads them: numbers that a wider type holds exactly are taken as they
//! are, everything else by its text; a blank cell and a number that is not finite are missing; what is of
//! another type, out of range, or refused as unknown makes its row bad.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use crate::batch::push::widens;
use crate::features::column::value_at;
use crate::features::value::{FeatureType, Value};
use crate::features::view::{Feature, UnknownValue};

/// Reads `column` as `feature`; `reject` is told the rows that do not fit and why. With `is_typed` the
/// column has the feature's type, and a blank text is a text. The second value is how many rows hold a
/// value that is not among the declared ones.
///
/// # Errors
/// When the column cannot be read as text at all.
pub fn read(
    column: &ArrayRef,
    feature: &Feature,
    is_typed: bool,
    mut reject: impl FnMut(usize, String),
) -> Result<(ArrayRef, u64), String> {
    let array = match is_typed {
        true => Arc::clone(column),
        false => convert(column, feature, &mut reject)?,
    };
    if feature.has_range() {
        check_range(&array, feature, &mut reject);
    }
    let unknown = count_unknown(&array, feature, &mut reject);
    Ok((array, unknown))
}

/// The column in the feature's type, null where a value is missing or does not fit.
fn convert(
    column: &ArrayRef,
    feature: &Feature,
    reject: &mut impl FnMut(usize, String),
) -> Result<ArrayRef, String> {
    let kind = feature.kind;
    // The nearest float of an integer is what its text reads as, too.
    let is_nearest = kind == FeatureType::Float64
        && matches!(column.data_type(), DataType::Int64 | DataType::UInt64);
    if is_nearest || widens(column.data_type(), kind) {
        let wide = cast(column, &kind.arrow()).map_err(|error| error.to_string())?;
        return finite_or_null(wide);
    }
    let texts = cast(column, &DataType::Utf8).map_err(|error| error.to_string())?;
    let Some(texts) = texts.as_string_opt::<i32>() else {
        let found = column.data_type();
        return Err(format!("a column of type {found} cannot be read as text"));
    };
    if kind == FeatureType::String {
        return blank_is_null(texts);
    }
    let mut read = |row: usize| -> Option<Value> {
        if texts.is_null(row) {
            return None;
        }
        match Value::from_text(texts.value(row), kind) {
            Ok(Value::Null) => None,
            Ok(value) => Some(value),
            Err(problem) => {
                reject(row, format!("{}: {problem}", feature.name));
                None
            }
        }
    };
    let rows = 0..texts.len();
    Ok(match kind {
        FeatureType::Int64 => {
            let integers = rows.map(|row| match read(row) {
                Some(Value::Int64(integer)) => Some(integer),
                _ => None,
            });
            Arc::new(integers.collect::<Int64Array>())
        }
        FeatureType::Float64 => {
            let floats = rows.map(|row| match read(row) {
                Some(Value::Float64(float)) => Some(float),
                _ => None,
            });
            Arc::new(floats.collect::<Float64Array>())
        }
        FeatureType::Bool | FeatureType::String => {
            let flags = rows.map(|row| match read(row) {
                Some(Value::Bool(flag)) => Some(flag),
                _ => None,
            });
            Arc::new(flags.collect::<BooleanArray>())
        }
    })
}

fn finite_or_null(array: ArrayRef) -> Result<ArrayRef, String> {
    let Some(floats) = array.as_primitive_opt::<Float64Type>() else {
        return Ok(array);
    };
    if floats.values().iter().all(|float| float.is_finite()) {
        return Ok(array);
    }
    let is_wild: BooleanArray = floats
        .values()
        .iter()
        .map(|f| Some(!f.is_finite()))
        .collect();
    nullif(&array, &is_wild).map_err(|error| error.to_string())
}

fn blank_is_null(texts: &StringArray) -> Result<ArrayRef, String> {
    let is_blank = |row: usize| match texts.value(row).as_bytes().first() {
        None => true,
        // Most texts begin with a letter, and need no closer look.
        Some(first) => !first.is_ascii_graphic() && texts.value(row).trim().is_empty(),
    };
    if !(0..texts.len()).any(is_blank) {
        return Ok(Arc::new(texts.clone()));
    }
    let blanks: BooleanArray = (0..texts.len()).map(|row| Some(is_blank(row))).collect();
    nullif(texts, &blanks).map_err(|error| error.to_string())
}

fn check_range(array: &ArrayRef, feature: &Feature, reject: &mut impl FnMut(usize, String)) {
    let min = feature.min.unwrap_or(f64::NEG_INFINITY);
    let max = feature.max.unwrap_or(f64::INFINITY);
    let is_out = |number: f64| number < min || number > max;
    let mut check = |row: usize, number: f64| {
        if is_out(number)
            && array.is_valid(row)
            && let Err(error) = feature.check(&value_at(array, row))
        {
            reject(row, error.to_string());
        }
    };
    if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
        for (row, float) in floats.values().iter().enumerate() {
            check(row, *float);
        }
    } else if let Some(integers) = array.as_primitive_opt::<Int64Type>() {
        for (row, integer) in integers.values().iter().enumerate() {
            check(row, *integer as f64);
        }
    }
}

/// How many values are not among the declared ones; where those are refused, they are rejected instead.
fn count_unknown(
    array: &ArrayRef,
    feature: &Feature,
    reject: &mut impl FnMut(usize, String),
) -> u64 {
    if feature.values.is_empty() {
        return 0;
    }
    let known: Vec<&str> = feature
        .values
        .iter()
        .filter_map(|value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let texts = array.as_string_opt::<i32>();
    let is_unknown = |row: usize| {
        array.is_valid(row)
            && match texts {
                Some(texts) => !known.contains(&texts.value(row)),
                None => feature.is_unknown(&value_at(array, row)),
            }
    };
    let mut count = 0;
    for row in (0..array.len()).filter(|row| is_unknown(*row)) {
        match feature.unknown {
            UnknownValue::Pass => count += 1,
            UnknownValue::Refuse => {
                if let Err(error) = feature.check(&value_at(array, row)) {
                    reject(row, error.to_string());
                }
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::view::View;
    use arrow::array::{DictionaryArray, Float32Array, UInt64Array};
    use arrow::datatypes::Int32Type;

    fn view() -> View {
        View::parse(
            r#"
[view]
name = "customer"
entity = "customer_id"
[[feature]]
name = "n"
type = "int64"
min = 0
max = 9
[[feature]]
name = "x"
type = "float64"
[[feature]]
name = "c"
type = "string"
values = ["a", "b"]
[[feature]]
name = "s"
type = "string"
values = ["a", "b"]
unknown = "refuse"
[[feature]]
name = "f"
type = "bool"
"#,
        )
        .unwrap()
    }

    /// The values, how many are unknown, and the rows that are bad.
    fn read_as(name: &str, column: ArrayRef) -> (Vec<Value>, u64, Vec<(usize, String)>) {
        let view = view();
        let feature = &view.features()[view.index_of(name).unwrap()];
        let mut bad = Vec::new();
        let reject = |row, reason| bad.push((row, reason));
        let (array, unknown) = read(&column, feature, false, reject).unwrap();
        let values = (0..array.len()).map(|row| value_at(&array, row)).collect();
        (values, unknown, bad)
    }

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(
            values
                .iter()
                .map(|text| Some(*text))
                .collect::<StringArray>(),
        )
    }

    #[test]
    fn cells_are_read_as_push_reads_them() {
        let (values, _, bad) = read_as("n", texts(&["3", " 4.0 ", "", "x", "12"]));
        let expected = [Value::Int64(3), Value::Int64(4), Value::Null, Value::Null];
        assert_eq!(values[..4], expected);
        let rows: Vec<usize> = bad.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [3, 4]);
        assert!(
            bad[0].1.contains("expected int64, found \"x\""),
            "{}",
            bad[0].1
        );
        assert!(bad[1].1.contains("out of range"), "{}", bad[1].1);
        let floats = Float64Array::from(vec![2.0, f64::NAN]);
        let (values, _, _) = read_as("n", Arc::new(floats));
        assert_eq!(values[0], Value::Int64(2));
        let floats = Float32Array::from(vec![0.5, f32::NAN, f32::INFINITY]);
        let (values, _, bad) = read_as("x", Arc::new(floats));
        assert_eq!(values, [Value::Float64(0.5), Value::Null, Value::Null]);
        assert!(bad.is_empty());
        let (values, _, _) = read_as("f", texts(&["True", "false", " "]));
        assert_eq!(values, [Value::Bool(true), Value::Bool(false), Value::Null]);
    }

    #[test]
    fn unknown_categories_are_counted_or_refused_as_declared() {
        let categories: DictionaryArray<Int32Type> = vec![Some("a"), Some("z"), None, Some(" ")]
            .into_iter()
            .collect();
        let (values, unknown, bad) = read_as("c", Arc::new(categories));
        assert_eq!(values[0], Value::String("a".into()));
        assert_eq!(values[2..], [Value::Null, Value::Null]);
        assert_eq!((unknown, bad.len()), (1, 0));
        let (_, unknown, bad) = read_as("s", texts(&["a", "z"]));
        assert_eq!((unknown, bad.len()), (0, 1));
        assert!(bad[0].1.contains("unknown value"), "{}", bad[0].1);
    }

    #[test]
    fn integers_become_the_float_that_their_text_reads_as() {
        for integer in [0, 1, u64::MAX, (1 << 53) + 1, (1 << 62) + 7] {
            let (values, _, _) = read_as("x", Arc::new(UInt64Array::from(vec![integer])));
            let expected = Value::from_text(&integer.to_string(), FeatureType::Float64).unwrap();
            assert_eq!(values, [expected]);
        }
    }
}
