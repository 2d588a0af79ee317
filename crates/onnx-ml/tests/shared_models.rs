//! Models of other projects give what ONNX Runtime gives.
//!
//! The models are not part of the repository: they are found by `BELLWETHER_SHARED_DIR` or in
//! `../shared` beside it, and the tests are skipped where there are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::path::{Path, PathBuf};

use common::{Tolerance, difference};
use onnx_ml::{Model, Tensor, proto};
use prost::Message;
use serde_json::Value;

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

fn tolerance(path: &Path) -> Tolerance {
    let name = path.to_string_lossy();
    if name.contains("lgbm") || name.contains("xgboost") || name.contains("tree") {
        Tolerance::Trees
    } else {
        Tolerance::Other
    }
}

#[test]
fn every_model_loads_and_runs() {
    let Some(folder) = shared() else { return };
    let mut loaded = 0;
    for path in models(&folder) {
        let model = Model::from_bytes(&std::fs::read(&path).unwrap());
        let model = model.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let zeros = model.inputs().iter().map(|info| {
            let shape: Vec<usize> = info.shape.iter().map(|size| size.unwrap_or(1)).collect();
            Tensor::zeros(info.data_type, &shape).unwrap()
        });
        let outputs = model.run(zeros.collect());
        let outputs = outputs.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(outputs.len(), model.outputs().len(), "{}", path.display());
        loaded += 1;
    }
    assert!(loaded >= 20, "only {loaded} models were found");
}

#[test]
fn golden_rows_come_out_as_from_onnx_runtime() {
    let Some(folder) = shared() else { return };
    let mut compared = 0;
    for path in models(&folder) {
        let Ok(golden) = std::fs::read_to_string(path.with_extension("golden.json")) else {
            continue;
        };
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let model = Model::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let inputs = model
            .inputs()
            .iter()
            .map(|info| floats(&golden["inputs"][&info.name]));
        let outputs = model.run(inputs.collect()).unwrap();
        for (info, output) in model.outputs().iter().zip(&outputs) {
            let expected = floats(&golden["outputs"][&info.name]);
            let output = as_floats(output);
            if let Some(found) = difference(&output, &expected, tolerance(&path)) {
                panic!("{} {}: {found}", path.display(), info.name);
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
        let model = Model::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let data = path.with_file_name("test_data_set_0");
        let inputs = (0..model.inputs().len())
            .map(|place| stored_tensor(&data.join(format!("input_{place}.pb"))))
            .collect();
        let outputs = model.run(inputs).unwrap();
        for (place, output) in outputs.iter().enumerate() {
            let expected = stored_tensor(&data.join(format!("output_{place}.pb")));
            if let Some(found) = difference(output, &expected, Tolerance::Other) {
                panic!("{}: {found}", path.display());
            }
        }
    }
}

fn stored_tensor(path: &Path) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    Tensor::from_proto(&proto::TensorProto::decode(bytes.as_slice()).unwrap()).unwrap()
}

/// Integers as float32, as the golden files hold every number.
fn as_floats(tensor: &Tensor) -> Tensor {
    match tensor.as_slice::<i64>() {
        Some(values) => {
            let values = values.iter().map(|value| *value as f32).collect();
            Tensor::new(tensor.shape(), values).unwrap()
        }
        None => tensor.clone(),
    }
}

/// A float32 tensor from nested lists.
fn floats(lists: &Value) -> Tensor {
    let (shape, numbers) = flatten(lists);
    Tensor::new(
        &shape,
        numbers.into_iter().map(|number| number as f32).collect(),
    )
    .unwrap()
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
        // A ZipMap's row: a number for each class.
        Value::Object(classes) => flatten(&classes.values().cloned().collect()),
        Value::Number(number) => (vec![], vec![number.as_f64().unwrap()]),
        other => panic!("{other} is neither a list nor a number"),
    }
}
