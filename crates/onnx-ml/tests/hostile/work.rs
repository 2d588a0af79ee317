//! Work without end.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, graph_attribute, named, row, stopped_both_ways};
use onnx_ml::proto::*;
use onnx_ml::{CompactString, DataType, Limits, Tensor};
use prost::Message;

fn loop_body(nodes: Vec<NodeProto>, carried: &str) -> GraphProto {
    GraphProto {
        node: nodes,
        input: vec![
            value("n", DataType::I64, &[]),
            value("on", DataType::Bool, &[]),
            value("v", DataType::F32, &[Dim::Unnamed]),
        ],
        output: vec![named("on"), named(carried)],
        ..GraphProto::default()
    }
}

#[test]
fn loops_without_end_are_stopped() {
    let numbers: Vec<f32> = vec![1.0; 10_000];
    let bodies = [
        (vec![], "v", "steps"),
        (vec![node("Add", &["v", "v"], &["w"], vec![])], "w", "steps"),
        (
            vec![node("Concat", &["v", "v"], &["w"], vec![int("axis", 0)])],
            "w",
            "bytes",
        ),
        (
            vec![
                node("Unsqueeze", &["v", "one"], &["column"], vec![]),
                node("Unsqueeze", &["v", "zero"], &["line"], vec![]),
                node("MatMul", &["line", "column"], &["m"], vec![]),
                node("Reshape", &["m", "minus"], &["w"], vec![]),
            ],
            "w",
            "steps",
        ),
    ];
    for (nodes, carried, reason) in bodies {
        let body = graph_attribute("body", loop_body(nodes, carried));
        let repeat = node("Loop", &["trips", "", "a"], &["c"], vec![body]);
        let fixed = [
            int_constant("zero", &[1], &[0]),
            int_constant("one", &[1], &[1]),
            int_constant("minus", &[1], &[-1]),
        ];
        let mut model = graph(
            vec![
                repeat,
                node("Size", &["c"], &["s"], vec![]),
                node("Cast", &["s"], &["f"], vec![int("to", 1)]),
                node("Add", &["x", "f"], &["y"], vec![]),
            ],
            vec![
                float_constant("a", &[10_000], &numbers),
                int_constant("trips", &[], &[i64::MAX]),
            ],
        );
        model.graph.as_mut().unwrap().initializer.extend(fixed);
        stopped(&model, row(), reason);
        // The same with the number of trips from the input.
        let inner = model.graph.as_mut().unwrap();
        inner.initializer.retain(|tensor| tensor.name != "trips");
        inner.input.push(value("trips", DataType::I64, &[]));
        let mut inputs = row();
        inputs.push(Tensor::scalar(i64::MAX));
        stopped(&model, inputs, reason);
    }
}

#[test]
fn scanning_nothing_very_often_is_stopped() {
    let body = GraphProto {
        input: vec![value("part", DataType::F32, &[Dim::Fixed(0)])],
        output: vec![named("part")],
        ..GraphProto::default()
    };
    let scan = node(
        "Scan",
        &["a"],
        &["c"],
        vec![graph_attribute("body", body), int("num_scan_inputs", 1)],
    );
    let nothing = float_constant("a", &[1 << 40, 0], &[]);
    stopped_both_ways(vec![scan], vec![nothing], "steps");
}

#[test]
fn long_computations_are_stopped_when_loading_and_in_a_run() {
    // A few bytes of file for 10^12 multiplications.
    let mut nodes = vec![node("Expand", &["a", "shape"], &["m0"], vec![])];
    for step in 0..100 {
        let (from, to) = (format!("m{step}"), format!("m{}", step + 1));
        nodes.push(node("MatMul", &[&from, &from], &[&to], vec![]));
    }
    nodes.push(node("ReduceSum", &["m100"], &["s"], vec![]));
    nodes.push(node("Add", &["x", "s"], &["y"], vec![]));
    let constants = vec![
        float_constant("a", &[1, 1], &[0.01]),
        int_constant("shape", &[2], &[300, 300]),
    ];
    let limits = Limits {
        steps: 200,
        nodes: 200,
        ..small()
    };
    let model = graph(nodes, constants);
    let outcome = try_bytes(&model.encode_to_vec(), &limits, row());
    assert!(outcome.reason.contains("steps"), "{}", outcome.reason);

    // The others whose work is more than their tensors: each many times what a run may do.
    let long: Vec<f32> = vec![0.5; 20_000];
    let limits = Limits {
        steps: 10,
        ..small()
    };
    let matrix = |name: &str, dims: &[i64]| float_constant(name, dims, &long);
    let mut distances = node("CDist", &["a", "b"], &["c"], vec![]);
    distances.domain = "com.microsoft".to_string();
    let support = node(
        "SVMRegressor",
        &["a"],
        &["c"],
        vec![
            string("kernel_type", "LINEAR"),
            floats("kernel_params", &[1.0, 0.0, 1.0]),
            floats("support_vectors", &long),
            int("n_supports", 200),
            floats("coefficients", &[1.0; 200]),
            floats("rho", &[0.0]),
        ],
    );
    let linear = node(
        "LinearRegressor",
        &["a"],
        &["c"],
        vec![
            floats("coefficients", &long),
            int("targets", 200),
            floats("intercepts", &[0.0; 200]),
        ],
    );
    let cases = [
        (
            distances,
            vec![matrix("a", &[200, 100]), matrix("b", &[200, 100])],
        ),
        (support, vec![matrix("a", &[200, 100])]),
        (linear, vec![matrix("a", &[200, 100])]),
        (
            node("Gemm", &["a", "b"], &["c"], vec![int("transB", 1)]),
            vec![matrix("a", &[200, 100]), matrix("b", &[200, 100])],
        ),
        (
            node(
                "Einsum",
                &["a", "b"],
                &["c"],
                vec![string("equation", "ij,kj->ik")],
            ),
            vec![matrix("a", &[200, 100]), matrix("b", &[200, 100])],
        ),
    ];
    for (one, constants) in cases {
        let operator = one.op_type.clone();
        let mut model = graph(vec![one], vec![]);
        let inner = model.graph.as_mut().unwrap();
        inner.output[0].name = "c".to_string();
        inner.input.clear();
        for constant in &constants {
            let dims = [Dim::Unnamed, Dim::Unnamed];
            inner
                .input
                .push(value(&constant.name, DataType::F32, &dims));
        }
        let read = |constant| Tensor::from_proto(constant).unwrap();
        let inputs = constants.iter().map(read).collect();
        let outcome = try_bytes(&model.encode_to_vec(), &limits, inputs);
        let reason = outcome.reason;
        assert!(reason.contains("steps"), "{operator}: {reason}");
    }
}

#[test]
fn patterns_are_bounded_in_size_and_number() {
    let text = || vec![value("x", DataType::String, &[Dim::Named("N")])];
    let regex = |pattern: &str, to: &str| {
        node(
            "RegexFullMatch",
            &["x"],
            &[to],
            vec![string("pattern", pattern)],
        )
    };
    let model = |nodes| {
        let mut model = file(nodes, vec![], text(), vec![named("y")]);
        model.opset_import[0].version = 20;
        model
    };
    refused(&model(vec![regex(&"a".repeat(1 << 20), "y")]), "bytes");
    refused(
        &model(vec![regex(r"((\w{100}){100}){100}", "y")]),
        "pattern",
    );
    refused(&model(vec![regex(&"(".repeat(60_000), "y")]), "pattern");
    let names: Vec<String> = (0..2000).map(|number| format!("v{number}")).collect();
    let nodes = names.iter().map(|name| regex(r"\w{40}", name)).collect();
    stopped(&model(nodes), Vec::new(), "patterns take too much memory");
    let mut few = vec![regex("[ab]+", "y")];
    few[0].name = "few".to_string();
    let rows = Tensor::vector(vec![CompactString::from("abba")]);
    accepted(&model(few), vec![rows]);

    let tokenizer = |attributes| {
        let mut one = node("Tokenizer", &["x"], &["y"], attributes);
        one.domain = "com.microsoft".to_string();
        model(vec![one])
    };
    let set = format!("[{}]{{64}}", "ab".repeat(100_000));
    refused(&tokenizer(vec![string("tokenexp", &set)]), "a pattern has");
    let separators = vec!["ab"; 100_000];
    refused(
        &tokenizer(vec![strings("separators", &separators)]),
        "separators",
    );
}
