//! Every model of the zoo loads and gives what ONNX Runtime gives; and a row gives the same bits
//! alone, in batches of any size and on any number of threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::path::PathBuf;

use common::{Tolerance, bits, difference, read_tensor, rows};
use onnx_ml::{Data, Model, ScopedThreads, Tensor};
use serde_json::Value;

/// Models whose inputs are not rows of one table.
const NOT_BY_ROWS: &[&str] = &["arithmetic", "loop_while", "string_functions"];

struct Entry {
    name: String,
    model: Vec<u8>,
    expectations: Value,
}

fn zoo() -> Vec<Entry> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("zoo/models");
    let wanted = std::env::var("ZOO_MODEL").unwrap_or_default();
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&wanted) {
            continue;
        }
        let expectations = std::fs::read(folder.join("io.json")).unwrap();
        entries.push(Entry {
            name,
            model: std::fs::read(folder.join("model.onnx")).unwrap(),
            expectations: serde_json::from_slice(&expectations).unwrap(),
        });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    assert!(!entries.is_empty(), "no models in {}", folder.display());
    entries
}

impl Entry {
    /// The inputs, in the order of the model.
    fn inputs(&self, model: &Model) -> Vec<Tensor> {
        let given = self.expectations["inputs"].as_array().unwrap();
        let find = |name: &str| given.iter().find(|input| input["name"] == name).unwrap();
        model
            .inputs()
            .iter()
            .map(|info| read_tensor(find(&info.name)))
            .collect()
    }

    fn tolerance(&self) -> Tolerance {
        match self.expectations["kind"].as_str() {
            Some("trees") => Tolerance::Trees,
            _ => Tolerance::Other,
        }
    }

    /// What is wrong with the model's outputs.
    fn compare(&self) -> Result<(), String> {
        let model = Model::from_bytes(&self.model).map_err(|error| format!("refused: {error}"))?;
        let inputs = self.inputs(&model);
        let outputs = model
            .run(inputs)
            .map_err(|error| format!("failed: {error}"))?;
        let expected = self.expectations["outputs"].as_array().unwrap();
        if expected.len() != outputs.len() {
            return Err(format!(
                "{} outputs, expected {}",
                outputs.len(),
                expected.len()
            ));
        }
        for (info, output) in model.outputs().iter().zip(&outputs) {
            let expected = expected
                .iter()
                .find(|expected| expected["name"] == info.name);
            let expected = expected.ok_or(format!("output {:?} is not expected", info.name))?;
            let known = info.shape != [None, None];
            if info.data_type != output.data_type() || (known && info.shape.len() != output.rank())
            {
                return Err(format!("{info:?} describes {:?}", output.shape()));
            }
            if let Some(labels) = expected.get("labels").filter(|labels| !labels.is_null()) {
                let found = match &info.labels {
                    Some(onnx_ml::Labels::Integers(labels)) => serde_json::json!(labels),
                    Some(onnx_ml::Labels::Strings(labels)) => serde_json::json!(labels),
                    None => Value::Null,
                };
                if found != *labels {
                    return Err(format!("labels are {found}, expected {labels}"));
                }
            }
            if let Some(found) = difference(output, &read_tensor(expected), self.tolerance()) {
                return Err(format!("output {:?}: {found}", info.name));
            }
        }
        Ok(())
    }

    /// Runs the rows in other ways, and compares bits.
    fn same_bits(&self) -> Result<(), String> {
        let model = Model::from_bytes(&self.model).map_err(|error| error.to_string())?;
        if NOT_BY_ROWS.contains(&self.name.as_str()) {
            return Ok(());
        }
        let any_rows = |info: &onnx_ml::TensorInfo| info.shape.first() == Some(&None);
        if !model.inputs().iter().all(any_rows) || !model.outputs().iter().all(any_rows) {
            return Ok(());
        }
        let inputs = self.inputs(&model);
        let count = inputs[0].shape()[0];
        if count == 0 {
            return Ok(());
        }
        let whole = model
            .run(inputs.clone())
            .map_err(|error| error.to_string())?;
        if whole.iter().any(|output| output.shape()[0] != count) {
            return Ok(());
        }
        // The same rows again and again, so that every kernel for many rows has its turn.
        let many: Vec<Tensor> = inputs
            .iter()
            .map(|input| repeat(input, 700 / count + 1))
            .collect();
        let pool = ScopedThreads(2);
        let repeated = model
            .run_on(many, &pool)
            .map_err(|error| error.to_string())?;
        for (whole, repeated) in whole.iter().zip(&repeated) {
            for again in 0..repeated.shape()[0] / count {
                if bits(&rows(repeated, again * count, count)) != bits(whole) {
                    return Err(format!("the rows differ when repeated (time {again})"));
                }
            }
        }
        for size in [1, 3, 17] {
            for first in (0..count).step_by(size) {
                let size = size.min(count - first);
                let part: Vec<Tensor> = inputs
                    .iter()
                    .map(|input| rows(input, first, size))
                    .collect();
                let outputs = model.run(part).map_err(|error| error.to_string())?;
                for (whole, output) in whole.iter().zip(&outputs) {
                    if bits(&rows(whole, first, size)) != bits(output) {
                        return Err(format!("{size} rows from {first} differ alone"));
                    }
                }
            }
        }
        let none: Vec<Tensor> = inputs.iter().map(|input| rows(input, 0, 0)).collect();
        let outputs = model
            .run(none)
            .map_err(|error| format!("no rows: {error}"))?;
        for (whole, output) in whole.iter().zip(&outputs) {
            if output.shape()[0] != 0 || output.shape()[1..] != whole.shape()[1..] {
                return Err(format!("no rows give {:?}", output.shape()));
            }
        }
        Ok(())
    }
}

fn repeat(tensor: &Tensor, times: usize) -> Tensor {
    fn repeated<T: Clone>(values: &[T], times: usize) -> Vec<T> {
        values
            .iter()
            .cycle()
            .take(values.len() * times)
            .cloned()
            .collect()
    }
    let mut shape = tensor.shape().to_vec();
    shape[0] *= times;
    macro_rules! each {
        ($($variant:ident),*) => {
            match tensor.data() {
                $(Data::$variant(values) => Data::$variant(repeated(values, times)),)*
            }
        };
    }
    let data = each!(
        Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, String
    );
    Tensor::from_data(&shape, data).unwrap()
}

fn report(what: &str, failures: &[String], count: usize) {
    assert!(
        failures.is_empty(),
        "{} of {count} models {what}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    println!("{count} models");
}

#[test]
fn every_model_gives_what_onnx_runtime_gives() {
    let mut failures = Vec::new();
    let zoo = zoo();
    for entry in &zoo {
        if let Err(reason) = entry.compare() {
            failures.push(format!("{}: {reason}", entry.name));
        }
    }
    report("differ from onnxruntime", &failures, zoo.len());
}

#[test]
fn a_row_gives_the_same_bits_alone_in_a_batch_and_on_threads() {
    let mut failures = Vec::new();
    let zoo = zoo();
    for entry in &zoo {
        if let Err(reason) = entry.same_bits() {
            failures.push(format!("{}: {reason}", entry.name));
        }
    }
    report("depend on the batch", &failures, zoo.len());
}
