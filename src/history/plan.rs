//! The few parts of DataFusion that plans over history are made of: a leaf that streams what our own
//! code produces, a sort that spills to disk, and running a plan within bounds.
//!
//! A plan has one partition everywhere: the work between the sorts is in the order of entities, and
//! what the sorts read is produced by threads of their own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result as PlanResult};
use datafusion_execution::config::SessionConfig;
use datafusion_execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion_execution::memory_pool::FairSpillPool;
use datafusion_execution::runtime_env::RuntimeEnvBuilder;
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures_util::StreamExt;
use futures_util::stream;

use super::error::HistoryError;

/// Rows of a batch in a plan.
pub const BATCH_ROWS: usize = 2048;

/// What a sort keeps back for merging what it has put aside on disk.
const MERGE_RESERVE_BYTES: usize = 8 * 1024 * 1024;

/// No plan takes so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a plan may use.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Memory of all sorts together. Beside it a plan holds a few batches and one entity.
    pub memory_bytes: usize,
    /// What sorts may put aside; a plan that needs more fails. The identities of the events of one entity
    /// in 24 hours, some 80 bytes each, are in memory beside all this.
    pub temp_bytes: u64,
    /// Where sorts put aside what does not fit; made when missing, emptied at the end.
    pub temp_dir: PathBuf,
}

type Open = Box<dyn Fn(Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> + Send + Sync>;

struct Leaf {
    name: &'static str,
    schema: SchemaRef,
    open: Open,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartitionStream for Leaf {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        (self.open)(context).unwrap_or_else(|error| {
            let failed = stream::once(std::future::ready(Err(error)));
            Box::pin(RecordBatchStreamAdapter::new(
                Arc::clone(&self.schema),
                failed,
            ))
        })
    }
}

/// A plan node whose batches are what `open` streams.
///
/// # Errors
/// Never, as the schema is the leaf's own.
pub fn streamed(
    name: &'static str,
    schema: SchemaRef,
    open: impl Fn(Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> + Send + Sync + 'static,
) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
    let leaf = Leaf {
        name,
        schema: Arc::clone(&schema),
        open: Box::new(open),
    };
    let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(leaf)];
    let plan = StreamingTableExec::try_new(schema, partitions, None, [], false, None)?;
    Ok(Arc::new(plan))
}

/// `input` in ascending order of `columns`, nulls first; what does not fit goes to disk.
///
/// # Errors
/// When a column does not exist.
pub fn sorted(
    input: Arc<dyn ExecutionPlan>,
    columns: &[&str],
) -> Result<Arc<dyn ExecutionPlan>, HistoryError> {
    let schema = input.schema();
    let mut order = Vec::with_capacity(columns.len());
    for column in columns {
        let index = schema.index_of(column).map_err(DataFusionError::from)?;
        order.push(PhysicalSortExpr {
            expr: Arc::new(Column::new(column, index)),
            options: SortOptions::default(),
        });
    }
    let order = LexOrdering::new(order)
        .ok_or_else(|| HistoryError::Plan("a sort needs a column".to_owned()))?;
    Ok(Arc::new(SortExec::new(order, input)))
}

/// Removes what plans of a process that was killed have left in `temp_dir`: whatever is older than a
/// day. What cannot be removed stays.
pub fn sweep(temp_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(temp_dir) else {
        return;
    };
    for entry in entries.flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            let path = entry.path();
            let removed = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), error = %error, "left where it is");
            }
        }
    }
}

/// How much the sorts among `plans` have put aside on disk, in bytes.
pub fn spilled_bytes(sorts: &[Arc<dyn ExecutionPlan>]) -> usize {
    let metrics = sorts.iter().filter_map(|sort| sort.metrics());
    metrics.filter_map(|metrics| metrics.spilled_bytes()).sum()
}

/// Runs `plan` to its end on this thread, which may block, and hands every batch to `visit`.
///
/// # Errors
/// What a source, the plan or `visit` says first.
pub fn run(
    plan: &Arc<dyn ExecutionPlan>,
    bounds: &Bounds,
    mut visit: impl FnMut(RecordBatch) -> Result<(), HistoryError>,
) -> Result<(), HistoryError> {
    std::fs::create_dir_all(&bounds.temp_dir).map_err(|error| {
        HistoryError::in_file(&bounds.temp_dir, format!("cannot be created: {error}"))
    })?;
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![bounds.temp_dir.clone()]))
        .with_max_temp_directory_size(bounds.temp_bytes);
    let runtime_env = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(bounds.memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let reserve = MERGE_RESERVE_BYTES.min(bounds.memory_bytes / 16);
    let config = SessionConfig::new()
        .with_batch_size(BATCH_ROWS)
        .with_sort_spill_reservation_bytes(reserve);
    let context = Arc::new(TaskContext::new(
        None,
        "history".to_owned(),
        config,
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        HashMap::new(),
        runtime_env,
    ));
    // A runtime of its own: whoever calls has given this thread for the work, and the threads that
    // serve requests are not to be shared with it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| HistoryError::Plan(format!("no threads: {error}")))?;
    let _entered = runtime.enter();
    let mut batches = plan.execute(0, context)?;
    while let Some(batch) = runtime.block_on(batches.next()) {
        visit(batch?)?;
    }
    Ok(())
}
