//! The committed golden rows are what the committed graphs answer. Needs no data.

use onnx_ml::{CompactString, DataType, Tensor};
use serde_json::Value;

/// One input of one golden row as a tensor `[1, 1]`.
fn tensor(data_type: DataType, value: &Value) -> Tensor {
    match data_type {
        DataType::String => {
            let text = CompactString::from(value.as_str().unwrap());
            Tensor::new(&[1, 1], vec![text]).unwrap()
        }
        DataType::I64 => Tensor::new(&[1, 1], vec![value.as_i64().unwrap()]).unwrap(),
        _ => {
            assert_eq!(data_type, DataType::F32);
            let number = value.as_f64().map_or(f32::NAN, |number| number as f32);
            Tensor::new(&[1, 1], vec![number]).unwrap()
        }
    }
}

#[test]
fn committed_graphs_reproduce_their_golden_rows() {
    for name in ["churn", "upsell"] {
        // Given a committed graph and its golden rows.
        let bytes = std::fs::read(crate::common::committed(name, "model.onnx")).unwrap();
        let model = onnx_ml::Model::from_bytes(&bytes).unwrap();
        let text = std::fs::read_to_string(crate::common::committed(name, "golden.json")).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        for row in golden["rows"].as_array().unwrap() {
            // When a row is run.
            let inputs = model.inputs().iter();
            let inputs = inputs.map(|input| tensor(input.data_type, &row["inputs"][&input.name]));
            let outputs = model.run(inputs.collect()).unwrap();
            // Then every output is the recorded one within 1e-6, ten times less than allowed.
            for (info, output) in model.outputs().iter().zip(outputs) {
                let expected = row["outputs"][&info.name].as_array().unwrap();
                let found = output.as_slice::<f32>().unwrap();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    let difference = f64::from(*found) - expected.as_f64().unwrap();
                    assert!(
                        difference.abs() < 1e-6,
                        "{name}, {}: {difference}",
                        info.name
                    );
                }
            }
        }
    }
}

#[test]
fn every_input_of_a_graph_has_a_baseline_of_its_type() {
    for name in ["churn", "upsell"] {
        // Given a committed graph and its description.
        let bytes = std::fs::read(crate::common::committed(name, "model.onnx")).unwrap();
        let model = onnx_ml::Model::from_bytes(&bytes).unwrap();
        let text = std::fs::read_to_string(crate::common::committed(name, "model.toml")).unwrap();
        let description: toml::Table = text.parse().unwrap();
        let baseline = description["reasons"]["baseline"].as_table().unwrap();
        // When inputs and baseline are compared, then they are the same names and types.
        assert_eq!(baseline.len(), model.inputs().len());
        for input in model.inputs() {
            let expected = match input.data_type {
                DataType::String => "string",
                DataType::I64 => "integer",
                _ => "float",
            };
            assert_eq!(
                baseline[&input.name].type_str(),
                expected,
                "{name}: {}",
                input.name
            );
        }
    }
}
