//! `bellwether train`: fit, evaluate and export a sample model, or a new version of a model that
//! serves.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::output;
use super::training_set::LedgersArgs;
use crate::history::retrain::{DEFAULT_MIN_ROWS, retrain};

/// Train a model and write its version folder
#[derive(Args)]
#[command(
    after_help = "Examples:\n  bellwether train churn --data Telco-Customer-Churn.csv --output models\n  \
    bellwether train --model churn --from-ledger --data-dir data\n\n\
    The first trains a sample model from a public data set and writes <output>/<sample>/1/.\n\n\
    The second fits the model NAME anew on its predictions that are old enough to have a label, with\n\
    the feature values as served, compares the result with the champion on the last quarter of the\n\
    rows, and writes it as the next version, a candidate, which answers only when it is named.\n\n\
    Each folder gets model.onnx, model.toml, golden.json and an evaluation report."
)]
pub struct TrainArgs {
    /// Which sample model
    #[arg(
        value_enum,
        required_unless_present = "from_ledger",
        conflicts_with = "from_ledger"
    )]
    sample: Option<SampleModel>,
    /// The data set of the sample model as it is published
    #[arg(
        long,
        value_name = "FILE",
        requires = "sample",
        required_unless_present = "from_ledger"
    )]
    data: Option<PathBuf>,
    /// The model repository to write the sample model to
    #[arg(
        long,
        value_name = "DIR",
        requires = "sample",
        required_unless_present = "from_ledger"
    )]
    output: Option<PathBuf>,
    /// Learn from what was served and what came of it
    #[arg(long, requires = "model")]
    from_ledger: bool,
    /// Which model to fit anew
    #[arg(long, value_name = "NAME", requires = "from_ledger")]
    model: Option<String>,
    #[command(flatten)]
    ledgers: LedgersArgs,
    /// Refuse to learn from fewer mature predictions
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MIN_ROWS, requires = "from_ledger")]
    min_rows: usize,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SampleModel {
    /// Churn, from IBM's Telco Customer Churn
    Churn,
    /// Look-alike affinity for six add-ons, from the same data
    Upsell,
    /// Acceptance of a term deposit, from UCI Bank Marketing (bank-additional-full.csv[.gz])
    Bank,
}

/// Trains and writes the version folder.
///
/// # Errors
/// When data or ledgers cannot be read, there is too little to learn from, or files cannot be
/// written.
pub fn run(args: TrainArgs) -> Result<(), String> {
    match (args.model, args.sample, args.data, args.output) {
        (Some(model), ..) => from_ledger(args.ledgers, model, args.min_rows, args.json),
        (None, Some(sample), Some(data), Some(folder)) => {
            let train = match sample {
                SampleModel::Churn => bellwether_training::train_churn,
                SampleModel::Upsell => bellwether_training::train_upsell,
                SampleModel::Bank => bellwether_training::train_bank,
            };
            let report = train(&data, &folder).map_err(|error| error.to_string())?;
            if args.json {
                output::json(&report)?;
            } else {
                output::line(&report);
            }
            Ok(())
        }
        _ => {
            Err("give a sample model with --data and --output, or --model and --from-ledger".into())
        }
    }
}

fn from_ledger(
    ledgers: LedgersArgs,
    model: String,
    min_rows: usize,
    as_json: bool,
) -> Result<(), String> {
    let ledgers = ledgers.open(model)?;
    let report = retrain(
        &ledgers.question,
        min_rows,
        &ledgers.config.models,
        &ledgers.views,
        &ledgers.repository,
    )?;
    if as_json {
        output::json(&json!({
            "folder": report.folder.display().to_string(),
            "report": report,
        }))?;
    } else {
        output::line(&report);
    }
    Ok(())
}
