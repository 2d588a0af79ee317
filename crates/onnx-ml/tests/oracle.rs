//! Small models give what ONNX Runtime gives, value for value; `oracle.py` says how they were made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use common::string_tensor;
use onnx_ml::{Model, Tensor};
use serde_json::Value;

/// ONNX Runtime sums in float32 and approximates `exp`; beyond this a difference is a defect.
const TOLERANCE: f64 = 2e-6;

#[test]
fn results_are_those_of_onnx_runtime() {
    let cases: Value = serde_json::from_str(include_str!("data/oracle.json")).unwrap();
    let mut failures = Vec::new();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if let Err(difference) = compare(case) {
            failures.push(format!("{name}: {difference}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn compare(case: &Value) -> Result<(), String> {
    let bytes = from_hexadecimal(case["model"].as_str().unwrap());
    let model = Model::from_bytes(&bytes).map_err(|error| error.to_string())?;
    let inputs = case["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(read)
        .collect();
    let outputs = match (model.run(inputs), case["outputs"].as_array()) {
        (Err(_), None) => return Ok(()),
        (Err(error), Some(_)) => return Err(error.to_string()),
        (Ok(outputs), None) => return Err(format!("expected a refusal, found {outputs:?}")),
        (Ok(outputs), Some(expected)) => outputs.into_iter().zip(expected),
    };
    for (output, expected) in outputs {
        let expected = read(expected);
        let same_kind = output.datum_type() == expected.datum_type();
        if !same_kind || output.shape() != expected.shape() {
            return Err(format!("expected {expected:?}, found {output:?}"));
        }
        if !same_values(&output, &expected) {
            let found = output.dump(true).unwrap();
            return Err(format!(
                "expected {}, found {found}",
                expected.dump(true).unwrap()
            ));
        }
    }
    Ok(())
}

fn same_values(found: &Tensor, expected: &Tensor) -> bool {
    if expected.datum_type() == onnx_ml::DatumType::String || expected.datum_type().is_integer() {
        return found == expected;
    }
    let values = |tensor: &Tensor| -> Vec<f64> {
        let wide = tensor.cast_to::<f64>().unwrap();
        wide.to_plain_array_view::<f64>()
            .unwrap()
            .iter()
            .copied()
            .collect()
    };
    values(found)
        .iter()
        .zip(values(expected))
        .all(|(found, expected)| {
            if !expected.is_finite() {
                return found.to_bits() == expected.to_bits()
                    || (found.is_nan() && expected.is_nan());
            }
            (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
        })
}

fn read(tensor: &Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
    let values = tensor["values"].as_array().unwrap();
    let integer = |value: &Value| value.as_i64().unwrap();
    match tensor["type"].as_str().unwrap() {
        "string" => string_tensor(&shape, values.iter().map(|value| value.as_str().unwrap())),
        "float32" => {
            let values: Vec<f32> = values.iter().map(|value| number(value) as f32).collect();
            Tensor::from_shape(&shape, &values).unwrap()
        }
        "float64" => {
            let values: Vec<f64> = values.iter().map(number).collect();
            Tensor::from_shape(&shape, &values).unwrap()
        }
        "int64" => {
            let values: Vec<i64> = values.iter().map(integer).collect();
            Tensor::from_shape(&shape, &values).unwrap()
        }
        "int32" => {
            let values: Vec<i32> = values.iter().map(|value| integer(value) as i32).collect();
            Tensor::from_shape(&shape, &values).unwrap()
        }
        "bool" => {
            let values: Vec<bool> = values
                .iter()
                .map(|value| value.as_bool().unwrap())
                .collect();
            Tensor::from_shape(&shape, &values).unwrap()
        }
        other => panic!("unknown type {other}"),
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap(),
        other => other.as_f64().unwrap(),
    }
}

fn from_hexadecimal(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}
