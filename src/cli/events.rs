//! `bellwether events`: load files of events.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::remote::CredentialArgs;
use super::{open_ingest, output, runtime};
use crate::batch::destination::Destination;
use crate::batch::event_file::EventFile;
use crate::batch::event_table::EventColumns;
use crate::batch::resume::Resume;
use crate::batch::times::KnownAt;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;

/// How many rejected rows of a file are printed.
const SHOWN_REJECTS: u64 = 20;

/// Load what happened, for window features
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether events load tickets.ndjson")]
pub struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Subcommand)]
enum EventsCommand {
    Load(LoadArgs),
}

/// Load files of events into the data directory of a stopped server, or into a running one
///
/// Lines of .ndjson and .jsonl files, also with .gz, are events as POST /v1/events takes them. Rows of
/// .csv and .parquet files are events: the columns event_id, event, occurred_at and the key columns of
/// the views are what they are called, every other one is a property. Rows that are wrong are listed;
/// the others are loaded. Loading a file again goes on where it was stopped, and is safe: events are
/// recognised by their ids.
#[derive(Args)]
#[command(after_help = "Examples:
  bellwether events load tickets.ndjson.gz
  bellwether events load tickets.parquet --server http://127.0.0.1:8080
  bellwether events load calls.csv --event call --column occurred_at=start --event-id-from caller,start
  bellwether events load history.parquet --known-at occurred")]
pub struct LoadArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Send to this running server instead of writing to the data directory
    #[arg(long, value_name = "URL", conflicts_with = "known_at")]
    server: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// The name of every event, for a table without a column that says it
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Which column of a table is a field of an event; may be repeated
    #[arg(long = "column", value_name = "FIELD=COLUMN", value_parser = read_pair)]
    columns: Vec<(String, String)>,
    /// Make the ids of the events from these columns, which tell one from another
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    event_id_from: Vec<String>,
    /// A column that is no property; may be repeated
    #[arg(long, value_name = "COLUMN")]
    ignore: Vec<String>,
    /// A column of a CSV file that is text although it looks like numbers; may be repeated
    #[arg(long, value_name = "COLUMN")]
    text: Vec<String>,
    /// History: the column that says when each event was learned, or `occurred` when that was at once
    /// [default: now]
    #[arg(long, value_name = "COLUMN|occurred")]
    known_at: Option<String>,
    /// Begin at the first row also when the file was loaded before
    #[arg(long)]
    from_start: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
    /// The files, .ndjson, .jsonl (also .gz), .csv or .parquet
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, column)) if !field.is_empty() && !column.is_empty() => {
            Ok((field.to_owned(), column.to_owned()))
        }
        _ => Err("expected FIELD=COLUMN, for example occurred_at=opened".to_owned()),
    }
}

/// Runs an `events` subcommand.
///
/// # Errors
/// What went wrong, naming file, row or column.
pub fn run(args: EventsArgs) -> Result<(), String> {
    match args.command {
        EventsCommand::Load(args) => load(&args),
    }
}

/// What became of the rows of all files.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    /// Rows or lines that were read now.
    read: u64,
    /// Events that are new.
    written: u64,
    /// Events that were known by their ids.
    duplicates: u64,
    /// Rows and events that were refused.
    rejected: u64,
    /// Rows that an earlier load had done.
    resumed: u64,
}

fn load(args: &LoadArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let columns = EventColumns {
        event: args.event.clone(),
        renamed: args.columns.clone(),
        id_from: args.event_id_from.clone(),
        ignored: args.ignore.clone(),
        text: args.text.clone(),
        known_at: KnownAt::from_argument(args.known_at.as_deref()),
    };
    let destination = match &args.server {
        Some(url) => Destination::server(args.credentials.connect(url)?),
        None => Destination::DataDir(runtime()?, open_ingest(&config, &views)?),
    };
    let mut summary = Summary::default();
    for file in &args.files {
        let before = summary.read;
        let loaded = load_file(
            args,
            &config,
            &views,
            &columns,
            &destination,
            file,
            &mut summary,
        );
        loaded.map_err(|problem| {
            let kept = match summary.read > before {
                true => "; what was loaded is kept, and the same command goes on there",
                false => "",
            };
            format!("{}: {problem}{kept}", file.display())
        })?;
    }
    if args.json {
        output::json(&summary)?;
    } else {
        let Summary {
            written,
            duplicates,
            resumed,
            ..
        } = summary;
        output::line(format_args!(
            "{written} events loaded, {duplicates} known already"
        ));
        if resumed > 0 {
            output::note(format_args!(
                "{resumed} rows were loaded before; --from-start reads them again"
            ));
        }
    }
    if summary.rejected == 0 {
        Ok(())
    } else {
        let Summary { read, rejected, .. } = summary;
        Err(format!("{rejected} of {read} rows were rejected"))
    }
}

fn load_file(
    args: &LoadArgs,
    config: &Config,
    views: &Views,
    columns: &EventColumns,
    destination: &Destination,
    file: &Path,
    summary: &mut Summary,
) -> Result<(), String> {
    // A running server keeps no positions for us; ids make sending a file again safe.
    let mut resume = match destination {
        Destination::DataDir(..) => Some(Resume::new(
            &config.data_dir,
            file,
            &format!("{columns:?}"),
        )?),
        Destination::Server(..) => None,
    };
    if args.from_start
        && let Some(resume) = &mut resume
    {
        resume.start_over();
    }
    let before = resume.as_ref().map(|resume| resume.progress().clone());
    let done = before.as_ref().map_or(0, |progress| progress.rows);
    summary.resumed += done;
    if before.is_some_and(|progress| progress.is_done) {
        return Ok(());
    }
    let mut events = EventFile::open(file, views, columns, &config.events, done)?;
    let loaded = load_rows(
        views,
        config,
        destination,
        file,
        &mut events,
        &mut resume,
        summary,
    );
    if let Some(resume) = &mut resume {
        match &loaded {
            Ok(()) => resume.finish()?,
            Err(_) => resume.write()?,
        }
    }
    loaded
}

fn load_rows(
    views: &Views,
    config: &Config,
    destination: &Destination,
    file: &Path,
    events: &mut EventFile,
    resume: &mut Option<Resume>,
    summary: &mut Summary,
) -> Result<(), String> {
    let bar = progress_of(events);
    let mut shown = 0;
    while let Some(chunk) = events.next(views, &config.events)? {
        let events_read = chunk.changes.len() as u64;
        let sent = destination.send(chunk.changes)?;
        let refused = sent.refused.len() as u64 + sent.more_refused;
        summary.read += chunk.read;
        summary.duplicates += sent.duplicates;
        summary.rejected += chunk.rejected.len() as u64 + refused;
        summary.written += events_read.saturating_sub(sent.duplicates + refused);
        let row_of = |change: usize| chunk.rows.get(change).copied().unwrap_or_default();
        let mut rejected = chunk.rejected;
        let refused = sent.refused.into_iter();
        rejected.extend(refused.map(|(change, reason)| (row_of(change), reason)));
        for (row, reason) in rejected {
            shown += 1;
            if shown <= SHOWN_REJECTS {
                let place = file.display();
                bar.suspend(|| output::note(format_args!("{place} row {row}: {reason}")));
            }
        }
        if let Some(resume) = resume {
            resume.advance(events.position())?;
        }
        match events.total_rows {
            Some(_) => bar.set_position(events.position()),
            None => bar.set_position(events.bytes_read.load(Ordering::Relaxed)),
        }
    }
    bar.finish_and_clear();
    if shown > SHOWN_REJECTS {
        let more = shown - SHOWN_REJECTS;
        output::note(format_args!("… and {more} more rejected rows"));
    }
    Ok(())
}

fn progress_of(events: &EventFile) -> ProgressBar {
    match events.total_rows {
        Some(rows) => output::progress(Some(rows)),
        None => output::progress_of_bytes(events.bytes),
    }
}
