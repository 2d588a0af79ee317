//! `ScatterElements`, `Scatter` and `ScatterND`: a tensor with some elements replaced by updates or
//! combined with them, in the order of the updates.

use half::f16;

use super::indexing::{element_places, tuple_places};
use super::layout;
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, axis, one};
use crate::tensor::{Data, DataType, Element, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Scatter", scatter_elements),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduction {
    Replace,
    Add,
    Multiply,
    Maximum,
    Minimum,
}

/// Reductions came in version 16, maximum and minimum in 18.
fn reduction(node: &Node<'_>) -> Result<Reduction, String> {
    if node.version < 16 {
        return Ok(Reduction::Replace);
    }
    match node.string("reduction")?.unwrap_or("none") {
        "none" => Ok(Reduction::Replace),
        "add" => Ok(Reduction::Add),
        "mul" => Ok(Reduction::Multiply),
        "max" if node.version >= 18 => Ok(Reduction::Maximum),
        "min" if node.version >= 18 => Ok(Reduction::Minimum),
        other => Err(format!("reduction `{other}` is not known")),
    }
}

#[derive(Debug)]
struct ScatterElements {
    axis: i64,
    reduction: Reduction,
}

fn scatter_elements(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    Ok(Box::new(ScatterElements {
        axis: node.int("axis")?.unwrap_or(0),
        reduction: reduction(node)?,
    }))
}

impl Operator for ScatterElements {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let indices = args.integers(1)?;
        let shape = args.get(1)?.shape();
        if args.get(2)?.shape() != shape {
            return Err(OpError::Value(format!(
                "updates have shape {:?}, the indices {shape:?}",
                args.get(2)?.shape()
            )));
        }
        let found = args.get(0)?.shape();
        let starts = element_places(found, axis(self.axis, found.len())?, shape, &indices)?;
        update(args, &starts, 1, self.reduction)
    }
}

#[derive(Debug)]
struct ScatterNd {
    reduction: Reduction,
}

fn scatter_nd(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(3, 3)?;
    let reduction = reduction(node)?;
    Ok(Box::new(ScatterNd { reduction }))
}

impl Operator for ScatterNd {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let found = args.get(0)?.shape();
        let indices = args.integers(1)?;
        let index_shape = args.get(1)?.shape();
        let updates = args.get(2)?.shape();
        let misfit = || {
            OpError::Value(format!(
                "indices of shape {index_shape:?} and updates of shape {updates:?} do not fit data \
                 of shape {found:?}"
            ))
        };
        let Some((depth, outer)) = index_shape.split_last() else {
            return Err(misfit());
        };
        if *depth > found.len()
            || updates.len() != outer.len() + found.len() - depth
            || updates[..outer.len()] != *outer
            || updates[outer.len()..] != found[*depth..]
        {
            return Err(misfit());
        }
        if args.get(2)?.is_empty() {
            return one(args.take(0)?);
        }
        let tuples = layout::count(outer)?;
        let starts = tuple_places(found, 0, *depth, tuples, &indices)?;
        let block = layout::count(&found[*depth..])?;
        update(args, &starts, block, self.reduction)
    }
}

/// Combines the blocks of input 0 that start at `starts` with those of input 2.
fn update(
    args: &mut Args<'_>,
    starts: &[usize],
    block: usize,
    reduction: Reduction,
) -> Result<Outputs, OpError> {
    let result = args.take(0)?;
    let updates = args.get(2)?;
    if updates.data_type() != result.data_type() {
        let expected = result.data_type().name();
        return Err(OpError::data_type(2, updates.data_type(), expected));
    }
    let shape = crate::tensor::Shape::from_slice(result.shape());
    let mut data = result.into_data();
    let not_combined = |data_type: DataType| {
        let expected = "numbers (or bool for `add` and `mul`)";
        OpError::data_type(0, data_type, expected)
    };
    macro_rules! combine {
        ($values:ident, $element:ty, $add:expr, $multiply:expr) => {{
            let updates = updates.as_slice::<$element>().unwrap_or_default();
            match reduction {
                Reduction::Replace => apply($values, updates, starts, block, |_, new| new),
                Reduction::Add => apply($values, updates, starts, block, $add),
                Reduction::Multiply => apply($values, updates, starts, block, $multiply),
                // Written so that a NaN among the updates wins and one among the values does not.
                Reduction::Maximum => {
                    let maximum = |old, new| if old > new { old } else { new };
                    apply($values, updates, starts, block, maximum);
                }
                Reduction::Minimum => {
                    let minimum = |old, new| if old < new { old } else { new };
                    apply($values, updates, starts, block, minimum);
                }
            }
        }};
    }
    macro_rules! integers {
        ($values:ident, $element:ty) => {
            combine!(
                $values,
                $element,
                <$element>::wrapping_add,
                <$element>::wrapping_mul
            )
        };
    }
    match &mut data {
        Data::F32(values) => combine!(values, f32, |old, new| old + new, |old, new| old * new),
        Data::F64(values) => combine!(values, f64, |old, new| old + new, |old, new| old * new),
        Data::F16(values) => combine!(values, f16, |old, new| old + new, |old, new| old * new),
        Data::I8(values) => integers!(values, i8),
        Data::I16(values) => integers!(values, i16),
        Data::I32(values) => integers!(values, i32),
        Data::I64(values) => integers!(values, i64),
        Data::U8(values) => integers!(values, u8),
        Data::U16(values) => integers!(values, u16),
        Data::U32(values) => integers!(values, u32),
        Data::U64(values) => integers!(values, u64),
        Data::Bool(_) if matches!(reduction, Reduction::Maximum | Reduction::Minimum) => {
            return Err(not_combined(DataType::Bool));
        }
        Data::Bool(values) => combine!(values, bool, |old, new| old | new, |old, new| old & new),
        Data::String(_) if reduction != Reduction::Replace => {
            return Err(not_combined(DataType::String));
        }
        Data::String(values) => {
            let updates = updates.as_slice().unwrap_or_default();
            apply(values, updates, starts, block, |_, new| new);
        }
    }
    one(Tensor::from_data(&shape, data)?)
}

fn apply<T: Element>(
    values: &mut [T],
    updates: &[T],
    starts: &[usize],
    block: usize,
    combine: impl Fn(T, T) -> T,
) {
    for (number, start) in starts.iter().enumerate() {
        let targets = values[*start..*start + block].iter_mut();
        for (target, update) in targets.zip(&updates[number * block..(number + 1) * block]) {
            let old = std::mem::take(target);
            *target = combine(old, update.clone());
        }
    }
}
