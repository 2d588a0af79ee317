//! `golden.json`: rows with the outputs a model version must reproduce to be served.
//!
//! ```json
//! {"tolerance": 1e-5, "rows": [{"inputs": {"tenure": 1, …}, "outputs": {"probabilities": [0.9, 0.1]}}]}
//! ```
//!
//! Inputs and outputs are named as in the graph; a scalar stands for a row of one column, null for
//! a missing value. An output `o` matches when |o - expected| <= tolerance * max(1, |expected|).

use std::collections::BTreeMap;

use onnx_ml::{Model, Tensor};
use serde::Deserialize;
use serde_json::Value as Json;

use super::tensors;

/// The golden rows of one version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub tolerance: f64,
    pub rows: Vec<GoldenRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRow {
    pub inputs: BTreeMap<String, Json>,
    pub outputs: BTreeMap<String, Json>,
}

impl Golden {
    /// Runs every row alone and compares.
    ///
    /// # Errors
    /// The first row that does not match: its position, the output, expected and found.
    pub fn check(&self, graph: &Model) -> Result<(), String> {
        for (position, row) in self.rows.iter().enumerate() {
            row.check(graph, self.tolerance)
                .map_err(|problem| format!("golden.json row {position}: {problem}"))?;
        }
        Ok(())
    }
}

impl GoldenRow {
    fn check(&self, graph: &Model, tolerance: f64) -> Result<(), String> {
        let mut inputs = Vec::new();
        for input in graph.inputs() {
            let json = self
                .inputs
                .get(&input.name)
                .ok_or_else(|| format!("input {:?} is missing", input.name))?;
            let data = as_list(json);
            let shape: Vec<usize> = match input.shape.len() {
                1 => vec![data.len()],
                _ => vec![1, data.len()],
            };
            let tensor = tensors::from_json(input.data_type, &shape, &data)
                .map_err(|problem| format!("input {:?}: {problem}", input.name))?;
            inputs.push(tensor);
        }
        let outputs = graph.run(inputs).map_err(|error| error.to_string())?;
        for (name, expected) in &self.outputs {
            let position = graph
                .outputs()
                .iter()
                .position(|output| output.name == *name)
                .ok_or_else(|| format!("the graph has no output {name:?}"))?;
            compare(&outputs[position], &as_list(expected), tolerance)
                .map_err(|problem| format!("output {name:?}: {problem}"))?;
        }
        Ok(())
    }
}

fn as_list(json: &Json) -> Vec<&Json> {
    match json {
        Json::Array(items) => items.iter().collect(),
        single => vec![single],
    }
}

fn compare(output: &Tensor, expected: &[&Json], tolerance: f64) -> Result<(), String> {
    let found = tensors::to_json(output);
    if found.len() != expected.len() {
        return Err(format!(
            "expected {} values, found {}",
            expected.len(),
            found.len()
        ));
    }
    for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => {
                (found - expected).abs() <= tolerance * expected.abs().max(1.0)
            }
            _ => found == *expected,
        };
        if !close {
            return Err(format!(
                "column {column}: expected {expected}, found {found}"
            ));
        }
    }
    Ok(())
}
