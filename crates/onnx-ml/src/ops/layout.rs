//! What operators that move elements share: sizes of shapes, integers that are an attribute in one
//! version and an input in the next, and copying elements along strides.

use smallvec::SmallVec;

use crate::node::Node;
use crate::operator::{Args, Context, OpError};
use crate::tensor::{Data, Element, Shape, Tensor, with_data};

/// Axes, sizes or indices of one node.
pub(super) type Integers = SmallVec<[i64; 4]>;

/// Integers that a node keeps for itself.
const MOST_FIXED: usize = 64;

/// Integers that the file fixes, or that come with each run.
#[derive(Debug)]
pub(super) enum IntegersSource {
    Absent,
    Fixed(Integers),
    Input(usize),
}

impl IntegersSource {
    /// An optional input; read now if the file fixes it.
    pub fn input(node: &Node<'_>, index: usize) -> Result<IntegersSource, String> {
        if !node.has_input(index) {
            return Ok(IntegersSource::Absent);
        }
        // A long list (indices, not axes or sizes) stays where it is: many nodes may share it.
        match node.constant(index).filter(|list| list.len() <= MOST_FIXED) {
            Some(tensor) => match integers(tensor) {
                Some(values) => Ok(IntegersSource::Fixed(values)),
                None => Err(format!(
                    "input {index} has element type {}, expected int64 or int32",
                    tensor.data_type()
                )),
            },
            None => Ok(IntegersSource::Input(index)),
        }
    }

    /// An attribute before version `since`, an input from then on.
    pub fn attribute_or_input(
        node: &Node<'_>,
        attribute: &str,
        index: usize,
        since: i64,
    ) -> Result<IntegersSource, String> {
        if node.version >= since {
            return IntegersSource::input(node, index);
        }
        Ok(match node.ints(attribute)? {
            Some(values) => IntegersSource::Fixed(Integers::from_slice(values)),
            None => IntegersSource::Absent,
        })
    }

    /// The integers, if the file fixes them.
    pub fn fixed(&self) -> Option<&[i64]> {
        match self {
            IntegersSource::Fixed(values) => Some(values),
            _ => None,
        }
    }

    /// The integers for this run; `None` when the node leaves them out.
    pub fn get(&self, args: &Args<'_>) -> Result<Option<Integers>, OpError> {
        match self {
            IntegersSource::Absent => Ok(None),
            IntegersSource::Fixed(values) => Ok(Some(values.clone())),
            IntegersSource::Input(index) => {
                let tensor = args.get(*index)?;
                let expected = "int64 or int32";
                let values = integers(tensor);
                values
                    .ok_or_else(|| OpError::data_type(*index, tensor.data_type(), expected))
                    .map(Some)
            }
        }
    }

    /// As [`IntegersSource::get`], where they must be there.
    pub fn require(&self, args: &Args<'_>, what: &str) -> Result<Integers, OpError> {
        let found = self.get(args)?;
        found.ok_or_else(|| OpError::Type(format!("`{what}` is missing")))
    }
}

fn integers(tensor: &Tensor) -> Option<Integers> {
    if let Some(values) = tensor.as_slice::<i64>() {
        return Some(Integers::from_slice(values));
    }
    let values = tensor.as_slice::<i32>()?;
    Some(values.iter().copied().map(i64::from).collect())
}

/// The number of elements of a shape.
pub(super) fn count(shape: &[usize]) -> Result<usize, OpError> {
    let product = shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size));
    match product {
        Some(product) => Ok(product),
        // A shape with a zero anywhere has no elements, however large the rest.
        None if shape.contains(&0) => Ok(0),
        None => Err(OpError::Value(format!(
            "the result's shape {shape:?} has too many elements"
        ))),
    }
}

/// Refuses a result of `elements` copies of elements of `source` that would be too large, long
/// texts included.
pub(super) fn reserve_copies(
    context: &Context<'_>,
    source: &Data,
    elements: usize,
) -> Result<(), OpError> {
    let mut each = source.data_type().size() as u64;
    if let Data::String(texts) = source
        && elements > 0
    {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0) as u64;
        // Short texts need no memory of their own.
        if longest > each {
            each += longest;
        }
    }
    context.reserve_bytes((elements as u64).saturating_mul(each))
}

/// Which element of the source stands at each place of the result: the place times the strides,
/// from `start` on. Strides may be zero (the same element again) and negative (backwards).
#[derive(Debug)]
pub(super) struct View {
    pub shape: Shape,
    pub strides: SmallVec<[isize; 4]>,
    pub start: usize,
}

/// The strides of a tensor in row-major order.
pub(super) fn strides(shape: &[usize]) -> SmallVec<[isize; 4]> {
    let mut strides: SmallVec<[isize; 4]> = SmallVec::from_elem(0, shape.len());
    let mut step = 1usize;
    for (stride, size) in strides.iter_mut().zip(shape).rev() {
        *stride = isize::try_from(step).unwrap_or(isize::MAX);
        // Only a tensor without elements can overflow here, and nothing is read from it.
        step = step.saturating_mul(*size);
    }
    strides
}

/// The elements of the view, as a tensor of its shape (or another of the same number of elements).
pub(super) fn copy(
    source: &Tensor,
    view: &View,
    shape: &[usize],
    context: &Context<'_>,
) -> Result<Tensor, OpError> {
    let elements = count(&view.shape)?;
    if elements > source.len() {
        reserve_copies(context, source.data(), elements)?;
    }
    let data = with_data!(source.data(), values => {
        Element::into_data(copy_elements(values, view, elements))
    });
    Ok(Tensor::from_data(shape, data)?)
}

fn copy_elements<T: Clone>(source: &[T], view: &View, elements: usize) -> Vec<T> {
    let mut result = Vec::with_capacity(elements);
    if elements == 0 {
        return result;
    }
    let (mut sizes, mut strides) = merge_axes(view);
    let (Some(inner), Some(inner_stride)) = (sizes.pop(), strides.pop()) else {
        result.push(source[view.start].clone());
        return result;
    };
    let mut place: SmallVec<[usize; 4]> = SmallVec::from_elem(0, sizes.len());
    let mut at = view.start as isize;
    loop {
        let first = at as usize;
        match inner_stride {
            1 => result.extend_from_slice(&source[first..first + inner]),
            0 => result.resize(result.len() + inner, source[first].clone()),
            step => {
                for number in 0..inner as isize {
                    result.push(source[(at + number * step) as usize].clone());
                }
            }
        }
        let mut axis = sizes.len();
        loop {
            if axis == 0 {
                return result;
            }
            axis -= 1;
            place[axis] += 1;
            at += strides[axis];
            if place[axis] < sizes[axis] {
                break;
            }
            at -= strides[axis] * sizes[axis] as isize;
            place[axis] = 0;
        }
    }
}

/// Sizes and strides without axes of size 1, and with axes that run on from each other joined, so
/// that the innermost loop is as long as it can be.
fn merge_axes(view: &View) -> (Shape, SmallVec<[isize; 4]>) {
    let mut sizes = Shape::new();
    let mut strides: SmallVec<[isize; 4]> = SmallVec::new();
    for (size, stride) in view.shape.iter().zip(&view.strides) {
        if *size == 1 {
            continue;
        }
        if let (Some(outer), Some(outer_stride)) = (sizes.last_mut(), strides.last_mut())
            && *outer_stride == *stride * *size as isize
        {
            *outer *= *size;
            *outer_stride = *stride;
        } else {
            sizes.push(*size);
            strides.push(*stride);
        }
    }
    (sizes, strides)
}

/// The place that `index` means on an axis of `size`, counted from the end when negative.
pub(super) fn place(index: i64, size: usize) -> Result<usize, OpError> {
    let from_start = if index < 0 {
        index.saturating_add(i64::try_from(size).unwrap_or(i64::MAX))
    } else {
        index
    };
    match usize::try_from(from_start) {
        Ok(place) if place < size => Ok(place),
        _ => Err(OpError::Value(format!(
            "index {index} is outside an axis of size {size}"
        ))),
    }
}

/// The blocks of `block` elements that start at `starts`, one after another.
pub(super) fn copy_blocks(
    source: &Tensor,
    starts: &[usize],
    block: usize,
    shape: &[usize],
    context: &Context<'_>,
) -> Result<Tensor, OpError> {
    let elements = count(shape)?;
    if elements > source.len() {
        context.reserve(elements, source.data_type())?;
    }
    if let Data::String(texts) = source.data() {
        let mut long_texts = elements.saturating_mul(source.data_type().size()) as u64;
        for start in starts {
            for text in &texts[*start..*start + block] {
                if text.is_heap_allocated() {
                    long_texts = long_texts.saturating_add(text.len() as u64);
                }
            }
        }
        context.reserve_bytes(long_texts)?;
    }
    let data = with_data!(source.data(), values => {
        Element::into_data(blocks(values, starts, block, elements))
    });
    Ok(Tensor::from_data(shape, data)?)
}

fn blocks<T: Clone>(values: &[T], starts: &[usize], block: usize, elements: usize) -> Vec<T> {
    let mut result = Vec::with_capacity(elements);
    if block == 1 {
        result.extend(starts.iter().map(|start| values[*start].clone()));
        return result;
    }
    for start in starts {
        result.extend_from_slice(&values[*start..*start + block]);
    }
    result
}

/// Models of one node, for the tests of operators.
#[cfg(test)]
pub(super) mod testing {
    use prost::Message;

    use crate::limits::Limits;
    use crate::model::Model;
    use crate::proto::*;
    use crate::tensor::{DataType, Tensor};

    pub fn int(name: &str, i: i64) -> AttributeProto {
        AttributeProto {
            name: name.to_string(),
            i,
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        }
    }

    pub fn value(name: &str, data_type: DataType) -> ValueInfoProto {
        let tensor = TensorType {
            elem_type: data_type as i32,
            shape: None,
        };
        ValueInfoProto {
            name: name.to_string(),
            r#type: Some(TypeProto {
                value: Some(TypeValue::Tensor(tensor)),
            }),
        }
    }

    pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: outputs.iter().map(|name| name.to_string()).collect(),
            op_type: operator.to_string(),
            ..NodeProto::default()
        }
    }

    /// Loads and runs a graph of version 18 whose inputs are `a`, `b`, …, and gives the message of
    /// what is refused.
    pub fn run_graph(
        nodes: Vec<NodeProto>,
        outputs: &[&str],
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, String> {
        let names = ["a", "b", "c", "d", "e"];
        let infos = names.iter().zip(&inputs);
        let graph = GraphProto {
            node: nodes,
            input: infos.map(|(n, t)| value(n, t.data_type())).collect(),
            output: outputs.iter().map(|n| value(n, DataType::F32)).collect(),
            ..GraphProto::default()
        };
        let model = ModelProto {
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 18,
            }],
            ..ModelProto::default()
        };
        let limits = Limits {
            run_bytes: 64 << 20,
            tensor_bytes: 64 << 20,
            ..Limits::default()
        };
        let model = Model::from_bytes_with(&model.encode_to_vec(), &limits);
        let model = model.map_err(|e| e.to_string())?;
        model.run(inputs).map_err(|e| e.to_string())
    }

    /// As [`run_graph`], of one node with one output.
    pub fn run(
        operator: &str,
        attributes: Vec<AttributeProto>,
        inputs: Vec<Tensor>,
    ) -> Result<Tensor, String> {
        let names = ["a", "b", "c", "d", "e"];
        let mut node = node(operator, &names[..inputs.len()], &["out"]);
        node.attribute = attributes;
        let mut outputs = run_graph(vec![node], &["out"], inputs)?;
        Ok(outputs.remove(0))
    }
}
