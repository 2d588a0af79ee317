//! `churn`: who leaves, on the IBM Telco table.

use std::path::Path;

use super::split;
use crate::bundle::{self, Fitted, Question, Study};
use crate::description::Description;
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::logistic_regression;
use crate::graph::Task;
use crate::report::Report;
use crate::{synthetic, telco};

const NAME: &str = "churn";
const SENTENCE: &str = "Probability that the customer leaves, by logistic regression on one \
                        snapshot of telephone and internet customers that has no time axis.";

/// Trains the churn model on the CSV file `data` and writes `output/churn/1/`.
///
/// `output` is a model repository, for example `models`. Existing files of the same names are
/// replaced. The same data gives the same files.
///
/// # Errors
/// An unreadable file or a cell that is not of its kind; see [`TrainError`].
pub fn train_churn(data: &Path, output: &Path) -> Result<Report, TrainError> {
    let table = telco::read(data)?;
    let parts = split(data, &table, telco::split)?;
    let training = parts.training.without(telco::CHURN);
    let holdout = parts.holdout.without(telco::CHURN);

    let encoder = Encoder::fit(&training)?;
    let design = encoder.design_matrix(&training)?;
    let model = logistic_regression(NAME, &design, parts.training.flags(telco::CHURN)?)?;
    let fitted = Fitted {
        name: NAME,
        task: Task::Binary,
        sentence: SENTENCE,
        encoder,
        models: vec![model],
    };

    let description = Description {
        name: NAME,
        task: Task::Binary,
        sentence: SENTENCE,
        choices: Vec::new(),
        outcome: "churn",
        baseline: &synthetic::reference_row(&fitted.encoder),
        data: telco::DATA_NAME,
        training_rows: training.rows,
        holdout_rows: holdout.rows,
    };
    let study = Study {
        data_name: telco::DATA_NAME,
        data_file: data,
        split: telco::SPLIT,
        method: "Logistic regression (L2 penalty 1) on all 19 attributes of a customer: the \
                 probability that the customer leaves.",
        training_rows: training.rows,
        holdout: &holdout,
        questions: vec![Question {
            target: NAME,
            segment: "all hold-out customers",
            // Column 0 is the probability of staying.
            output: 1,
            rows: (0..holdout.rows).collect(),
            labels: parts.holdout.flags(telco::CHURN)?.to_vec(),
            drawn: true,
        }],
        notes: vec![
            "The data is one snapshot and has no time axis: it does not say when a customer left \
             or when the attributes were taken, so the score has no horizon of its own. The \
             window of 30 days in `model.toml` is the convention for joining later outcomes, \
             not something the data supports."
                .to_owned(),
            "For the same reason the hold-out is a fixed fifth of the customers and not a later \
             period; figures on later customers may be worse."
                .to_owned(),
            "The score says who leaves, not who would stay if approached.".to_owned(),
        ],
    };
    bundle::write(output, &fitted, Some(&description), &study)
}
