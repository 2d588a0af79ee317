//! `bank`: who accepts a telephone offer, on the Bank Marketing table.
//!
//! It shows that the trainer works on data with a time axis. No `model.toml` is written, because
//! a bank's contacts are not customers of the `customer` view.

use std::path::Path;

use super::split;
use crate::bank;
use crate::bundle::{self, Fitted, Question, Study};
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::logistic_regression;
use crate::graph::Task;
use crate::report::Report;

const NAME: &str = "bank";
const SENTENCE: &str = "Probability that a contacted person accepts the offer, by logistic \
                        regression on what is known before the call.";

/// Trains the offer model on `data` (`.csv` or `.csv.gz`) and writes `output/bank/1/`.
///
/// The directory gets no `model.toml`: its graph is bound to no feature view. Existing files of
/// the same names are replaced. The same data gives the same files.
///
/// # Errors
/// An unreadable file or a cell that is not of its kind; see [`TrainError`].
pub fn train_bank(data: &Path, output: &Path) -> Result<Report, TrainError> {
    let table = bank::read(data)?;
    let parts = split(data, &table, bank::split)?;
    let training = parts.training.without(bank::ACCEPTED);
    let holdout = parts.holdout.without(bank::ACCEPTED);

    let encoder = Encoder::fit(&training)?;
    let design = encoder.design_matrix(&training)?;
    let model = logistic_regression(NAME, &design, parts.training.flags(bank::ACCEPTED)?)?;
    let fitted = Fitted {
        name: NAME,
        task: Task::Binary,
        sentence: SENTENCE,
        encoder,
        models: vec![model],
    };
    let study = Study {
        data_name: bank::DATA_NAME,
        data_file: data,
        split: bank::SPLIT,
        method: "Logistic regression (L2 penalty 1) on the 19 attributes known before the call: \
                 the probability that the offer is accepted.",
        training_rows: training.rows,
        holdout: &holdout,
        questions: vec![Question {
            target: bank::ACCEPTED,
            segment: "all hold-out contacts",
            output: 1,
            rows: (0..holdout.rows).collect(),
            labels: parts.holdout.flags(bank::ACCEPTED)?.to_vec(),
            drawn: true,
        }],
        notes: vec![
            "The length of the call (`duration`) is not used: it is known only after the answer."
                .to_owned(),
            "The hold-out is the latest fifth of the contacts, in which offers were accepted far \
             more often than before: the ranking carries over, the level does not."
                .to_owned(),
        ],
    };
    bundle::write(output, &fitted, None, &study)
}
