//! Sums, means, extremes and norms along dimensions.
//!
//! Sums of floating point numbers are kept in float64, one after the other in the order of the
//! tensor, so that they do not depend on what else is reduced in the same run. Those of integers
//! wrap. The largest and the smallest number are found by comparing with the first, which is what
//! ONNX Runtime does with NaN: one is the result only where it comes first.

use smallvec::SmallVec;

use crate::node::Node;
use crate::operator::{Args, Build, Context, OpError, Operator, Outputs, one};
use crate::ops::arithmetic::Number;
use crate::ops::broadcast::product;
use crate::ops::cast::{truncate_to_i32, truncate_to_i64};
use crate::ops::{arg_extreme, cumulative, float16};
use crate::tensor::{Data, DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("ReduceSum", build),
    ("ReduceMean", build),
    ("ReduceMax", build),
    ("ReduceMin", build),
    ("ReduceProd", build),
    ("ReduceL1", build),
    ("ReduceL2", build),
    ("ReduceSumSquare", build),
    ("ReduceLogSum", build),
    ("ReduceLogSumExp", build),
    ("ArgMax", arg_extreme::argmax),
    ("ArgMin", arg_extreme::argmin),
    ("CumSum", cumulative::cumsum),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

#[derive(Debug)]
struct Reduce {
    kind: Kind,
    /// The axes, if they are an attribute; else they are the second input.
    axes: Option<Vec<i64>>,
    keep_dimensions: bool,
    /// Without axes nothing is reduced, instead of everything.
    nothing_without_axes: bool,
}

fn build(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let (kind, input_since) = match node.operator() {
        "ReduceSum" => (Kind::Sum, 13),
        "ReduceMean" => (Kind::Mean, 18),
        "ReduceMax" => (Kind::Max, 18),
        "ReduceMin" => (Kind::Min, 18),
        "ReduceProd" => (Kind::Prod, 18),
        "ReduceL1" => (Kind::L1, 18),
        "ReduceL2" => (Kind::L2, 18),
        "ReduceSumSquare" => (Kind::SumSquare, 18),
        "ReduceLogSum" => (Kind::LogSum, 18),
        "ReduceLogSumExp" => (Kind::LogSumExp, 18),
        other => return Err(format!("{other} is not a known reduction")),
    };
    let keep_dimensions = node.flag("keepdims", true)?;
    if node.version < input_since {
        node.expect_inputs(1, 1)?;
        let axes = node.ints("axes")?.unwrap_or_default().to_vec();
        return Ok(Box::new(Reduce {
            kind,
            axes: Some(axes),
            keep_dimensions,
            nothing_without_axes: false,
        }));
    }
    node.expect_inputs(1, 2)?;
    Ok(Box::new(Reduce {
        kind,
        axes: None,
        keep_dimensions,
        nothing_without_axes: node.flag("noop_with_empty_axes", false)?,
    }))
}

/// What is reduced and what is kept.
#[derive(Debug)]
pub(crate) struct Reduction {
    /// The shape of the result.
    pub shape: Shape,
    reduced: SmallVec<[bool; 4]>,
}

impl Reduction {
    pub fn new(shape: &[usize], axes: &[i64], keep_dimensions: bool) -> Result<Reduction, OpError> {
        let mut reduced: SmallVec<[bool; 4]> = SmallVec::from_elem(false, shape.len());
        for axis in axes {
            // A scalar counts as a vector of one element.
            let place = crate::operator::axis(*axis, shape.len().max(1))?;
            if let Some(reduced) = reduced.get_mut(place) {
                *reduced = true;
            }
        }
        let mut result = Shape::new();
        for (size, reduced) in shape.iter().zip(&reduced) {
            if !reduced {
                result.push(*size);
            } else if keep_dimensions {
                result.push(1);
            }
        }
        Ok(Reduction {
            shape: result,
            reduced,
        })
    }

    pub fn everything(shape: &[usize], keep_dimensions: bool) -> Result<Reduction, OpError> {
        let axes: Vec<i64> = (0..shape.len() as i64).collect();
        Reduction::new(shape, &axes, keep_dimensions)
    }

    /// The tensor as three dimensions of which the middle one is reduced, if the reduced ones are
    /// neighbours.
    fn middle(&self, shape: &[usize]) -> Result<Option<[usize; 3]>, OpError> {
        let Some(first) = self.reduced.iter().position(|reduced| *reduced) else {
            return Ok(Some([product(shape)?, 1, 1]));
        };
        let last = self.reduced.iter().rposition(|reduced| *reduced);
        let end = last.unwrap_or(first) + 1;
        if self.reduced[first..end].contains(&false) {
            return Ok(None);
        }
        Ok(Some([
            product(&shape[..first])?,
            product(&shape[first..end])?,
            product(&shape[end..])?,
        ]))
    }
}

/// The elements that one element of the result is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a, T> {
    values: &'a [T],
    step: usize,
    pub length: usize,
}

impl<'a, T: Copy> Line<'a, T> {
    pub fn iter(self) -> impl Iterator<Item = T> + 'a {
        self.values
            .iter()
            .step_by(self.step)
            .take(self.length)
            .copied()
    }
}

/// Calls `fold` for the elements of each element of the result.
pub(crate) fn reduce<T: Copy, To>(
    reduction: &Reduction,
    shape: &[usize],
    values: &[T],
    context: &Context<'_>,
    fold: impl Fn(Line<'_, T>) -> To,
) -> Result<Vec<To>, OpError> {
    let elements = product(&reduction.shape)?;
    context.reserve_bytes((elements as u64).saturating_mul(size_of::<To>() as u64))?;
    let mut results = Vec::with_capacity(elements);
    if elements == 0 {
        return Ok(results);
    }
    if let Some([outer, length, inner]) = reduction.middle(shape)? {
        for block in 0..outer {
            for place in 0..inner {
                results.push(fold(Line {
                    values: values
                        .get(block * length * inner + place..)
                        .unwrap_or_default(),
                    step: inner,
                    length,
                }));
            }
        }
        return Ok(results);
    }
    // The reduced dimensions are scattered: bring them together at the end.
    context.reserve_bytes(size_of_val(values) as u64)?;
    let mut order: SmallVec<[usize; 4]> = (0..shape.len()).collect();
    order.sort_by_key(|place| reduction.reduced[*place]);
    let gathered = permuted(values, shape, &order);
    let length = values.len() / elements;
    for block in 0..elements {
        results.push(fold(Line {
            values: &gathered[block * length..(block + 1) * length],
            step: 1,
            length,
        }));
    }
    Ok(results)
}

/// The elements with the dimensions in another order.
fn permuted<T: Copy>(values: &[T], shape: &[usize], order: &[usize]) -> Vec<T> {
    let mut steps: SmallVec<[usize; 4]> = SmallVec::from_elem(1, shape.len());
    for place in (1..shape.len()).rev() {
        // Only where there are no elements can this be too large.
        steps[place - 1] = steps[place].saturating_mul(shape[place]);
    }
    let mut counters: SmallVec<[usize; 4]> = SmallVec::from_elem(0, shape.len());
    let mut results = Vec::with_capacity(values.len());
    let mut place = 0;
    while results.len() < values.len() {
        results.push(values[place]);
        for (counter, axis) in counters.iter_mut().zip(order).rev() {
            *counter += 1;
            if *counter < shape[*axis] {
                place += steps[*axis];
                break;
            }
            *counter = 0;
            place -= steps[*axis] * (shape[*axis] - 1);
        }
    }
    results
}

/// A type that is reduced.
trait Reducible: Number {
    const LOWEST: Self;
    const HIGHEST: Self;
    fn wide(self) -> f64;
    /// For integers the fraction is cut off.
    fn narrow(value: f64) -> Self;
    fn magnitude(self) -> Self;
}

macro_rules! reducible {
    ($($number:ty: $lowest:expr, $highest:expr, $narrow:expr, $magnitude:expr;)*) => {$(
        impl Reducible for $number {
            const LOWEST: Self = $lowest;
            const HIGHEST: Self = $highest;
            fn wide(self) -> f64 {
                self as f64
            }
            fn narrow(value: f64) -> Self {
                $narrow(value)
            }
            fn magnitude(self) -> Self {
                $magnitude(self)
            }
        }
    )*};
}

reducible! {
    f32: f32::NEG_INFINITY, f32::INFINITY, |x| x as f32, f32::abs;
    f64: f64::NEG_INFINITY, f64::INFINITY, |x| x, f64::abs;
    i64: i64::MIN, i64::MAX, truncate_to_i64, i64::wrapping_abs;
    i32: i32::MIN, i32::MAX, truncate_to_i32, i32::wrapping_abs;
    i16: i16::MIN, i16::MAX, |x| truncate_to_i32(x) as i16, i16::wrapping_abs;
    i8: i8::MIN, i8::MAX, |x| truncate_to_i32(x) as i8, i8::wrapping_abs;
    u64: u64::MIN, u64::MAX, |x| x as u64, |x| x;
    u32: u32::MIN, u32::MAX, |x| truncate_to_i64(x) as u32, |x| x;
    u16: u16::MIN, u16::MAX, |x| truncate_to_i32(x) as u16, |x| x;
    u8: u8::MIN, u8::MAX, |x| truncate_to_i32(x) as u8, |x| x;
}

/// The first element that `better` prefers to all others; `none` if there is no element.
fn best<T: Copy>(line: Line<'_, T>, none: T, better: impl Fn(T, T) -> bool) -> T {
    let mut elements = line.iter();
    let Some(mut found) = elements.next() else {
        return none;
    };
    for element in elements {
        if better(element, found) {
            found = element;
        }
    }
    found
}

/// The sum of `term` of each element: in float64, or wrapping for integers.
fn total<T: Reducible>(line: Line<'_, T>, term: impl Fn(T) -> T, wide: impl Fn(f64) -> f64) -> f64 {
    if T::IS_INTEGER {
        return line.iter().fold(T::ZERO, |sum, x| sum.add(term(x))).wide();
    }
    line.iter().fold(0.0, |sum, x| sum + wide(x.wide()))
}

/// As [`total`], as an element; for integers without the way through float64.
fn sum<T: Reducible>(line: Line<'_, T>, term: impl Fn(T) -> T, wide: impl Fn(f64) -> f64) -> T {
    if T::IS_INTEGER {
        return line.iter().fold(T::ZERO, |sum, x| sum.add(term(x)));
    }
    T::narrow(total(line, term, wide))
}

/// For integers ONNX Runtime cuts the fraction off each exponential and off the logarithm.
fn log_sum_exp<T: Reducible>(line: Line<'_, T>) -> f64 {
    let cut = |value: f64| if T::IS_INTEGER { value.trunc() } else { value };
    let largest = best(line, T::LOWEST, |a, b| a > b).wide();
    let shift = if largest.is_finite() { largest } else { 0.0 };
    let exponentials = line.iter().map(|x| cut((x.wide() - shift).exp()));
    let sum = exponentials.fold(0.0, |sum, x| sum + x);
    cut(sum.ln()) + shift
}

impl Reduce {
    fn reduction(&self, args: &Args<'_>) -> Result<Reduction, OpError> {
        let shape = args.get(0)?.shape();
        let from_input;
        let axes: &[i64] = match &self.axes {
            Some(axes) => axes,
            None if args.optional(1).is_none() => &[],
            None => {
                from_input = args.integers(1)?;
                &from_input
            }
        };
        if axes.is_empty() && !self.nothing_without_axes {
            return Reduction::everything(shape, self.keep_dimensions);
        }
        Reduction::new(shape, axes, self.keep_dimensions)
    }

    fn compute<T: Reducible>(
        &self,
        reduction: &Reduction,
        tensor: &Tensor,
        values: &[T],
        context: &Context<'_>,
    ) -> Result<Data, OpError> {
        let shape = tensor.shape();
        let same = |x: T| x;
        let square = |x: T| x.mul(x);
        let results = match self.kind {
            Kind::Sum => reduce(reduction, shape, values, context, |line| {
                sum(line, same, |x| x)
            }),
            Kind::Mean => reduce(reduction, shape, values, context, |line| mean(line)),
            Kind::Max => reduce(reduction, shape, values, context, |line| {
                best(line, T::LOWEST, |a, b| a > b)
            }),
            Kind::Min => reduce(reduction, shape, values, context, |line| {
                best(line, T::HIGHEST, |a, b| a < b)
            }),
            Kind::Prod => reduce(reduction, shape, values, context, |line| {
                line.iter().fold(T::ONE, |product, x| product.mul(x))
            }),
            Kind::L1 => reduce(reduction, shape, values, context, |line| {
                sum(line, T::magnitude, f64::abs)
            }),
            Kind::SumSquare => reduce(reduction, shape, values, context, |line| {
                sum(line, square, |x| x * x)
            }),
            Kind::L2 => reduce(reduction, shape, values, context, |line| {
                T::narrow(total(line, square, |x| x * x).sqrt())
            }),
            Kind::LogSum => reduce(reduction, shape, values, context, |line| {
                T::narrow(total(line, same, |x| x).ln())
            }),
            Kind::LogSumExp => reduce(reduction, shape, values, context, |line| {
                T::narrow(log_sum_exp(line))
            }),
        };
        Ok(T::into_data(results?))
    }

    /// The largest or the smallest of booleans: whether any or all are true.
    fn compute_bools(
        &self,
        reduction: &Reduction,
        tensor: &Tensor,
        values: &[bool],
        context: &Context<'_>,
    ) -> Result<Data, OpError> {
        let wanted = match self.kind {
            Kind::Max => true,
            Kind::Min => false,
            _ => return Err(OpError::data_type(0, DataType::Bool, "numbers")),
        };
        let results = reduce(reduction, tensor.shape(), values, context, |line| {
            let found = line.iter().any(|value| value == wanted);
            found == wanted
        });
        Ok(Data::Bool(results?))
    }
}

/// The mean of no elements is zero; that of integers is cut off.
fn mean<T: Reducible>(line: Line<'_, T>) -> T {
    if line.length == 0 {
        return T::ZERO;
    }
    let length = line.length as f64;
    if T::IS_INTEGER {
        return sum(line, |x| x, |x| x).div(T::narrow(length));
    }
    T::narrow(total(line, |x| x, |x| x) / length)
}

impl Operator for Reduce {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let reduction = &self.reduction(args)?;
        let (tensor, context) = (args.get(0)?, args.context);
        let data = match tensor.data() {
            Data::F32(values) => self.compute(reduction, tensor, values, context)?,
            Data::F64(values) => self.compute(reduction, tensor, values, context)?,
            Data::I64(values) => self.compute(reduction, tensor, values, context)?,
            Data::I32(values) => self.compute(reduction, tensor, values, context)?,
            Data::I16(values) => self.compute(reduction, tensor, values, context)?,
            Data::I8(values) => self.compute(reduction, tensor, values, context)?,
            Data::U64(values) => self.compute(reduction, tensor, values, context)?,
            Data::U32(values) => self.compute(reduction, tensor, values, context)?,
            Data::U16(values) => self.compute(reduction, tensor, values, context)?,
            Data::U8(values) => self.compute(reduction, tensor, values, context)?,
            Data::Bool(values) => self.compute_bools(reduction, tensor, values, context)?,
            other => return Err(OpError::data_type(0, other.data_type(), "numbers")),
        };
        one(Tensor::from_data(&reduction.shape, data)?)
    }
}
