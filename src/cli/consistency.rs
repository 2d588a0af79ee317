//! `bellwether ledger consistency`: served values, recomputed from the log and compared.

use clap::Args;

use super::observations::parse_bytes;
use super::output;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;
use crate::history::{Bounds, Consistency, ConsistencyReport};

/// How many features are printed, the worst first.
const SHOWN_FEATURES: usize = 20;

/// Recompute a sample of served feature values from the log and compare
///
/// Every prediction in the ledger holds the values that were served. A sample of them is computed again
/// from the log of changes; each value should be the same, bit for bit. The server may be running.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether ledger consistency --data-dir data --sample 10000\n\nExit code 0 when at most --max-mismatch-rate of the values differ, 1 when more do."
)]
pub struct ConsistencyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How many predictions to recompute at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// The share of values that may differ
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    max_mismatch_rate: f64,
    /// Memory for sorting; what does not fit is put aside in the data directory
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes)]
    memory: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the ledger cannot be read, or more values differ than may.
pub fn run(args: &ConsistencyArgs) -> Result<(), String> {
    let config = Config::load(&args.config)?;
    let views = Views::load(&config.features).map_err(|errors| errors.to_string())?;
    let check = Consistency {
        bounds: Bounds {
            temp_bytes: u64::MAX,
            memory_bytes: args.memory,
            temp_dir: config.data_dir.join("tmp"),
        },
        data_dir: config.data_dir,
        views,
        sample: args.sample as usize,
        since_us: i64::MIN,
    };
    let report = check.check().map_err(|error| error.to_string())?;
    if args.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    // Not a number counts as too many, too.
    if report.mismatch_rate <= args.max_mismatch_rate {
        return Ok(());
    }
    Err(format!(
        "{} of {} values differ from what was served, more than --max-mismatch-rate {}",
        report.mismatched_values, report.values, args.max_mismatch_rate
    ))
}

fn print(report: &ConsistencyReport) {
    output::line(format_args!(
        "{} predictions recomputed, {} with a value that differs; {} of {} values differ ({:.4} %)",
        report.predictions,
        report.mismatched_predictions,
        report.mismatched_values,
        report.values,
        report.mismatch_rate * 100.0
    ));
    if report.passed_over > 0 {
        output::line(format_args!(
            "{} predictions cannot be recomputed: of a view that is gone, or logged without the number of a change",
            report.passed_over
        ));
    }
    if report.other_view_version > 0 {
        output::line(format_args!(
            "{} predictions were served before the view file was last changed",
            report.other_view_version
        ));
    }
    let mut worst: Vec<_> = report.features.iter().collect();
    worst.retain(|feature| feature.mismatched > 0);
    worst.sort_by_key(|feature| std::cmp::Reverse(feature.mismatched));
    for feature in worst.iter().take(SHOWN_FEATURES) {
        output::line(format_args!(
            "{}.{}: {} of {} values differ, by up to {} (relative {})",
            feature.view,
            feature.feature,
            feature.mismatched,
            feature.values,
            feature.max_absolute_error,
            feature.max_relative_error
        ));
    }
    if worst.len() > SHOWN_FEATURES {
        let more = worst.len() - SHOWN_FEATURES;
        output::line(format_args!("… and {more} more features"));
    }
}
