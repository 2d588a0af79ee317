//! From a chunk of input to rows of output: parse, check, assemble, derive, run the models.
//!
//! The values of a row and its scores are those of `/v1/score` for the same values, to the bit: the same
//! assembly, the same compiled expressions, the same graphs. A row that a model refuses is found by
//! halving its chunk, and rejected; the others are scored.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, StringArray, UInt32Array,
};
use arrow::compute::{cast, filter, filter_record_batch, take};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::bind::Binding;
use super::cells;
use super::inputs::InputFile;
use super::plan::{Plan, has_label, scoring_of};
use super::source::{Chunk, Content, Position};
use super::statistics::Statistics;
use super::table::{Reject, Table, batch_of, from_csv, from_ndjson};
use crate::features::change::KEY_SEPARATOR;
use crate::features::column::{to_array, value_at};
use crate::features::view::Feature;
use crate::models::scoring::{InputTensors, Picked, Scoring};
use crate::models::version::ModelVersion;
use crate::score::assemble::assemble_columns;
use crate::score::given::{Given, Notes};
use crate::score::reasons::{Reasons, explain};

/// What became of a chunk.
#[derive(Debug)]
pub struct Scored {
    /// Rows that were read.
    pub rows: u64,
    /// Where the input goes on behind them.
    pub end: Position,
    /// Of the output; those that were not rejected, in order.
    pub batch: RecordBatch,
    pub rejects: Vec<Reject>,
    pub statistics: Statistics,
}

/// Scores a chunk.
///
/// # Errors
/// What is wrong with its file as a whole.
pub fn score(plan: &Plan, files: &[InputFile], chunk: Chunk) -> Result<Scored, String> {
    let file = files[chunk.file].path.display().to_string();
    let in_file = |problem: String| format!("{file}: rows from {} on: {problem}", chunk.first);
    let binding = &*chunk.binding;
    let mut stored = None;
    let table = match chunk.content {
        Content::Entities(entities) => {
            let read = entities.read(plan, binding, chunk.first);
            let (table, given) = read.map_err(in_file)?;
            stored = Some(given);
            Ok(table)
        }
        Content::Columns(columns) => Ok(Table::new(columns, chunk.rows, chunk.first)),
        Content::Csv(bytes, width) => from_csv(&bytes, chunk.rows, chunk.first, width, binding),
        Content::Ndjson(bytes) => from_ndjson(
            &bytes,
            chunk.rows,
            chunk.first,
            binding,
            &plan.view,
            &plan.needed,
        ),
    };
    let mut rejects = Vec::new();
    let mut table = table.map_err(in_file)?;
    let mut read = match stored {
        Some(given) => from_store(plan, given, &table),
        None => read_table(plan, binding, &mut table),
    }
    .map_err(in_file)?;
    if !table.bad.is_empty() {
        table = table
            .without_bad_rows(&file, binding, &mut rejects)
            .map_err(in_file)?;
        read = read_table(plan, binding, &mut table).map_err(in_file)?;
    }
    let mut statistics = Statistics::new(plan);
    let batch = assemble_columns(&plan.view, &read.given, table.rows, &plan.needed)
        .map_err(|error| in_file(error.to_string()))?;
    let mut answers = Vec::with_capacity(plan.models.len());
    let mut tensors = InputTensors::default();
    for version in &plan.models {
        let answer = run(plan, version, &batch, &mut tensors, &mut table);
        answers.push(answer.map_err(in_file)?);
    }
    drop(tensors);
    let is_good: Option<BooleanArray> = (!table.bad.is_empty()).then(|| {
        let rows = 0..table.rows;
        rows.map(|row| Some(!table.bad.contains_key(&row)))
            .collect()
    });
    let mut columns = read.keys.clone();
    for (index, (version, answer)) in plan.models.iter().zip(&answers).enumerate() {
        let scoring = scoring_of(version)?;
        let rows = (0..table.rows).filter(|row| !table.bad.contains_key(row));
        statistics.add_scores(plan, index, scoring, answer, rows);
        columns.extend(answer_columns(plan, version, scoring, answer, table.rows));
    }
    let mut output = batch_of(&plan.schema, columns, table.rows).map_err(in_file)?;
    let mut served = batch;
    if let Some(is_good) = is_good {
        let failed = |error: arrow::error::ArrowError| in_file(error.to_string());
        output = filter_record_batch(&output, &is_good).map_err(failed)?;
        served = filter_record_batch(&served, &is_good).map_err(failed)?;
        for given in read.given.iter_mut().flatten() {
            *given = filter(given, &is_good).map_err(failed)?;
        }
        table
            .without_bad_rows(&file, binding, &mut rejects)
            .map_err(in_file)?;
        rejects.sort_by_key(|reject| reject.row);
    }
    statistics.add_features(plan, &read.given, &read.unknown, &served);
    statistics.add_notes(plan, &read.notes);
    Ok(Scored {
        rows: chunk.rows as u64,
        end: chunk.end,
        batch: output,
        rejects,
        statistics,
    })
}

/// The columns of a table as those of the view.
struct Read {
    keys: Vec<ArrayRef>,
    /// By column of the view.
    given: Vec<Option<ArrayRef>>,
    /// By column of the view: how many values are not among the declared ones.
    unknown: Vec<u64>,
    /// By column of the view: what else there is to say of values of the online store.
    notes: Vec<Notes>,
}

/// The columns of entities of the online store, which have been checked when they were stored.
fn from_store(plan: &Plan, given: Given, table: &Table) -> Result<Read, String> {
    let mut columns = given.columns;
    set_request_time(plan, table.rows, &mut columns)?;
    Ok(Read {
        keys: table.columns[..plan.view.key_columns().len()].to_vec(),
        given: columns,
        unknown: vec![0; plan.view.features().len()],
        notes: given.notes,
    })
}

/// Every row is scored at the time of the job.
fn set_request_time(
    plan: &Plan,
    rows: usize,
    given: &mut [Option<ArrayRef>],
) -> Result<(), String> {
    for (column, value) in &plan.request_time {
        let one = to_array(plan.view.features()[*column].kind, &[value]);
        let rows = UInt32Array::from(vec![0; rows]);
        let all = take(&one, &rows, None).map_err(|error| error.to_string())?;
        given[*column] = Some(all);
    }
    Ok(())
}

/// Reads the columns; the rows that do not fit are rejected in `table`.
fn read_table(plan: &Plan, binding: &Binding, table: &mut Table) -> Result<Read, String> {
    let columns = table.columns.clone();
    let (key_columns, feature_columns) = columns.split_at(binding.keys.len());
    let mut keys = Vec::with_capacity(key_columns.len());
    for (array, column) in key_columns.iter().zip(&binding.keys) {
        let texts = cast(array, &DataType::Utf8)
            .map_err(|error| format!("column {}: {error}", column.name))?;
        if let Some(texts) = texts.as_string_opt::<i32>() {
            for row in 0..texts.len() {
                let problem = if texts.is_null(row) || texts.value(row).is_empty() {
                    "missing"
                } else if texts.value(row).contains(KEY_SEPARATOR) {
                    "holds control characters"
                } else {
                    continue;
                };
                table.reject(row, &column.name, format!("{}: {problem}", column.name));
            }
        }
        keys.push(texts);
    }
    let features = plan.view.features();
    let mut given: Vec<Option<ArrayRef>> = vec![None; features.len()];
    let mut unknown = vec![0; features.len()];
    set_request_time(plan, table.rows, &mut given)?;
    for (array, (feature, column)) in feature_columns.iter().zip(&binding.features) {
        let is_typed = table.is_typed;
        let reject = |row, reason| table.reject(row, &column.name, reason);
        let read = cells::read(array, &features[*feature], is_typed, reject);
        let (array, count) = read.map_err(|error| format!("column {}: {error}", column.name))?;
        given[*feature] = Some(array);
        unknown[*feature] = count;
    }
    Ok(Read {
        keys,
        given,
        unknown,
        notes: Vec::new(),
    })
}

/// The answers of one version.
#[derive(Debug)]
pub struct Answer {
    pub picked: Picked,
    reasons: Option<Vec<Option<String>>>,
}

/// Runs one version over the rows of `batch`; those that it refuses are rejected in `table`.
fn run(
    plan: &Plan,
    version: &ModelVersion,
    batch: &RecordBatch,
    tensors: &mut InputTensors,
    table: &mut Table,
) -> Result<Answer, String> {
    let scoring = scoring_of(version)?;
    let rows = batch.num_rows();
    let mut answer = Answer {
        picked: Picked {
            scores: Vec::with_capacity(rows),
            choices: Vec::with_capacity(rows),
        },
        reasons: plan.explain.map(|_| Vec::with_capacity(rows)),
    };
    let called = || format!("model {} version {}", version.name, version.version);
    let column = format!("{}_score", version.name);
    // Ranges that are still to be scored, the first on top.
    let mut ranges = vec![(0, rows)];
    while let Some((start, length)) = ranges.pop() {
        if length == 0 {
            continue;
        }
        let slice = batch.slice(start, length);
        let mut of_slice = InputTensors::default();
        let tensors = match length == rows {
            true => &mut *tensors,
            false => &mut of_slice,
        };
        match scoring.score_table(&version.graph, &slice, tensors) {
            Ok(picked) => {
                for (offset, score) in picked.scores.iter().enumerate() {
                    if !score.is_finite() {
                        let reason = format!("{}: the score is {score}, not a number", called());
                        table.reject(start + offset, &column, reason);
                    }
                }
                if let (Some(limit), Some(reasons)) = (plan.explain, &mut answer.reasons) {
                    for row in 0..length {
                        match reasons_of(scoring, version, &slice.slice(row, 1), limit) {
                            Ok(found) => reasons.push(found),
                            Err(problem) => {
                                reasons.push(None);
                                let reason = format!("{}: {problem}", called());
                                table.reject(start + row, &column, reason);
                            }
                        }
                    }
                }
                answer.picked.scores.extend(picked.scores);
                answer.picked.choices.extend(picked.choices);
            }
            Err(_) if length > 1 => {
                let half = length / 2;
                ranges.push((start + half, length - half));
                ranges.push((start, half));
            }
            Err(problem) => {
                table.reject(start, &column, format!("{}: {problem}", called()));
                answer.picked.scores.push(f64::NAN);
                answer.picked.choices.push(None);
                answer
                    .reasons
                    .iter_mut()
                    .for_each(|reasons| reasons.push(None));
            }
        }
    }
    Ok(answer)
}

/// The reasons for the score of one row, as `/v1/score` gives them.
fn reasons_of(
    scoring: &Scoring,
    version: &ModelVersion,
    row: &RecordBatch,
    limit: usize,
) -> Result<Option<String>, String> {
    let scored = scoring.score(&version.graph, row)?;
    let Some(scored) = scored.first() else {
        return Ok(None);
    };
    let reasons = explain(scoring, &version.graph, row.columns(), scored, limit)?;
    Ok(reasons.map(|reasons| reasons_json(&reasons)))
}

fn reasons_json(reasons: &Reasons) -> String {
    let contributions = reasons.contributions.iter().map(|reason| {
        json!({
            "feature": reason.feature,
            "value": reason.value.to_json(),
            "contribution": reason.contribution,
        })
    });
    json!({
        "base": reasons.base,
        "contributions": contributions.collect::<Vec<_>>(),
        "other": reasons.other,
    })
    .to_string()
}

fn answer_columns(
    plan: &Plan,
    version: &ModelVersion,
    scoring: &Scoring,
    answer: &Answer,
    rows: usize,
) -> Vec<ArrayRef> {
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Float64Array::from(answer.picked.scores.clone()))];
    if has_label(scoring) {
        let labels: Vec<&str> = scoring.labels().collect();
        let choices = answer.picked.choices.iter();
        let texts = choices.map(|choice| choice.and_then(|choice| labels.get(choice)).copied());
        columns.push(Arc::new(texts.collect::<StringArray>()));
    }
    columns.push(Arc::new(StringArray::new_repeated(&version.version, rows)));
    if plan.explain.is_some() {
        let none = vec![None; rows];
        let reasons = answer.reasons.as_ref().unwrap_or(&none);
        columns.push(Arc::new(
            reasons
                .iter()
                .map(Option::as_deref)
                .collect::<StringArray>(),
        ));
    }
    columns
}

/// How many rows of an assembled column have no value, or one that is out of the feature's range.
pub fn count_problems(array: &ArrayRef, feature: &Feature) -> (u64, u64) {
    let missing = array.null_count() as u64;
    if !feature.has_range() {
        return (missing, 0);
    }
    let is_out = |row: &usize| feature.is_out_of_range(&value_at(array, *row));
    let out_of_range = (0..array.len()).filter(is_out).count() as u64;
    (missing, out_of_range)
}
