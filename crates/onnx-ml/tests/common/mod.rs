//! Builders for small ONNX files, so that a test reads as the graph it is about; and files with
//! inputs and expected outputs.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use onnx_ml::proto::{self, AttributeType};
use onnx_ml::{CompactString, Data, DataType, Model, Tensor, f16};
use prost::Message;
use serde_json::Value;

/// A dimension as a test writes it.
#[derive(Clone, Copy)]
pub enum Dim {
    Named(&'static str),
    Fixed(i64),
    Unnamed,
}

pub fn value(name: &str, data_type: DataType, dims: &[Dim]) -> proto::ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| proto::Dimension {
            value: match dim {
                Dim::Named(name) => Some(proto::DimensionValue::DimParam(name.to_string())),
                Dim::Fixed(size) => Some(proto::DimensionValue::DimValue(*size)),
                Dim::Unnamed => None,
            },
        })
        .collect();
    let tensor = proto::TensorType {
        elem_type: data_type as i32,
        shape: Some(proto::TensorShapeProto { dim }),
    };
    proto::ValueInfoProto {
        name: name.to_string(),
        r#type: Some(proto::TypeProto {
            value: Some(proto::TypeValue::Tensor(tensor)),
        }),
    }
}

/// `[N, 1]`.
pub fn column(name: &str, data_type: DataType) -> proto::ValueInfoProto {
    value(name, data_type, &[Dim::Named("N"), Dim::Fixed(1)])
}

fn attribute(name: &str, kind: AttributeType) -> proto::AttributeProto {
    proto::AttributeProto {
        name: name.to_string(),
        r#type: kind as i32,
        ..Default::default()
    }
}

pub fn int(name: &str, i: i64) -> proto::AttributeProto {
    proto::AttributeProto {
        i,
        ..attribute(name, AttributeType::Int)
    }
}

pub fn float(name: &str, f: f32) -> proto::AttributeProto {
    proto::AttributeProto {
        f,
        ..attribute(name, AttributeType::Float)
    }
}

pub fn ints(name: &str, ints: &[i64]) -> proto::AttributeProto {
    proto::AttributeProto {
        ints: ints.to_vec(),
        ..attribute(name, AttributeType::Ints)
    }
}

pub fn floats(name: &str, floats: &[f32]) -> proto::AttributeProto {
    proto::AttributeProto {
        floats: floats.to_vec(),
        ..attribute(name, AttributeType::Floats)
    }
}

pub fn string(name: &str, text: &str) -> proto::AttributeProto {
    proto::AttributeProto {
        s: text.as_bytes().to_vec(),
        ..attribute(name, AttributeType::String)
    }
}

pub fn strings(name: &str, texts: &[&str]) -> proto::AttributeProto {
    let strings = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    proto::AttributeProto {
        strings,
        ..attribute(name, AttributeType::Strings)
    }
}

pub fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<proto::AttributeProto>,
) -> proto::NodeProto {
    let ml = onnx_ml::is_supported("ai.onnx.ml", operator);
    proto::NodeProto {
        op_type: operator.to_string(),
        domain: if ml {
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

pub fn float_constant(name: &str, dims: &[i64], values: &[f32]) -> proto::TensorProto {
    proto::TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: DataType::F32 as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn int_constant(name: &str, dims: &[i64], values: &[i64]) -> proto::TensorProto {
    proto::TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: DataType::I64 as i32,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A file with these parts, importing version 18 of the default operators and 3 of ai.onnx.ml.
pub fn file(
    nodes: Vec<proto::NodeProto>,
    initializers: Vec<proto::TensorProto>,
    inputs: Vec<proto::ValueInfoProto>,
    outputs: Vec<proto::ValueInfoProto>,
) -> proto::ModelProto {
    let import = |domain: &str, version| proto::OperatorSetIdProto {
        domain: domain.to_string(),
        version,
    };
    proto::ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 18), import("ai.onnx.ml", 3)],
        graph: Some(proto::GraphProto {
            node: nodes,
            initializer: initializers,
            input: inputs,
            output: outputs,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn load(model: &proto::ModelProto) -> Model {
    Model::from_bytes(&model.encode_to_vec()).unwrap()
}

/// A tree of one node that asks `x <= 0.5`, whose children are given.
pub fn tree(if_true: &[i64], if_false: &[i64]) -> proto::ModelProto {
    let tree = node(
        "TreeEnsembleRegressor",
        &["x"],
        &["y"],
        vec![
            ints("nodes_treeids", &[0, 0, 0]),
            ints("nodes_nodeids", &[0, 1, 2]),
            ints("nodes_featureids", &[0, 0, 0]),
            floats("nodes_values", &[0.5, 0.0, 0.0]),
            strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"]),
            ints("nodes_truenodeids", if_true),
            ints("nodes_falsenodeids", if_false),
            ints("target_treeids", &[0, 0]),
            ints("target_nodeids", &[1, 2]),
            ints("target_ids", &[0, 0]),
            floats("target_weights", &[1.0, 2.0]),
            int("n_targets", 1),
        ],
    );
    let inputs = vec![column("x", DataType::F32)];
    file(vec![tree], vec![], inputs, vec![column("y", DataType::F32)])
}

/// A tensor as the files with expectations hold it: `{"type", "shape", "data"}`.
pub fn read_tensor(json: &Value) -> Tensor {
    let shape: Vec<usize> = json["shape"]
        .as_array()
        .unwrap()
        .iter()
        .map(|size| size.as_u64().unwrap() as usize)
        .collect();
    let data = json["data"].as_array().unwrap();
    let float = |value: &Value| match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
        None => value.as_f64().unwrap(),
    };
    let int = |value: &Value| value.as_i64().unwrap();
    let data = match json["type"].as_str().unwrap() {
        "float" => Data::F32(data.iter().map(|value| float(value) as f32).collect()),
        "double" => Data::F64(data.iter().map(float).collect()),
        "float16" => Data::F16(
            data.iter()
                .map(|value| f16::from_f64(float(value)))
                .collect(),
        ),
        "int64" => Data::I64(data.iter().map(int).collect()),
        "int32" => Data::I32(data.iter().map(|value| int(value) as i32).collect()),
        "int16" => Data::I16(data.iter().map(|value| int(value) as i16).collect()),
        "int8" => Data::I8(data.iter().map(|value| int(value) as i8).collect()),
        "uint8" => Data::U8(data.iter().map(|value| int(value) as u8).collect()),
        "uint16" => Data::U16(data.iter().map(|value| int(value) as u16).collect()),
        "uint32" => Data::U32(data.iter().map(|value| int(value) as u32).collect()),
        "uint64" => Data::U64(data.iter().map(|value| value.as_u64().unwrap()).collect()),
        "bool" => Data::Bool(
            data.iter()
                .map(|value| value.as_bool().unwrap_or_else(|| int(value) != 0))
                .collect(),
        ),
        "string" => Data::String(
            data.iter()
                .map(|value| CompactString::from(value.as_str().unwrap()))
                .collect(),
        ),
        other => panic!("unknown element type {other}"),
    };
    Tensor::from_data(&shape, data).unwrap()
}

/// How close two floating point numbers must be.
#[derive(Clone, Copy)]
pub enum Tolerance {
    /// |a − b| ≤ 1e-6 · max(1, |b|).
    Trees,
    /// |a − b| ≤ 1e-6 + 1e-5 · |b|.
    Other,
}

impl Tolerance {
    fn allows(self, found: f64, expected: f64) -> bool {
        if found == expected || (found.is_nan() && expected.is_nan()) {
            return true;
        }
        let bound = match self {
            Tolerance::Trees => 1e-6 * expected.abs().max(1.0),
            Tolerance::Other => 1e-6 + 1e-5 * expected.abs(),
        };
        (found - expected).abs() <= bound
    }
}

/// The first difference between two tensors.
pub fn difference(found: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Option<String> {
    if found.data_type() != expected.data_type() || found.shape() != expected.shape() {
        return Some(format!(
            "found {} {:?}, expected {} {:?}",
            found.data_type(),
            found.shape(),
            expected.data_type(),
            expected.shape()
        ));
    }
    let floats = |tensor: &Tensor| -> Option<Vec<f64>> {
        match tensor.data() {
            Data::F16(values) => Some(values.iter().map(|value| value.to_f64()).collect()),
            Data::F32(values) => Some(values.iter().map(|value| f64::from(*value)).collect()),
            Data::F64(values) => Some(values.clone()),
            _ => None,
        }
    };
    let (Some(found), Some(expected)) = (floats(found), floats(expected)) else {
        let same = found == expected;
        return (!same).then(|| format!("found {found:?}, expected {expected:?}"));
    };
    let pairs = found.iter().zip(&expected).enumerate();
    let mut wrong = 0;
    let mut first = None;
    for (place, (found, expected)) in pairs {
        if !tolerance.allows(*found, *expected) {
            wrong += 1;
            first.get_or_insert(format!(
                "element {place}: found {found}, expected {expected}"
            ));
        }
    }
    first.map(|first| format!("{wrong} of {} differ; {first}", expected.len()))
}

/// The bits of a tensor, so that NaN equals NaN and −0 differs from 0.
pub fn bits(tensor: &Tensor) -> Vec<u64> {
    match tensor.data() {
        Data::F16(values) => values
            .iter()
            .map(|value| u64::from(value.to_bits()))
            .collect(),
        Data::F32(values) => values
            .iter()
            .map(|value| u64::from(value.to_bits()))
            .collect(),
        Data::F64(values) => values.iter().map(|value| value.to_bits()).collect(),
        Data::I64(values) => values.iter().map(|value| *value as u64).collect(),
        Data::I32(values) => values.iter().map(|value| *value as u64).collect(),
        Data::Bool(values) => values.iter().map(|value| u64::from(*value)).collect(),
        Data::String(values) => values
            .iter()
            .map(|text| {
                text.bytes()
                    .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte))
            })
            .collect(),
        _ => vec![tensor.len() as u64],
    }
}

/// Rows `first..first + count` of a tensor whose first dimension is rows.
pub fn rows(tensor: &Tensor, first: usize, count: usize) -> Tensor {
    let width: usize = tensor.shape()[1..].iter().product();
    fn part<T: Clone>(values: &[T], first: usize, count: usize, width: usize) -> Vec<T> {
        values[first * width..(first + count) * width].to_vec()
    }
    macro_rules! cut {
        ($($variant:ident),*) => {
            match tensor.data() {
                $(Data::$variant(values) => Data::$variant(part(values, first, count, width)),)*
            }
        };
    }
    let data = cut!(
        Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, String
    );
    let mut shape = tensor.shape().to_vec();
    shape[0] = count;
    Tensor::from_data(&shape, data).unwrap()
}

/// A row for [`sample`].
pub type SampleRow<'a> = (&'a str, &'a str, i64, f32);

/// A pipeline of the kind that exporters write: two columns of text, an integer and a number become
/// log-odds `[N, 1]` and probabilities `[N, 2]`.
pub fn sample() -> proto::ModelProto {
    let categories = ["No", "Yes", "Month-to-month", "One year", "Two year"];
    let weights: Vec<f32> = (0..12u8)
        .map(|i| (f32::from(i) - 5.5) * 0.37 + f32::from(i % 3) * 0.11)
        .collect();
    let concat = |inputs: &[&str], output: &str| {
        let axis = vec![int("axis", 1)];
        node("Concat", inputs, &[output], axis)
    };
    let one_hot = vec![strings("cats_strings", &categories), int("zeros", 1)];
    let imputer = vec![
        floats("imputed_value_floats", &[29.0, 70.35]),
        float("replaced_value_float", f32::NAN),
    ];
    let scaler = vec![
        floats("offset", &[32.4, 64.8]),
        floats("scale", &[0.0407, 0.0332]),
    ];
    let to_float = vec![int("to", DataType::F32 as i64)];
    let nodes = vec![
        concat(&["partner", "contract"], "texts"),
        node("OneHotEncoder", &["texts"], &["one_hot"], one_hot),
        node("Reshape", &["one_hot", "flat"], &["encoded"], vec![]),
        node("Cast", &["tenure"], &["tenure_float"], to_float),
        concat(&["tenure_float", "charges"], "numbers"),
        node("Imputer", &["numbers"], &["imputed"], imputer),
        node("Scaler", &["imputed"], &["scaled"], scaler),
        concat(&["scaled", "encoded"], "features"),
        node(
            "Gemm",
            &["features", "weights", "bias"],
            &["log_odds"],
            vec![],
        ),
        node("Sigmoid", &["log_odds"], &["probability"], vec![]),
        node("Sub", &["one", "probability"], &["complement"], vec![]),
        concat(&["complement", "probability"], "probabilities"),
    ];
    let constants = vec![
        int_constant("flat", &[2], &[-1, 10]),
        float_constant("weights", &[12, 1], &weights),
        float_constant("bias", &[1], &[-0.61]),
        float_constant("one", &[1], &[1.0]),
    ];
    let inputs = vec![
        column("partner", DataType::String),
        column("contract", DataType::String),
        column("tenure", DataType::I64),
        column("charges", DataType::F32),
    ];
    let outputs = vec![
        column("log_odds", DataType::F32),
        value(
            "probabilities",
            DataType::F32,
            &[Dim::Named("N"), Dim::Fixed(2)],
        ),
    ];
    file(nodes, constants, inputs, outputs)
}

pub fn sample_inputs(rows: &[SampleRow<'_>]) -> Vec<Tensor> {
    let shape = [rows.len(), 1];
    let texts = |pick: fn(&SampleRow<'_>) -> String| -> Vec<CompactString> {
        rows.iter().map(|row| pick(row).into()).collect()
    };
    vec![
        Tensor::new(&shape, texts(|row| row.0.to_string())).unwrap(),
        Tensor::new(&shape, texts(|row| row.1.to_string())).unwrap(),
        Tensor::new(&shape, rows.iter().map(|row| row.2).collect()).unwrap(),
        Tensor::new(&shape, rows.iter().map(|row| row.3).collect()).unwrap(),
    ]
}
