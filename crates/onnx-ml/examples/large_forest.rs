//! Loads a forest of about 100 MB and prints how long it takes and what memory it needs.
//!
//! ```text
//! cargo run --release -p onnx-ml --no-default-features --example large_forest [trees] [leaves]
//! ```
#![allow(clippy::print_stdout)]

use std::time::Instant;

use onnx_ml::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use onnx_ml::{DataType, Limits, Model, Tensor};
use prost::Message;

#[path = "../tests/common/bounds.rs"]
mod bounds;

use bounds::{Counting, Measurement, Random};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COLUMNS: usize = 50;

/// The columns of a `TreeEnsembleRegressor`.
#[derive(Default)]
struct Columns {
    trees: Vec<i64>,
    ids: Vec<i64>,
    features: Vec<i64>,
    values: Vec<f32>,
    modes: Vec<Vec<u8>>,
    yes: Vec<i64>,
    no: Vec<i64>,
    weight_trees: Vec<i64>,
    weight_ids: Vec<i64>,
    weights: Vec<f32>,
}

impl Columns {
    fn node(&mut self, tree: usize, mode: &str) -> usize {
        let id = match self.trees.last() {
            Some(last) if *last == tree as i64 => self.ids.last().map_or(0, |id| id + 1),
            _ => 0,
        };
        self.trees.push(tree as i64);
        self.ids.push(id);
        self.features.push(0);
        self.values.push(0.0);
        self.modes.push(mode.as_bytes().to_vec());
        self.yes.push(0);
        self.no.push(0);
        self.ids.len() - 1
    }

    /// A tree whose leaves are split at random until there are enough, nodes in pre-order.
    fn tree(&mut self, random: &mut Random, tree: usize, leaves: usize) {
        // What is still to be written: the number of leaves, and the parent whose "no" it is.
        let mut open: Vec<(usize, Option<usize>)> = vec![(leaves, None)];
        while let Some((leaves, parent)) = open.pop() {
            let mode = if leaves == 1 { "LEAF" } else { "BRANCH_LEQ" };
            let place = self.node(tree, mode);
            let id = self.ids[place];
            if let Some(parent) = parent {
                self.no[parent] = id;
            }
            if leaves == 1 {
                self.weight_trees.push(tree as i64);
                self.weight_ids.push(id);
                self.weights.push(unit(random));
                continue;
            }
            self.features[place] = random.below(COLUMNS) as i64;
            self.values[place] = unit(random);
            self.yes[place] = id + 1;
            let left = 1 + random.below(leaves - 1);
            open.push((leaves - left, Some(place)));
            open.push((left, None));
        }
    }
}

fn unit(random: &mut Random) -> f32 {
    (random.next() >> 40) as f32 / (1u64 << 24) as f32
}

fn attribute(name: &str, of: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: of as i32,
        ..AttributeProto::default()
    }
}

fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto {
        ints,
        ..attribute(name, AttributeType::Ints)
    }
}

fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto {
        floats,
        ..attribute(name, AttributeType::Floats)
    }
}

fn value(name: &str, columns: i64) -> ValueInfoProto {
    let dim = [
        DimensionValue::DimParam("N".to_string()),
        DimensionValue::DimValue(columns),
    ];
    let shape = TensorShapeProto {
        dim: dim.map(|value| Dimension { value: Some(value) }).to_vec(),
    };
    ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorType {
                elem_type: DataType::F32 as i32,
                shape: Some(shape),
            })),
        }),
    }
}

fn forest(trees: usize, leaves: usize) -> ModelProto {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut columns = Columns::default();
    for tree in 0..trees {
        columns.tree(&mut random, tree, leaves);
    }
    let targets = vec![0; columns.weights.len()];
    let node = NodeProto {
        op_type: "TreeEnsembleRegressor".to_string(),
        domain: "ai.onnx.ml".to_string(),
        input: vec!["x".to_string()],
        output: vec!["y".to_string()],
        attribute: vec![
            ints("nodes_treeids", columns.trees),
            ints("nodes_nodeids", columns.ids),
            ints("nodes_featureids", columns.features),
            floats("nodes_values", columns.values),
            AttributeProto {
                strings: columns.modes,
                ..attribute("nodes_modes", AttributeType::Strings)
            },
            ints("nodes_truenodeids", columns.yes),
            ints("nodes_falsenodeids", columns.no),
            ints("target_treeids", columns.weight_trees),
            ints("target_nodeids", columns.weight_ids),
            ints("target_ids", targets),
            floats("target_weights", columns.weights),
            AttributeProto {
                i: 1,
                ..attribute("n_targets", AttributeType::Int)
            },
        ],
        ..NodeProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: "ai.onnx.ml".to_string(),
            version: 3,
        }],
        graph: Some(GraphProto {
            node: vec![node],
            input: vec![value("x", COLUMNS as i64)],
            output: vec![value("y", 1)],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// A line of the process's status in MB: `VmRSS` is what is resident now, `VmHWM` the most so far.
fn resident(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find(|text| text.starts_with(line));
    let kilobytes = found.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let trees = arguments.first().copied().unwrap_or(300);
    let leaves = arguments.get(1).copied().unwrap_or(8000);
    let path = std::env::temp_dir().join(format!("forest-{trees}-{leaves}.onnx"));
    if !path.exists() {
        std::fs::write(&path, forest(trees, leaves).encode_to_vec())?;
        // In a process of its own, so that what making it took does not count.
        println!("made {}: run again to load it", path.display());
        return Ok(());
    }
    let bytes = std::fs::read(&path)?;
    let nodes = trees * (2 * leaves - 1);
    let file = bytes.len() as f64 / f64::from(1 << 20);
    println!("{trees} trees of {leaves} leaves, {nodes} nodes: a file of {file:.0} MB");
    let before = resident("VmRSS");
    let measurement = Measurement::start();
    let started = Instant::now();
    let model = Model::from_bytes_with(&bytes, &Limits::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let (after, peak) = (resident("VmRSS"), resident("VmHWM"));
    println!("loaded in {seconds:.2} s");
    println!(
        "resident: {before:.0} MB before (the file), {after:.0} MB after, {peak:.0} MB at most"
    );
    let per_node = |bytes: usize| bytes as f64 / nodes as f64;
    println!(
        "allocated: {:.1} bytes a node after, {:.1} at most",
        per_node(measurement.kept()),
        per_node(measurement.peak())
    );
    let row: Vec<f32> = (0..COLUMNS).map(|column| column as f32 / 50.0).collect();
    let outputs = model.run(vec![Tensor::new(&[1, COLUMNS], row)?])?;
    println!("a row gives {:?}", outputs[0].data());
    Ok(())
}
