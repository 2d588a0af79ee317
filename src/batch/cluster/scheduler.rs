//! The scheduler: Ballista's, which knows the function `predict`.
//!
//! It holds its jobs in memory: when it ends, they do, and the commands that wait for them fail. Executors
//! ask it for tasks, so that it needs no connection to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::utils::default_session_builder;
use ballista_scheduler::SessionBuilder;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::FunctionRegistry;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;

use super::{SchedulerOptions, logging, predict};

/// The executor that works at everything it can says so this often.
const SLOWEST_HEARTBEAT: Duration = Duration::from_secs(5);

/// Runs the scheduler until `shutdown` resolves.
///
/// # Errors
/// What kept it from starting, or ended it.
pub async fn run(
    options: SchedulerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    logging::start();
    let least = 2 * SLOWEST_HEARTBEAT;
    if options.executor_timeout < least {
        let (found, least) = (options.executor_timeout, least.as_secs());
        return Err(format!(
            "--executor-timeout {found:?}: at least {least}s; executors that are busy are heard of every \
             {}s",
            SLOWEST_HEARTBEAT.as_secs()
        ));
    }
    let listen = options.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("--listen: cannot bind {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let config = Arc::new(config(&options, address));
    let failed = |error: ballista_core::error::BallistaError| error.to_string();
    let cluster = BallistaCluster::new_from_config(&config)
        .await
        .map_err(failed)?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, config);
    let scheduler = scheduler.await.map_err(failed)?;
    tracing::info!(address = %address, "listening");
    tokio::select! {
        ended = start_grpc_service_with_listener(listener, scheduler) => ended.map_err(failed)?,
        () = shutdown => {}
    }
    tracing::info!("stopped");
    Ok(())
}

fn config(options: &SchedulerOptions, address: SocketAddr) -> SchedulerConfig {
    let sessions: SessionBuilder = Arc::new(|config| {
        let mut state = default_session_builder(config)?;
        state.register_udf(Arc::new(predict::function(None)))?;
        Ok(state)
    });
    let timeout = options.executor_timeout.as_secs();
    let keep = options.keep_results.as_secs();
    SchedulerConfig {
        external_host: address.ip().to_string(),
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: timeout,
        expire_dead_executor_interval_seconds: (timeout / 10).clamp(1, 15),
        no_executors_grace_period_seconds: timeout.saturating_mul(2),
        task_max_failures: options.attempts,
        stage_max_failures: options.attempts,
        finished_job_data_clean_up_interval_seconds: keep,
        finished_job_state_clean_up_interval_seconds: keep.saturating_mul(2),
        min_ready_executors: options.ready_executors,
        enable_embedded_flight_proxy: options.proxy_results,
        override_session_builder: Some(sessions),
        ..SchedulerConfig::default()
    }
}
