//! The answer: a line of JSON for each row, or Arrow batches.
//!
//! A line is what `/v1/score` answers for that customer. A batch has a row for every row of the request, in
//! their order; the columns are those of the models that were there when the request began.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::score::{render, render_reasons};
use crate::score::{CUSTOMER, Prediction, ScoreAnswer};

/// What became of one row.
pub struct Outcome {
    /// Absent when the row does not say.
    pub customer_id: Option<String>,
    pub told: Result<ScoreAnswer, String>,
}

/// A row that was not scored, or, without `row`, what ended the answers.
#[derive(Serialize, ToSchema)]
pub struct ErrorLine<'a> {
    /// Its number among the rows of the body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<&'a str>,
    /// The field, what was found and what was expected.
    pub error: &'a str,
}

/// Writes answers in the form that was asked for.
pub enum Writer {
    Ndjson,
    Arrow(Box<ArrowWriter>),
}

/// Writes an Arrow stream.
pub struct ArrowWriter {
    stream: StreamWriter<Vec<u8>>,
    schema: SchemaRef,
    models: Vec<String>,
    is_explained: bool,
}

impl Writer {
    /// An Arrow stream with the answers of `models`.
    ///
    /// # Errors
    /// Two columns of one name, and when the schema cannot be written.
    pub fn arrow(models: &[String], is_explained: bool) -> Result<Writer, String> {
        let schema = schema(models, is_explained)?;
        let stream = StreamWriter::try_new(Vec::new(), &schema);
        Ok(Writer::Arrow(Box::new(ArrowWriter {
            stream: stream.map_err(|error| error.to_string())?,
            schema,
            models: models.to_vec(),
            is_explained,
        })))
    }

    /// The bytes of the answers for some rows, of which the first has the number `first`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, first: u64, outcomes: Vec<Outcome>) -> Result<Vec<u8>, String> {
        match self {
            Writer::Ndjson => lines(first, outcomes).map_err(|error| error.to_string()),
            Writer::Arrow(writer) => writer.write(&outcomes).map_err(|error| error.to_string()),
        }
    }

    /// The bytes that say that this was all.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn end(&mut self) -> Result<Vec<u8>, String> {
        match self {
            Writer::Ndjson => Ok(Vec::new()),
            Writer::Arrow(writer) => {
                let finished = writer.stream.finish();
                finished.map_err(|error| error.to_string())?;
                Ok(std::mem::take(writer.stream.get_mut()))
            }
        }
    }

    /// The bytes that say why there is no more; none where that cannot be said.
    pub fn break_off(&self, error: &str) -> Option<Vec<u8>> {
        let line = ErrorLine {
            row: None,
            customer_id: None,
            error,
        };
        match self {
            Writer::Ndjson => {
                let mut bytes = serde_json::to_vec(&line).ok()?;
                bytes.push(b'\n');
                Some(bytes)
            }
            Writer::Arrow(_) => None,
        }
    }
}

fn lines(first: u64, outcomes: Vec<Outcome>) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(outcomes.len() * 256);
    for (row, outcome) in (first..).zip(outcomes) {
        match outcome.told {
            Ok(answer) => {
                let customer_id = outcome.customer_id.unwrap_or_default();
                serde_json::to_writer(&mut bytes, &render(customer_id, answer))?;
            }
            Err(error) => {
                let line = ErrorLine {
                    row: Some(row),
                    customer_id: outcome.customer_id.as_deref(),
                    error: &error,
                };
                serde_json::to_writer(&mut bytes, &line)?;
            }
        }
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn schema(models: &[String], is_explained: bool) -> Result<SchemaRef, String> {
    let text = |name: String| Field::new(name, DataType::Utf8, true);
    let mut fields = vec![text(CUSTOMER.to_owned()), text("prediction_id".to_owned())];
    for model in models {
        fields.push(Field::new(
            format!("{model}_score"),
            DataType::Float64,
            true,
        ));
        fields.push(text(format!("{model}_label")));
        fields.push(text(format!("{model}_version")));
        if is_explained {
            fields.push(text(format!("{model}_reasons")));
        }
    }
    fields.push(text("error".to_owned()));
    for (index, field) in fields.iter().enumerate() {
        let name = field.name();
        if fields[..index].iter().any(|other| other.name() == name) {
            return Err(format!(
                "models: two columns of the answer would be called {name}; ask for these models one \
                 after the other, or for NDJSON"
            ));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

impl ArrowWriter {
    fn write(&mut self, outcomes: &[Outcome]) -> Result<Vec<u8>, ArrowError> {
        if !outcomes.is_empty() {
            let batch = self.batch(outcomes)?;
            self.stream.write(&batch)?;
        }
        Ok(std::mem::take(self.stream.get_mut()))
    }

    fn batch(&self, outcomes: &[Outcome]) -> Result<RecordBatch, ArrowError> {
        let answers: Vec<Option<&ScoreAnswer>> = outcomes
            .iter()
            .map(|outcome| outcome.told.as_ref().ok())
            .collect();
        let texts = |texts: &mut dyn Iterator<Item = Option<String>>| -> ArrayRef {
            Arc::new(texts.collect::<StringArray>())
        };
        let customers = outcomes
            .iter()
            .map(|outcome| outcome.customer_id.as_deref());
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(customers.collect::<StringArray>()),
            texts(
                &mut answers
                    .iter()
                    .map(|a| Some((*a)?.prediction_id.to_string())),
            ),
        ];
        for model in &self.models {
            let predictions: Vec<Option<&Prediction>> = answers
                .iter()
                .map(|answer| {
                    let mut predictions = (*answer)?.predictions.iter();
                    predictions.find(|prediction| prediction.version.name == *model)
                })
                .collect();
            let scores = predictions.iter().map(|p| Some((*p)?.scored.score));
            columns.push(Arc::new(scores.collect::<Float64Array>()));
            let labels = predictions.iter().map(|p| (*p)?.scored.label.as_deref());
            columns.push(Arc::new(labels.collect::<StringArray>()));
            let versions = predictions
                .iter()
                .map(|p| Some((*p)?.version.version.as_str()));
            columns.push(Arc::new(versions.collect::<StringArray>()));
            if self.is_explained {
                let mut reasons = predictions.iter().map(|prediction| {
                    let reasons = (*prediction)?.reasons.clone()?;
                    serde_json::to_string(&render_reasons(reasons)).ok()
                });
                columns.push(texts(&mut reasons));
            }
        }
        let errors = outcomes.iter().map(|outcome| outcome.told.as_ref().err());
        columns.push(Arc::new(errors.collect::<StringArray>()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_an_answer_have_names_of_their_own() {
        let names = |models: &[&str], is_explained| {
            let models: Vec<String> = models.iter().map(|name| (*name).to_owned()).collect();
            let schema = schema(&models, is_explained)?;
            let fields = schema.fields().iter().map(|field| field.name().clone());
            Ok::<_, String>(fields.collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["churn"], true).unwrap(),
            [
                "customer_id",
                "prediction_id",
                "churn_score",
                "churn_label",
                "churn_version",
                "churn_reasons",
                "error"
            ]
        );
        assert!(names(&["a", "a"], false).unwrap_err().contains("a_score"));
    }

    #[test]
    fn rows_without_an_answer_say_why() {
        let outcome = |customer_id: Option<&str>| Outcome {
            customer_id: customer_id.map(str::to_owned),
            told: Err("no such customer".to_owned()),
        };
        let bytes = Writer::Ndjson.write(7, vec![outcome(Some("a")), outcome(None)]);
        let text = String::from_utf8(bytes.unwrap()).unwrap();
        assert_eq!(
            text,
            "{\"row\":7,\"customer_id\":\"a\",\"error\":\"no such customer\"}\n\
             {\"row\":8,\"error\":\"no such customer\"}\n"
        );
        let last = Writer::Ndjson.break_off("it broke").unwrap();
        assert_eq!(last, b"{\"error\":\"it broke\"}\n");
    }
}
