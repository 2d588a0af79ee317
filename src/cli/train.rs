//! `bellwether train`: fit, evaluate and export a sample model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output;

/// Train a sample model from a public data set and write its version folder
#[derive(Args)]
#[command(
    after_help = "Example:\n  bellwether train churn --data Telco-Customer-Churn.csv --output models\n\n\
    Writes <output>/<model>/1/ with model.onnx, model.toml, golden.json and an evaluation report."
)]
pub struct TrainArgs {
    /// Which model
    #[arg(value_enum)]
    model: SampleModel,
    /// The data set as it is published
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The model repository to write to
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
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
/// When the data cannot be read or files cannot be written.
pub fn run(args: TrainArgs) -> Result<(), String> {
    let train = match args.model {
        SampleModel::Churn => bellwether_training::train_churn,
        SampleModel::Upsell => bellwether_training::train_upsell,
        SampleModel::Bank => bellwether_training::train_bank,
    };
    let report = train(&args.data, &args.output).map_err(|error| error.to_string())?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&report);
    }
    Ok(())
}
