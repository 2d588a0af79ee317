//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 it failed or found something wrong, 2 the command line is wrong.

pub mod backfill;
pub mod check;
pub mod cluster;
pub mod consistency;
pub mod demo;
pub mod events;
pub mod features;
pub mod keys;
pub mod ledger;
pub mod model;
pub mod observations;
pub mod output;
pub mod remote;
pub mod score;
pub mod score_store;
pub mod serve;
pub mod simulate;
pub mod train;
pub mod training_set;
pub mod views;

use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::{Parser, Subcommand};

use crate::batch::cluster::NOT_BUILT;
use crate::config::Config;
use crate::features::views::Views;
use crate::ingest::Ingest;
use crate::ledger::{Ledger, LedgerOptions};
use crate::serve::definitions::open_store;
use crate::store::OnlineStore;

/// A prediction engine in one binary: score customers with ONNX models, say why, and record what
/// happened.
#[derive(Parser)]
#[command(version, about, long_about = None, after_help = "Example:\n  bellwether demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Events(events::EventsArgs),
    Executor(cluster::ExecutorArgs),
    Features(features::FeaturesArgs),
    Keys(keys::KeysArgs),
    Ledger(ledger::LedgerArgs),
    Model(model::ModelArgs),
    Scheduler(cluster::SchedulerArgs),
    Score(score::ScoreArgs),
    Simulate(simulate::SimulateArgs),
    Train(train::TrainArgs),
}

/// Parses the command line, runs the command, and reports its error.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Events(args) => events::run(args),
        Command::Executor(args) => cluster::executor(args),
        Command::Features(args) => features::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Ledger(args) => ledger::run(args),
        Command::Model(args) => model::run(args),
        Command::Scheduler(args) => cluster::scheduler(args),
        Command::Score(args) => score::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Train(args) => train::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            match error == NOT_BUILT {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// The runtime of commands that need one.
///
/// # Errors
/// When the system gives no threads.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Opens log and store of a stopped server for changes.
///
/// # Errors
/// When the data directory is in use or cannot be opened.
fn open_ingest(config: &Config, views: &Views) -> Result<Ingest, String> {
    open_store_and_ingest(config, views).map(|(_, ingest)| ingest)
}

/// The same, with the store to be read, too.
///
/// # Errors
/// As [`open_ingest`].
fn open_store_and_ingest(
    config: &Config,
    views: &Views,
) -> Result<(Arc<dyn OnlineStore>, Ingest), String> {
    let data_dir = &config.data_dir;
    std::fs::create_dir_all(data_dir)
        .map_err(|error| format!("data directory {}: {error}", data_dir.display()))?;
    let store = open_store(config)?;
    let ledger = Ledger::open(data_dir, LedgerOptions::default());
    let ledger = Arc::new(ledger.map_err(|error| error.to_string())?);
    let current = Arc::new(ArcSwap::from_pointee(views.clone()));
    let ingest = Ingest::start(current, ledger, Arc::clone(&store), data_dir.clone());
    Ok((store, ingest.map_err(|error| error.to_string())?))
}
