//! Files that must be refused, and shapes of trees that exporters do not make but files may have.

use prost::Message;

use crate::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use crate::{Model, Tensor};

/// Tree id, node id, column, mode, threshold, true node, false node.
type Row<'a> = (i64, i64, i64, &'a str, f32, i64, i64);

const LEAF: &str = "LEAF";
const AT_MOST: &str = "BRANCH_LEQ";

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.to_string(),
        r#type: r#type as i32,
        ..Default::default()
    }
}

fn ints(name: &str, values: impl IntoIterator<Item = i64>) -> AttributeProto {
    AttributeProto {
        ints: values.into_iter().collect(),
        ..attribute(name, AttributeType::Ints)
    }
}

fn floats(name: &str, values: impl IntoIterator<Item = f32>) -> AttributeProto {
    AttributeProto {
        floats: values.into_iter().collect(),
        ..attribute(name, AttributeType::Floats)
    }
}

/// A regressor of these nodes, whose weights are tree id, node id, target and weight.
fn attributes(rows: &[Row<'_>], weights: &[(i64, i64, i64, f32)]) -> Vec<AttributeProto> {
    vec![
        AttributeProto {
            i: 1,
            ..attribute("n_targets", AttributeType::Int)
        },
        ints("nodes_treeids", rows.iter().map(|row| row.0)),
        ints("nodes_nodeids", rows.iter().map(|row| row.1)),
        ints("nodes_featureids", rows.iter().map(|row| row.2)),
        AttributeProto {
            strings: rows.iter().map(|row| row.3.as_bytes().to_vec()).collect(),
            ..attribute("nodes_modes", AttributeType::Strings)
        },
        floats("nodes_values", rows.iter().map(|row| row.4)),
        ints("nodes_truenodeids", rows.iter().map(|row| row.5)),
        ints("nodes_falsenodeids", rows.iter().map(|row| row.6)),
        ints("target_treeids", weights.iter().map(|weight| weight.0)),
        ints("target_nodeids", weights.iter().map(|weight| weight.1)),
        ints("target_ids", weights.iter().map(|weight| weight.2)),
        floats("target_weights", weights.iter().map(|weight| weight.3)),
    ]
}

fn model(attributes: Vec<AttributeProto>) -> Result<Model, String> {
    let value = |name: &str| ValueInfoProto {
        name: name.to_string(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorType {
                elem_type: 1,
                shape: None,
            })),
        }),
    };
    let proto = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: "ai.onnx.ml".to_string(),
            version: 3,
        }],
        graph: Some(GraphProto {
            node: vec![NodeProto {
                name: "forest".to_string(),
                op_type: "TreeEnsembleRegressor".to_string(),
                domain: "ai.onnx.ml".to_string(),
                input: vec!["x".to_string()],
                output: vec!["y".to_string()],
                attribute: attributes,
                ..NodeProto::default()
            }],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        }),
        ..Default::default()
    };
    Model::from_bytes(&proto.encode_to_vec()).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(rows: &[Row<'_>], weights: &[(i64, i64, i64, f32)], expected: &str) {
    let error = model(attributes(rows, weights)).expect_err("it must be refused");
    assert!(error.contains(expected), "{error}");
}

/// The results for rows of one column.
#[track_caller]
fn results(rows: &[Row<'_>], weights: &[(i64, i64, i64, f32)], column: &[f32]) -> Vec<f32> {
    let model = model(attributes(rows, weights)).expect("it loads");
    let input = Tensor::new(&[column.len(), 1], column.to_vec()).expect("it fits");
    let outputs = model.run(vec![input]).expect("it runs");
    outputs[0].as_slice::<f32>().expect("floats").to_vec()
}

#[test]
fn cycles_are_refused() {
    refused(
        &[(4, 0, 0, AT_MOST, 1.0, 0, 1), (4, 1, 0, LEAF, 0.0, 0, 0)],
        &[(4, 1, 0, 1.0)],
        "tree 4, node 0: the tree has no root",
    );
    refused(
        &[
            (4, 0, 0, AT_MOST, 1.0, 1, 2),
            (4, 1, 0, AT_MOST, 1.0, 3, 2),
            (4, 2, 0, LEAF, 0.0, 0, 0),
            (4, 3, 0, AT_MOST, 1.0, 2, 1),
        ],
        &[(4, 2, 0, 1.0)],
        "tree 4, node 1: it leads back to itself",
    );
    // In a chain of tests for equality.
    refused(
        &[
            (0, 0, 0, "BRANCH_EQ", 1.0, 3, 1),
            (0, 1, 0, "BRANCH_EQ", 2.0, 3, 2),
            (0, 2, 0, "BRANCH_EQ", 3.0, 3, 1),
            (0, 3, 0, LEAF, 0.0, 0, 0),
        ],
        &[(0, 3, 0, 1.0)],
        "tree 0, node 1: it leads back to itself",
    );
}

#[test]
fn a_few_nodes_never_become_many() {
    // Each node leads to the next on both ways, by way of a node between: 2^60 paths.
    let mut rows = Vec::new();
    for level in 0..60 {
        let id = 3 * level;
        rows.push((0, id, 0, AT_MOST, 1.0, id + 1, id + 2));
        rows.push((0, id + 1, 0, AT_MOST, 2.0, id + 2, id + 3));
        rows.push((0, id + 2, 0, AT_MOST, 3.0, id + 3, id + 4));
    }
    rows.push((0, 180, 0, LEAF, 0.0, 0, 0));
    rows.push((0, 181, 0, LEAF, 0.0, 0, 0));
    refused(&rows, &[(0, 180, 0, 1.0)], "too many paths lead");
}

#[test]
fn deep_trees_do_not_take_the_stack() {
    let depth = 50_000;
    let mut rows = Vec::new();
    for level in 0..depth {
        rows.push((
            0,
            2 * level,
            0,
            AT_MOST,
            level as f32,
            2 * level + 1,
            2 * level + 2,
        ));
        rows.push((0, 2 * level + 1, 0, LEAF, level as f32, 0, 0));
    }
    rows.push((0, 2 * depth, 0, LEAF, -1.0, 0, 0));
    assert_eq!(
        results(&rows, &[], &[0.0, 49_999.0, 1e9]),
        [0.0, 49_999.0, -1.0]
    );
}

#[test]
fn wrong_references_are_refused_with_tree_and_node() {
    let leaf = (7, 5, 0, LEAF, 0.0, 0, 0);
    let weights = [(7, 5, 0, 1.0)];
    refused(
        &[(7, 3, 0, AT_MOST, 1.0, 5, 9), leaf],
        &weights,
        "tree 7, node 3: its false node 9 is not there",
    );
    refused(
        &[(7, 3, 0, AT_MOST, 1.0, -1, 5), leaf],
        &weights,
        "tree 7, node 3: its true node -1 is not there",
    );
    refused(&[leaf, leaf], &weights, "tree 7, node 5: it is there twice");
    refused(
        &[leaf],
        &[(7, 6, 0, 1.0)],
        "tree 7, node 6: it has a weight and is not there",
    );
    refused(
        &[leaf],
        &[(7, 5, 1, 1.0)],
        "tree 7, node 5: weight 0 is for target 1, and there are 1",
    );
    refused(&[leaf], &[(7, 5, -1, 1.0)], "for target -1");
    for column in [-1, i64::from(i32::MAX), 1 << 32, i64::MAX, i64::MIN] {
        refused(
            &[(7, 3, column, AT_MOST, 1.0, 5, 5), leaf],
            &weights,
            &format!("tree 7, node 3: its feature id is {column}"),
        );
    }
    refused(
        &[(7, 5, 0, "BRANCH_MEMBER", 0.0, 0, 0)],
        &weights,
        "tree 7, node 5: its mode `BRANCH_MEMBER` is not known",
    );
    refused(&[], &[], "it has 0 nodes");
}

#[test]
fn arrays_of_different_lengths_are_refused() {
    let rows = [(0, 0, 0, LEAF, 0.0, 0, 0)];
    let whole = attributes(&rows, &[(0, 0, 0, 1.0)]);
    for place in 1..whole.len() {
        let mut shorter = whole.clone();
        shorter[place].ints.clear();
        shorter[place].floats.clear();
        shorter[place].strings.clear();
        assert!(model(shorter).is_err(), "without {}", whole[place].name);
    }
    let mut more = whole.clone();
    more.push(ints("nodes_missing_value_tracks_true", [1, 0]));
    assert!(model(more).is_err());
    for targets in [0, -1, i64::MAX] {
        let mut wrong = whole.clone();
        wrong[0].i = targets;
        assert!(model(wrong).is_err());
    }
}

#[test]
fn ids_may_be_any_numbers_in_any_order() {
    let (low, high) = (i64::MIN, i64::MAX);
    let rows = [
        (high, 5, 0, LEAF, 0.0, 0, 0),
        (low, -3, 0, LEAF, 0.0, 0, 0),
        (low, high, 0, LEAF, 0.0, 0, 0),
        (high, -8, 0, AT_MOST, 2.0, 1, 5),
        (low, 0, 0, AT_MOST, 1.0, high, -3),
        (high, 1, 0, LEAF, 0.0, 0, 0),
    ];
    let weights = [
        (low, high, 0, 1.0),
        (high, 5, 0, 20.0),
        (low, -3, 0, 2.0),
        (high, 1, 0, 10.0),
    ];
    assert_eq!(
        results(&rows, &weights, &[1.0, 2.0, 3.0]),
        [11.0, 12.0, 22.0]
    );
}

#[test]
fn shared_children_are_reached_by_all_their_parents() {
    let rows = [
        (0, 0, 0, "BRANCH_EQ", 1.0, 3, 1),
        (0, 1, 0, "BRANCH_EQ", 4.0, 3, 2),
        (0, 2, 0, AT_MOST, 2.5, 4, 3),
        (0, 3, 0, LEAF, 0.0, 0, 0),
        (0, 4, 0, LEAF, 0.0, 0, 0),
    ];
    let weights = [(0, 3, 0, 1.0), (0, 4, 0, 2.0)];
    let column = [1.0, 4.0, 2.0, 2.6, f32::NAN];
    assert_eq!(results(&rows, &weights, &column), [1.0, 1.0, 2.0, 1.0, 1.0]);
}

#[test]
fn thresholds_that_are_nan_answer_alike_for_every_value() {
    let column = [0.0, f32::INFINITY, f32::NAN];
    for (mode, expected) in [
        (AT_MOST, 2.0),
        ("BRANCH_LT", 2.0),
        ("BRANCH_GTE", 2.0),
        ("BRANCH_GT", 2.0),
        ("BRANCH_EQ", 2.0),
        ("BRANCH_NEQ", 1.0),
    ] {
        let rows = [
            (0, 0, 0, mode, f32::NAN, 1, 2),
            (0, 1, 0, LEAF, 0.0, 0, 0),
            (0, 2, 0, LEAF, 0.0, 0, 0),
        ];
        let weights = [(0, 1, 0, 1.0), (0, 2, 0, 2.0)];
        assert_eq!(results(&rows, &weights, &column), [expected; 3], "{mode}");
    }
}

#[test]
fn too_few_columns_are_an_error_of_the_call() {
    let rows = [
        (0, 0, 3, AT_MOST, 1.0, 1, 2),
        (0, 1, 0, LEAF, 0.0, 0, 0),
        (0, 2, 0, LEAF, 0.0, 0, 0),
    ];
    let model = model(attributes(&rows, &[])).expect("it loads");
    let narrow = Tensor::new(&[1, 3], vec![0.0f32; 3]).expect("it fits");
    let error = model.run(vec![narrow]).expect_err("column 3 is not there");
    assert!(
        error
            .to_string()
            .contains("3 columns, and the trees read column 3")
    );
    let empty = Tensor::new(&[0, 4], Vec::<f32>::new()).expect("it fits");
    let outputs = model.run(vec![empty]).expect("no rows are fine");
    assert_eq!(outputs[0].shape(), [0, 1]);
    let cube = Tensor::new(&[1, 1, 4], vec![0.0f32; 4]).expect("it fits");
    assert!(model.run(vec![cube]).is_err());
}
