//! An executor: Ballista's, with the function `predict` and the models of a repository.
//!
//! It asks the scheduler for tasks, runs them, and keeps what they make in its working folder until the job
//! is cleaned up. At the end it tells the scheduler, which gives its tasks to others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::BallistaCodec;
use ballista_core::serde::protobuf::ExecutorStoppedParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::utils::{
    GrpcClientConfig, GrpcServerConfig, create_grpc_client_endpoint, create_grpc_server,
    default_config_producer,
};
use ballista_core::{JobId, RuntimeProducer};
use ballista_executor::execution_engine::{DefaultExecutionEngine, QueryStageExecutor};
use ballista_executor::execution_loop::poll_loop;
use ballista_executor::executor::Executor;
use ballista_executor::executor_process::{ExecutorProcessConfig, structure_executor_metadata};
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::health::ExecutorHealth;
use ballista_executor::metrics::ExecutorMetricsCollector;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use super::models::Models;
use super::{ExecutorOptions, logging, predict};

/// The largest message between the services of a cluster, in bytes: a batch of rows, or a plan.
const MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How long the scheduler may take to hear that the executor ends.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// Says in the log which tasks are done.
struct TasksDone;

impl ExecutorMetricsCollector for TasksDone {
    fn record_stage(
        &self,
        job: &JobId,
        stage: usize,
        task: usize,
        _plan: Arc<dyn QueryStageExecutor>,
    ) {
        tracing::info!(job = %job, stage, task, "task done");
    }
}

/// A folder of this process alone, removed at the end.
struct OwnFolder(PathBuf);

impl Drop for OwnFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            let folder = self.0.display();
            tracing::warn!(%folder, %error, "the working folder could not be removed");
        }
    }
}

/// Runs an executor until `shutdown` resolves.
///
/// # Errors
/// What kept it from starting, or ended it.
pub async fn run(
    options: ExecutorOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    logging::start();
    let listen = options.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("--listen: cannot bind {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let id = crate::clock::new_id().to_string();
    let folder = OwnFolder(make_folder(&options.work_dir, &id)?);
    let work_dir = folder.0.to_string_lossy().into_owned();

    let mut shutdown = std::pin::pin!(shutdown);
    let connected = tokio::select! {
        connected = connect(&options) => connected?,
        () = &mut shutdown => return Ok(()),
    };
    let scheduler = SchedulerGrpcClient::new(connected)
        .max_encoding_message_size(MESSAGE_BYTES)
        .max_decoding_message_size(MESSAGE_BYTES);
    let metadata = structure_executor_metadata(
        &Arc::new(ExecutorProcessConfig {
            executor_id: id.clone(),
            external_host: options.advertise.clone(),
            port: address.port(),
            // Nobody connects to it: this executor asks.
            grpc_port: address.port(),
            ..ExecutorProcessConfig::default()
        }),
        u32::try_from(options.tasks).unwrap_or(u32::MAX),
    );
    let temporary = folder.0.clone();
    let environment = RuntimeEnvBuilder::new().with_temp_file_path(temporary);
    let environment = environment.build_arc().map_err(|error| error.to_string())?;
    let environments: RuntimeProducer = Arc::new(move |_| Ok(Arc::clone(&environment)));
    let models = Models::new(
        options.models,
        options.features,
        options.tasks,
        options.memory,
    );
    let mut functions = BallistaFunctionRegistry::default();
    let function = Arc::new(predict::function(Some(Arc::new(models))));
    functions
        .scalar_functions
        .insert(predict::NAME.to_owned(), function);
    let executor = Arc::new(Executor::new(
        metadata,
        &work_dir,
        environments,
        Arc::new(default_config_producer),
        Arc::new(functions),
        Arc::new(TasksDone),
        options.tasks,
        Arc::new(DefaultExecutionEngine::new()),
    ));

    let mut services: JoinSet<Result<(), String>> = JoinSet::new();
    let results = FlightServiceServer::new(BallistaFlightService::new(work_dir))
        .max_encoding_message_size(MESSAGE_BYTES)
        .max_decoding_message_size(MESSAGE_BYTES);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    services.spawn(async move {
        let server = create_grpc_server(&GrpcServerConfig::default()).add_service(results);
        let ended = server.serve_with_incoming(connections).await;
        ended.map_err(|error| error.to_string())
    });
    let asking = scheduler.clone();
    services.spawn(async move {
        let codec = BallistaCodec::default();
        let health = ExecutorHealth::new();
        let ended = poll_loop(asking, executor, codec, None, None, health).await;
        ended.map_err(|error| error.to_string())
    });
    tracing::info!(address = %address, executor = id, tasks = options.tasks, "listening");
    tokio::select! {
        Some(ended) = services.join_next() => {
            let ended = ended.map_err(|error| error.to_string())?;
            return ended.and(Err("it stopped taking tasks".to_owned()));
        }
        () = &mut shutdown => {}
    }
    // No task is asked for any more before the scheduler hears that there will be none.
    services.abort_all();
    say_goodbye(scheduler, id).await;
    tracing::info!("stopped");
    Ok(())
}

fn make_folder(work_dir: &Path, id: &str) -> Result<PathBuf, String> {
    let folder = work_dir.join(format!("executor-{id}"));
    let made = std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
    made.map_err(|error| format!("--work-dir: {}: {error}", folder.display()))
}

/// Connects to the scheduler, which may still be starting.
async fn connect(options: &ExecutorOptions) -> Result<Channel, String> {
    let url = &options.scheduler;
    let until = tokio::time::Instant::now() + options.connect_timeout;
    loop {
        let endpoint = create_grpc_client_endpoint(url.clone(), Some(&GrpcClientConfig::default()))
            .map_err(|error| format!("--scheduler {url}: {error}"))?;
        let endpoint = endpoint.connect_timeout(options.connect_timeout);
        let problem = match endpoint.connect().await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if tokio::time::Instant::now() + RECONNECT_PAUSE > until {
            let waited = options.connect_timeout;
            return Err(format!(
                "--scheduler {url}: not reached in {waited:?} (--connect-timeout): {problem}"
            ));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn say_goodbye(mut scheduler: SchedulerGrpcClient<Channel>, executor_id: String) {
    let goodbye = scheduler.executor_stopped(ExecutorStoppedParams {
        executor_id,
        reason: "it was told to stop".to_owned(),
    });
    let told = tokio::time::timeout(GOODBYE_PATIENCE, goodbye).await;
    if !matches!(told, Ok(Ok(_))) {
        tracing::warn!(
            "the scheduler did not hear that this executor stops; it finds out by itself"
        );
    }
}
