//! Runs an exported graph on a table, exactly as a server would.
//!
//! The figures of a report and the golden rows come from here and not from the fitted model in
//! memory, so that they describe the file that was written.

use onnx_ml::{CompactString, Element, Tensor};

use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::LinearModel;
use crate::graph::{LOG_ODDS, PROBABILITIES};
use crate::table::{Table, Values};

/// How far the graph's float32 log-odds may be from the fitted model's float64 ones, beyond what
/// the rounding of large numbers explains.
const EXPORT_TOLERANCE: f64 = 1e-5;

/// The outputs of a graph, one inner vector per row, float32 results widened to float64.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub log_odds: Vec<Vec<f64>>,
    pub probabilities: Vec<Vec<f64>>,
}

/// An exported graph, loaded.
pub struct Scorer {
    name: String,
    model: onnx_ml::Model,
}

impl Scorer {
    /// Loads the bytes of a model file; `name` is for error messages.
    ///
    /// # Errors
    /// [`TrainError::Graph`] if the runtime refuses it.
    pub fn load(name: &str, bytes: &[u8]) -> Result<Scorer, TrainError> {
        let model = onnx_ml::Model::from_bytes(bytes).map_err(|error| TrainError::Graph {
            model: name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Scorer {
            name: name.to_owned(),
            model,
        })
    }

    /// The outputs for every row of `table`, whose columns are bound to inputs by name.
    ///
    /// # Errors
    /// [`TrainError::Column`] if an input has no column, [`TrainError::Graph`] if the graph fails
    /// or lacks one of the two outputs.
    pub fn score(&self, table: &Table) -> Result<Scores, TrainError> {
        let mut inputs = Vec::new();
        for input in self.model.inputs() {
            let tensor = tensor(table.column(&input.name)?, table.rows);
            inputs.push(tensor.map_err(|reason| self.error(reason))?);
        }
        let outputs = self.model.run(inputs);
        let outputs = outputs.map_err(|error| self.error(error.to_string()))?;
        Ok(Scores {
            log_odds: self.rows_of(&outputs, LOG_ODDS)?,
            probabilities: self.rows_of(&outputs, PROBABILITIES)?,
        })
    }

    /// Scores `table` and compares the log-odds with those of the models that were exported.
    ///
    /// # Errors
    /// As [`Scorer::score`], and [`TrainError::Graph`] if they differ by more than float32
    /// rounding: then the export is wrong.
    pub fn score_checked(
        &self,
        table: &Table,
        encoder: &Encoder,
        models: &[LinearModel],
    ) -> Result<Scores, TrainError> {
        let scores = self.score(table)?;
        let design = encoder.design_matrix(table)?;
        for (column, model) in models.iter().enumerate() {
            let rounding = encoder.float32_error(table, model)?;
            for (row, expected) in model.log_odds(&design).into_iter().enumerate() {
                let found = scores.log_odds[row][column];
                // Negated so that a NaN counts as different.
                let equal = (found - expected).abs() <= EXPORT_TOLERANCE + rounding[row];
                if !equal {
                    return Err(self.error(format!(
                        "row {row}, output {column}: expected log-odds {expected}, found {found}"
                    )));
                }
            }
        }
        Ok(scores)
    }

    fn rows_of(&self, outputs: &[Tensor], name: &str) -> Result<Vec<Vec<f64>>, TrainError> {
        let position = self.model.outputs().iter().position(|o| o.name == name);
        let tensor = position.and_then(|position| outputs.get(position));
        let tensor = tensor.ok_or_else(|| self.error(format!("it has no output '{name}'")))?;
        let values = tensor.as_slice::<f32>().ok_or_else(|| {
            let found = tensor.data_type();
            self.error(format!(
                "output '{name}': expected element type float, found {found}"
            ))
        })?;
        let rows = tensor.shape().first().copied().unwrap_or(1);
        let columns = values.len() / rows.max(1);
        let rows = values.chunks(columns.max(1));
        Ok(rows
            .map(|row| row.iter().map(|value| f64::from(*value)).collect())
            .collect())
    }

    fn error(&self, reason: String) -> TrainError {
        TrainError::Graph {
            model: self.name.clone(),
            reason,
        }
    }
}

/// A column as a tensor `[rows, 1]`; a missing number is NaN.
fn tensor(values: &Values, rows: usize) -> Result<Tensor, String> {
    fn column<T: Element>(rows: usize, values: Vec<T>) -> Result<Tensor, String> {
        Tensor::new(&[rows, 1], values).map_err(|error| error.to_string())
    }
    match values {
        Values::Text(texts) => {
            let texts = texts.iter().map(|text| CompactString::from(text.as_str()));
            column(rows, texts.collect())
        }
        Values::Integer(integers) => column(rows, integers.clone()),
        Values::Number(numbers) => {
            let numbers = numbers.iter().map(|n| n.map_or(f32::NAN, |n| n as f32));
            column(rows, numbers.collect())
        }
        Values::Flag(_) => Err("a yes/no target was asked for as an input".to_owned()),
    }
}
