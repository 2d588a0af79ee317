//! Everything that can stop a training run, worded for the person who started it.
//!
//! Each message says what was wrong and where (file, line, column), what was found, what was
//! expected and, where there is a choice, what to do about it.

use std::path::PathBuf;

/// Why a model could not be trained, exported or evaluated.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data file is missing or unreadable: correct the path.
    #[error("cannot read {file}: {source}", file = file.display())]
    Read {
        file: PathBuf,
        source: std::io::Error,
    },

    /// The data file is not well-formed CSV, for example a row with too few fields.
    #[error("{file} is not readable as CSV: {source}", file = file.display())]
    Csv { file: PathBuf, source: csv::Error },

    /// A column that the model needs is not in the header.
    #[error(
        "{file}, line 1: expected a column '{column}', found only: {found}",
        file = file.display()
    )]
    MissingColumn {
        file: PathBuf,
        column: String,
        found: String,
    },

    /// A cell does not hold what its column promises.
    #[error(
        "{file}, line {line}, column '{column}': expected {expected}, found '{found}'",
        file = file.display()
    )]
    Cell {
        file: PathBuf,
        line: u64,
        column: String,
        expected: &'static str,
        found: String,
    },

    /// Too few rows to hold some out and fit on the rest.
    #[error(
        "{file}: expected at least {expected} rows of data, found {found}",
        file = file.display()
    )]
    TooFewRows {
        file: PathBuf,
        expected: usize,
        found: usize,
    },

    /// The training or hold-out rows hold only one of the two classes.
    #[error(
        "'{target}' has {positives} positives among the {rows} {part} rows: \
         expected both classes, use data in which both occur"
    )]
    OneClass {
        target: String,
        part: &'static str,
        rows: usize,
        positives: usize,
    },

    /// Nothing to learn from.
    #[error("'{target}': no feature has a value in any of the training rows")]
    NoFeatures { target: String },

    /// A column was asked for that the table does not have, or that has another type.
    #[error("column '{column}': expected {expected}, found {found}")]
    Column {
        column: String,
        expected: &'static str,
        found: &'static str,
    },

    /// The optimiser gave up.
    #[error("fitting '{target}' failed: {source}")]
    Fit {
        target: String,
        source: linfa_logistic::error::Error,
    },

    /// The optimiser stopped before the minimum; the coefficients would depend on where.
    #[error(
        "fitting '{target}' did not converge: largest mean gradient {gradient:e}, \
         expected at most {tolerance:e}; raise the iteration limit or the penalty"
    )]
    NotConverged {
        target: String,
        gradient: f64,
        tolerance: f64,
    },

    /// The exported graph does not do what the fitted model does.
    #[error("the exported graph '{model}' is wrong: {reason}")]
    Graph { model: String, reason: String },

    /// A picture of the report could not be drawn.
    #[error("cannot draw {file}: {reason}", file = file.display())]
    Plot { file: PathBuf, reason: String },

    /// A report or golden file has no JSON form, which only a defect of this crate could cause.
    #[error("cannot write {file} as JSON: {source}")]
    Json {
        file: &'static str,
        source: serde_json::Error,
    },

    /// The output directory is not writable.
    #[error("cannot write {file}: {source}", file = file.display())]
    Write {
        file: PathBuf,
        source: std::io::Error,
    },
}
