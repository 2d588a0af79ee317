//! Trains one model: `cargo run -p bellwether-training --example train -- NAME DATA OUTPUT_DIR`.
//!
//! NAME is `churn`, `upsell` or `bank`; OUTPUT_DIR is a model repository such as `models`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, data, output] = arguments.as_slice() else {
        eprintln!("usage: train churn|upsell|bank DATA OUTPUT_DIR");
        return ExitCode::from(2);
    };
    let (data, output) = (Path::new(data), Path::new(output));
    let report = match name.as_str() {
        "churn" => bellwether_training::train_churn(data, output),
        "upsell" => bellwether_training::train_upsell(data, output),
        "bank" => bellwether_training::train_bank(data, output),
        other => {
            eprintln!("no trainer is called '{other}': expected churn, upsell or bank");
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
