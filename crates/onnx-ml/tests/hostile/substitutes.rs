//! Functions and sequences: what is put in the place of a few nodes.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, named, row, x};
use onnx_ml::Limits;
use onnx_ml::proto::*;
use prost::Message;

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.to_string(),
        domain: "own".to_string(),
        input: vec!["a".to_string()],
        output: vec!["b".to_string()],
        node: nodes,
        ..FunctionProto::default()
    }
}

fn call(name: &str, from: &str, to: &str) -> NodeProto {
    NodeProto {
        domain: "own".to_string(),
        ..node(name, &[from], &[to], vec![])
    }
}

#[test]
fn functions_cannot_call_themselves_or_grow_without_end() {
    let mut model = graph(vec![call("f", "x", "y")], vec![]);
    model.functions = vec![function("f", vec![call("f", "a", "b")])];
    refused(&model, "operator own.f is not supported");

    // Each of eight functions calls the next a hundred times.
    let mut functions = Vec::new();
    for depth in 0..8 {
        let next = format!("f{}", depth + 1);
        let names: Vec<String> = (0..100).map(|number| format!("v{number}")).collect();
        let calls = names.iter().map(|name| call(&next, "a", name)).collect();
        functions.push(function(&format!("f{depth}"), calls));
    }
    functions.push(function("f8", vec![node("Neg", &["a"], &["b"], vec![])]));
    let mut model = graph(vec![call("f0", "x", "y")], vec![]);
    model.functions = functions;
    refused(&model, "the number of nodes");
}

#[test]
fn functions_do_not_copy_constants_and_names_without_end() {
    let calls = || -> Vec<NodeProto> {
        let names: Vec<String> = (0..10_000).map(|number| format!("v{number}")).collect();
        names.iter().map(|name| call("f", "x", name)).collect()
    };
    let numbers: Vec<f32> = vec![0.5; 250_000];
    let constant = || {
        let mut attribute = int("value", 0);
        attribute.r#type = AttributeType::Tensor as i32;
        attribute.t = Some(float_constant("", &[250_000], &numbers));
        attribute
    };
    // A constant of a million bytes in the function, or in the call.
    let mut model = graph(calls(), vec![]);
    model.functions = vec![function(
        "f",
        vec![node("Constant", &[], &["b"], vec![constant()])],
    )];
    refused(&model, "size of the file's functions");
    let mut refers = constant();
    refers.t = None;
    refers.ref_attr_name = "value".to_string();
    let inner = node("Constant", &[], &["b"], vec![refers]);
    let mut caller = call("f", "x", "y");
    caller.attribute.push(constant());
    let mut model = graph(vec![caller], vec![]);
    model.functions = vec![function("f", vec![inner; 10_000])];
    refused(&model, "size of the file's functions");
    // A name of a million letters.
    let long = "n".repeat(1_000_000);
    let mut model = graph(calls(), vec![]);
    model.functions = vec![function("f", vec![node("Neg", &["a"], &[&long], vec![])])];
    refused(&model, "size of the file's functions");
    // A hundred thousand inputs, or outputs without a node.
    let mut model = graph(calls(), vec![]);
    let mut wide = function("f", vec![]);
    wide.input = vec!["i".to_string(); 100_000];
    model.functions = vec![wide];
    try_bytes(&model.encode_to_vec(), &Limits::default(), row());
}

#[test]
fn sequences_do_not_copy_names_without_end() {
    let long = "n".repeat(1_000_000);
    let parts = vec!["x"; 1000];
    let construct = || node("SequenceConstruct", &parts, &["s"], vec![]);
    let concat = node(
        "ConcatFromSequence",
        &["s"],
        &[&long],
        vec![int("axis", 0), int("new_axis", 1)],
    );
    let model = file(
        vec![construct(), concat],
        vec![],
        vec![x()],
        vec![named(&long)],
    );
    refused(&model, "Sequence");
    let mut named_long = construct();
    named_long.output[0] = long.clone();
    let model = file(vec![named_long], vec![], vec![x()], vec![named(&long)]);
    refused(&model, "Sequence");
    // Parts with long names, read a thousand times.
    let mut nodes = vec![node("Neg", &["x"], &[&long], vec![])];
    nodes.push(node("SequenceConstruct", &[&long], &["s"], vec![]));
    for number in 0..1000 {
        let name = format!("y{number}");
        nodes.push(node("SequenceAt", &["s", "zero"], &[&name], vec![]));
    }
    let zero = int_constant("zero", &[], &[0]);
    let model = file(nodes, vec![zero], vec![x()], vec![named("y0")]);
    try_bytes(&model.encode_to_vec(), &Limits::default(), row());
}
