//! Batches of a plan over observations, as rows to assemble: who, when, what came with the request, and
//! what was seen of the entity and of those it points to.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::StreamExt;

use super::as_of::{self, snapshots_of};
use super::error::HistoryError;
use super::observations::{AT, KEY};
use super::plan::streamed;
use super::recompute::{Row, related_keys};
use crate::features::column::value_at;
use crate::features::value::Value;
use crate::features::view::View;
use crate::store::Snapshot;

/// How the batches of a plan are read.
#[derive(Clone, Debug)]
pub struct Observed {
    view: Arc<View>,
    /// Columns of the observations with the request features that they are.
    request: Vec<(usize, usize)>,
    called: String,
}

impl Observed {
    /// For observations with the columns `carried`, which messages call `called`.
    pub fn new(view: &Arc<View>, carried: &Schema, called: &str) -> Observed {
        let columns = view.request_columns().filter_map(|column| {
            let carried = carried.index_of(&view.features()[column].name).ok()?;
            Some((carried, column))
        });
        Observed {
            view: Arc::clone(view),
            request: columns.collect(),
            called: called.to_owned(),
        }
    }

    /// The column of the keys of the entities of a relation.
    pub fn key_name(relation: usize) -> String {
        format!("__key_{relation}")
    }

    /// The column of what was seen of them.
    pub fn seen_name(relation: usize) -> String {
        format!("__seen_{relation}")
    }

    /// The rows of a batch.
    ///
    /// # Errors
    /// A value that is not one of its request feature.
    pub fn rows(&self, batch: &RecordBatch) -> Result<Vec<Row>, HistoryError> {
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.ok_or_else(|| HistoryError::Plan(format!("the plan lost the column {name}")))
        };
        let keys = column(KEY)?.as_string_opt::<i32>();
        let ats = column(AT)?.as_primitive_opt::<Int64Type>();
        let (Some(keys), Some(ats)) = (keys, ats) else {
            return Err(HistoryError::Plan("the plan lost keys or times".to_owned()));
        };
        let mut request = Vec::with_capacity(self.request.len());
        for &(carried, column) in &self.request {
            request.push((column, self.read_request(batch.column(carried), column)?));
        }
        let seen = snapshots_of(batch, as_of::SEEN)?;
        let row = |(index, seen): (usize, Option<Snapshot>)| Row {
            key: keys.value(index).to_owned(),
            seen,
            overrides: Vec::new(),
            context: request
                .iter()
                .map(|(column, values)| (*column, value_at(values, index)))
                .filter(|(_, value)| !value.is_null())
                .collect::<Vec<(usize, Value)>>(),
            at_us: ats.value(index),
        };
        Ok(seen.into_iter().enumerate().map(row).collect())
    }

    fn read_request(&self, values: &ArrayRef, column: usize) -> Result<ArrayRef, HistoryError> {
        let feature = &self.view.features()[column];
        let options = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        cast_with_options(values, &feature.kind.arrow(), &options).map_err(|error| {
            HistoryError::Problem(format!(
                "{}: column {:?}: expected {} as the request feature of this name: {error}",
                self.called,
                feature.name,
                feature.kind.name()
            ))
        })
    }

    /// What was seen of the related entities in a batch, by relation and row.
    ///
    /// # Errors
    /// When the plan is at odds with itself.
    pub fn related(&self, batch: &RecordBatch) -> Result<Vec<Vec<Option<Snapshot>>>, HistoryError> {
        let relations = 0..self.view.relations().len();
        let seen = relations.map(|relation| {
            let name = Observed::seen_name(relation);
            match batch.column_by_name(&name) {
                Some(_) => snapshots_of(batch, &name),
                None => Ok(Vec::new()),
            }
        });
        seen.collect()
    }

    /// `plan` with one more column: the keys of the entities of a relation, null where there is none.
    ///
    /// # Errors
    /// Never before it is run.
    pub fn with_related_keys(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        relation: usize,
    ) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
        let mut fields = plan.schema().fields().to_vec();
        let name = Observed::key_name(relation);
        fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
        let schema = Arc::new(Schema::new(fields));
        let (observed, stream_schema) = (self.clone(), Arc::clone(&schema));
        streamed("related keys", schema, move |context| {
            let (observed, schema) = (observed.clone(), Arc::clone(&stream_schema));
            let batches = plan.execute(0, context)?.map(move |batch| {
                let batch = batch?;
                let rows = observed.rows(&batch)?;
                let keys = related_keys(&observed.view, relation, &rows);
                let mut columns = batch.columns().to_vec();
                columns.push(Arc::new(StringArray::from(keys)));
                Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
            });
            let stream_schema = Arc::clone(&stream_schema);
            Ok(Box::pin(RecordBatchStreamAdapter::new(
                stream_schema,
                batches,
            )))
        })
    }
}
