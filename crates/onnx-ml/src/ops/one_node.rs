//! For tests: models of a single node.

use prost::Message;

use crate::model::Model;
use crate::operators::ML;
use crate::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use crate::tensor::DataType;

fn attribute(name: &str, of: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: of as i32,
        ..AttributeProto::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: value,
        ..attribute(name, AttributeType::Int)
    }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: values.to_vec(),
        ..attribute(name, AttributeType::Ints)
    }
}

pub(crate) fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        floats: values.to_vec(),
        ..attribute(name, AttributeType::Floats)
    }
}

pub(crate) fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        s: value.as_bytes().to_vec(),
        ..attribute(name, AttributeType::String)
    }
}

pub(crate) fn strings(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto {
        strings: values.iter().map(|v| v.as_bytes().to_vec()).collect(),
        ..attribute(name, AttributeType::Strings)
    }
}

fn value(name: String, of: DataType) -> ValueInfoProto {
    ValueInfoProto {
        name,
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorType {
                elem_type: of as i32,
                shape: None,
            })),
        }),
    }
}

/// A model of one ai.onnx.ml operator of version 3 with as many inputs as types and one output, or
/// the reason why it does not load.
pub(crate) fn model(
    operator: &str,
    attributes: Vec<AttributeProto>,
    inputs: &[DataType],
) -> Result<Model, String> {
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let node = NodeProto {
        input: names.clone(),
        output: vec!["y".to_string()],
        op_type: operator.to_string(),
        domain: ML.to_string(),
        attribute: attributes,
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        input: names
            .into_iter()
            .zip(inputs)
            .map(|(name, of)| value(name, *of))
            .collect(),
        output: vec![value("y".to_string(), DataType::F32)],
        ..GraphProto::default()
    };
    let proto = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: ML.to_string(),
            version: 3,
        }],
        ..ModelProto::default()
    };
    Model::from_bytes(&proto.encode_to_vec()).map_err(|error| error.to_string())
}

/// The reason why the model does not load.
pub(crate) fn refusal(
    operator: &str,
    attributes: Vec<AttributeProto>,
    inputs: &[DataType],
) -> String {
    match model(operator, attributes, inputs) {
        Ok(_) => panic!("the model loads"),
        Err(reason) => reason,
    }
}
