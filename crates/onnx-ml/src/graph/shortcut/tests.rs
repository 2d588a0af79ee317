//! With a shortcut and without it: the same bits, and the same refusals.

use compact_str::CompactString;
use proptest::prelude::*;
use prost::Message;

use crate::model::Model;
use crate::ops::one_node::{int, strings};
use crate::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorType,
    TypeProto, TypeValue, ValueInfoProto,
};
use crate::tensor::{DataType, Tensor};

const CATEGORIES: [&str; 3] = ["Yes", "No", "a category of many letters"];

fn node(operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let is_ml = operator == "OneHotEncoder";
    NodeProto {
        op_type: operator.to_string(),
        domain: if is_ml { "ai.onnx.ml" } else { "" }.to_string(),
        input: inputs.iter().map(|name| (*name).to_string()).collect(),
        output: vec![format!("{operator}_of_{}", inputs[0])],
        attribute: attributes,
        ..NodeProto::default()
    }
}

fn matrix(name: &str, of: DataType) -> ValueInfoProto {
    ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorType {
                elem_type: of as i32,
                shape: None,
            })),
        }),
    }
}

/// Two columns of texts, encoded together, between two matrices of one number each.
fn model(weights: &[f32], zeros: i64, joined: bool, output: &str) -> Model {
    let categories = || vec![strings("cats_strings", &CATEGORIES), int("zeros", zeros)];
    let mut nodes = Vec::new();
    let texts = if joined {
        nodes.push(node("Concat", &["s", "t"], vec![int("axis", 1)]));
        "Concat_of_s"
    } else {
        "s"
    };
    nodes.push(node("OneHotEncoder", &[texts], categories()));
    let ones = format!("OneHotEncoder_of_{texts}");
    nodes.push(node("Flatten", &[&ones], vec![]));
    nodes.push(node("Abs", &["y"], vec![]));
    let flat = format!("Flatten_of_{ones}");
    nodes.push(node(
        "Concat",
        &["x", &flat, "Abs_of_y"],
        vec![int("axis", -1)],
    ));
    nodes.push(node("Gemm", &["Concat_of_x", "w", "c"], vec![]));
    let columns = weights.len() / if joined { 8 } else { 5 };
    let fixed = |name: &str, dims: &[usize], values: &[f32]| TensorProto {
        name: name.to_string(),
        dims: dims.iter().map(|size| *size as i64).collect(),
        data_type: DataType::F32 as i32,
        float_data: values.to_vec(),
        ..TensorProto::default()
    };
    let inner = weights.len() / columns;
    let file = ModelProto {
        ir_version: 8,
        opset_import: [("", 15), ("ai.onnx.ml", 2)]
            .map(|(domain, version)| OperatorSetIdProto {
                domain: domain.to_string(),
                version,
            })
            .to_vec(),
        graph: Some(GraphProto {
            node: nodes,
            initializer: vec![
                fixed("w", &[inner, columns], weights),
                fixed("c", &[columns], &weights[..columns]),
            ],
            input: vec![
                matrix("x", DataType::F32),
                matrix("y", DataType::F32),
                matrix("s", DataType::String),
                matrix("t", DataType::String),
            ],
            output: vec![matrix(output, DataType::F32)],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    Model::from_bytes(&file.encode_to_vec()).unwrap()
}

fn inputs(rows: &[(f32, f32, usize, usize)]) -> Vec<Tensor> {
    let shape = [rows.len(), 1];
    let text = |place: usize| CATEGORIES.get(place).copied().unwrap_or("?").into();
    let texts = |of: fn(&(f32, f32, usize, usize)) -> usize| {
        let texts: Vec<CompactString> = rows.iter().map(|row| text(of(row))).collect();
        Tensor::new(&shape, texts).unwrap()
    };
    vec![
        Tensor::new(&shape, rows.iter().map(|row| row.0).collect()).unwrap(),
        Tensor::new(&shape, rows.iter().map(|row| row.1).collect()).unwrap(),
        texts(|row| row.2),
        texts(|row| row.3),
    ]
}

fn bits(outputs: &[Tensor]) -> Vec<u32> {
    let values = outputs[0].as_slice::<f32>().unwrap();
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #[test]
    fn the_bits_are_those_of_the_steps_one_by_one(
        weights in prop::collection::vec(-4.0f32..4.0, 8 * 11),
        columns in 1usize..12,
        joined in any::<bool>(),
        rows in prop::collection::vec((-9.0f32..9.0, -9.0f32..9.0, 0usize..5, 0usize..5), 1..150),
    ) {
        let inner = if joined { 8 } else { 5 };
        let weights = &weights[..inner * columns.min(11)];
        let short = model(weights, 1, joined, "Gemm_of_Concat_of_x");
        let (long, shortcuts) = model(weights, 1, joined, "Gemm_of_Concat_of_x").without_shortcuts();
        prop_assert_eq!(shortcuts, 1);
        let expected = bits(&long.run(inputs(&rows)).unwrap());
        prop_assert_eq!(bits(&short.run(inputs(&rows)).unwrap()), expected);
    }
}

#[test]
fn a_forbidden_category_is_refused_in_the_words_of_its_encoder() {
    let short = model(&[0.5; 8], 0, true, "Gemm_of_Concat_of_x");
    let (long, _) = model(&[0.5; 8], 0, true, "Gemm_of_Concat_of_x").without_shortcuts();
    let rows = [(1.0, 2.0, 0, 1), (1.0, 2.0, 1, 4)];
    let refused = short.run(inputs(&rows)).unwrap_err().to_string();
    assert!(refused.contains("unknown category"), "{refused}");
    assert_eq!(refused, long.run(inputs(&rows)).unwrap_err().to_string());
    assert!(short.run(inputs(&rows[..1])).is_ok());
}

#[test]
fn what_somebody_else_reads_or_zero_does_not_undo_is_computed() {
    let read = model(&[0.5; 8], 1, true, "Concat_of_x");
    assert_eq!(read.without_shortcuts().1, 0);
    let mut weights = [0.5; 8];
    weights[3] = f32::INFINITY;
    let endless = model(&weights, 1, true, "Gemm_of_Concat_of_x");
    assert_eq!(endless.without_shortcuts().1, 0);
}

#[test]
fn matrices_of_other_sizes_are_refused_as_without_it() {
    let short = model(&[0.5; 8], 1, true, "Gemm_of_Concat_of_x");
    let (long, _) = model(&[0.5; 8], 1, true, "Gemm_of_Concat_of_x").without_shortcuts();
    let mut given = inputs(&[(1.0, 2.0, 0, 1)]);
    given[0] = Tensor::new(&[1, 2], vec![0.0_f32, 1.0]).unwrap();
    let refused = short.run(given.clone()).unwrap_err().to_string();
    assert_eq!(refused, long.run(given).unwrap_err().to_string());
}
