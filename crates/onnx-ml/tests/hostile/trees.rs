//! Trees that lead outside, in circles or to far too much.

use crate::common::*;
use crate::outcome::*;
use crate::{graph, row};
use onnx_ml::proto::*;
use onnx_ml::{DataType, Tensor};

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
