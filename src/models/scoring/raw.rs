//! Raw scores: log-odds, or the value of a regression. Contributions of features add up to them.

use onnx_ml::Tensor;

use super::row_width;
use crate::models::tensors;

/// Raw scores, row-major; an output of one column stands for whichever column is asked for.
pub(super) struct RawScores {
    values: Vec<f64>,
    width: usize,
}

impl RawScores {
    /// Reads them from an output that holds them, or from one with probabilities.
    pub(super) fn read(
        output: &Tensor,
        is_probability: bool,
        rows: usize,
    ) -> Result<RawScores, String> {
        let mut values = tensors::to_f64(output)?;
        if is_probability {
            for value in &mut values {
                *value = log_odds(*value);
            }
        }
        let width = row_width(&values, rows)?;
        Ok(RawScores { values, width })
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.width + column.min(self.width - 1)]
    }
}

/// Log-odds of a probability, kept finite: an exact 0 or 1 counts as one float32 step away.
fn log_odds(probability: f64) -> f64 {
    const STEP: f64 = f32::EPSILON as f64 / 2.0;
    let inside = probability.clamp(STEP, 1.0 - STEP);
    inside.ln() - (-inside).ln_1p()
}
