//! Writes everything that belongs to one version of a model into its directory.
//!
//! In order: the graph, which is loaded again and must score the hold-out rows as the fitted
//! models do; the golden rows; the description; the evaluation with its pictures. If a step fails
//! the error says so and later files are not written.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::bootstrap;
use crate::description::Description;
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::LinearModel;
use crate::golden;
use crate::graph::{self, Task};
use crate::metrics::ScoredRows;
use crate::plot::{self, Line};
use crate::report::{BootstrapSettings, DataSource, Report, ReportResult};
use crate::scores::Scorer;
use crate::synthetic;
use crate::table::Table;

/// Version directory that a trainer writes.
const VERSION: &str = "1";
/// Rows in `golden.json`.
const GOLDEN_ROWS: usize = 16;

/// Linear models that make up one graph.
#[derive(Debug)]
pub struct Fitted {
    pub name: &'static str,
    pub task: Task,
    /// One honest sentence about the score, also stored in the graph.
    pub sentence: &'static str,
    pub encoder: Encoder,
    pub models: Vec<LinearModel>,
}

/// What the models are evaluated on.
#[derive(Debug)]
pub struct Study<'a> {
    pub data_name: &'static str,
    pub data_file: &'a Path,
    pub split: &'static str,
    pub method: &'static str,
    pub training_rows: usize,
    /// Features of the hold-out rows.
    pub holdout: &'a Table,
    pub questions: Vec<Question>,
    pub notes: Vec<String>,
}

/// One score to measure on some of the hold-out rows.
#[derive(Debug)]
pub struct Question {
    pub target: &'static str,
    pub segment: &'static str,
    /// Column of `probabilities` that holds the score.
    pub output: usize,
    /// Positions in the hold-out table.
    pub rows: Vec<usize>,
    /// What happened, one per hold-out row.
    pub labels: Vec<bool>,
    /// Whether it is drawn in the pictures.
    pub drawn: bool,
}

/// Writes `output/<name>/1/` and returns the evaluation.
///
/// Without a description no `model.toml` is written: the graph is then usable by any runtime but
/// bound to no feature view.
///
/// # Errors
/// [`TrainError::Graph`] if the export is wrong, [`TrainError::OneClass`] if a question has no
/// answer, [`TrainError::Write`] or [`TrainError::Plot`] if the directory is not writable.
pub fn write(
    output: &Path,
    fitted: &Fitted,
    description: Option<&Description>,
    study: &Study,
) -> Result<Report, TrainError> {
    let directory = output.join(fitted.name).join(VERSION);
    fs::create_dir_all(&directory).map_err(|source| TrainError::Write {
        file: directory.clone(),
        source,
    })?;
    let mut files = Files {
        directory,
        written: Vec::new(),
    };

    let Fitted {
        name,
        task,
        sentence,
        encoder,
        models,
    } = fitted;
    let bytes = graph::export(name, sentence, encoder, models, *task);
    let scorer = Scorer::load(name, &bytes)?;
    let holdout_scores = scorer.score_checked(study.holdout, encoder, models)?;
    let golden_rows = synthetic::rows(encoder, GOLDEN_ROWS);
    let golden_scores = scorer.score_checked(&golden_rows, encoder, models)?;
    let golden = golden::to_json(&golden_rows, &golden_scores);
    let golden = golden.map_err(|source| TrainError::Json {
        file: "golden.json",
        source,
    })?;
    files.write("model.onnx", &bytes)?;
    files.write("golden.json", golden.as_bytes())?;
    if let Some(description) = description {
        files.write("model.toml", description.to_toml().as_bytes())?;
    }

    let mut results = Vec::new();
    let mut roc_lines = Vec::new();
    let mut calibration_lines = Vec::new();
    for question in &study.questions {
        let scored = scored_rows(question, &holdout_scores.probabilities);
        let result = measure(question, &scored)?;
        if question.drawn {
            roc_lines.push(Line {
                legend: format!(
                    "{} (AUC {:.3})",
                    question.target, result.metrics.roc_auc.value
                ),
                points: scored.roc_curve(),
            });
            let bins = result.calibration.iter();
            calibration_lines.push(Line {
                legend: question.target.to_owned(),
                points: bins
                    .map(|bin| (bin.mean_score, bin.observed_rate))
                    .collect(),
            });
        }
        results.push(result);
    }
    let drawn = study.questions.iter().find(|question| question.drawn);
    let segment = drawn.map_or("", |question| question.segment);
    let title = format!("{name}: ROC curves, {segment}");
    plot::draw_roc(&files.path("roc.svg"), &title, &roc_lines)?;
    let title = format!("{name}: calibration, {segment}");
    plot::draw_calibration(&files.path("calibration.svg"), &title, &calibration_lines)?;

    let mut report = Report {
        model: (*name).to_owned(),
        method: study.method.to_owned(),
        data: data_source(study)?,
        split: study.split.to_owned(),
        training_rows: study.training_rows,
        holdout_rows: study.holdout.rows,
        bootstrap: BootstrapSettings::default(),
        results,
        notes: study.notes.clone(),
        files: Vec::new(),
    };
    let json = report.to_json().map_err(|source| TrainError::Json {
        file: "report.json",
        source,
    })?;
    files.write("report.json", json.as_bytes())?;
    files.write("report.md", report.to_markdown().as_bytes())?;
    report.files = files.written;
    Ok(report)
}

fn scored_rows(question: &Question, probabilities: &[Vec<f64>]) -> ScoredRows {
    let mut scores = Vec::new();
    let mut labels = Vec::new();
    for row in &question.rows {
        scores.push(probabilities[*row][question.output]);
        labels.push(question.labels[*row]);
    }
    ScoredRows::new(&scores, &labels)
}

fn measure(question: &Question, scored: &ScoredRows) -> Result<ReportResult, TrainError> {
    let metrics = bootstrap::estimate(scored).ok_or_else(|| TrainError::OneClass {
        target: question.target.to_owned(),
        part: "hold-out",
        rows: scored.len(),
        positives: scored.positives(),
    })?;
    Ok(ReportResult {
        target: question.target.to_owned(),
        segment: question.segment.to_owned(),
        rows: scored.len(),
        positives: scored.positives(),
        metrics,
        calibration: scored.calibration(),
    })
}

fn data_source(study: &Study) -> Result<DataSource, TrainError> {
    let bytes = fs::read(study.data_file).map_err(|source| TrainError::Read {
        file: study.data_file.to_owned(),
        source,
    })?;
    let mut sha256 = String::new();
    for byte in Sha256::digest(&bytes) {
        sha256.push_str(&format!("{byte:02x}"));
    }
    let file = study.data_file.file_name().unwrap_or_default();
    Ok(DataSource {
        name: study.data_name.to_owned(),
        file: file.to_string_lossy().into_owned(),
        sha256,
        rows: study.training_rows + study.holdout.rows,
    })
}

/// The files of one version, as they are written.
struct Files {
    directory: PathBuf,
    written: Vec<PathBuf>,
}

impl Files {
    /// The path of a file that the caller writes.
    fn path(&mut self, name: &str) -> PathBuf {
        let file = self.directory.join(name);
        self.written.push(file.clone());
        file
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        let file = self.path(name);
        fs::write(&file, bytes).map_err(|source| TrainError::Write { file, source })
    }
}
