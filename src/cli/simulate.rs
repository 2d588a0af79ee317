//! `bellwether simulate`: made-up data.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use parquet::arrow::ArrowWriter;

use super::output;
use crate::clock;
use crate::simulate::customers::{customers, schema};
use crate::simulate::events::events;

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
    Events(EventsArgs),
}

/// Make up what happened to these customers in the last 30 days, as `bellwether events load` takes it
///
/// Data used, payments and support tickets. The same seed and time give the same events.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether simulate events --customers 10000 --output events.ndjson"
)]
pub struct EventsArgs {
    /// Of how many customers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    customers: u64,
    /// Which events
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The time before which they happened, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// File to write, .ndjson
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
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
    match args.command {
        SimulateCommand::Customers(args) => make_customers(&args),
        SimulateCommand::Events(args) => make_events(&args),
    }
}

fn make_events(args: &EventsArgs) -> Result<(), String> {
    let failed = |problem: String| format!("{}: {problem}", args.output.display());
    if args.output.extension().is_none_or(|end| end != "ndjson") {
        return Err(failed("expected a file ending in .ndjson".to_owned()));
    }
    let now_us = match &args.until {
        None => clock::now_us(),
        Some(text) => clock::from_rfc3339(text).map_err(|problem| format!("--until: {problem}"))?,
    };
    let file = File::create(&args.output).map_err(|error| failed(error.to_string()))?;
    let mut writer = std::io::BufWriter::new(file);
    let mut written = 0_u64;
    for event in events(args.customers, args.seed, now_us) {
        writeln!(writer, "{}", event.to_json()).map_err(|error| failed(error.to_string()))?;
        written += 1;
    }
    writer.flush().map_err(|error| failed(error.to_string()))?;
    output::line(format_args!(
        "{written} events of {} customers written to {}",
        args.customers,
        args.output.display()
    ));
    Ok(())
}

fn make_customers(args: &CustomersArgs) -> Result<(), String> {
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
        buffer.flush().map_err(|error| failed(error.to_string()))?;
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
