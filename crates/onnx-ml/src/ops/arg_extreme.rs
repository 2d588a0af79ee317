//! `ArgMax` and `ArgMin`: where along a dimension the largest or the smallest number is.

use crate::node::Node;
use crate::operator::{Args, Context, OpError, Operator, Outputs, one};
use crate::ops::reduce::{Line, Reduction, reduce};
use crate::tensor::{Data, DataType, Tensor};

/// Among equal numbers the first is taken, or the last on demand. As in ONNX Runtime, NaN is found
/// only where it comes first.
#[derive(Debug)]
struct ArgExtreme {
    largest: bool,
    axis: i64,
    keep_dimensions: bool,
    last: bool,
}

pub(crate) fn argmax(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    build(node, true)
}

pub(crate) fn argmin(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    build(node, false)
}

fn build(node: &Node<'_>, largest: bool) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(ArgExtreme {
        largest,
        axis: node.int("axis")?.unwrap_or(0),
        keep_dimensions: node.flag("keepdims", true)?,
        last: node.version >= 12 && node.flag("select_last_index", false)?,
    }))
}

fn place<T: PartialOrd + Copy>(line: Line<'_, T>, better: impl Fn(T, T) -> bool) -> i64 {
    let mut elements = line.iter();
    let Some(mut found) = elements.next() else {
        return 0;
    };
    let mut place = 0;
    for (index, element) in (1..).zip(elements) {
        if better(element, found) {
            found = element;
            place = index;
        }
    }
    place
}

impl ArgExtreme {
    fn places<T: PartialOrd + Copy>(
        &self,
        shape: &[usize],
        values: &[T],
        context: &Context<'_>,
    ) -> Result<Tensor, OpError> {
        let axis = crate::operator::axis(self.axis, shape.len())?;
        let reduction = Reduction::new(shape, &[self.axis], self.keep_dimensions)?;
        let others = shape.iter().enumerate().filter(|(place, _)| *place != axis);
        if shape[axis] == 0 && others.map(|(_, size)| size).all(|size| *size > 0) {
            return Err(OpError::Value(format!(
                "dimension {axis} of shape {shape:?} has no elements to choose from"
            )));
        }
        let places = match (self.largest, self.last) {
            (true, false) => reduce(&reduction, shape, values, context, |line| {
                place(line, |a, b| a > b)
            }),
            (true, true) => reduce(&reduction, shape, values, context, |line| {
                place(line, |a, b| a >= b)
            }),
            (false, false) => reduce(&reduction, shape, values, context, |line| {
                place(line, |a, b| a < b)
            }),
            (false, true) => reduce(&reduction, shape, values, context, |line| {
                place(line, |a, b| a <= b)
            }),
        };
        Ok(Tensor::new(&reduction.shape, places?)?)
    }
}

impl Operator for ArgExtreme {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let (tensor, context) = (args.get(0)?, args.context);
        let shape = tensor.shape();
        one(match tensor.data() {
            Data::F32(values) => self.places(shape, values, context)?,
            Data::F64(values) => self.places(shape, values, context)?,
            Data::F16(values) => self.places(shape, values, context)?,
            Data::I64(values) => self.places(shape, values, context)?,
            Data::I32(values) => self.places(shape, values, context)?,
            Data::I16(values) => self.places(shape, values, context)?,
            Data::I8(values) => self.places(shape, values, context)?,
            Data::U64(values) => self.places(shape, values, context)?,
            Data::U32(values) => self.places(shape, values, context)?,
            Data::U16(values) => self.places(shape, values, context)?,
            Data::U8(values) => self.places(shape, values, context)?,
            Data::Bool(_) => return Err(OpError::data_type(0, DataType::Bool, "numbers")),
            Data::String(_) => return Err(OpError::data_type(0, DataType::String, "numbers")),
        })
    }
}
