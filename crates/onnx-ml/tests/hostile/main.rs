//! Files and calls made to do harm: each is refused with the name of the place, or its run is
//! stopped, in bounded time and memory, and none makes anything panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/bounds.rs"]
mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod growth;
mod many;
#[path = "../common/outcome.rs"]
mod outcome;
mod overflow;
mod substitutes;
mod trees;
mod work;

use bounds::Counting;
use common::*;
use onnx_ml::proto::*;
use onnx_ml::{DataType, Tensor};
use outcome::stopped;

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
