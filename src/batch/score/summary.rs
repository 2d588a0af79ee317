//! What a job came to: for the person who ran it, and for programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::bands::{BandCount, Bands};
use super::diff::Diff;
use super::plan::{Plan, scoring_of};
use super::statistics::{Distribution, FeatureStatistics, Statistics, is_share};
use super::tally::ReasonCount;
use super::to_store::Stored;
use crate::models::version::{ModelVersion, hexadecimal};

const QUANTILES: [(&str, f64); 7] = [
    ("p01", 0.01),
    ("p05", 0.05),
    ("p25", 0.25),
    ("p50", 0.5),
    ("p75", 0.75),
    ("p95", 0.95),
    ("p99", 0.99),
];
const BINS: usize = 20;
/// Reasons for rejects that are printed; the others are in the JSON.
const PRINTED_REASONS: usize = 5;

/// What a job came to.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    /// Rows that were read, by this run and by those before it that it went on with.
    pub rows: u64,
    /// Rows of the output.
    pub scored: u64,
    pub rejected: u64,
    /// The file of the rows that were not scored; none when there are none.
    pub rejects: Option<PathBuf>,
    /// Why, the most frequent reasons first.
    pub reject_reasons: Vec<ReasonCount>,
    /// Rows that an interrupted run had done before.
    pub resumed_rows: u64,
    /// Of this run.
    pub seconds: f64,
    pub rows_per_second: f64,
    pub threads: usize,
    pub models: Vec<ModelSummary>,
    /// The features that the models read, by name.
    pub features: BTreeMap<String, FeatureStatistics>,
    /// Columns of the first input that nothing is read of.
    pub unread: Vec<String>,
    /// What changed since the last run, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// What was written back into the online store, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
}

/// The scores of one model.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    pub model: String,
    pub version: String,
    /// SHA-256 over `model.onnx` and `model.toml`, in hexadecimal.
    pub digest: String,
    pub scores: ScoreSummary,
    /// From the lowest on.
    pub bands: Vec<BandCount>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub struct ScoreSummary {
    pub count: u64,
    /// The figures are null when there are no scores.
    pub mean: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// To within 1.6 %.
    pub quantiles: BTreeMap<&'static str, Option<f64>>,
    pub histogram: Histogram,
}

/// Counts of scores in parts of equal width.
#[derive(Debug, Serialize)]
pub struct Histogram {
    pub low: f64,
    pub high: f64,
    pub counts: Vec<u64>,
}

/// The models of a plan with their scores.
///
/// # Errors
/// Never for a plan, whose models are bound.
pub fn models(plan: &Plan, statistics: &Statistics) -> Result<Vec<ModelSummary>, String> {
    let mut models = Vec::new();
    for (index, (version, counts)) in plan.models.iter().zip(&statistics.models).enumerate() {
        let is_share = is_share(scoring_of(version)?);
        let bands = match plan.bands.get(index).and_then(Option::as_ref) {
            Some(bands) => bands.counted(&counts.bands),
            // Nothing but this run says what is high and what is low.
            None => {
                let bands = Bands::quintiles(&counts.scores);
                bands.counted(&counts.scores.in_bands(&bands))
            }
        };
        models.push(ModelSummary {
            model: version.name.clone(),
            version: version.version.clone(),
            digest: digest_of(version),
            scores: scores(&counts.scores, is_share),
            bands,
            labels: counts.labels.clone(),
        });
    }
    Ok(models)
}

/// The digest of a version in hexadecimal.
pub fn digest_of(version: &ModelVersion) -> String {
    hexadecimal(&version.digest)
}

fn scores(scores: &Distribution, is_share: bool) -> ScoreSummary {
    let is_any = scores.count > 0;
    let (low, high) = match is_share {
        true => (0.0, 1.0),
        false if scores.max > scores.min => (scores.min, scores.max),
        false => (scores.min, scores.min + 1.0),
    };
    let quantiles = QUANTILES.iter();
    ScoreSummary {
        count: scores.count,
        mean: scores.mean(),
        min: is_any.then_some(scores.min),
        max: is_any.then_some(scores.max),
        quantiles: quantiles
            .map(|(name, q)| (*name, scores.quantile(*q)))
            .collect(),
        histogram: Histogram {
            low,
            high,
            counts: scores.histogram(low, high, BINS),
        },
    }
}

impl Summary {
    /// The summary for people, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} rows scored to {} in {:.1} s, {:.0} rows a second",
            self.scored,
            self.output.display(),
            self.seconds,
            self.rows_per_second
        )];
        if self.resumed_rows > 0 {
            lines.push(format!("{} rows were done before", self.resumed_rows));
        }
        match &self.rejects {
            Some(file) => {
                let (rejected, file) = (self.rejected, file.display());
                lines.push(format!("{rejected} rows rejected, with reasons in {file}"));
                let told = self.reject_reasons.iter().take(PRINTED_REASONS);
                lines.extend(told.map(|told| format!("  {:>12}  {}", told.rows, told.reason)));
            }
            None => lines.push("no rows rejected".to_owned()),
        }
        if let Some(stored) = &self.stored {
            lines.push(stored.line());
        }
        for model in &self.models {
            lines.push(String::new());
            lines.extend(model.lines());
        }
        let noted: Vec<(&String, &FeatureStatistics)> = self
            .features
            .iter()
            .filter(|(_, counts)| **counts != FeatureStatistics::default())
            .collect();
        if !noted.is_empty() {
            lines.push(String::new());
            lines.push(format!(
                "{:32} {:>12} {:>12} {:>12} {:>12}",
                "feature", "missing", "unknown", "out of range", "stale"
            ));
            for (name, counts) in noted {
                lines.push(format!(
                    "{name:32} {:>12} {:>12} {:>12} {:>12}",
                    counts.missing, counts.unknown, counts.out_of_range, counts.stale
                ));
            }
        }
        if !self.unread.is_empty() {
            lines.push(String::new());
            lines.push(format!(
                "columns that no model reads: {}",
                self.unread.join(", ")
            ));
        }
        if let Some(diff) = &self.diff {
            lines.push(String::new());
            lines.extend(diff.lines());
        }
        lines
    }
}

impl ModelSummary {
    fn lines(&self) -> Vec<String> {
        let number = |number: Option<f64>| number.map_or("-".to_owned(), |n| format!("{n:.4}"));
        let digest: String = self.digest.chars().take(12).collect();
        let mut lines = vec![format!(
            "{} version {} ({digest})",
            self.model, self.version
        )];
        let quantile = |name: &str| number(self.scores.quantiles.get(name).copied().flatten());
        lines.push(format!(
            "  mean {}, from {} to {}; 1 % {}, 25 % {}, half {}, 75 % {}, 99 % {}",
            number(self.scores.mean),
            number(self.scores.min),
            number(self.scores.max),
            quantile("p01"),
            quantile("p25"),
            quantile("p50"),
            quantile("p75"),
            quantile("p99")
        ));
        let histogram = &self.scores.histogram;
        lines.push(format!(
            "  {} {} {}",
            histogram.low,
            bars(&histogram.counts),
            histogram.high
        ));
        let bands = self.bands.iter();
        let bands = bands.map(|band| format!("{} {:.1} %", band.band, 100.0 * band.share));
        lines.push(format!("  {}", bands.collect::<Vec<_>>().join(", ")));
        if !self.labels.is_empty() {
            let labels = self.labels.iter();
            let labels: Vec<String> = labels.map(|(label, n)| format!("{label} {n}")).collect();
            lines.push(format!("  {}", labels.join(", ")));
        }
        lines
    }
}

/// One letter for each count, as high as it is large.
fn bars(counts: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or_default();
    let level = |count: u64| match (count, most) {
        (0, _) | (_, 0) => ' ',
        _ => {
            let level = count.saturating_mul(LEVELS.len() as u64 - 1) / most;
            LEVELS[usize::try_from(level)
                .unwrap_or_default()
                .min(LEVELS.len() - 1)]
        }
    };
    counts.iter().map(|count| level(*count)).collect()
}
