//! Writes the version folder of a candidate, whole or not at all.
//!
//! The files are written into a hidden folder beside the versions, loaded from there as a server
//! would load them, and only then does the folder get its number. No file is ever written over.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellwether_training::candidate::Candidate;
use bellwether_training::graph::{LOG_ODDS, PROBABILITIES};

use super::report::Report;
use crate::features::views::Views;
use crate::models::catalog::version_number;
use crate::models::manifest::{LabelSection, Manifest, duration_text};
use crate::models::statistics::Statistics;
use crate::models::version::{Files, ModelVersion};

/// The number behind the highest that there is, whatever is in that folder.
///
/// # Errors
/// The folder of the model cannot be read.
pub fn next_version(models: &Path, name: &str) -> Result<u64, String> {
    let folder = models.join(name);
    let problem = |error| format!("cannot read {}: {error}", folder.display());
    let mut highest = 0;
    for entry in std::fs::read_dir(&folder).map_err(problem)? {
        let file_name = entry.map_err(problem)?.file_name();
        let number = file_name.to_str().and_then(version_number);
        highest = highest.max(number.unwrap_or_default());
    }
    Ok(highest.saturating_add(1))
}

/// Writes the candidate as the version that `report` names and returns its folder.
///
/// # Errors
/// A file cannot be written, a version of this number has come into being meanwhile, or the
/// candidate does not load, which would be a defect.
pub fn write(
    report: &Report,
    candidate: &Candidate,
    inputs: &[(String, String)],
    champion: &ModelVersion,
    models: &Path,
    views: &Views,
) -> Result<PathBuf, String> {
    let model_folder = models.join(&report.model);
    let version = report.version.to_string();
    let folder = model_folder.join(&version);
    let hidden = Hidden::create(model_folder.join(format!(".candidate.{}", std::process::id())))?;
    let json = report.to_json().map_err(|error| error.to_string())?;
    hidden.write("model.onnx", &candidate.graph)?;
    let manifest = manifest_text(report, inputs, champion);
    hidden.write("model.toml", manifest.as_bytes())?;
    hidden.write("golden.json", candidate.golden.as_bytes())?;
    hidden.write("report.json", json.as_bytes())?;
    hidden.write("report.md", report.to_markdown().as_bytes())?;

    let files = Files::read(&hidden.0)?;
    let statistics = Arc::<Statistics>::default();
    let loaded = ModelVersion::build(files, &report.model, &version, views, statistics);
    loaded.map_err(|problem| format!("the candidate does not load: {problem}"))?;
    if folder.exists() {
        return Err(format!(
            "{} has come into being meanwhile; nothing was written over it, run this again",
            folder.display()
        ));
    }
    std::fs::rename(&hidden.0, &folder)
        .map_err(|error| format!("cannot write {}: {error}", folder.display()))?;
    Ok(folder)
}

/// The text of `model.toml`: the champion's label and reasons, and what is new.
fn manifest_text(report: &Report, inputs: &[(String, String)], champion: &ModelVersion) -> String {
    let empty = Manifest::default();
    let manifest = champion.manifest.as_ref().unwrap_or(&empty);
    let view = champion
        .scoring
        .as_ref()
        .ok()
        .map(|scoring| scoring.view.name.as_str());
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_manifest(
        &mut text,
        report,
        inputs,
        manifest,
        view.unwrap_or_default(),
    );
    text
}

fn write_manifest(
    text: &mut String,
    report: &Report,
    inputs: &[(String, String)],
    champion: &Manifest,
    view: &str,
) -> std::fmt::Result {
    let Report { model, split, .. } = report;
    writeln!(
        text,
        "# Written by `bellwether train --model {model} --from-ledger`; see report.md for the comparison."
    )?;
    writeln!(text, "[model]")?;
    writeln!(
        text,
        "# It answers only when it is named, until `bellwether model promote {model} {}`.",
        report.version
    )?;
    writeln!(text, "state = \"candidate\"")?;
    writeln!(text, "task = \"binary\"")?;
    writeln!(text, "view = {}", quoted(view))?;
    writeln!(
        text,
        "description = {}",
        quoted(&report.label.description())
    )?;
    writeln!(text, "owner = {}", quoted(&champion.model.owner))?;
    if !inputs.is_empty() {
        writeln!(text, "\n[inputs]")?;
    }
    for (input, feature) in inputs {
        writeln!(text, "{} = {}", key(input), quoted(feature))?;
    }
    writeln!(text, "\n[output]")?;
    writeln!(text, "probabilities = {}", quoted(PROBABILITIES))?;
    writeln!(text, "log_odds = {}", quoted(LOG_ODDS))?;
    writeln!(text, "positive = 1")?;
    if let Some(label) = &champion.label {
        write_label(text, label)?;
    }
    if !champion.reasons.baseline.is_empty() {
        writeln!(text, "\n# The reference customer, as it was.")?;
        writeln!(text, "[reasons.baseline]")?;
    }
    for (feature, value) in &champion.reasons.baseline {
        writeln!(text, "{} = {value}", key(feature))?;
    }
    writeln!(text, "\n[training]")?;
    writeln!(text, "data = \"ledger\"")?;
    writeln!(text, "as_of = {}", quoted(&report.as_of))?;
    writeln!(text, "first_at = {}", quoted(&split.first_at))?;
    writeln!(text, "holdout_from = {}", quoted(&split.holdout_from))?;
    writeln!(text, "last_at = {}", quoted(&split.last_at))?;
    writeln!(text, "rows = {}", split.training_rows)?;
    writeln!(text, "positives = {}", split.training_positives)?;
    writeln!(text, "holdout_rows = {}", split.holdout_rows)?;
    writeln!(text, "holdout_positives = {}", split.holdout_positives)?;
    writeln!(text, "champion = {}", quoted(&report.champion))?;
    let verdict = report.comparison.verdict.as_words();
    writeln!(text, "verdict = {}", quoted(verdict))?;
    let trained_by = format!("bellwether {}", env!("CARGO_PKG_VERSION"));
    writeln!(text, "trained_by = {}", quoted(&trained_by))
}

fn write_label(text: &mut String, label: &LabelSection) -> std::fmt::Result {
    writeln!(text, "\n[label]")?;
    writeln!(text, "outcome = {}", quoted(&label.outcome))?;
    if let Some(least) = label.value_at_least {
        // Debug keeps the decimal point.
        writeln!(text, "value_at_least = {least:?}")?;
    }
    if !label.negative.is_empty() {
        let names: Vec<String> = label.negative.iter().map(|name| quoted(name)).collect();
        writeln!(text, "negative = [{}]", names.join(", "))?;
    }
    writeln!(text, "window = {}", quoted(&duration_text(label.window)))?;
    writeln!(
        text,
        "maturity = {}",
        quoted(&duration_text(label.maturity))
    )
}

/// A name as a key of TOML, bare where it may be.
fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match !name.is_empty() && name.bytes().all(bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// Text as TOML; also right as a key.
fn quoted(text: &str) -> String {
    // A basic string of TOML understands every escape that is written in JSON, and wants one more.
    let json = serde_json::Value::from(text).to_string();
    json.replace('\u{7f}', "\\u007f")
}

/// A folder that is removed unless it has got another name.
struct Hidden(PathBuf);

impl Hidden {
    fn create(folder: PathBuf) -> Result<Hidden, String> {
        match std::fs::create_dir(&folder) {
            Ok(()) => Ok(Hidden(folder)),
            Err(error) => Err(format!("cannot write {}: {error}", folder.display())),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.0.join(name);
        let write = || {
            let mut file = std::fs::File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nothing to remove once it has its number.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_version_is_behind_every_number_that_is_taken() {
        let models = tempfile::tempdir().unwrap();
        for folder in ["2", "10", "notes", "011", ".candidate.7"] {
            std::fs::create_dir_all(models.path().join("churn").join(folder)).unwrap();
        }
        assert_eq!(next_version(models.path(), "churn").unwrap(), 11);
        std::fs::create_dir_all(models.path().join("new")).unwrap();
        assert_eq!(next_version(models.path(), "new").unwrap(), 1);
        assert!(next_version(models.path(), "missing").is_err());
    }

    #[test]
    fn any_text_is_read_back_from_the_manifest_as_it_was() {
        for text in [
            "tenure_2-x",
            "",
            "a \"b\" \\ c",
            "line\nbreak\ttab",
            "ümläut \u{1} \u{7f} 日本",
        ] {
            let line = format!("{} = {}", key(text), quoted(text));
            let table: toml::Table = line.parse().unwrap();
            assert_eq!(table[text].as_str(), Some(text));
        }
    }
}
