//! Runs of a version that nobody asked for: to warm it before it answers, and to time it.
//!
//! The rows are its golden rows where it has some, and otherwise zeros, or the reference customer of
//! its view where it binds to one. That such a run fails says nothing against a version: zeros need not
//! be a customer.

use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use onnx_ml::{CompactString, DataType, Model, Tensor};
use serde::Serialize;

use super::golden::{self, GoldenRow};
use super::scoring::Scoring;
use super::version::ModelVersion;
use crate::features::column::to_array;
use crate::features::value::Value;
use crate::features::view::Feature;

/// Rows of the batch that a version is warmed with.
const WARM_BATCH: usize = 32;

/// A model that takes longer for a row has been warmed enough by it.
const SLOW: Duration = Duration::from_millis(200);

/// Rows of the batch that is timed.
pub const TIMED_BATCH: usize = 1000;

/// How long one measurement runs at most, and how often.
const MEASURED_TIME: Duration = Duration::from_millis(300);
const MEASURED_RUNS: usize = 200;

/// The most elements that rows are made of, over all inputs.
const MAX_ELEMENTS: usize = 4 * 1024 * 1024;

/// How long runs take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    pub rows: usize,
    pub runs: usize,
    pub p50_us: f64,
    pub max_us: f64,
}

/// What a version is run on.
pub struct Trial<'a> {
    graph: &'a Model,
    scoring: Option<&'a Scoring>,
    golden: &'a [GoldenRow],
}

impl<'a> Trial<'a> {
    pub fn new(graph: &'a Model, scoring: Option<&'a Scoring>, golden: &'a [GoldenRow]) -> Self {
        Trial {
            graph,
            scoring,
            golden,
        }
    }

    /// Runs on `rows` rows for a while.
    ///
    /// # Errors
    /// What the graph says of the rows, or that there are none to be made.
    pub fn time(&self, rows: usize) -> Result<Timing, String> {
        let prepared = self.prepare(rows)?;
        let mut times = Vec::with_capacity(MEASURED_RUNS);
        let begun = Instant::now();
        // The first touches what the others find in place.
        self.run(&prepared)?;
        while times.len() < MEASURED_RUNS && (times.is_empty() || begun.elapsed() < MEASURED_TIME) {
            let started = Instant::now();
            self.run(&prepared)?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let microseconds = |time: &Duration| time.as_secs_f64() * 1e6;
        Ok(Timing {
            rows,
            runs: times.len(),
            p50_us: times.get(times.len() / 2).map_or(0.0, microseconds),
            max_us: times.last().map_or(0.0, microseconds),
        })
    }

    /// One run on `rows` rows; how long the graph took.
    fn once(&self, rows: usize) -> Result<Duration, String> {
        let prepared = self.prepare(rows)?;
        let started = Instant::now();
        self.run(&prepared)?;
        Ok(started.elapsed())
    }

    fn prepare(&self, rows: usize) -> Result<Prepared, String> {
        if let Some(scoring) = self.scoring {
            return reference_rows(scoring, rows).map(Prepared::Features);
        }
        let tensors = match self.golden {
            [] => zeros(self.graph, rows)?,
            golden => {
                let elements = |row: &GoldenRow| {
                    let lengths = row.inputs.values();
                    lengths
                        .map(|json| json.as_array().map_or(1, Vec::len))
                        .sum()
                };
                let most: usize = golden.iter().map(elements).max().unwrap_or(0);
                check_size(most.checked_mul(rows))?;
                golden::input_tensors(self.graph, golden, rows)?
            }
        };
        Ok(Prepared::Tensors(tensors))
    }

    fn run(&self, prepared: &Prepared) -> Result<(), String> {
        match (prepared, self.scoring) {
            (Prepared::Features(batch), Some(scoring)) => {
                scoring.score(self.graph, batch).map(|_| ())
            }
            (Prepared::Tensors(tensors), _) => {
                let ran = self.graph.run(tensors.clone());
                ran.map(|_| ()).map_err(|error| error.to_string())
            }
            (Prepared::Features(_), None) => Ok(()),
        }
    }
}

enum Prepared {
    Features(RecordBatch),
    Tensors(Vec<Tensor>),
}

/// Runs one row and a small batch through the graph, and through the scoring where there is one, so
/// that the first request finds everything in place; takes note of how quick it is.
pub fn warm(version: &ModelVersion) {
    let raw = Trial::new(&version.graph, None, &[]);
    let scored = version.scoring.as_ref().ok();
    let scored = scored.map(|scoring| Trial::new(&version.graph, Some(scoring), &[]));
    for trial in std::iter::once(raw).chain(scored) {
        if let Err(problem) = warm_by(&trial, version) {
            let (model, version) = (&version.name, &version.version);
            tracing::debug!(model, version, problem, "not warmed");
        }
    }
}

fn warm_by(trial: &Trial<'_>, version: &ModelVersion) -> Result<(), String> {
    // The first run finds nothing in place: the second tells how quick the model is.
    if trial.once(1)? > SLOW {
        return Ok(());
    }
    version.pace.note(trial.once(1)?);
    trial.once(WARM_BATCH).map(|_| ())
}

/// Rows of the reference customer of the view.
fn reference_rows(scoring: &Scoring, rows: usize) -> Result<RecordBatch, String> {
    let view = &scoring.view;
    let derived = view.derived_columns().start;
    let columns = view.features()[..derived].iter().enumerate();
    let columns =
        columns.map(|(column, feature)| column_of(feature, scoring.baseline.get(column), rows));
    let mut needed = vec![false; view.features().len()];
    for &column in &scoring.features {
        needed[column] = true;
    }
    view.close_over_inputs(&mut needed);
    view.derive(columns.collect(), rows, |column| needed[column])
        .map_err(|error| error.to_string())
}

/// A column of one value over and over again.
fn column_of(feature: &Feature, value: Option<&Value>, rows: usize) -> ArrayRef {
    to_array(feature.kind, &vec![value.unwrap_or(&Value::Null); rows])
}

/// Tensors of zeros that fit the graph, and of texts "0".
fn zeros(graph: &Model, rows: usize) -> Result<Vec<Tensor>, String> {
    let mut left = MAX_ELEMENTS;
    let mut tensors = Vec::with_capacity(graph.inputs().len());
    for input in graph.inputs() {
        let sizes = input.shape.iter().enumerate();
        let shape: Vec<usize> = sizes
            .map(|(axis, size)| size.unwrap_or(if axis == 0 { rows } else { 1 }))
            .collect();
        let elements = shape
            .iter()
            .try_fold(1_usize, |n, size| n.checked_mul(*size));
        let elements = check_size(elements)?;
        left = left
            .checked_sub(elements)
            .ok_or("the inputs are too large")?;
        let tensor = match input.data_type {
            DataType::String => Tensor::new(&shape, vec![CompactString::const_new("0"); elements]),
            other => Tensor::zeros(other, &shape),
        };
        tensors.push(tensor.map_err(|error| error.to_string())?);
    }
    Ok(tensors)
}

fn check_size(elements: Option<usize>) -> Result<usize, String> {
    elements
        .filter(|&elements| elements <= MAX_ELEMENTS)
        .ok_or_else(|| format!("the inputs are over {MAX_ELEMENTS} elements"))
}
