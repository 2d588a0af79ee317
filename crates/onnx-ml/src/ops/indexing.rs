//! Operators that pick elements by their place: `Gather` and its relatives, `Slice`, `Compress`.
//!
//! Indices may be negative (counted from the end); one outside its axis is an error.

use smallvec::SmallVec;

use super::layout::{self, IntegersSource, View};
use crate::node::Node;
use crate::operator::{Args, Build, OpError, Operator, Outputs, axis, one};
use crate::tensor::{DataType, Shape, Tensor};

pub(crate) const OPERATORS: &[(&str, Build)] = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("Slice", slice),
    ("Compress", compress),
];

/// Starts of the blocks to copy; few for a single row.
type Starts = SmallVec<[usize; 16]>;

/// The product of sizes of a tensor that is there, or of a part of them.
fn product(sizes: &[usize]) -> usize {
    let all = sizes.iter();
    all.fold(1usize, |product, size| product.saturating_mul(*size))
}

#[derive(Debug)]
struct Gather {
    axis: i64,
}

fn gather(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let axis = node.int("axis")?.unwrap_or(0);
    Ok(Box::new(Gather { axis }))
}

impl Operator for Gather {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let found = tensor.shape();
        let place = axis(self.axis, found.len())?;
        let indices = args.integers(1)?;
        let mut shape = Shape::from_slice(&found[..place]);
        shape.extend_from_slice(args.get(1)?.shape());
        shape.extend_from_slice(&found[place + 1..]);
        let outer = product(&found[..place]);
        let block = product(&found[place + 1..]);
        if layout::count(&shape)? == 0 {
            for index in indices {
                layout::place(index, found[place])?;
            }
            return one(Tensor::zeros(tensor.data_type(), &shape)?);
        }
        let blocks = outer.saturating_mul(indices.len());
        args.context.reserve(blocks, DataType::I64)?;
        let mut starts = Starts::with_capacity(blocks);
        for index in indices {
            starts.push(layout::place(index, found[place])? * block);
        }
        let picked = starts.len();
        for number in 1..outer {
            let base = number * found[place] * block;
            for index in 0..picked {
                starts.push(base + starts[index]);
            }
        }
        one(layout::copy_blocks(
            tensor,
            &starts,
            block,
            &shape,
            args.context,
        )?)
    }
}

#[derive(Debug)]
struct GatherElements {
    axis: i64,
}

fn gather_elements(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let axis = node.int("axis")?.unwrap_or(0);
    Ok(Box::new(GatherElements { axis }))
}

impl Operator for GatherElements {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let place = axis(self.axis, tensor.rank())?;
        let indices = args.integers(1)?;
        let shape = args.get(1)?.shape();
        let starts = element_places(tensor.shape(), place, shape, &indices)?;
        one(layout::copy_blocks(
            tensor,
            &starts,
            1,
            shape,
            args.context,
        )?)
    }
}

/// Where in a tensor of shape `found` the element at each place of `indices` is: the same place,
/// with the index instead along `axis`.
pub(super) fn element_places(
    found: &[usize],
    axis: usize,
    shape: &[usize],
    indices: &[i64],
) -> Result<Vec<usize>, OpError> {
    let fits = shape.len() == found.len()
        && (0..shape.len()).all(|other| other == axis || shape[other] <= found[other]);
    if !fits {
        return Err(OpError::Value(format!(
            "indices of shape {shape:?} do not fit data of shape {found:?} along axis {axis}"
        )));
    }
    let strides = layout::strides(found);
    let mut place: SmallVec<[usize; 4]> = SmallVec::from_elem(0, shape.len());
    let mut places = Vec::with_capacity(indices.len());
    for index in indices {
        let mut start = 0;
        for (number, (place, stride)) in place.iter().zip(&strides).enumerate() {
            let along = if number == axis {
                layout::place(*index, found[axis])?
            } else {
                *place
            };
            start += along * *stride as usize;
        }
        places.push(start);
        for (place, size) in place.iter_mut().zip(shape).rev() {
            *place += 1;
            if *place < *size {
                break;
            }
            *place = 0;
        }
    }
    Ok(places)
}

#[derive(Debug)]
struct GatherNd {
    batch_dims: usize,
}

fn gather_nd(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let batch_dims = match node.version {
        12.. => node.int("batch_dims")?.unwrap_or(0),
        _ => 0,
    };
    let batch_dims = usize::try_from(batch_dims)
        .map_err(|_| format!("`batch_dims` is {batch_dims}, expected 0 or more"))?;
    Ok(Box::new(GatherNd { batch_dims }))
}

impl Operator for GatherNd {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let found = tensor.shape();
        let indices = args.integers(1)?;
        let index_shape = args.get(1)?.shape();
        let batch = self.batch_dims;
        let misfit = || {
            OpError::Value(format!(
                "indices of shape {index_shape:?} do not fit data of shape {found:?} with {batch} \
                 batch dimensions"
            ))
        };
        let Some((depth, outer)) = index_shape.split_last() else {
            return Err(misfit());
        };
        if batch > outer.len() || batch > found.len() || outer[..batch] != found[..batch] {
            return Err(misfit());
        }
        let indexed = batch.checked_add(*depth).filter(|end| *end <= found.len());
        let indexed = indexed.ok_or_else(misfit)?;
        let mut shape = Shape::from_slice(outer);
        shape.extend_from_slice(&found[indexed..]);
        let elements = layout::count(&shape)?;
        let tuples = product(outer);
        if elements == 0 && (tuples == 0 || *depth == 0) {
            return one(Tensor::zeros(tensor.data_type(), &shape)?);
        }
        args.context.reserve(tuples, DataType::I64)?;
        let starts = tuple_places(found, batch, *depth, tuples, &indices)?;
        let block = product(&found[indexed..]);
        if elements == 0 {
            return one(Tensor::zeros(tensor.data_type(), &shape)?);
        }
        one(layout::copy_blocks(
            tensor,
            &starts,
            block,
            &shape,
            args.context,
        )?)
    }
}

/// Where the block that each tuple of `depth` indices points at starts. The tuples are divided
/// evenly among the entries of the first `batch` axes.
pub(super) fn tuple_places(
    found: &[usize],
    batch: usize,
    depth: usize,
    tuples: usize,
    indices: &[i64],
) -> Result<Vec<usize>, OpError> {
    let strides = layout::strides(found);
    let per_entry = tuples / product(&found[..batch]).max(1);
    let entry_size = product(&found[batch..]);
    let mut starts = Vec::with_capacity(tuples);
    for number in 0..tuples {
        let mut start = number / per_entry.max(1) * entry_size;
        for (offset, index) in indices[number * depth..(number + 1) * depth]
            .iter()
            .enumerate()
        {
            let place = layout::place(*index, found[batch + offset])?;
            start += place * strides[batch + offset] as usize;
        }
        starts.push(start);
    }
    Ok(starts)
}

#[derive(Debug)]
struct Slice {
    starts: IntegersSource,
    ends: IntegersSource,
    axes: IntegersSource,
    steps: IntegersSource,
}

fn slice(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    if node.version < 10 {
        node.expect_inputs(1, 1)?;
    } else {
        node.expect_inputs(3, 5)?;
    }
    let steps = match node.version {
        10.. => IntegersSource::input(node, 4)?,
        _ => IntegersSource::Absent,
    };
    let slice = Slice {
        starts: IntegersSource::attribute_or_input(node, "starts", 1, 10)?,
        ends: IntegersSource::attribute_or_input(node, "ends", 2, 10)?,
        axes: IntegersSource::attribute_or_input(node, "axes", 3, 10)?,
        steps,
    };
    for (name, source) in [("starts", &slice.starts), ("ends", &slice.ends)] {
        if matches!(source, IntegersSource::Absent) {
            return Err(format!("attribute `{name}` is missing"));
        }
    }
    Ok(Box::new(slice))
}

impl Operator for Slice {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let starts = self.starts.require(args, "starts")?;
        let ends = self.ends.require(args, "ends")?;
        let axes = self.axes.get(args)?;
        let steps = self.steps.get(args)?;
        let axes_found = axes.as_ref().map_or(starts.len(), |axes| axes.len());
        let steps_found = steps.as_ref().map_or(starts.len(), |steps| steps.len());
        if ends.len() != starts.len() || axes_found != starts.len() || steps_found != starts.len() {
            return Err(OpError::Value(format!(
                "{} starts, {} ends, {axes_found} axes and {steps_found} steps are not as many \
                 of each",
                starts.len(),
                ends.len()
            )));
        }
        let tensor = args.get(0)?;
        let mut view = View {
            shape: Shape::from_slice(tensor.shape()),
            strides: layout::strides(tensor.shape()),
            start: 0,
        };
        let mut given: SmallVec<[usize; 4]> = SmallVec::new();
        for number in 0..starts.len() {
            let along = axes.as_ref().map_or(number as i64, |axes| axes[number]);
            let place = axis(along, tensor.rank())?;
            if given.contains(&place) {
                return Err(OpError::Value(format!("axis {place} is given twice")));
            }
            given.push(place);
            let step = steps.as_ref().map_or(1, |steps| steps[number]);
            let (first, size) = sliced(starts[number], ends[number], step, tensor.shape()[place])?;
            view.start = view
                .start
                .saturating_add(first.saturating_mul(view.strides[place].unsigned_abs()));
            let step = isize::try_from(step).unwrap_or(isize::MAX);
            view.strides[place] = view.strides[place].saturating_mul(step);
            view.shape[place] = size;
        }
        if view.shape.as_slice() == tensor.shape() && steps.is_none_or(|s| s.iter().all(|s| *s > 0))
        {
            return one(args.take(0)?);
        }
        one(layout::copy(tensor, &view, &view.shape, args.context)?)
    }
}

/// The first place of a slice, and how many places it has.
fn sliced(start: i64, end: i64, step: i64, size: usize) -> Result<(usize, usize), OpError> {
    if step == 0 {
        return Err(OpError::Value("a step is 0".to_string()));
    }
    let length = i64::try_from(size).unwrap_or(i64::MAX);
    // Backwards slices start at the last place at most, and end before the first at least.
    let (least, most) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let from_start = |place: i64| {
        if place < 0 {
            place.saturating_add(length)
        } else {
            place
        }
    };
    let first = from_start(start).clamp(least.max(0).min(most), most);
    // The largest number stands for "all the way" in both directions, as onnxruntime has it.
    let all_the_way = end == i64::MAX || end == i64::from(i32::MAX);
    let last = if step < 0 && all_the_way {
        least
    } else {
        from_start(end).clamp(least, most)
    };
    let distance = if step > 0 { last - first } else { first - last };
    if distance <= 0 || size == 0 {
        return Ok((0, 0));
    }
    let places = (distance as u64).div_ceil(step.unsigned_abs());
    Ok((first as usize, places as usize))
}

#[derive(Debug)]
struct Compress {
    axis: Option<i64>,
}

fn compress(node: &Node<'_>) -> Result<Box<dyn Operator>, String> {
    node.expect_inputs(2, 2)?;
    let axis = node.int("axis")?;
    Ok(Box::new(Compress { axis }))
}

impl Operator for Compress {
    fn run(&self, args: &mut Args<'_>) -> Result<Outputs, OpError> {
        let tensor = args.get(0)?;
        let kept = args.slice::<bool>(1)?;
        let found = tensor.shape();
        let (outer, size, block) = match self.axis {
            Some(place) => {
                let place = axis(place, found.len())?;
                let (outer, inner) = (&found[..place], &found[place + 1..]);
                (product(outer), found[place], product(inner))
            }
            None => (1, tensor.len(), 1),
        };
        let mut places = Starts::new();
        for (place, kept) in kept.iter().take(size).enumerate() {
            if *kept {
                places.push(place);
            }
        }
        let shape = match self.axis {
            Some(place) => {
                let mut shape = Shape::from_slice(found);
                shape[axis(place, found.len())?] = places.len();
                shape
            }
            None => Shape::from_slice(&[places.len()]),
        };
        if layout::count(&shape)? == 0 {
            return one(Tensor::zeros(tensor.data_type(), &shape)?);
        }
        let mut starts = Starts::with_capacity(outer.saturating_mul(places.len()));
        for number in 0..outer {
            for place in &places {
                starts.push((number * size + place) * block);
            }
        }
        one(layout::copy_blocks(
            tensor,
            &starts,
            block,
            &shape,
            args.context,
        )?)
    }
}
