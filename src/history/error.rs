//! Why history could not be read or joined.

use std::path::Path;

use datafusion_common::DataFusionError;

use crate::ledger::LedgerError;

/// What went wrong, naming file, column or row.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Something about the request, the observations or the output: what was found, what was expected.
    #[error("{0}")]
    Problem(String),
    /// The log cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The plan could not go on: no memory within its bound, no room for what it puts aside on disk.
    #[error("joining with history failed: {0}")]
    Plan(String),
}

impl HistoryError {
    /// A problem with a file, as `<file>: <problem>`.
    pub fn in_file(file: &Path, problem: impl std::fmt::Display) -> HistoryError {
        HistoryError::Problem(format!("{}: {problem}", file.display()))
    }
}

impl From<HistoryError> for DataFusionError {
    fn from(error: HistoryError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for HistoryError {
    /// Gives back what one of our own sources said; explains what the plan itself ran out of.
    fn from(error: DataFusionError) -> HistoryError {
        let error = match error {
            DataFusionError::External(inner) => match inner.downcast::<HistoryError>() {
                Ok(ours) => return *ours,
                Err(inner) => DataFusionError::External(inner),
            },
            DataFusionError::Context(_, inner) => return HistoryError::from(*inner),
            other => other,
        };
        match error.find_root() {
            DataFusionError::ResourcesExhausted(detail) => {
                HistoryError::Plan(out_of_bounds(detail))
            }
            DataFusionError::External(inner) => match inner.downcast_ref::<HistoryError>() {
                Some(ours) => HistoryError::Problem(ours.to_string()),
                None => HistoryError::Plan(explained(&inner.to_string())),
            },
            root => HistoryError::Plan(explained(&root.to_string())),
        }
    }
}

/// What stands in DataFusion's message about too much disk: a setting that is not ours.
const FOREIGN_ADVICE: &str = "Please try increasing the config: `datafusion.";

/// The limit on disk comes as an error of the writer that ran into it, and not as
/// `ResourcesExhausted`.
fn explained(detail: &str) -> String {
    match detail.split_once(FOREIGN_ADVICE) {
        Some((detail, _)) => out_of_bounds(detail.trim_end()),
        None => detail.to_owned(),
    }
}

fn out_of_bounds(detail: &str) -> String {
    format!(
        "out of the memory or disk space it may use; allow more (--memory; of a server \
         history.memory_bytes and history.temp_bytes) or free space in the data directory ({detail})"
    )
}
