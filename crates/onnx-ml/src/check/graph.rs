//! Verifies names, order, operators, and graph inputs and outputs.

use std::collections::HashSet;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use tract_onnx::pb::{tensor_shape_proto::dimension, type_proto};

use super::{node_error, node_name, tensors, trees};
use crate::error::LoadError;
use crate::limits::Limits;
use crate::operators::{ML, NOT_YET, growth};

/// Versions of the default operator set. Before 7 the rules of broadcasting were others.
const DEFAULT_VERSIONS: std::ops::RangeInclusive<i64> = 7..=26;
/// Versions of ai.onnx.ml.
const ML_VERSIONS: std::ops::RangeInclusive<i64> = 1..=5;

/// Verifies that the operator sets are of versions whose rules this crate knows. Sets of other
/// domains may be imported as long as no node uses them.
pub(super) fn imports(model: &ModelProto) -> Result<(), LoadError> {
    for import in &model.opset_import {
        let known = match import.domain.as_str() {
            "" | "ai.onnx" => DEFAULT_VERSIONS,
            ML => ML_VERSIONS,
            _ => continue,
        };
        if !known.contains(&import.version) {
            return Err(LoadError::Value {
                role: "operator set",
                name: import.domain.clone(),
                reason: format!(
                    "version {} is not supported, expected {} to {}",
                    import.version,
                    known.start(),
                    known.end()
                ),
            });
        }
    }
    Ok(())
}

/// Verifies a graph in itself.
pub(super) fn graph(graph: &GraphProto, limits: &Limits) -> Result<(), LoadError> {
    if graph.node.len() as u64 > limits.nodes {
        return Err(LoadError::TooLarge {
            what: "the number of nodes",
            found: graph.node.len() as u64,
            limit: limits.nodes,
        });
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse
            .values
            .as_ref()
            .map(|values| values.name.clone())
            .unwrap_or_default();
        return Err(value_error(
            "initializer",
            &name,
            "sparse initializers are not supported",
        ));
    }
    // Operators first: that a model needs an operator which is not there is the news its owner
    // wants, not what follows from it.
    for node in &graph.node {
        operator(node)?;
    }
    let mut defined: HashSet<&str> = HashSet::new();
    for initializer in &graph.initializer {
        let role = "initializer";
        if !defined.insert(&initializer.name) {
            return Err(value_error(
                role,
                &initializer.name,
                "the name is used twice",
            ));
        }
        tensors::tensor(initializer)
            .map_err(|reason| value_error(role, &initializer.name, &reason))?;
    }
    inputs(graph, &mut defined)?;
    for node in &graph.node {
        for input in &node.input {
            if !input.is_empty() && !defined.contains(input.as_str()) {
                return Err(node_error(
                    node,
                    format!(
                        "input `{input}` is neither a graph input, nor an initializer, nor an \
                         output of a node before this one"
                    ),
                ));
            }
        }
        for output in &node.output {
            if !output.is_empty() && !defined.insert(output) {
                return Err(node_error(
                    node,
                    format!("output `{output}` is defined twice"),
                ));
            }
        }
        attributes(node)?;
    }
    outputs(graph, &defined)
}

/// Verifies that the operator is one that this crate runs.
fn operator(node: &NodeProto) -> Result<(), LoadError> {
    if growth(&node.domain, &node.op_type).is_some() {
        return Ok(());
    }
    let is_ml = node.domain == ML;
    let operator = match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    };
    let reason = if is_ml && NOT_YET.contains(&node.op_type.as_str()) {
        " yet"
    } else {
        ""
    };
    Err(LoadError::UnsupportedOperator {
        node: node_name(node).to_string(),
        operator,
        reason: reason.to_string(),
    })
}

fn inputs<'a>(graph: &'a GraphProto, defined: &mut HashSet<&'a str>) -> Result<(), LoadError> {
    let mut names: HashSet<&str> = HashSet::new();
    for input in &graph.input {
        if input.name.is_empty() || !names.insert(&input.name) {
            return Err(value_error(
                "graph input",
                &input.name,
                "the name is empty or used twice",
            ));
        }
        if !defined.insert(&input.name) {
            // Up to version 3 of the format every initializer had to be listed as an input.
            continue;
        }
        let mut fixed = Vec::new();
        let value_type = input.r#type.as_ref().and_then(|t| t.value.as_ref());
        if let Some(type_proto::Value::TensorType(tensor)) = value_type
            && let Some(shape) = &tensor.shape
        {
            if shape.dim.len() > 8 {
                return Err(value_error(
                    "graph input",
                    &input.name,
                    &format!(
                        "it has {} dimensions, at most 8 are supported",
                        shape.dim.len()
                    ),
                ));
            }
            for dim in &shape.dim {
                if let Some(dimension::Value::DimValue(size)) = dim.value {
                    fixed.push(size.max(0));
                }
            }
        }
        match tensors::elements(&fixed) {
            Ok(elements) if elements <= 1 << 32 => {}
            _ => {
                let reason = format!("its fixed dimensions {fixed:?} are too large");
                return Err(value_error("graph input", &input.name, &reason));
            }
        }
    }
    Ok(())
}

fn attributes(node: &NodeProto) -> Result<(), LoadError> {
    let mut names: HashSet<&str> = HashSet::new();
    for attribute in &node.attribute {
        let name = attribute.name.as_str();
        if !names.insert(name) {
            return Err(node_error(
                node,
                format!("attribute `{name}` is given twice"),
            ));
        }
        if !attribute.ref_attr_name.is_empty() {
            return Err(node_error(
                node,
                format!("attribute `{name}` refers to a function's attribute outside a function"),
            ));
        }
        if attribute.g.is_some() || !attribute.graphs.is_empty() {
            return Err(node_error(
                node,
                format!("attribute `{name}` holds a graph"),
            ));
        }
        if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
            return Err(node_error(
                node,
                format!("attribute `{name}` holds a sparse tensor"),
            ));
        }
        if attribute.r#type == AttributeType::Tensor as i32 && attribute.t.is_none() {
            return Err(node_error(
                node,
                format!("attribute `{name}` has no tensor"),
            ));
        }
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            tensors::tensor(tensor)
                .map_err(|reason| node_error(node, format!("attribute `{name}`: {reason}")))?;
        }
    }
    if node.output.iter().all(|output| output.is_empty()) {
        return Err(node_error(node, "it has no output"));
    }
    if node.op_type == "TreeEnsembleClassifier" {
        trees::classifier(node).map_err(|reason| node_error(node, reason))?;
    }
    Ok(())
}

fn outputs(graph: &GraphProto, defined: &HashSet<&str>) -> Result<(), LoadError> {
    if graph.output.is_empty() {
        return Err(LoadError::Malformed {
            reason: "the graph has no output".to_string(),
        });
    }
    let mut names: HashSet<&str> = HashSet::new();
    for output in &graph.output {
        let refuse = |reason: &str| Err(value_error("graph output", &output.name, reason));
        if !names.insert(&output.name) {
            return refuse("the name is used twice");
        }
        if !defined.contains(output.name.as_str()) {
            return refuse("nothing in the graph produces it");
        }
        if has_other_type(output) {
            return refuse(
                "it is not a tensor (a map, a sequence or optional), and only tensors are \
                 supported; with scikit-learn's exporter, switch its ZipMap option off",
            );
        }
    }
    Ok(())
}

/// Whether a value declares a type, and one that is no tensor. (The decoder knows tensors only, so
/// the others show as a type without content.)
fn has_other_type(value: &ValueInfoProto) -> bool {
    value
        .r#type
        .as_ref()
        .is_some_and(|value_type| value_type.value.is_none())
}

fn value_error(role: &'static str, name: &str, reason: &str) -> LoadError {
    LoadError::Value {
        role,
        name: name.to_string(),
        reason: reason.to_string(),
    }
}
