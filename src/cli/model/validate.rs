//! `bellwether model validate`: a version folder looked at without a server.

use std::path::PathBuf;

use clap::Args;

use crate::cli::output;
use crate::cli::remote::while_waiting;
use crate::config::{Config, ConfigArgs};
use crate::features::views::Views;
use crate::models::trial::Timing;
use crate::models::validate::{InputReport, TensorReport, Validation, validate};

/// Look at a version folder as a server would, without one
///
/// Loads the graph, binds its inputs to features, runs the golden rows and compares them with the
/// outputs that are expected, and times one row and a batch. Exits with 1 when a server would refuse
/// the version.
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model validate models/churn/2 --features features")]
pub struct ValidateArgs {
    /// Configuration file [default: bellwether.toml when it exists]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of feature views [default: features]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_FEATURES")]
    features: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// The version's folder, with model.onnx and, where there are, model.toml and golden.json
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the report.
///
/// # Errors
/// When a server would refuse the version, or the views cannot be read.
pub fn run(args: &ValidateArgs) -> Result<(), String> {
    let config = Config::load(&ConfigArgs {
        config: args.config.clone(),
        features: args.features.clone(),
        ..ConfigArgs::default()
    })?;
    // Nobody has said where views are: there may be none, and the graph can be looked at all the same.
    let usual = Config::default().features;
    let has_no_views =
        args.features.is_none() && config.features == usual && !config.features.exists();
    let views = match has_no_views {
        true => Views::default(),
        false => Views::load(&config.features).map_err(|errors| errors.to_string())?,
    };
    let mut found = while_waiting("loading, reproducing golden rows and timing", || {
        validate(&args.folder, &views)
    });
    if has_no_views {
        found.remarks.push(format!(
            "there is no folder {} here, so no input is bound to a feature; --features names another",
            usual.display()
        ));
    }
    if args.json {
        output::json(&found)?;
    } else {
        print(&found);
    }
    match found.problems.len() {
        0 => Ok(()),
        problems => Err(format!(
            "{}: a server would refuse this version: {problems} problem{}",
            args.folder.display(),
            if problems == 1 { "" } else { "s" }
        )),
    }
}

fn print(found: &Validation) {
    for file in &found.files {
        let (name, bytes, sha256) = (file.name, file.bytes, &file.sha256);
        output::line(format_args!(
            "{name:<12} {bytes:>10} bytes  sha256 {sha256}"
        ));
    }
    for InputReport { tensor, features } in &found.inputs {
        let from = match features.as_slice() {
            [] => String::new(),
            features => format!("  <- {}", features.join(", ")),
        };
        output::line(format_args!("input        {}{from}", described(tensor)));
    }
    for tensor in &found.outputs {
        output::line(format_args!("output       {}", described(tensor)));
    }
    if let Some(binding) = &found.binding {
        let (view, count) = (&binding.view, binding.features.len());
        output::line(format_args!("scores       view {view}, {count} features"));
    }
    if let Some(golden) = &found.golden {
        let reproduced = golden.rows - golden.failures.len();
        output::line(format_args!(
            "golden rows  {reproduced} of {} reproduced, largest difference {:.1e}, tolerance {:e}",
            golden.rows, golden.largest_difference, golden.tolerance
        ));
    }
    for timing in &found.timings {
        let Timing {
            rows,
            runs,
            p50_us,
            max_us,
        } = timing;
        let what = match rows {
            1 => "1 row".to_owned(),
            rows => format!("{rows} rows"),
        };
        output::line(format_args!(
            "{what:<12} {p50_us:.1} µs (median of {runs} runs, at most {max_us:.1} µs)"
        ));
    }
    for remark in &found.remarks {
        output::line(format_args!("remark       {remark}"));
    }
    for problem in &found.problems {
        output::line(format_args!("refused      {problem}"));
    }
    if found.accepted {
        output::line("accepted     a server would serve this version");
    }
}

fn described(tensor: &TensorReport) -> String {
    let sizes = tensor.shape.iter().map(|size| match size {
        -1 => "N".to_owned(),
        size => size.to_string(),
    });
    let sizes: Vec<String> = sizes.collect();
    let TensorReport { name, datatype, .. } = tensor;
    format!("{name} {datatype} [{}]", sizes.join(", "))
}
