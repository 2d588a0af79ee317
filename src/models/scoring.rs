//! Binding a model version to a feature view, and turning its outputs into scores.
//!
//! A [`Scoring`] is made once, when a version is loaded: it knows which columns of the view feed
//! which input of the graph, which output is the score, and against which baseline reasons are
//! measured. Scoring one row or a million goes through the same functions.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::record_batch::RecordBatch;
use onnx_ml::{DataType, Labels, Model, Tensor, TensorInfo};

use super::manifest::{Manifest, TaskKind};
use super::tensors::{self, MissingAs};
use crate::features::expression::Expression;
use crate::features::value::{FeatureType, Value};
use crate::features::view::{View, suggestion};

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

/// One input of the graph and the columns that feed it.
#[derive(Clone, Debug)]
struct BoundInput {
    columns: Vec<usize>,
    data_type: DataType,
    /// The input has the shape `[N]` instead of `[N, columns]`.
    flat: bool,
}

#[derive(Debug)]
struct BoundChoice {
    label: String,
    unless: Option<Expression>,
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

/// The inputs that were made of one batch, for models that read the same columns.
#[derive(Debug, Default)]
pub struct InputTensors {
    made: Vec<(BoundInput, Arc<Tensor>)>,
}

impl InputTensors {
    fn get(&mut self, input: &BoundInput, batch: &RecordBatch) -> Result<Arc<Tensor>, String> {
        let is_same = |other: &BoundInput| {
            (&other.columns, other.data_type, other.flat)
                == (&input.columns, input.data_type, input.flat)
        };
        if let Some((_, tensor)) = self.made.iter().find(|(other, _)| is_same(other)) {
            return Ok(Arc::clone(tensor));
        }
        let columns: Vec<&ArrayRef> = input.columns.iter().map(|&c| batch.column(c)).collect();
        let rows = batch.num_rows();
        let tensor = tensors::from_columns(&columns, rows, input.data_type, input.flat)?;
        let tensor = Arc::new(tensor);
        self.made.push((input.clone(), Arc::clone(&tensor)));
        Ok(tensor)
    }
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
    /// Binds the graph's inputs to the view's features and checks the manifest against both.
    ///
    /// # Errors
    /// Everything that does not fit, one line each: input or feature, expected and found.
    pub fn bind(
        graph: &Model,
        manifest: Option<&Manifest>,
        view: &Arc<View>,
    ) -> Result<Scoring, Vec<String>> {
        let mut problems = Vec::new();
        let mapping = manifest.map(|manifest| &manifest.inputs);
        for named in mapping.into_iter().flat_map(|mapping| mapping.keys()) {
            if !graph.inputs().iter().any(|input| input.name == *named) {
                let names = graph.inputs().iter().map(|input| input.name.as_str());
                problems.push(format!(
                    "[inputs] names {named:?}, which the graph does not have{}",
                    suggestion(named, names)
                ));
            }
        }
        let mut inputs = Vec::new();
        for input in graph.inputs() {
            let own_name = vec![input.name.as_str()];
            let names = mapping
                .and_then(|mapping| mapping.get(&input.name))
                .map_or(own_name, |features| features.names());
            match bind_input(input, &names, view) {
                Ok(bound) => inputs.push(bound),
                Err(mut found) => problems.append(&mut found),
            }
        }
        let outputs = match Outputs::choose(graph, manifest) {
            Ok(outputs) => Some(outputs),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let choices = bind_choices(manifest, view, &mut problems);
        let baseline = read_baseline(manifest, view, &mut problems);
        let (Some(outputs), true) = (outputs, problems.is_empty()) else {
            return Err(problems);
        };

        let input_columns: Vec<usize> = inputs
            .iter()
            .flat_map(|i| i.columns.iter().copied())
            .collect();
        let choice_columns = choices
            .iter()
            .flat_map(|choice| choice.unless.iter().flat_map(|unless| unless.columns()))
            .filter_map(|column| view.index_of(column));
        let features = sorted(input_columns.iter().copied().chain(choice_columns));
        Ok(Scoring {
            view: Arc::clone(view),
            task: outputs.task,
            inputs,
            score_output: outputs.score,
            raw_output: outputs.raw,
            positive: outputs.positive,
            choices,
            baseline,
            features,
            input_features: sorted(input_columns.into_iter()),
        })
    }

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
        // A rule is evaluated when the first row needs it: one row rarely gets beyond its second
        // choice, and for many rows every rule still runs once over all of them.
        let excluded: Vec<OnceCell<Option<BooleanArray>>> = vec![OnceCell::new(); width];
        let is_left = |row: usize, column: usize| {
            let unless = &self.choices[column].unless;
            let flags =
                excluded[column].get_or_init(|| unless.as_ref().map(|unless| unless.holds(batch)));
            flags.as_ref().is_none_or(|flags| !flags.value(row))
        };
        let mut was_tried = vec![false; width];
        let mut picked = Picked {
            scores: Vec::with_capacity(rows),
            choices: Vec::with_capacity(rows),
        };
        for (row, scores) in scores.chunks_exact(width).enumerate() {
            was_tried.fill(false);
            let mut chosen = None;
            while let Some(column) = best_of(scores, &was_tried) {
                if is_left(row, column) {
                    chosen = Some(column);
                    break;
                }
                was_tried[column] = true;
            }
            picked
                .scores
                .push(chosen.map_or(0.0, |column| scores[column]));
            picked.choices.push(chosen);
        }
        Ok(picked)
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
        let output = self.raw_output.unwrap_or(self.score_output);
        let mut values = tensors::to_f64(&outputs[output])?;
        if self.raw_output.is_none() && self.task != TaskKind::Regression {
            for value in &mut values {
                *value = log_odds(*value);
            }
        }
        let width = row_width(&values, rows)?;
        Ok(RawScores { values, width })
    }

    fn run(&self, graph: &Model, columns: &[ArrayRef], rows: usize) -> Result<Vec<Tensor>, String> {
        let mut tensors = Vec::with_capacity(self.inputs.len());
        let mut sources: Vec<&ArrayRef> = Vec::new();
        for input in &self.inputs {
            sources.clear();
            sources.extend(input.columns.iter().map(|&column| &columns[column]));
            tensors.push(tensors::from_columns(
                &sources,
                rows,
                input.data_type,
                input.flat,
            )?);
        }
        graph.run(tensors).map_err(|error| error.to_string())
    }
}

/// The largest score that was not tried; of equal ones the first.
fn best_of(scores: &[f64], was_tried: &[bool]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for column in (0..scores.len()).filter(|column| !was_tried[*column]) {
        if best.is_none_or(|best| scores[column].total_cmp(&scores[best]).is_gt()) {
            best = Some(column);
        }
    }
    best
}

/// Raw scores, row-major; an output of one column stands for whichever column is asked for.
struct RawScores {
    values: Vec<f64>,
    width: usize,
}

impl RawScores {
    fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.width + column.min(self.width - 1)]
    }
}

/// Log-odds of a probability, kept finite: an exact 0 or 1 counts as one float32 step away.
fn log_odds(probability: f64) -> f64 {
    const STEP: f64 = f32::EPSILON as f64 / 2.0;
    let inside = probability.clamp(STEP, 1.0 - STEP);
    inside.ln() - (-inside).ln_1p()
}

fn row_width(values: &[f64], rows: usize) -> Result<usize, String> {
    if rows == 0 || values.is_empty() || !values.len().is_multiple_of(rows) {
        return Err(format!(
            "the output has {} values for {rows} rows",
            values.len()
        ));
    }
    Ok(values.len() / rows)
}

fn sorted(columns: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut columns: Vec<usize> = columns.collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

fn bind_input(input: &TensorInfo, names: &[&str], view: &View) -> Result<BoundInput, Vec<String>> {
    let mut problems = Vec::new();
    let mut columns = Vec::new();
    for name in names {
        let Some(index) = view.index_of(name) else {
            let features = view.features().iter().map(|feature| feature.name.as_str());
            problems.push(format!(
                "input {:?}: feature {name} is not in view {}{}",
                input.name,
                view.name,
                suggestion(name, features)
            ));
            continue;
        };
        columns.push(index);
        let feature = &view.features()[index];
        let expected = tensors::protocol_name(input.data_type);
        match tensors::compatibility(feature.kind, input.data_type) {
            None => problems.push(format!(
                "input {:?}: expected {expected}, found feature {name} of type {} in view {}",
                input.name,
                feature.kind.name(),
                view.name
            )),
            Some(MissingAs::Nothing) if feature.default.is_none() => problems.push(format!(
                "input {:?}: {expected} cannot express a missing value and feature {name} of view \
                 {} has no default; declare one",
                input.name, view.name
            )),
            Some(_) => {}
        }
    }
    let flat = input.shape.len() == 1;
    let width_fits = match input.shape.as_slice() {
        [_] => names.len() == 1,
        [_, width] => width.is_none_or(|width| width == names.len()),
        _ => false,
    };
    if !width_fits {
        problems.push(format!(
            "input {:?}: expected the shape [N, {}], found {}",
            input.name,
            names.len(),
            shape_text(&input.shape)
        ));
    }
    if problems.is_empty() {
        Ok(BoundInput {
            columns,
            data_type: input.data_type,
            flat,
        })
    } else {
        Err(problems)
    }
}

/// A shape for messages: `[N, 19]`.
pub fn shape_text(shape: &[Option<usize>]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| dim.map_or("N".to_owned(), |dim| dim.to_string()))
        .collect();
    format!("[{}]", dims.join(", "))
}

/// Which outputs are read, and as what.
struct Outputs {
    task: TaskKind,
    score: usize,
    raw: Option<usize>,
    positive: usize,
}

impl Outputs {
    fn choose(graph: &Model, manifest: Option<&Manifest>) -> Result<Outputs, String> {
        let outputs = graph.outputs();
        let position = |name: &str| {
            outputs
                .iter()
                .position(|output| output.name == name)
                .ok_or_else(|| {
                    let names: Vec<&str> =
                        outputs.iter().map(|output| output.name.as_str()).collect();
                    format!(
                        "[output] names {name:?}, the graph has {}",
                        names.join(", ")
                    )
                })
        };
        let section = manifest.map(|manifest| &manifest.output);
        let score = match section.and_then(|section| section.probabilities.as_deref()) {
            Some(name) => position(name)?,
            None => likely_score(outputs)?,
        };
        let raw = section
            .and_then(|section| section.log_odds.as_deref())
            .map(position)
            .transpose()?;
        let info = &outputs[score];
        if !is_floating(info.data_type) {
            let found = tensors::protocol_name(info.data_type);
            return Err(format!(
                "output {:?}: expected FP16, FP32 or FP64, found {found}",
                info.name
            ));
        }
        let labels = info.labels.as_ref().map(Labels::len);
        let width = match info.shape.as_slice() {
            [_] => Some(1),
            [_, width] => width.or(labels),
            _ => None,
        };
        let unclear = || {
            format!(
                "output {:?} has the shape {}: model.toml must say which task and column it is",
                info.name,
                shape_text(&info.shape)
            )
        };
        let task = match (manifest, width) {
            (Some(manifest), _) => manifest.model.task,
            (None, Some(1)) => TaskKind::Regression,
            (None, Some(2)) => TaskKind::Binary,
            (None, _) => return Err(unclear()),
        };
        let positive = match (task, section.and_then(|section| section.positive), width) {
            (TaskKind::Regression | TaskKind::Affinity, _, _) => 0,
            (TaskKind::Binary, Some(column), _) => column,
            (TaskKind::Binary, None, Some(width)) if width <= 2 => width - 1,
            (TaskKind::Binary, None, _) => return Err(unclear()),
        };
        if width.is_some_and(|width| positive >= width) {
            return Err(format!(
                "[output] positive = {positive}, but output {:?} has the shape {}",
                info.name,
                shape_text(&info.shape)
            ));
        }
        let choices = manifest.map_or(0, |manifest| manifest.choice.len());
        if task == TaskKind::Affinity && (choices == 0 || width.is_some_and(|w| w != choices)) {
            return Err(format!(
                "{choices} [[choice]] entries stand for output {:?} of shape {}",
                info.name,
                shape_text(&info.shape)
            ));
        }
        Ok(Outputs {
            task,
            score,
            raw,
            positive,
        })
    }
}

/// The output that is most likely the score: one with a name that exporters give to probabilities
/// and to the value of a regression, or else the last one that can hold scores.
fn likely_score(outputs: &[TensorInfo]) -> Result<usize, String> {
    const NAMES: [&str; 3] = ["probabilities", "output_probability", "variable"];
    let can_hold_scores = |output: &TensorInfo| {
        is_floating(output.data_type) && (1..=2).contains(&output.shape.len())
    };
    for name in NAMES {
        let named = |output: &TensorInfo| output.name == name && can_hold_scores(output);
        if let Some(position) = outputs.iter().position(named) {
            return Ok(position);
        }
    }
    outputs.iter().rposition(can_hold_scores).ok_or_else(|| {
        let found: Vec<String> = outputs
            .iter()
            .map(|output| {
                let data_type = tensors::protocol_name(output.data_type);
                format!("{} {data_type} {}", output.name, shape_text(&output.shape))
            })
            .collect();
        format!(
            "no output can be a score: expected FP16, FP32 or FP64 of the shape [N] or [N, k], \
             found {}",
            found.join(", ")
        )
    })
}

fn is_floating(data_type: DataType) -> bool {
    matches!(data_type, DataType::F16 | DataType::F32 | DataType::F64)
}

fn bind_choices(
    manifest: Option<&Manifest>,
    view: &View,
    problems: &mut Vec<String>,
) -> Vec<BoundChoice> {
    let mut choices = Vec::new();
    for choice in manifest.into_iter().flat_map(|manifest| &manifest.choice) {
        let unless = choice.unless.as_ref().and_then(|sql| {
            let data_type = FeatureType::Bool.arrow();
            Expression::compile(sql, view.schema(), &data_type)
                .map_err(|problem| {
                    problems.push(format!(
                        "choice {}: unless {sql:?}: {problem}",
                        choice.label
                    ));
                })
                .ok()
        });
        choices.push(BoundChoice {
            label: choice.label.clone(),
            unless,
        });
    }
    choices
}

fn read_baseline(
    manifest: Option<&Manifest>,
    view: &View,
    problems: &mut Vec<String>,
) -> Vec<Value> {
    let mut baseline: Vec<Value> = view
        .features()
        .iter()
        .map(|feature| feature.default.clone().unwrap_or_default())
        .collect();
    let empty = BTreeMap::new();
    let declared = manifest.map_or(&empty, |manifest| &manifest.reasons.baseline);
    for (name, value) in declared {
        let json = serde_json::to_value(value).unwrap_or_default();
        match view.index_of(name) {
            Some(index) => match Value::from_json(&json, view.features()[index].kind) {
                Ok(value) => baseline[index] = value,
                Err(problem) => problems.push(format!("reasons baseline: {name}: {problem}")),
            },
            None => problems.push(format!(
                "reasons baseline: {name} is not a feature of view {}",
                view.name
            )),
        }
    }
    baseline
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, data_type: DataType, shape: &[Option<usize>]) -> TensorInfo {
        TensorInfo {
            name: name.to_owned(),
            data_type,
            shape: shape.to_vec(),
            labels: None,
        }
    }

    #[test]
    fn the_score_is_the_output_that_exporters_name_so_or_the_last_of_its_kind() {
        let label = output("label", DataType::I64, &[None]);
        let probabilities = output("probabilities", DataType::F32, &[None, Some(2)]);
        let decisions = output("decisions", DataType::F32, &[None, Some(2)]);
        let embedding = output("embedding", DataType::F32, &[None, Some(4), Some(4)]);
        let named_label = output("variable", DataType::String, &[None]);
        for (outputs, expected) in [
            (vec![&label, &probabilities], 1),
            (vec![&probabilities, &label], 0),
            (vec![&probabilities, &decisions], 0),
            (vec![&decisions, &embedding, &label], 0),
            (vec![&named_label, &decisions], 1),
        ] {
            let outputs: Vec<TensorInfo> = outputs.into_iter().cloned().collect();
            assert_eq!(likely_score(&outputs), Ok(expected), "{outputs:?}");
        }
        let problem = likely_score(&[label, embedding]).unwrap_err();
        assert!(problem.contains("label INT64 [N], embedding FP32 [N, 4, 4]"));
    }
}
