//! Files from anyone: each is loaded or refused, and none panics, hangs or takes the memory away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use onnx_ml::{Limits, LoadError, Model, Tensor};
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// A small generator of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// How many damaged files are tried; more by `ONNX_ML_DAMAGED_FILES`.
fn damaged_files() -> usize {
    let wanted = std::env::var("ONNX_ML_DAMAGED_FILES")
        .ok()
        .and_then(|text| text.parse().ok());
    wanted.unwrap_or(300)
}

/// Loads, and runs what loads on one row of zeros where its inputs are simple enough.
fn survive(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes) else {
        return;
    };
    let mut inputs = Vec::new();
    for info in model.inputs() {
        let shape: Vec<usize> = info.shape.iter().map(|size| size.unwrap_or(1)).collect();
        if shape.iter().product::<usize>() > 1 << 20 {
            return;
        }
        let strings = info.datum_type == onnx_ml::DatumType::String;
        inputs.push(if strings {
            string_tensor(&shape, std::iter::repeat_n("a", shape.iter().product()))
        } else {
            Tensor::zero_dt(info.datum_type, &shape).unwrap()
        });
    }
    let _ = model.run(inputs);
}

/// Files to damage: one of each kind of operator.
fn victims() -> Vec<Vec<u8>> {
    let mut files = vec![
        sample().encode_to_vec(),
        tree(&[1, 0, 0], &[2, 0, 0]).encode_to_vec(),
    ];
    let cases: serde_json::Value = serde_json::from_str(include_str!("data/oracle.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["model"].as_str().unwrap();
        let bytes = (0..text.len()).step_by(2);
        files.push(
            bytes
                .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
                .collect(),
        );
    }
    files
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sample().encode_to_vec();
    for length in 0..whole.len() {
        survive(&whole[..length]);
    }
    let (graph_end, import) = (whole.len(), Model::from_bytes(&whole).is_ok());
    assert!(import, "the whole file of {graph_end} bytes loads");
    assert!(Model::from_bytes(&[]).is_err());
}

#[test]
fn a_file_with_flipped_bits_and_bytes_does_no_harm() {
    let victims = victims();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..damaged_files() {
        let mut bytes = victims[random.below(victims.len())].clone();
        for _ in 0..=random.below(4) {
            let place = random.below(bytes.len());
            if random.below(2) == 0 {
                bytes[place] ^= 1 << random.below(8);
            } else {
                bytes[place] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)];
            }
        }
        survive(&bytes);
    }
}

fn refused(model: &pb::ModelProto) -> String {
    Model::from_bytes(&model.encode_to_vec())
        .unwrap_err()
        .to_string()
}

fn x() -> pb::ValueInfoProto {
    column("x", DataType::Float)
}

fn named(name: &str) -> pb::ValueInfoProto {
    pb::ValueInfoProto {
        name: name.to_string(),
        ..Default::default()
    }
}

/// A graph from `x` to `y` with constants.
fn graph(nodes: Vec<pb::NodeProto>, constants: Vec<pb::TensorProto>) -> pb::ModelProto {
    model(pb::GraphProto {
        node: nodes,
        initializer: constants,
        input: vec![x()],
        output: vec![named("y")],
        ..Default::default()
    })
}

#[test]
fn broken_wiring_is_refused_with_the_name() {
    let missing = graph(vec![node("Add", &["x", "nowhere"], &["y"], vec![])], vec![]);
    assert!(refused(&missing).contains("`nowhere`"));

    let ring = graph(
        vec![
            node("Add", &["x", "b"], &["a"], vec![]),
            node("Identity", &["a"], &["b"], vec![]),
            node("Identity", &["b"], &["y"], vec![]),
        ],
        vec![],
    );
    assert!(refused(&ring).contains("`b`"));

    let no_output = graph(vec![node("Identity", &["x"], &["z"], vec![])], vec![]);
    assert_eq!(
        refused(&no_output),
        "graph output `y`: nothing in the graph produces it"
    );

    let twice = graph(
        vec![
            node("Identity", &["x"], &["y"], vec![]),
            node("Neg", &["x"], &["y"], vec![]),
        ],
        vec![],
    );
    assert!(refused(&twice).contains("defined twice"));
}

#[test]
fn unknown_operators_are_refused_by_node_and_name() {
    let mut unknown = node("LabelEncoder", &["x"], &["y"], vec![]);
    unknown.name = "encode labels".to_string();
    let refusal = refused(&graph(vec![unknown], vec![]));
    assert_eq!(
        refusal,
        "node `encode labels`: operator ai.onnx.ml.LabelEncoder is not supported yet"
    );

    let mut foreign = node("Add", &["x", "x"], &["y"], vec![]);
    foreign.domain = "com.example".to_string();
    let refusal = refused(&graph(vec![foreign], vec![]));
    assert_eq!(
        refusal,
        "node `y`: operator com.example.Add is not supported"
    );

    let looping = graph(vec![node("Loop", &["x"], &["y"], vec![])], vec![]);
    assert!(refused(&looping).contains("Loop"));
}

#[test]
fn maps_and_sequences_are_refused() {
    let mut sequence = graph(vec![node("Identity", &["x"], &["y"], vec![])], vec![]);
    sequence.graph.as_mut().unwrap().output[0].r#type = Some(pb::TypeProto::default());
    assert!(refused(&sequence).contains("graph output `y`: it is not a tensor"));

    let mut input = graph(vec![node("Identity", &["x"], &["y"], vec![])], vec![]);
    input.graph.as_mut().unwrap().input[0].r#type = Some(pb::TypeProto::default());
    assert!(refused(&input).contains("graph input `x`: it is not a tensor"));
}

#[test]
fn constants_that_lie_about_their_size_are_refused() {
    let add = || vec![node("Add", &["x", "c"], &["y"], vec![])];
    let short = graph(add(), vec![float_constant("c", &[1000], &[1.0])]);
    let refusal = refused(&short);
    assert_eq!(
        refusal,
        "initializer `c`: shape [1000] needs 1000 values, the file holds 1"
    );
    let huge = graph(add(), vec![float_constant("c", &[i64::MAX, i64::MAX], &[])]);
    assert!(refused(&huge).contains("too many elements"));
    let negative = graph(add(), vec![float_constant("c", &[-1], &[1.0])]);
    assert!(refused(&negative).contains("negative"));
    let mut outside = float_constant("c", &[1], &[]);
    outside.data_location = Some(pb::tensor_proto::DataLocation::External as i32);
    assert!(refused(&graph(add(), vec![outside])).contains("external data"));
}

#[test]
fn constants_cannot_be_multiplied_into_gigabytes() {
    // Forty times twice as long.
    let mut nodes = Vec::new();
    let mut last = "c".to_string();
    for step in 0..40 {
        let next = format!("c{step}");
        nodes.push(node(
            "Concat",
            &[&last, &last],
            &[&next],
            vec![int("axis", 0)],
        ));
        last = next;
    }
    nodes.push(node("Add", &["x", &last], &["y"], vec![]));
    let doubling = graph(nodes, vec![float_constant("c", &[2], &[1.0, 2.0])]);
    assert!(refused(&doubling).contains("constants of the graph over"));

    // A column against a row.
    let long = vec![0.5; 100_000];
    let outer = graph(
        vec![
            node("Mul", &["a", "b"], &["c"], vec![]),
            node("Add", &["x", "c"], &["y"], vec![]),
        ],
        vec![
            float_constant("a", &[100_000, 1], &long),
            float_constant("b", &[1, 100_000], &long),
        ],
    );
    assert!(refused(&outer).contains("constants of the graph over"));

    // A size in a value.
    for operator in ["ConstantOfShape", "Expand", "Tile"] {
        let inputs: &[&str] = if operator == "ConstantOfShape" {
            &["n"]
        } else {
            &["a", "n"]
        };
        let sized = graph(
            vec![
                node(operator, inputs, &["c"], vec![]),
                node("Add", &["x", "c"], &["y"], vec![]),
            ],
            vec![
                int_constant("n", &[1], &[1 << 30]),
                float_constant("a", &[1], &[1.0]),
            ],
        );
        assert!(
            refused(&sized).contains("constants of the graph over"),
            "{operator}"
        );
    }
}

#[test]
fn tensors_of_a_run_are_bounded() {
    // [N, 1] times [1, N] is N squared.
    let square = graph(
        vec![
            node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0])]),
            node("MatMul", &["x", "t"], &["y"], vec![]),
        ],
        vec![],
    );
    assert!(refused(&square).contains("grows faster than the number of rows"));

    let wide = graph(
        vec![node("Expand", &["x", "shape"], &["y"], vec![])],
        vec![int_constant("shape", &[2], &[1, 1 << 30])],
    );
    assert!(refused(&wide).contains("bytes for one row"));

    let wider = graph(
        vec![node("Expand", &["x", "shape"], &["y"], vec![])],
        vec![int_constant("shape", &[2], &[1, 1 << 40])],
    );
    assert!(refused(&wider).contains("asks for a size"));
}

#[test]
fn names_of_dimensions_are_names_and_nothing_else() {
    for name in [
        "(".repeat(50_000),
        "1/0".to_string(),
        "a b(c".to_string(),
        "N*N".to_string(),
    ] {
        let mut model = graph(vec![node("Identity", &["x"], &["y"], vec![])], vec![]);
        let input = &mut model.graph.as_mut().unwrap().input[0];
        let Some(pb::type_proto::Value::TensorType(tensor)) =
            input.r#type.as_mut().unwrap().value.as_mut()
        else {
            panic!("a tensor");
        };
        tensor.shape.as_mut().unwrap().dim[0].value =
            Some(pb::tensor_shape_proto::dimension::Value::DimParam(name));
        let model = load(&model);
        assert_eq!(model.inputs()[0].shape, [None, Some(1)]);
    }
}

#[test]
fn a_small_file_that_decodes_into_gigabytes_is_refused_before_decoding() {
    // Empty nodes of two bytes each, in a graph of 20 million bytes.
    let mut bytes = vec![0x3a, 0x80, 0xda, 0xc4, 0x09];
    bytes.extend([0x0a, 0x00].repeat(10_000_000));
    let error = Model::from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");

    let small = Limits {
        file_bytes: 100,
        ..Limits::default()
    };
    let error = Model::from_bytes_with(&sample().encode_to_vec(), &small).unwrap_err();
    assert!(
        matches!(error, LoadError::TooLarge { limit: 100, .. }),
        "{error}"
    );
}

#[test]
fn messages_nested_without_end_are_refused() {
    // A graph in an attribute of a node of a graph in …
    let mut bytes = Vec::new();
    for depth in 0..3000 {
        let field = [0x0a, 0x2a, 0x32][depth % 3];
        let mut outer = vec![field];
        prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
        outer.extend(&bytes);
        bytes = outer;
    }
    let mut model = vec![0x3a];
    prost::encode_length_delimiter(bytes.len(), &mut model).unwrap();
    model.extend(&bytes);
    assert!(matches!(
        Model::from_bytes(&model),
        Err(LoadError::Malformed { .. })
    ));
}

/// A classifier of one tree with three nodes.
fn tree(if_true: &[i64], if_false: &[i64]) -> pb::ModelProto {
    let attributes = vec![
        ints("nodes_treeids", &[0, 0, 0]),
        ints("nodes_nodeids", &[0, 1, 2]),
        ints("nodes_featureids", &[0, 0, 0]),
        ints("nodes_truenodeids", if_true),
        ints("nodes_falsenodeids", if_false),
        floats("nodes_values", &[0.5, 0.0, 0.0]),
        strings("nodes_modes", &["BRANCH_LEQ", "LEAF", "LEAF"]),
        ints("class_treeids", &[0, 0]),
        ints("class_nodeids", &[1, 2]),
        ints("class_ids", &[0, 1]),
        floats("class_weights", &[1.0, 1.0]),
        ints("classlabels_int64s", &[0, 1]),
        string("post_transform", "NONE"),
    ];
    model(pb::GraphProto {
        node: vec![node(
            "TreeEnsembleClassifier",
            &["x"],
            &["label", "y"],
            attributes,
        )],
        input: vec![x()],
        output: vec![named("label"), named("y")],
        ..Default::default()
    })
}

#[test]
fn trees_that_lead_in_circles_or_outside_are_refused() {
    let sound = load(&tree(&[1, 0, 0], &[2, 0, 0]));
    let row = Tensor::from_shape(&[1, 1], &[0.7f32]).unwrap();
    assert_eq!(floats_of(&sound.run(vec![row]).unwrap()[1]), [0.0, 1.0]);

    assert!(refused(&tree(&[0, 0, 0], &[2, 0, 0])).contains("reached twice"));
    assert!(refused(&tree(&[1, 0, 0], &[9, 0, 0])).contains("not there"));
    assert!(refused(&tree(&[1, 0, 0], &[1, 0, 0])).contains("reached twice"));
    assert!(refused(&tree(&[1, 0], &[2, 0, 0])).contains("different lengths"));
}

#[test]
fn the_largest_graph_loads_in_bounded_time() {
    let mut nodes = Vec::new();
    let mut last = "x".to_string();
    for step in 0..4096 {
        let next = if step == 4095 {
            "y".to_string()
        } else {
            format!("v{step}")
        };
        nodes.push(node(
            ["Neg", "Abs", "Exp"][step % 3],
            &[&last],
            &[&next],
            vec![],
        ));
        last = next;
    }
    let started = Instant::now();
    let loaded = Model::from_bytes(&graph(nodes, vec![]).encode_to_vec());
    let took = started.elapsed();
    println!("4096 nodes: {took:?}, {}", loaded.is_ok());
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn odd_names_are_kept_as_they_are() {
    let mut odd = graph(vec![node("Neg", &["x"], &["y"], vec![])], vec![]);
    let graph = odd.graph.as_mut().unwrap();
    let input = "Kündigung? (ja/nein)\u{0}\n";
    let output = "p:0 ; {x}";
    graph.input[0].name = input.to_string();
    graph.output[0].name = output.to_string();
    graph.node[0].input[0] = input.to_string();
    graph.node[0].output[0] = output.to_string();
    graph.node[0].name = "same".to_string();
    graph.node.push(node("Neg", &[output], &["unused"], vec![]));
    graph.node[1].name = "same".to_string();
    let model = load(&odd);
    assert_eq!(model.inputs()[0].name, input);
    assert_eq!(model.outputs()[0].name, output);
}
