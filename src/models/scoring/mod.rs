//! Binding a model version to a feature view, and turning its outputs into scores.
//!
//! A [`Scoring`] is made once, when a version is loaded: it knows which columns of the view feed
//! which input of the graph, which output is the score, and against which baseline reasons are
//! measured. Scoring one row or a million goes through the same functions.
//!
//! * `bind` – what a version is loaded with: graph, manifest and view, or everything that does not fit.
//! * `inputs` – columns of the view to an input of the graph.
//! * `outputs` – which output of the graph is the score.
//! * `choices` – what an affinity model chooses from, and the best of it that is left.
//! * `raw` – what reasons add up to.
//!
//! Nothing here knows where rows come from, nor what becomes of their scores.

mod bind;
mod choices;
mod inputs;
mod outputs;
mod raw;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use onnx_ml::{Model, Tensor};

use self::choices::{BoundChoice, best_left};
use self::inputs::BoundInput;
pub use self::inputs::InputTensors;
use self::raw::RawScores;
use super::manifest::TaskKind;
use super::tensors;
use crate::features::value::Value;
use crate::features::view::View;

/// How a version is scored over its view.
#[derive(Debug)]
pub struct Scoring {
    pub view: Arc<View>,
    pub task: TaskKind,
    inputs: Vec<BoundInput>,
    /// Position of the output with the probabilities or the value.
    score_output: usize,
    /// Position of the output with the raw score.
    raw_output: Option<usize>,
    /// Binary: the column of the score output.
    positive: usize,
    choices: Vec<BoundChoice>,
    /// One value per feature of the view: the reference customer for reasons.
    pub baseline: Vec<Value>,
    /// The columns of the view that any input or choice reads, ascending.
    pub features: Vec<usize>,
    /// The columns that inputs read, ascending: what reasons are given for.
    pub input_features: Vec<usize>,
}

/// The answer of one version for one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Probability, affinity or value; float64, widened exactly from the model's output.
    pub score: f64,
    /// Affinity: the label of the best choice that is left.
    pub label: Option<String>,
    /// The raw score reasons add up to: log-odds, or the value of a regression. Absent when no
    /// choice was left.
    pub raw: Option<f64>,
    /// Affinity: the column of the chosen label.
    pub choice: Option<usize>,
}

/// The answers of one version for many rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Picked {
    /// As [`Scored::score`].
    pub scores: Vec<f64>,
    /// As [`Scored::choice`].
    pub choices: Vec<Option<usize>>,
}

impl Scoring {
    /// The labels an affinity model chooses from, in the order of its output's columns.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().map(|choice| choice.label.as_str())
    }

    /// Scores every row of `batch`, which has the view's schema.
    ///
    /// # Errors
    /// A message when the graph cannot be run on these rows.
    pub fn score(&self, graph: &Model, batch: &RecordBatch) -> Result<Vec<Scored>, String> {
        let outputs = self.run(graph, batch.columns(), batch.num_rows())?;
        let picked = self.pick(&outputs, batch)?;
        let raw = self.raw_scores(&outputs, batch.num_rows())?;
        let rows = picked.scores.iter().zip(picked.choices).enumerate();
        Ok(rows
            .map(|(row, (&score, choice))| {
                let is_scored = self.task != TaskKind::Affinity || choice.is_some();
                let column = choice.unwrap_or(self.positive);
                Scored {
                    score,
                    label: choice.map(|column| self.choices[column].label.clone()),
                    raw: is_scored.then(|| raw.at(row, column)),
                    choice,
                }
            })
            .collect())
    }

    /// The scores and choices that [`Scoring::score`] gives, without raw scores and labels: what a
    /// whole table needs of them. `made` holds what other models have read of the same batch.
    ///
    /// # Errors
    /// As [`Scoring::score`].
    pub fn score_table(
        &self,
        graph: &Model,
        batch: &RecordBatch,
        made: &mut InputTensors,
    ) -> Result<Picked, String> {
        let inputs = self.inputs.iter().map(|input| made.get(input, batch));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let outputs = graph
            .run_shared(&inputs)
            .map_err(|error| error.to_string())?;
        self.pick(&outputs, batch)
    }

    /// The score of every row, and for an affinity the best choice that is left.
    fn pick(&self, outputs: &[Tensor], batch: &RecordBatch) -> Result<Picked, String> {
        let rows = batch.num_rows();
        let scores = tensors::to_f64(&outputs[self.score_output])?;
        let width = row_width(&scores, rows)?;
        if self.task != TaskKind::Affinity {
            let column = self.positive;
            if column >= width {
                return Err(format!(
                    "the score is column {column} of an output of {width}"
                ));
            }
            return Ok(Picked {
                scores: (0..rows).map(|row| scores[row * width + column]).collect(),
                choices: vec![None; rows],
            });
        }
        if width != self.choices.len() {
            let choices = self.choices.len();
            return Err(format!(
                "the output has {width} columns for {choices} choices"
            ));
        }
        Ok(best_left(&self.choices, &scores, batch))
    }

    /// The raw score of every row for a fixed choice (`None` unless the task is affinity).
    /// `columns` are the view's columns.
    ///
    /// # Errors
    /// A message when the graph cannot be run on these rows.
    pub fn score_raw(
        &self,
        graph: &Model,
        columns: &[ArrayRef],
        rows: usize,
        choice: Option<usize>,
    ) -> Result<Vec<f64>, String> {
        let outputs = self.run(graph, columns, rows)?;
        let raw = self.raw_scores(&outputs, rows)?;
        let column = choice.unwrap_or(self.positive);
        Ok((0..rows).map(|row| raw.at(row, column)).collect())
    }

    fn raw_scores(&self, outputs: &[Tensor], rows: usize) -> Result<RawScores, String> {
        let is_probability = self.raw_output.is_none() && self.task != TaskKind::Regression;
        let output = &outputs[self.raw_output.unwrap_or(self.score_output)];
        RawScores::read(output, is_probability, rows)
    }

    fn run(&self, graph: &Model, columns: &[ArrayRef], rows: usize) -> Result<Vec<Tensor>, String> {
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            tensors.push(input.tensor(columns, rows)?);
        }
        graph.run(tensors).map_err(|error| error.to_string())
    }
}

/// How many values each of `rows` rows has.
fn row_width(values: &[f64], rows: usize) -> Result<usize, String> {
    if rows == 0 || values.is_empty() || !values.len().is_multiple_of(rows) {
        return Err(format!(
            "the output has {} values for {rows} rows",
            values.len()
        ));
    }
    Ok(values.len() / rows)
}
