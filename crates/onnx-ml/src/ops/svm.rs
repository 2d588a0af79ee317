//! `SVMClassifier` and `SVMRegressor`: support vector machines.
//!
//! As ONNX Runtime: with support vectors there is one score per pair of classes, each score votes
//! for one of the two, and the class with most votes, the first of equals, is the label, whatever
//! the probabilities say. `prob_a` and `prob_b` make probabilities of the scores (J. Platt,
//! "Probabilistic outputs for support vector machines", 1999), which are coupled to one per class as
//! T.-F. Wu, C.-J. Lin and R. C. Weng describe ("Probability estimates for multi-class
//! classification by pairwise coupling", 2004, algorithm 2). That iteration stops early, so its
//! float32 steps are followed to the bit. Without support vectors there is one linear score per class, and of
//! two classes the second is the label whenever a score is positive. `SVMRegressor` has no post
//! transform.
//!
//! Unlike it: numbers left over in `coefficients` or `support_vectors` are refused, and so is
//! `PROBIT` of a single score for two classes, whose second score ONNX Runtime leaves unset.
//! `SVMRegressor` also takes double, int64 and int32, as the specification has it.

use std::sync::{Mutex, PoisonError};

use super::class_labels::ClassLabels;
use super::coupling::Coupling;
use super::kernel::{Kernel, SupportVectors, Weights};
use super::linear::first_largest;
use super::post_transform::{Pair, PostTransform};
use super::rows::{floats, matrix_of};
use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one, operations};
use crate::tensor::{DataType, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] =
    &[("SVMClassifier", classifier), ("SVMRegressor", regressor)];

/// Fewer multiplications than this are not worth waking another thread for.
const LEAST_WORK: usize = 200_000;

/// What is done with some rows: their values, scores and classes.
type Work<'a> = dyn Fn(&[f32], &mut [f32], &mut [usize]) + Sync + 'a;

/// Calls `work` with the rows of `values`, `scores` and `classes`, in parts on all threads of the
/// pool when there is enough to do. `cost` is the work of one row.
fn for_rows(
    context: &Context<'_>,
    rows: usize,
    cost: usize,
    (values, features): (&[f32], usize),
    (scores, width): (&mut [f32], usize),
    classes: &mut [usize],
    work: &Work<'_>,
) -> Result<(), OpError> {
    context.work(operations(&[rows, cost]))?;
    let most = rows.saturating_mul(cost) / LEAST_WORK;
    let threads = context.pool.map_or(1, |pool| pool.threads());
    let parts = threads.saturating_mul(4).min(most).min(rows);
    let Some(pool) = context.pool.filter(|_| parts > 1 && threads > 1) else {
        work(values, scores, classes);
        return Ok(());
    };
    let each = rows.div_ceil(parts);
    let tasks: Vec<_> = values
        .chunks(each * features)
        .zip(scores.chunks_mut(each * width))
        .zip(classes.chunks_mut(each))
        .map(|((values, scores), classes)| Mutex::new((values, scores, classes)))
        .collect();
    pool.run(tasks.len(), &|part| {
        if let Some(task) = tasks.get(part) {
            let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
            let (values, scores, classes) = &mut *task;
            work(values, scores, classes);
        }
    });
    Ok(())
}

/// One score per pair of classes from support vectors.
#[derive(Debug)]
struct Pairs {
    vectors: SupportVectors,
    /// The first vector of each class, and one past the last.
    starts: Vec<usize>,
    /// `[classes - 1][vectors]`: how much a vector counts against each other class, in order.
    coefficients: Vec<f32>,
    /// One per pair.
    rho: Vec<f32>,
    /// The slope and offset of each pair's probability.
    probability: Option<Vec<(f32, f32)>>,
}

#[derive(Debug)]
enum Machine {
    Pairs(Pairs),
    Linear(Weights),
}

#[derive(Debug)]
struct Classifier {
    machine: Machine,
    labels: ClassLabels,
    /// Numbers in a row of the result.
    width: usize,
    /// Two classes, the second chosen by a linear score above this.
    second_above: Option<Threshold>,
    transform: PostTransform,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Threshold {
    /// A score of at least one half: all coefficients are positive.
    Half,
    /// A score above zero.
    Zero,
}

fn classifier(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let kernel = Kernel::read(node)?;
    let transform = PostTransform::read(node)?;
    let labels = ClassLabels::read(node)?;
    let coefficients = node.floats("coefficients")?.unwrap_or_default();
    let rho = node.floats("rho")?.unwrap_or_default();
    let slopes = node.floats("prob_a")?.unwrap_or_default();
    let offsets = node.floats("prob_b")?.unwrap_or_default();
    let vectors = node.floats("support_vectors")?.unwrap_or_default();
    let per_class = node.ints("vectors_per_class")?.unwrap_or_default();
    let classes = labels.len();
    if classes == 0 {
        return Err("it has neither classlabels_ints nor classlabels_strings".to_string());
    }
    if slopes.len() != offsets.len() {
        return Err(format!(
            "prob_a has {} numbers and prob_b {}, expected as many of both",
            slopes.len(),
            offsets.len()
        ));
    }
    let starts = starts(per_class)?;
    let count = starts.last().copied().unwrap_or(0);
    if count == 0 {
        let constant = rho.first().ok_or("rho is empty")?;
        let positive = coefficients.iter().all(|x| *x >= 0.0);
        let second_above = match (classes, slopes.is_empty(), positive) {
            (2, true, true) => Some(Threshold::Half),
            (2, true, false) => Some(Threshold::Zero),
            _ => None,
        };
        return Ok(Box::new(Classifier {
            machine: Machine::Linear(Weights::new(coefficients, classes, *constant)?),
            labels,
            width: classes,
            second_above,
            transform,
        }));
    }
    if classes < 2 || per_class.len() != classes {
        return Err(format!(
            "vectors_per_class has {} numbers and there are {classes} labels, expected one for \
             each class and at least two classes",
            per_class.len()
        ));
    }
    if count.checked_mul(classes - 1) != Some(coefficients.len()) {
        return Err(format!(
            "{} coefficients for {count} vectors and {classes} classes, expected one for each \
             vector and other class",
            coefficients.len()
        ));
    }
    let pairs = classes.saturating_mul(classes - 1) / 2;
    if rho.len() < pairs || !slopes.is_empty() && slopes.len() < pairs {
        return Err(format!(
            "rho has {} numbers and prob_a {}, expected {pairs}, one for each pair of classes",
            rho.len(),
            slopes.len()
        ));
    }
    let probability = match slopes {
        [] => None,
        _ => Some(
            slopes
                .iter()
                .copied()
                .zip(offsets.iter().copied())
                .collect(),
        ),
    };
    let width = match (&probability, classes) {
        (None, 2) if transform == PostTransform::Probit => {
            return Err(
                "post_transform PROBIT is not defined for one score of two classes".to_string(),
            );
        }
        (None, 2) | (Some(_), _) => classes,
        (None, _) => pairs,
    };
    Ok(Box::new(Classifier {
        machine: Machine::Pairs(Pairs {
            vectors: SupportVectors::new(kernel, vectors, count)?,
            starts,
            coefficients: coefficients.to_vec(),
            rho: rho[..pairs].to_vec(),
            probability,
        }),
        labels,
        width,
        second_above: None,
        transform,
    }))
}

/// The running sum of the numbers of vectors, from zero on.
fn starts(per_class: &[i64]) -> Result<Vec<usize>, String> {
    let mut sum: usize = 0;
    let mut starts = vec![0];
    for count in per_class {
        let next = usize::try_from(*count)
            .ok()
            .and_then(|count| sum.checked_add(count));
        sum = next.ok_or_else(|| format!("vectors_per_class has the number {count}"))?;
        starts.push(sum);
    }
    Ok(starts)
}

impl Pairs {
    /// The score of each pair of classes, and the class with most votes.
    fn scores(&self, kernels: &[f32], scores: &mut Vec<f32>, votes: &mut [u32]) -> usize {
        scores.clear();
        votes.fill(0);
        let classes = votes.len();
        for first in 0..classes {
            for second in first + 1..classes {
                // The coefficients of a vector lack its own class, so those of later classes are
                // one row up.
                let mut sum = 0.0;
                self.add_class(&mut sum, kernels, first, second - 1);
                self.add_class(&mut sum, kernels, second, first);
                sum += f64::from(self.rho[scores.len()]);
                scores.push(sum as f32);
                votes[if sum > 0.0 { first } else { second }] += 1;
            }
        }
        let mut most = 0;
        for (class, count) in votes.iter().enumerate() {
            if *count > votes[most] {
                most = class;
            }
        }
        most
    }

    /// Adds what the vectors of a class count in a row of the coefficients: products in float32,
    /// the sum in float64.
    fn add_class(&self, sum: &mut f64, kernels: &[f32], class: usize, row: usize) {
        let (start, end) = (self.starts[class], self.starts[class + 1]);
        let coefficients = &self.coefficients[row * self.vectors.count..][start..end];
        for (coefficient, kernel) in coefficients.iter().zip(&kernels[start..end]) {
            *sum += f64::from(coefficient * kernel);
        }
    }
}

impl Classifier {
    fn features(&self) -> usize {
        match &self.machine {
            Machine::Pairs(pairs) => pairs.vectors.features,
            Machine::Linear(weights) => weights.features,
        }
    }

    fn linear_rows(
        &self,
        weights: &Weights,
        values: &[f32],
        scores: &mut [f32],
        classes: &mut [usize],
    ) {
        for ((row, scores), class) in values
            .chunks_exact(weights.features)
            .zip(scores.chunks_exact_mut(self.width))
            .zip(classes)
        {
            weights.evaluate(row, scores);
            let place = first_largest(scores);
            let second = match self.second_above {
                Some(Threshold::Half) => scores[place] >= 0.5,
                Some(Threshold::Zero) => scores[place] > 0.0,
                None => false,
            };
            *class = if second { 1 } else { place };
            self.transform.apply(scores);
        }
    }

    fn pair_rows(&self, pairs: &Pairs, values: &[f32], scores: &mut [f32], classes: &mut [usize]) {
        let count = self.labels.len();
        let mut kernels = vec![0.0; pairs.vectors.count];
        let mut pair_scores = Vec::with_capacity(pairs.rho.len());
        let mut votes = vec![0; count];
        let mut coupling = pairs.probability.as_ref().map(|_| Coupling::new(count));
        for ((row, scores), class) in values
            .chunks_exact(pairs.vectors.features)
            .zip(scores.chunks_exact_mut(self.width))
            .zip(classes)
        {
            pairs.vectors.evaluate(row, &mut kernels);
            *class = pairs.scores(&kernels, &mut pair_scores, &mut votes);
            match (&pairs.probability, &mut coupling, pair_scores.as_slice()) {
                (Some(probability), Some(coupling), _) => {
                    coupling.couple(&pair_scores, probability, scores);
                    self.transform.apply(scores);
                }
                (_, _, [score]) => {
                    scores.copy_from_slice(&self.transform.pair(*score, Pair::Opposite));
                }
                (_, _, all) => {
                    scores.copy_from_slice(all);
                    self.transform.apply(scores);
                }
            }
        }
    }
}

impl Operator for Classifier {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        let values = floats(input)?;
        let features = self.features();
        let rows = matrix_of(input, features)?;
        let size = rows.saturating_mul(self.width);
        args.context.reserve(size, DataType::F32)?;
        let mut scores = vec![0.0; size];
        let mut classes = vec![0; rows];
        let cost = match &self.machine {
            Machine::Pairs(pairs) => {
                let count = pairs.vectors.count;
                let kernels = features.saturating_mul(count);
                // Probabilities are coupled in up to a hundred rounds.
                let rounds = if pairs.probability.is_some() { 200 } else { 1 };
                kernels.saturating_add(pairs.rho.len().saturating_mul(rounds))
            }
            Machine::Linear(_) => features.saturating_mul(self.width),
        };
        for_rows(
            args.context,
            rows,
            cost,
            (&values, features),
            (&mut scores, self.width),
            &mut classes,
            &|values, scores, classes| match &self.machine {
                Machine::Pairs(pairs) => self.pair_rows(pairs, values, scores, classes),
                Machine::Linear(weights) => self.linear_rows(weights, values, scores, classes),
            },
        )?;
        let mut outputs = Outputs::new();
        outputs.push(self.labels.tensor(&classes, args.context)?);
        outputs.push(Tensor::new(&[rows, self.width], scores)?);
        Ok(outputs)
    }
}

#[derive(Debug)]
enum Function {
    Vectors {
        vectors: SupportVectors,
        coefficients: Vec<f64>,
        constant: f64,
    },
    Linear(Weights),
}

#[derive(Debug)]
struct Regressor {
    function: Function,
    /// Whether the result is the sign: 1 inside of the learnt region, else -1.
    one_class: bool,
}

fn regressor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let kernel = Kernel::read(node)?;
    // Has no effect in ONNX Runtime; only its name is checked.
    PostTransform::read(node)?;
    let coefficients = node.floats("coefficients")?.unwrap_or_default();
    let constant = node.floats("rho")?.unwrap_or_default().first().copied();
    let constant = constant.ok_or("rho is empty")?;
    let vectors = node.floats("support_vectors")?.unwrap_or_default();
    let count = node.int("n_supports")?.unwrap_or(0);
    let one_class = node.flag("one_class", false)?;
    let count =
        usize::try_from(count).map_err(|_| format!("n_supports is {count}, expected 0 or more"))?;
    let function = if count == 0 {
        Function::Linear(Weights::new(coefficients, 1, constant)?)
    } else {
        if coefficients.len() != count {
            return Err(format!(
                "{} coefficients for {count} vectors, expected one each",
                coefficients.len()
            ));
        }
        Function::Vectors {
            vectors: SupportVectors::new(kernel, vectors, count)?,
            coefficients: coefficients.iter().map(|x| f64::from(*x)).collect(),
            constant: f64::from(constant),
        }
    };
    Ok(Box::new(Regressor {
        function,
        one_class,
    }))
}

impl Regressor {
    fn rows(&self, features: usize, values: &[f32], results: &mut [f32]) {
        let mut kernels = match &self.function {
            Function::Vectors { vectors, .. } => vec![0.0; vectors.count],
            Function::Linear(_) => Vec::new(),
        };
        for (row, result) in values.chunks_exact(features).zip(results) {
            match &self.function {
                Function::Vectors {
                    vectors,
                    coefficients,
                    constant,
                } => {
                    vectors.evaluate(row, &mut kernels);
                    *result = (super::linear::dot(&kernels, coefficients) + constant) as f32;
                }
                Function::Linear(weights) => {
                    weights.evaluate(row, std::slice::from_mut(result));
                }
            }
            if self.one_class {
                *result = if *result > 0.0 { 1.0 } else { -1.0 };
            }
        }
    }
}

impl Operator for Regressor {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let input = args.get(0)?;
        let values = floats(input)?;
        let (features, vectors) = match &self.function {
            Function::Vectors { vectors, .. } => (vectors.features, vectors.count),
            Function::Linear(weights) => (weights.features, 1),
        };
        let rows = matrix_of(input, features)?;
        let mut results = vec![0.0; rows];
        for_rows(
            args.context,
            rows,
            features.saturating_mul(vectors),
            (&values, features),
            (&mut results, 1),
            &mut vec![0; rows],
            &|values, results, _| self.rows(features, values, results),
        )?;
        one(Tensor::new(&[rows, 1], results)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::one_node::{floats, int, ints, model, refusal, string};
    use crate::pool::ScopedThreads;
    use crate::proto::AttributeProto;
    use crate::tensor::{DataType, Tensor};

    const FLOAT: &[DataType] = &[DataType::F32];

    fn three_vectors(per_class: &[i64], coefficients: &[f32]) -> Vec<AttributeProto> {
        vec![
            string("kernel_type", "RBF"),
            floats("kernel_params", &[0.5, 0.0, 3.0]),
            ints("classlabels_ints", &[0, 1]),
            ints("vectors_per_class", per_class),
            floats("support_vectors", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            floats("coefficients", coefficients),
            floats("rho", &[0.1]),
        ]
    }

    #[test]
    fn numbers_that_do_not_fit_together_are_refused() {
        let cases = [
            (&[2, 1][..], &[1.0, 2.0][..], "2 coefficients"),
            (&[3], &[1.0, 2.0, 3.0], "vectors_per_class"),
            (&[4, -1], &[1.0, 2.0, 3.0], "the number -1"),
            (&[i64::MAX, i64::MAX], &[1.0], "coefficients"),
            (&[2, 2], &[1.0; 4], "support_vectors"),
        ];
        for (per_class, coefficients, expected) in cases {
            let attributes = three_vectors(per_class, coefficients);
            let reason = refusal("SVMClassifier", attributes, FLOAT);
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let vectors: Vec<f32> = (0..400 * 5).map(|i| (i as f32 * 0.7).sin()).collect();
        let coefficients: Vec<f32> = (0..400).map(|i| (i as f32 * 1.3).cos()).collect();
        let attributes = vec![
            string("kernel_type", "RBF"),
            floats("kernel_params", &[0.5, 0.0, 3.0]),
            int("n_supports", 400),
            floats("support_vectors", &vectors),
            floats("coefficients", &coefficients),
            floats("rho", &[0.1]),
        ];
        let model = model("SVMRegressor", attributes, FLOAT).unwrap();
        let rows: Vec<f32> = (0..1001 * 5).map(|i| (i as f32 * 0.3).cos()).collect();
        let rows = Tensor::new(&[1001, 5], rows).unwrap();
        let alone = model.run(vec![rows.clone()]).unwrap();
        let together = model.run_on(vec![rows], &ScopedThreads(3)).unwrap();
        assert_eq!(alone, together);
    }
}
