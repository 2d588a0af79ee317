//! Operators that change shapes and leave elements as they are.

use smallvec::SmallVec;

use super::layout::{self, IntegersSource, View};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, axis, one};
use crate::tensor::{Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Identity", identity),
    ("Reshape", reshape),
    ("Flatten", flatten),
    ("Squeeze", squeeze),
    ("Unsqueeze", unsqueeze),
    ("Transpose", transpose),
    ("Shape", shape),
    ("Size", size),
    ("Expand", expand),
    ("Tile", tile),
];

/// A matrix of the elements of a tensor, in their order.
pub(crate) struct Matrix {
    /// How many columns it has, if the file fixes that; else it has as many rows as the tensor.
    pub columns: Option<usize>,
}

impl Matrix {
    /// What the operator makes of its input, if that is a matrix of it.
    pub fn made_by(operator: &dyn Operator) -> Option<Matrix> {
        if let Some(Flatten { axis: 1 }) = operator.downcast_ref() {
            return Some(Matrix { columns: None });
        }
        let reshape: &Reshape = operator.downcast_ref()?;
        match reshape.sizes.fixed()? {
            [0, -1] if !reshape.allow_zero => Some(Matrix { columns: None }),
            [-1, size] if *size > 0 => Some(Matrix {
                columns: usize::try_from(*size).ok(),
            }),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Identity;

fn identity(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Identity))
}

impl Operator for Identity {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        one(args.take(0)?)
    }
}

#[derive(Debug)]
struct Reshape {
    sizes: IntegersSource,
    /// A size of 0 is 0, not the input's size.
    allow_zero: bool,
}

fn reshape(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let allow_zero = node.version >= 14 && node.flag("allowzero", false)?;
    Ok(Box::new(Reshape {
        sizes: IntegersSource::input(node, 1)?,
        allow_zero,
    }))
}

impl Operator for Reshape {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let sizes = self.sizes.require(args, "shape")?;
        let shape = reshaped(args.get(0)?.shape(), &sizes, self.allow_zero)?;
        one(args.take(0)?.reshaped(&shape)?)
    }
}

/// The shape that `sizes` asks for: 0 is the input's size at that place, -1 is what is left.
fn reshaped(found: &[usize], sizes: &[i64], allow_zero: bool) -> Result<Shape, OpError> {
    let wrong = |what: &str| OpError::Value(format!("shape {sizes:?} {what}"));
    let mut shape = Shape::new();
    let mut rest = None;
    for (place, size) in sizes.iter().enumerate() {
        shape.push(match *size {
            0 if allow_zero => 0,
            0 => match found.get(place) {
                Some(size) => *size,
                None => return Err(wrong("has a 0 beyond the input's dimensions")),
            },
            -1 if rest.is_none() => {
                rest = Some(place);
                1
            }
            -1 => return Err(wrong("has more than one -1")),
            size => usize::try_from(size).map_err(|_| wrong("has a negative size"))?,
        });
    }
    if let Some(rest) = rest {
        let elements = layout::count(found)?;
        let known = layout::count(&shape)?;
        shape[rest] = match elements.checked_div(known) {
            Some(size) if size * known == elements => size,
            Some(_) => return Err(wrong(&format!("does not fit {elements} elements"))),
            // No rows: what it would be for one row.
            None => {
                let elements = product_without_zeros(found);
                elements
                    .checked_div(product_without_zeros(&shape))
                    .unwrap_or(0)
            }
        };
    }
    Ok(shape)
}

fn product_without_zeros(shape: &[usize]) -> usize {
    let sizes = shape.iter().filter(|size| **size != 0);
    sizes.fold(1usize, |product, size| product.saturating_mul(*size))
}

#[derive(Debug)]
struct Flatten {
    axis: i64,
}

fn flatten(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let axis = node.int("axis")?.unwrap_or(1);
    Ok(Box::new(Flatten { axis }))
}

impl Operator for Flatten {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let found = args.get(0)?.shape();
        let split = if usize::try_from(self.axis).is_ok_and(|axis| axis == found.len()) {
            found.len()
        } else {
            axis(self.axis, found.len())?
        };
        let shape = [
            layout::count(&found[..split])?,
            layout::count(&found[split..])?,
        ];
        one(args.take(0)?.reshaped(&shape)?)
    }
}

#[derive(Debug)]
struct Squeeze {
    axes: IntegersSource,
}

fn squeeze(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, if node.version >= 13 { 2 } else { 1 })?;
    Ok(Box::new(Squeeze {
        axes: IntegersSource::attribute_or_input(node, "axes", 1, 13)?,
    }))
}

impl Operator for Squeeze {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let axes = self.axes.get(args)?.unwrap_or_default();
        let found = args.get(0)?.shape();
        let mut dropped: SmallVec<[bool; 4]> = SmallVec::from_elem(false, found.len());
        for place in &axes {
            let place = axis(*place, found.len())?;
            if found[place] != 1 {
                let size = found[place];
                return Err(OpError::Value(format!(
                    "axis {place} has size {size}, only axes of size 1 can be removed"
                )));
            }
            dropped[place] = true;
        }
        let mut shape = Shape::new();
        for (size, dropped) in found.iter().zip(&dropped) {
            // Without axes, all of size 1 go.
            let goes = *dropped || (axes.is_empty() && *size == 1);
            if !goes {
                shape.push(*size);
            }
        }
        one(args.take(0)?.reshaped(&shape)?)
    }
}

#[derive(Debug)]
struct Unsqueeze {
    axes: IntegersSource,
}

fn unsqueeze(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let inputs = if node.version >= 13 { 2 } else { 1 };
    node.expect_inputs(inputs, inputs)?;
    let axes = IntegersSource::attribute_or_input(node, "axes", 1, 13)?;
    if matches!(axes, IntegersSource::Absent) {
        return Err("attribute `axes` is missing".to_string());
    }
    Ok(Box::new(Unsqueeze { axes }))
}

impl Operator for Unsqueeze {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let axes = self.axes.require(args, "axes")?;
        let found = args.get(0)?.shape();
        let rank = found.len() + axes.len();
        let mut added: SmallVec<[bool; 4]> = SmallVec::from_elem(false, rank);
        for place in &axes {
            let place = axis(*place, rank)?;
            if added[place] {
                return Err(OpError::Value(format!("axis {place} is given twice")));
            }
            added[place] = true;
        }
        let mut sizes = found.iter();
        let mut shape = Shape::new();
        for added in added {
            let size = if added { Some(&1) } else { sizes.next() };
            shape.extend(size.copied());
        }
        one(args.take(0)?.reshaped(&shape)?)
    }
}

#[derive(Debug)]
struct Transpose {
    /// Which axis of the input stands at each place; reversed when empty.
    order: Option<SmallVec<[usize; 4]>>,
}

fn transpose(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    let Some(axes) = node.ints("perm")? else {
        return Ok(Box::new(Transpose { order: None }));
    };
    let mut order: SmallVec<[usize; 4]> = SmallVec::new();
    let mut seen: SmallVec<[bool; 4]> = SmallVec::from_elem(false, axes.len());
    for axis in axes {
        let place = usize::try_from(*axis).unwrap_or(usize::MAX);
        match seen.get_mut(place) {
            Some(seen @ false) => *seen = true,
            _ => return Err(format!("`perm` {axes:?} is no order of the axes")),
        }
        order.push(place);
    }
    Ok(Box::new(Transpose { order: Some(order) }))
}

impl Operator for Transpose {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let found = tensor.shape();
        let reversed: SmallVec<[usize; 4]>;
        let order = match &self.order {
            Some(order) if order.len() != found.len() => {
                return Err(OpError::Value(format!(
                    "`perm` has {} axes, the input has shape {found:?}",
                    order.len()
                )));
            }
            Some(order) => order,
            None => {
                reversed = (0..found.len()).rev().collect();
                &reversed
            }
        };
        let shape: Shape = order.iter().map(|place| found[*place]).collect();
        // Moving axes of size 1 leaves the elements where they are.
        let long_axes = order.iter().filter(|place| found[**place] != 1);
        if long_axes.is_sorted() {
            return one(args.take(0)?.reshaped(&shape)?);
        }
        let strides = layout::strides(found);
        let view = View {
            strides: order.iter().map(|place| strides[*place]).collect(),
            start: 0,
            shape,
        };
        one(layout::copy(tensor, &view, &view.shape, args.context)?)
    }
}

#[derive(Debug)]
struct ShapeOf {
    start: i64,
    end: Option<i64>,
}

fn shape(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    if node.version < 15 {
        return Ok(Box::new(ShapeOf {
            start: 0,
            end: None,
        }));
    }
    Ok(Box::new(ShapeOf {
        start: node.int("start")?.unwrap_or(0),
        end: node.int("end")?,
    }))
}

impl Operator for ShapeOf {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let found = args.get(0)?.shape();
        let rank = found.len() as i64;
        let place = |number: i64| {
            let number = if number < 0 {
                number.saturating_add(rank)
            } else {
                number
            };
            number.clamp(0, rank) as usize
        };
        let start = place(self.start);
        let end = place(self.end.unwrap_or(rank)).max(start);
        let sizes = found[start..end].iter().map(|size| *size as i64);
        one(Tensor::vector::<i64>(sizes.collect()))
    }
}

#[derive(Debug)]
struct Size;

fn size(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, 1)?;
    Ok(Box::new(Size))
}

impl Operator for Size {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        one(Tensor::scalar(args.get(0)?.len() as i64))
    }
}

#[derive(Debug)]
struct Expand {
    sizes: IntegersSource,
}

fn expand(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Expand {
        sizes: IntegersSource::input(node, 1)?,
    }))
}

impl Operator for Expand {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let sizes = self.sizes.require(args, "shape")?;
        let tensor = args.get(0)?;
        let found = tensor.shape();
        let found_strides = layout::strides(found);
        let rank = found.len().max(sizes.len());
        let mut view = View {
            shape: Shape::new(),
            strides: SmallVec::new(),
            start: 0,
        };
        for place in 0..rank {
            // Both are aligned at the last axis; what is missing in front counts as 1.
            let own = (place + found.len()).checked_sub(rank);
            let asked = (place + sizes.len()).checked_sub(rank);
            let own_size = own.map_or(1, |own| found[own]);
            let asked_size = match asked.map(|asked| usize::try_from(sizes[asked])) {
                None => 1,
                Some(Ok(size)) => size,
                Some(Err(_)) => {
                    return Err(OpError::Value(format!(
                        "shape {sizes:?} has a negative size"
                    )));
                }
            };
            if own_size != asked_size && own_size != 1 && asked_size != 1 {
                return Err(OpError::Value(format!(
                    "shape {found:?} cannot be expanded to {sizes:?}"
                )));
            }
            view.strides.push(match own {
                Some(own) if own_size != 1 => found_strides[own],
                _ => 0,
            });
            view.shape
                .push(if own_size == 1 { asked_size } else { own_size });
        }
        if layout::count(&view.shape)? == tensor.len() {
            return one(args.take(0)?.reshaped(&view.shape)?);
        }
        one(layout::copy(tensor, &view, &view.shape, args.context)?)
    }
}

#[derive(Debug)]
struct Tile {
    repeats: IntegersSource,
}

fn tile(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    Ok(Box::new(Tile {
        repeats: IntegersSource::input(node, 1)?,
    }))
}

impl Operator for Tile {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let repeats = self.repeats.require(args, "repeats")?;
        let tensor = args.get(0)?;
        let found = tensor.shape();
        if repeats.len() != found.len() {
            return Err(OpError::Value(format!(
                "{} repeats for an input of shape {found:?}",
                repeats.len()
            )));
        }
        // Each axis becomes two: the repetition, which stays in place, and the axis itself.
        let mut view = View {
            shape: Shape::new(),
            strides: SmallVec::new(),
            start: 0,
        };
        let mut shape = Shape::new();
        for ((repeat, size), stride) in repeats.iter().zip(found).zip(layout::strides(found)) {
            let negative = |_| OpError::Value(format!("repeats {repeats:?} are negative"));
            let repeat = usize::try_from(*repeat).map_err(negative)?;
            view.shape.extend([repeat, *size]);
            view.strides.extend([0, stride]);
            shape.push(layout::count(&[repeat, *size])?);
        }
        one(layout::copy(tensor, &view, &shape, args.context)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::testing::run;
    use super::*;

    fn integers(values: &[i64]) -> Tensor {
        Tensor::vector::<i64>(values.to_vec())
    }

    #[test]
    fn no_rows_take_the_shape_that_one_row_would_have() {
        let empty = Tensor::new::<f32>(&[0, 6], Vec::new()).unwrap();
        let result = run("Reshape", Vec::new(), vec![empty, integers(&[0, -1, 2])]).unwrap();
        assert_eq!(result.shape(), [0, 3, 2]);
    }

    #[test]
    fn shapes_too_large_for_memory_are_refused() {
        let one = || Tensor::vector::<f32>(vec![1.0]);
        for sizes in [&[i64::MAX][..], &[1 << 40, 1 << 40], &[1 << 33]] {
            assert!(run("Expand", Vec::new(), vec![one(), integers(sizes)]).is_err());
        }
        assert!(run("Tile", Vec::new(), vec![one(), integers(&[i64::MAX])]).is_err());
        let long = Tensor::vector(vec![compact_str::CompactString::from("x".repeat(1 << 20))]);
        assert!(run("Expand", Vec::new(), vec![long, integers(&[1 << 20])]).is_err());
    }

    #[test]
    fn huge_sizes_of_empty_tensors_cost_nothing() {
        let huge = Tensor::new::<f32>(&[1 << 60, 0], Vec::new()).unwrap();
        let unchanged = [
            ("Transpose", Vec::new()),
            (
                "Unique",
                vec![super::super::layout::testing::int("axis", 1)],
            ),
            ("EyeLike", Vec::new()),
            ("Trilu", Vec::new()),
            ("NonZero", Vec::new()),
        ];
        for (operator, attributes) in unchanged {
            assert!(
                run(operator, attributes, vec![huge.clone()])
                    .unwrap()
                    .is_empty()
            );
        }
    }
}
