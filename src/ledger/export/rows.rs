//! The columns of the exported tables: records in, Arrow record batches out.
//!
//! `predictions`, one row per prediction and model (one with null model columns for a prediction
//! without scores):
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `prediction_id` | string | UUID |
//! | `customer_id` | string | key of the scored entity |
//! | `at` | timestamp (µs, UTC) | when it was scored |
//! | `view`, `view_digest` | string | feature view and the digest of its definition (hexadecimal) |
//! | `model`, `version`, `model_digest` | string | what answered, and the digest of the model file (hexadecimal) |
//! | `score` | float64 | as answered |
//! | `label` | string or null | as answered |
//! | `log_odds` | float64 or null | the raw score that the reasons add up to |
//! | `features` | string | JSON object: feature to value as served; NaN and infinities are the strings `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `features_as_of` | string | JSON object: feature to time (RFC 3339), for stored values |
//! | `features_source` | string | JSON object: feature to `stored`, `override`, `default`, `derived` or `missing` |
//! | `reasons` | string or null | JSON object as answered: `base`, `contributions`, `other` |
//!
//! `inferences` is in [`super::inferences`].
//!
//! `outcomes`, one row per outcome: `outcome_id`, `prediction_id` (or null), `customer_id` (or
//! null), `outcome`, `value` (float64 or null), `occurred_at` and `received_at` (timestamps, µs,
//! UTC).

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::ledger::record::{FeatureSource, FeatureValue, Outcome, Prediction, Reasons};
use crate::ledger::verify::rfc3339;
use crate::models::version::hexadecimal;

/// Rows of one batch.
pub(super) const BATCH_ROWS: usize = 8192;
/// Bytes of JSON after which a batch ends early.
pub(super) const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Gathers rows of the table `predictions`.
#[derive(Default)]
pub struct PredictionRows {
    prediction_id: StringBuilder,
    customer_id: StringBuilder,
    at: TimestampMicrosecondBuilder,
    view: StringBuilder,
    view_digest: StringBuilder,
    model: StringBuilder,
    version: StringBuilder,
    model_digest: StringBuilder,
    score: Float64Builder,
    label: StringBuilder,
    log_odds: Float64Builder,
    features: StringBuilder,
    features_as_of: StringBuilder,
    features_source: StringBuilder,
    reasons: StringBuilder,
    rows: usize,
    json_bytes: usize,
}

impl PredictionRows {
    /// No rows.
    pub fn new() -> PredictionRows {
        PredictionRows::default()
    }

    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("prediction_id", false),
            text("customer_id", false),
            time("at"),
            text("view", false),
            text("view_digest", false),
            text("model", true),
            text("version", true),
            text("model_digest", true),
            Field::new("score", DataType::Float64, true),
            text("label", true),
            Field::new("log_odds", DataType::Float64, true),
            text("features", false),
            text("features_as_of", false),
            text("features_source", false),
            text("reasons", true),
        ]))
    }

    /// Adds the rows of one prediction and returns their number. Calls `take_full` whenever the
    /// batch is full, so that a prediction of many models with long features cannot fill the
    /// memory.
    pub fn push<E>(
        &mut self,
        prediction: &Prediction,
        mut take_full: impl FnMut(&mut PredictionRows) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut values = Map::new();
        let mut times = Map::new();
        let mut sources = Map::new();
        for feature in &prediction.features {
            values.insert(feature.name.clone(), feature_json(feature.value.as_ref()));
            if let Some(as_of) = feature.as_of_us {
                times.insert(feature.name.clone(), json!(rfc3339(as_of)));
            }
            // A source that only a later version knows is null here.
            let source = FeatureSource::try_from(feature.source).ok();
            sources.insert(
                feature.name.clone(),
                json!(source.map(FeatureSource::as_word)),
            );
        }
        let features = Value::Object(values).to_string();
        let features_as_of = Value::Object(times).to_string();
        let features_source = Value::Object(sources).to_string();
        let prediction_id = uuid_text(&prediction.prediction_id);
        let view_digest = hexadecimal(&prediction.view_digest);

        let rows = prediction.scores.len().max(1);
        for row in 0..rows {
            self.prediction_id.append_value(&prediction_id);
            self.customer_id.append_value(&prediction.customer_id);
            self.at.append_value(prediction.at_us);
            self.view.append_value(&prediction.view);
            self.view_digest.append_value(&view_digest);
            let score = prediction.scores.get(row);
            self.model.append_option(score.map(|score| &score.model));
            self.version
                .append_option(score.map(|score| &score.version));
            self.model_digest
                .append_option(score.map(|score| hexadecimal(&score.digest)));
            self.score.append_option(score.map(|score| score.score));
            self.label
                .append_option(score.and_then(|score| score.label.as_ref()));
            self.log_odds
                .append_option(score.and_then(|score| score.log_odds));
            self.features.append_value(&features);
            self.features_as_of.append_value(&features_as_of);
            self.features_source.append_value(&features_source);
            let reasons = score
                .and_then(|score| score.reasons.as_ref())
                .map(reasons_json);
            self.json_bytes += features.len() + features_as_of.len() + features_source.len();
            self.json_bytes += reasons.as_ref().map_or(0, String::len);
            self.reasons.append_option(reasons);
            self.rows += 1;
            if self.is_full() {
                take_full(self)?;
            }
        }
        Ok(rows as u64)
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.json_bytes >= BATCH_BYTES
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.json_bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.prediction_id.finish()),
            Arc::new(self.customer_id.finish()),
            Arc::new(self.at.finish().with_timezone("UTC")),
            Arc::new(self.view.finish()),
            Arc::new(self.view_digest.finish()),
            Arc::new(self.model.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.model_digest.finish()),
            Arc::new(self.score.finish()),
            Arc::new(self.label.finish()),
            Arc::new(self.log_odds.finish()),
            Arc::new(self.features.finish()),
            Arc::new(self.features_as_of.finish()),
            Arc::new(self.features_source.finish()),
            Arc::new(self.reasons.finish()),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}

/// Gathers rows of the table `outcomes`.
#[derive(Default)]
pub struct OutcomeRows {
    outcome_id: StringBuilder,
    prediction_id: StringBuilder,
    customer_id: StringBuilder,
    outcome: StringBuilder,
    value: Float64Builder,
    occurred_at: TimestampMicrosecondBuilder,
    received_at: TimestampMicrosecondBuilder,
    rows: usize,
    text_bytes: usize,
}

impl OutcomeRows {
    /// No rows.
    pub fn new() -> OutcomeRows {
        OutcomeRows::default()
    }

    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("outcome_id", false),
            text("prediction_id", true),
            text("customer_id", true),
            text("outcome", false),
            Field::new("value", DataType::Float64, true),
            time("occurred_at"),
            time("received_at"),
        ]))
    }

    /// Adds one outcome.
    pub fn push(&mut self, outcome: &Outcome) {
        self.outcome_id.append_value(&outcome.outcome_id);
        self.prediction_id
            .append_option(outcome.prediction_id.as_ref().map(|id| uuid_text(id)));
        self.customer_id.append_option(outcome.customer_id.as_ref());
        self.outcome.append_value(&outcome.outcome);
        self.value.append_option(outcome.value);
        self.occurred_at.append_value(outcome.occurred_at_us);
        self.received_at.append_value(outcome.received_at_us);
        self.text_bytes += outcome.outcome_id.len() + outcome.outcome.len();
        self.text_bytes += outcome.customer_id.as_ref().map_or(0, String::len);
        self.rows += 1;
    }

    /// Whether it is time to take the batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.text_bytes >= BATCH_BYTES
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        self.text_bytes = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.outcome_id.finish()),
            Arc::new(self.prediction_id.finish()),
            Arc::new(self.customer_id.finish()),
            Arc::new(self.outcome.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.occurred_at.finish().with_timezone("UTC")),
            Arc::new(self.received_at.finish().with_timezone("UTC")),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }
}

pub(super) fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

pub(super) fn time(name: &str) -> Field {
    Field::new(
        name,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        false,
    )
}

fn feature_json(value: Option<&FeatureValue>) -> Value {
    match value {
        None => Value::Null,
        Some(FeatureValue::Bool(value)) => json!(value),
        Some(FeatureValue::Int64(value)) => json!(value),
        Some(FeatureValue::Float64(value)) => number_json(*value),
        Some(FeatureValue::String(value)) => json!(value),
    }
}

/// JSON has no NaN and no infinities; as strings they survive.
fn number_json(value: f64) -> Value {
    if value.is_nan() {
        return json!("NaN");
    }
    if value.is_infinite() {
        return json!(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    json!(value)
}

fn reasons_json(reasons: &Reasons) -> String {
    let mut contributions = Vec::with_capacity(reasons.contributions.len());
    for contribution in &reasons.contributions {
        contributions.push(json!({
            "feature": contribution.feature,
            "contribution": number_json(contribution.contribution),
        }));
    }
    json!({
        "base": number_json(reasons.base),
        "contributions": contributions,
        "other": number_json(reasons.other),
    })
    .to_string()
}

/// The usual text of a UUID; bytes of another length, which the ledger does not accept, as
/// hexadecimal.
pub(super) fn uuid_text(bytes: &[u8]) -> String {
    match Uuid::from_slice(bytes) {
        Ok(uuid) => uuid.to_string(),
        Err(_) => hexadecimal(bytes),
    }
}
