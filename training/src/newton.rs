//! Takes a nearly converged logistic regression to the exact minimum by Newton's method.
//!
//! A quasi-Newton optimiser ends somewhere near the minimum, and where depends on the processor's
//! rounding. A few Newton steps from there square the remaining error away, so that two processors
//! agree on the float32 weights that are exported. Source: the standard iteration, for example
//! Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.4.1, with a
//! ridge term. It is not a solver on its own: far from the minimum a full step may overshoot.

use ndarray::{Array1, Array2};

use crate::fit::{LinearModel, sigmoid};

/// Gradient of the penalised summed log-loss; the last component belongs to the intercept.
pub fn gradient(
    model: &LinearModel,
    design: &Array2<f64>,
    labels: &[bool],
    penalty: f64,
) -> Array1<f64> {
    let width = design.ncols();
    let mut gradient = Array1::zeros(width + 1);
    for (column, weight) in model.weights.iter().enumerate() {
        gradient[column] = penalty * weight;
    }
    let log_odds = model.log_odds(design);
    for ((row, log_odds), label) in design.rows().into_iter().zip(log_odds).zip(labels) {
        let residual = sigmoid(log_odds) - f64::from(u8::from(*label));
        for (column, value) in row.iter().enumerate() {
            gradient[column] += residual * value;
        }
        gradient[width] += residual;
    }
    gradient
}

/// Moves `model` by one Newton step. The caller checks the gradient before and after.
pub fn step(model: &mut LinearModel, design: &Array2<f64>, labels: &[bool], penalty: f64) {
    let gradient = gradient(model, design, labels, penalty);
    let mut hessian = hessian(model, design, penalty);
    let change = solve(&mut hessian, gradient);
    for (weight, change) in model.weights.iter_mut().zip(&change) {
        *weight -= change;
    }
    model.intercept -= change[design.ncols()];
}

/// Second derivatives of the objective: lower triangle, the intercept last.
fn hessian(model: &LinearModel, design: &Array2<f64>, penalty: f64) -> Array2<f64> {
    let width = design.ncols();
    let mut hessian = Array2::zeros((width + 1, width + 1));
    for column in 0..width {
        hessian[[column, column]] = penalty;
    }
    for (row, log_odds) in design.rows().into_iter().zip(model.log_odds(design)) {
        let probability = sigmoid(log_odds);
        let curvature = probability * (1.0 - probability);
        for left in 0..width {
            let scaled = curvature * row[left];
            // One-hot rows are mostly zeros.
            if scaled == 0.0 {
                continue;
            }
            for right in 0..=left {
                hessian[[left, right]] += scaled * row[right];
            }
            hessian[[width, left]] += scaled;
        }
        hessian[[width, width]] += curvature;
    }
    hessian
}

/// Solves `matrix * x = right` by Cholesky decomposition, which overwrites the lower triangle.
///
/// The matrix is positive definite by construction: the penalty is on its diagonal, and the
/// intercept's curvature is positive as long as no probability is exactly 0 or 1 everywhere.
fn solve(matrix: &mut Array2<f64>, mut right: Array1<f64>) -> Array1<f64> {
    let size = right.len();
    for column in 0..size {
        for row in column..size {
            let mut value = matrix[[row, column]];
            for inner in 0..column {
                value -= matrix[[row, inner]] * matrix[[column, inner]];
            }
            matrix[[row, column]] = if row == column {
                value.sqrt()
            } else {
                value / matrix[[column, column]]
            };
        }
    }
    for row in 0..size {
        for inner in 0..row {
            right[row] -= matrix[[row, inner]] * right[inner];
        }
        right[row] /= matrix[[row, row]];
    }
    for row in (0..size).rev() {
        for inner in row + 1..size {
            right[row] -= matrix[[inner, row]] * right[inner];
        }
        right[row] /= matrix[[row, row]];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_positive_definite_system() {
        // Given A x = b with A = [[4, 2], [2, 3]] and x = [1, -2]; only the lower triangle counts.
        let mut matrix = ndarray::array![[4.0, 0.0], [2.0, 3.0]];
        let right = ndarray::array![0.0, -4.0];
        // When it is solved.
        let solution = solve(&mut matrix, right);
        // Then x comes back.
        assert!((solution[0] - 1.0).abs() < 1e-12);
        assert!((solution[1] + 2.0).abs() < 1e-12);
    }
}
