//! The rows that a candidate is fitted and judged on: from the ledgers to a table.
//!
//! Features are those that the champion's inputs read, each as it was served. The champion is run
//! on all of them; where it is the very version that had answered, its score must be the one in the
//! ledger, else what would be compared is not what served.
//!
//! Memory: the rows, at most [`MAX_ROWS`], with at most [`MAX_TEXT_BYTES`] of text; with twenty
//! features that is about a gigabyte at the most, and half of it once more while they are sorted.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use bellwether_training::graph;
use bellwether_training::table::{Column, Table, Values};

use crate::features::value::FeatureType;
use crate::features::view::View;
use crate::history::labelled::{LabelCounts, LabelledPrediction, Question, read_labelled};
use crate::history::outcomes::LabelRule;
use crate::history::served::ServedRows;
use crate::ledger::short_id;
use crate::models::scoring::Scoring;
use crate::models::version::ModelVersion;

/// The most rows that are fitted on and compared.
pub const MAX_ROWS: usize = 1_000_000;
/// The most text in the features of all rows together, in bytes.
pub const MAX_TEXT_BYTES: usize = 512 * 1024 * 1024;

/// How far the champion's score may be from the one it gave: a build for another processor may
/// round otherwise.
const SAME_SCORE: f64 = 1e-5;

/// Whole numbers beyond this are not exact in float32, in which every graph computes.
const EXACT_INTEGERS: i64 = 1 << 24;

/// Labelled rows in the order of time.
#[derive(Debug)]
pub struct Rows {
    pub features: Table,
    pub labels: Vec<bool>,
    pub at_us: Vec<i64>,
    /// A digest of the customer.
    pub customers: Vec<u64>,
    pub champion_scores: Vec<f64>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Whether the champion says what it had said.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Reproduced {
    /// Rows that this version, with these files, had answered.
    pub rows: u64,
    /// Of these, the ones with exactly the score that was answered.
    pub equal: u64,
    pub largest_difference: f64,
}

/// Predictions that lacked a feature: they were made with another view, or by a version with other
/// inputs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Incomplete {
    /// What the first one lacked.
    pub feature: String,
    pub predictions: u64,
}

/// What was found in the ledgers.
#[derive(Debug)]
pub struct Collected {
    pub rows: Rows,
    pub counts: LabelCounts,
    /// Mature predictions that were served without a feature that is needed.
    pub incomplete: Option<Incomplete>,
    pub reproduced: Reproduced,
    /// Graph input and feature, where the names differ.
    pub inputs: Vec<(String, String)>,
}

impl Collected {
    /// The features behind these graph inputs.
    pub fn features_of(&self, inputs: &[String]) -> Vec<String> {
        let feature = |input: &String| {
            let renamed = self.inputs.iter().find(|(name, _)| name == input);
            renamed.map_or(input, |(_, feature)| feature).clone()
        };
        inputs.iter().map(feature).collect()
    }
}

/// Reads the rows that `question` asks for, with the features and the scores of the champion.
///
/// # Errors
/// What reading labelled predictions says; too many rows; or the champion does not run, or does not
/// say what it had said.
pub fn collect(
    question: &Question,
    rule: &LabelRule,
    champion: &ModelVersion,
    scoring: &Scoring,
) -> Result<Collected, String> {
    let mut collector = Collector::new(champion, scoring);
    let counts = read_labelled(question, rule, |labelled| collector.add(labelled))?;
    collector.finish(counts)
}

struct Collector<'a> {
    champion: &'a ModelVersion,
    scoring: &'a Scoring,
    served: ServedRows,
    columns: Vec<Values>,
    text_bytes: usize,
    labels: Vec<bool>,
    /// When the prediction was made, and its id: the order of the rows.
    places: Vec<(i64, [u8; 16])>,
    customers: Vec<u64>,
    champion_scores: Vec<f64>,
    /// What the champion had answered, for the rows that it had.
    logged: Vec<Option<f64>>,
    incomplete: Option<Incomplete>,
}

impl<'a> Collector<'a> {
    fn new(champion: &'a ModelVersion, scoring: &'a Scoring) -> Collector<'a> {
        let columns = scoring.input_features.iter().map(|&column| {
            let feature = &scoring.view.features()[column];
            match feature.kind {
                FeatureType::String => Values::Text(Vec::new()),
                // Without a default it may be missing, which only a floating point input can say.
                FeatureType::Int64 if feature.default.is_some() => Values::Integer(Vec::new()),
                _ => Values::Number(Vec::new()),
            }
        });
        Collector {
            champion,
            scoring,
            served: ServedRows::new(&scoring.view),
            columns: columns.collect(),
            text_bytes: 0,
            labels: Vec::new(),
            places: Vec::new(),
            customers: Vec::new(),
            champion_scores: Vec::new(),
            logged: Vec::new(),
            incomplete: None,
        }
    }

    fn add(&mut self, labelled: &LabelledPrediction<'_>) -> Result<(), String> {
        let prediction = labelled.prediction;
        let needed = &self.scoring.input_features;
        if let Some(lacking) = ServedRows::lacks(&self.scoring.view, prediction, needed) {
            let name = &self.scoring.view.features()[lacking].name;
            let incomplete = self.incomplete.get_or_insert_with(|| Incomplete {
                feature: name.clone(),
                predictions: 0,
            });
            incomplete.predictions += 1;
            return Ok(());
        }
        if self.labels.len() >= MAX_ROWS || self.text_bytes > MAX_TEXT_BYTES {
            return Err(format!(
                "there are more than {MAX_ROWS} rows, or {MAX_TEXT_BYTES} bytes of text in them, \
                 which is the most that are fitted on; leave out the older ones with --since"
            ));
        }
        self.served.push(prediction);
        self.labels.push(labelled.label.is_positive());
        let id = prediction.prediction_id.first_chunk::<16>();
        self.places
            .push((prediction.at_us, id.copied().unwrap_or_default()));
        let [a, b, c, d, e, f, g, h, ..] = short_id(prediction.customer_id.as_bytes());
        self.customers
            .push(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let score = labelled.score;
        let same = score.version == self.champion.version
            && score.digest.as_ref() == self.champion.digest.as_slice();
        self.logged.push(same.then_some(score.score));
        match self.served.is_full() {
            true => self.take_batch(),
            false => Ok(()),
        }
    }

    /// Runs the champion on the rows that wait, and keeps of them what is fitted on.
    fn take_batch(&mut self) -> Result<(), String> {
        if self.served.is_empty() {
            return Ok(());
        }
        let batch: RecordBatch = self
            .served
            .take_batch()
            .map_err(|error| error.to_string())?;
        let scored = self.scoring.score(&self.champion.graph, &batch)?;
        for scored in scored {
            if !(0.0..=1.0).contains(&scored.score) {
                return Err(format!(
                    "model {} version {}: its score {} is no probability; a candidate cannot be \
                     compared with it",
                    self.champion.name, self.champion.version, scored.score
                ));
            }
            self.champion_scores.push(scored.score);
        }
        for (values, &column) in self.columns.iter_mut().zip(&self.scoring.input_features) {
            self.text_bytes += append(values, batch.column(column));
        }
        Ok(())
    }

    fn finish(mut self, counts: LabelCounts) -> Result<Collected, String> {
        self.take_batch()?;
        let reproduced = self.reproduced();
        if reproduced.largest_difference > SAME_SCORE {
            return Err(format!(
                "model {} version {}: on values as served it gives scores that differ from those \
                 it had given by up to {:e}, so what would be compared is not what served; was the \
                 file replaced?",
                self.champion.name, self.champion.version, reproduced.largest_difference
            ));
        }
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.sort_unstable_by_key(|row| self.places[*row]);
        let view = &self.scoring.view;
        let mut inputs = Vec::new();
        let mut columns = Vec::new();
        for (values, &column) in self.columns.into_iter().zip(&self.scoring.input_features) {
            let feature = &view.features()[column].name;
            let name = input_name(feature, view);
            if name != *feature {
                inputs.push((name.clone(), feature.clone()));
            }
            columns.push(Column {
                name,
                values: exact(values),
            });
        }
        let table = Table {
            columns,
            rows: order.len(),
        };
        fn pick<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
            order.iter().map(|row| values[*row]).collect()
        }
        Ok(Collected {
            rows: Rows {
                features: table.select(&order),
                labels: pick(&self.labels, &order),
                at_us: order.iter().map(|row| self.places[*row].0).collect(),
                customers: pick(&self.customers, &order),
                champion_scores: pick(&self.champion_scores, &order),
            },
            counts,
            incomplete: self.incomplete,
            reproduced,
            inputs,
        })
    }

    fn reproduced(&self) -> Reproduced {
        let mut reproduced = Reproduced::default();
        for (logged, score) in self.logged.iter().zip(&self.champion_scores) {
            let Some(logged) = logged else {
                continue;
            };
            let difference = (logged - score).abs();
            reproduced.rows += 1;
            reproduced.equal += u64::from(logged.to_bits() == score.to_bits());
            reproduced.largest_difference = reproduced.largest_difference.max(difference);
        }
        reproduced
    }
}

/// Adds a column's values and returns how many bytes of text they are. A missing text is the empty
/// one, as it is for a graph's input; a number that is none is missing.
fn append(values: &mut Values, column: &ArrayRef) -> usize {
    let rows = 0..column.len();
    if let Values::Integer(integers) = values
        && column.null_count() > 0
    {
        // The default was declared later than these values were served.
        *values = Values::Number(
            integers
                .iter()
                .map(|integer| Some(*integer as f64))
                .collect(),
        );
    }
    match (values, column.data_type()) {
        (Values::Text(texts), DataType::Utf8) => {
            let column = column.as_string::<i32>();
            texts.extend(
                column
                    .iter()
                    .map(|text| text.unwrap_or_default().to_owned()),
            );
            column.values().len()
        }
        (Values::Integer(integers), DataType::Int64) => {
            let column = column.as_primitive::<Int64Type>();
            integers.extend(column.iter().map(Option::unwrap_or_default));
            0
        }
        (Values::Number(numbers), kind) => {
            let number = |row: usize| match kind {
                DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as f64,
                _ => f64::from(u8::from(column.as_boolean().value(row))),
            };
            let present = |row: &usize| !column.is_null(*row);
            numbers.extend(rows.map(|row| {
                Some(row)
                    .filter(present)
                    .map(number)
                    .filter(|number| number.is_finite())
            }));
            0
        }
        _ => 0,
    }
}

/// Whole numbers that float32 cannot hold are given to the graph as what it can.
fn exact(values: Values) -> Values {
    match values {
        Values::Integer(integers)
            if integers
                .iter()
                .any(|integer| !(-EXACT_INTEGERS..=EXACT_INTEGERS).contains(integer)) =>
        {
            Values::Number(
                integers
                    .into_iter()
                    .map(|integer| Some(integer as f64))
                    .collect(),
            )
        }
        values => values,
    }
}

/// The graph's input for a feature: its name, unless that is one of a value inside the graph.
fn input_name(feature: &str, view: &View) -> String {
    let mut name = feature.to_owned();
    while graph::is_reserved(&name) || (name != feature && view.index_of(&name).is_some()) {
        name = format!("input_{name}_");
    }
    name
}

#[cfg(test)]
mod tests;
