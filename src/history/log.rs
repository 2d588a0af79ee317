//! The log of changes as a table: one row for each change that concerns an entity of a view.
//!
//! Promises: the log is streamed, never held; at most a few batches of [`BATCH_ROWS`] rows or
//! [`BATCH_BYTES`] are under way. It is read beside a running server, up to what is durable.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arrow::array::{BinaryBuilder, Int64Builder, StringBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::RecordBatchReceiverStreamBuilder;
use prost::Message;

use super::error::HistoryError;
use super::interest::{Gathered, Interest};
use super::plan::{BATCH_ROWS, streamed};
use crate::features::view::View;
use crate::ingest::route::entity_of;
use crate::ledger::{ChangeBatch, LedgerError, read_changes};

/// Bytes of changes after which a batch ends early.
pub const BATCH_BYTES: usize = 256 * 1024;

/// Columns of the table.
pub const KEY: usize = 0;
pub const PLACE: usize = 1;
pub const SEQUENCE: usize = 2;
pub const KNOWN_AT: usize = 3;
pub const CHANGE: usize = 4;

/// The columns' names, in order: the entity's key; the change's place in the order asked for; its
/// number; when it was known; its bytes.
pub const COLUMNS: [&str; 5] = ["key", "place", "sequence", "known_at_us", "change"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(COLUMNS[KEY], DataType::Utf8, false),
        Field::new(COLUMNS[PLACE], DataType::Int64, false),
        Field::new(COLUMNS[SEQUENCE], DataType::UInt64, false),
        Field::new(COLUMNS[KNOWN_AT], DataType::Int64, false),
        Field::new(COLUMNS[CHANGE], DataType::Binary, false),
    ]))
});

/// Where the log is read from.
#[derive(Clone, Debug)]
pub enum ChangeLog {
    /// The data directories of one server or of several that share a store.
    Directories(Vec<PathBuf>),
    /// Batches in memory.
    Batches(Arc<Vec<ChangeBatch>>),
}

/// In which order the changes of an entity are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By when they were known, for history that was loaded later by when it says it was.
    Known,
    /// As the online store applied them.
    Applied,
}

/// Which changes are wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub view: Arc<View>,
    pub order: Order,
    /// Only those that matter to these.
    pub interest: Arc<Interest>,
}

impl ChangeLog {
    /// The table of the changes `wanted`, in the order of the log. What is of interest is asked when it
    /// is run.
    ///
    /// # Errors
    /// Never before it is run.
    pub fn table(&self, wanted: Wanted) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
        let log = self.clone();
        streamed("changes", Arc::clone(&SCHEMA), move |_| {
            let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&SCHEMA), 2);
            let sender = builder.tx();
            let (log, wanted) = (log.clone(), wanted.clone());
            builder.spawn_blocking(move || {
                let mut rows = Rows::default();
                let gathered = wanted.interest.take();
                let send = |rows: &mut Rows| match rows.take() {
                    Ok(batch) => sender.blocking_send(Ok(batch)).map_err(|_| Stop::Cancelled),
                    Err(error) => Err(Stop::Failed(error.into())),
                };
                let read = log.read(&mut |batch| {
                    for index in 0..batch.changes.len() {
                        rows.push(&wanted, &gathered, batch, index);
                        if rows.is_full() {
                            send(&mut rows)?;
                        }
                    }
                    Ok(())
                });
                match read.and_then(|()| send(&mut rows)) {
                    Ok(()) | Err(Stop::Cancelled) => Ok(()),
                    Err(Stop::Failed(error)) => Err(error.into()),
                }
            });
            Ok(builder.build())
        })
    }

    fn read(&self, visit: &mut dyn FnMut(&ChangeBatch) -> Result<(), Stop>) -> Result<(), Stop> {
        match self {
            ChangeLog::Directories(directories) => directories
                .iter()
                .try_for_each(|directory| read_changes(directory, 0, |batch| visit(&batch))),
            ChangeLog::Batches(batches) => batches.iter().try_for_each(visit),
        }
    }
}

/// Why reading ended early.
enum Stop {
    /// Nobody reads any more.
    Cancelled,
    Failed(HistoryError),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Stop {
        Stop::Failed(error.into())
    }
}

/// Rows under way.
#[derive(Default)]
struct Rows {
    keys: StringBuilder,
    places: Int64Builder,
    sequences: UInt64Builder,
    known: Int64Builder,
    changes: BinaryBuilder,
    rows: usize,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, wanted: &Wanted, gathered: &Gathered, batch: &ChangeBatch, index: usize) {
        let change = &batch.changes[index];
        let Some(key) = entity_of(&wanted.view, change) else {
            return;
        };
        let sequence = batch.sequence + index as u64;
        let (place, known_at_us) = match wanted.order {
            Order::Known => {
                let known_at_us = change.known_at_us.unwrap_or(batch.known_at_us);
                (known_at_us, known_at_us)
            }
            Order::Applied => {
                let place = i64::try_from(sequence).unwrap_or(i64::MAX);
                (place, batch.known_at_us)
            }
        };
        if !gathered.covers(&key, place) {
            return;
        }
        let bytes = change.encode_to_vec();
        self.bytes += key.len() + bytes.len();
        self.rows += 1;
        self.keys.append_value(key);
        self.places.append_value(place);
        self.sequences.append_value(sequence);
        self.known.append_value(known_at_us);
        self.changes.append_value(bytes);
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self) -> Result<RecordBatch, DataFusionError> {
        (self.rows, self.bytes) = (0, 0);
        let batch = RecordBatch::try_new(
            Arc::clone(&SCHEMA),
            vec![
                Arc::new(self.keys.finish()),
                Arc::new(self.places.finish()),
                Arc::new(self.sequences.finish()),
                Arc::new(self.known.finish()),
                Arc::new(self.changes.finish()),
            ],
        )?;
        Ok(batch)
    }
}
