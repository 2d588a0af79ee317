//! `bellwether scheduler` and `bellwether executor`: the services of a cluster.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::score::bytes;
use crate::batch::cluster::{ExecutorOptions, SchedulerOptions, check_listen, read_url};
use crate::config::{Config, ConfigArgs};

/// Serve as the scheduler of a cluster for `score --cluster`
///
/// Apache Ballista's scheduler. Nobody is authenticated: keep its port inside a private network. Its
/// jobs are in memory, and end with it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether scheduler --listen 127.0.0.1:50050\n\n\
    /healthz and /readyz answer on the same port."
)]
pub struct SchedulerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:50050",
        env = "BELLWETHER_SCHEDULER_LISTEN"
    )]
    listen: SocketAddr,
    /// Listen on an address other machines can reach: whoever does can run plans and read files
    #[arg(long, env = "BELLWETHER_CLUSTER_ALLOW_REMOTE")]
    allow_remote: bool,
    /// An executor that was not heard of for so long is lost, and its tasks are given to others
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    executor_timeout: Duration,
    /// How often a task is tried before its job fails
    #[arg(long, value_name = "N", default_value = "4")]
    task_attempts: NonZero<usize>,
    /// How long the results of a finished job are kept, to be fetched
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    keep_results: Duration,
    /// Ready (/readyz) when so many executors are there
    #[arg(long, value_name = "N", default_value_t = 1)]
    ready_executors: usize,
    /// Hand the results of executors on, for commands that reach the scheduler only
    #[arg(long)]
    proxy_results: bool,
}

/// Serve as an executor of a cluster for `score --cluster`
///
/// Apache Ballista's executor, with the models of a repository. A job names versions and view by their
/// digests; what is not the same here is refused. Nobody is authenticated: keep its port inside a private
/// network.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    bellwether executor --scheduler http://127.0.0.1:50050 --models models --features features")]
pub struct ExecutorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The scheduler, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "BELLWETHER_CLUSTER", value_parser = read_url)]
    scheduler: String,
    /// Address to listen on for whoever fetches results; port 0 takes a free one
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:50051",
        env = "BELLWETHER_EXECUTOR_LISTEN"
    )]
    listen: SocketAddr,
    /// Listen on an address other machines can reach: whoever does can read the results of jobs
    #[arg(long, env = "BELLWETHER_CLUSTER_ALLOW_REMOTE")]
    allow_remote: bool,
    /// The host by which others reach this executor [default: the address that the scheduler sees]
    #[arg(long, value_name = "HOST", env = "BELLWETHER_EXECUTOR_ADVERTISE")]
    advertise: Option<String>,
    /// Tasks at the same time [default: one for each core]
    #[arg(long, value_name = "N")]
    concurrent_tasks: Option<NonZero<usize>>,
    /// What the rows that are being scored may take, in bytes, or like 512MiB or 2GB
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// Where results are kept until they are fetched [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// How long to try to reach the scheduler when starting
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    connect_timeout: Duration,
}

/// Runs the scheduler until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or that this binary is built without it.
pub fn scheduler(args: SchedulerArgs) -> Result<(), String> {
    let options = SchedulerOptions {
        listen: args.listen,
        executor_timeout: args.executor_timeout,
        attempts: args.task_attempts.get(),
        keep_results: args.keep_results,
        ready_executors: args.ready_executors,
        proxy_results: args.proxy_results,
    };
    serve_scheduler(options, args.allow_remote)
}

/// Runs an executor until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or that this binary is built without it.
pub fn executor(args: ExecutorArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let options = ExecutorOptions {
        scheduler: args.scheduler,
        listen: args.listen,
        advertise: args.advertise,
        models: config.models,
        features: config.features,
        tasks: args.concurrent_tasks.map_or(cores, NonZero::get),
        memory: args.memory,
        work_dir: args.work_dir.unwrap_or_else(std::env::temp_dir),
        connect_timeout: args.connect_timeout,
    };
    serve_executor(options, args.allow_remote)
}

#[cfg(feature = "full")]
fn serve_scheduler(options: SchedulerOptions, allow_remote: bool) -> Result<(), String> {
    use crate::batch::cluster::scheduler;
    check_listen(options.listen, allow_remote)?;
    crate::telemetry::start_logging();
    let runtime = super::runtime()?;
    let ended = runtime.block_on(async {
        let shutdown = super::serve::shutdown_signal()?;
        scheduler::run(options, shutdown).await
    });
    // Whoever is connected still is not waited for.
    runtime.shutdown_background();
    ended
}

#[cfg(feature = "full")]
fn serve_executor(options: ExecutorOptions, allow_remote: bool) -> Result<(), String> {
    use crate::batch::cluster::executor;
    check_listen(options.listen, allow_remote)?;
    crate::telemetry::start_logging();
    let runtime = super::runtime()?;
    let ended = runtime.block_on(async {
        let shutdown = super::serve::shutdown_signal()?;
        executor::run(options, shutdown).await
    });
    // Tasks that run still are not waited for: others run them again.
    runtime.shutdown_background();
    ended
}

#[cfg(not(feature = "full"))]
fn serve_scheduler(options: SchedulerOptions, allow_remote: bool) -> Result<(), String> {
    check_listen(options.listen, allow_remote)?;
    Err(crate::batch::cluster::NOT_BUILT.to_owned())
}

#[cfg(not(feature = "full"))]
fn serve_executor(options: ExecutorOptions, allow_remote: bool) -> Result<(), String> {
    check_listen(options.listen, allow_remote)?;
    Err(crate::batch::cluster::NOT_BUILT.to_owned())
}
