//! Addition, multiplication and the other operators that broadcast numbers.
//!
//! Integers wrap around, as on the processor; dividing one by zero is an error. float16 is computed
//! in float32 and rounded once.

use crate::node::Node;
use crate::operator::{Arg, Args, Build, OpError, Operator, Outputs, one};
use crate::ops::broadcast::{Broadcast, binary, binary_in_place};
use crate::ops::cast::{truncate_to_i32, truncate_to_i64};
use crate::ops::float16;
use crate::tensor::{Data, DataType, Element, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Add", add),
    ("Sub", sub),
    ("Mul", mul),
    ("Div", div),
    ("Max", max),
    ("Min", min),
    ("Sum", sum),
    ("Mean", mean),
    ("Mod", modulo),
    ("Pow", pow),
];

/// What arithmetic asks of an element type.
pub(crate) trait Number: Element + Copy + PartialOrd {
    const ZERO: Self;
    const ONE: Self;
    /// Whether a division by zero has no result.
    const IS_INTEGER: bool;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// The quotient towards zero for integers; zero where there is none.
    fn div(self, other: Self) -> Self;
    /// What a division leaves, with the sign of the dividend; zero for integers where there is none.
    fn rem(self, other: Self) -> Self;
    fn is_nan(self) -> bool;

    /// The larger one; NaN if either is.
    fn larger(self, other: Self) -> Self {
        if self.is_nan() || self > other {
            self
        } else {
            other
        }
    }

    /// The smaller one; NaN if either is.
    fn smaller(self, other: Self) -> Self {
        if self.is_nan() || self < other {
            self
        } else {
            other
        }
    }
}

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl Number for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const IS_INTEGER: bool = false;
            fn add(self, other: Self) -> Self {
                self + other
            }
            fn sub(self, other: Self) -> Self {
                self - other
            }
            fn mul(self, other: Self) -> Self {
                self * other
            }
            fn div(self, other: Self) -> Self {
                self / other
            }
            fn rem(self, other: Self) -> Self {
                self % other
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    )*};
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Number for $integer {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const IS_INTEGER: bool = true;
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn div(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            fn rem(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            fn is_nan(self) -> bool {
                false
            }
        }
    )*};
}

floats!(f32, f64);
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

/// Runs `$body` with the vectors of two [`Data`] of the same type of numbers, float16 excepted;
/// else gives `$otherwise`.
macro_rules! with_number_pair {
    ($pair:expr, ($a:ident, $b:ident) => $body:expr, $otherwise:expr) => {
        match $pair {
            (Data::F32($a), Data::F32($b)) => $body,
            (Data::F64($a), Data::F64($b)) => $body,
            (Data::I64($a), Data::I64($b)) => $body,
            (Data::I32($a), Data::I32($b)) => $body,
            (Data::I16($a), Data::I16($b)) => $body,
            (Data::I8($a), Data::I8($b)) => $body,
            (Data::U64($a), Data::U64($b)) => $body,
            (Data::U32($a), Data::U32($b)) => $body,
            (Data::U16($a), Data::U16($b)) => $body,
            (Data::U8($a), Data::U8($b)) => $body,
            _ => $otherwise,
        }
    };
}
pub(crate) use with_number_pair;

/// The error for two inputs that are not numbers of one type.
pub(crate) fn pair_error(left: &Tensor, right: &Tensor) -> OpError {
    OpError::Type(format!(
        "the inputs have element types {} and {}, expected two of the same type of numbers",
        left.data_type(),
        right.data_type()
    ))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

#[derive(Debug)]
struct Binary(Operation);

fn binary_node(node: &Node<'_>, operation: Operation) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Binary(operation)))
}

fn add(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    binary_node(node, Operation::Add)
}

fn sub(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    binary_node(node, Operation::Sub)
}

fn mul(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    binary_node(node, Operation::Mul)
}

fn div(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    binary_node(node, Operation::Div)
}

impl Operator for Binary {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        one(combine(self.0, args, 0, 1)?)
    }
}

/// Two inputs combined, in the place of one of them if it can be had.
fn combine(
    operation: Operation,
    args: &mut Args<'_>,
    left: usize,
    right: usize,
) -> Result<Tensor, OpError> {
    let (left_tensor, right_tensor) = (args.get(left)?, args.get(right)?);
    let layout = Broadcast::new([left_tensor.shape(), right_tensor.shape()])?;
    let data_type = left_tensor.data_type();
    if data_type != right_tensor.data_type() {
        return Err(pair_error(left_tensor, right_tensor));
    }
    // Only for the types that matter in long chains: every type costs code.
    let suited = matches!(data_type, DataType::F32 | DataType::F64);
    let free = |index: usize| {
        suited
            && matches!(args.values.get(index), Some(Arg::Owned(tensor))
                if tensor.shape() == layout.shape.as_slice())
    };
    if free(left) {
        let mut tensor = args.take(left)?;
        let other = args.get(right)?;
        combine_in_place(operation, &layout, &mut tensor, other);
        return Ok(tensor);
    }
    if free(right) {
        let mut tensor = args.take(right)?;
        let other = args.get(left)?;
        let layout = Broadcast::new([tensor.shape(), other.shape()])?;
        combine_in_place_reversed(operation, &layout, &mut tensor, other);
        return Ok(tensor);
    }
    args.context.reserve(layout.elements, data_type)?;
    with_number_pair!(
        (left_tensor.data(), right_tensor.data()),
        (lefts, rights) => {
            if operation == Operation::Div {
                refuse_zeros(rights)?;
            }
            let results = combined(operation, &layout, lefts, rights);
            Ok(Tensor::new(&layout.shape, results)?)
        },
        Err(pair_error(left_tensor, right_tensor))
    )
}

/// Verifies that integers can be divided by the numbers.
fn refuse_zeros<T: Number>(divisors: &[T]) -> Result<(), OpError> {
    if T::IS_INTEGER && divisors.contains(&T::ZERO) {
        return Err(OpError::Value("an integer is divided by zero".to_string()));
    }
    Ok(())
}

fn combined<T: Number>(
    operation: Operation,
    layout: &Broadcast<2>,
    lefts: &[T],
    rights: &[T],
) -> Vec<T> {
    match operation {
        Operation::Add => binary(layout, lefts, rights, |a, b| a.add(*b)),
        Operation::Sub => binary(layout, lefts, rights, |a, b| a.sub(*b)),
        Operation::Mul => binary(layout, lefts, rights, |a, b| a.mul(*b)),
        Operation::Div => binary(layout, lefts, rights, |a, b| a.div(*b)),
        Operation::Max => binary(layout, lefts, rights, |a, b| a.larger(*b)),
        Operation::Min => binary(layout, lefts, rights, |a, b| a.smaller(*b)),
    }
}

fn combine_in_place(
    operation: Operation,
    layout: &Broadcast<2>,
    tensor: &mut Tensor,
    other: &Tensor,
) {
    fn apply<T: Number>(
        operation: Operation,
        layout: &Broadcast<2>,
        values: &mut [T],
        others: &[T],
    ) {
        match operation {
            Operation::Add => binary_in_place(layout, values, others, T::add),
            Operation::Sub => binary_in_place(layout, values, others, T::sub),
            Operation::Mul => binary_in_place(layout, values, others, T::mul),
            Operation::Div => binary_in_place(layout, values, others, T::div),
            Operation::Max => binary_in_place(layout, values, others, T::larger),
            Operation::Min => binary_in_place(layout, values, others, T::smaller),
        }
    }
    if let (Some(values), Some(others)) = (tensor.as_mut_slice::<f32>(), other.as_slice::<f32>()) {
        apply(operation, layout, values, others);
    }
    if let (Some(values), Some(others)) = (tensor.as_mut_slice::<f64>(), other.as_slice::<f64>()) {
        apply(operation, layout, values, others);
    }
}

/// As [`combine_in_place`], with the operands of the operation exchanged.
fn combine_in_place_reversed(
    operation: Operation,
    layout: &Broadcast<2>,
    tensor: &mut Tensor,
    other: &Tensor,
) {
    fn apply<T: Number>(
        operation: Operation,
        layout: &Broadcast<2>,
        values: &mut [T],
        others: &[T],
    ) {
        match operation {
            Operation::Add => binary_in_place(layout, values, others, |b, a: T| a.add(b)),
            Operation::Sub => binary_in_place(layout, values, others, |b, a: T| a.sub(b)),
            Operation::Mul => binary_in_place(layout, values, others, |b, a: T| a.mul(b)),
            Operation::Div => binary_in_place(layout, values, others, |b, a: T| a.div(b)),
            Operation::Max => binary_in_place(layout, values, others, |b, a: T| a.larger(b)),
            Operation::Min => binary_in_place(layout, values, others, |b, a: T| a.smaller(b)),
        }
    }
    if let (Some(values), Some(others)) = (tensor.as_mut_slice::<f32>(), other.as_slice::<f32>()) {
        apply(operation, layout, values, others);
    }
    if let (Some(values), Some(others)) = (tensor.as_mut_slice::<f64>(), other.as_slice::<f64>()) {
        apply(operation, layout, values, others);
    }
}

/// Any number of inputs combined one after the other.
#[derive(Debug)]
struct Variadic {
    operation: Operation,
    /// Divide the result by the number of inputs.
    mean: bool,
}

fn variadic(
    node: &Node<'_>,
    operation: Operation,
    mean: bool,
) -> Result<Box<dyn Operator>, String> {
    if node.inputs() == 0 {
        return Err("it has no inputs".to_string());
    }
    Ok(Box::new(Variadic { operation, mean }))
}

fn max(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    variadic(node, Operation::Max, false)
}

fn min(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    variadic(node, Operation::Min, false)
}

fn sum(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    variadic(node, Operation::Add, false)
}

fn mean(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    variadic(node, Operation::Add, true)
}

impl Operator for Variadic {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let data_type = args.get(0)?.data_type();
        if matches!(data_type, DataType::Bool | DataType::String) {
            return Err(OpError::data_type(0, data_type, "numbers"));
        }
        let count = args.len();
        for index in 1..count {
            let result = combine(self.operation, args, 0, index)?;
            if let Some(first) = args.values.first_mut() {
                *first = Arg::Owned(result);
            }
        }
        let mut result = args.take(0)?;
        if self.mean {
            if let Some(values) = result.as_mut_slice::<f32>() {
                values.iter_mut().for_each(|value| *value /= count as f32);
            } else if let Some(values) = result.as_mut_slice::<f64>() {
                values.iter_mut().for_each(|value| *value /= count as f64);
            } else {
                return Err(OpError::data_type(0, data_type, "float or double"));
            }
        }
        one(result)
    }
}

/// The remainder of a division.
#[derive(Debug)]
struct Modulo {
    /// With the sign of the dividend, as in C; else with that of the divisor, as in Python.
    like_c: bool,
}

fn modulo(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let like_c = node.flag("fmod", false)?;
    Ok(Box::new(Modulo { like_c }))
}

impl Operator for Modulo {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let (left, right) = (args.get(0)?, args.get(1)?);
        if matches!(left.data_type(), DataType::F32 | DataType::F64) && !self.like_c {
            return Err(OpError::Type(
                "for floating point numbers attribute `fmod` must be 1".to_string(),
            ));
        }
        let layout = Broadcast::new([left.shape(), right.shape()])?;
        args.context.reserve(layout.elements, left.data_type())?;
        with_number_pair!(
            (left.data(), right.data()),
            (lefts, rights) => {
                refuse_zeros(rights)?;
                let like_c = self.like_c;
                let results = binary(&layout, lefts, rights, |a, b| remainder(*a, *b, like_c));
                one(Tensor::new(&layout.shape, results)?)
            },
            Err(pair_error(left, right))
        )
    }
}

fn remainder<T: Number>(dividend: T, divisor: T, like_c: bool) -> T {
    let rest = dividend.rem(divisor);
    let signs_differ = (rest < T::ZERO) != (divisor < T::ZERO);
    if !like_c && rest != T::ZERO && signs_differ {
        rest.add(divisor)
    } else {
        rest
    }
}

/// Powers; the exponent may be of another type than the base.
#[derive(Debug)]
struct Power;

fn pow(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Power))
}

/// Numbers as float64, for the types that powers take.
fn as_float64(tensor: &Tensor, index: usize) -> Result<Vec<f64>, OpError> {
    match tensor.data() {
        Data::F32(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
        Data::F64(values) => Ok(values.clone()),
        Data::I32(values) => Ok(values.iter().map(|value| f64::from(*value)).collect()),
        Data::I64(values) => Ok(values.iter().map(|value| *value as f64).collect()),
        other => {
            let expected = "float, double, int32 or int64";
            Err(OpError::data_type(index, other.data_type(), expected))
        }
    }
}

fn raise<T: Number>(
    layout: &Broadcast<2>,
    bases: &[T],
    exponents: &[T],
    power: impl Fn(T, T) -> T,
    [two, three]: [T; 2],
) -> Vec<T> {
    // Squares and cubes are what feature engineering asks for, and are quicker multiplied.
    if let [exponent] = exponents {
        if *exponent == two {
            return binary(layout, bases, exponents, |x, _| x.mul(*x));
        }
        if *exponent == three {
            return binary(layout, bases, exponents, |x, _| x.mul(*x).mul(*x));
        }
    }
    binary(layout, bases, exponents, |x, y| power(*x, *y))
}

impl Operator for Power {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let (base, exponent) = (args.get(0)?, args.get(1)?);
        let layout = Broadcast::new([base.shape(), exponent.shape()])?;
        args.context.reserve(layout.elements, DataType::F64)?;
        if let (Data::F32(bases), Data::F32(exponents)) = (base.data(), exponent.data()) {
            let results = raise(&layout, bases, exponents, f32::powf, [2.0, 3.0]);
            return one(Tensor::new(&layout.shape, results)?);
        }
        let bases = as_float64(base, 0)?;
        let exponents = as_float64(exponent, 1)?;
        let results = raise(&layout, &bases, &exponents, f64::powf, [2.0, 3.0]);
        let data = match base.data_type() {
            DataType::F32 => Data::F32(results.iter().map(|x| *x as f32).collect()),
            DataType::I32 => Data::I32(results.iter().map(|x| truncate_to_i32(*x)).collect()),
            DataType::I64 => Data::I64(results.iter().map(|x| truncate_to_i64(*x)).collect()),
            _ => Data::F64(results),
        };
        one(Tensor::from_data(&layout.shape, data)?)
    }
}
