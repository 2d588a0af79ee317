//! [`Post`]: the functions that scores may be put through at last.
//!
//! They are computed in float32 whatever the scores are, as onnxruntime does.

use crate::node::Node;
use crate::trees::plain::Real;

/// What is done to the scores at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Post {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Post {
    /// The attribute `post_transform` as text.
    pub fn read(node: &Node<'_>) -> Result<Post, String> {
        match node.string("post_transform")? {
            None | Some("NONE") => Ok(Post::None),
            Some("SOFTMAX") => Ok(Post::Softmax),
            Some("LOGISTIC") => Ok(Post::Logistic),
            Some("SOFTMAX_ZERO") => Ok(Post::SoftmaxZero),
            Some("PROBIT") => Ok(Post::Probit),
            Some(other) => Err(format!(
                "attribute `post_transform` is `{other}`, expected NONE, SOFTMAX, LOGISTIC, \
                 SOFTMAX_ZERO or PROBIT"
            )),
        }
    }

    /// The attribute `post_transform` of `TreeEnsemble`, a number. The specification numbers the
    /// softmax 1 and the logistic function 2, onnxruntime the other way round, and files are made to
    /// run there.
    pub fn read_number(node: &Node<'_>) -> Result<Post, String> {
        match node.int("post_transform")? {
            None | Some(0) => Ok(Post::None),
            Some(1) => Ok(Post::Logistic),
            Some(2) => Ok(Post::Softmax),
            Some(3) => Ok(Post::SoftmaxZero),
            Some(4) => Ok(Post::Probit),
            Some(other) => Err(format!(
                "attribute `post_transform` is {other}, expected 0 to 4"
            )),
        }
    }

    /// Changes the scores of one row, of which there are at least two.
    pub fn apply<T: Real>(self, scores: &mut [T]) {
        match self {
            Post::None => {}
            Post::Probit => each(scores, probit),
            Post::Logistic => each(scores, logistic),
            Post::Softmax => softmax(scores),
            Post::SoftmaxZero => softmax_zero(scores),
        }
    }
}

pub(super) fn each<T: Real>(scores: &mut [T], change: fn(f32) -> f32) {
    for score in scores {
        *score = T::from_f32(change(score.to_f32()));
    }
}

pub(super) fn logistic(score: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 {
        1.0 - positive
    } else {
        positive
    }
}

/// The quantile function of the normal distribution, with Winitzki's approximation of the inverse of
/// the error function.
pub(super) fn probit(score: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * score - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f32::consts::PI * A) + 0.5 * log;
    let root = (half * half - 1.0 / A * log).sqrt() - half;
    std::f32::consts::SQRT_2 * (sign * root.sqrt())
}

fn greatest<T: Real>(scores: &[T]) -> f32 {
    let mut greatest = -f32::MAX;
    for score in scores {
        if score.to_f32() > greatest {
            greatest = score.to_f32();
        }
    }
    greatest
}

fn softmax<T: Real>(scores: &mut [T]) {
    let greatest = greatest(scores);
    let mut sum = 0.0;
    for score in &mut *scores {
        let value = (score.to_f32() - greatest).exp();
        sum += value;
        *score = T::from_f32(value);
    }
    for score in scores {
        *score = T::from_f32(score.to_f32() / sum);
    }
}

/// Softmax among the scores that are not 0.
fn softmax_zero<T: Real>(scores: &mut [T]) {
    let greatest = greatest(scores);
    let scale = T::from_f32((-greatest).exp());
    let mut sum = 0.0;
    for score in &mut *scores {
        let value = score.to_f32();
        if value.abs() > 0.000_000_1 {
            let value = (value - greatest).exp();
            sum += value;
            *score = T::from_f32(value);
        } else {
            *score = *score * scale;
        }
    }
    for score in scores {
        *score = *score / T::from_f32(sum);
    }
}
