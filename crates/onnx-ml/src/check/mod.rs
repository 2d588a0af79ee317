//! Everything that is verified before tract sees a file.
//!
//! tract trusts its input: it indexes by names that may not exist, folds constants of any size and
//! follows trees that may be rings. What is refused here, with a place and a reason, cannot reach it.
//! In the order of the calls:
//!
//! * `wire` bounds what decoding would take, before anything is decoded;
//! * `graph` verifies names, order, operators and graph inputs and outputs;
//! * `tensors` verifies that a tensor's shape and its data agree;
//! * `trees` verifies tree ensembles;
//! * `constants` bounds what would be computed at load time;
//! * `memory` bounds, after tract's analysis, what a run would take.

mod constants;
mod graph;
mod memory;
mod tensors;
mod trees;
mod wire;

use tract_onnx::pb::{ModelProto, NodeProto, tensor_proto::DataType};
use tract_onnx::prelude::DatumType;

use crate::error::LoadError;
use crate::limits::Limits;

pub(crate) use memory::memory;
pub(crate) use wire::bytes;

/// Verifies a decoded file.
pub(crate) fn model(model: &ModelProto, limits: &Limits) -> Result<(), LoadError> {
    let Some(graph) = &model.graph else {
        return Err(LoadError::Malformed {
            reason: "the model has no graph".to_string(),
        });
    };
    graph::imports(model)?;
    graph::graph(graph, limits)?;
    constants::constants(graph, limits)
}

/// What a node is called in messages: its name, or that of its first output.
pub(crate) fn node_name(node: &NodeProto) -> &str {
    if !node.name.is_empty() {
        return &node.name;
    }
    node.output.first().map(String::as_str).unwrap_or_default()
}

/// The element type of a number in the file.
pub(crate) fn datum_type(number: i32) -> Result<DatumType, String> {
    let Ok(data_type) = DataType::try_from(number) else {
        return Err(format!("element type {number} is not one of ONNX"));
    };
    DatumType::try_from(data_type)
        .map_err(|_| format!("element type {} is not supported", data_type.as_str_name()))
}

/// An error about one node.
fn node_error(node: &NodeProto, reason: impl Into<String>) -> LoadError {
    LoadError::Node {
        node: node_name(node).to_string(),
        operator: node.op_type.clone(),
        reason: reason.into(),
    }
}
