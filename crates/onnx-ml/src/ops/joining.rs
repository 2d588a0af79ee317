//! `Concat`, `Split` and `Pad`: tensors put together, taken apart and given a margin.

use smallvec::SmallVec;

use super::layout::{self, Integers, IntegersSource, View};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, axis, one};
use crate::tensor::{Data, DataType, Element, Shape, Tensor, with_data};

pub(crate) const OPERATORS: &[(&str, Build)] =
    &[("Concat", concat), ("Split", split), ("Pad", pad)];

/// No margin is wider: beyond it, sizes could not be added up.
const WIDEST_MARGIN: i64 = 1 << 40;

#[derive(Debug)]
pub(crate) struct Concat {
    axis: i64,
}

fn concat(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, usize::MAX)?;
    let axis = node.int("axis")?.ok_or("attribute `axis` is missing")?;
    Ok(Box::new(Concat { axis }))
}

impl Concat {
    /// Whether it puts matrices side by side.
    pub fn is_side_by_side(&self) -> bool {
        matches!(self.axis, 1 | -1)
    }
}

impl Operator for Concat {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        if args.len() == 1 {
            axis(self.axis, args.get(0)?.rank())?;
            return one(args.take(0)?);
        }
        let first = args.get(0)?;
        let place = axis(self.axis, first.rank())?;
        let mut shape = Shape::from_slice(first.shape());
        shape[place] = 0;
        let mut inputs: SmallVec<[&Tensor; 8]> = SmallVec::new();
        for index in 0..args.len() {
            let tensor = args.get(index)?;
            if tensor.data_type() != first.data_type() {
                let expected = first.data_type().name();
                return Err(OpError::data_type(index, tensor.data_type(), expected));
            }
            let fits = tensor.rank() == first.rank()
                && (0..first.rank())
                    .all(|other| other == place || tensor.shape()[other] == shape[other]);
            if fits {
                let size = shape[place].checked_add(tensor.shape()[place]);
                shape[place] = size.ok_or_else(|| "the result is too large".to_string())?;
            } else if !tensor.is_empty() || tensor.rank() != first.rank() {
                return Err(OpError::Value(format!(
                    "input {index} has shape {:?}, which does not fit {:?} along axis {place}",
                    tensor.shape(),
                    first.shape()
                )));
            }
            inputs.push(tensor);
        }
        // The same tensor may be there many times.
        let each = inputs.iter().map(|tensor| crate::graph::bytes(tensor));
        args.context.reserve_bytes(each.sum())?;
        let data = with_data!(first.data(), values => joined(&inputs, values, place));
        one(Tensor::from_data(&shape, data)?)
    }
}

/// The elements of all inputs; `first` are those of the first and give the type.
pub(super) fn joined<T: Element>(inputs: &[&Tensor], first: &[T], place: usize) -> Data {
    let total = inputs.iter().map(|tensor| tensor.len()).sum();
    let mut result: Vec<T> = Vec::with_capacity(total);
    // Where each input stands, and how many of its elements are next to each other.
    let mut parts: SmallVec<[(&[T], usize); 8]> = SmallVec::new();
    let mut blocks = 0;
    for (index, tensor) in inputs.iter().enumerate() {
        let values = if index == 0 {
            first
        } else {
            tensor.as_slice::<T>().unwrap_or_default()
        };
        // The sizes multiply to a number where there are elements.
        if !values.is_empty() {
            let block: usize = tensor.shape()[place..].iter().product();
            blocks = values.len() / block;
            parts.push((values, block));
        }
    }
    for number in 0..blocks {
        for (values, block) in &parts {
            result.extend_from_slice(&values[number * block..(number + 1) * block]);
        }
    }
    T::into_data(result)
}

#[derive(Debug)]
struct Split {
    axis: i64,
    sizes: IntegersSource,
    outputs: usize,
    /// The last part may be smaller.
    uneven: bool,
}

fn split(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(1, if node.version >= 13 { 2 } else { 1 })?;
    let sizes = IntegersSource::attribute_or_input(node, "split", 1, 13)?;
    let outputs = node.outputs();
    let mut uneven = false;
    if node.version >= 18
        && let Some(asked) = node.int("num_outputs")?
    {
        if !matches!(sizes, IntegersSource::Absent) {
            return Err("`num_outputs` and `split` are given both".to_string());
        }
        if usize::try_from(asked) != Ok(outputs) {
            return Err(format!(
                "`num_outputs` is {asked}, and there are {outputs} outputs"
            ));
        }
        uneven = true;
    }
    Ok(Box::new(Split {
        axis: node.int("axis")?.unwrap_or(0),
        sizes,
        outputs,
        uneven,
    }))
}

impl Split {
    fn sizes(&self, args: &Args<'_>, size: usize) -> Result<SmallVec<[usize; 4]>, OpError> {
        let mut sizes: SmallVec<[usize; 4]> = SmallVec::new();
        let asked: Integers = match self.sizes.get(args)? {
            Some(asked) => asked,
            None => {
                if !self.uneven && !size.is_multiple_of(self.outputs) {
                    return Err(OpError::Value(format!(
                        "size {size} cannot be split into {} equal parts",
                        self.outputs
                    )));
                }
                let part = size.div_ceil(self.outputs);
                let too_small = size > 0 && size < self.outputs;
                if too_small || part.saturating_mul(self.outputs - 1) > size {
                    return Err(OpError::Value(format!(
                        "size {size} is too small for {} parts of {part}",
                        self.outputs
                    )));
                }
                sizes.resize(self.outputs - 1, part);
                sizes.push(size - part * (self.outputs - 1));
                return Ok(sizes);
            }
        };
        let mut total = Some(0usize);
        for part in &asked {
            let part = usize::try_from(*part)
                .map_err(|_| OpError::Value(format!("split {asked:?} has a negative size")))?;
            total = total.and_then(|total| total.checked_add(part));
            sizes.push(part);
        }
        if sizes.len() != self.outputs || total != Some(size) {
            return Err(OpError::Value(format!(
                "split {asked:?} does not divide size {size} into {} parts",
                self.outputs
            )));
        }
        Ok(sizes)
    }
}

impl Operator for Split {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let place = axis(self.axis, tensor.rank())?;
        let sizes = self.sizes(args, tensor.shape()[place])?;
        let strides = layout::strides(tensor.shape());
        let mut outputs = Outputs::new();
        let mut start = 0usize;
        for size in sizes {
            let mut shape = Shape::from_slice(tensor.shape());
            shape[place] = size;
            let stride = usize::try_from(strides[place]).unwrap_or(0);
            let view = View {
                shape,
                strides: strides.clone(),
                start: start.saturating_mul(stride),
            };
            outputs.push(layout::copy(tensor, &view, &view.shape, args.context)?);
            start += size;
        }
        Ok(outputs)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Margin {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

#[derive(Debug)]
struct Pad {
    margin: Margin,
    pads: IntegersSource,
    axes: IntegersSource,
    /// The value of versions before 11.
    value: f32,
}

fn pad(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    let margin = match node.string("mode")?.unwrap_or("constant") {
        "constant" => Margin::Constant,
        "edge" => Margin::Edge,
        "reflect" => Margin::Reflect,
        "wrap" if node.version >= 19 => Margin::Wrap,
        other => return Err(format!("mode `{other}` is not known")),
    };
    let most = match node.version {
        18.. => 4,
        11.. => 3,
        _ => 1,
    };
    node.expect_inputs(if most == 1 { 1 } else { 2 }, most)?;
    let pads = IntegersSource::attribute_or_input(node, "pads", 1, 11)?;
    if matches!(pads, IntegersSource::Absent) {
        return Err("attribute `pads` is missing".to_string());
    }
    let value = if node.version < 11 {
        node.float("value")?.unwrap_or(0.0)
    } else {
        0.0
    };
    Ok(Box::new(Pad {
        margin,
        pads,
        axes: IntegersSource::input(node, 3)?,
        value,
    }))
}

impl Operator for Pad {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let pads = self.pads.require(args, "pads")?;
        let tensor = args.get(0)?;
        let found = tensor.shape();
        let axes = match self.axes.get(args)? {
            Some(axes) => axes,
            None => (0..found.len() as i64).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(OpError::Value(format!(
                "{} pads for {} axes, expected two each",
                pads.len(),
                axes.len()
            )));
        }
        let mut before: SmallVec<[i64; 4]> = SmallVec::from_elem(0, found.len());
        let mut after = before.clone();
        let mut given: SmallVec<[usize; 4]> = SmallVec::new();
        for (number, place) in axes.iter().enumerate() {
            let place = axis(*place, found.len())?;
            if given.contains(&place) {
                return Err(OpError::Value(format!("axis {place} is given twice")));
            }
            given.push(place);
            before[place] = pads[number];
            after[place] = pads[axes.len() + number];
            for pad in [before[place], after[place]] {
                if pad.checked_abs().is_none_or(|width| width > WIDEST_MARGIN) {
                    return Err(OpError::Value(format!(
                        "a pad is {pad}, expected at most {WIDEST_MARGIN}"
                    )));
                }
            }
        }
        let mut shape = Shape::new();
        for (place, size) in found.iter().enumerate() {
            let padded = i128::from(before[place]) + *size as i128 + i128::from(after[place]);
            let padded = usize::try_from(padded)
                .map_err(|_| OpError::Value(format!("pads {pads:?} do not fit shape {found:?}")))?;
            shape.push(padded);
        }
        let elements = layout::count(&shape)?;
        layout::reserve_copies(args.context, tensor.data(), elements)?;
        let scratch = shape
            .iter()
            .fold(0usize, |sum, size| sum.saturating_add(*size));
        if elements > 0 {
            args.context.reserve(scratch, DataType::I64)?;
        } else {
            return one(Tensor::zeros(tensor.data_type(), &shape)?);
        }
        let mut maps: SmallVec<[Vec<Option<usize>>; 4]> = SmallVec::new();
        for (place, size) in found.iter().enumerate() {
            maps.push(source_places(
                self.margin,
                *size,
                before[place],
                after[place],
            )?);
        }
        let value = args.optional(2);
        if let Some(value) = value {
            if value.data_type() != tensor.data_type() {
                let expected = tensor.data_type().name();
                return Err(OpError::data_type(2, value.data_type(), expected));
            }
            layout::reserve_copies(args.context, value.data(), elements)?;
        }
        let data = match (tensor.data(), value) {
            (Data::F32(values), None) => f32::into_data(padded(values, &maps, found, self.value)),
            (Data::F64(values), None) => {
                f64::into_data(padded(values, &maps, found, f64::from(self.value)))
            }
            (data, value) => with_data!(data, values => {
                let fill = value.and_then(|v| v.as_slice()).and_then(|v| v.first());
                Element::into_data(padded(values, &maps, found, fill.cloned().unwrap_or_default()))
            }),
        };
        one(Tensor::from_data(&shape, data)?)
    }
}

/// For each place of a padded axis the place in the input, or none for the constant. Negative pads
/// cut off first; the margin is made of what is left.
fn source_places(
    margin: Margin,
    size: usize,
    before: i64,
    after: i64,
) -> Result<Vec<Option<usize>>, OpError> {
    let size = size as i64;
    let cut_before = before.min(0).unsigned_abs() as i64;
    let left = size - cut_before + after.min(0);
    let padded = before + size + after;
    if left <= 0 && margin != Margin::Constant && padded > 0 {
        return Err(OpError::Value("nothing is left to make a margin of".into()));
    }
    if margin == Margin::Reflect && before.max(after) >= left {
        return Err(OpError::Value(format!(
            "a margin of {} cannot reflect an axis of size {left}",
            before.max(after)
        )));
    }
    let mut places = Vec::with_capacity(padded.max(0) as usize);
    for place in 0..padded {
        let inside = place - before.max(0);
        let source = match margin {
            Margin::Constant => (0..left).contains(&inside).then_some(inside),
            Margin::Edge => Some(inside.clamp(0, left - 1)),
            Margin::Wrap => Some(inside.rem_euclid(left)),
            Margin::Reflect if inside < 0 => Some(-inside),
            Margin::Reflect if inside >= left => Some(2 * (left - 1) - inside),
            Margin::Reflect => Some(inside),
        };
        places.push(source.and_then(|source| usize::try_from(source + cut_before).ok()));
    }
    Ok(places)
}

fn padded<T: Clone>(values: &[T], maps: &[Vec<Option<usize>>], shape: &[usize], fill: T) -> Vec<T> {
    let elements = maps.iter().map(Vec::len).product();
    let mut result = Vec::with_capacity(elements);
    let Some((inner, outer)) = maps.split_last() else {
        result.extend_from_slice(values);
        return result;
    };
    let strides = layout::strides(shape);
    let mut place: SmallVec<[usize; 4]> = SmallVec::from_elem(0, outer.len());
    loop {
        // Where the row of the input starts, unless the row is margin all through.
        let mut row = Some(0usize);
        for ((map, place), stride) in outer.iter().zip(&place).zip(&strides) {
            let step = map[*place].map(|source| source * *stride as usize);
            row = row.zip(step).map(|(row, step)| row + step);
        }
        for source in inner {
            let value = row.zip(*source).map(|(row, source)| &values[row + source]);
            result.push(value.unwrap_or(&fill).clone());
        }
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return result;
            }
            axis -= 1;
            place[axis] += 1;
            if place[axis] < outer[axis].len() {
                break;
            }
            place[axis] = 0;
        }
    }
}
