//! Fits one logistic regression with linfa and checks that it converged.
//!
//! The objective is scikit-learn's with `C = 1 / PENALTY`: the summed log-loss plus
//! `PENALTY / 2 * |weights|^2`, the intercept unpenalised. The result is deterministic: same rows,
//! same order, same processor kind, same bits; on another processor the weights agree to about
//! 1e-12, because linfa's optimum is refined to rounding level (see [`crate::newton`]).

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};

use crate::error::TrainError;
use crate::newton;

/// Weight of the squared-weights penalty against the summed log-loss.
pub const PENALTY: f64 = 1.0;

/// Length of the gradient of the mean loss at which linfa stops: scikit-learn's default. With
/// nearly collinear columns that is still far enough from the minimum to move an AUC by 0.003.
const ROUGH_TOLERANCE: f64 = 1e-4;
/// The same for its largest component at which the refined model counts as converged.
const FINAL_TOLERANCE: f64 = 1e-12;

const MAX_ITERATIONS: u64 = 2_000;
const MAX_NEWTON_STEPS: usize = 10;

/// A linear function of the design matrix whose value is a log-odds.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel {
    pub intercept: f64,
    /// One per column of the design matrix.
    pub weights: Vec<f64>,
}

impl LinearModel {
    /// The log-odds of every row of the design matrix.
    pub fn log_odds(&self, design: &Array2<f64>) -> Vec<f64> {
        let mut scores = Vec::with_capacity(design.nrows());
        for row in design.rows() {
            let mut score = self.intercept;
            for (value, weight) in row.iter().zip(&self.weights) {
                score += value * weight;
            }
            scores.push(score);
        }
        scores
    }
}

/// Fits P(`labels` is true) on the rows of `design`.
///
/// # Errors
/// [`TrainError::OneClass`] when all labels are equal, [`TrainError::Fit`] when the optimiser
/// fails, [`TrainError::NotConverged`] when it stops too early. `target` names the model in them.
pub fn logistic_regression(
    target: &str,
    design: &Array2<f64>,
    labels: &[bool],
) -> Result<LinearModel, TrainError> {
    let positives = labels.iter().filter(|label| **label).count();
    if positives == 0 || positives == labels.len() {
        return Err(TrainError::OneClass {
            target: target.to_owned(),
            part: "training",
            rows: labels.len(),
            positives,
        });
    }

    let rows = labels.len() as f64;
    let dataset = DatasetBase::new(design.view(), Array1::from(labels.to_vec()));
    let fitted = LogisticRegression::default()
        .alpha(PENALTY)
        .max_iterations(MAX_ITERATIONS)
        .gradient_tolerance(ROUGH_TOLERANCE * rows)
        .fit(&dataset)
        .map_err(|source| TrainError::Fit {
            target: target.to_owned(),
            source,
        })?;

    // linfa calls one of the two classes positive by its own rule; ours is always `true`.
    let sign = if fitted.labels().pos.class { 1.0 } else { -1.0 };
    let mut model = LinearModel {
        intercept: sign * fitted.intercept(),
        weights: fitted.params().iter().map(|weight| sign * weight).collect(),
    };

    let mut largest = largest_mean_gradient(&model, design, labels);
    for _ in 0..MAX_NEWTON_STEPS {
        if largest <= FINAL_TOLERANCE {
            return Ok(model);
        }
        newton::step(&mut model, design, labels, PENALTY);
        largest = largest_mean_gradient(&model, design, labels);
    }
    if largest <= FINAL_TOLERANCE {
        return Ok(model);
    }
    Err(TrainError::NotConverged {
        target: target.to_owned(),
        gradient: largest,
        tolerance: FINAL_TOLERANCE,
    })
}

/// The largest absolute component of the objective's gradient, divided by the number of rows;
/// infinite when a step went astray and a component is not a number.
fn largest_mean_gradient(model: &LinearModel, design: &Array2<f64>, labels: &[bool]) -> f64 {
    let mut largest: f64 = 0.0;
    for component in newton::gradient(model, design, labels, PENALTY) {
        if !component.is_finite() {
            return f64::INFINITY;
        }
        largest = largest.max(component.abs());
    }
    largest / labels.len() as f64
}

/// The logistic function: log-odds to probability.
pub fn sigmoid(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalised_minimum_is_found_for_either_majority() {
        // Given separable rows, where only the penalty keeps the weight finite.
        let design = ndarray::array![[-1.0], [-1.0], [-1.0], [1.0]];
        let few = [false, false, false, true];
        let many = [true, true, true, false];
        // When the rarer and the more frequent class are fitted.
        let rare = logistic_regression("rare", &design, &few).unwrap();
        let frequent = logistic_regression("frequent", &design, &many).unwrap();
        // Then the weight and intercept are scikit-learn's (C=1, tol=1e-12), and swapping the
        // classes swaps the signs.
        assert!((rare.weights[0] - 0.92548596).abs() < 1e-6, "{rare:?}");
        assert!((rare.intercept + 0.77618113).abs() < 1e-6, "{rare:?}");
        assert!((rare.weights[0] + frequent.weights[0]).abs() < 1e-9);
        assert!((rare.intercept + frequent.intercept).abs() < 1e-9);
    }

    #[test]
    fn one_class_alone_is_refused() {
        let design = ndarray::array![[0.0], [1.0]];
        let error = logistic_regression("churn", &design, &[true, true]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "'churn' has 2 positives among the 2 training rows: expected both classes, \
             use data in which both occur"
        );
    }
}
