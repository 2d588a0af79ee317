//! Feature values and their types.
//!
//! One small set of types, each an Arrow type, is used from the request body to the model's
//! tensor. This file converts between JSON, text (CSV cells) and [`Value`]; it refuses what does
//! not fit instead of guessing, and its messages say what was found and what was expected. It
//! knows nothing of views: ranges and allowed values are checked by [`super::view`].

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The type of a feature; each is one Arrow type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureType {
    /// UTF-8 text, usually a category.
    String,
    /// 64-bit signed integer.
    Int64,
    /// 64-bit floating point number; never NaN or infinite when it comes from outside.
    Float64,
    /// true or false.
    Bool,
}

impl FeatureType {
    /// The Arrow type a column of this feature has.
    pub fn arrow(self) -> DataType {
        match self {
            FeatureType::String => DataType::Utf8,
            FeatureType::Int64 => DataType::Int64,
            FeatureType::Float64 => DataType::Float64,
            FeatureType::Bool => DataType::Boolean,
        }
    }

    /// The type called `name` in view files.
    pub fn from_name(name: &str) -> Option<FeatureType> {
        use FeatureType::{Bool, Float64, Int64, String};
        let mut all = [String, Int64, Float64, Bool].into_iter();
        all.find(|kind| kind.name() == name)
    }

    /// The name used in view files and messages.
    pub fn name(self) -> &'static str {
        match self {
            FeatureType::String => "string",
            FeatureType::Int64 => "int64",
            FeatureType::Float64 => "float64",
            FeatureType::Bool => "bool",
        }
    }
}

/// One feature value. `Null` is a value: "known to be empty".
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int64(i64),
    Float64(f64),
    String(String),
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Reads a JSON value as a feature of type `expected`.
    ///
    /// Integers are accepted for `float64`; a number with a fraction of zero (`3.0`) is accepted
    /// for `int64`, because many clients cannot tell the two apart. Nothing else is converted.
    ///
    /// # Errors
    /// A phrase "expected …, found …" to be put behind the feature's name.
    pub fn from_json(json: &Json, expected: FeatureType) -> Result<Value, String> {
        let value = match (json, expected) {
            (Json::Null, _) => Some(Value::Null),
            (Json::Bool(flag), FeatureType::Bool) => Some(Value::Bool(*flag)),
            (Json::String(text), FeatureType::String) => Some(Value::String(text.clone())),
            (Json::Number(number), FeatureType::Int64) => match number.as_i64() {
                Some(integer) => Some(Value::Int64(integer)),
                None => number.as_f64().and_then(integral).map(Value::Int64),
            },
            (Json::Number(number), FeatureType::Float64) => number
                .as_f64()
                .filter(|float| float.is_finite())
                .map(Value::Float64),
            _ => None,
        };
        value.ok_or_else(|| {
            format!(
                "expected {}, found {}",
                expected.name(),
                describe_json(json)
            )
        })
    }

    /// Reads a text cell (CSV) as a feature of type `expected`; a blank cell is null.
    ///
    /// # Errors
    /// A phrase "expected …, found …" to be put behind the column's name.
    pub fn from_text(text: &str, expected: FeatureType) -> Result<Value, String> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Value::Null);
        }
        let value = match expected {
            FeatureType::String => Some(Value::String(text.to_owned())),
            FeatureType::Int64 => match trimmed.parse::<i64>() {
                Ok(integer) => Some(Value::Int64(integer)),
                Err(_) => trimmed.parse().ok().and_then(integral).map(Value::Int64),
            },
            FeatureType::Float64 => trimmed
                .parse::<f64>()
                .ok()
                .filter(|float| float.is_finite())
                .map(Value::Float64),
            FeatureType::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
        };
        value.ok_or_else(|| {
            format!(
                "expected {}, found {:?}",
                expected.name(),
                shorten(trimmed, 40)
            )
        })
    }

    /// The value as JSON; numbers keep their type, and a non-finite float becomes null.
    pub fn to_json(&self) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Int64(integer) => Json::from(*integer),
            Value::Float64(float) => Json::from(*float),
            Value::String(text) => Json::String(text.clone()),
        }
    }

    /// The type of the value, `None` for null.
    pub fn feature_type(&self) -> Option<FeatureType> {
        match self {
            Value::Null => None,
            Value::Bool(_) => Some(FeatureType::Bool),
            Value::Int64(_) => Some(FeatureType::Int64),
            Value::Float64(_) => Some(FeatureType::Float64),
            Value::String(_) => Some(FeatureType::String),
        }
    }
}

/// A float that is a whole number within the range of `i64`, as that number.
fn integral(float: f64) -> Option<i64> {
    // 2^63 is exactly representable; everything below it converts without saturation.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float);
    (in_range && float.fract() == 0.0).then_some(float as i64)
}

/// A short description of a JSON value for an error message; long text is cut.
pub fn describe_json(json: &Json) -> String {
    match json {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => format!("the boolean {flag}"),
        Json::Number(number) => format!("the number {}", shorten(&number.to_string(), 40)),
        Json::String(text) => format!("the string {:?}", shorten(text, 40)),
        Json::Array(_) => "an array".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    }
}

/// `text` cut to at most `limit` characters, with an ellipsis when something was cut.
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn whole_floats_are_integers_and_fractions_are_not() {
        assert_eq!(
            Value::from_json(&json!(3.0), FeatureType::Int64),
            Ok(Value::Int64(3))
        );
        let error = Value::from_json(&json!(3.5), FeatureType::Int64).unwrap_err();
        assert_eq!(error, "expected int64, found the number 3.5");
    }

    #[test]
    fn integers_beyond_the_range_are_refused_not_saturated() {
        for text in ["9223372036854775808", "1e19", "-1e300"] {
            let json: Json = serde_json::from_str(text).unwrap();
            assert!(
                Value::from_json(&json, FeatureType::Int64).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn text_cells_must_be_finite_numbers() {
        for text in ["NaN", "inf", "-Infinity", "1e999", "12abc"] {
            assert!(
                Value::from_text(text, FeatureType::Float64).is_err(),
                "{text}"
            );
        }
        assert_eq!(
            Value::from_text("  ", FeatureType::Float64),
            Ok(Value::Null)
        );
    }

    proptest! {
        #[test]
        fn json_survives_the_round_trip(integer: i64, float in -1e300..1e300_f64, text: String) {
            for (value, kind) in [
                (Value::Int64(integer), FeatureType::Int64),
                (Value::Float64(float), FeatureType::Float64),
                (Value::String(text), FeatureType::String),
            ] {
                let printed = value.to_json().to_string();
                let json: Json = serde_json::from_str(&printed).unwrap();
                prop_assert_eq!(Value::from_json(&json, kind), Ok(value));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            for kind in [FeatureType::Int64, FeatureType::Float64, FeatureType::Bool] {
                let _ = Value::from_text(&text, kind);
            }
        }
    }
}
