//! Operators on the bits of integers.

use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, one};
use crate::ops::arithmetic::pair_error;
use crate::ops::broadcast::{Broadcast, binary};
use crate::tensor::{Data, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("BitwiseAnd", bitwise_and),
    ("BitwiseOr", bitwise_or),
    ("BitwiseXor", bitwise_xor),
    ("BitwiseNot", bitwise_not),
    ("BitShift", bit_shift),
];

#[derive(Debug, Clone, Copy)]
enum Operation {
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

#[derive(Debug)]
struct Bitwise(Operation);

fn bitwise(node: &Node<'_>, operation: Operation) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Bitwise(operation)))
}

fn bitwise_and(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    bitwise(node, Operation::And)
}

fn bitwise_or(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    bitwise(node, Operation::Or)
}

fn bitwise_xor(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    bitwise(node, Operation::Xor)
}

fn bit_shift(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    match node.string("direction")? {
        Some("LEFT") => bitwise(node, Operation::ShiftLeft),
        Some("RIGHT") => bitwise(node, Operation::ShiftRight),
        other => Err(format!(
            "attribute `direction` is {other:?}, expected LEFT or RIGHT"
        )),
    }
}

/// A pair of inputs of one integer type combined; shifting by the width or more leaves zero.
macro_rules! combined {
    ($operation:expr, $layout:expr, $lefts:expr, $rights:expr, $integer:ty) => {{
        let shifts = |bits: &$integer| u32::try_from(*bits).unwrap_or(u32::MAX);
        match $operation {
            Operation::And => binary($layout, $lefts, $rights, |a, b| a & b),
            Operation::Or => binary($layout, $lefts, $rights, |a, b| a | b),
            Operation::Xor => binary($layout, $lefts, $rights, |a, b| a ^ b),
            Operation::ShiftLeft => binary($layout, $lefts, $rights, |a, b| {
                a.checked_shl(shifts(b)).unwrap_or(0)
            }),
            Operation::ShiftRight => binary($layout, $lefts, $rights, |a, b| {
                a.checked_shr(shifts(b)).unwrap_or(0)
            }),
        }
    }};
}

impl Operator for Bitwise {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let (left, right) = (args.get(0)?, args.get(1)?);
        let layout = &Broadcast::new([left.shape(), right.shape()])?;
        args.context.reserve(layout.elements, left.data_type())?;
        let data = match (left.data(), right.data()) {
            (Data::U8(a), Data::U8(b)) => Data::U8(combined!(self.0, layout, a, b, u8)),
            (Data::U16(a), Data::U16(b)) => Data::U16(combined!(self.0, layout, a, b, u16)),
            (Data::U32(a), Data::U32(b)) => Data::U32(combined!(self.0, layout, a, b, u32)),
            (Data::U64(a), Data::U64(b)) => Data::U64(combined!(self.0, layout, a, b, u64)),
            (Data::I8(a), Data::I8(b)) => Data::I8(combined!(self.0, layout, a, b, i8)),
            (Data::I16(a), Data::I16(b)) => Data::I16(combined!(self.0, layout, a, b, i16)),
            (Data::I32(a), Data::I32(b)) => Data::I32(combined!(self.0, layout, a, b, i32)),
            (Data::I64(a), Data::I64(b)) => Data::I64(combined!(self.0, layout, a, b, i64)),
            _ => return Err(pair_error(left, right)),
        };
        one(Tensor::from_data(&layout.shape, data)?)
    }
}

#[derive(Debug)]
struct BitwiseNot;

fn bitwise_not(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(BitwiseNot))
}

impl Operator for BitwiseNot {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let data = match tensor.data() {
            Data::U8(values) => Data::U8(values.iter().map(|value| !value).collect()),
            Data::U16(values) => Data::U16(values.iter().map(|value| !value).collect()),
            Data::U32(values) => Data::U32(values.iter().map(|value| !value).collect()),
            Data::U64(values) => Data::U64(values.iter().map(|value| !value).collect()),
            Data::I8(values) => Data::I8(values.iter().map(|value| !value).collect()),
            Data::I16(values) => Data::I16(values.iter().map(|value| !value).collect()),
            Data::I32(values) => Data::I32(values.iter().map(|value| !value).collect()),
            Data::I64(values) => Data::I64(values.iter().map(|value| !value).collect()),
            other => return Err(OpError::data_type(0, other.data_type(), "integers")),
        };
        one(Tensor::from_data(tensor.shape(), data)?)
    }
}
