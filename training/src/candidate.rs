//! A new version of a model: fitted on one part of labelled rows, compared on the other.
//!
//! The pipeline is that of the sample models: imputation, standardisation, one-hot encoding and
//! logistic regression, exported as one graph over the raw columns. What is compared is that graph,
//! loaded again, and not the numbers in memory. Nothing here reads or writes files.

use crate::comparison::{ComparedRows, Comparison, compare};
use crate::encode::Encoder;
use crate::error::TrainError;
use crate::fit::logistic_regression;
use crate::golden;
use crate::graph::{self, Task};
use crate::scores::Scorer;
use crate::synthetic;
use crate::table::{Table, Values};

/// Categories of one text column that get a weight; the rarer ones count as unknown. Columns with
/// more are rather names than categories, and each costs a column of the design matrix.
pub const MOST_CATEGORIES: usize = 100;

/// Rows in `golden.json`.
const GOLDEN_ROWS: usize = 16;

/// Labelled rows.
#[derive(Debug)]
pub struct LabelledRows {
    pub features: Table,
    pub labels: Vec<bool>,
}

/// Rows that are held out, and what the model that serves says about them.
#[derive(Debug)]
pub struct HoldoutRows {
    pub rows: LabelledRows,
    /// Which rows are of one customer.
    pub customers: Vec<u64>,
    pub champion_scores: Vec<f64>,
}

/// What was fitted.
#[derive(Debug)]
pub struct Candidate {
    /// The bytes of `model.onnx`.
    pub graph: Vec<u8>,
    /// The text of `golden.json`.
    pub golden: String,
    /// Columns that the graph reads.
    pub inputs: Vec<String>,
    /// Columns that had no value in any training row and are not read.
    pub without_values: Vec<String>,
    /// Columns with more than [`MOST_CATEGORIES`] categories.
    pub with_rare_categories: Vec<String>,
    pub comparison: Comparison,
}

/// Fits a binary model called `name` on `training` and compares it on `holdout`.
///
/// # Errors
/// [`TrainError::OneClass`] when a part holds one class only, [`TrainError::NoFeatures`] when no
/// column has a value; see [`TrainError`] for what should not happen.
pub fn fit(
    name: &str,
    sentence: &str,
    training: &LabelledRows,
    holdout: &HoldoutRows,
) -> Result<Candidate, TrainError> {
    let mut features = training.features.clone();
    let mut without_values = Vec::new();
    let mut with_rare_categories = Vec::new();
    for column in &training.features.columns {
        match &column.values {
            Values::Number(numbers) if numbers.iter().all(Option::is_none) => {
                features = features.without(&column.name);
                without_values.push(column.name.clone());
            }
            Values::Text(texts) if has_more_categories(texts) => {
                with_rare_categories.push(column.name.clone());
            }
            _ => {}
        }
    }
    if features.columns.is_empty() {
        return Err(TrainError::NoFeatures {
            target: name.to_owned(),
        });
    }
    let encoder = Encoder::fit_frequent(&features, MOST_CATEGORIES)?;
    let design = encoder.design_matrix(&features)?;
    let model = logistic_regression(name, &design, &training.labels)?;
    let models = [model];
    let graph = graph::export(name, sentence, &encoder, &models, Task::Binary);

    let scorer = Scorer::load(name, &graph)?;
    let scores = scorer.score_checked(&holdout.rows.features, &encoder, &models)?;
    // Column 0 is the probability that nothing happens.
    let candidate_scores: Vec<f64> = scores.probabilities.iter().map(|row| row[1]).collect();
    let labels = &holdout.rows.labels;
    let compared = ComparedRows {
        labels,
        customers: &holdout.customers,
        candidate: &candidate_scores,
        champion: &holdout.champion_scores,
    };
    let comparison = compare(&compared).ok_or_else(|| TrainError::OneClass {
        target: name.to_owned(),
        part: "hold-out",
        rows: labels.len(),
        positives: labels.iter().filter(|label| **label).count(),
    })?;
    let golden_rows = synthetic::rows(&encoder, GOLDEN_ROWS);
    let golden_scores = scorer.score_checked(&golden_rows, &encoder, &models)?;
    let golden = golden::to_json(&golden_rows, &golden_scores);
    Ok(Candidate {
        golden: golden.map_err(|source| TrainError::Json {
            file: "golden.json",
            source,
        })?,
        graph,
        inputs: encoder.columns.into_iter().map(|(name, _)| name).collect(),
        without_values,
        with_rare_categories,
        comparison,
    })
}

fn has_more_categories(texts: &[String]) -> bool {
    let different: std::collections::HashSet<&String> = texts.iter().collect();
    different.len() > MOST_CATEGORIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Column;

    /// `rows` rows in which high `usage` and the contract "A" make the label likely.
    fn rows(rows: usize, columns: &[&str]) -> LabelledRows {
        let step = |row: usize| (row * 7919) % 100;
        let labels = (0..rows).map(|row| step(row) + 25 * (row % 2) > 60);
        let mut features = Table {
            columns: Vec::new(),
            rows,
        };
        for name in columns {
            let values = match *name {
                "usage" => (0..rows)
                    .map(|row| (row % 9 > 0).then(|| step(row) as f64))
                    .collect(),
                "epoch" => (0..rows)
                    .map(|row| Some(1.7e9 + step(row) as f64 * 1e4))
                    .collect(),
                "empty" => vec![None; rows],
                _ => Vec::new(),
            };
            let texts = |text: fn(usize) -> String| Values::Text((0..rows).map(text).collect());
            let values = match *name {
                "contract" => texts(|row| if row % 2 == 1 { "A" } else { "" }.to_owned()),
                "name" => texts(|row| format!("customer {row}")),
                "months" => Values::Integer((0..rows as i64).collect()),
                _ => Values::Number(values),
            };
            features.columns.push(Column {
                name: (*name).to_owned(),
                values,
            });
        }
        LabelledRows {
            features,
            labels: labels.collect(),
        }
    }

    fn fitted(columns: &[&str]) -> Result<Candidate, TrainError> {
        let holdout = HoldoutRows {
            rows: rows(200, columns),
            customers: (0..200).collect(),
            champion_scores: vec![0.5; 200],
        };
        fit("churn", "made up", &rows(600, columns), &holdout)
    }

    #[test]
    fn any_mixture_of_columns_becomes_a_graph_that_is_better_than_a_guess() {
        for columns in [
            vec!["usage", "contract", "months"],
            vec!["usage"],
            vec!["contract", "name"],
            vec!["epoch", "contract"],
        ] {
            let candidate = fitted(&columns).unwrap();
            assert_eq!(candidate.inputs, columns);
            let difference = candidate.comparison.difference;
            assert!(
                difference.log_loss.high < 0.0,
                "{columns:?}: {difference:?}"
            );
        }
    }

    #[test]
    fn columns_without_values_are_left_out_and_rare_categories_named() {
        let candidate = fitted(&["empty", "usage", "name"]).unwrap();
        assert_eq!(candidate.inputs, ["usage", "name"]);
        assert_eq!(candidate.without_values, ["empty"]);
        assert_eq!(candidate.with_rare_categories, ["name"]);
        let error = fitted(&["empty"]).unwrap_err();
        assert!(
            error.to_string().contains("no feature has a value"),
            "{error}"
        );
    }
}
