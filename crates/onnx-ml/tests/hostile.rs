//! Files and calls made to do harm: each is refused with the name of the place, or its run is
//! stopped, in bounded time and memory, and none makes anything panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/bounds.rs"]
mod bounds;
mod common;
#[path = "common/outcome.rs"]
mod outcome;

use bounds::{Counting, Measurement};
use common::*;
use onnx_ml::proto::*;
use onnx_ml::{CompactString, DataType, Limits, LoadError, Model, Tensor};
use outcome::*;
use prost::Message;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn x() -> ValueInfoProto {
    column("x", DataType::F32)
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.to_string(),
        r#type: None,
    }
}

/// A graph from `x` to `y` with constants.
fn graph(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    let y = value("y", DataType::F32, &[Dim::Unnamed, Dim::Unnamed]);
    file(nodes, constants, vec![x()], vec![y])
}

fn row() -> Vec<Tensor> {
    vec![Tensor::new(&[1, 1], vec![0.5f32]).unwrap()]
}

fn text_constant(name: &str, dims: &[i64], texts: &[&str]) -> TensorProto {
    TensorProto {
        name: name.to_string(),
        dims: dims.to_vec(),
        data_type: DataType::String as i32,
        string_data: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        ..TensorProto::default()
    }
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        g: Some(graph),
        r#type: AttributeType::Graph as i32,
        ..AttributeProto::default()
    }
}

// ---- Files that are not what they seem.

#[test]
fn a_file_cut_anywhere_is_refused_or_harmless() {
    let whole = tree(&[1, 0, 0], &[2, 0, 0]).encode_to_vec();
    for length in 0..whole.len() {
        try_bytes(&whole[..length], &small(), row());
    }
    assert!(Model::from_bytes(&whole).is_ok());
    assert!(Model::from_bytes(&[]).is_err());
}

#[test]
fn a_small_file_that_decodes_into_gigabytes_is_refused_before_decoding() {
    // Empty nodes of two bytes each, in a graph of 20 million bytes.
    let mut bytes = vec![0x3a, 0x80, 0xda, 0xc4, 0x09];
    bytes.extend([0x0a, 0x00].repeat(10_000_000));
    let measurement = Measurement::start();
    let error = Model::from_bytes(&bytes).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    // Decoded it would be gigabytes; tests that run beside this one take some memory, too.
    assert!(measurement.peak() < 16 * MIB);
    drop(measurement);

    let limits = Limits {
        file_bytes: 100,
        ..Limits::default()
    };
    let whole = tree(&[1, 0, 0], &[2, 0, 0]).encode_to_vec();
    let error = Model::from_bytes_with(&whole, &limits).unwrap_err();
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
        let field = [0x32, 0x2a, 0x0a][depth % 3];
        let mut outer = vec![field];
        prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
        outer.extend(&bytes);
        bytes = outer;
    }
    let mut model = vec![0x3a];
    prost::encode_length_delimiter(bytes.len(), &mut model).unwrap();
    model.extend(&bytes);
    let outcome = try_bytes(&model, &small(), Vec::new());
    assert!(outcome.reason.contains("deep"), "{}", outcome.reason);

    // As deep as messages may be, with a name at the innermost that every graph captures.
    let mut inner = GraphProto {
        node: vec![node("Identity", &["x"], &["y"], vec![])],
        output: vec![named("y")],
        ..GraphProto::default()
    };
    for _ in 0..9 {
        let attributes = vec![
            graph_attribute("then_branch", inner.clone()),
            graph_attribute("else_branch", inner),
        ];
        inner = GraphProto {
            node: vec![node("If", &["c"], &["y"], attributes)],
            output: vec![named("y")],
            ..GraphProto::default()
        };
    }
    let mut model = file(inner.node, vec![], vec![x()], vec![named("y")]);
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(value("c", DataType::Bool, &[]));
    refused(&model, "deep");
}

#[test]
fn lengths_and_counts_that_the_file_does_not_hold_are_refused() {
    let add = || vec![node("Add", &["x", "c"], &["y"], vec![])];
    let constant = |dims: &[i64]| graph(add(), vec![float_constant("c", dims, &[1.0])]);
    refused(
        &constant(&[1000]),
        "initializer `c`: shape [1000] needs 1000 values",
    );
    refused(&constant(&[i64::MAX, i64::MAX]), "too many elements");
    refused(&constant(&[1 << 40]), "needs 1099511627776 values");
    refused(&constant(&[-1]), "negative");
    refused(&constant(&[1; 100_000]), "100000 dimensions");

    let mut raw = float_constant("c", &[1 << 62], &[]);
    raw.raw_data = vec![0; 8];
    refused(&graph(add(), vec![raw]), "raw data");
    let mut outside = float_constant("c", &[1], &[]);
    outside.data_location = 1;
    refused(&graph(add(), vec![outside]), "external data");
    let mut located = float_constant("c", &[1], &[]);
    located.external_data.push(StringStringEntryProto {
        key: "location".to_string(),
        value: "/etc/passwd".to_string(),
    });
    refused(&graph(add(), vec![located]), "external data");
    let mut segment = float_constant("c", &[1], &[1.0]);
    segment.segment = Some(Segment { begin: 0, end: 9 });
    refused(&graph(add(), vec![segment]), "segments");

    let mut sparse = graph(add(), vec![]);
    sparse.graph.as_mut().unwrap().sparse_initializer = vec![SparseTensorProto {
        values: Some(float_constant("c", &[1], &[1.0])),
    }];
    refused(&sparse, "initializer `c`: sparse");
    let mut attribute = int("sparse_value", 0);
    attribute.r#type = AttributeType::SparseTensor as i32;
    attribute.sparse_tensor = Some(SparseTensorProto::default());
    let sparse = node("Constant", &[], &["y"], vec![attribute]);
    refused(&graph(vec![sparse], vec![]), "sparse");
}

#[test]
fn broken_wiring_is_refused_with_the_name() {
    let identity = |from: &str, to: &str| node("Identity", &[from], &[to], vec![]);
    let wired = |nodes| graph(nodes, vec![]);
    let missing = node("Add", &["x", "nowhere"], &["y"], vec![]);
    refused(&wired(vec![missing]), "`nowhere`");
    let ring = vec![
        node("Add", &["x", "b"], &["a"], vec![]),
        identity("a", "b"),
        identity("b", "y"),
    ];
    refused(&wired(ring), "`b`");
    let own = vec![node("Add", &["x", "y"], &["y"], vec![])];
    refused(&wired(own), "`y`");
    refused(
        &wired(vec![identity("x", "z")]),
        "graph output `y`: nothing in the graph produces it",
    );
    let twice = vec![identity("x", "y"), node("Neg", &["x"], &["y"], vec![])];
    refused(&wired(twice), "output `y` is defined twice");
    refused(
        &wired(vec![identity("x", "x")]),
        "output `x` is defined twice",
    );
    let mut model = wired(vec![identity("x", "y")]);
    model.graph.as_mut().unwrap().output.push(named("y"));
    refused(&model, "graph output `y`: the name is used twice");
    let mut model = wired(vec![identity("x", "y")]);
    model.graph.as_mut().unwrap().input.push(x());
    refused(&model, "graph input `x`");
    let constant = || float_constant("c", &[1], &[1.0]);
    let model = graph(vec![identity("c", "y")], vec![constant(), constant()]);
    refused(&model, "initializer `c`: the name is used twice");
    refused(&ModelProto::default(), "no graph");
    let mut model = wired(vec![identity("x", "y")]);
    model.graph.as_mut().unwrap().output.clear();
    refused(&model, "no output");
    let mut nothing = identity("x", "y");
    nothing.output.clear();
    refused(&wired(vec![nothing]), "it has no output");
}

#[test]
fn unknown_operators_are_refused_by_node_and_name() {
    let mut foreign = node("Add", &["x", "x"], &["y"], vec![]);
    foreign.domain = "com.example".to_string();
    refused(
        &graph(vec![foreign], vec![]),
        "node `y`: operator com.example.Add is not supported",
    );
    let mut unknown = node("Frobnicate", &["x"], &["y"], vec![]);
    unknown.name = "my node".to_string();
    refused(
        &graph(vec![unknown], vec![]),
        "node `my node`: operator Frobnicate is not supported",
    );
    let mut extra = node("Neg", &["x"], &["y"], vec![]);
    extra.attribute.push(int("speed", 11));
    refused(&graph(vec![extra], vec![]), "attribute `speed`");
}

#[test]
fn names_of_any_kind_are_names_and_nothing_else() {
    let mut odd = graph(vec![node("Neg", &["x"], &["y"], vec![])], vec![]);
    let inner = odd.graph.as_mut().unwrap();
    let (input, output) = ("Kündigung? (ja/nein)\u{0}\n", "p:0 ; {x}");
    inner.input[0].name = input.to_string();
    inner.output[0].name = output.to_string();
    inner.node[0].input[0] = input.to_string();
    inner.node[0].output[0] = output.to_string();
    let model = load(&odd);
    assert_eq!(model.inputs()[0].name, input);
    assert_eq!(model.outputs()[0].name, output);

    for name in ["(".repeat(50_000), "1/0".to_string(), "N*N".to_string()] {
        let mut model = graph(vec![node("Identity", &["x"], &["y"], vec![])], vec![]);
        let Some(TypeValue::Tensor(tensor)) = model.graph.as_mut().unwrap().input[0]
            .r#type
            .as_mut()
            .and_then(|of| of.value.as_mut())
        else {
            panic!("a tensor");
        };
        tensor.shape.as_mut().unwrap().dim[0].value = Some(DimensionValue::DimParam(name));
        assert_eq!(load(&model).inputs()[0].shape, [None, Some(1)]);
    }
}

// ---- Many of something.

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

// ---- Functions and sequences: what is put in the place of a few nodes.

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

// ---- Tensors that grow: when the file is loaded, and in a run.

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

/// `nodes` turn `a` and `b` into `c`, which is summed up. With the constants in the file, and with
/// the same as inputs.
#[track_caller]
fn stopped_both_ways(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, reason: &str) {
    let mut nodes = nodes;
    nodes.push(node("Size", &["c"], &["s"], vec![]));
    nodes.push(node("Cast", &["s"], &["f"], vec![int("to", 1)]));
    nodes.push(node("Add", &["x", "f"], &["y"], vec![]));
    stopped(&graph(nodes.clone(), constants.clone()), row(), reason);
    let mut model = graph(nodes, vec![]);
    let mut inputs = row();
    for constant in &constants {
        let tensor = Tensor::from_proto(constant).unwrap();
        let dims: Vec<Dim> = tensor.shape().iter().map(|_| Dim::Unnamed).collect();
        let input = value(&constant.name, tensor.data_type(), &dims);
        model.graph.as_mut().unwrap().input.push(input);
        inputs.push(tensor);
    }
    stopped(&model, inputs, reason);
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

// ---- Work without end.

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

// ---- Sizes that overflow where there is nothing to count.

#[test]
fn empty_tensors_of_enormous_shapes_do_no_harm() {
    let long = 1 << 62;
    let shapes: [&[i64]; 7] = [
        &[0, long, long],
        &[0, 2, long, long],
        &[0, 3, 1 << 40, 1 << 40],
        &[long, 0],
        &[0, long, long, long],
        &[0, 0, long],
        &[2, 0, long, long],
    ];
    for shape in shapes {
        let rank = shape.len();
        let labels = &"abcd"[..rank];
        let empty = || float_constant("a", shape, &[]);
        let ends = int_constant("ends", &[2], &[0, (rank - 1) as i64]);
        let one_axis = int_constant("axis", &[], &[1]);
        let zeros = int_constant("zeros", &[2], &[0, 0]);
        let pads = int_constant("pads", &[2 * rank as i64], &vec![1; 2 * rank]);
        let pads_back = int_constant("back", &[2 * rank as i64], &vec![i64::MIN; 2 * rank]);
        let fours = int_constant("four", &[1], &[4]);
        let einsum = |equation: String| {
            node(
                "Einsum",
                &["a"],
                &["c"],
                vec![string("equation", &equation)],
            )
        };
        let order: Vec<i64> = (0..rank as i64).rev().collect();
        let cases = vec![
            einsum(format!("{labels}->{}", &labels[1..2])),
            einsum(format!("{labels}->")),
            einsum("bbbb"[..rank].to_string()),
            node("ReduceSum", &["a", "ends"], &["c"], vec![]),
            node("ReduceMean", &["a"], &["c"], vec![]),
            node("ReduceMax", &["a"], &["c"], vec![]),
            node("ArgMax", &["a"], &["c"], vec![int("axis", -1)]),
            node("CumSum", &["a", "axis"], &["c"], vec![]),
            node("Transpose", &["a"], &["c"], vec![ints("perm", &order)]),
            node("Softmax", &["a"], &["c"], vec![]),
            node("Flatten", &["a"], &["c"], vec![]),
            node("Concat", &["a", "a"], &["c"], vec![int("axis", 1)]),
            node("Split", &["a"], &["c", "d"], vec![int("axis", 1)]),
            node("Pad", &["a", "pads"], &["c"], vec![]),
            node("Pad", &["a", "back"], &["c"], vec![]),
            node("Gather", &["a", "zeros"], &["c"], vec![int("axis", 1)]),
            node("GatherND", &["a", "zeros"], &["c"], vec![]),
            node("Slice", &["a", "zeros", "ends"], &["c"], vec![]),
            node("TopK", &["a", "four"], &["c", "d"], vec![]),
            node("Unique", &["a"], &["c"], vec![int("axis", 1)]),
            node("Unique", &["a"], &["c"], vec![int("axis", 0)]),
            node("NonZero", &["a"], &["c"], vec![]),
            node("MatMul", &["a", "a"], &["c"], vec![]),
            node("Tile", &["a", "ends"], &["c"], vec![]),
            node("Reshape", &["a", "four"], &["c"], vec![]),
            node("Add", &["a", "x"], &["c"], vec![]),
            node("Shape", &["a"], &["c"], vec![]),
            node("Trilu", &["a"], &["c"], vec![]),
            node("EyeLike", &["a"], &["c"], vec![]),
            node("Compress", &["a", "zeros"], &["c"], vec![int("axis", 1)]),
            node("LayerNormalization", &["a", "x"], &["c"], vec![]),
            node(
                "BatchNormalization",
                &["a", "x", "x", "x", "x"],
                &["c"],
                vec![],
            ),
            node("Normalizer", &["a"], &["c"], vec![]),
            node(
                "Scaler",
                &["a"],
                &["c"],
                vec![floats("offset", &[1.0]), floats("scale", &[1.0])],
            ),
            node(
                "FeatureVectorizer",
                &["a"],
                &["c"],
                vec![ints("inputdimensions", &[4])],
            ),
            node(
                "OneHotEncoder",
                &["a"],
                &["c"],
                vec![ints("cats_int64s", &[1, 2])],
            ),
        ];
        for one in cases {
            let constants = vec![
                ends.clone(),
                one_axis.clone(),
                zeros.clone(),
                pads.clone(),
                pads_back.clone(),
                fours.clone(),
            ];
            let mut model = graph(vec![one.clone()], constants);
            let inner = model.graph.as_mut().unwrap();
            inner.output = vec![named("c")];
            inner.initializer.push(empty());
            try_bytes(&model.encode_to_vec(), &small(), row());
            // And from the input.
            let inner = model.graph.as_mut().unwrap();
            inner.initializer.pop();
            let dims: Vec<Dim> = shape.iter().map(|_| Dim::Unnamed).collect();
            inner.input.push(value("a", DataType::F32, &dims));
            let mut inputs = row();
            inputs.push(Tensor::from_proto(&empty()).unwrap());
            try_bytes(&model.encode_to_vec(), &small(), inputs);
        }
    }
}

#[test]
fn pads_that_overflow_are_refused() {
    for pads in [
        [i64::MAX, -(i64::MAX - 5)],
        [i64::MIN, i64::MAX],
        [i64::MAX, i64::MAX],
        [-(i64::MAX - 5), i64::MAX],
    ] {
        for mode in ["constant", "edge", "reflect", "wrap"] {
            let mut model = graph(
                vec![node("Pad", &["a", "b"], &["y"], vec![string("mode", mode)])],
                vec![
                    float_constant("a", &[10], &[1.0; 10]),
                    int_constant("b", &[2], &pads),
                ],
            );
            model.opset_import[0].version = 19;
            stopped(&model, row(), "pad");
        }
    }
}

#[test]
fn inputs_of_enormous_fixed_sizes_are_not_tried_out() {
    // Each is within bounds, all together are not.
    let names: Vec<String> = (0..1000).map(|number| format!("x{number}")).collect();
    let size = Dim::Fixed(1 << 20);
    let inputs = names
        .iter()
        .map(|name| value(name, DataType::U8, &[Dim::Named("N"), size]));
    let shapes = node("Shape", &["x0"], &["y"], vec![]);
    let model = file(vec![shapes], vec![], inputs.collect(), vec![named("y")]);
    try_bytes(&model.encode_to_vec(), &small(), Vec::new());
    let value = value(
        "x",
        DataType::U8,
        &[Dim::Fixed(1 << 40), Dim::Fixed(1 << 40)],
    );
    let identity = node("Identity", &["x"], &["y"], vec![]);
    let model = file(vec![identity], vec![], vec![value], vec![named("y")]);
    refused(
        &model,
        "graph input `x`: its fixed dimensions are too large",
    );
}

// ---- Trees.

#[test]
fn trees_that_lead_outside_are_refused() {
    accepted(&tree(&[1, 0, 0], &[2, 0, 0]), row());
    refused(&tree(&[1, 0, 0], &[9, 0, 0]), "false node 9 is not there");
    refused(&tree(&[-1, 0, 0], &[2, 0, 0]), "true node -1 is not there");
    refused(&tree(&[1, 0], &[2, 0, 0]), "has 2 elements");
    refused(&tree(&[i64::MAX, 0, 0], &[i64::MIN, 0, 0]), "is not there");
}

/// A regressor of these trees: for each node its tree, id, mode, yes and no; for each leaf weight
/// its tree, node, target.
fn forest(
    targets: i64,
    features: i64,
    nodes: &[(i64, i64, &str, i64, i64)],
    weights: &[(i64, i64, i64)],
) -> ModelProto {
    let mut modes = Vec::new();
    let mut columns: [Vec<i64>; 5] = Default::default();
    for (tree, id, mode, yes, no) in nodes {
        for (column, number) in columns.iter_mut().zip([*tree, *id, *yes, *no, features]) {
            column.push(number);
        }
        modes.push(*mode);
    }
    let [trees, ids, yes, no, features] = columns;
    let of_weights = |pick: fn(&(i64, i64, i64)) -> i64| weights.iter().map(pick).collect();
    let (weight_trees, weight_nodes, weight_targets): (Vec<i64>, Vec<i64>, Vec<i64>) = (
        of_weights(|weight| weight.0),
        of_weights(|weight| weight.1),
        of_weights(|weight| weight.2),
    );
    let attributes = vec![
        ints("nodes_treeids", &trees),
        ints("nodes_nodeids", &ids),
        ints("nodes_featureids", &features),
        floats("nodes_values", &vec![0.5; nodes.len()]),
        strings("nodes_modes", &modes),
        ints("nodes_truenodeids", &yes),
        ints("nodes_falsenodeids", &no),
        ints("target_treeids", &weight_trees),
        ints("target_nodeids", &weight_nodes),
        ints("target_ids", &weight_targets),
        floats("target_weights", &vec![1.0; weights.len()]),
        int("n_targets", targets),
    ];
    graph(
        vec![node("TreeEnsembleRegressor", &["x"], &["y"], attributes)],
        vec![],
    )
}

#[test]
fn trees_that_lead_in_circles_are_refused() {
    let leaf = (0, 2, "LEAF", 0, 0);
    let ring = [(0, 0, "BRANCH_LEQ", 1, 2), (0, 1, "BRANCH_LEQ", 0, 2), leaf];
    refused(&forest(1, 0, &ring, &[(0, 2, 0)]), "no root");
    let own = [(0, 0, "BRANCH_LEQ", 1, 2), (0, 1, "BRANCH_GT", 1, 2), leaf];
    refused(&forest(1, 0, &own, &[(0, 2, 0)]), "leads back to itself");
}

#[test]
fn trees_with_far_more_targets_than_leaves_take_no_more_memory_than_their_file() {
    // Every leaf gives something to two targets of sixteen million, so that no two trees share one.
    let mut nodes = Vec::new();
    let mut weights = Vec::new();
    for tree in 0..100 {
        nodes.push((tree, 0, "BRANCH_LEQ", 1, 2));
        nodes.push((tree, 1, "LEAF", 0, 0));
        nodes.push((tree, 2, "LEAF", 0, 0));
        for leaf in [1, 2] {
            weights.push((tree, leaf, tree));
            weights.push((tree, leaf, tree + 1));
        }
    }
    let model = forest(1 << 24, 0, &nodes, &weights);
    // A row's sums alone are more than the run may take; no row is none.
    stopped(&model, row(), "bytes");
    let nothing = Tensor::new::<f32>(&[0, 1], Vec::new()).unwrap();
    stopped(&model, vec![nothing], "");
    // Few enough for a row: the table of all leaves and targets would be a hundred times larger.
    let model = forest(1 << 17, 0, &nodes, &weights);
    accepted(&model, row());
    refused(&forest((1 << 24) + 1, 0, &nodes, &weights), "n_targets");
    refused(&forest(i64::MAX, 0, &nodes, &weights), "n_targets");
}

#[test]
fn small_trees_with_many_targets_are_not_spread_out() {
    // A leaf for each of a thousand targets, a thousand trees.
    let mut nodes = Vec::new();
    let mut weights = Vec::new();
    for tree in 0..1000 {
        nodes.push((tree, 0, "LEAF", 0, 0));
        weights.extend((0..50).map(|target| (tree, 0, target)));
    }
    accepted(&forest(50, 0, &nodes, &weights), row());
}

#[test]
fn features_beyond_the_input_are_refused_by_the_run() {
    let nodes = [
        (0, 0, "BRANCH_LEQ", 1, 2),
        (0, 1, "LEAF", 0, 0),
        (0, 2, "LEAF", 0, 0),
    ];
    let weights = [(0, 1, 0), (0, 2, 0)];
    for feature in [1, 1 << 30, (1 << 31) - 2] {
        let model = forest(1, feature, &nodes, &weights);
        stopped(&model, row(), "columns, and the trees read column");
    }
    for feature in [-1, (1 << 31) - 1, 1 << 31, i64::MAX, i64::MIN] {
        let model = forest(1, feature, &nodes, &weights);
        refused(&model, "feature id");
    }
}

#[test]
fn trees_with_odd_ids_are_found_in_time() {
    // Ids far apart and in no order; deep as a chain.
    let many = 20_000;
    let id = |number: i64| number.wrapping_mul(0x1234_5678_9abc_def1);
    let mut nodes = Vec::new();
    let mut weights = Vec::new();
    for number in 0..many {
        let last = number == many - 1;
        let next = if last { many + many } else { number + 1 };
        nodes.push((id(7), id(number), "BRANCH_LEQ", id(many + number), id(next)));
        nodes.push((id(7), id(many + number), "LEAF", 0, 0));
        weights.push((id(7), id(many + number), 0));
    }
    nodes.push((id(7), id(many + many), "LEAF", 0, 0));
    weights.push((id(7), id(many + many), 0));
    nodes.reverse();
    accepted(&forest(1, 0, &nodes, &weights), row());
    // As many trees as nodes.
    let nodes: Vec<_> = (0..many).map(|tree| (id(tree), 3, "LEAF", 0, 0)).collect();
    let weights: Vec<_> = (0..many).map(|tree| (id(tree), 3, 0)).collect();
    accepted(&forest(1, 0, &nodes, &weights), row());
    // A node that is there twice, and a weight for a node that is not there.
    let twice = [(0, 0, "LEAF", 0, 0), (0, 0, "LEAF", 0, 0)];
    refused(
        &forest(1, 0, &twice, &[]),
        "tree 0, node 0: it is there twice",
    );
    let one = [(0, 0, "LEAF", 0, 0)];
    refused(&forest(1, 0, &one, &[(0, 5, 0)]), "tree 0, node 5");
    refused(&forest(1, 0, &one, &[(0, 0, 1)]), "target 1");
    refused(&forest(1, 0, &one, &[(0, 0, -1)]), "target -1");
}

#[test]
fn shared_nodes_are_copied_within_bounds() {
    // Both ways of every node lead on to both of the next two: 2^40 paths.
    let mut nodes = Vec::new();
    for level in 0..40 {
        let next = 2 * level + 2;
        nodes.push((0, 2 * level, "BRANCH_LEQ", next, next + 1));
        nodes.push((0, 2 * level + 1, "BRANCH_GT", next, next + 1));
    }
    nodes.push((0, 80, "LEAF", 0, 0));
    nodes.push((0, 81, "LEAF", 0, 0));
    refused(&forest(1, 0, &nodes, &[(0, 80, 0)]), "too many paths");
}

#[test]
fn sets_of_members_are_copied_within_bounds() {
    // Two to the tenth paths lead to a test against a hundred thousand members.
    let levels = 10usize;
    let splits: Vec<f64> = vec![0.5; levels + 1];
    let members: Vec<f64> = (0..100_000).map(f64::from).collect();
    let tensor = |name: &str, values: &[f64]| AttributeProto {
        name: name.to_string(),
        r#type: AttributeType::Tensor as i32,
        t: Some(TensorProto {
            dims: vec![values.len() as i64],
            data_type: DataType::F64 as i32,
            double_data: values.to_vec(),
            ..TensorProto::default()
        }),
        ..AttributeProto::default()
    };
    let mut modes = vec![0u8; levels];
    modes.push(6);
    let mut modes_attribute = tensor("nodes_modes", &[]);
    modes_attribute.t = Some(TensorProto {
        dims: vec![modes.len() as i64],
        data_type: DataType::U8 as i32,
        raw_data: modes,
        ..TensorProto::default()
    });
    // Each node leads to the next both ways, the second by way of a copy in the next column.
    let next: Vec<i64> = (1..=levels as i64).chain([0]).collect();
    let skip: Vec<i64> = (2..=levels as i64).chain([levels as i64, 1]).collect();
    let leaf: Vec<i64> = (0..=levels)
        .map(|place| i64::from(place == levels))
        .collect();
    let features: Vec<i64> = (0..=levels as i64).collect();
    let one = node(
        "TreeEnsemble",
        &["x"],
        &["y"],
        vec![
            tensor("nodes_splits", &splits),
            tensor("leaf_weights", &[1.0, 2.0]),
            tensor("membership_values", &members),
            modes_attribute,
            ints("nodes_featureids", &features),
            ints("nodes_truenodeids", &next),
            ints("nodes_falsenodeids", &skip),
            ints("nodes_trueleafs", &leaf),
            ints("nodes_falseleafs", &leaf),
            ints("leaf_targetids", &[0, 0]),
            ints("tree_roots", &[0]),
            int("n_targets", 1),
        ],
    );
    let mut model = graph(vec![one], vec![]);
    model.opset_import[1].version = 5;
    let input = value("x", DataType::F64, &[Dim::Named("N"), Dim::Fixed(11)]);
    model.graph.as_mut().unwrap().input[0] = input;
    refused(&model, "too many paths");
}

#[test]
fn a_map_as_input_is_refused_with_that_reason() {
    let mut model = sample();
    if let Some(graph) = &mut model.graph {
        graph.input[0].r#type = Some(TypeProto {
            value: Some(TypeValue::Map(OtherType {})),
        });
    }
    refused(&model, "it is a map, and only tensors are supported");
}
