//! `upsell`: which add-ons similar customers hold, on the IBM Telco table.

use std::path::Path;

use ndarray::Axis;

use super::split;
use crate::bundle::{self, Fitted, Question, Study};
use crate::description::{Choice, Description};
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::{LinearModel, logistic_regression};
use crate::graph::Task;
use crate::report::Report;
use crate::synthetic;
use crate::table::Table;
use crate::telco::{self, ADD_ONS};

const NAME: &str = "upsell";
const SENTENCE: &str = "Look-alike affinity for six add-ons: how often customers with the same \
                        other attributes hold each one, from one snapshot without a time axis; \
                        not the causal effect of offering it.";

/// Columns that give the answer away: a bill is the sum of the prices of what the customer holds,
/// so with the other services known it says whether the add-on is among them. A model that sees
/// it scores an AUC of 1.00 and gives every customer without the add-on a probability near zero,
/// which is useless for finding whom to offer it.
const BILLS: [&str; 2] = ["monthly_charges", "total_charges"];

/// Trains the six add-on models on the CSV file `data` and writes `output/upsell/1/`.
///
/// `output` is a model repository, for example `models`. Existing files of the same names are
/// replaced. The same data gives the same files.
///
/// # Errors
/// An unreadable file or a cell that is not of its kind; see [`TrainError`].
pub fn train_upsell(data: &Path, output: &Path) -> Result<Report, TrainError> {
    let table = telco::read(data)?;
    let parts = split(data, &table, telco::split)?;
    let training = without_targets_and_bills(&parts.training);
    let holdout = without_targets_and_bills(&parts.holdout);

    let encoder = Encoder::fit(&training)?;
    let mut models = Vec::new();
    for add_on in ADD_ONS {
        models.push(fit_add_on(add_on, &encoder, &training)?);
    }
    let fitted = Fitted {
        name: NAME,
        task: Task::Affinity,
        sentence: SENTENCE,
        encoder,
        models,
    };

    let mut choices = Vec::new();
    for add_on in ADD_ONS {
        choices.push(Choice {
            label: add_on,
            unless: format!("{add_on} = 'Yes'"),
        });
    }
    let description = Description {
        name: NAME,
        task: Task::Affinity,
        sentence: SENTENCE,
        choices,
        outcome: "addon_accepted",
        baseline: &synthetic::reference_row(&fitted.encoder),
        data: telco::DATA_NAME,
        training_rows: training.rows,
        holdout_rows: holdout.rows,
    };
    let study = Study {
        data_name: telco::DATA_NAME,
        data_file: data,
        split: telco::SPLIT,
        method: "Six logistic regressions (L2 penalty 1), one per add-on, each on the customer's \
                 attributes without that add-on's own column and without the charges: the \
                 probability that a customer with these other attributes holds it.",
        training_rows: training.rows,
        holdout: &holdout,
        questions: questions(&holdout)?,
        notes: notes(),
    };
    bundle::write(output, &fitted, Some(&description), &study)
}

fn without_targets_and_bills(table: &Table) -> Table {
    let mut features = table.without(telco::CHURN);
    for bill in BILLS {
        features = features.without(bill);
    }
    features
}

/// One flag per row: whether the customer holds the add-on.
fn holds(add_on: &str, table: &Table) -> Result<Vec<bool>, TrainError> {
    let answers = table.texts(add_on)?;
    Ok(answers.iter().map(|answer| answer == "Yes").collect())
}

/// Fits P(holds `add_on`) on all columns but the add-on's own, whose weights are 0.
fn fit_add_on(
    add_on: &str,
    encoder: &Encoder,
    training: &Table,
) -> Result<LinearModel, TrainError> {
    let own = encoder.range_of(add_on);
    let mut others = Vec::new();
    for column in 0..encoder.width() {
        if !own.contains(&column) {
            others.push(column);
        }
    }
    let design = encoder.design_matrix(training)?.select(Axis(1), &others);
    let reduced = logistic_regression(add_on, &design, &holds(add_on, training)?)?;

    let mut weights = vec![0.0; encoder.width()];
    for (column, weight) in others.iter().zip(reduced.weights) {
        weights[*column] = weight;
    }
    Ok(LinearModel {
        intercept: reduced.intercept,
        weights,
    })
}

/// Each add-on among customers with internet service, where the answer is open, then among all.
fn questions(holdout: &Table) -> Result<Vec<Question>, TrainError> {
    let internet_service = holdout.texts("internet_service")?;
    let mut with_internet = Vec::new();
    for (row, service) in internet_service.iter().enumerate() {
        if service != "No" {
            with_internet.push(row);
        }
    }
    let all: Vec<usize> = (0..holdout.rows).collect();

    let mut questions = Vec::new();
    let segments = [
        (
            "hold-out customers with internet service",
            &with_internet,
            true,
        ),
        ("all hold-out customers", &all, false),
    ];
    for (segment, rows, drawn) in segments {
        for (output, add_on) in ADD_ONS.into_iter().enumerate() {
            questions.push(Question {
                target: add_on,
                segment,
                output,
                rows: rows.clone(),
                labels: holds(add_on, holdout)?,
                drawn,
            });
        }
    }
    Ok(questions)
}

fn notes() -> Vec<String> {
    vec![
        "This is look-alike affinity: the score says how common the add-on is among similar \
         customers. It is not the chance that this customer accepts an offer, and not the effect \
         of making one; nothing in the data was offered."
            .to_owned(),
        "The data is one snapshot and has no time axis: attributes may have changed after the \
         add-on was bought. The window of 30 days in `model.toml` is the convention for joining \
         later outcomes."
            .to_owned(),
        "`monthly_charges` and `total_charges` are left out on purpose. The bill contains the \
         add-on's price, so a model that sees it knows the answer (ROC AUC above 0.997 on the \
         hold-out) and gives everyone without the add-on a score near zero."
            .to_owned(),
        "A customer without internet service cannot hold any of the six, which is easy to \
         predict and raises the figures for all customers. The figures for customers with \
         internet service are the ones to judge by; the pictures show those."
            .to_owned(),
    ]
}
