//! Tensors that grow: when the file is loaded, and in a run.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, row, stopped_both_ways, text_constant};
use onnx_ml::proto::*;
use onnx_ml::{DataType, Tensor};
use prost::Message;

/// A thing to compute from `n` (a list of sizes) and `a` (a number), of which `y` is the sum.
fn sized(operator: &str) -> Vec<NodeProto> {
    let mut one = match operator {
        "ConstantOfShape" => node(operator, &["n"], &["c"], vec![]),
        "Range" => node(operator, &["zero", "many", "one"], &["c"], vec![]),
        "OneHot" => node(operator, &["zero", "many", "on_off"], &["c"], vec![]),
        "Pad" => node(operator, &["a", "n"], &["c"], vec![]),
        "Gather" => node(operator, &["a", "wide"], &["c"], vec![]),
        _ => node(operator, &["a", "n"], &["c"], vec![]),
    };
    if operator == "Pad" {
        one.input = vec!["a".to_string(), "pads".to_string()];
    }
    let nodes = match operator {
        "Gather" => {
            let mut zero = int("value", 0);
            zero.r#type = AttributeType::Tensor as i32;
            zero.t = Some(int_constant("", &[1], &[0]));
            vec![node("ConstantOfShape", &["n"], &["wide"], vec![zero]), one]
        }
        _ => vec![one],
    };
    let sum = node("ReduceSum", &["c"], &["s"], vec![]);
    let cast = node("Cast", &["s"], &["f"], vec![int("to", 1)]);
    let add = node("Add", &["x", "f"], &["y"], vec![]);
    [nodes, vec![sum, cast, add]].concat()
}

const SIZED: [&str; 7] = [
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Range",
    "OneHot",
    "Pad",
    "Gather",
];

#[test]
fn sizes_in_the_file_or_in_the_input_do_not_become_gigabytes() {
    for size in [1 << 28, 1 << 40, i64::MAX, i64::MIN, -1] {
        let constants = |wide: bool| {
            let mut constants = vec![
                float_constant("a", &[1], &[1.0]),
                int_constant("zero", &[], &[0]),
                int_constant("one", &[], &[1]),
                int_constant("on_off", &[2], &[0, 1]),
            ];
            if wide {
                constants.push(int_constant("n", &[1], &[size]));
                constants.push(int_constant("pads", &[2], &[size, 1]));
                constants.push(int_constant("many", &[], &[size]));
            }
            constants
        };
        for operator in SIZED {
            let model = graph(sized(operator), constants(true));
            let outcome = try_bytes(&model.encode_to_vec(), &small(), row());
            // An empty range, and an element cut off.
            let fine = (operator == "Range" && size < 0) || (operator == "Pad" && size == -1);
            assert_eq!(outcome.reason.is_empty(), fine, "{operator} {size}");

            let mut model = graph(sized(operator), constants(false));
            model.graph.as_mut().unwrap().input.extend([
                value("n", DataType::I64, &[Dim::Unnamed]),
                value("pads", DataType::I64, &[Dim::Unnamed]),
                value("many", DataType::I64, &[]),
            ]);
            let mut inputs = row();
            inputs.push(Tensor::vector(vec![size]));
            inputs.push(Tensor::vector(vec![size, 1]));
            inputs.push(Tensor::scalar(size));
            let outcome = try_bytes(&model.encode_to_vec(), &small(), inputs);
            assert!(outcome.loads, "{operator}: {}", outcome.reason);
            assert_eq!(outcome.reason.is_empty(), fine, "{operator} {size}");
        }
    }
}

#[test]
fn products_of_small_tensors_are_bounded() {
    let long = vec![0.5; 20_000];
    let column = || float_constant("a", &[20_000, 1], &long);
    let line = || float_constant("b", &[1, 20_000], &long);
    for operator in ["Mul", "Add", "Pow", "Mod", "MatMul", "Gemm", "Less"] {
        let attributes = match operator {
            "Mod" => vec![int("fmod", 1)],
            _ => vec![],
        };
        let product = node(operator, &["a", "b"], &["c"], attributes);
        stopped_both_ways(vec![product], vec![column(), line()], "bytes");
    }
    let flat = |name: &str| float_constant(name, &[20_000], &long);
    let equation = vec![string("equation", "i,j->ij")];
    let einsum = node("Einsum", &["a", "b"], &["c"], equation);
    stopped_both_ways(vec![einsum], vec![flat("a"), flat("b")], "bytes");
    let choose = vec![
        node("IsNaN", &["a"], &["no"], vec![]),
        node("Where", &["no", "a", "b"], &["c"], vec![]),
    ];
    stopped_both_ways(choose, vec![column(), line()], "bytes");
    // Distances of every row to every row.
    let mut distances = node("CDist", &["a", "b"], &["c"], vec![]);
    distances.domain = "com.microsoft".to_string();
    let points = float_constant("b", &[20_000, 1], &long);
    stopped_both_ways(vec![distances], vec![column(), points], "bytes");
}

#[test]
fn tensors_that_double_are_stopped() {
    let doubling = |operator: &str, attributes: Vec<AttributeProto>| -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let mut last = "a".to_string();
        for step in 0..60 {
            let next = if step == 59 {
                "c".to_string()
            } else {
                format!("c{step}")
            };
            nodes.push(node(
                operator,
                &[&last, &last],
                &[&next],
                attributes.clone(),
            ));
            last = next;
        }
        nodes
    };
    let numbers = float_constant("a", &[2], &[1.0, 2.0]);
    let nodes = doubling("Concat", vec![int("axis", 0)]);
    stopped_both_ways(nodes, vec![numbers], "bytes");
    let text = text_constant("a", &[1], &["ab"]);
    stopped_both_ways(doubling("StringConcat", vec![]), vec![text], "bytes");

    // One tensor many times, in one node.
    let million = vec![1.0; 100_000];
    let constants = || vec![float_constant("a", &[100_000], &million)];
    let inputs = vec!["a"; 1000];
    let concat = node("Concat", &inputs, &["c"], vec![int("axis", 0)]);
    stopped_both_ways(vec![concat], constants(), "bytes");
    // As float16, which is widened for each.
    let mut half = TensorProto {
        name: "a".to_string(),
        dims: vec![100_000],
        data_type: DataType::F16 as i32,
        ..TensorProto::default()
    };
    half.raw_data = vec![0; 200_000];
    let sum = node("Sum", &inputs, &["c"], vec![]);
    stopped_both_ways(vec![sum], vec![half], "bytes");
    // Copies that all stay.
    let mut nodes = Vec::new();
    let names: Vec<String> = (0..500).map(|number| format!("v{number}")).collect();
    for name in &names {
        nodes.push(node("Identity", &["a"], &[name], vec![]));
    }
    let mut inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    inputs.push("a");
    nodes.push(node("Sum", &inputs, &["c"], vec![]));
    stopped_both_ways(nodes, constants(), "bytes");
}

#[test]
fn one_long_text_does_not_become_many() {
    let long = "x".repeat(100_000);
    let text = || text_constant("a", &[1, 1], &[&long]);
    let places = || int_constant("b", &[1000], &[0; 1000]);
    let truths: Vec<i32> = vec![1; 1000];
    let conditions = TensorProto {
        name: "b".to_string(),
        dims: vec![1000, 1],
        data_type: DataType::Bool as i32,
        int32_data: truths,
        ..TensorProto::default()
    };
    let gather = node("Gather", &["a", "b"], &["c"], vec![]);
    stopped_both_ways(vec![gather], vec![text(), places()], "bytes");
    let extract = node("ArrayFeatureExtractor", &["a", "b"], &["c"], vec![]);
    stopped_both_ways(vec![extract], vec![text(), places()], "bytes");
    let choose = node("Where", &["b", "a", "a"], &["c"], vec![]);
    stopped_both_ways(vec![choose], vec![text(), conditions], "bytes");
    let pad = node("Pad", &["e", "b", "a"], &["c"], vec![]);
    let constants = vec![
        text_constant("a", &[], &[&long]),
        text_constant("e", &[1], &["x"]),
        int_constant("b", &[2], &[0, 1000]),
    ];
    stopped_both_ways(vec![pad], constants, "bytes");
    // Labels of a thousand rows.
    let labels = [long.as_str(), long.as_str()];
    let encode = node(
        "LabelEncoder",
        &["b"],
        &["c"],
        vec![
            ints("keys_int64s", &[0, 1]),
            strings("values_strings", &labels),
        ],
    );
    stopped_both_ways(vec![encode], vec![places()], "bytes");
    let column = || float_constant("b", &[1000, 1], &[0.5; 1000]);
    let linear = node(
        "LinearClassifier",
        &["b"],
        &["c", "d"],
        vec![
            floats("coefficients", &[1.0, -1.0]),
            floats("intercepts", &[0.0, 0.0]),
            strings("classlabels_strings", &labels),
        ],
    );
    stopped_both_ways(vec![linear], vec![column()], "bytes");
    let vectors = node(
        "SVMClassifier",
        &["b"],
        &["c", "d"],
        vec![
            floats("coefficients", &[1.0, -1.0]),
            floats("rho", &[0.0]),
            strings("classlabels_strings", &labels),
        ],
    );
    stopped_both_ways(vec![vectors], vec![column()], "bytes");
    let trees = node(
        "TreeEnsembleClassifier",
        &["b"],
        &["c", "d"],
        vec![
            ints("nodes_treeids", &[0]),
            ints("nodes_nodeids", &[0]),
            ints("nodes_featureids", &[0]),
            floats("nodes_values", &[0.0]),
            strings("nodes_modes", &["LEAF"]),
            ints("nodes_truenodeids", &[0]),
            ints("nodes_falsenodeids", &[0]),
            ints("class_treeids", &[0]),
            ints("class_nodeids", &[0]),
            ints("class_ids", &[1]),
            floats("class_weights", &[1.0]),
            strings("classlabels_strings", &labels),
        ],
    );
    stopped_both_ways(vec![trees], vec![column()], "bytes");
    let mut tokens = node(
        "Tokenizer",
        &["b"],
        &["c"],
        vec![
            string("tokenexp", "x"),
            string("pad_value", &long),
            int("mincharnum", 1),
        ],
    );
    tokens.domain = "com.microsoft".to_string();
    let mut texts = vec![""; 1000];
    texts[0] = "xx";
    stopped_both_ways(
        vec![tokens],
        vec![text_constant("b", &[1000], &texts)],
        "bytes",
    );
}
