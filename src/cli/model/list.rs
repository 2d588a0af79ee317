//! `bellwether model list` and `model show`: what a running server serves, at a glance.

use std::io::IsTerminal;

use clap::Args;
use serde_json::Value as Json;

use super::{compared, path_of};
use crate::cli::output;
use crate::cli::remote::ServerArgs;
use crate::features::value::shorten;

/// How much of a digest a table shows.
const DIGEST_CHARS: usize = 12;

/// How much of a reason a table shows on a terminal, in characters.
const REASON_CHARS: usize = 100;

/// Show every version of every model: its role, how it does, and why it does not answer
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model list --server http://127.0.0.1:8080")]
pub struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print what the server says as JSON
    #[arg(long)]
    json: bool,
}

/// Show one model: roles, the way back, and how each version does
#[derive(Args)]
#[command(after_help = "Example:\n  bellwether model show churn")]
pub struct ShowArgs {
    /// Name of the model
    name: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print what the server says as JSON
    #[arg(long)]
    json: bool,
}

/// Lists.
///
/// # Errors
/// What the server says instead.
pub fn list(args: &ListArgs) -> Result<(), String> {
    let answer = args.server.connect()?.get("/v1/models")?.json()?;
    if args.json {
        return output::json(&answer);
    }
    let versions = versions_of(&answer["models"]);
    if versions.is_empty() {
        output::note("no models");
        return Ok(());
    }
    print_table(&versions);
    Ok(())
}

/// Shows.
///
/// # Errors
/// What the server says instead.
pub fn show(args: &ShowArgs) -> Result<(), String> {
    let answer = args.server.connect()?;
    let answer = answer.get(&path_of(&args.name, "")?)?.json()?;
    if args.json {
        return output::json(&answer);
    }
    if answer["roles"].is_object() {
        output::line(summary(&answer["roles"]));
    } else {
        output::line(format_args!("{}: no version answers", args.name));
    }
    if let Some(problem) = answer["stand_in"].as_str() {
        output::line(format_args!("attention: {problem}"));
    }
    print_table(&versions_of(&answer["versions"]));
    for version in versions_of(&answer["versions"]) {
        let reason = text(version, "reason");
        if reason.chars().count() > REASON_CHARS {
            output::line(format_args!(
                "version {} {reason}",
                text(version, "version")
            ));
        }
        let last = &version["scores"]["last_error"];
        if let (Some(message), Some(at)) = (last["message"].as_str(), last["at"].as_str()) {
            let number = text(version, "version");
            output::line(format_args!(
                "version {number} failed last at {at}: {message}"
            ));
        }
        for line in compared::lines(version) {
            let number = text(version, "version");
            output::line(format_args!("version {number} {line}"));
        }
    }
    Ok(())
}

/// The roles of a model in one line.
pub fn summary(roles: &Json) -> String {
    let mut parts = vec![format!("champion {}", text(roles, "champion"))];
    let list = |field: &str| {
        let versions = roles[field].as_array().into_iter().flatten();
        let versions: Vec<&str> = versions
            .filter_map(|version| version.as_str().or(version["version"].as_str()))
            .collect();
        versions.join(", ")
    };
    if roles["canary"].is_object() {
        let canary = &roles["canary"];
        let (version, percent) = (text(canary, "version"), &canary["percent"]);
        parts.push(format!("canary {version} with {percent} %"));
    }
    for (field, words) in [
        ("shadows", "in shadow"),
        ("before", "before it"),
        ("retired", "retired"),
        ("candidates", "kept loaded"),
    ] {
        let versions = list(field);
        if !versions.is_empty() {
            parts.push(format!("{words} {versions}"));
        }
    }
    if roles["revision"] == 0 {
        parts.push("by the numbers, nothing was said".to_owned());
    }
    format!("{}: {}", text(roles, "model"), parts.join("; "))
}

fn versions_of(list: &Json) -> Vec<&Json> {
    list.as_array().into_iter().flatten().collect()
}

fn text<'a>(object: &'a Json, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Prints one line for each version, in columns.
fn print_table(versions: &[&Json]) {
    let heads = [
        "MODEL", "VERSION", "STATE", "SHARE", "REQUESTS", "ERRORS", "P50", "DIGEST", "WHY",
    ];
    let mut rows: Vec<[String; 9]> = vec![heads.map(str::to_owned)];
    // Who reads it by a program or keeps it gets all of it.
    let reason_chars = match std::io::stdout().is_terminal() {
        true => REASON_CHARS,
        false => usize::MAX,
    };
    rows.extend(versions.iter().map(|version| row(version, reason_chars)));
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        })
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count() + 2;
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        output::line(line.trim_end());
    }
}

fn row(version: &Json, reason_chars: usize) -> [String; 9] {
    let scores = &version["scores"];
    let mut state = text(version, "state").to_owned();
    if state == "unavailable" && text(version, "role") != "candidate" {
        state = format!("{state} ({})", text(version, "role"));
    }
    if version["before"] == true {
        state.push_str(" (before)");
    }
    let percent = version["percent"].as_f64();
    let p50 = scores["p50_ms"].as_f64();
    [
        text(version, "name").to_owned(),
        text(version, "version").to_owned(),
        state,
        percent.map_or_else(String::new, |percent| format!("{percent} %")),
        scores["requests"].to_string(),
        scores["errors"].to_string(),
        p50.map_or_else(String::new, |p50| format!("{p50:.3} ms")),
        shorten_to(text(version, "digest"), DIGEST_CHARS),
        shorten(&text(version, "reason").replace('\n', " "), reason_chars),
    ]
}

fn shorten_to(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_fit_into_a_line() {
        let roles = json!({
            "model": "churn", "revision": 7, "champion": "3", "before": ["2", "1"],
            "canary": {"version": "4", "percent": 12.5, "since": "…"},
            "shadows": [{"version": "5"}, {"version": "6"}], "retired": [],
        });
        assert_eq!(
            summary(&roles),
            "churn: champion 3; canary 4 with 12.5 %; in shadow 5, 6; before it 2, 1"
        );
        let unsaid = json!({"model": "m", "revision": 0, "champion": "1", "canary": null});
        assert_eq!(
            summary(&unsaid),
            "m: champion 1; by the numbers, nothing was said"
        );
    }

    #[test]
    fn a_version_fits_into_a_line() {
        let version = json!({
            "name": "churn", "version": "2", "state": "unavailable", "role": "canary",
            "percent": 5.0, "before": true, "reason": "model.onnx:\nbroken",
            "digest": "0123456789abcdef", "scores": {"requests": 12, "errors": 1, "p50_ms": 0.0123},
        });
        let cells = row(&version, REASON_CHARS);
        assert_eq!(
            cells.join("|"),
            "churn|2|unavailable (canary) (before)|5 %|12|1|0.012 ms|0123456789ab|model.onnx: broken"
        );
    }
}
