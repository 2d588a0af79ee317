//! Files that are not what they seem.

use crate::bounds::Measurement;
use crate::common::*;
use crate::outcome::*;
use crate::{graph, graph_attribute, named, row, x};
use onnx_ml::proto::*;
use onnx_ml::{DataType, Limits, LoadError, Model};
use prost::Message;

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
