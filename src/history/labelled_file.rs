//! A training set as a file: the labelled predictions of a model, Parquet or CSV.
//!
//! One row per prediction that is old enough to have a label, in the order in which the ledgers
//! are read:
//!
//! | column | what it is |
//! |---|---|
//! | `prediction_id`, `customer_id` | as answered |
//! | `at` | when the prediction was made, UTC |
//! | `model_version`, `served_score` | which version said what |
//! | `label` | 1 when it came true, else 0 |
//! | `outcome_at` | when the outcome happened that decided; null when nothing happened |
//! | every feature of the view | the value as served; null also when it was not served |
//!
//! A feature with the name of one of the other columns gets `feature.` before its name. The file
//! is written under a temporary name and gets its own when it is whole. One batch of rows is in
//! memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::csv::writer::Writer as CsvWriter;
use arrow::csv::writer::WriterBuilder as CsvWriterBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

use super::labelled::{LabelCounts, LabelledPrediction, Question, read_labelled};
use super::outcomes::LabelRule;
use super::served::ServedRows;
use crate::features::view::View;

/// The columns before the features.
const COLUMNS: [&str; 7] = [
    "prediction_id",
    "customer_id",
    "at",
    "model_version",
    "served_score",
    "label",
    "outcome_at",
];

/// What a training set is written as, by the end of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    Parquet,
    Csv,
}

impl FileFormat {
    /// # Errors
    /// The name ends otherwise.
    pub fn of(file: &Path) -> Result<FileFormat, String> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => Ok(FileFormat::Parquet),
            Some("csv") => Ok(FileFormat::Csv),
            _ => Err(format!(
                "--output {}: expected a name that ends in .parquet or .csv",
                file.display()
            )),
        }
    }
}

/// Writes the labelled predictions that `question` asks for to `file`, which is replaced.
///
/// # Errors
/// What [`read_labelled`] says, or the file cannot be written; nothing is left of it then.
pub fn write_labelled(
    question: &Question,
    rule: &LabelRule,
    view: &Arc<View>,
    file: &Path,
) -> Result<LabelCounts, String> {
    let format = FileFormat::of(file)?;
    let schema = schema(view);
    let mut output = Output::create(file, format, &schema)?;
    let mut rows = Rows::new(view);
    let counts = read_labelled(question, rule, |labelled| {
        rows.push(labelled);
        match rows.served.is_full() {
            true => output.write(&rows.take_batch(&schema)?),
            false => Ok(()),
        }
    })?;
    // Also when there are none: an empty file has its columns.
    output.write(&rows.take_batch(&schema)?)?;
    output.publish(file)?;
    Ok(counts)
}

fn schema(view: &View) -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let kinds = [
        DataType::Utf8,
        DataType::Utf8,
        time(),
        DataType::Utf8,
        DataType::Float64,
        DataType::Int64,
        time(),
    ];
    let own = COLUMNS.iter().zip(kinds);
    let own = own.map(|(name, kind)| Field::new(*name, kind, *name == "outcome_at"));
    let features = view.features().iter().map(|feature| {
        let name = if COLUMNS.contains(&feature.name.as_str()) {
            format!("feature.{}", feature.name)
        } else {
            feature.name.clone()
        };
        Field::new(name, feature.kind.arrow(), true)
    });
    Arc::new(Schema::new(own.chain(features).collect::<Vec<_>>()))
}

/// Rows that wait to be written.
struct Rows {
    prediction_ids: Vec<String>,
    customer_ids: Vec<String>,
    at_us: Vec<i64>,
    versions: Vec<String>,
    scores: Vec<f64>,
    labels: Vec<i64>,
    outcome_at_us: Vec<Option<i64>>,
    served: ServedRows,
}

impl Rows {
    fn new(view: &Arc<View>) -> Rows {
        Rows {
            prediction_ids: Vec::new(),
            customer_ids: Vec::new(),
            at_us: Vec::new(),
            versions: Vec::new(),
            scores: Vec::new(),
            labels: Vec::new(),
            outcome_at_us: Vec::new(),
            served: ServedRows::new(view),
        }
    }

    fn push(&mut self, labelled: &LabelledPrediction<'_>) {
        let prediction = labelled.prediction;
        let id = Uuid::from_slice(&prediction.prediction_id).unwrap_or_default();
        self.prediction_ids.push(id.to_string());
        self.customer_ids.push(prediction.customer_id.clone());
        self.at_us.push(prediction.at_us);
        self.versions.push(labelled.score.version.clone());
        self.scores.push(labelled.score.score);
        self.labels.push(i64::from(labelled.label.is_positive()));
        self.outcome_at_us.push(labelled.label.decided_at_us());
        self.served.push(prediction);
    }

    fn take_batch(&mut self, schema: &SchemaRef) -> Result<RecordBatch, String> {
        use std::mem::take;
        let at = TimestampMicrosecondArray::from(take(&mut self.at_us));
        let outcome_at = TimestampMicrosecondArray::from(take(&mut self.outcome_at_us));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(take(&mut self.prediction_ids))),
            Arc::new(StringArray::from(take(&mut self.customer_ids))),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(StringArray::from(take(&mut self.versions))),
            Arc::new(Float64Array::from(take(&mut self.scores))),
            Arc::new(Int64Array::from(take(&mut self.labels))),
            Arc::new(outcome_at.with_timezone("UTC")),
        ];
        let served = self.served.take_batch();
        columns.extend_from_slice(served.map_err(|error| error.to_string())?.columns());
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| error.to_string())
    }
}

/// The file under its temporary name; removed unless it is published.
struct Output {
    temporary: PathBuf,
    writer: Option<Writer>,
}

enum Writer {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<CsvWriter<File>>),
}

impl Output {
    fn create(file: &Path, format: FileFormat, schema: &SchemaRef) -> Result<Output, String> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let temporary = file.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let problem =
            |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
        let handle = File::create(&temporary).map_err(|error| problem(&error))?;
        let mut output = Output {
            temporary,
            writer: None,
        };
        output.writer = Some(match format {
            FileFormat::Csv => {
                let writer = CsvWriterBuilder::new().with_header(true).build(handle);
                Writer::Csv(Box::new(writer))
            }
            FileFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let writer = ArrowWriter::try_new(handle, Arc::clone(schema), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|error| problem(&error))?))
            }
        });
        Ok(output)
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let written = match &mut self.writer {
            Some(Writer::Parquet(writer)) => writer.write(batch).map_err(|error| error.to_string()),
            Some(Writer::Csv(writer)) => writer.write(batch).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        written.map_err(|error| format!("cannot write {}: {error}", self.temporary.display()))
    }

    fn publish(mut self, file: &Path) -> Result<(), String> {
        let problem =
            |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
        let handle = match self.writer.take() {
            Some(Writer::Parquet(writer)) => {
                writer.into_inner().map_err(|error| problem(&error))?
            }
            Some(Writer::Csv(writer)) => writer.into_inner(),
            None => return Ok(()),
        };
        handle.sync_all().map_err(|error| problem(&error))?;
        std::fs::rename(&self.temporary, file).map_err(|error| problem(&error))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // There is nothing to remove once it has its name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_named_like_another_column_gets_a_name_of_its_own() {
        let feature = |name: &str| format!("[[feature]]\nname = \"{name}\"\ntype = \"int64\"\n");
        let features = [feature("label"), feature("tenure")].concat();
        let text = format!("[view]\nname = \"v\"\nentity = \"id\"\n{features}");
        let schema = schema(&View::parse(&text).unwrap());
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names[..COLUMNS.len()], COLUMNS);
        assert_eq!(names[COLUMNS.len()..], ["feature.label", "tenure"]);
    }

    #[test]
    fn a_file_that_is_neither_parquet_nor_csv_is_refused() {
        assert_eq!(
            FileFormat::of(Path::new("a/b.parquet")),
            Ok(FileFormat::Parquet)
        );
        assert_eq!(FileFormat::of(Path::new("b.csv")), Ok(FileFormat::Csv));
        for name in ["b", "b.json", ".csv", "b.CSV"] {
            let problem = FileFormat::of(Path::new(name)).unwrap_err();
            assert!(problem.contains(".parquet or .csv"), "{problem}");
        }
    }
}
