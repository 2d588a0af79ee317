//! Filling windows that were declared later than the events that they reach back to.
//!
//! When a view is given a new window, the online store begins to count it with the next event, and
//! marks each entity's tiles as lacking what was before. A backfill folds the changes of these entities
//! again, up to the one where each began to count, and adds the tiles to the store: values are then
//! those of a server that had the window from the start. The server serves and takes events meanwhile;
//! what was filled is not filled again.
//!
//! What the log no longer has, or an entity that a view was only declared for later, stays unknown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, Int64Builder, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::RecordBatchReceiverStreamBuilder;

use super::as_of::{self, Columns, History, Taken};
use super::error::HistoryError;
use super::log::{ChangeLog, Order};
use super::plan::{BATCH_ROWS, Bounds, run, streamed};
use crate::features::view::View;
use crate::features::windows::WindowState;
use crate::store::OnlineStore;

/// A backfill of one view.
pub struct Backfill {
    pub store: Arc<dyn OnlineStore>,
    pub view: Arc<View>,
    pub data_dir: PathBuf,
    pub bounds: Bounds,
}

/// What was filled.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct BackfillReport {
    pub view: String,
    /// Entities whose windows lacked earlier events and do not any more.
    pub filled: u64,
    pub seconds: f64,
}

impl Backfill {
    /// Fills every entity of the view that lacks something. Blocks until it is done; `progress` is told
    /// how many are.
    ///
    /// # Errors
    /// When the log cannot be read or the store not be filled; what was filled stays.
    pub fn run(&self, mut progress: impl FnMut(u64)) -> Result<BackfillReport, HistoryError> {
        let started = Instant::now();
        let columns = Columns {
            key: "key",
            until: "after",
            at: "after",
            snapshot: as_of::SEEN,
        };
        let log = ChangeLog::Directories(vec![self.data_dir.clone()]);
        let history = History {
            log: &log,
            order: Order::Applied,
            taken: Taken::Windows,
        };
        let joined = as_of::join(history, &self.view, self.late_entities()?, columns)?;
        let lost = || HistoryError::Plan("the plan lost a column".to_owned());
        let mut filled = 0;
        run(&joined.plan, &self.bounds, |batch| {
            let keys = batch.column(0).as_string_opt::<i32>().ok_or_else(lost)?;
            let afters = batch.column(1).as_primitive_opt::<Int64Type>();
            let afters = afters.ok_or_else(lost)?;
            let states = batch.column(2).as_binary_opt::<i32>().ok_or_else(lost)?;
            let windows = self.view.windows();
            for (row, state) in states.iter().enumerate() {
                // Of an entity that the log has nothing of, nothing is lacking that can be had.
                let earlier = match state {
                    Some(bytes) => windows.decode(bytes).map_err(HistoryError::Plan)?,
                    None => WindowState::default(),
                };
                let after = u64::try_from(afters.value(row)).unwrap_or_default();
                let into = self
                    .store
                    .fill_windows(&self.view, keys.value(row), &earlier, after);
                into.map_err(|error| HistoryError::Plan(error.to_string()))?;
                filled += 1;
            }
            progress(filled);
            Ok(())
        })?;
        Ok(BackfillReport {
            view: self.view.name.clone(),
            filled,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The entities that lack something, with the number of the last change that they lack.
    fn late_entities(&self) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("after", DataType::Int64, false),
        ]));
        let (store, view) = (Arc::clone(&self.store), Arc::clone(&self.view));
        let stream_schema = Arc::clone(&schema);
        streamed("late entities", schema, move |_| {
            let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&stream_schema), 2);
            let sender = builder.tx();
            let (store, view) = (Arc::clone(&store), Arc::clone(&view));
            let schema = Arc::clone(&stream_schema);
            builder.spawn_blocking(move || {
                let mut rows = LateRows::default();
                store
                    .for_each_late(&view, &mut |key, after| {
                        rows.keys.append_value(key);
                        rows.afters
                            .append_value(i64::try_from(after).unwrap_or(i64::MAX));
                        rows.rows += 1;
                        if rows.rows >= BATCH_ROWS {
                            // Fails only when nobody reads any more.
                            let _ = sender.blocking_send(rows.take(&schema));
                        }
                    })
                    .map_err(|error| HistoryError::Problem(error.to_string()))?;
                let _ = sender.blocking_send(rows.take(&schema));
                Ok(())
            });
            Ok(builder.build())
        })
    }
}

#[derive(Default)]
struct LateRows {
    keys: StringBuilder,
    afters: Int64Builder,
    rows: usize,
}

impl LateRows {
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
        self.rows = 0;
        let columns = vec![
            Arc::new(self.keys.finish()) as _,
            Arc::new(self.afters.finish()) as _,
        ];
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
