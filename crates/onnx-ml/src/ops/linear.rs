//! `LinearClassifier` and `LinearRegressor`: weighted sums of the columns.
//!
//! As ONNX Runtime: the input is rounded to float32 first; the class is that of the largest score,
//! the first of equals; with a single row of coefficients for two classes the second class is chosen
//! by a score above 0, and the scores of both are made of that one. Each sum is taken in float64, in
//! one order whatever the batch, and rounded once.
//!
//! Unlike it: coefficients left over after the last class, and intercepts that are not one per
//! target, are refused; ONNX Runtime ignores them. `PROBIT` of a single score for two classes is
//! refused, since ONNX Runtime leaves the second score unset. `LinearRegressor` also takes double,
//! int64 and int32, as the specification has it.

use smallvec::SmallVec;

use super::class_labels::ClassLabels;
use super::post_transform::{Pair, PostTransform};
use super::rows::{floats, matrix};
use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one, operations};
use crate::tensor::{DataType, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("LinearClassifier", classifier),
    ("LinearRegressor", regressor),
];

/// Sums taken side by side, so that the processor need not wait for one addition after another.
const LANES: usize = 8;

/// The sum of products in float64, where products of two float32 are exact. Its order depends on
/// nothing but the length.
pub(crate) fn dot(row: &[f32], weights: &[f64]) -> f64 {
    let (row_blocks, row_rest) = row.as_chunks::<LANES>();
    let (weight_blocks, weight_rest) = weights.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (values, weights) in row_blocks.iter().zip(weight_blocks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(values[lane]) * weights[lane];
        }
    }
    for (sum, (value, weight)) in sums.iter_mut().zip(row_rest.iter().zip(weight_rest)) {
        *sum += f64::from(*value) * weight;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// One weighted sum per target.
#[derive(Debug)]
struct Linear {
    targets: usize,
    features: usize,
    /// `[targets][features]`
    coefficients: Vec<f64>,
    /// One per target.
    intercepts: Vec<f64>,
}

impl Linear {
    fn new(coefficients: &[f32], intercepts: &[f32]) -> Result<Linear, String> {
        let targets = intercepts.len();
        let found = coefficients.len();
        if found == 0 || targets == 0 || !found.is_multiple_of(targets) {
            return Err(format!(
                "{found} coefficients for {targets} targets, expected as many for each, and at \
                 least one"
            ));
        }
        Ok(Linear {
            targets,
            features: found / targets,
            coefficients: coefficients.iter().map(|x| f64::from(*x)).collect(),
            intercepts: intercepts.iter().map(|x| f64::from(*x)).collect(),
        })
    }

    /// A row of `width` numbers for each row of the input: the sums, zeros if there are fewer, and
    /// what `finish` makes of them.
    fn evaluate(
        &self,
        input: &Tensor,
        context: &Context<'_>,
        width: usize,
        mut finish: impl FnMut(&mut [f32]),
    ) -> Result<Tensor, OpError> {
        let values = floats(input)?;
        let (rows, columns) = matrix(input)?;
        // Old exporters wrote more coefficients than the input has columns; as in ONNX Runtime, each
        // target then takes the next ones in line, and the last are left over.
        if columns > self.features || columns == 0 {
            return Err(OpError::Value(format!(
                "the input has {columns} columns, the model was made for {}",
                self.features
            )));
        }
        let size = rows.saturating_mul(width);
        context.reserve(size, DataType::F32)?;
        context.work(operations(&[size, columns]))?;
        let mut scores = vec![0.0; size];
        for (row, scores) in values
            .chunks_exact(columns)
            .zip(scores.chunks_exact_mut(width))
        {
            let targets = self.coefficients.chunks_exact(columns);
            for ((score, weights), intercept) in
                scores.iter_mut().zip(targets).zip(&self.intercepts)
            {
                *score = (dot(row, weights) + intercept) as f32;
            }
            finish(scores);
        }
        Ok(Tensor::new(&[rows, width], scores)?)
    }
}

#[derive(Debug)]
struct Classifier {
    linear: Linear,
    labels: ClassLabels,
    /// A single score stands for two classes.
    paired: bool,
    transform: PostTransform,
}

fn classifier(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let coefficients = node.floats("coefficients")?.unwrap_or_default();
    let intercepts = node.floats("intercepts")?.unwrap_or_default();
    let transform = PostTransform::read(node)?;
    // Whether it is one class against the rest or all at once was a matter of the training.
    node.int("multi_class")?;
    if intercepts.is_empty() {
        return Err("it has no intercepts, expected one per class".to_string());
    }
    let linear = Linear::new(coefficients, intercepts)?;
    let mut labels = ClassLabels::read(node)?;
    let paired = linear.targets == 1 && labels.len() == 2;
    if linear.targets == 1 && labels.len() == 0 {
        labels = ClassLabels::Integers(vec![0, 1]);
    } else if linear.targets == 1 && !paired || labels.len() < linear.targets {
        return Err(format!(
            "{} labels for {} rows of coefficients; expected one each, or two for a single row",
            labels.len(),
            linear.targets
        ));
    }
    if paired && transform == PostTransform::Probit {
        return Err(
            "post_transform PROBIT is not defined for one score of two classes".to_string(),
        );
    }
    Ok(Box::new(Classifier {
        linear,
        labels,
        paired,
        transform,
    }))
}

/// The place of the largest score, the first of equals. A NaN counts only in front, where nothing
/// is larger than it.
pub(crate) fn first_largest(scores: &[f32]) -> usize {
    let mut place = 0;
    let mut largest = scores.first().copied().unwrap_or_default();
    for (index, score) in scores.iter().enumerate() {
        if *score > largest {
            largest = *score;
            place = index;
        }
    }
    place
}

impl Operator for Classifier {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let mut classes: SmallVec<[usize; 16]> = SmallVec::new();
        let input = args.get(0)?;
        let scores = if self.paired {
            self.linear.evaluate(input, args.context, 2, |scores| {
                let score = scores.first().copied().unwrap_or_default();
                classes.push(usize::from(score > 0.0));
                scores.copy_from_slice(&self.transform.pair(score, Pair::Complement));
            })?
        } else {
            let width = self.linear.targets;
            self.linear.evaluate(input, args.context, width, |scores| {
                classes.push(match &*scores {
                    [score] => usize::from(*score > 0.0),
                    all => first_largest(all),
                });
                self.transform.apply(scores);
            })?
        };
        let mut outputs = Outputs::new();
        outputs.push(self.labels.tensor(&classes, args.context)?);
        outputs.push(scores);
        Ok(outputs)
    }
}

#[derive(Debug)]
struct Regressor {
    linear: Linear,
    transform: PostTransform,
}

fn regressor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let coefficients = node.floats("coefficients")?.unwrap_or_default();
    let intercepts = node.floats("intercepts")?.unwrap_or_default();
    let targets = node.int("targets")?.unwrap_or(1);
    let transform = PostTransform::read(node)?;
    // A file with this many targets has as many coefficients: nothing is allocated for a number
    // that is only claimed.
    let targets = usize::try_from(targets).unwrap_or(0);
    if targets == 0 || targets > coefficients.len() {
        return Err(format!(
            "targets is {targets} and there are {} coefficients, expected at least one for each \
             target",
            coefficients.len()
        ));
    }
    if !intercepts.is_empty() && intercepts.len() != targets {
        return Err(format!(
            "{} intercepts for {targets} targets, expected one each or none",
            intercepts.len()
        ));
    }
    let zeros = vec![0.0; targets];
    let intercepts = if intercepts.is_empty() {
        &zeros
    } else {
        intercepts
    };
    Ok(Box::new(Regressor {
        linear: Linear::new(coefficients, intercepts)?,
        transform,
    }))
}

impl Operator for Regressor {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        let width = self.linear.targets;
        one(self.linear.evaluate(input, args.context, width, |scores| {
            self.transform.apply(scores);
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{floats, ints, model, refusal, string};
    use crate::tensor::{DataType, Tensor};

    const FLOAT: &[DataType] = &[DataType::F32];

    #[test]
    fn no_rows_in_are_no_rows_out() {
        let attributes = vec![floats("coefficients", &[1.0, 2.0])];
        let model = model("LinearRegressor", attributes, FLOAT).unwrap();
        let empty = Tensor::new::<f32>(&[0, 2], Vec::new()).unwrap();
        assert_eq!(model.run(vec![empty]).unwrap()[0].shape(), [0, 1]);
    }

    #[test]
    fn a_wrong_number_of_columns_is_named() {
        let attributes = vec![floats("coefficients", &[1.0, 2.0])];
        let model = model("LinearRegressor", attributes, FLOAT).unwrap();
        let wide = Tensor::new(&[1, 3], vec![1.0_f32; 3]).unwrap();
        let error = model.run(vec![wide]).unwrap_err().to_string();
        assert!(error.contains("3 columns"), "{error}");
    }

    #[test]
    fn numbers_that_do_not_fit_together_are_refused() {
        let cases = [
            (&[1.0, 2.0, 3.0][..], &[0.0, 0.0][..], "3 coefficients"),
            (&[], &[0.0], "0 coefficients"),
            (&[1.0, 2.0], &[], "no intercepts"),
        ];
        for (coefficients, intercepts, expected) in cases {
            let attributes = vec![
                floats("coefficients", coefficients),
                floats("intercepts", intercepts),
                ints("classlabels_ints", &[0, 1]),
            ];
            let reason = refusal("LinearClassifier", attributes, FLOAT);
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn probit_of_one_score_for_two_classes_is_refused() {
        let attributes = vec![
            floats("coefficients", &[1.0]),
            floats("intercepts", &[0.0]),
            ints("classlabels_ints", &[0, 1]),
            string("post_transform", "PROBIT"),
        ];
        let reason = refusal("LinearClassifier", attributes, FLOAT);
        assert!(reason.contains("PROBIT"), "{reason}");
    }
}
