//! The command's side of a job on a cluster: the plan, its submission, and the rows that come back.
//!
//! The rows are written by the code of the one-machine job, as they come. They come when Ballista has
//! finished the job, from the executors that hold them; if one of those is lost just then, the job is run
//! again, which is safe because the output appears only at the end. A job that itself fails is not.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};

use super::spec::JobSpec;
use super::{Cluster, input, predict, returned};
use crate::batch::score::News;
use crate::batch::score::inputs::InputFile;
use crate::batch::score::plan::Plan;
use crate::batch::score::sink::{Done, Sink};
use crate::batch::score::source::Position;

/// All are named in the plan, which goes with every task.
const MOST_FILES: usize = 10_000;
/// How often a job is run whose results were lost.
const ATTEMPTS: usize = 3;
/// Bytes of input in a task, as far as files can be cut and unless there are very few or many tasks.
const TASK_BYTES: u64 = 16 * 1024 * 1024;
const FEWEST_TASKS: u64 = 16;
const MOST_TASKS: u64 = 2_048;
/// Scans of fewer bytes are not cut.
const FEWEST_CUT_BYTES: usize = 64 * 1024;
const CONNECT_SECONDS: u64 = 10;
/// How long a job may take to be called off.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// How a run ended that did not bring all rows.
enum Ended {
    /// The job or the output failed: it would fail again.
    Failed(String),
    /// What the job had made could not be fetched.
    Lost(String),
}

/// Runs a job on a cluster; the rows go into a sink, which is given back also when it fails. `new_sink`
/// gives one that begins at the first row.
///
/// # Errors
/// What a cluster cannot read, what went wrong there, or that it cannot be reached.
pub fn run<'p>(
    cluster: &Cluster,
    plan: &'p Plan,
    files: &'p [InputFile],
    at_us: i64,
    new_sink: &dyn Fn() -> Sink<'p>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> (Sink<'p>, Result<(), String>) {
    let mut sink = new_sink();
    let done = try_run(cluster, plan, files, at_us, &mut sink, new_sink, tell);
    (sink, done)
}

/// What every run of a job goes by.
struct Run<'j> {
    cluster: &'j Cluster,
    plan: &'j Plan,
    names: &'j HashMap<String, String>,
    /// Into how many tasks a scan is cut.
    tasks: usize,
}

fn try_run<'p>(
    cluster: &Cluster,
    plan: &'p Plan,
    files: &'p [InputFile],
    at_us: i64,
    sink: &mut Sink<'p>,
    new_sink: &dyn Fn() -> Sink<'p>,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Result<(), String> {
    if files.len() > MOST_FILES {
        let count = files.len();
        return Err(format!(
            "--input: {count} files; on a cluster at most {MOST_FILES}, merge them first"
        ));
    }
    let job = JobSpec::of(plan, at_us);
    let job = serde_json::to_string(&job).map_err(|error| error.to_string())?;
    let input = input::plan_of(files, plan, &job)?;
    let end = Position {
        file: files.len(),
        ..Position::default()
    };
    let Some(whole) = &input.plan else {
        return sink.put(0, Done::EndOfPart(end));
    };
    let bytes = files.iter().map(|file| file.bytes).sum();
    let run = Run {
        cluster,
        plan,
        names: &input.names,
        tasks: tasks(bytes, input.scans),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let done = runtime.block_on(async {
        let mut interrupted = pin!(interrupted()?);
        for attempt in 1.. {
            match run.once(whole, sink, tell, interrupted.as_mut()).await {
                Ok(sequence) => return sink.put(sequence, Done::EndOfPart(end)),
                Err(Ended::Lost(problem)) if attempt < ATTEMPTS => {
                    *sink = new_sink();
                    tell(News::Remark(&format!(
                        "rows that the cluster had made were lost, the job is run again: {problem}"
                    )));
                }
                Err(Ended::Failed(problem) | Ended::Lost(problem)) => return Err(problem),
            }
        }
        Ok(())
    });
    runtime.shutdown_background();
    done
}

impl Run<'_> {
    /// Runs the plan and writes its rows; gives the next number of the sequence.
    async fn once(
        &self,
        whole: &LogicalPlan,
        sink: &mut Sink<'_>,
        tell: &(dyn Fn(News<'_>) + Sync),
        mut interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<u64, Ended> {
        let cluster = self.cluster;
        let failed = |error: datafusion::error::DataFusionError| Ended::Failed(error.to_string());
        let context = self.connect().await.map_err(failed)?;
        let frame = DataFrame::new(context.state(), whole.clone());
        let query = frame.create_physical_plan().await.map_err(failed)?;
        let rows = execute_stream(Arc::clone(&query), context.task_ctx());
        let mut rows = rows.map_err(failed)?;
        let mut sequence = 0;
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                () = interrupted.as_mut() => {
                    call_off(cluster, &query).await;
                    let said = "interrupted; the job on the cluster was called off";
                    return Err(Ended::Failed(said.to_owned()));
                }
            };
            let Some(batch) = next else {
                return Ok(sequence);
            };
            let batch = batch.map_err(|error| explain(cluster, &query, &error.to_string()))?;
            let scored = returned::read(self.plan, self.names, &batch).map_err(Ended::Failed)?;
            sink.put(sequence, Done::Scored(Box::new(scored)))
                .map_err(Ended::Failed)?;
            sequence += 1;
            tell(News::Done {
                rows: sink.rows,
                bytes: 0,
            });
        }
    }

    /// The context of a job. Nothing is sent yet.
    async fn connect(&self) -> datafusion::error::Result<SessionContext> {
        let config = SessionConfig::new_with_ballista()
            .with_ballista_job_name("bellwether score")
            .with_batch_size(self.plan.chunk_rows)
            .with_target_partitions(self.tasks)
            .with_repartition_file_scans(true)
            .with_repartition_file_min_size(FEWEST_CUT_BYTES)
            .with_collect_statistics(false)
            // What an executor loses is as little as it can be.
            .set_usize("ballista.scheduler.max_partitions_per_task", 1)
            .set_u64(
                "ballista.client.grpc_connect_timeout_seconds",
                CONNECT_SECONDS,
            );
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .build();
        let context = SessionContext::remote_with_state(&self.cluster.url, state).await?;
        context.register_udf(predict::function(None));
        Ok(context)
    }
}

/// Resolves at the first SIGTERM or SIGINT: a job that nobody waits for is not to go on.
fn interrupted() -> Result<impl Future<Output = ()>, String> {
    let watch = |kind| signal(kind).map_err(|error| format!("cannot watch signals: {error}"));
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Into how many tasks each of some scans is cut.
fn tasks(bytes: u64, scans: usize) -> usize {
    let wanted = (bytes / TASK_BYTES).clamp(FEWEST_TASKS, MOST_TASKS);
    let each = wanted.div_ceil(scans.max(1) as u64);
    usize::try_from(each).unwrap_or(1)
}

fn job_id(query: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let query = query.downcast_ref::<DistributedQueryExec<LogicalPlanNode>>()?;
    query.job_id().map(|id| id.to_string())
}

/// What an error of Ballista's means.
fn explain(cluster: &Cluster, query: &Arc<dyn ExecutionPlan>, error: &str) -> Ended {
    let Some(job) = job_id(query) else {
        let url = &cluster.url;
        return Ended::Failed(format!(
            "--cluster {url}: the scheduler did not take the job, or was lost: {error}"
        ));
    };
    match error.split_once(&format!("Job {job} failed: ")) {
        Some((_, why)) => Ended::Failed(format!("the job failed on the cluster: {}", shown(why))),
        None => Ended::Lost(error.to_owned()),
    }
}

/// What the function said, without what it came wrapped in; else everything.
fn shown(error: &str) -> String {
    let Some((_, said)) = error.split_once(predict::MESSAGE) else {
        return error.to_owned();
    };
    // It came as a Rust string.
    let mut shown = String::new();
    let mut letters = said.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                Some('n') => shown.push('\n'),
                Some(other) => shown.push(other),
                None => {}
            },
            _ => shown.push(letter),
        }
    }
    shown
}

/// Tells the scheduler that nobody waits for the job any more.
async fn call_off(cluster: &Cluster, query: &Arc<dyn ExecutionPlan>) {
    let Some(job_id) = job_id(query) else {
        return;
    };
    let call = async {
        let mut scheduler = SchedulerGrpcClient::connect(cluster.url.clone())
            .await
            .ok()?;
        scheduler.cancel_job(CancelJobParams { job_id }).await.ok()
    };
    // Without an answer it runs to its end for nobody.
    let _ = tokio::time::timeout(CANCEL_PATIENCE, call).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_base_is_cut_for_a_few_executors_and_a_large_one_into_many_tasks() {
        assert_eq!(tasks(1_000_000, 1), 16);
        assert_eq!(tasks(16 << 30, 1), 1_024);
        assert_eq!(tasks(16 << 30, 3), 342);
        assert_eq!(tasks(1 << 50, 1), 2_048);
    }

    #[test]
    fn what_the_function_said_is_found_in_what_became_of_it() {
        let error =
            r#"Job x failed: Task failed: DataFusionError(Execution("predict: no \"a\"\nhere"))"#;
        assert_eq!(shown(error), "no \"a\"\nhere");
        assert_eq!(shown("no route"), "no route");
    }
}
