//! Probabilities of classes from the scores of their pairs, for support vector machines.
//!
//! J. Platt, "Probabilistic outputs for support vector machines", 1999, gives the probability of a
//! pair; T.-F. Wu, C.-J. Lin and R. C. Weng, "Probability estimates for multi-class classification by
//! pairwise coupling", 2004, make one probability per class of them: those that minimize
//! `p' Q p` with sum 1 (algorithm 2). The iteration stops at a tolerance that shows in the result,
//! so every step is taken in float32 in the order of ONNX Runtime.

/// The most rounds of the iteration.
const ROUNDS: usize = 100;
/// Pairs are never surer than this.
const LEAST: f32 = 1.0e-7;

/// Room for the iteration, used again for every row.
#[derive(Debug)]
pub(crate) struct Coupling {
    classes: usize,
    /// `[i][j]`: the probability of class `i` against class `j`.
    pairs: Vec<f32>,
    /// The matrix of the quadratic form.
    q: Vec<f32>,
    /// Its product with the probabilities.
    q_p: Vec<f32>,
}

/// The probability of the first class of a pair.
fn pair_probability(score: f32, (slope, offset): (f32, f32)) -> f32 {
    let value = score * slope + offset;
    let of_magnitude = 1.0 / (1.0 + (-value.abs()).exp());
    let logistic = if value < 0.0 {
        1.0 - of_magnitude
    } else {
        of_magnitude
    };
    let probability = 1.0 - logistic;
    // NaN stays.
    probability.clamp(LEAST, 1.0 - LEAST)
}

impl Coupling {
    pub fn new(classes: usize) -> Coupling {
        let square = classes.saturating_mul(classes);
        Coupling {
            classes,
            pairs: vec![0.0; square],
            q: vec![0.0; square],
            q_p: vec![0.0; classes],
        }
    }

    /// Writes the probability of each class. `scores` and `parameters` have one entry per pair:
    /// first with second, first with third, and so on.
    pub fn couple(&mut self, scores: &[f32], parameters: &[(f32, f32)], probabilities: &mut [f32]) {
        let classes = self.classes;
        let mut each = scores.iter().zip(parameters);
        for first in 0..classes {
            for second in first + 1..classes {
                let probability = match each.next() {
                    Some((score, parameters)) => pair_probability(*score, *parameters),
                    None => 0.5,
                };
                self.pairs[first * classes + second] = probability;
                self.pairs[second * classes + first] = 1.0 - probability;
            }
        }
        self.set_matrix();
        probabilities.fill(1.0 / classes as f32);
        for _ in 0..ROUNDS {
            let form = self.multiply(probabilities);
            if self.largest_error(form) < 0.005 / classes as f32 {
                break;
            }
            self.improve(form, probabilities);
        }
    }

    fn set_matrix(&mut self) {
        let classes = self.classes;
        for i in 0..classes {
            let mut diagonal = 0.0;
            for j in 0..classes {
                if i == j {
                    continue;
                }
                let against = self.pairs[j * classes + i];
                diagonal += against * against;
                self.q[i * classes + j] = -against * self.pairs[i * classes + j];
            }
            self.q[i * classes + i] = diagonal;
        }
    }

    /// Sets the product of matrix and probabilities; gives the value of the quadratic form.
    fn multiply(&mut self, probabilities: &[f32]) -> f32 {
        let mut form = 0.0;
        let rows = self.q.chunks_exact(self.classes);
        for ((product, row), own) in self.q_p.iter_mut().zip(rows).zip(probabilities) {
            *product = 0.0;
            for (q, p) in row.iter().zip(probabilities) {
                *product += q * p;
            }
            form += own * *product;
        }
        form
    }

    fn largest_error(&self, form: f32) -> f32 {
        let mut largest = 0.0;
        for product in &self.q_p {
            let error = (product - form).abs();
            if error > largest {
                largest = error;
            }
        }
        largest
    }

    /// One round: each probability in turn is set to its best value and all are scaled to sum 1.
    fn improve(&mut self, mut form: f32, probabilities: &mut [f32]) {
        for (i, row) in self.q.chunks_exact(self.classes).enumerate() {
            let diagonal = row[i];
            let step = (-self.q_p[i] + form) / diagonal;
            let scale = 1.0 + step;
            probabilities[i] += step;
            form = (form + step * (step * diagonal + 2.0 * self.q_p[i])) / scale / scale;
            for ((product, q), p) in self.q_p.iter_mut().zip(row).zip(probabilities.iter_mut()) {
                *product = (*product + step * q) / scale;
                *p /= scale;
            }
        }
    }
}
