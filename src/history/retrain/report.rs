//! What a candidate was fitted on and how it compares: `report.json` for programs, `report.md` for
//! people.
//!
//! The files hold no path and no time but those of the rows and the moment asked for, so that
//! training again gives the same bytes.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};
use std::path::PathBuf;

use bellwether_training::bootstrap::Estimate;
use bellwether_training::candidate::{Candidate, MOST_CATEGORIES};
use bellwether_training::comparison::{Assessment, Comparison};
use serde::Serialize;

use super::collect::{Collected, Incomplete, Reproduced, Rows};
use crate::clock;
use crate::history::labelled::LabelCounts;
use crate::history::outcomes::LabelRule;
use crate::models::manifest::{LabelSection, duration_text};

/// The rows, the split, and both models on the rows held out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    /// The candidate.
    pub version: u64,
    /// The version it is compared with.
    pub champion: String,
    pub method: String,
    /// How many ledgers were read.
    pub ledgers: usize,
    pub as_of: String,
    pub since: Option<String>,
    pub label: LabelReport,
    pub predictions: LabelCounts,
    /// Mature predictions that were left out because they lacked a feature.
    pub incomplete: Option<Incomplete>,
    pub split: SplitReport,
    pub comparison: Comparison,
    /// Whether the champion says what it had said.
    pub reproduced: Reproduced,
    /// What the candidate reads.
    pub features: Vec<String>,
    /// What a reader must know before trusting the figures.
    pub notes: Vec<String>,
    /// Where the candidate was written.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// What was predicted.
#[derive(Debug, Serialize)]
pub struct LabelReport {
    pub outcome: String,
    pub value_at_least: Option<f64>,
    pub negative: Vec<String>,
    pub window: String,
    pub maturity: String,
}

/// How the rows were split, at a moment in time.
#[derive(Debug, Serialize)]
pub struct SplitReport {
    pub training_rows: usize,
    pub training_positives: usize,
    pub holdout_rows: usize,
    pub holdout_positives: usize,
    pub first_at: String,
    /// The first prediction that was held out.
    pub holdout_from: String,
    pub last_at: String,
    /// Training rows whose window reaches beyond that moment.
    pub overlapping_windows: usize,
    /// Hold-out rows of customers that training rows are of as well.
    pub holdout_rows_of_known_customers: usize,
}

impl LabelReport {
    pub fn new(label: &LabelSection) -> LabelReport {
        LabelReport {
            outcome: label.outcome.clone(),
            value_at_least: label.value_at_least,
            negative: label.negative.clone(),
            window: duration_text(label.window),
            maturity: duration_text(label.maturity),
        }
    }

    /// One honest sentence about a score that predicts this.
    pub fn description(&self) -> String {
        format!(
            "Probability of the outcome {} within {} of the prediction, by logistic regression on \
             what was served to customers before and what came of it.",
            self.outcome, self.window
        )
    }
}

impl SplitReport {
    /// The split of `rows`, which are not empty, before row `cut`.
    pub fn new(rows: &Rows, cut: usize, rule: &LabelRule) -> SplitReport {
        let positives = |labels: &[bool]| labels.iter().filter(|label| **label).count();
        let at = |row: usize| rows.at_us.get(row).copied().unwrap_or_default();
        let (before, after) = rows.at_us.split_at(cut);
        let known: HashSet<&u64> = rows.customers[..cut].iter().collect();
        let seen_before = rows.customers[cut..]
            .iter()
            .filter(|customer| known.contains(customer));
        let reaches_over = |made_at: &&i64| rule.window_end_us(**made_at) >= at(cut);
        SplitReport {
            training_rows: before.len(),
            training_positives: positives(&rows.labels[..cut]),
            holdout_rows: after.len(),
            holdout_positives: positives(&rows.labels[cut..]),
            first_at: clock::to_rfc3339(at(0)),
            holdout_from: clock::to_rfc3339(at(cut)),
            last_at: clock::to_rfc3339(at(rows.len() - 1)),
            overlapping_windows: before.iter().filter(reaches_over).count(),
            holdout_rows_of_known_customers: seen_before.count(),
        }
    }
}

/// What a reader must know before trusting the figures.
pub fn notes(report: &Report, collected: &Collected, candidate: &Candidate) -> Vec<String> {
    let split = &report.split;
    let mut notes = Vec::new();
    if split.overlapping_windows > 0 {
        notes.push(format!(
            "The windows of {} of the {} training rows reach into the time of the hold-out rows: \
             what happened then has labelled both. Figures on a later period may be worse.",
            split.overlapping_windows, split.training_rows
        ));
    }
    if split.holdout_rows_of_known_customers > 0 {
        notes.push(format!(
            "{} of the {} hold-out rows are of customers who are among the training rows too. The \
             intervals take whole customers, but a model that recognises customers would still \
             look better than it is for new ones.",
            split.holdout_rows_of_known_customers, split.holdout_rows
        ));
    }
    if let Some(incomplete) = &collected.incomplete {
        notes.push(format!(
            "{} mature predictions were left out because they were served without a feature that \
             the champion reads, for example `{}`.",
            incomplete.predictions, incomplete.feature
        ));
    }
    if collected.reproduced.rows == 0 {
        notes.push(format!(
            "None of the predictions was answered by version {} as its files are now, so its \
             scores here were not checked against the ledger.",
            report.champion
        ));
    }
    let listed = |features: &[String]| {
        let features = collected.features_of(features).into_iter();
        features
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !candidate.without_values.is_empty() {
        notes.push(format!(
            "Not read, because no training row has a value: {}.",
            listed(&candidate.without_values)
        ));
    }
    if !candidate.with_rare_categories.is_empty() {
        notes.push(format!(
            "Only the {MOST_CATEGORIES} most frequent categories have a weight of their own in: {}.",
            listed(&candidate.with_rare_categories)
        ));
    }
    notes.push(
        "The rows are what was served while the champion's scores were acted upon: whoever was \
         kept by an offer counts as one who would not have left."
            .to_owned(),
    );
    notes
}

impl Report {
    /// The text of `report.json`.
    ///
    /// # Errors
    /// None that data could cause.
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
        let Report { model, version, .. } = self;
        let split = &self.split;
        writeln!(text, "# Candidate {version} of `{model}`\n")?;
        writeln!(text, "**{}**\n", self.verdict())?;
        writeln!(text, "{}\n", self.method)?;
        let label = &self.label;
        write!(text, "- Label: `{}`", label.outcome)?;
        if let Some(least) = label.value_at_least {
            write!(text, " with a value of at least {least}")?;
        }
        writeln!(
            text,
            " within {} of the prediction, trusted after {}, as known at {}.",
            label.window, label.maturity, self.as_of
        )?;
        let predictions = self.predictions.to_string();
        let mut lines = predictions.lines();
        let first = lines.next().unwrap_or_default();
        writeln!(text, "- From {} ledger(s): {first}.", self.ledgers)?;
        for line in lines {
            writeln!(text, "  - {line}")?;
        }
        writeln!(
            text,
            "- Fitted on {} rows ({} positive) made from {} on.",
            split.training_rows, split.training_positives, split.first_at
        )?;
        writeln!(
            text,
            "- Every figure below is from the {} later rows ({} positive, {} customers) made from \
             {} to {}, both models run on the values as served.",
            split.holdout_rows,
            split.holdout_positives,
            self.comparison.customers,
            split.holdout_from,
            split.last_at
        )?;
        writeln!(
            text,
            "- Of {} predictions that version {} had answered, it gave the same score again for \
             {} (largest difference {:e}).\n",
            self.reproduced.rows,
            self.champion,
            self.reproduced.equal,
            self.reproduced.largest_difference
        )?;
        self.write_measures(text)?;
        writeln!(
            text,
            "\nIn brackets: 95 % intervals, percentile bootstrap over the customers of the \
             hold-out rows; the difference is taken on the same resamples. Lift: rate of positives \
             in the best-scored tenth over the rate in all. ECE: expected calibration error over \
             ten bins; chance alone makes it positive and resampling adds to it, so its interval \
             leans upwards.\n"
        )?;
        writeln!(text, "## Calibration\n")?;
        writeln!(
            text,
            "| model | scores | rows | mean score | observed rate |"
        )?;
        writeln!(text, "|---|---|--:|--:|--:|")?;
        for (name, model) in self.models() {
            for bin in &model.calibration {
                writeln!(
                    text,
                    "| {name} | {:.1} to {:.1} | {} | {:.3} | {:.3} |",
                    bin.low, bin.high, bin.rows, bin.mean_score, bin.observed_rate
                )?;
            }
        }
        writeln!(text, "\n## What to know before promoting it\n")?;
        for note in &self.notes {
            writeln!(text, "- {note}")?;
        }
        writeln!(
            text,
            "\nIt is a candidate: it answers only when it is named. Once a server has loaded it, \
             `bellwether model shadow {model} {version}` scores it beside the champion, \
             `bellwether model canary {model} {version} --percent 5` has it answer some customers, and \
             `bellwether model promote {model} {version}` makes it the champion.",
            model = self.model,
            version = self.version,
        )
    }

    fn write_measures(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "| model | log loss | ROC AUC | Brier score | ECE | average precision | top-decile lift |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|")?;
        for (name, model) in self.models() {
            let metrics = &model.metrics;
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} |",
                bracketed(&model.log_loss),
                bracketed(&metrics.roc_auc),
                bracketed(&metrics.brier_score),
                bracketed(&metrics.expected_calibration_error),
                bracketed(&metrics.average_precision),
                bracketed(&metrics.top_decile_lift),
            )?;
        }
        let difference = &self.comparison.difference;
        writeln!(
            text,
            "| difference | {} | {} | {} | | | |",
            bracketed(&difference.log_loss),
            bracketed(&difference.roc_auc),
            bracketed(&difference.brier_score)
        )
    }

    fn models(&self) -> [(String, &Assessment); 2] {
        let Comparison {
            candidate,
            champion,
            ..
        } = &self.comparison;
        [
            (format!("candidate {}", self.version), candidate),
            (format!("champion {}", self.champion), champion),
        ]
    }

    /// One sentence.
    fn verdict(&self) -> String {
        let difference = &self.comparison.difference.log_loss;
        format!(
            "Verdict: {}. Log loss of the candidate less that of version {}: {}; below zero it is \
             better.",
            self.comparison.verdict.as_words(),
            self.champion,
            bracketed(difference)
        )
    }
}

impl Display for Report {
    /// A summary of a few lines for a terminal.
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(out, "{}", self.predictions)?;
        writeln!(
            out,
            "{} version {}: fitted on {} rows, judged on {} later ones",
            self.model, self.version, self.split.training_rows, self.split.holdout_rows
        )?;
        for (name, model) in self.models() {
            writeln!(
                out,
                "  {name}: log loss {}, ROC AUC {}, Brier score {}, ECE {}",
                bracketed(&model.log_loss),
                bracketed(&model.metrics.roc_auc),
                bracketed(&model.metrics.brier_score),
                bracketed(&model.metrics.expected_calibration_error),
            )?;
        }
        writeln!(out, "  {}", self.verdict())?;
        write!(out, "  wrote {}", self.folder.display())
    }
}

fn bracketed(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    format!("{value:.4} [{low:.4}, {high:.4}]")
}
