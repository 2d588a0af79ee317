//! A small builder for ONNX model files.
//!
//! It knows the few tensor and attribute types that tabular models need and writes the protobuf
//! message of the ONNX specification. It does not check that operators exist or that shapes fit:
//! whoever builds a graph runs it afterwards (see [`crate::bundle`]).

use onnx_ml::DataType;
use onnx_ml::proto::{self, AttributeType, Dimension, DimensionValue, TypeValue};
use prost::Message;

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
            ElementType::Float32 => DataType::F32 as i32,
            ElementType::Int64 => DataType::I64 as i32,
            ElementType::Text => DataType::String as i32,
        }
    }
}

/// A graph under construction: nodes are added in the order in which they run.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: proto::GraphProto,
}

impl GraphBuilder {
    /// An empty graph. `name` and `doc` are for people who open the file.
    pub fn new(name: &str, doc: &str) -> GraphBuilder {
        GraphBuilder {
            graph: proto::GraphProto {
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
        self.graph.initializer.push(proto::TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: DataType::F32 as i32,
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
        attributes: Vec<proto::AttributeProto>,
    ) {
        self.push_node("", operator, inputs, output, attributes);
    }

    /// Adds a node of the `ai.onnx.ml` operators that computes `output`.
    pub fn ml_node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<proto::AttributeProto>,
    ) {
        self.push_node(ML_DOMAIN, operator, inputs, output, attributes);
    }

    fn push_node(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<proto::AttributeProto>,
    ) {
        self.graph.node.push(proto::NodeProto {
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
        let opset = |domain: &str, version| proto::OperatorSetIdProto {
            domain: domain.to_owned(),
            version,
        };
        let model = proto::ModelProto {
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
pub fn int(name: &str, value: i64) -> proto::AttributeProto {
    proto::AttributeProto {
        i: value,
        ..attribute(name, AttributeType::Int)
    }
}

/// A float attribute.
pub fn float(name: &str, value: f32) -> proto::AttributeProto {
    proto::AttributeProto {
        f: value,
        ..attribute(name, AttributeType::Float)
    }
}

/// A list-of-floats attribute.
pub fn floats(name: &str, values: Vec<f32>) -> proto::AttributeProto {
    proto::AttributeProto {
        floats: values,
        ..attribute(name, AttributeType::Floats)
    }
}

/// A list-of-strings attribute.
pub fn strings(name: &str, values: &[String]) -> proto::AttributeProto {
    proto::AttributeProto {
        strings: values.iter().map(|v| v.clone().into_bytes()).collect(),
        ..attribute(name, AttributeType::Strings)
    }
}

fn attribute(name: &str, attribute_type: AttributeType) -> proto::AttributeProto {
    proto::AttributeProto {
        name: name.to_owned(),
        r#type: attribute_type as i32,
        ..Default::default()
    }
}

/// A two-dimensional value with an open number of rows.
fn value_info(name: &str, element_type: ElementType, columns: i64) -> proto::ValueInfoProto {
    let dimension = |value| Dimension { value: Some(value) };
    let shape = proto::TensorShapeProto {
        dim: vec![
            dimension(DimensionValue::DimParam(BATCH.to_owned())),
            dimension(DimensionValue::DimValue(columns)),
        ],
    };
    let tensor = proto::TensorType {
        elem_type: element_type.code(),
        shape: Some(shape),
    };
    proto::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(proto::TypeProto {
            value: Some(TypeValue::Tensor(tensor)),
        }),
    }
}
