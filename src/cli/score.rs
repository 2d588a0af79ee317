//! `bellwether score`: whole tables, on this machine or on a cluster.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::remote::CredentialArgs;
use super::{output, score_store};
use crate::batch::cluster::{Cluster, NOT_BUILT, read_url};
use crate::batch::score::bands::Bands;
use crate::batch::score::bind::ColumnOptions;
use crate::batch::score::limit::RejectLimit;
use crate::batch::score::plan::Asked;
use crate::batch::score::{Job, News, run as run_job};
use crate::config::{Config, ConfigArgs};
use crate::priority;
use crate::serve::definitions::load_definitions;

/// Score whole tables or the online store: a file out, or scores back into the store
///
/// Every row of the input that can be read gets a row in the output: its key and, for each model, the
/// score, the label where there is one, and the version. The scores are those of `POST /v1/score` for the
/// same values, to the bit. Columns are matched to features by name, ignoring case, underscores and
/// spaces.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bellwether score --model churn --input customers.parquet --output scores.parquet\n  \
    bellwether score --model churn,upsell --input 'base/*.csv' --output scores.csv --max-rejects 0.1%\n  \
    bellwether score --model churn --input base.parquet --output scores.parquet --diff scores.parquet \\\n    \
    --html scores.html --resume\n  \
    bellwether score --model churn --from-store --server http://127.0.0.1:8080 --output scores.parquet \\\n    \
    --to-store\n\n\
    The state of an unfinished job is in <output>.job; --resume goes on with it.")]
pub struct ScoreArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The models to score with, all in one pass; the champion of each answers
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    model: Vec<String>,
    /// A file (.parquet, .csv, .ndjson, .arrow), a folder, or a pattern like 'base/*.parquet'; may be
    /// repeated
    #[arg(long, value_name = "FILE", required_unless_present = "from_store")]
    input: Vec<PathBuf>,
    /// Score every entity of the models' view in the online store instead: that of --server, else that in
    /// --data-dir, or on Redis as configured
    #[arg(long, conflicts_with_all = ["input", "column", "without"])]
    from_store: bool,
    /// The file to write, .parquet, .csv or .arrow; it is replaced when the job is done
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// When the output is complete, write the scores and labels into the online store (that of --server, else
    /// as --from-store) as the features of their names, or the columns that are named here
    #[arg(long, value_name = "FEATURE=COLUMN", num_args = 0..=1, value_delimiter = ',',
        value_parser = feature_and_column)]
    to_store: Option<Vec<(String, String)>>,
    /// The running server whose store is read or written; without it no server may have the store open
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    credentials: CredentialArgs,
    /// The column that holds a feature or a part of the key, where the names differ; may be repeated
    #[arg(long, value_name = "FEATURE=COLUMN", value_parser = feature_and_column)]
    column: Vec<(String, String)>,
    /// A feature that the input does not have and whose default is meant for every row; may be repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    without: Vec<String>,
    /// Write the reasons for each score, at most this many contributions; slow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    explain: Option<u16>,
    /// Threads that score [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// What the job may take, in bytes, or like 512MiB or 2GB
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    memory: u64,
    /// The file for rows that could not be scored [default: <output>.rejects.ndjson]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Stop when more rows than this are rejected, a number or a percentage [default: 100 and 1%]
    #[arg(long, value_name = "N|P%", value_parser = RejectLimit::read)]
    max_rejects: Option<RejectLimit>,
    /// Rows between two points from which an interrupted job can go on
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_rows: u64,
    /// Go on with a job that was interrupted
    #[arg(long)]
    resume: bool,
    /// The output of an earlier run, to compare with: who moved from which band of scores to which. It may
    /// be the file that --output replaces
    #[arg(long, value_name = "LAST")]
    diff: Option<PathBuf>,
    /// The scores at which bands begin, like 0.1,0.3,0.5 [default: 0.2,0.4,0.6,0.8; of a regression, the
    /// quintiles of the last run]
    #[arg(long, value_name = "EDGES", value_parser = Bands::read)]
    bands: Option<Bands>,
    /// With --diff, how many of those who moved most are told, up and down each
    #[arg(long, value_name = "N", default_value_t = 20, requires = "diff",
        value_parser = clap::value_parser!(u16).range(..=1000))]
    movers: u16,
    /// Write the summary as a page, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Score on a cluster: http://HOST:PORT of its scheduler. Input files, models and features have to be
    /// where the cluster finds them by the same paths; rows come in any order
    #[arg(long, value_name = "URL", env = "BELLWETHER_CLUSTER", value_parser = read_url,
        conflicts_with_all = ["resume", "threads", "checkpoint_rows", "from_store"])]
    cluster: Option<String>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn feature_and_column(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((feature, column)) if !feature.is_empty() && !column.is_empty() => {
            Ok((feature.to_owned(), column.to_owned()))
        }
        _ => Err(format!("expected FEATURE=COLUMN, found {text:?}")),
    }
}

/// Reads a number of bytes, with or without a unit.
///
/// # Errors
/// What was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let problem = || format!("expected bytes, or a number with a unit like 512MiB, found {text:?}");
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .ok_or_else(problem)?;
    let number: u64 = number.trim().parse().map_err(|_| problem())?;
    number.checked_mul(unit).ok_or_else(problem)
}

/// Shows how far the job is.
fn show(shown: &OnceLock<(ProgressBar, bool)>, news: News<'_>) {
    match news {
        News::Begin { rows, bytes, done } => {
            // Text does not say how many rows it is: how far it is shows in its bytes.
            let (bar, _) = shown.get_or_init(|| match rows {
                Some(_) => (output::progress(rows), true),
                // Nor does a store, of whatever size.
                None if bytes == 0 => (output::progress(None), true),
                None => (bar_of_text(bytes), false),
            });
            bar.set_position(if rows.is_some() { done } else { 0 });
            // What was done before says nothing of how quick it is now.
            bar.reset_eta();
        }
        News::Done { rows, bytes } => match shown.get() {
            Some((bar, true)) => bar.set_position(rows),
            Some((bar, false)) => {
                let seconds = bar.elapsed().as_secs_f64().max(1e-3);
                bar.set_message(format!("{rows} rows, {:.0}/s", rows as f64 / seconds));
                bar.set_position(bytes);
            }
            None => {}
        },
        News::Remark(text) => output::note(text),
    }
}

fn bar_of_text(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {msg}, {percent} %, {eta} left");
    let bar = output::progress_of_bytes(bytes);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Runs `score`.
///
/// # Errors
/// What went wrong, naming file, column or row.
pub fn run(args: ScoreArgs) -> Result<(), String> {
    if args.cluster.is_some() && !cfg!(feature = "full") {
        return Err(NOT_BUILT.to_owned());
    }
    let config = Config::load(&args.config)?;
    let (views, repository) = load_definitions(&config)?;
    let asked = score_store::Asked {
        server: args.server.as_deref(),
        credentials: &args.credentials,
        is_read: args.from_store,
        is_written: args.to_store.is_some(),
    };
    let store = score_store::open(&config, &views, &asked)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let job = Job {
        asked: Asked {
            models: args.model,
            explain: args.explain.map(usize::from),
            columns: ColumnOptions {
                named: args.column,
                without: args.without,
            },
            checkpoint_rows: args.checkpoint_rows,
            bands: args.bands,
        },
        inputs: args.input,
        output: args.output,
        rejects: args.rejects,
        limit: args.max_rejects.unwrap_or(RejectLimit::Usual),
        // On a cluster one thread here takes the rows that come back.
        threads: match args.cluster {
            Some(_) => 1,
            None => args.threads.map_or(cores, NonZero::get),
        },
        memory: args.memory,
        resume: args.resume,
        diff: args.diff,
        movers: usize::from(args.movers),
        html: args.html,
        cluster: args.cluster.map(|url| Cluster { url }),
        store,
        from_store: args.from_store,
        to_store: args.to_store,
    };
    priority::lower_session();
    let shown = OnceLock::new();
    let done = run_job(&repository, &job, &|news| show(&shown, news));
    if let Some((bar, _)) = shown.get() {
        bar.finish_and_clear();
    }
    let summary = done?;
    if args.json {
        return output::json(&summary);
    }
    for line in summary.lines() {
        output::line(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_or_none() {
        for (text, expected) in [
            ("1024", 1024),
            ("2GiB", 2 << 30),
            ("512 MiB", 512 << 20),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(expected));
        }
        for text in ["", "x", "1TB", "-1", "99999999999999999999"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
