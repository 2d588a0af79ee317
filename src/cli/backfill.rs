//! `bellwether features backfill`: windows that were declared later than the events they reach back to,
//! filled from the log.

use std::sync::Arc;

use clap::Args;
use serde_json::Value as Json;

use super::observations::parse_bytes;
use super::output;
use super::remote::{CredentialArgs, while_waiting};
use crate::config::{Config, ConfigArgs};
use crate::features::view::suggestion;
use crate::features::views::Views;
use crate::history::{Backfill, Bounds};
use crate::remote::Remote;
use crate::serve::definitions::open_store;

/// Fill the new windows of a view from history
///
/// A window that is added to a view counts from then on; this adds what the log has of the time before.
/// A running server does it while it serves: name it with --server. Without, the store of a stopped
/// server is filled.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether features backfill --view customer --server http://127.0.0.1:8080"
)]
pub struct BackfillArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The feature view whose windows are filled
    #[arg(long)]
    view: String,
    /// The running server that is to do it
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// Memory for sorting; what does not fit is put aside in the data directory
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = parse_bytes, conflicts_with = "server")]
    memory: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What the server says, or what keeps the store from being filled.
pub fn run(args: &BackfillArgs) -> Result<(), String> {
    let report = match &args.server {
        Some(server) => ask(&args.credentials.connect(server)?, &args.view)?,
        None => fill(args)?,
    };
    if args.json {
        return output::json(&report);
    }
    output::line(format_args!(
        "{} entities of view {} filled in {:.1} s",
        report["filled"],
        args.view,
        report["seconds"].as_f64().unwrap_or_default()
    ));
    Ok(())
}

fn ask(server: &Remote, view: &str) -> Result<Json, String> {
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if view.is_empty() || !view.chars().all(named) {
        return Err(format!(
            "--view {view:?}: expected lower-case letters, digits and underscores"
        ));
    }
    let path = format!("/v1/features/{view}/backfill");
    let answered = while_waiting("filling windows", || server.post_empty(&path));
    answered?.json()
}

fn fill(args: &BackfillArgs) -> Result<Json, String> {
    let config = Config::load(&args.config)?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let view = views.get(&args.view).ok_or_else(|| {
        let names = views.all().iter().map(|view| view.name.as_str());
        let suggestion = suggestion(&args.view, names);
        let folder = config.features.display();
        format!(
            "--view {:?}: no such view in {folder}{suggestion}",
            args.view
        )
    })?;
    let work = Backfill {
        store: open_store(&config)?,
        view: Arc::clone(view),
        bounds: Bounds {
            temp_bytes: u64::MAX,
            memory_bytes: args.memory,
            temp_dir: config.data_dir.join("tmp"),
        },
        data_dir: config.data_dir,
    };
    let bar = output::progress(None);
    let report = work.run(|entities| bar.set_position(entities));
    bar.finish_and_clear();
    let report = report.map_err(|error| error.to_string())?;
    serde_json::to_value(&report).map_err(|error| error.to_string())
}
