//! `bellwether features`: load a table into the online store; look at view files (in [`views`]).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use super::remote::CredentialArgs;
use super::{backfill, open_ingest, output, runtime, views};
use crate::batch::push::{ColumnMap, RejectedRow, TimeColumns, push_batch};
use crate::batch::push_remote::{self, ANSWER_TIMEOUT};
use crate::batch::read::Table;
use crate::batch::times::KnownAt;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;
use crate::ingest::Ingest;
use crate::remote::Remote;

/// How many rejected rows are printed.
const SHOWN_REJECTS: usize = 20;

/// Where rows go.
enum Destination {
    /// A data directory that no server has open.
    DataDir(Box<Ingest>, Runtime),
    Server(Remote),
}

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

/// Load a CSV or Parquet file into the online store of a stopped server, or of a running one
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
    /// The running server; without it the rows go into the data directory, which no server may have open
    #[arg(long, value_name = "URL", conflicts_with = "known_at")]
    server: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
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
    let destination = match &args.server {
        Some(url) => Destination::Server(args.credentials.connect(url)?.within(ANSWER_TIMEOUT)),
        None => Destination::DataDir(Box::new(open_ingest(&config, &views)?), runtime()?),
    };

    let bar = output::progress(table.rows);
    let mut rejected: Vec<RejectedRow> = Vec::new();
    let (mut read, mut written) = (0, 0);
    let mut more_rejected = 0;
    for batch in table {
        let batch = batch.map_err(in_file)?;
        let first = read + 1;
        match &destination {
            Destination::DataDir(ingest, runtime) => {
                let pushed = push_batch(ingest, view, &map, &batch, first, &mut rejected);
                written += runtime.block_on(pushed).map_err(in_file)?;
            }
            Destination::Server(server) => {
                let pushed =
                    push_remote::push_batch(server, view, &map, &batch, first, &mut rejected);
                let (taken, more) = pushed.map_err(in_file)?;
                written += taken;
                more_rejected += more;
            }
        }
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
    let shown = rejected.len().min(SHOWN_REJECTS) as u64;
    let rejected = rejected.len() as u64 + more_rejected;
    if rejected > shown {
        output::note(format_args!(
            "… and {} more rejected rows",
            rejected - shown
        ));
    }
    if args.json {
        let summary = serde_json::json!({"read": read, "written": written, "rejected": rejected});
        output::json(&summary)?;
    } else {
        output::line(format_args!("{written} rows written to view {}", view.name));
    }
    match rejected {
        0 => Ok(()),
        _ => Err(format!(
            "{}: {rejected} of {read} rows were rejected",
            args.file.display()
        )),
    }
}
