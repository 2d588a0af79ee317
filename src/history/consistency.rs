//! Consistency measured: values that were served, recomputed from the log and compared.
//!
//! A prediction in the ledger holds the values as served and the number of the last change that the
//! online store had applied to the entity. Folding the entity's changes up to that number again and
//! assembling as of the prediction's time must give the same values, bit for bit. Where it does not,
//! the online store and the log disagree, or the view has changed since. What came with the request
//! and what was read from related entities is taken as it was served.
//!
//! Memory: the sample, and what the plan is bounded to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::stream;

use super::as_of::{self, Columns, History, Taken, snapshots_of};
use super::error::HistoryError;
use super::log::{ChangeLog, Order};
use super::plan::{Bounds, run, sorted, streamed};
use super::recompute::{Row, recompute};
use crate::features::column::value_at;
use crate::features::value::Value;
use crate::features::view::View;
use crate::features::views::Views;
use crate::ledger::{Feature, FeatureSource, FeatureValue, Prediction};

/// A check of a sample of predictions.
#[derive(Clone, Debug)]
pub struct Consistency {
    pub data_dir: PathBuf,
    pub views: Views,
    /// How many predictions at most.
    pub sample: usize,
    /// Only of predictions made at this time or later, microseconds since the Unix epoch.
    pub since_us: i64,
    pub bounds: Bounds,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ConsistencyReport {
    /// Predictions that were recomputed.
    pub predictions: u64,
    /// Of these, with at least one value that differs.
    pub mismatched_predictions: u64,
    /// Values that were compared, and of these, that differ.
    pub values: u64,
    pub mismatched_values: u64,
    /// `mismatched_values / values`; 0 when nothing was compared.
    pub mismatch_rate: f64,
    /// Predictions that cannot be recomputed: without the number of a change, or of a view that is not
    /// declared any more.
    pub passed_over: u64,
    /// Predictions served under another version of their view file.
    pub other_view_version: u64,
    /// By view and feature, sorted.
    pub features: Vec<FeatureConsistency>,
}

/// How one feature fared.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct FeatureConsistency {
    pub view: String,
    pub feature: String,
    pub values: u64,
    pub mismatched: u64,
    /// The largest difference between numbers, and the largest relative to what was served.
    pub max_absolute_error: f64,
    pub max_relative_error: f64,
}

impl Consistency {
    /// Takes a sample of the predictions in the ledger and recomputes it. Blocks until it is done.
    ///
    /// # Errors
    /// When the ledger cannot be read, or the plan not be run within its bounds.
    pub fn check(&self) -> Result<ConsistencyReport, HistoryError> {
        let sample = self.take_sample()?;
        let mut report = ConsistencyReport::default();
        let mut by_view: BTreeMap<&str, Vec<&Prediction>> = BTreeMap::new();
        for prediction in &sample {
            if prediction.applied.is_none() || self.views.get(&prediction.view).is_none() {
                report.passed_over += 1;
                continue;
            }
            by_view
                .entry(&prediction.view)
                .or_default()
                .push(prediction);
        }
        let mut features = BTreeMap::new();
        for (name, predictions) in by_view {
            if let Some(view) = self.views.get(name) {
                self.check_view(view, &predictions, &mut report, &mut features)?;
            }
        }
        report.features = features.into_values().collect();
        if report.values > 0 {
            report.mismatch_rate = report.mismatched_values as f64 / report.values as f64;
        }
        Ok(report)
    }

    /// Each prediction of the ledger with the same chance.
    fn take_sample(&self) -> Result<Vec<Prediction>, HistoryError> {
        let mut sample: Vec<Prediction> = Vec::new();
        let mut seen = 0_usize;
        crate::ledger::read_predictions(&self.data_dir, |prediction| {
            if prediction.at_us < self.since_us {
                return Ok(());
            }
            seen += 1;
            if sample.len() < self.sample {
                sample.push(prediction);
            } else {
                let place = fastrand::usize(..seen);
                if let Some(replaced) = sample.get_mut(place) {
                    *replaced = prediction;
                }
            }
            Ok(())
        })
        .map_err(HistoryError::Problem)?;
        Ok(sample)
    }

    fn check_view(
        &self,
        view: &Arc<View>,
        predictions: &[&Prediction],
        report: &mut ConsistencyReport,
        features: &mut BTreeMap<(String, String), FeatureConsistency>,
    ) -> Result<(), HistoryError> {
        let columns = Columns {
            key: "key",
            until: "applied",
            at: "at_us",
            snapshot: as_of::SEEN,
        };
        let log = ChangeLog::Directories(vec![self.data_dir.clone()]);
        let history = History {
            log: &log,
            order: Order::Applied,
            taken: Taken::Snapshot,
        };
        let joined = as_of::join(history, view, sample_table(predictions)?, columns)?;
        let in_order = sorted(joined.plan, &["row"])?;
        let mut next = predictions.iter();
        run(&in_order, &self.bounds, |batch| {
            let seen = snapshots_of(&batch, as_of::SEEN)?;
            let mut rows = Vec::with_capacity(seen.len());
            let mut served = Vec::with_capacity(seen.len());
            let mut wanted = vec![false; view.features().len()];
            for (seen, prediction) in seen.into_iter().zip(next.by_ref()) {
                let mut row = Row {
                    key: prediction.customer_id.clone(),
                    seen,
                    at_us: prediction.at_us,
                    ..Row::default()
                };
                for feature in &prediction.features {
                    let Some(column) = view.index_of(&feature.name) else {
                        continue;
                    };
                    wanted[column] = true;
                    if taken_as_served(view, feature) {
                        row.overrides.push((column, served_value(feature)));
                    }
                }
                rows.push(row);
                served.push(*prediction);
            }
            let recomputed = recompute(view, &rows, &[], &wanted)?;
            for (row, prediction) in served.into_iter().enumerate() {
                compare(view, prediction, &recomputed, row, report, features);
            }
            Ok(())
        })
    }
}

/// The predictions as observations: who, how far the store was, when.
fn sample_table(
    predictions: &[&Prediction],
) -> Result<Arc<dyn datafusion_physical_plan::ExecutionPlan>, HistoryError> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("row", DataType::UInt64, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("applied", DataType::Int64, false),
        Field::new("at_us", DataType::Int64, false),
    ]));
    let keys = predictions.iter().map(|row| row.customer_id.as_str());
    let applied = predictions
        .iter()
        .map(|row| i64::try_from(row.applied.unwrap_or_default()).unwrap_or(i64::MAX));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(UInt64Array::from_iter_values(0..predictions.len() as u64)),
            Arc::new(StringArray::from_iter_values(keys)),
            Arc::new(Int64Array::from_iter_values(applied)),
            Arc::new(Int64Array::from_iter_values(
                predictions.iter().map(|row| row.at_us),
            )),
        ],
    );
    let batch = batch.map_err(|error| HistoryError::Plan(error.to_string()))?;
    streamed("predictions", Arc::clone(&schema), move |_| {
        let once = stream::once(std::future::ready(Ok(batch.clone())));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&schema),
            once,
        )))
    })
}

fn compare(
    view: &View,
    prediction: &Prediction,
    recomputed: &RecordBatch,
    row: usize,
    report: &mut ConsistencyReport,
    features: &mut BTreeMap<(String, String), FeatureConsistency>,
) {
    report.predictions += 1;
    if prediction.view_digest != view.digest.as_slice() {
        report.other_view_version += 1;
    }
    let mut all_equal = true;
    for feature in &prediction.features {
        if taken_as_served(view, feature) {
            continue;
        }
        let place = (view.name.clone(), feature.name.clone());
        let entry = features.entry(place).or_insert_with(|| FeatureConsistency {
            view: view.name.clone(),
            feature: feature.name.clone(),
            ..FeatureConsistency::default()
        });
        let served = served_value(feature);
        // A feature that is not declared any more has no value now.
        let again = view
            .index_of(&feature.name)
            .map(|column| value_at(recomputed.column(column), row));
        entry.values += 1;
        report.values += 1;
        if again.as_ref().is_some_and(|again| same(again, &served)) {
            continue;
        }
        all_equal = false;
        entry.mismatched += 1;
        report.mismatched_values += 1;
        let (again, served) = (again.as_ref().and_then(number), number(&served));
        if let (Some(again), Some(served)) = (again, served) {
            let error = (again - served).abs();
            entry.max_absolute_error = entry.max_absolute_error.max(error);
            let relative = error / served.abs().max(f64::MIN_POSITIVE);
            entry.max_relative_error = entry.max_relative_error.max(relative);
        }
    }
    if !all_equal {
        report.mismatched_predictions += 1;
    }
}

/// Whether a value is not recomputed but what others are computed from: what came with the request,
/// and what was read from a related entity, of which the ledger does not say how far it was.
fn taken_as_served(view: &View, feature: &Feature) -> bool {
    let column = view.index_of(&feature.name);
    feature.source == FeatureSource::Override as i32
        || column.is_some_and(|column| {
            view.request_columns().contains(&column) || view.related_columns().contains(&column)
        })
}

fn served_value(feature: &Feature) -> Value {
    match &feature.value {
        None => Value::Null,
        Some(FeatureValue::Bool(flag)) => Value::Bool(*flag),
        Some(FeatureValue::Int64(integer)) => Value::Int64(*integer),
        Some(FeatureValue::Float64(float)) => Value::Float64(*float),
        Some(FeatureValue::String(text)) => Value::String(text.clone()),
    }
}

/// Equal, bit for bit; all that are not a number are one.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Float64(left), Value::Float64(right)) => {
            left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan())
        }
        (left, right) => left == right,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int64(integer) => Some(*integer as f64),
        Value::Float64(float) => Some(*float),
        _ => None,
    }
}
