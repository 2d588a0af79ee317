//! Softmax and its relatives, and the normalizations of neural networks.
//!
//! Each computes in float64 and rounds once; sums are in the order of the tensor.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::ops::broadcast::product;
use crate::ops::matrix::Factor;
use crate::ops::{float16, functions, normalization_layers as layers};
use crate::tensor::{Data, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Softmax", build),
    ("LogSoftmax", build),
    ("Hardmax", build),
    ("LpNormalization", build),
    ("LayerNormalization", layers::layer),
    ("RMSNormalization", layers::root_mean_square),
    ("BatchNormalization", layers::batch),
    ("InstanceNormalization", layers::instance),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Softmax,
    LogSoftmax,
    Hardmax,
    L1,
    L2,
}

/// A function of all elements along a dimension.
#[derive(Debug)]
struct Along {
    kind: Kind,
    axis: i64,
    /// All dimensions from the axis on count as one, as before version 13.
    flattened: bool,
}

fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let kind = match node.operator() {
        "Softmax" => Kind::Softmax,
        "LogSoftmax" => Kind::LogSoftmax,
        "Hardmax" => Kind::Hardmax,
        "LpNormalization" => match node.int("p")?.unwrap_or(2) {
            1 => Kind::L1,
            2 => Kind::L2,
            other => return Err(format!("attribute `p` is {other}, expected 1 or 2")),
        },
        other => return Err(format!("{other} is not a known normalization")),
    };
    let flattened = node.version < 13 && !matches!(kind, Kind::L1 | Kind::L2);
    let axis = node.int("axis")?;
    Ok(Box::new(Along {
        kind,
        axis: axis.unwrap_or(if flattened { 1 } else { -1 }),
        flattened,
    }))
}

impl Operator for Along {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let tensor = args.take(0)?;
        let shape = Shape::from_slice(tensor.shape());
        let axis = if self.flattened && self.axis == shape.len() as i64 {
            // All dimensions are before the axis: every element stands alone.
            shape.len()
        } else {
            crate::operator::axis(self.axis, shape.len())?
        };
        let (length, inner) = if self.flattened {
            (product(&shape[axis..])?, 1)
        } else {
            (shape[axis], product(&shape[axis + 1..])?)
        };
        let mut data = tensor.into_data();
        match &mut data {
            Data::F32(values) => self.apply(values, length, inner, functions::exp),
            Data::F64(values) => self.apply(values, length, inner, f64::exp),
            other => {
                let expected = "floating point numbers";
                return Err(OpError::data_type(0, other.data_type(), expected));
            }
        }
        one(Tensor::from_data(&shape, data)?)
    }
}

impl Along {
    /// Works along the middle one of three dimensions.
    fn apply<T: Factor>(
        &self,
        values: &mut [T],
        length: usize,
        inner: usize,
        exp: impl Fn(f64) -> f64 + Copy,
    ) {
        if values.is_empty() {
            return;
        }
        let mut line = vec![0.0; length];
        for block in values.chunks_mut(length * inner) {
            for place in 0..inner {
                let from = block[place..].iter().step_by(inner);
                for (to, value) in line.iter_mut().zip(from) {
                    *to = value.wide();
                }
                self.line(&mut line, exp);
                let to = block[place..].iter_mut().step_by(inner);
                for (to, value) in to.zip(&line) {
                    *to = T::round(*value);
                }
            }
        }
    }

    fn line(&self, line: &mut [f64], exp: impl Fn(f64) -> f64) {
        match self.kind {
            Kind::Softmax => {
                let largest = largest(line);
                for value in &mut *line {
                    *value = exp(*value - largest);
                }
                let sum = sum(line);
                for value in line {
                    *value /= sum;
                }
            }
            Kind::LogSoftmax => {
                let largest = largest(line);
                let mut sum = 0.0;
                for value in &mut *line {
                    *value -= largest;
                    sum += exp(*value);
                }
                let logarithm = sum.ln();
                for value in line {
                    *value -= logarithm;
                }
            }
            Kind::Hardmax => {
                let largest = largest(line);
                let first = line.iter().position(|value| *value == largest);
                line.fill(0.0);
                if let Some(first) = first {
                    line[first] = 1.0;
                }
            }
            Kind::L1 => divide(line, line.iter().fold(0.0, |sum, x| sum + x.abs())),
            Kind::L2 => divide(line, line.iter().fold(0.0, |sum, x| sum + x * x).sqrt()),
        }
    }
}

/// The first element that no later one is larger than.
fn largest(line: &[f64]) -> f64 {
    let first = line.first().copied().unwrap_or(0.0);
    line.iter().fold(first, |a, b| if *b > a { *b } else { a })
}

fn sum(line: &[f64]) -> f64 {
    line.iter().fold(0.0, |sum, value| sum + value)
}

/// Divides by a norm; nothing but zeros has the norm zero and stays.
fn divide(line: &mut [f64], norm: f64) {
    if norm != 0.0 {
        for value in line {
            *value /= norm;
        }
    }
}
