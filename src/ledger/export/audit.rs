//! The columns of the exported tables `audit` and `shadow_scores`.
//!
//! `audit`, one row per administrative act: `audit_id`, `at`, `actor`, `action`, `subject`, `reason`,
//! `outcome` and `details` (a JSON object, or null).
//!
//! `shadow_scores`, one row per score of a version in shadow: `prediction_id` (that of the answer),
//! `at`, `customer_id`, `model`, `version`, `digest` (hexadecimal), `score` (null when it failed),
//! `label`, `problem`, `micros`, `served_version`, `served_score`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::rows::{BATCH_ROWS, text, time, uuid_text};
use crate::ledger::audit::Audit;
use crate::ledger::shadow::ShadowScore;
use crate::models::version::hexadecimal;

/// Gathers rows of the table `audit`.
#[derive(Default)]
pub struct AuditRows {
    at: TimestampMicrosecondBuilder,
    /// audit_id, actor, action, subject, reason, outcome, details.
    texts: [StringBuilder; 7],
    rows: usize,
}

impl AuditRows {
    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("audit_id", false),
            time("at"),
            text("actor", false),
            text("action", false),
            text("subject", false),
            text("reason", false),
            text("outcome", false),
            text("details", true),
        ]))
    }

    /// Adds a row.
    pub fn push(&mut self, audit: &Audit) {
        let details = (!audit.details.is_empty()).then_some(audit.details.as_str());
        let id = uuid_text(&audit.audit_id);
        let values = [
            Some(id.as_str()),
            Some(&audit.actor),
            Some(&audit.action),
            Some(&audit.subject),
            Some(&audit.reason),
            Some(&audit.outcome),
            details,
        ];
        for (column, value) in self.texts.iter_mut().zip(values) {
            column.append_option(value);
        }
        self.at.append_value(audit.at_us);
        self.rows += 1;
    }

    /// Whether it is time to take the batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let texts = self.texts.iter_mut();
        let mut columns: Vec<ArrayRef> = texts
            .map(|column| Arc::new(column.finish()) as ArrayRef)
            .collect();
        columns.insert(1, Arc::new(self.at.finish().with_timezone("UTC")));
        RecordBatch::try_new(Self::schema(), columns)
    }
}

/// Gathers rows of the table `shadow_scores`.
#[derive(Default)]
pub struct ShadowRows {
    at: TimestampMicrosecondBuilder,
    /// prediction_id, customer_id, model, version, digest, label, problem, served_version.
    texts: [StringBuilder; 8],
    score: Float64Builder,
    micros: UInt64Builder,
    served_score: Float64Builder,
    rows: usize,
}

impl ShadowRows {
    /// The columns, in order.
    pub fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("prediction_id", false),
            text("customer_id", false),
            text("model", false),
            text("version", false),
            text("digest", false),
            text("label", true),
            text("problem", true),
            text("served_version", false),
            time("at"),
            Field::new("score", DataType::Float64, true),
            Field::new("micros", DataType::UInt64, false),
            Field::new("served_score", DataType::Float64, false),
        ]))
    }

    /// Adds a row.
    pub fn push(&mut self, row: &ShadowScore) {
        let id = uuid_text(&row.prediction_id);
        let digest = hexadecimal(&row.digest);
        let values = [
            Some(id.as_str()),
            Some(&row.customer_id),
            Some(&row.model),
            Some(&row.version),
            Some(&digest),
            row.label.as_deref(),
            row.problem.as_deref(),
            Some(&row.served_version),
        ];
        for (column, value) in self.texts.iter_mut().zip(values) {
            column.append_option(value);
        }
        self.at.append_value(row.at_us);
        self.score.append_option(row.score);
        self.micros.append_value(row.micros);
        self.served_score.append_value(row.served_score);
        self.rows += 1;
    }

    /// Whether it is time to take the batch.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS
    }

    /// The rows so far as a batch; none are left here.
    pub fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let texts = self.texts.iter_mut();
        let mut columns: Vec<ArrayRef> = texts
            .map(|column| Arc::new(column.finish()) as ArrayRef)
            .collect();
        let numbers: [ArrayRef; 4] = [
            Arc::new(self.at.finish().with_timezone("UTC")),
            Arc::new(self.score.finish()),
            Arc::new(self.micros.finish()),
            Arc::new(self.served_score.finish()),
        ];
        columns.extend(numbers);
        RecordBatch::try_new(Self::schema(), columns)
    }
}
