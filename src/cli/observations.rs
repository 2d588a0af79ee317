//! `bellwether ledger training-set --observations`: observations with the features that were known at
//! their time.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output;
use super::training_set::LedgersArgs;
use crate::features::view::suggestion;
use crate::features::views::Views;
use crate::history::log::ChangeLog;
use crate::history::{Bounds, TrainingSet};

/// The least memory that a plan can sort in.
const LEAST_MEMORY_BYTES: usize = 16 * 1024 * 1024;

/// What belongs to observations.
#[derive(Args)]
pub struct ObservationsArgs {
    /// With --observations: the feature view whose entities were observed
    #[arg(long, value_name = "NAME", requires = "observations")]
    view: Option<String>,
    /// With --observations: the column with the time of the observation [default: observed_at]
    #[arg(long, value_name = "COLUMN", requires = "observations")]
    observed_at: Option<String>,
    /// With --observations: the features wanted, with commas between them [default: all of the view]
    #[arg(
        long,
        value_name = "FEATURES",
        value_delimiter = ',',
        requires = "observations"
    )]
    columns: Option<Vec<String>>,
    /// With --observations: memory for sorting; what does not fit is put aside in the data directory
    /// [default: 1GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "observations")]
    memory: Option<usize>,
}

/// Writes the file and says what is in it.
///
/// # Errors
/// What went wrong, naming file, column or row.
pub fn run(
    observations: PathBuf,
    args: ObservationsArgs,
    ledgers: LedgersArgs,
    file: &Path,
    json: bool,
) -> Result<(), String> {
    if ledgers.asks_for_labels() {
        return Err(
            "--as-of and --since are for --model; each observation has its own time".to_owned(),
        );
    }
    let (config, directories) = ledgers.config()?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let names = || views.all().iter().map(|view| view.name.as_str());
    let wanted = args.view.ok_or_else(|| {
        let names: Vec<&str> = names().collect();
        format!("--view is missing; the views are: {}", names.join(", "))
    })?;
    let view = views.get(&wanted).ok_or_else(|| {
        let dir = config.features.display();
        let suggestion = suggestion(&wanted, names());
        format!("--view {wanted:?}: no such view in {dir}{suggestion}")
    })?;
    for directory in &directories {
        if !directory.is_dir() {
            return Err(format!("data directory {}: not found", directory.display()));
        }
    }
    let training_set = TrainingSet {
        log: ChangeLog::Directories(directories),
        view: view.clone(),
        called: observations.display().to_string(),
        observations,
        time_column: args.observed_at.unwrap_or_else(|| "observed_at".to_owned()),
        max_rows: u64::MAX,
        features: args.columns,
        bounds: Bounds {
            temp_bytes: u64::MAX,
            memory_bytes: args.memory.unwrap_or(1 << 30),
            temp_dir: config.data_dir.join("tmp"),
        },
    };
    let report = training_set
        .write(file)
        .map_err(|error| error.to_string())?;
    if json {
        return output::json(&report);
    }
    output::line(format_args!(
        "{} rows with {} features written to {} in {:.1} s",
        report.rows,
        report.features,
        file.display(),
        report.seconds
    ));
    if report.unknown_rows > 0 {
        output::note(format_args!(
            "{} rows are of entities of which nothing was known at their time; their features are defaults",
            report.unknown_rows
        ));
    }
    Ok(())
}

/// Reads a number of bytes, `64MiB`, `1GiB` or plain.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let problem = || format!("expected bytes like 512MiB or 2GiB, found {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: usize = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(problem()),
    };
    let number: usize = digits.trim().parse().map_err(|_| problem())?;
    let bytes = number.checked_mul(unit).ok_or_else(problem)?;
    if bytes < LEAST_MEMORY_BYTES {
        return Err(format!("expected at least 16MiB, found {text:?}"));
    }
    Ok(bytes)
}
