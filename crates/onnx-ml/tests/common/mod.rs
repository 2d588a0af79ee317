//! Builders for small ONNX files, so that a test reads as the graph it is about.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use onnx_ml::{Model, Tensor};
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::IntoTensor;

/// A dimension as a test writes it.
#[derive(Clone)]
pub enum Dim {
    Named(&'static str),
    Fixed(i64),
    Unnamed,
}

pub fn value(name: &str, data_type: DataType, dims: &[Dim]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: match dim {
                Dim::Named(name) => Some(Value::DimParam(name.to_string())),
                Dim::Fixed(size) => Some(Value::DimValue(*size)),
                Dim::Unnamed => None,
            },
            ..Default::default()
        })
        .collect();
    let tensor = pb::type_proto::Tensor {
        elem_type: data_type as i32,
        shape: Some(pb::TensorShapeProto { dim }),
    };
    pb::ValueInfoProto {
        name: name.to_string(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// `[N, 1]`.
pub fn column(name: &str, data_type: DataType) -> pb::ValueInfoProto {
    value(name, data_type, &[Dim::Named("N"), Dim::Fixed(1)])
}

fn attribute(name: &str, kind: AttributeType) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_string(),
        r#type: kind as i32,
        ..Default::default()
    }
}

pub fn int(name: &str, i: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        i,
        ..attribute(name, AttributeType::Int)
    }
}

pub fn float(name: &str, f: f32) -> pb::AttributeProto {
    pb::AttributeProto {
        f,
        ..attribute(name, AttributeType::Float)
    }
}

pub fn ints(name: &str, ints: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto {
        ints: ints.to_vec(),
        ..attribute(name, AttributeType::Ints)
    }
}

pub fn floats(name: &str, floats: &[f32]) -> pb::AttributeProto {
    pb::AttributeProto {
        floats: floats.to_vec(),
        ..attribute(name, AttributeType::Floats)
    }
}

pub fn string(name: &str, text: &str) -> pb::AttributeProto {
    pb::AttributeProto {
        s: text.as_bytes().to_vec(),
        ..attribute(name, AttributeType::String)
    }
}

pub fn strings(name: &str, texts: &[&str]) -> pb::AttributeProto {
    let strings = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    pb::AttributeProto {
        strings,
        ..attribute(name, AttributeType::Strings)
    }
}

/// The operators of ai.onnx.ml that tests use; the others are of the default domain.
const ML: &[&str] = &[
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "OneHotEncoder",
    "Scaler",
    "TreeEnsembleClassifier",
    "ZipMap",
];

pub fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<pb::AttributeProto>,
) -> pb::NodeProto {
    pb::NodeProto {
        op_type: operator.to_string(),
        domain: if ML.contains(&operator) {
            "ai.onnx.ml".to_string()
        } else {
            String::new()
        },
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        attribute: attributes,
        ..Default::default()
    }
}

pub fn float_constant(name: &str, dims: &[i64], values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn int_constant(name: &str, dims: &[i64], values: &[i64]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: DataType::Int64 as i32,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A model of the default domain at version 17 and ai.onnx.ml at version 3.
pub fn model(graph: pb::GraphProto) -> pb::ModelProto {
    let import = |domain: &str, version| pb::OperatorSetIdProto {
        domain: domain.to_string(),
        version,
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 17), import("ai.onnx.ml", 3)],
        graph: Some(graph),
        ..Default::default()
    }
}

/// A graph of one node from `x` to `y`.
pub fn one_node(
    operator: &str,
    attributes: Vec<pb::AttributeProto>,
    input: pb::ValueInfoProto,
) -> pb::ModelProto {
    let output = pb::ValueInfoProto {
        name: "y".to_string(),
        ..Default::default()
    };
    model(pb::GraphProto {
        node: vec![node(operator, &["x"], &["y"], attributes)],
        input: vec![input],
        output: vec![output],
        ..Default::default()
    })
}

/// The graph of the project's sample models: two string columns, one integer and one number; the
/// imputed and scaled numbers and the one-hot strings go through one linear layer.
pub fn sample() -> pb::ModelProto {
    let categories = ["No", "Yes", "Month-to-month", "One year", "Two year"];
    let weights: Vec<f32> = (0..12u8)
        .map(|i| (f32::from(i) - 5.5) * 0.37 + f32::from(i % 3) * 0.11)
        .collect();
    let graph = pb::GraphProto {
        name: "sample".to_string(),
        node: vec![
            node(
                "Concat",
                &["partner", "contract"],
                &["strings"],
                vec![int("axis", 1)],
            ),
            node(
                "OneHotEncoder",
                &["strings"],
                &["one_hot"],
                vec![strings("cats_strings", &categories), int("zeros", 1)],
            ),
            node("Reshape", &["one_hot", "flat"], &["encoded"], vec![]),
            node(
                "Cast",
                &["tenure"],
                &["tenure_float"],
                vec![int("to", DataType::Float as i64)],
            ),
            node(
                "Concat",
                &["tenure_float", "charges"],
                &["numbers"],
                vec![int("axis", 1)],
            ),
            node(
                "Imputer",
                &["numbers"],
                &["imputed"],
                vec![
                    floats("imputed_value_floats", &[29.0, 70.35]),
                    float("replaced_value_float", f32::NAN),
                ],
            ),
            node(
                "Scaler",
                &["imputed"],
                &["scaled"],
                vec![
                    floats("offset", &[32.4, 64.8]),
                    floats("scale", &[0.0407, 0.0332]),
                ],
            ),
            node(
                "Concat",
                &["scaled", "encoded"],
                &["features"],
                vec![int("axis", 1)],
            ),
            node(
                "Gemm",
                &["features", "weights", "bias"],
                &["log_odds"],
                vec![],
            ),
            node("Sigmoid", &["log_odds"], &["probability"], vec![]),
            node("Sub", &["one", "probability"], &["complement"], vec![]),
            node(
                "Concat",
                &["complement", "probability"],
                &["probabilities"],
                vec![int("axis", 1)],
            ),
        ],
        initializer: vec![
            int_constant("flat", &[2], &[-1, 10]),
            float_constant("weights", &[12, 1], &weights),
            float_constant("bias", &[1], &[-0.61]),
            float_constant("one", &[1], &[1.0]),
        ],
        input: vec![
            column("partner", DataType::String),
            column("contract", DataType::String),
            column("tenure", DataType::Int64),
            column("charges", DataType::Float),
        ],
        output: vec![
            column("log_odds", DataType::Float),
            value(
                "probabilities",
                DataType::Float,
                &[Dim::Named("N"), Dim::Fixed(2)],
            ),
        ],
        ..Default::default()
    };
    model(graph)
}

/// Rows for [`sample`]: partner, contract, tenure, charges.
pub type SampleRow<'a> = (&'a str, &'a str, i64, f32);

pub fn sample_inputs(rows: &[SampleRow<'_>]) -> Vec<Tensor> {
    let n = rows.len();
    vec![
        string_tensor(&[n, 1], rows.iter().map(|row| row.0)),
        string_tensor(&[n, 1], rows.iter().map(|row| row.1)),
        Tensor::from_shape(&[n, 1], &rows.iter().map(|row| row.2).collect::<Vec<_>>()).unwrap(),
        Tensor::from_shape(&[n, 1], &rows.iter().map(|row| row.3).collect::<Vec<_>>()).unwrap(),
    ]
}

pub fn string_tensor<'a>(shape: &[usize], texts: impl Iterator<Item = &'a str>) -> Tensor {
    let texts: Vec<String> = texts.map(str::to_string).collect();
    tract_onnx::tract_hir::tract_ndarray::ArrayD::from_shape_vec(shape, texts)
        .unwrap()
        .into_tensor()
}

pub fn load(model: &pb::ModelProto) -> Model {
    Model::from_bytes(&model.encode_to_vec()).unwrap()
}

pub fn floats_of(tensor: &Tensor) -> Vec<f32> {
    tensor
        .to_plain_array_view::<f32>()
        .unwrap()
        .iter()
        .copied()
        .collect()
}

pub fn bits_of(tensor: &Tensor) -> Vec<u32> {
    floats_of(tensor).iter().map(|x| x.to_bits()).collect()
}
