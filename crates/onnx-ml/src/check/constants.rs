//! Bounds what would be computed at load time.
//!
//! An operator whose inputs are all constants is computed while the graph is analysed. Constants of
//! a few kilobytes can be broadcast, multiplied or concatenated with themselves into terabytes, so
//! each constant's size is followed through the graph, from above, before that happens. Shapes count
//! as constants: they become so during the analysis.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

use super::{node_error, tensors};
use crate::error::LoadError;
use crate::limits::Limits;
use crate::operators::{Growth, growth};

/// An upper bound of what one element takes: tract's symbolic dimensions are the largest.
const ELEMENT_BYTES: u64 = 32;

/// Most elements that a shape has; more dimensions than this are refused elsewhere.
const SHAPE_ELEMENTS: u64 = 16;

/// Operators bounded by their input that also change its shape, so that only the number of elements
/// is known of their output.
const RESHAPING: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "Flatten",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "TopK",
    "Transpose",
    "Unsqueeze",
];

/// Operators that hand integers on without making new ones, as in arithmetic on shapes.
const HANDING_ON: &[&str] = &[
    "Cast",
    "Concat",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Constants of more elements than this are not read as sizes.
const MOST_SIZES: u64 = 1024;

/// What is known of a constant.
#[derive(Clone)]
struct Size {
    elements: u64,
    shape: Option<Vec<u64>>,
    /// An upper bound of the values, of small integer constants.
    largest: Option<u64>,
}

/// Verifies that the constants computed while loading stay within `limits.tensor_bytes` together.
pub(super) fn constants(graph: &GraphProto, limits: &Limits) -> Result<(), LoadError> {
    let mut sizes: HashMap<&str, Size> = HashMap::new();
    for initializer in &graph.initializer {
        sizes.insert(&initializer.name, size_of(initializer));
    }
    let mut total_bytes = 0u64;
    for node in &graph.node {
        let Some(kind) = growth(&node.domain, &node.op_type) else {
            continue;
        };
        sizes_fit(node, kind, &sizes).map_err(|reason| node_error(node, reason))?;
        let names = node.input.iter().filter(|name| !name.is_empty());
        let inputs: Option<Vec<&Size>> = names.map(|name| sizes.get(name.as_str())).collect();
        let size = match (kind, inputs) {
            (Growth::Shape, inputs) => {
                shape_size(node, inputs.and_then(|sizes| sizes.first().copied()))
            }
            (Growth::Attribute, _) => match node.attribute.iter().find_map(|a| a.t.as_ref()) {
                Some(tensor) => size_of(tensor),
                None => attribute_size(node),
            },
            // An input is not constant, so nothing is computed while loading.
            (_, None) => continue,
            (_, Some(inputs)) => {
                // This many times as large as its data, for operators whose size is a value.
                let multiple = match kind {
                    Growth::Values => {
                        multiple(node, &sizes).map_err(|reason| node_error(node, reason))?
                    }
                    _ => 1,
                };
                output_size(node, kind, &inputs, multiple)
            }
        };
        if kind != Growth::Attribute {
            let outputs = node.output.len().max(1) as u64;
            let bytes = size
                .elements
                .saturating_mul(ELEMENT_BYTES)
                .saturating_mul(outputs);
            total_bytes = total_bytes.saturating_add(bytes);
            if total_bytes > limits.tensor_bytes {
                return Err(node_error(
                    node,
                    format!(
                        "computing its constant output of up to {} elements takes the constants of \
                         the graph over {} bytes",
                        size.elements, limits.tensor_bytes
                    ),
                ));
            }
        }
        for output in &node.output {
            sizes.insert(output, size.clone());
        }
    }
    Ok(())
}

/// Verifies that a constant which says a size fits 32 bits: tract would cut it off silently.
fn sizes_fit(node: &NodeProto, kind: Growth, sizes: &HashMap<&str, Size>) -> Result<(), String> {
    if kind != Growth::Values && node.op_type != "Reshape" {
        return Ok(());
    }
    let name = node
        .input
        .get(size_input(node))
        .map(String::as_str)
        .unwrap_or_default();
    match sizes.get(name).and_then(|size| size.largest) {
        Some(largest) if i32::try_from(largest).is_err() => Err(format!(
            "`{name}` asks for a size of {largest}, at most {} is supported",
            i32::MAX
        )),
        _ => Ok(()),
    }
}

/// Which input says the size of the output.
fn size_input(node: &NodeProto) -> usize {
    if node.op_type == "ConstantOfShape" {
        0
    } else {
        1
    }
}

/// The output of `Shape` or `Size`, of a constant when one is given.
fn shape_size(node: &NodeProto, input: Option<&Size>) -> Size {
    let largest = input.and_then(|input| match &input.shape {
        Some(shape) if node.op_type == "Shape" => Some(shape.iter().copied().max().unwrap_or(0)),
        Some(_) => Some(input.elements),
        None => None,
    });
    let rank = input
        .and_then(|input| input.shape.as_ref())
        .map(|shape| shape.len() as u64);
    Size {
        elements: rank.unwrap_or(SHAPE_ELEMENTS),
        shape: None,
        largest,
    }
}

fn output_size(node: &NodeProto, kind: Growth, inputs: &[&Size], multiple: u64) -> Size {
    let most = inputs.iter().map(|size| size.elements).max().unwrap_or(0);
    let product = || {
        inputs.iter().fold(1u64, |product, size| {
            product.saturating_mul(size.elements.max(1))
        })
    };
    let (elements, shape) = match kind {
        Growth::NoMore => {
            let keeps_shape = !RESHAPING.contains(&node.op_type.as_str());
            let shape = inputs.first().and_then(|size| size.shape.clone());
            (most, if keeps_shape { shape } else { None })
        }
        Growth::Sum => (
            inputs
                .iter()
                .fold(0u64, |sum, size| sum.saturating_add(size.elements)),
            None,
        ),
        Growth::Broadcast => match broadcast(inputs) {
            Some(shape) => {
                let elements = shape
                    .iter()
                    .fold(1u64, |product, dim| product.saturating_mul(*dim));
                (elements, Some(shape))
            }
            None => (product(), None),
        },
        Growth::Values => (product().saturating_mul(multiple), None),
        Growth::Product | Growth::Shape | Growth::Attribute => {
            (product().saturating_mul(longest_attribute(node)), None)
        }
    };
    let hands_on = HANDING_ON.contains(&node.op_type.as_str());
    let data_inputs = if kind == Growth::Sum {
        inputs
    } else {
        &inputs[..inputs.len().min(1)]
    };
    let mut largest = if hands_on && elements <= MOST_SIZES {
        Some(0)
    } else {
        None
    };
    for input in data_inputs {
        largest = match (largest, input.largest) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
    }
    Size {
        elements,
        shape,
        largest,
    }
}

/// The common shape of the inputs when all are known.
fn broadcast(inputs: &[&Size]) -> Option<Vec<u64>> {
    let mut common: Vec<u64> = Vec::new();
    for input in inputs {
        let shape = input.shape.as_ref()?;
        while common.len() < shape.len() {
            common.insert(0, 1);
        }
        let offset = common.len() - shape.len();
        for (dim, size) in common[offset..].iter_mut().zip(shape) {
            *dim = (*dim).max(*size);
        }
    }
    Some(common)
}

/// How many times as large as its data an operator's output is, from above, when a value says so.
/// The value must follow from constants of the file: the output is computed while loading, so it has
/// to be bounded before. (Where the data is not constant, nothing is computed while loading, and
/// `memory` bounds the output.)
fn multiple(node: &NodeProto, sizes: &HashMap<&str, Size>) -> Result<u64, String> {
    let place = if node.op_type == "ConstantOfShape" {
        0
    } else {
        1
    };
    let name = node
        .input
        .get(place)
        .map(String::as_str)
        .unwrap_or_default();
    // Before version 11 the pads were an attribute.
    let pads = node
        .attribute
        .iter()
        .find(|attribute| attribute.name == "pads");
    let (count, largest) = match (sizes.get(name), pads) {
        (
            Some(Size {
                elements,
                largest: Some(largest),
                ..
            }),
            _,
        ) => (*elements, *largest),
        (None, Some(pads)) if node.op_type == "Pad" => {
            let largest = pads
                .ints
                .iter()
                .map(|pad| pad.unsigned_abs())
                .max()
                .unwrap_or(0);
            (pads.ints.len() as u64, largest)
        }
        _ => {
            return Err(format!(
                "its input {place}, which says how large its output is, does not follow from \
                 constants of the file"
            ));
        }
    };
    let factor = if node.op_type == "Pad" {
        largest.saturating_add(1)
    } else {
        largest.max(1)
    };
    Ok(factor.saturating_pow(u32::try_from(count).unwrap_or(u32::MAX)))
}

fn longest_attribute(node: &NodeProto) -> u64 {
    let mut longest = 1;
    for attribute in &node.attribute {
        let length = attribute
            .floats
            .len()
            .max(attribute.ints.len())
            .max(attribute.strings.len());
        longest = longest.max(length as u64);
    }
    longest
}

/// A `Constant` given as numbers or text in an attribute.
fn attribute_size(node: &NodeProto) -> Size {
    let elements = longest_attribute(node);
    let mut largest = None;
    for attribute in &node.attribute {
        if attribute.name == "value_int" {
            largest = Some(attribute.i.unsigned_abs());
        } else if attribute.name == "value_ints" {
            largest = Some(
                attribute
                    .ints
                    .iter()
                    .map(|i| i.unsigned_abs())
                    .max()
                    .unwrap_or(0),
            );
        }
    }
    Size {
        elements,
        shape: None,
        largest,
    }
}

fn size_of(tensor: &TensorProto) -> Size {
    let shape: Option<Vec<u64>> = tensor
        .dims
        .iter()
        .map(|dim| u64::try_from(*dim).ok())
        .collect();
    let elements = tensors::elements(&tensor.dims).unwrap_or(u64::MAX);
    let largest = if elements <= MOST_SIZES {
        largest_integer(tensor)
    } else {
        None
    };
    Size {
        elements,
        shape,
        largest,
    }
}

/// The largest absolute value of an int64 or int32 tensor.
fn largest_integer(tensor: &TensorProto) -> Option<u64> {
    let mut largest = 0u64;
    if tensor.data_type == DataType::Int64 as i32 {
        for bytes in tensor.raw_data.chunks_exact(8) {
            largest = largest.max(i64::from_le_bytes(bytes.try_into().ok()?).unsigned_abs());
        }
        for value in &tensor.int64_data {
            largest = largest.max(value.unsigned_abs());
        }
    } else if tensor.data_type == DataType::Int32 as i32 {
        for bytes in tensor.raw_data.chunks_exact(4) {
            let value = i32::from_le_bytes(bytes.try_into().ok()?);
            largest = largest.max(u64::from(value.unsigned_abs()));
        }
        for value in &tensor.int32_data {
            largest = largest.max(u64::from(value.unsigned_abs()));
        }
    } else {
        return None;
    }
    Some(largest)
}
