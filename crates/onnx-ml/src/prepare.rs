//! Rewrites a verified file into the form that tract analyses best, and remembers the caller's view.
//!
//! Three things change: dimensions get plain symbols (tract would parse their names as arithmetic),
//! every node gets a name of its own (for errors, and because tract requires it), and domains,
//! functions and hints that nothing reads are dropped. Nothing that is computed changes.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{
    GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto, ValueInfoProto,
};
use tract_onnx::pb::{tensor_shape_proto, type_proto};
use tract_onnx::prelude::DatumType;

use crate::error::LoadError;

/// The version of the default operator set for files that name none.
const CURRENT_VERSION: i64 = 18;

/// One dimension of a model input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// Exactly this size.
    Fixed(usize),
    /// Any size; the same symbol has the same size in every input.
    Symbol(usize),
}

/// A model input as the file declares it.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub name: String,
    pub datum_type: DatumType,
    pub dimensions: Vec<Dimension>,
}

/// The model's own inputs, and how many distinct symbols their dimensions have.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub inputs: Vec<Input>,
    pub symbols: usize,
}

/// The name that a symbol has inside tract.
pub(crate) fn symbol_name(symbol: usize) -> String {
    format!("dim{symbol}")
}

/// Rewrites `model` in place.
pub(crate) fn prepare(model: &mut ModelProto) -> Result<Inputs, LoadError> {
    let Some(graph) = model.graph.as_mut() else {
        return Err(LoadError::Malformed {
            reason: "the model has no graph".to_string(),
        });
    };
    let inputs = read_inputs(graph)?;
    name_nodes(graph);
    graph.value_info.clear();
    graph.quantization_annotation.clear();
    model.functions.clear();
    model.training_info.clear();
    model.metadata_props.clear();
    let has_default = |import: &OperatorSetIdProto| matches!(&*import.domain, "" | "ai.onnx");
    if !model.opset_import.iter().any(has_default) {
        // A file of ai.onnx.ml operators alone need not import the default set. What it uses of it
        // all the same is taken in its current meaning.
        let version = CURRENT_VERSION;
        model.opset_import.push(OperatorSetIdProto {
            domain: String::new(),
            version,
        });
    }
    Ok(inputs)
}

fn read_inputs(graph: &mut GraphProto) -> Result<Inputs, LoadError> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    // A dimension without a name may differ from every other by the specification. Exporters leave
    // the number of rows unnamed all the same, so the first dimension of every input is taken to be
    // the same: the named one if there is exactly one name, else a symbol of its own.
    let mut leading_names = HashSet::new();
    for input in &graph.input {
        if initialized.contains(input.name.as_str()) {
            continue;
        }
        if let Some(name) = shape_of(input)
            .and_then(|s| s.dim.first())
            .and_then(dimension_name)
        {
            leading_names.insert(name.to_string());
        }
    }
    let mut symbols: HashMap<String, usize> = HashMap::new();
    let mut next_symbol = 0;
    let mut rows = None;
    if leading_names.len() == 1 {
        for name in leading_names {
            symbols.insert(name, 0);
            rows = Some(0);
            next_symbol = 1;
        }
    }
    let mut inputs = Vec::new();
    let mut skip = Vec::new();
    for input in &graph.input {
        skip.push(initialized.contains(input.name.as_str()));
    }
    for (input, skip) in graph.input.iter_mut().zip(skip) {
        if skip {
            continue;
        }
        let name = input.name.clone();
        let refuse = |reason: &str| LoadError::Value {
            role: "graph input",
            name: name.clone(),
            reason: reason.to_string(),
        };
        let Some(type_proto::Value::TensorType(tensor)) =
            input.r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            return Err(refuse(
                "it is not a tensor (a map, a sequence or without type), and only \
                               tensors are supported",
            ));
        };
        let datum_type =
            crate::check::datum_type(tensor.elem_type).map_err(|reason| refuse(&reason))?;
        let Some(shape) = tensor.shape.as_mut() else {
            return Err(refuse(
                "it declares no shape; export it with one, such as [N, 1]",
            ));
        };
        let mut dimensions = Vec::new();
        for (axis, dimension) in shape.dim.iter_mut().enumerate() {
            let symbol = match &dimension.value {
                Some(tensor_shape_proto::dimension::Value::DimValue(size)) if *size >= 0 => {
                    let size =
                        usize::try_from(*size).map_err(|_| refuse("a dimension is too large"))?;
                    dimensions.push(Dimension::Fixed(size));
                    continue;
                }
                _ => match dimension_name(dimension) {
                    Some(name) => match symbols.get(name) {
                        Some(symbol) => *symbol,
                        None => {
                            symbols.insert(name.to_string(), next_symbol);
                            next_symbol += 1;
                            next_symbol - 1
                        }
                    },
                    None if axis == 0 => match rows {
                        Some(symbol) => symbol,
                        None => {
                            rows = Some(next_symbol);
                            next_symbol += 1;
                            next_symbol - 1
                        }
                    },
                    None => {
                        next_symbol += 1;
                        next_symbol - 1
                    }
                },
            };
            dimension.value = Some(tensor_shape_proto::dimension::Value::DimParam(symbol_name(
                symbol,
            )));
            dimensions.push(Dimension::Symbol(symbol));
        }
        inputs.push(Input {
            name: input.name.clone(),
            datum_type,
            dimensions,
        });
    }
    Ok(Inputs {
        inputs,
        symbols: next_symbol,
    })
}

fn shape_of(value: &ValueInfoProto) -> Option<&TensorShapeProto> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    tensor.shape.as_ref()
}

/// The name of a dimension; empty names and the placeholder `?` name nothing.
fn dimension_name(dimension: &tensor_shape_proto::Dimension) -> Option<&str> {
    match &dimension.value {
        Some(tensor_shape_proto::dimension::Value::DimParam(name))
            if !name.is_empty() && name != "?" =>
        {
            Some(name)
        }
        _ => None,
    }
}

/// Gives every node a name: its own if it is the first to have it, else one made of its operator
/// and place.
fn name_nodes(graph: &mut GraphProto) {
    let mut taken = HashSet::new();
    for tensor in &graph.initializer {
        taken.insert(tensor.name.clone());
    }
    for input in &graph.input {
        taken.insert(input.name.clone());
    }
    for (place, node) in graph.node.iter_mut().enumerate() {
        let mut name = crate::check::node_name(node).to_string();
        while name.is_empty() || !taken.insert(name.clone()) {
            name = format!("{name}#{}{place}", node.op_type);
        }
        node.name = name;
    }
}
