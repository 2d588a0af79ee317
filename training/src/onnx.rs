//! A small builder for ONNX model files.
//!
//! It knows the few tensor and attribute types that tabular models need and writes the protobuf
//! message of the ONNX specification. It does not check that operators exist or that shapes fit:
//! whoever builds a graph runs it afterwards (see [`crate::bundle`]).

use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto;

/// Version of the file format; 8 is read by every runtime since 2021.
const IR_VERSION: i64 = 8;
/// Version of the standard operators.
const OPSET: i64 = 17;
/// Version of the `ai.onnx.ml` operators.
const ML_OPSET: i64 = 3;
/// Domain of the operators for classical machine learning.
const ML_DOMAIN: &str = "ai.onnx.ml";
/// Name of the batch dimension.
const BATCH: &str = "N";

/// Element types of graph inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    Float32,
    Int64,
    Text,
}

impl ElementType {
    fn code(self) -> i32 {
        match self {
            ElementType::Float32 => DataType::Float as i32,
            ElementType::Int64 => DataType::Int64 as i32,
            ElementType::Text => DataType::String as i32,
        }
    }
}

/// A graph under construction: nodes are added in the order in which they run.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: pb::GraphProto,
}

impl GraphBuilder {
    /// An empty graph. `name` and `doc` are for people who open the file.
    pub fn new(name: &str, doc: &str) -> GraphBuilder {
        GraphBuilder {
            graph: pb::GraphProto {
                name: name.to_owned(),
                doc_string: doc.to_owned(),
                ..Default::default()
            },
        }
    }

    /// Adds an input of shape `[N, 1]`.
    pub fn input(&mut self, name: &str, element_type: ElementType) {
        self.graph.input.push(value_info(name, element_type, 1));
    }

    /// Declares the value `name`, computed by a node, as an output of shape `[N, columns]`.
    pub fn output(&mut self, name: &str, columns: i64) {
        let output = value_info(name, ElementType::Float32, columns);
        self.graph.output.push(output);
    }

    /// Adds a constant float32 tensor in row-major order.
    pub fn constant(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        self.graph.initializer.push(pb::TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
    }

    /// Adds a node of the standard operators that computes `output`.
    pub fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<pb::AttributeProto>,
    ) {
        self.push_node("", operator, inputs, output, attributes);
    }

    /// Adds a node of the `ai.onnx.ml` operators that computes `output`.
    pub fn ml_node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<pb::AttributeProto>,
    ) {
        self.push_node(ML_DOMAIN, operator, inputs, output, attributes);
    }

    fn push_node(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<pb::AttributeProto>,
    ) {
        self.graph.node.push(pb::NodeProto {
            domain: domain.to_owned(),
            op_type: operator.to_owned(),
            // An output name is unique in a graph, which makes it a good name for its node.
            name: format!("{operator}_{output}"),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..Default::default()
        });
    }

    /// The bytes of the finished model file.
    pub fn finish(self) -> Vec<u8> {
        let opset = |domain: &str, version| pb::OperatorSetIdProto {
            domain: domain.to_owned(),
            version,
        };
        let model = pb::ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![opset("", OPSET), opset(ML_DOMAIN, ML_OPSET)],
            producer_name: "bellwether".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            ..Default::default()
        };
        model.encode_to_vec()
    }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        i: value,
        ..attribute(name, AttributeType::Int)
    }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> pb::AttributeProto {
    pb::AttributeProto {
        f: value,
        ..attribute(name, AttributeType::Float)
    }
}

/// A list-of-floats attribute.
pub fn floats(name: &str, values: Vec<f32>) -> pb::AttributeProto {
    pb::AttributeProto {
        floats: values,
        ..attribute(name, AttributeType::Floats)
    }
}

/// A list-of-strings attribute.
pub fn strings(name: &str, values: &[String]) -> pb::AttributeProto {
    pb::AttributeProto {
        strings: values.iter().map(|v| v.clone().into_bytes()).collect(),
        ..attribute(name, AttributeType::Strings)
    }
}

fn attribute(name: &str, attribute_type: AttributeType) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: attribute_type as i32,
        ..Default::default()
    }
}

/// A two-dimensional value with an open number of rows.
fn value_info(name: &str, element_type: ElementType, columns: i64) -> pb::ValueInfoProto {
    let dimension = |value| Dimension {
        value: Some(value),
        ..Default::default()
    };
    let shape = pb::TensorShapeProto {
        dim: vec![
            dimension(dimension::Value::DimParam(BATCH.to_owned())),
            dimension(dimension::Value::DimValue(columns)),
        ],
    };
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: element_type.code(),
                shape: Some(shape),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}
