//! The scores of a job as features of the online store.
//!
//! What is to be written where is checked before anything is scored. It is written from the output, when that
//! is complete, as of the time of the job: a value that holds since later stays, and a job that was
//! interrupted here writes the same once more. Each batch goes through the log, as every change does.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::FileReader;
use serde::Serialize;

use super::Job;
use super::plan::Plan;
use super::store_access::{StoreAccess, Target};
use super::write::OutputFormat;
use crate::batch::push::{ColumnMap, RejectedRow, TimeColumns};
use crate::batch::push_remote;
use crate::batch::read::{BATCH_ROWS, Table};
use crate::clock;
use crate::features::value::{FeatureType, shorten};
use crate::features::view::{Role, View, suggestion};
use crate::store::entity::Applied;

/// How many entities that were refused an error names.
const SHOWN: usize = 3;

/// What is written where.
#[derive(Debug)]
pub struct ToStore {
    store: Arc<StoreAccess>,
    /// The feature, and the column of the output.
    columns: Vec<(String, String)>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stored {
    /// What the store is called.
    pub store: String,
    pub view: String,
    /// Feature, column of the output.
    pub features: BTreeMap<String, String>,
    pub entities: u64,
    /// As of when, RFC 3339.
    pub as_of: String,
}

impl Stored {
    /// It for people.
    pub fn line(&self) -> String {
        let features: Vec<&str> = self.features.keys().map(String::as_str).collect();
        format!(
            "{} of {} entities written to the store {}",
            features.join(", "),
            self.entities,
            self.store
        )
    }
}

/// What became of some entities.
#[derive(Default)]
struct Counts {
    written: u64,
    refused: u64,
    /// Why, of the first ones.
    reasons: Vec<String>,
}

impl Counts {
    fn refuse(&mut self, reason: String) {
        self.refused += 1;
        if self.reasons.len() < SHOWN {
            self.reasons.push(reason);
        }
    }
}

impl ToStore {
    /// What a job is to write, if anything.
    ///
    /// # Errors
    /// A feature that is not there or not fit, with what to declare; a column that the output does not have.
    pub fn of(job: &Job, plan: &Plan) -> Result<Option<ToStore>, String> {
        let (Some(named), Some(store)) = (&job.to_store, &job.store) else {
            return Ok(None);
        };
        store.target()?;
        let columns = columns_of(plan, named)?;
        let store = Arc::clone(store);
        Ok(Some(ToStore { store, columns }))
    }

    /// Writes the columns of the job's output, a file of `format`.
    ///
    /// # Errors
    /// Why it could not be written, or that entities were refused. The output stays as it is.
    pub fn write(&self, plan: &Plan, job: &Job, format: OutputFormat) -> Result<Stored, String> {
        let written = self.write_all(plan, &job.output, format);
        let written = written.map_err(|problem| {
            format!(
                "the scores are in {}, and were not all written to the store {}: {problem}; {}",
                job.output.display(),
                self.store.name(),
                job.how_to_do_the_rest()
            )
        })?;
        Ok(Stored {
            store: self.store.name().to_owned(),
            view: plan.view.name.clone(),
            features: self.columns.iter().cloned().collect(),
            entities: written,
            as_of: clock::to_rfc3339(plan.at_us),
        })
    }

    fn write_all(&self, plan: &Plan, output: &Path, format: OutputFormat) -> Result<u64, String> {
        let target = self.store.target()?;
        let mut counts = Counts::default();
        let mut rows = 0;
        let mut map = None;
        for batch in batches_of(output, format)? {
            let batch = self.as_features(&batch?, &plan.view)?;
            let map = match &map {
                Some(map) => map,
                None => {
                    let schema = batch.schema_ref();
                    let found = ColumnMap::new(schema, &plan.view, &[], &TimeColumns::default())?;
                    map.insert(found)
                }
            };
            let mut rejected: Vec<RejectedRow> = Vec::new();
            let changes = map.updates(&batch, &plan.view, plan.at_us, rows + 1, &mut rejected)?;
            for row in rejected {
                counts.refuse(format!("row {}: {}", row.row, row.reason));
            }
            rows += batch.num_rows() as u64;
            if changes.is_empty() {
                continue;
            }
            match &target {
                Target::Open(runtime, ingest) => {
                    let applied = runtime.block_on(ingest.submit(changes));
                    for applied in applied.map_err(|error| error.to_string())? {
                        match applied {
                            Applied::Refused(reason) => counts.refuse(reason),
                            _ => counts.written += 1,
                        }
                    }
                }
                Target::Server(server) => {
                    let sent = push_remote::send(server, &plan.view, &changes)?;
                    counts.written += sent.written;
                    counts.refused += sent.more_refused;
                    for (_, reason) in sent.refused {
                        counts.refuse(reason);
                    }
                }
            }
        }
        match counts.refused {
            0 => Ok(counts.written),
            refused => Err(format!(
                "{refused} of {rows} entities were refused, for example {}",
                counts.reasons.join("; ")
            )),
        }
    }

    /// The columns of the key and those that are written, under the names of their features.
    fn as_features(&self, batch: &RecordBatch, view: &View) -> Result<RecordBatch, String> {
        let keys = view.key_columns().iter().map(|key| (key, key));
        let all = keys.chain(
            self.columns
                .iter()
                .map(|(feature, column)| (feature, column)),
        );
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (feature, column) in all {
            let array = batch.column_by_name(column);
            let array = array.ok_or_else(|| format!("the output has no column {column}"))?;
            fields.push(Field::new(feature, array.data_type().clone(), true));
            arrays.push(Arc::clone(array));
        }
        let schema = Arc::new(Schema::new(fields));
        RecordBatch::try_new(schema, arrays).map_err(|error| error.to_string())
    }
}

/// Which feature gets which column: those that are named, or else every score and label the feature of its
/// name.
fn columns_of(plan: &Plan, named: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let view = &plan.view;
    let fields = &plan.schema.fields()[view.key_columns().len()..];
    let names = || fields.iter().map(|field| field.name().as_str());
    let is_meant = |name: &&str| name.ends_with("_score") || name.ends_with("_label");
    let columns: Vec<(String, String)> = match named {
        [] => names()
            .filter(is_meant)
            .map(|name| (name.to_owned(), name.to_owned()))
            .collect(),
        named => named.to_vec(),
    };
    let mut lacking = Vec::new();
    for (index, (feature, column)) in columns.iter().enumerate() {
        let field = fields.iter().find(|field| field.name() == column);
        let field = field.ok_or_else(|| {
            let like = suggestion(column, names());
            let all: Vec<&str> = names().collect();
            let column = shorten(column, 64);
            format!(
                "--to-store {feature}={column}: the output has no such column{like}; it has {}",
                all.join(", ")
            )
        })?;
        if columns[..index].iter().any(|(other, _)| other == feature) {
            let feature = shorten(feature, 64);
            return Err(format!("--to-store {feature}: it is named twice"));
        }
        let kind = match field.data_type() {
            DataType::Float64 => FeatureType::Float64,
            _ => FeatureType::String,
        };
        let found = view.index_of(feature).map(|found| &view.features()[found]);
        match found {
            None => lacking.push((feature, column, kind)),
            Some(found) if found.role != Role::Stored => {
                let is = found.role.as_phrase();
                return Err(format!(
                    "--to-store: {feature} is {is} of view {}; only stored features are written",
                    view.name
                ));
            }
            Some(found) if found.kind != kind => {
                return Err(format!(
                    "--to-store: feature {feature} of view {} is {}; column {column} is {}",
                    view.name,
                    found.kind.name(),
                    kind.name()
                ));
            }
            Some(_) => {}
        }
    }
    match lacking.as_slice() {
        [] => Ok(columns),
        lacking => Err(declare(view, lacking)),
    }
}

/// Says which features are to be declared, and how.
fn declare(view: &View, lacking: &[(&String, &String, FeatureType)]) -> String {
    let names: Vec<&str> = lacking
        .iter()
        .map(|(feature, ..)| feature.as_str())
        .collect();
    let mut text = format!(
        "--to-store: view {} has no feature {}; add to its file (and have a running server read it again), or \
         name others with --to-store FEATURE=COLUMN:\n",
        view.name,
        shorten(&names.join(", "), 200)
    );
    for (feature, column, kind) in lacking {
        let feature = shorten(feature, 64);
        let kind = kind.name();
        text.push_str(&format!(
            "\n[[feature]]\nname = \"{feature}\"\ntype = \"{kind}\"\n\
             description = \"{column}, written by bellwether score.\"\n"
        ));
    }
    text
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>>>;

/// The rows of the output, some at a time.
fn batches_of(output: &Path, format: OutputFormat) -> Result<Batches, String> {
    match format {
        OutputFormat::Csv | OutputFormat::Parquet => Ok(Box::new(Table::open(output)?)),
        OutputFormat::Arrow => {
            let file = File::open(output).map_err(|error| error.to_string())?;
            let reader = FileReader::try_new_buffered(file, None);
            let reader = reader.map_err(|error| error.to_string())?;
            Ok(Box::new(reader.flat_map(|batch| match batch {
                Ok(batch) => cut(&batch),
                Err(error) => vec![Err(error.to_string())],
            })))
        }
    }
}

/// A batch in pieces that are not larger than those of other formats.
fn cut(batch: &RecordBatch) -> Vec<Result<RecordBatch, String>> {
    let starts = (0..batch.num_rows()).step_by(BATCH_ROWS);
    starts
        .map(|start| Ok(batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start))))
        .collect()
}
