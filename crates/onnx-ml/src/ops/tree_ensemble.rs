//! `TreeEnsemble`, `TreeEnsembleClassifier` and `TreeEnsembleRegressor`.
//!
//! The numbers are compared and added in the type of the input: float32 for float32 and integers
//! (which are converted), float64 for float64. Files with float64 numbers take float64 inputs alone,
//! and a `TreeEnsemble` takes the type of its numbers, as onnxruntime has it.

use half::f16;

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, operations};
use crate::tensor::{Data, DataType, Tensor};
use crate::trees::finish::Finish;
use crate::trees::parse::{self, Parsed, Precision};
use crate::trees::{Evaluator, Sums, parse_indexed};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("TreeEnsemble", tree_ensemble),
    ("TreeEnsembleClassifier", classifier),
    ("TreeEnsembleRegressor", regressor),
];

#[derive(Debug)]
struct TreeEnsemble {
    evaluator: Evaluator,
    finish: Finish,
    /// What the label of a row takes.
    label_bytes: u64,
    precision: Precision,
    /// The output has the type of the input, which is that of the numbers in the file.
    same_type: bool,
}

fn tree_ensemble(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    if node.version < 5 {
        return Err(format!(
            "it came with version 5 of ai.onnx.ml, and the file imports version {}",
            node.version
        ));
    }
    Ok(operator(parse_indexed::tree_ensemble(node)?, true))
}

fn classifier(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(operator(parse::classifier(node)?, false))
}

fn regressor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(operator(parse::regressor(node)?, false))
}

fn operator(parsed: Parsed, same_type: bool) -> Box<dyn Operator> {
    let presence = parsed.finish.reads_presence(parsed.ensemble.targets);
    Box::new(TreeEnsemble {
        evaluator: Evaluator::new(parsed.ensemble, presence),
        label_bytes: parsed.finish.label_bytes(),
        finish: parsed.finish,
        precision: parsed.precision,
        same_type,
    })
}

impl Operator for TreeEnsemble {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let context = args.context;
        let tensor = args.get(0)?;
        self.check_type(tensor.data_type())?;
        let (count, columns) = self.rows(tensor.shape())?;
        let targets = self.evaluator.targets();
        self.reserve(count, targets, tensor, context)?;
        context.work(operations(&[count, self.evaluator.row_cost()]))?;
        let pool = context.pool;
        let single = |rows: &[f32]| {
            let sums = self.evaluator.sums_f32(rows, columns, count, pool);
            self.finish.apply(sums, targets)
        };
        let (labels, scores) = match tensor.data() {
            Data::F64(rows) => {
                let sums: Sums<f64> = self.evaluator.sums_f64(rows, columns, count, pool);
                let (labels, scores) = self.finish.apply(sums, targets)?;
                let scores = if self.same_type {
                    Data::F64(scores)
                } else {
                    Data::F32(scores.into_iter().map(|score| score as f32).collect())
                };
                (labels, scores)
            }
            Data::F32(rows) => {
                let (labels, scores) = single(rows)?;
                (labels, Data::F32(scores))
            }
            Data::I64(rows) => {
                let rows: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
                let (labels, scores) = single(&rows)?;
                (labels, Data::F32(scores))
            }
            Data::I32(rows) => {
                let rows: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
                let (labels, scores) = single(&rows)?;
                (labels, Data::F32(scores))
            }
            Data::F16(rows) => {
                let rows: Vec<f32> = rows.iter().map(|value| value.to_f32()).collect();
                let (labels, scores) = single(&rows)?;
                let scores = scores.into_iter().map(f16::from_f32);
                (labels, Data::F16(scores.collect()))
            }
            other => {
                let expected = "float, double, int64 or int32";
                return Err(OpError::data_type(0, other.data_type(), expected));
            }
        };
        let mut outputs = Outputs::new();
        if let Some(labels) = labels {
            outputs.push(Tensor::from_data(&[count], labels)?);
        }
        let width = self.finish.columns(targets);
        outputs.push(Tensor::from_data(&[count, width], scores)?);
        Ok(outputs)
    }
}

impl TreeEnsemble {
    fn check_type(&self, found: DataType) -> Result<(), OpError> {
        let (fits, expected) = match (self.same_type, self.precision) {
            (_, Precision::Double) => (
                found == DataType::F64,
                "double, as the numbers of the node are",
            ),
            (_, Precision::Half) => (
                found == DataType::F16,
                "float16, as the numbers of the node are",
            ),
            (true, Precision::Single) => (
                found == DataType::F32,
                "float, as the numbers of the node are",
            ),
            (false, Precision::Single) => (
                matches!(
                    found,
                    DataType::F32 | DataType::F64 | DataType::I64 | DataType::I32
                ),
                "float, double, int64 or int32",
            ),
        };
        if fits {
            Ok(())
        } else {
            Err(OpError::data_type(0, found, expected))
        }
    }

    /// The number of rows and of columns.
    fn rows(&self, shape: &[usize]) -> Result<(usize, usize), OpError> {
        let (count, columns) = match *shape {
            [columns] => (1, columns),
            [count, columns] => (count, columns),
            _ => {
                return Err(OpError::Value(format!(
                    "the input has shape {shape:?}, expected rows and columns"
                )));
            }
        };
        let features = self.evaluator.features();
        if columns < features {
            return Err(OpError::Value(format!(
                "the input has {columns} columns, and the trees read column {}",
                features - 1
            )));
        }
        Ok((count, columns))
    }

    /// Announces the memory for converted rows, sums, scores and labels.
    fn reserve(
        &self,
        count: usize,
        targets: usize,
        input: &Tensor,
        context: &Context<'_>,
    ) -> Result<(), OpError> {
        // A sum, whether it is there, and a score.
        let per_row = (targets as u64).saturating_mul(8 + 1 + 4);
        let per_row = per_row.saturating_add(2 * 8 + self.label_bytes);
        let rows = (count as u64).saturating_mul(per_row);
        let converted = (input.len() as u64).saturating_mul(4);
        context.reserve_bytes(rows.saturating_add(converted))
    }
}
