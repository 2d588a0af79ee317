//! `bellwether features`: load a table into the online store; look at view files (in [`views`]).

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{backfill, open_ingest, output, runtime, views};
use crate::batch::push::{ColumnMap, RejectedRow, TimeColumns, push_batch};
use crate::batch::read::Table;
use crate::batch::times::KnownAt;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;

/// How many rejected rows are printed.
const SHOWN_REJECTS: usize = 20;

/// Work with feature views
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether features push --view customer customers.csv")]
pub struct FeaturesArgs {
    #[command(subcommand)]
    command: FeaturesCommand,
}

#[derive(Subcommand)]
enum FeaturesCommand {
    Push(PushArgs),
    Backfill(backfill::BackfillArgs),
    Check(views::CheckArgs),
    Show(views::ShowArgs),
    Schema(views::SchemaArgs),
}

/// Load a CSV or Parquet file into the online store of a stopped server
///
/// Columns are matched to features by name, ignoring case and underscores. Rows with a value that
/// does not fit are rejected and listed; the others are written.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether features push --view customer customers.csv --ignore Churn"
)]
pub struct PushArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The feature view whose entities the rows are
    #[arg(long)]
    view: String,
    /// A column that is not to be loaded; may be repeated
    #[arg(long, value_name = "COLUMN")]
    ignore: Vec<String>,
    /// The column that says since when the values of a row hold [default: now]
    #[arg(long, value_name = "COLUMN")]
    occurred_at: Option<String>,
    /// History: the column that says when the values were learned, or `occurred` when that was when they
    /// began to hold [default: now]
    #[arg(long, value_name = "COLUMN|occurred")]
    known_at: Option<String>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// The table, .csv or .parquet
    file: PathBuf,
}

/// Runs a `features` subcommand.
///
/// # Errors
/// What went wrong, naming file, column or row.
pub fn run(args: FeaturesArgs) -> Result<(), String> {
    match args.command {
        FeaturesCommand::Push(args) => push(&args),
        FeaturesCommand::Backfill(args) => backfill::run(&args),
        FeaturesCommand::Check(args) => views::check(&args),
        FeaturesCommand::Show(args) => views::show(&args),
        FeaturesCommand::Schema(args) => views::schema(&args),
    }
}

fn push(args: &PushArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let view = views.get(&args.view).ok_or_else(|| {
        let names: Vec<&str> = views.all().iter().map(|view| view.name.as_str()).collect();
        format!(
            "--view {:?}: no such view; the views are: {}",
            args.view,
            names.join(", ")
        )
    })?;
    let table = Table::open(&args.file)?;
    let in_file = |problem: String| format!("{}: {problem}", args.file.display());
    let times = TimeColumns {
        occurred_at: args.occurred_at.clone(),
        known_at: KnownAt::from_argument(args.known_at.as_deref()),
    };
    let map = ColumnMap::new(&table.schema, view, &args.ignore, &times).map_err(in_file)?;
    let ingest = open_ingest(&config, &views)?;

    let bar = output::progress(table.rows);
    let mut rejected: Vec<RejectedRow> = Vec::new();
    let (mut read, mut written) = (0, 0);
    let runtime = runtime()?;
    for batch in table {
        let batch = batch.map_err(in_file)?;
        let pushed = push_batch(&ingest, view, &map, &batch, read + 1, &mut rejected);
        written += runtime.block_on(pushed).map_err(in_file)?;
        read += batch.num_rows() as u64;
        bar.set_position(read);
    }
    bar.finish_and_clear();
    for row in rejected.iter().take(SHOWN_REJECTS) {
        output::note(format_args!(
            "{} row {}: {}",
            args.file.display(),
            row.row,
            row.reason
        ));
    }
    if rejected.len() > SHOWN_REJECTS {
        output::note(format_args!(
            "… and {} more rejected rows",
            rejected.len() - SHOWN_REJECTS
        ));
    }
    if args.json {
        let summary =
            serde_json::json!({"read": read, "written": written, "rejected": rejected.len()});
        output::json(&summary)?;
    } else {
        output::line(format_args!("{written} rows written to view {}", view.name));
    }
    if rejected.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "{}: {} of {read} rows were rejected",
            args.file.display(),
            rejected.len()
        ))
    }
}
