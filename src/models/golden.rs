//! `golden.json`: rows with the outputs a model version must reproduce to be served.
//!
//! ```json
//! {"tolerance": 1e-5, "rows": [{"inputs": {"tenure": 1, …}, "outputs": {"probabilities": [0.9, 0.1]}}]}
//! ```
//!
//! Inputs and outputs are named as in the graph; a scalar stands for a row of one column, null for
//! a missing value. An output `o` matches when |o - expected| <= tolerance * max(1, |expected|); the tolerance is
//! 1e-5 where none is said.

use std::collections::BTreeMap;

use onnx_ml::{Model, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::tensors;

/// The most rows: they are run whenever the version is loaded.
const MAX_ROWS: usize = 10_000;

/// The golden rows of one version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    #[serde(default = "usual_tolerance")]
    pub tolerance: f64,
    pub rows: Vec<GoldenRow>,
}

/// What an export changes, and no more.
fn usual_tolerance() -> f64 {
    1e-5
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRow {
    pub inputs: BTreeMap<String, Json>,
    pub outputs: BTreeMap<String, Json>,
}

/// How the golden rows of a version came out.
#[derive(Debug, Default, Serialize)]
pub struct GoldenReport {
    pub rows: usize,
    pub tolerance: f64,
    /// The largest |found - expected| / max(1, |expected|) of all numbers that were compared.
    pub largest_difference: f64,
    /// The rows that were not reproduced, each with the first value that is wrong.
    pub failures: Vec<GoldenFailure>,
}

/// A golden row that was not reproduced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GoldenFailure {
    /// Its position in the file, from 0.
    pub row: usize,
    /// What was wrong: the output, the column, what was expected and found.
    pub problem: String,
    /// The value that was expected, where one was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Json>,
}

impl std::fmt::Display for GoldenFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "golden.json row {}: {}", self.row, self.problem)
    }
}

impl Golden {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Line and column of what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Golden, String> {
        let golden: Golden =
            serde_json::from_slice(bytes).map_err(|error| format!("golden.json: {error}"))?;
        if golden.tolerance < 0.0 {
            let found = golden.tolerance;
            return Err(format!(
                "golden.json: tolerance: expected a number from 0 on, found {found}"
            ));
        }
        match golden.rows.len() {
            rows if rows > MAX_ROWS => Err(format!(
                "golden.json: expected at most {MAX_ROWS} rows, found {rows}"
            )),
            _ => Ok(golden),
        }
    }

    /// Runs every row alone and compares.
    ///
    /// # Errors
    /// The first row that does not match: its position, the output, expected and found.
    pub fn check(&self, graph: &Model) -> Result<(), String> {
        let mut largest = 0.0;
        for position in 0..self.rows.len() {
            self.check_row(graph, position, &mut largest)
                .map_err(|failure| failure.to_string())?;
        }
        Ok(())
    }

    /// Runs every row alone and compares all of them.
    pub fn report(&self, graph: &Model) -> GoldenReport {
        let mut report = GoldenReport {
            rows: self.rows.len(),
            tolerance: self.tolerance,
            ..GoldenReport::default()
        };
        for position in 0..self.rows.len() {
            let checked = self.check_row(graph, position, &mut report.largest_difference);
            report.failures.extend(checked.err());
        }
        report
    }

    fn check_row(
        &self,
        graph: &Model,
        position: usize,
        largest: &mut f64,
    ) -> Result<(), GoldenFailure> {
        let checked = self.rows[position].check(graph, self.tolerance, largest);
        checked.map_err(|wrong| GoldenFailure {
            row: position,
            problem: wrong.problem,
            expected: wrong.expected,
            found: wrong.found,
        })
    }
}

/// What is wrong in one row.
struct Wrong {
    problem: String,
    expected: Option<Json>,
    found: Option<Json>,
}

impl From<String> for Wrong {
    fn from(problem: String) -> Wrong {
        Wrong {
            problem,
            expected: None,
            found: None,
        }
    }
}

impl GoldenRow {
    fn check(&self, graph: &Model, tolerance: f64, largest: &mut f64) -> Result<(), Wrong> {
        if self.outputs.is_empty() {
            return Err(Wrong::from(
                "it has no outputs: nothing would be compared".to_owned(),
            ));
        }
        let inputs = input_tensors(graph, std::slice::from_ref(self), 1)?;
        let outputs = graph.run(inputs).map_err(|error| error.to_string())?;
        for (name, expected) in &self.outputs {
            let position = graph
                .outputs()
                .iter()
                .position(|output| output.name == *name)
                .ok_or_else(|| format!("the graph has no output {name:?}"))?;
            compare(&outputs[position], &as_list(expected), tolerance, largest).map_err(
                |mut wrong| {
                    wrong.problem = format!("output {name:?}: {}", wrong.problem);
                    wrong
                },
            )?;
        }
        Ok(())
    }
}

/// The inputs of the graph with `count` rows, which are `rows` over and over again.
///
/// # Errors
/// The input that is missing in a row or does not fit.
pub fn input_tensors(
    graph: &Model,
    rows: &[GoldenRow],
    count: usize,
) -> Result<Vec<Tensor>, String> {
    let mut tensors = Vec::with_capacity(graph.inputs().len());
    for input in graph.inputs() {
        let mut data = Vec::new();
        for row in rows.iter().cycle().take(count) {
            let json = row.inputs.get(&input.name);
            let json = json.ok_or_else(|| format!("input {:?} is missing", input.name))?;
            data.extend(as_list(json));
        }
        let shape: Vec<usize> = match input.shape.len() {
            1 => vec![data.len()],
            _ => vec![count, data.len() / count.max(1)],
        };
        let tensor = tensors::from_json(input.data_type, &shape, &data);
        tensors.push(tensor.map_err(|problem| format!("input {:?}: {problem}", input.name))?);
    }
    Ok(tensors)
}

fn as_list(json: &Json) -> Vec<&Json> {
    match json {
        Json::Array(items) => items.iter().collect(),
        single => vec![single],
    }
}

fn compare(
    output: &Tensor,
    expected: &[&Json],
    tolerance: f64,
    largest: &mut f64,
) -> Result<(), Wrong> {
    let found = tensors::to_json(output);
    if found.len() != expected.len() {
        return Err(Wrong::from(format!(
            "expected {} values, found {}",
            expected.len(),
            found.len()
        )));
    }
    for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
        let mut measured = String::new();
        let close = match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => {
                let difference = (found - expected).abs() / expected.abs().max(1.0);
                *largest = largest.max(difference);
                measured = format!(
                    "; the difference is {difference:.3e}, at most {tolerance:e} is allowed"
                );
                (found - expected).abs() <= tolerance * expected.abs().max(1.0)
            }
            _ => found == *expected,
        };
        if !close {
            return Err(Wrong {
                problem: format!("column {column}: expected {expected}, found {found}{measured}"),
                expected: Some((*expected).clone()),
                found: Some(found.clone()),
            });
        }
    }
    Ok(())
}
