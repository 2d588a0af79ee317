//! What the classical operators do with a row of scores before they give it out: the attribute
//! `post_transform`.
//!
//! The formulas are those of ONNX Runtime, with their values for infinities and NaN. Exponentials
//! that cannot leave the range of float32 are computed in float64 and rounded once. `PROBIT`
//! approximates the inverse error function as S. Winitzki does ("A handy approximation for the error
//! function and its inverse", 2008); its float32 steps lose digits around one half, so they are
//! followed to the bit.

use crate::node::Node;

/// The function that turns raw scores into what the operator gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// As softmax, but scores of zero stay zero.
    SoftmaxZero,
    Probit,
}

/// What two scores are made of a single one when the transform itself does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    /// `1 - score` and `score`, as of a probability.
    Complement,
    /// `-score` and `score`, as of a distance.
    Opposite,
}

impl PostTransform {
    /// The attribute `post_transform` of the node; `NONE` when it is left out.
    pub fn read(node: &Node<'_>) -> Result<PostTransform, String> {
        Ok(match node.string("post_transform")?.unwrap_or("NONE") {
            "NONE" => PostTransform::None,
            "SOFTMAX" => PostTransform::Softmax,
            "LOGISTIC" => PostTransform::Logistic,
            "SOFTMAX_ZERO" => PostTransform::SoftmaxZero,
            "PROBIT" => PostTransform::Probit,
            other => {
                return Err(format!(
                    "post_transform `{other}` is none of NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO \
                     and PROBIT"
                ));
            }
        })
    }

    /// Transforms the scores of one row. As in ONNX Runtime, a single score is changed by `PROBIT`
    /// only.
    pub fn apply(self, scores: &mut [f32]) {
        match self {
            PostTransform::None => {}
            PostTransform::Probit => {
                for score in scores {
                    *score = probit(*score);
                }
            }
            _ if scores.len() < 2 => {}
            PostTransform::Logistic => {
                for score in scores {
                    *score = logistic(*score);
                }
            }
            PostTransform::Softmax => softmax(scores),
            PostTransform::SoftmaxZero => softmax_zero(scores),
        }
    }

    /// The scores of the negative and the positive class from the only score of a row.
    ///
    /// `PROBIT` has no such pair in ONNX Runtime (the second number is left unset there); the
    /// operators refuse it.
    pub fn pair(self, score: f32, otherwise: Pair) -> [f32; 2] {
        match (self, otherwise) {
            (PostTransform::Logistic, _) => [logistic(-score), logistic(score)],
            (PostTransform::None, Pair::Opposite) => [-score, score],
            _ => [1.0 - score, score],
        }
    }
}

fn logistic(score: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(score)).exp())) as f32
}

fn largest(scores: &[f32]) -> f32 {
    let mut largest = f32::MIN;
    for score in scores {
        if *score > largest {
            largest = *score;
        }
    }
    largest
}

fn softmax(scores: &mut [f32]) {
    let largest = f64::from(largest(scores));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (f64::from(*score) - largest).exp() as f32;
        sum += f64::from(*score);
    }
    for score in scores {
        *score = (f64::from(*score) / sum) as f32;
    }
}

/// All in float32: where its range ends decides between a number and NaN.
fn softmax_zero(scores: &mut [f32]) {
    const ZERO: f32 = 0.000_000_1;
    let largest = largest(scores);
    let of_zero = (-largest).exp();
    let mut sum = 0.0_f32;
    for score in scores.iter_mut() {
        if *score > ZERO || *score < -ZERO {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= of_zero;
        }
    }
    for score in scores {
        *score /= sum;
    }
}

/// The quantile of the normal distribution; NaN outside of `0..=1`.
fn probit(probability: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * probability - 1.0;
    let logarithm = ((1.0 - x) * (1.0 + x)).ln();
    let first = 2.0 / (std::f32::consts::PI * A) + 0.5 * logarithm;
    let second = 1.0 / A * logarithm;
    let magnitude = (-first + (first * first - second).sqrt()).sqrt();
    let inverse_erf = if x < 0.0 { -magnitude } else { magnitude };
    std::f32::consts::SQRT_2 * inverse_erf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_score_is_changed_by_probit_only() {
        for transform in [
            PostTransform::None,
            PostTransform::Softmax,
            PostTransform::Logistic,
            PostTransform::SoftmaxZero,
        ] {
            let mut scores = [0.25];
            transform.apply(&mut scores);
            assert_eq!(scores, [0.25]);
        }
        let mut scores = [0.25];
        PostTransform::Probit.apply(&mut scores);
        assert!((scores[0] + 0.6745).abs() < 0.01, "{scores:?}");
    }

    #[test]
    fn large_scores_do_not_overflow_and_no_scores_are_fine() {
        let mut scores = [1000.0, 999.0, -1000.0];
        PostTransform::Softmax.apply(&mut scores);
        assert!((scores[0] - 0.731_058_6).abs() < 1e-6, "{scores:?}");
        assert_eq!(scores[2], 0.0);
        for transform in [PostTransform::Softmax, PostTransform::SoftmaxZero] {
            transform.apply(&mut []);
        }
    }
}
