//! `bellwether ledger`: verify and export the ledger of a stopped server, and read what was known when.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{consistency, output, training_set};
use crate::config::{Config, ConfigArgs};
use crate::ledger;

/// Verify and export the ledger of predictions, inferences and outcomes, and join it with observations
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether ledger verify --data-dir data")]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Subcommand)]
enum LedgerCommand {
    Verify(VerifyArgs),
    Export(ExportArgs),
    TrainingSet(training_set::TrainingSetArgs),
    Consistency(consistency::ConsistencyArgs),
}

/// Read the whole ledger and say whether it is sound
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether ledger verify --data-dir data\n\nExit code 0 when sound, 1 when not."
)]
pub struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Write predictions, inferences, outcomes and changes as files for Polars, DuckDB or pandas
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether ledger export --data-dir data --format parquet --output export"
)]
pub struct ExportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// Directory to write to; made when it does not exist
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Parquet,
}

/// Runs a `ledger` subcommand.
///
/// # Errors
/// When the ledger is in use, missing or not sound, or files cannot be written.
pub fn run(args: LedgerArgs) -> Result<(), String> {
    match args.command {
        LedgerCommand::TrainingSet(args) => training_set::run(args),
        LedgerCommand::Consistency(args) => consistency::run(&args),
        LedgerCommand::Verify(args) => {
            let config = Config::load(&args.config)?;
            let report = ledger::verify(&config.data_dir).map_err(|error| error.to_string())?;
            if args.json {
                output::json(&report)?;
            } else {
                output::line(&report);
            }
            if report.sound() {
                Ok(())
            } else {
                Err("the ledger is not sound".to_owned())
            }
        }
        LedgerCommand::Export(args) => {
            let config = Config::load(&args.config)?;
            let Format::Parquet = args.format;
            let report = ledger::export_parquet(&config.data_dir, &args.output)
                .map_err(|error| error.to_string())?;
            if args.json {
                output::json(&report)?;
            } else {
                output::line(&report);
            }
            Ok(())
        }
    }
}
