//! The command line: one file per subcommand.
//!
//! Exit codes: 0 done, 1 it failed or found something wrong, 2 the command line is wrong.

pub mod check;
pub mod demo;
pub mod features;
pub mod ledger;
pub mod output;
pub mod serve;
pub mod simulate;
pub mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Features(features::FeaturesArgs),
    Ledger(ledger::LedgerArgs),
    Simulate(simulate::SimulateArgs),
    Train(train::TrainArgs),
}

/// Parses the command line, runs the command, and reports its error.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Features(args) => features::run(args),
        Command::Ledger(args) => ledger::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Train(args) => train::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
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
