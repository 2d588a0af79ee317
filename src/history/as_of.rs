//! The join of observations with what was known at their time.
//!
//! Both sides come sorted by entity; observations then by how far they see, changes by their place.
//! For each entity the changes are folded one after the other, and every observation takes a snapshot
//! when all that it may see is in. One entity and one batch of either side are in memory.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, StringArray};
use arrow::array::{BinaryArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use datafusion_common::DataFusionError;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::{
    RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter,
};
use futures_util::StreamExt;
use prost::Message;
use tokio::sync::mpsc::Sender;

use super::error::HistoryError;
use super::fold::EntityPast;
use super::interest::Interest;
use super::log::{self, ChangeLog, Order, Wanted};
use super::plan::{sorted, streamed};
use super::snapshot;
use crate::features::change::{Change, Event, EventIdentity, What};
use crate::features::view::View;
use crate::features::windows::Contributions;
use crate::store::Snapshot;
use crate::store::entity::Action;

/// The usual name of the column of what was seen.
pub const SEEN: &str = "__seen";

/// The columns of the observations that the join reads.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The entity's key, text; null for none.
    pub key: &'a str,
    /// The last place that it sees, an integer: a time, or the number of a change.
    pub until: &'a str,
    /// When it looks, microseconds since the Unix epoch.
    pub at: &'a str,
    /// The column to add: what was seen, as bytes, null when nothing was known.
    pub snapshot: &'a str,
}

/// A join and the sorts in it.
pub struct AsOf {
    pub plan: Arc<dyn ExecutionPlan>,
    pub sorts: [Arc<dyn ExecutionPlan>; 2],
}

/// What is taken of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// What a reader sees, for [`snapshots_of`].
    Snapshot,
    /// The tiles of its windows, as [`crate::features::windows::Windows::encode`] writes them.
    Windows,
}

/// Which changes are folded, and what is taken of the entity then.
#[derive(Clone, Debug)]
pub struct History<'a> {
    pub log: &'a ChangeLog,
    pub order: Order,
    pub taken: Taken,
}

/// Joins `observations` of entities of `view` with their history.
///
/// # Errors
/// When a column does not exist.
pub fn join(
    history: History<'_>,
    view: &Arc<View>,
    observations: Arc<dyn ExecutionPlan>,
    columns: Columns<'_>,
) -> Result<AsOf, HistoryError> {
    let mut fields = observations.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(
        columns.snapshot,
        DataType::Binary,
        true,
    )));
    let schema = Arc::new(Schema::new(fields));
    let index = |name: &str| -> Result<usize, HistoryError> {
        let found = observations.schema().index_of(name);
        Ok(found.map_err(DataFusionError::from)?)
    };
    let (key, until, at) = (
        index(columns.key)?,
        index(columns.until)?,
        index(columns.at)?,
    );
    let interest = Arc::new(Interest::default());
    let observations = gathering(observations, (key, until), Arc::clone(&interest))?;
    let observations = sorted(observations, &[columns.key, columns.until])?;
    let changes = history.log.table(Wanted {
        view: Arc::clone(view),
        order: history.order,
        interest,
    })?;
    let order = [
        log::COLUMNS[log::KEY],
        log::COLUMNS[log::PLACE],
        log::COLUMNS[log::SEQUENCE],
    ];
    let changes = sorted(changes, &order)?;
    let sorts = [Arc::clone(&observations), Arc::clone(&changes)];
    let (view, taken) = (Arc::clone(view), history.taken);
    let stream_schema = Arc::clone(&schema);
    let plan = streamed("as_of", schema, move |context| {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&stream_schema), 2);
        let merge = Merge {
            schema: Arc::clone(&stream_schema),
            view: Arc::clone(&view),
            taken,
            columns: (key, until, at),
            observations: observations.execute(0, Arc::clone(&context))?,
            changes: Cursor::new(Arc::clone(&view), Arc::clone(&changes), context),
        };
        let sender = builder.tx();
        builder.spawn(async move { merge.run(sender).await.map_err(DataFusionError::from) });
        Ok(builder.build())
    })?;
    Ok(AsOf { plan, sorts })
}

/// The same rows, of which `interest` is told.
fn gathering(
    observations: Arc<dyn ExecutionPlan>,
    (key, until): (usize, usize),
    interest: Arc<Interest>,
) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
    let schema = observations.schema();
    streamed("gathering", Arc::clone(&schema), move |context| {
        let interest = Arc::clone(&interest);
        let batches = observations.execute(0, context)?.map(move |batch| {
            let batch = batch?;
            interest.add(texts(batch.column(key))?, integers(batch.column(until))?);
            Ok(batch)
        });
        let schema = Arc::clone(&schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    })
}

struct Merge {
    schema: Arc<Schema>,
    view: Arc<View>,
    taken: Taken,
    columns: (usize, usize, usize),
    observations: SendableRecordBatchStream,
    changes: Cursor,
}

impl Merge {
    async fn run(
        mut self,
        sender: Sender<Result<RecordBatch, DataFusionError>>,
    ) -> Result<(), HistoryError> {
        let mut past = EntityPast::default();
        let mut current: Option<String> = None;
        while let Some(batch) = self.observations.next().await {
            let batch = batch?;
            let keys = texts(batch.column(self.columns.0))?;
            let untils = integers(batch.column(self.columns.1))?;
            let ats = integers(batch.column(self.columns.2))?;
            let mut snapshots = BinaryBuilder::new();
            for row in 0..batch.num_rows() {
                if keys.is_null(row) {
                    snapshots.append_null();
                    continue;
                }
                let key = keys.value(row);
                if current.as_deref() != Some(key) {
                    past = EntityPast::default();
                    current = Some(key.to_owned());
                }
                while self.changes.reaches(key, untils.value(row)).await? {
                    self.changes.apply(&mut past);
                }
                let at_us = ats.value(row);
                let seen = match self.taken {
                    Taken::Snapshot => past
                        .snapshot(&self.view, at_us)
                        .map(|seen| snapshot::encode(&seen)),
                    Taken::Windows => past.windows(&self.view),
                };
                snapshots.append_option(seen);
            }
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(snapshots.finish()));
            let joined = RecordBatch::try_new(Arc::clone(&self.schema), columns);
            if sender
                .send(Ok(joined.map_err(DataFusionError::from)?))
                .await
                .is_err()
            {
                // Nobody reads any more.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Where the merge stands in the sorted changes.
struct Cursor {
    view: Arc<View>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    /// Opened with the first look, when the observations are sorted: they tell what is wanted.
    stream: Option<SendableRecordBatchStream>,
    loaded: Option<Loaded>,
}

/// A batch of changes, decoded.
struct Loaded {
    keys: StringArray,
    places: Int64Array,
    sequences: UInt64Array,
    known: Int64Array,
    changes: Vec<Change>,
    contributions: Contributions,
    /// Of each change that is an event, its row in `contributions`.
    rows: Vec<usize>,
    next: usize,
}

impl Cursor {
    fn new(view: Arc<View>, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Cursor {
        Cursor {
            view,
            plan,
            context,
            stream: None,
            loaded: None,
        }
    }

    /// Whether the next change is one of `key` at a place up to `until`. Changes of entities before
    /// `key` are passed over: nobody observed them.
    async fn reaches(&mut self, key: &str, until: i64) -> Result<bool, HistoryError> {
        loop {
            if let Some(loaded) = &mut self.loaded {
                while loaded.next < loaded.changes.len() {
                    match loaded.keys.value(loaded.next).cmp(key) {
                        std::cmp::Ordering::Less => loaded.next += 1,
                        std::cmp::Ordering::Equal => {
                            return Ok(loaded.places.value(loaded.next) <= until);
                        }
                        std::cmp::Ordering::Greater => return Ok(false),
                    }
                }
            }
            if !self.load().await? {
                return Ok(false);
            }
        }
    }

    /// Loads the next batch; false at the end.
    async fn load(&mut self) -> Result<bool, HistoryError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self
                .stream
                .insert(self.plan.execute(0, Arc::clone(&self.context))?),
        };
        self.loaded = match stream.next().await {
            Some(batch) => Some(Loaded::new(&self.view, &batch?)?),
            None => None,
        };
        Ok(self.loaded.is_some())
    }

    /// Applies the next change and goes on.
    fn apply(&mut self, past: &mut EntityPast) {
        let Some(loaded) = &mut self.loaded else {
            return;
        };
        let index = loaded.next;
        loaded.next += 1;
        let action = match &loaded.changes[index].what {
            Some(What::Event(event)) => Action::Event {
                identity: EventIdentity::new(
                    &self.view.name,
                    loaded.keys.value(index),
                    &event.event_id,
                ),
                contributions: &loaded.contributions,
                row: loaded.rows[index],
            },
            Some(What::Update(update)) => Action::Update(update),
            Some(What::Removal(_)) => Action::Remove,
            None => return,
        };
        let (sequence, known_at_us) = (loaded.sequences.value(index), loaded.known.value(index));
        past.apply(&self.view, &action, sequence, known_at_us);
    }
}

impl Loaded {
    fn new(view: &View, batch: &RecordBatch) -> Result<Loaded, HistoryError> {
        let bytes = column::<BinaryArray>(batch.column(log::CHANGE))?;
        let mut changes = Vec::with_capacity(bytes.len());
        for bytes in bytes.iter() {
            let change = Change::decode(bytes.unwrap_or_default());
            changes.push(change.map_err(|error| HistoryError::Plan(error.to_string()))?);
        }
        let mut events: Vec<&Event> = Vec::new();
        let mut rows = Vec::with_capacity(changes.len());
        for change in &changes {
            rows.push(events.len());
            if let Some(What::Event(event)) = &change.what {
                events.push(event);
            }
        }
        let contributions = view.windows().read_events(events.into_iter());
        Ok(Loaded {
            keys: texts(batch.column(log::KEY))?.clone(),
            places: integers(batch.column(log::PLACE))?.clone(),
            sequences: batch
                .column(log::SEQUENCE)
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(wrong_type)?
                .clone(),
            known: integers(batch.column(log::KNOWN_AT))?.clone(),
            changes,
            contributions,
            rows,
            next: 0,
        })
    }
}

/// What was seen in each row of a joined batch, by the name of that column.
///
/// # Errors
/// When the batch is not of a join.
pub fn snapshots_of(
    batch: &RecordBatch,
    column: &str,
) -> Result<Vec<Option<Snapshot>>, HistoryError> {
    let seen = batch
        .column_by_name(column)
        .and_then(|column| column.as_binary_opt::<i32>())
        .ok_or_else(|| HistoryError::Plan("the plan lost what was seen".to_owned()))?;
    let decode = |bytes: Option<&[u8]>| bytes.map(snapshot::decode).transpose();
    seen.iter().map(decode).collect()
}

fn wrong_type() -> HistoryError {
    HistoryError::Plan("a column of the plan has another type than was declared".to_owned())
}

fn column<T: 'static>(array: &ArrayRef) -> Result<&T, HistoryError> {
    array.as_any().downcast_ref::<T>().ok_or_else(wrong_type)
}

fn texts(array: &ArrayRef) -> Result<&StringArray, HistoryError> {
    column(array)
}

fn integers(array: &ArrayRef) -> Result<&Int64Array, HistoryError> {
    array.as_primitive_opt::<Int64Type>().ok_or_else(wrong_type)
}
