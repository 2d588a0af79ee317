//! Single values of tables, and what becomes of them as elements of a tensor.
//!
//! Tables come in other types than the graph's: data frames know int64 and float64, JSON knows
//! numbers, CSV knows text. A value is taken when it is still the same value afterwards. The one
//! exception is what every conversion of decimals does anyway: a number with a fraction, and a
//! number that was written in digits, become the nearest number that the input's type has. What is
//! missing is NaN or empty text.

use onnx_ml::{CompactString, Data, DataType, Element, f16};
use serde_json::Value as Json;

use crate::features::value::{describe_json, shorten};
use crate::models::tensors::protocol_name;

/// The values of a column, as they came.
#[derive(Debug, Clone)]
pub enum Values {
    /// Of a type that the caller has named.
    Typed(Data),
    /// From JSON.
    Json(Vec<Json>),
    /// In digits or letters, as in CSV.
    Written(Vec<CompactString>),
}

impl Values {
    pub fn len(&self) -> usize {
        match self {
            Values::Typed(data) => data.len(),
            Values::Json(values) => values.len(),
            Values::Written(texts) => texts.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn cell(&self, index: usize) -> Cell<'_> {
        match self {
            Values::Json(values) => Cell::of_json(&values[index]),
            Values::Written(texts) => Cell::Written(texts[index].as_str()),
            Values::Typed(data) => match data {
                Data::Bool(values) => Cell::Flag(values[index]),
                Data::U8(values) => Cell::Integer(values[index].into()),
                Data::U16(values) => Cell::Integer(values[index].into()),
                Data::U32(values) => Cell::Integer(values[index].into()),
                Data::U64(values) => Cell::Integer(values[index].into()),
                Data::I8(values) => Cell::Integer(values[index].into()),
                Data::I16(values) => Cell::Integer(values[index].into()),
                Data::I32(values) => Cell::Integer(values[index].into()),
                Data::I64(values) => Cell::Integer(values[index].into()),
                Data::F16(values) => Cell::Float(values[index].to_f64()),
                Data::F32(values) => Cell::Float(values[index].into()),
                Data::F64(values) => Cell::Float(values[index]),
                Data::String(values) => Cell::Text(values[index].as_str()),
            },
        }
    }
}

/// One value.
#[derive(Debug, Clone, Copy)]
enum Cell<'a> {
    Missing,
    Flag(bool),
    /// Of an integer type: it stays that integer.
    Integer(i128),
    /// An integer in digits, of which nobody has said that it is one.
    Digits(i128),
    Float(f64),
    Text(&'a str),
    /// A number, a flag or a text; the input's type says which.
    Written(&'a str),
    /// An array or an object.
    Nested(&'a Json),
}

/// What CSV files have where a number is missing.
const MISSING: [&str; 9] = [
    "", "nan", "na", "n/a", "null", "none", "<na>", "-nan", "#n/a",
];

impl<'a> Cell<'a> {
    fn of_json(value: &'a Json) -> Cell<'a> {
        match value {
            Json::Null => Cell::Missing,
            Json::Bool(flag) => Cell::Flag(*flag),
            Json::String(text) => Cell::Text(text),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), _, _) => Cell::Digits(integer.into()),
                (_, Some(integer), _) => Cell::Digits(integer.into()),
                (_, _, Some(float)) => Cell::Float(float),
                // Without arbitrary precision a number is one of the three.
                _ => Cell::Nested(value),
            },
            Json::Array(_) | Json::Object(_) => Cell::Nested(value),
        }
    }

    /// What a written number is.
    fn read_number(text: &'a str) -> Cell<'a> {
        let trimmed = text.trim();
        if let Ok(integer) = trimmed.parse::<i64>() {
            return Cell::Digits(integer.into());
        }
        if let Ok(integer) = trimmed.parse::<u64>() {
            return Cell::Digits(integer.into());
        }
        if MISSING
            .iter()
            .any(|word| trimmed.eq_ignore_ascii_case(word))
        {
            return Cell::Missing;
        }
        match trimmed.parse::<f64>() {
            Ok(float) => Cell::Float(float),
            Err(_) => Cell::Text(text),
        }
    }

    /// For messages.
    fn describe(self) -> String {
        match self {
            Cell::Missing => "a missing value".to_owned(),
            Cell::Flag(flag) => format!("the boolean {flag}"),
            Cell::Integer(integer) | Cell::Digits(integer) => format!("the integer {integer}"),
            Cell::Float(float) => format!("the number {float}"),
            Cell::Text(text) | Cell::Written(text) => {
                format!("the string {:?}", shorten(text, 40))
            }
            Cell::Nested(value) => describe_json(value),
        }
    }
}

/// Which values make up a tensor, row by row.
pub struct Layout<'a> {
    pub rows: usize,
    /// Side by side: the name, the values, and how many of them each row takes.
    pub columns: Vec<(&'a str, &'a Values, usize)>,
}

/// The elements of a tensor.
///
/// # Errors
/// The first value that does not fit, by row and column.
pub fn fill(data_type: DataType, layout: &Layout<'_>) -> Result<Data, String> {
    match data_type {
        DataType::Bool => gather(layout, data_type, flag),
        DataType::U8 => gather(layout, data_type, integer::<u8>),
        DataType::U16 => gather(layout, data_type, integer::<u16>),
        DataType::U32 => gather(layout, data_type, integer::<u32>),
        DataType::U64 => gather(layout, data_type, integer::<u64>),
        DataType::I8 => gather(layout, data_type, integer::<i8>),
        DataType::I16 => gather(layout, data_type, integer::<i16>),
        DataType::I32 => gather(layout, data_type, integer::<i32>),
        DataType::I64 => gather(layout, data_type, integer::<i64>),
        DataType::F16 => gather(layout, data_type, |cell| {
            float(cell, f16::from_f64, f16::to_f64)
        }),
        DataType::F32 => gather(layout, data_type, |cell| {
            float(cell, |number| number as f32, f64::from)
        }),
        DataType::F64 => gather(layout, data_type, |cell| {
            float(cell, |number| number, f64::from)
        }),
        DataType::String => gather(layout, data_type, text),
    }
}

fn gather<T: Element>(
    layout: &Layout<'_>,
    data_type: DataType,
    convert: impl Fn(Cell<'_>) -> Option<T>,
) -> Result<Data, String> {
    let width: usize = layout.columns.iter().map(|(_, _, width)| width).sum();
    let mut elements = Vec::with_capacity(layout.rows * width);
    for row in 0..layout.rows {
        for (name, values, width) in &layout.columns {
            for place in 0..*width {
                let cell = values.cell(row * width + place);
                elements.push(convert(cell).ok_or_else(|| {
                    let name = shorten(name, 64);
                    let expected = protocol_name(data_type);
                    let found = cell.describe();
                    format!("row {row}, column {name:?}: expected {expected}, found {found}")
                })?);
            }
        }
    }
    Ok(T::into_data(elements))
}

fn float<T: Copy>(
    cell: Cell<'_>,
    nearest: impl Fn(f64) -> T,
    widen: impl Fn(T) -> f64,
) -> Option<T> {
    let number = match cell {
        Cell::Missing => f64::NAN,
        Cell::Flag(flag) => f64::from(u8::from(flag)),
        Cell::Float(number) => number,
        Cell::Digits(integer) => integer as f64,
        Cell::Integer(integer) => {
            let element = nearest(integer as f64);
            return (widen(element) as i128 == integer).then_some(element);
        }
        Cell::Written(text) => match Cell::read_number(text) {
            Cell::Text(_) => return None,
            number => return float(number, nearest, widen),
        },
        Cell::Text(_) | Cell::Nested(_) => return None,
    };
    let element = nearest(number);
    // Beyond the range of the type a number becomes infinity, which it was not.
    (number.is_infinite() || !widen(element).is_infinite()).then_some(element)
}

fn integer<T: TryFrom<i128>>(cell: Cell<'_>) -> Option<T> {
    let integer = match cell {
        Cell::Integer(integer) | Cell::Digits(integer) => integer,
        Cell::Flag(flag) => flag.into(),
        // Data frames have integers as floats as soon as one is missing.
        Cell::Float(number) if number.fract() == 0.0 && number.abs() < 1e18 => number as i128,
        Cell::Written(text) => return integer_written(text),
        Cell::Missing | Cell::Float(_) | Cell::Text(_) | Cell::Nested(_) => return None,
    };
    T::try_from(integer).ok()
}

fn integer_written<T: TryFrom<i128>>(text: &str) -> Option<T> {
    match Cell::read_number(text) {
        Cell::Written(_) => None,
        number => integer(number),
    }
}

fn flag(cell: Cell<'_>) -> Option<bool> {
    match cell {
        Cell::Flag(flag) => Some(flag),
        Cell::Integer(0) | Cell::Digits(0) => Some(false),
        Cell::Integer(1) | Cell::Digits(1) => Some(true),
        Cell::Float(0.0) => Some(false),
        Cell::Float(1.0) => Some(true),
        Cell::Written(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn text(cell: Cell<'_>) -> Option<CompactString> {
    match cell {
        Cell::Text(text) | Cell::Written(text) => Some(CompactString::from(text)),
        Cell::Missing => Some(CompactString::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(data_type: DataType, values: &Values) -> Result<Data, String> {
        let layout = Layout {
            rows: 1,
            columns: vec![("c", values, 1)],
        };
        fill(data_type, &layout)
    }

    fn json(value: Json) -> Values {
        Values::Json(vec![value])
    }

    fn written(text: &str) -> Values {
        Values::Written(vec![text.into()])
    }

    #[test]
    fn what_stays_the_same_value_is_taken() {
        for (values, data_type, expected) in [
            (
                Values::Typed(Data::I64(vec![1 << 24])),
                DataType::F32,
                Data::F32(vec![16777216.0]),
            ),
            (
                Values::Typed(Data::F64(vec![3.0])),
                DataType::I64,
                Data::I64(vec![3]),
            ),
            (
                Values::Typed(Data::F64(vec![0.1])),
                DataType::F32,
                Data::F32(vec![0.1]),
            ),
            (
                Values::Typed(Data::Bool(vec![true])),
                DataType::F32,
                Data::F32(vec![1.0]),
            ),
            (
                Values::Typed(Data::I64(vec![1])),
                DataType::Bool,
                Data::Bool(vec![true]),
            ),
            (
                Values::Typed(Data::U64(vec![u64::MAX])),
                DataType::U64,
                Data::U64(vec![u64::MAX]),
            ),
            (
                json(json!(16777217)),
                DataType::F32,
                Data::F32(vec![16777216.0]),
            ),
            (json(json!(7.0)), DataType::I32, Data::I32(vec![7])),
            (
                json(json!(u64::MAX)),
                DataType::U64,
                Data::U64(vec![u64::MAX]),
            ),
            (
                json(json!(null)),
                DataType::String,
                Data::String(vec!["".into()]),
            ),
            (written(" 0.5 "), DataType::F64, Data::F64(vec![0.5])),
            (written("12"), DataType::I8, Data::I8(vec![12])),
            (written("12.0"), DataType::I64, Data::I64(vec![12])),
            (written("True"), DataType::Bool, Data::Bool(vec![true])),
            (
                written("007"),
                DataType::String,
                Data::String(vec!["007".into()]),
            ),
            (
                written("NA"),
                DataType::String,
                Data::String(vec!["NA".into()]),
            ),
        ] {
            assert_eq!(one(data_type, &values), Ok(expected), "{values:?}");
        }
    }

    #[test]
    fn what_is_missing_is_nan() {
        for missing in [
            json(json!(null)),
            written(""),
            written("NaN"),
            written("N/A"),
        ] {
            match one(DataType::F32, &missing) {
                Ok(Data::F32(values)) => assert!(values[0].is_nan(), "{missing:?}"),
                other => panic!("{missing:?}: {other:?}"),
            }
            assert!(one(DataType::I64, &missing).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn what_would_be_another_value_is_refused() {
        for (values, data_type) in [
            (Values::Typed(Data::I64(vec![(1 << 24) + 1])), DataType::F32),
            (Values::Typed(Data::I64(vec![i64::MAX])), DataType::F64),
            (Values::Typed(Data::F64(vec![0.5])), DataType::I64),
            (Values::Typed(Data::F64(vec![1e39])), DataType::F32),
            (Values::Typed(Data::F64(vec![70_000.0])), DataType::F16),
            (Values::Typed(Data::I64(vec![2])), DataType::Bool),
            (Values::Typed(Data::I64(vec![-1])), DataType::U8),
            (Values::Typed(Data::F64(vec![1.0])), DataType::String),
            (Values::Typed(Data::String(vec!["1".into()])), DataType::F32),
            (json(json!("1")), DataType::F32),
            (json(json!([1])), DataType::F32),
            (json(json!(1)), DataType::String),
            (json(json!(300)), DataType::U8),
            (written("many"), DataType::F32),
            (written("1e999x"), DataType::I64),
            (written("yes"), DataType::Bool),
        ] {
            let problem = one(data_type, &values).unwrap_err();
            assert!(
                problem.starts_with("row 0, column \"c\": expected"),
                "{problem}"
            );
        }
    }

    #[test]
    fn columns_are_laid_side_by_side_and_a_wrong_value_is_found_by_row_and_name() {
        let pairs = Values::Json(vec![json!(1), json!(2), json!(3), json!(4)]);
        let single = Values::Json(vec![json!(5), json!("six")]);
        let layout = |values| Layout {
            rows: 2,
            columns: vec![("pairs", &pairs, 2), ("single", values, 1)],
        };
        let typed = Values::Typed(Data::I64(vec![5, 6]));
        let found = fill(DataType::I64, &layout(&typed));
        assert_eq!(found, Ok(Data::I64(vec![1, 2, 5, 3, 4, 6])));
        let problem = fill(DataType::I64, &layout(&single)).unwrap_err();
        assert_eq!(
            problem,
            "row 1, column \"single\": expected INT64, found the string \"six\""
        );
    }
}
