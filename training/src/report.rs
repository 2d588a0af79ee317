//! The evaluation of a trained model: `report.json` for programs, `report.md` for people.
//!
//! All figures come from rows that the model was not trained on. The files hold no date and no
//! path, so that training again gives the same bytes.

use std::fmt::{self, Display, Formatter, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::bootstrap::{Estimate, RESAMPLES, SEED};
use crate::metrics::{CALIBRATION_BINS, CalibrationBin, Metrics};

/// Below this expected calibration error the scores are called calibrated.
const CALIBRATED: f64 = 0.05;

/// What was trained, on what, and how good it is.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub model: String,
    pub method: String,
    pub data: DataSource,
    pub split: String,
    pub training_rows: usize,
    pub holdout_rows: usize,
    pub bootstrap: BootstrapSettings,
    pub results: Vec<ReportResult>,
    /// What a reader must know before using the score.
    pub notes: Vec<String>,
    /// The files that were written.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
}

/// The data file the rows came from.
#[derive(Debug, Clone, Serialize)]
pub struct DataSource {
    pub name: String,
    /// Name of the file, without its directory.
    pub file: String,
    pub sha256: String,
    pub rows: usize,
}

/// How the intervals were made.
#[derive(Debug, Clone, Serialize)]
pub struct BootstrapSettings {
    pub interval: &'static str,
    pub resamples: usize,
    pub seed: u64,
}

impl Default for BootstrapSettings {
    fn default() -> Self {
        BootstrapSettings {
            interval: "95 % percentile",
            resamples: RESAMPLES,
            seed: SEED,
        }
    }
}

/// The measures of one score on one part of the hold-out rows.
#[derive(Debug, Clone, Serialize)]
pub struct ReportResult {
    /// What is predicted.
    pub target: String,
    /// Which hold-out rows were looked at.
    pub segment: String,
    pub rows: usize,
    pub positives: usize,
    pub metrics: Metrics<Estimate>,
    pub calibration: Vec<CalibrationBin>,
}

impl Report {
    /// The text of `report.json`.
    ///
    /// # Errors
    /// None that data could cause: texts and numbers always have a JSON form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// The text of `report.md`.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        let name = &self.model;
        writeln!(text, "# Evaluation of `{name}`\n")?;
        writeln!(text, "{}\n", self.method)?;
        writeln!(text, "- Data: {}, {} rows.", self.data.name, self.data.rows)?;
        writeln!(text, "- Split: {}.", self.split)?;
        writeln!(
            text,
            "- The model was fitted on {} rows; every figure below is from the {} hold-out rows, \
             scored with the `model.onnx` beside this file.",
            self.training_rows, self.holdout_rows
        )?;
        writeln!(
            text,
            "- In brackets: 95 % intervals, percentile bootstrap over the hold-out rows \
             ({RESAMPLES} resamples).\n"
        )?;
        self.write_table(text)?;

        writeln!(
            text,
            "\nLift: rate of positives in the best-scored tenth of the rows over the"
        )?;
        writeln!(
            text,
            "rate in all rows. ECE: expected calibration error over"
        )?;
        writeln!(
            text,
            "{CALIBRATION_BINS} bins of equal width; chance alone makes it positive, and"
        )?;
        writeln!(
            text,
            "resampling adds to it, so its interval leans upwards.\n"
        )?;
        writeln!(text, "{}\n", self.calibration_remark())?;
        writeln!(text, "![ROC curves](roc.svg)\n")?;
        writeln!(text, "![Calibration](calibration.svg)\n")?;

        writeln!(text, "## What to know before using it\n")?;
        for note in &self.notes {
            writeln!(text, "- {note}")?;
        }
        writeln!(text, "\n## How to reproduce\n")?;
        writeln!(text, "```sh")?;
        let file = &self.data.file;
        writeln!(
            text,
            "cargo run -- train {name} --data {file} --output models"
        )?;
        writeln!(text, "```\n")?;
        writeln!(
            text,
            "with the file whose SHA-256 is `{}`.",
            self.data.sha256
        )?;
        writeln!(
            text,
            "On the same kind of processor the files come out byte for byte the same;"
        )?;
        writeln!(text, "on another one predictions agree within 1e-7.")
    }

    fn write_table(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "| target | rows looked at | rows | positive | ROC AUC | average precision \
             | top-decile lift | Brier score | ECE |"
        )?;
        writeln!(text, "|---|---|--:|--:|---|---|---|---|---|")?;
        for result in &self.results {
            let metrics = &result.metrics;
            writeln!(
                text,
                "| {} | {} | {} | {:.1} % | {} | {} | {} | {} | {} |",
                result.target,
                result.segment,
                result.rows,
                100.0 * result.positives as f64 / result.rows as f64,
                bracketed(&metrics.roc_auc),
                bracketed(&metrics.average_precision),
                bracketed(&metrics.top_decile_lift),
                bracketed(&metrics.brier_score),
                bracketed(&metrics.expected_calibration_error),
            )?;
        }
        Ok(())
    }

    /// Whether the scores may be read as probabilities, from the worst result.
    fn calibration_remark(&self) -> String {
        let errors = self.results.iter();
        let errors = errors.map(|result| result.metrics.expected_calibration_error.value);
        let worst = errors.fold(0.0, f64::max);
        if worst < CALIBRATED {
            format!(
                "No calibration step is added: logistic regression is fitted to probabilities, \
                 and its calibration error on the hold-out rows is at most {worst:.3}."
            )
        } else {
            format!(
                "The calibration error on the hold-out rows reaches {worst:.3}: the ranking may \
                 be used, but the scores must be recalibrated before they are read as \
                 probabilities."
            )
        }
    }
}

impl Display for Report {
    /// A summary of a few lines for a terminal.
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        writeln!(
            formatter,
            "{}: fitted on {} rows, evaluated on {} others",
            self.model, self.training_rows, self.holdout_rows
        )?;
        for result in &self.results {
            let metrics = &result.metrics;
            writeln!(
                formatter,
                "  {} ({}): ROC AUC {}, average precision {}, ECE {}",
                result.target,
                result.segment,
                bracketed(&metrics.roc_auc),
                bracketed(&metrics.average_precision),
                bracketed(&metrics.expected_calibration_error),
            )?;
        }
        for file in &self.files {
            writeln!(formatter, "  wrote {}", file.display())?;
        }
        Ok(())
    }
}

fn bracketed(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    format!("{value:.3} [{low:.3}, {high:.3}]")
}
