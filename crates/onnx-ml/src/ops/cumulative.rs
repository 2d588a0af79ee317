//! `CumSum`: the sums of all elements up to each.

use crate::node::Node;
use crate::operator::{Args, OpError, Operator, Outputs, one};
use crate::ops::arithmetic::Number;
use crate::ops::float16;
use crate::tensor::{Data, Shape, Tensor};

/// The sums are kept in the type of the elements, as in ONNX Runtime.
#[derive(Debug)]
struct CumulativeSum {
    /// Without the element itself.
    exclusive: bool,
    /// From the end on.
    reverse: bool,
}

pub(crate) fn cumsum(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(CumulativeSum {
        exclusive: node.flag("exclusive", false)?,
        reverse: node.flag("reverse", false)?,
    }))
}

impl CumulativeSum {
    /// Sums along the middle one of three dimensions.
    fn sum<T: Number>(&self, values: &mut [T], length: usize, inner: usize) {
        if length == 0 || inner == 0 {
            return;
        }
        for block in values.chunks_mut(length * inner) {
            for column in 0..inner {
                let mut sum = T::ZERO;
                for step in 0..length {
                    let step = if self.reverse {
                        length - 1 - step
                    } else {
                        step
                    };
                    let value = &mut block[step * inner + column];
                    let next = sum.add(*value);
                    *value = if self.exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
    }
}

impl Operator for CumulativeSum {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if float16::any(args) {
            return float16::run(self, args);
        }
        let [axis] = *args.integers(1)?.as_slice() else {
            return Err(OpError::Value(
                "input 1 must hold one axis alone".to_string(),
            ));
        };
        let tensor = args.take(0)?;
        let shape = Shape::from_slice(tensor.shape());
        let axis = crate::operator::axis(axis, shape.len())?;
        let length = shape[axis];
        let elements = tensor.len();
        // The sizes after the axis multiply to a number if there are elements at all.
        let inner = if elements == 0 {
            0
        } else {
            shape[axis + 1..].iter().product()
        };
        let mut data = tensor.into_data();
        match &mut data {
            Data::F32(values) => self.sum(values, length, inner),
            Data::F64(values) => self.sum(values, length, inner),
            Data::I64(values) => self.sum(values, length, inner),
            Data::I32(values) => self.sum(values, length, inner),
            Data::U64(values) => self.sum(values, length, inner),
            Data::U32(values) => self.sum(values, length, inner),
            other => {
                let expected = "numbers of 32 or 64 bits";
                return Err(OpError::data_type(0, other.data_type(), expected));
            }
        }
        one(Tensor::from_data(&shape, data)?)
    }
}
