//! From a request as it is written to the tensors of a graph: which input is which, where its
//! elements are, and which outputs are asked for.

use std::borrow::Cow;

use axum::body::Bytes;
use onnx_ml::{Shape, Tensor};
use serde_json::Value;
use smallvec::SmallVec;

use super::read::{Given, GivenInput, GivenOutput, Payload};
use crate::features::value::{describe_json, shorten};
use crate::infer::content;
use crate::infer::error::{InferError, Kind};
use crate::infer::inputs::{Declared, Inputs, data_type};
use crate::models::binary;
use crate::models::version::ModelVersion;

/// An output that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Requested {
    /// Its place among the graph's outputs.
    pub position: usize,
    pub as_bytes: bool,
}

/// The inputs of the graph, in its order. `binary` is what stands behind the JSON, `None` when the
/// whole body is JSON.
///
/// # Errors
/// The first input that is wrong, and what is wrong with it.
pub fn inputs(
    model: &ModelVersion,
    given: Given<'_>,
    binary: Option<Bytes>,
    max_rows: usize,
) -> Result<Vec<Tensor>, InferError> {
    let mut bytes = BinaryPart {
        bytes: binary.as_deref(),
        used: 0,
    };
    let has_content_type = |input: &GivenInput<'_>| input.content_type.is_some();
    if given.content_type.is_some() || given.inputs.iter().any(has_content_type) {
        return content_inputs(model, &given.content_type, given.inputs, bytes, max_rows);
    }
    let mut inputs = Inputs::new(model, max_rows);
    for (index, input) in given.inputs.into_iter().enumerate() {
        let shape = input.shape.iter().copied();
        let declared = inputs.declare(&input.name, &input.datatype, shape)?;
        let tensor = tensor(&declared, input, index, &mut bytes)?;
        inputs.put(&declared, tensor)?;
    }
    bytes.finish()?;
    inputs.finish()
}

fn tensor(
    declared: &Declared<'_>,
    input: GivenInput<'_>,
    index: usize,
    bytes: &mut BinaryPart<'_>,
) -> Result<Tensor, InferError> {
    let refuse =
        |problem: String| InferError::invalid(format!("input {:?}: {problem}", declared.info.name));
    let data = match input.payload {
        Payload::Elements(data) => data.map_err(refuse)?,
        Payload::Bytes { size, and_data } => {
            let bytes = bytes.next(index, &size, and_data)?;
            return binary::from_bytes(declared.info.data_type, &declared.shape, bytes)
                .map_err(|problem| refuse(format!("binary_data_size: {problem}")));
        }
        Payload::Missing => return Err(missing(index)),
    };
    if data.len() != declared.elements {
        return Err(refuse(format!(
            "data: {} elements do not fill the shape {}",
            data.len(),
            shorten(&format!("{:?}", declared.shape.as_slice()), 100)
        )));
    }
    Tensor::from_data(&declared.shape, data).map_err(|error| refuse(error.to_string()))
}

/// The inputs of a request that says what they are besides tensors: of the types and shapes that it
/// names itself, which need not be the graph's.
fn content_inputs(
    model: &ModelVersion,
    request: &Option<Cow<'_, str>>,
    inputs: SmallVec<[GivenInput<'_>; 4]>,
    mut bytes: BinaryPart<'_>,
    max_rows: usize,
) -> Result<Vec<Tensor>, InferError> {
    let mut given = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.into_iter().enumerate() {
        let refuse = |problem: String| {
            let name = shorten(&input.name, 64);
            InferError::invalid(format!("input {name:?}: {problem}"))
        };
        let Some(data_type) = data_type(&input.datatype) else {
            let found = shorten(&input.datatype, 32);
            return Err(refuse(format!("datatype: {found:?} is no type")));
        };
        let dims = input.shape.iter().map(|dim| usize::try_from(*dim));
        let shape: Result<Shape, _> = dims.collect();
        let shape = shape.map_err(|_| refuse("shape: is too large".to_owned()))?;
        let data = match input.payload {
            Payload::Elements(data) => data.map_err(refuse)?,
            Payload::Bytes { size, and_data } => {
                let bytes = bytes.next(index, &size, and_data)?;
                let tensor = binary::from_bytes(data_type, &shape, bytes);
                let tensor =
                    tensor.map_err(|problem| refuse(format!("binary_data_size: {problem}")))?;
                tensor.into_data()
            }
            Payload::Missing => return Err(missing(index)),
        };
        given.push(content::GivenInput {
            name: input.name,
            shape,
            data,
            content_type: input.content_type,
        });
    }
    bytes.finish()?;
    content::tensors(model, max_rows, request.as_deref(), given)
}

fn missing(index: usize) -> InferError {
    InferError::invalid(format!(
        "inputs[{index}]: expected `data` or the parameter `binary_data_size`, found neither"
    ))
}

/// The bytes behind the JSON, of which every input takes its part in turn.
struct BinaryPart<'a> {
    bytes: Option<&'a [u8]>,
    used: usize,
}

impl<'a> BinaryPart<'a> {
    /// The part of the input at `index`, which says that it is `size` bytes.
    fn next(&mut self, index: usize, size: &Value, and_data: bool) -> Result<&'a [u8], InferError> {
        let refuse = |problem: String| {
            let field = format!("inputs[{index}].parameters.binary_data_size");
            Err(InferError::invalid(format!("{field}: {problem}")))
        };
        let Some(bytes) = self.bytes else {
            // An empty tensor has no bytes; some clients send it so, with JSON only.
            if size.as_u64() == Some(0) && !and_data {
                return Ok(&[]);
            }
            return refuse(
                "expected the header Inference-Header-Content-Length with the length of the JSON, \
                 found none"
                    .to_owned(),
            );
        };
        if and_data {
            return refuse("expected it or `data`, found both".to_owned());
        }
        let left = &bytes[self.used..];
        match size.as_u64().map(usize::try_from) {
            Some(Ok(size)) if size <= left.len() => {
                self.used += size;
                Ok(&left[..size])
            }
            Some(_) => refuse(format!(
                "expected at most {} (the bytes behind the JSON that are left), found {size}",
                left.len()
            )),
            None => refuse(format!(
                "expected a number of bytes, found {}",
                describe_json(size)
            )),
        }
    }

    /// Refuses bytes that no input took.
    fn finish(&self) -> Result<(), InferError> {
        match self.bytes {
            Some(bytes) if bytes.len() != self.used => Err(InferError::invalid(format!(
                "body: expected {} bytes behind the JSON (the binary_data_size of all inputs), \
                 found {}",
                self.used,
                bytes.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// The outputs that a request asks for: all when it names none.
///
/// # Errors
/// A name that is no output or stands twice, and choices that are not supported.
pub fn requested_outputs(
    model: &ModelVersion,
    given: &Given<'_>,
) -> Result<SmallVec<[Requested; 4]>, InferError> {
    let all_as_bytes = given.binary_data_output;
    let mut requested: SmallVec<[Requested; 4]> = SmallVec::new();
    if given.outputs.is_empty() {
        return Ok(all_outputs(model, all_as_bytes));
    }
    for (index, output) in given.outputs.iter().enumerate() {
        let position = output_position(model, index, output)?;
        if requested.iter().any(|earlier| earlier.position == position) {
            let message = format!(
                "outputs[{index}].name: {:?} is asked for twice",
                output.name
            );
            return Err(InferError::invalid(message));
        }
        if let Some(name) = output.unsupported {
            return Err(InferError::new(
                Kind::Unsupported,
                format!("outputs[{index}].parameters.{name}: is not supported"),
            ));
        }
        requested.push(Requested {
            position,
            as_bytes: output.binary_data.unwrap_or(all_as_bytes),
        });
    }
    Ok(requested)
}

/// Every output of the graph.
pub fn all_outputs(model: &ModelVersion, as_bytes: bool) -> SmallVec<[Requested; 4]> {
    let positions = 0..model.graph.outputs().len();
    positions
        .map(|position| Requested { position, as_bytes })
        .collect()
}

fn output_position(
    model: &ModelVersion,
    index: usize,
    output: &GivenOutput<'_>,
) -> Result<usize, InferError> {
    let outputs = model.graph.outputs();
    let position = outputs.iter().position(|info| info.name == output.name);
    position.ok_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|info| info.name.as_str()).collect();
        InferError::invalid(format!(
            "outputs[{index}].name: {:?} is no output of {}; the outputs are {}",
            shorten(&output.name, 64),
            model.name,
            shorten(&names.join(", "), 1000)
        ))
    })
}
