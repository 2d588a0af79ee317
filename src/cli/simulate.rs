//! `bellwether simulate`: made-up data.

use std::fs::File;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use parquet::arrow::ArrowWriter;

use super::output;
use crate::simulate::{customers, schema};

/// Make up data for demos and load tests
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether simulate customers --rows 10000 --output customers.csv"
)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: SimulateCommand,
}

#[derive(Subcommand)]
enum SimulateCommand {
    Customers(CustomersArgs),
}

/// Make up telecom customers with the columns of the sample view
///
/// They describe nobody: values are drawn with plausible dependencies. The same seed gives the
/// same customers.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether simulate customers --rows 10000 --seed 7 --output customers.parquet"
)]
pub struct CustomersArgs {
    /// How many customers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rows: u64,
    /// Which customers
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// File to write, .csv or .parquet
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Rows made and written at a time.
const BATCH_ROWS: usize = 8192;

/// Runs a `simulate` subcommand.
///
/// # Errors
/// When the file cannot be written.
pub fn run(args: SimulateArgs) -> Result<(), String> {
    let SimulateCommand::Customers(args) = args.command;
    let failed = |problem: String| format!("{}: {problem}", args.output.display());
    let extension = args
        .output
        .extension()
        .unwrap_or_default()
        .to_ascii_lowercase();
    if extension != "csv" && extension != "parquet" {
        return Err(failed(
            "expected a file ending in .csv or .parquet".to_owned(),
        ));
    }
    let file = File::create(&args.output).map_err(|error| failed(error.to_string()))?;
    let bar = output::progress(Some(args.rows));
    if extension == "csv" {
        let mut writer = arrow::csv::Writer::new(std::io::BufWriter::new(file));
        for batch in customers(args.rows, args.seed, BATCH_ROWS) {
            let batch = batch?;
            writer
                .write(&batch)
                .map_err(|error| failed(error.to_string()))?;
            bar.inc(batch.num_rows() as u64);
        }
        let mut buffer = writer.into_inner();
        std::io::Write::flush(&mut buffer).map_err(|error| failed(error.to_string()))?;
    } else {
        let mut writer =
            ArrowWriter::try_new(file, schema(), None).map_err(|e| failed(e.to_string()))?;
        for batch in customers(args.rows, args.seed, BATCH_ROWS) {
            let batch = batch?;
            writer
                .write(&batch)
                .map_err(|error| failed(error.to_string()))?;
            bar.inc(batch.num_rows() as u64);
        }
        writer.close().map_err(|error| failed(error.to_string()))?;
    }
    bar.finish_and_clear();
    output::line(format_args!(
        "{} customers written to {}",
        args.rows,
        args.output.display()
    ));
    Ok(())
}
