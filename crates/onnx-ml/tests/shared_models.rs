//! Models of other projects give what ONNX Runtime gives, or are refused with the operator's name.
//!
//! The models are not part of the repository: they are found by `BELLWETHER_SHARED_DIR` or in
//! `../shared` beside it, and the tests are skipped where there are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onnx_ml::{DatumType, LoadError, Model, Tensor};
use prost::Message;
use serde_json::Value;
use tract_onnx::pb;

/// Operators that the models need and that are not written yet.
const NOT_YET: &[&str] = &[
    "Binarizer",
    "LabelEncoder",
    "TreeEnsemble",
    "TreeEnsembleRegressor",
    "ZipMap",
];

fn shared() -> Option<PathBuf> {
    let folder = match std::env::var_os("BELLWETHER_SHARED_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    let folder = folder.join("onnx");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: data not found");
    None
}

fn models(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "onnx")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn operators(bytes: &[u8]) -> Vec<String> {
    let model = pb::ModelProto::decode(bytes).unwrap();
    model
        .graph
        .unwrap()
        .node
        .into_iter()
        .map(|node| node.op_type)
        .collect()
}

#[test]
fn what_is_not_written_yet_is_refused_by_name_and_the_rest_loads() {
    let Some(folder) = shared() else { return };
    for path in models(&folder) {
        let bytes = std::fs::read(&path).unwrap();
        let missing: Vec<String> = operators(&bytes)
            .into_iter()
            .filter(|name| NOT_YET.contains(&name.as_str()))
            .collect();
        match (Model::from_bytes(&bytes), missing.first()) {
            (Ok(_), None) => {}
            (Err(LoadError::UnsupportedOperator { operator, .. }), Some(missing)) => {
                assert_eq!(
                    operator,
                    format!("ai.onnx.ml.{missing}"),
                    "{}",
                    path.display()
                );
            }
            (result, missing) => {
                let result = result.map(|model| model.outputs().to_vec());
                panic!(
                    "{}: {result:?}, missing operator {missing:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn golden_rows_come_out_as_from_onnx_runtime() {
    let Some(folder) = shared() else { return };
    let mut compared = 0;
    for path in models(&folder) {
        let Ok(model) = Model::from_bytes(&std::fs::read(&path).unwrap()) else {
            continue;
        };
        let Ok(golden) = std::fs::read_to_string(path.with_extension("golden.json")) else {
            continue;
        };
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let inputs: Vec<Tensor> = model
            .inputs()
            .iter()
            .map(|input| tensor(&golden["inputs"][&input.name]))
            .collect();
        let outputs = model.run(inputs).unwrap();
        for (info, output) in model.outputs().iter().zip(&outputs) {
            let expected = &golden["outputs"][&info.name];
            let (expected_shape, expected) = flatten(expected);
            assert_eq!(
                output.shape(),
                expected_shape,
                "{} {}",
                path.display(),
                info.name
            );
            let found = numbers(output);
            for (found, expected) in found.iter().zip(&expected) {
                let tolerance = 1e-5 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{} {}: found {found}, expected {expected}",
                    path.display(),
                    info.name
                );
            }
        }
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} golden files were compared");
}

#[test]
fn node_tests_of_the_onnx_project_pass() {
    let Some(folder) = shared() else { return };
    for path in models(&folder.join("onnx-1.17.0-node")) {
        let Ok(model) = Model::from_bytes(&std::fs::read(&path).unwrap()) else {
            continue;
        };
        let data = path.with_file_name("test_data_set_0");
        let inputs = (0..model.inputs().len())
            .map(|place| stored_tensor(&data.join(format!("input_{place}.pb"))))
            .collect();
        let outputs = model.run(inputs).unwrap();
        for (place, output) in outputs.iter().enumerate() {
            let expected = stored_tensor(&data.join(format!("output_{place}.pb")));
            assert_eq!(output.shape(), expected.shape(), "{}", path.display());
            assert_eq!(numbers(output), numbers(&expected), "{}", path.display());
        }
    }
}

fn stored_tensor(path: &Path) -> Tensor {
    let proto = pb::TensorProto::decode(&*std::fs::read(path).unwrap()).unwrap();
    let resolver = Arc::new(tract_onnx::data_resolver::MmapDataResolver);
    tract_onnx::tensor::load_tensor(&*resolver, &proto, None).unwrap()
}

/// A float32 tensor from nested lists.
fn tensor(lists: &Value) -> Tensor {
    let (shape, numbers) = flatten(lists);
    let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
    Tensor::from_shape(&shape, &numbers).unwrap()
}

fn flatten(lists: &Value) -> (Vec<usize>, Vec<f64>) {
    match lists {
        Value::Array(items) => {
            let mut shape = vec![items.len()];
            let mut numbers = Vec::new();
            for (place, item) in items.iter().enumerate() {
                let (inner_shape, inner) = flatten(item);
                if place == 0 {
                    shape.extend(inner_shape);
                }
                numbers.extend(inner);
            }
            (shape, numbers)
        }
        Value::Number(number) => (vec![], vec![number.as_f64().unwrap()]),
        other => panic!("{other} is neither a list nor a number"),
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let as_float = tensor.cast_to_dt(DatumType::F64).unwrap();
    as_float
        .to_plain_array_view::<f64>()
        .unwrap()
        .iter()
        .copied()
        .collect()
}
