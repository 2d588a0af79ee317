//! Many of something.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, graph_attribute, named, row, x};
use onnx_ml::proto::*;
use onnx_ml::{DataType, Limits, Tensor};
use prost::Message;

#[test]
fn the_largest_graph_loads_in_time_that_grows_with_its_size() {
    let names: Vec<String> = (0..16_384).map(|step| format!("v{step}")).collect();
    let mut nodes = Vec::new();
    for (step, name) in names.iter().enumerate() {
        let last = if step == 0 { "x" } else { &names[step - 1] };
        nodes.push(node(["Neg", "Abs"][step % 2], &[last], &[name], vec![]));
    }
    nodes[16_383].output[0] = "y".to_string();
    let chain = graph(nodes, vec![]);
    accepted(&chain, row());
    let mut longer = chain;
    let more = node("Neg", &["x"], &["z"], vec![]);
    longer.graph.as_mut().unwrap().node.push(more);
    refused(&longer, "the number of nodes is 16385, the limit is 16384");
}

#[test]
fn fifty_thousand_of_anything_takes_time_that_grows_with_their_number() {
    let many = 50_000;
    let names: Vec<String> = (0..many).map(|number| format!("v{number}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();

    // Attributes of a node.
    let attributes = names.iter().map(|name| int(name, 1)).collect();
    let model = graph(vec![node("Neg", &["x"], &["y"], attributes)], vec![]);
    refused(&model, "50000 attributes");
    // Inputs of a node, all the same or all absent.
    for (operator, input) in [("Sum", "x"), ("Max", "x"), ("Concat", "x"), ("Sum", "")] {
        let attributes = match operator {
            "Concat" => vec![int("axis", 1)],
            _ => vec![],
        };
        let mut inputs = vec![input; many];
        inputs[0] = "x";
        let model = graph(vec![node(operator, &inputs, &["y"], attributes)], vec![]);
        try_bytes(&model.encode_to_vec(), &Limits::default(), row());
    }
    // Outputs of a node, all of the graph's.
    let split = node("Split", &["x"], &all, vec![int("axis", 0)]);
    let typed = |name: &&str| value(name, DataType::F32, &[Dim::Unnamed, Dim::Unnamed]);
    let outputs = all.iter().map(typed).collect();
    let model = file(vec![split], vec![], vec![x()], outputs);
    let rows = Tensor::new(&[many, 1], vec![0.5f32; many]).unwrap();
    accepted(&model, vec![rows]);
    // The graph's inputs, which are outputs too.
    let inputs = all.iter().map(|name| value(name, DataType::F32, &[]));
    let outputs = all.iter().map(|name| named(name)).collect();
    let model = file(vec![], vec![], inputs.collect(), outputs);
    let scalar = || Tensor::scalar(1.0f32);
    accepted(&model, (0..many).map(|_| scalar()).collect());
    // Initializers.
    let constants = all.iter().map(|name| float_constant(name, &[1], &[1.0]));
    let sum = node("Add", &["x", "v0"], &["y"], vec![]);
    accepted(&graph(vec![sum], constants.collect()), row());
    // Imported operator sets.
    let mut model = graph(vec![node("Identity", &["x"], &["y"], vec![])], vec![]);
    let import = |version| OperatorSetIdProto {
        domain: String::new(),
        version,
    };
    model.opset_import = vec![import(1); many];
    let identities = (0..1000).map(|_| node("Identity", &["x"], &["z"], vec![]));
    model.graph.as_mut().unwrap().node.extend(identities);
    refused(&model, "defined twice");
    // Axes.
    let axes: Vec<i64> = (0..many as i64).collect();
    let order = node("Transpose", &["x"], &["y"], vec![ints("perm", &axes)]);
    stopped(&graph(vec![order], vec![]), row(), "perm");
    for operator in ["Unsqueeze", "Squeeze", "ReduceSum", "Reshape", "Expand"] {
        let list = match operator {
            "Reshape" | "Expand" => vec![1; many],
            _ => axes.clone(),
        };
        let model = graph(
            vec![node(operator, &["x", "axes"], &["y"], vec![])],
            vec![int_constant("axes", &[many as i64], &list)],
        );
        let outcome = try_bytes(&model.encode_to_vec(), &Limits::default(), row());
        assert_ne!(outcome.reason, "", "{operator}");
    }
    // Letters and inputs of an equation.
    for equation in ["a".repeat(many), "a,".repeat(many - 1) + "a->"] {
        let inputs = vec!["x"; equation.split(',').count()];
        let einsum = node(
            "Einsum",
            &inputs,
            &["y"],
            vec![string("equation", &equation)],
        );
        refused(&graph(vec![einsum], vec![]), "equation");
    }
    // Carried values of a loop without end.
    let carried = 20_000;
    let mut body = GraphProto {
        input: vec![
            value("n", DataType::I64, &[]),
            value("on", DataType::Bool, &[]),
        ],
        output: vec![named("on")],
        ..GraphProto::default()
    };
    for name in &all[..carried] {
        body.input.push(value(name, DataType::F32, &[]));
        body.output.push(named(name));
    }
    let mut inputs = vec!["", ""];
    inputs.extend(vec!["x"; carried]);
    let repeat = node("Loop", &inputs, &["y"], vec![graph_attribute("body", body)]);
    stopped(&graph(vec![repeat], vec![]), row(), "steps");
}

#[test]
fn constants_are_not_copied_for_every_node() {
    // A thousand nodes that could each keep a packed or converted copy of one constant.
    let numbers: Vec<f32> = (0..64 * 1024).map(|number| number as f32).collect();
    let indices: Vec<i64> = vec![0; 100_000];
    for operator in ["MatMul", "Gemm", "CDist", "Gather", "Identity", "Add"] {
        let mut nodes = Vec::new();
        let names: Vec<String> = (0..1000).map(|number| format!("v{number}")).collect();
        for name in &names {
            let mut one = match operator {
                "Gather" => node(operator, &["x", "indices"], &[name], vec![]),
                "Identity" => node(operator, &["numbers"], &[name], vec![]),
                "Add" => node(operator, &["numbers", "numbers"], &[name], vec![]),
                _ => node(operator, &["x", "numbers"], &[name], vec![]),
            };
            if operator == "CDist" {
                one.domain = "com.microsoft".to_string();
                one.input = vec!["numbers".to_string(), "numbers".to_string()];
                one.input[0] = "x".to_string();
            }
            nodes.push(one);
        }
        let mut model = graph(
            nodes,
            vec![
                float_constant("numbers", &[1, 64 * 1024], &numbers),
                int_constant("indices", &[100_000], &indices),
            ],
        );
        let inner = model.graph.as_mut().unwrap();
        inner.output = names.iter().map(|name| named(name)).collect();
        try_bytes(&model.encode_to_vec(), &small(), row());
    }
}
