//! Verifies tree ensembles: that every branch leads on and that none leads back.
//!
//! tract follows node numbers without looking where they lead.

use tract_onnx::pb::{AttributeProto, NodeProto};

/// Attributes of `TreeEnsembleClassifier` that tract does not read and that would change the result.
const UNREAD: &[&str] = &[
    "base_values_as_tensor",
    "class_weights_as_tensor",
    "nodes_hitrates_as_tensor",
    "nodes_values_as_tensor",
];

/// The comparisons that tract runs as they are meant (it takes `BRANCH_GTE` for a leaf).
const MODES: &[&[u8]] = &[
    b"BRANCH_LEQ",
    b"BRANCH_LT",
    b"BRANCH_GT",
    b"BRANCH_EQ",
    b"BRANCH_NEQ",
    b"LEAF",
];

/// Verifies a `TreeEnsembleClassifier`.
pub(super) fn classifier(node: &NodeProto) -> Result<(), String> {
    for name in UNREAD {
        if find(node, name).is_some() {
            return Err(format!("attribute `{name}` is not supported yet"));
        }
    }
    let ids = ints(node, "nodes_nodeids");
    let trees = ints(node, "nodes_treeids");
    let features = ints(node, "nodes_featureids");
    let if_true = ints(node, "nodes_truenodeids");
    let if_false = ints(node, "nodes_falsenodeids");
    let modes = find(node, "nodes_modes")
        .map(|a| a.strings.as_slice())
        .unwrap_or_default();
    let values = find(node, "nodes_values")
        .map(|a| a.floats.len())
        .unwrap_or_default();
    if ids.is_empty() {
        return Err("it has no tree node".to_string());
    }
    let lengths = [
        trees.len(),
        features.len(),
        if_true.len(),
        if_false.len(),
        modes.len(),
        values,
    ];
    if lengths.iter().any(|length| *length != ids.len()) {
        return Err(format!(
            "its nodes_* attributes have different lengths: {lengths:?}"
        ));
    }
    for mode in modes {
        if !MODES.contains(&mode.as_slice()) {
            let mode = String::from_utf8_lossy(mode);
            return Err(format!("node mode `{mode}` is not supported yet"));
        }
    }
    for feature in features {
        if u32::try_from(*feature).is_err() {
            return Err(format!("feature number {feature} is out of range"));
        }
    }
    let is_leaf = |place: usize| modes[place] == b"LEAF";
    let mut first = 0;
    let mut tree_count = 0;
    while first < ids.len() {
        let mut end = first;
        while end < ids.len() && trees[end] == trees[first] {
            end += 1;
        }
        if trees[first] != tree_count {
            return Err(format!(
                "tree numbers must be 0, 1, 2, … in order, found {} for tree {tree_count}",
                trees[first]
            ));
        }
        one_tree(
            &ids[first..end],
            &if_true[first..end],
            &if_false[first..end],
            |place| is_leaf(first + place),
        )
        .map_err(|reason| format!("tree {tree_count}: {reason}"))?;
        tree_count += 1;
        first = end;
    }
    leaves(node, tree_count)
}

/// Verifies one tree: nodes numbered from 0, children inside, and every node reached exactly once.
fn one_tree(
    ids: &[i64],
    if_true: &[i64],
    if_false: &[i64],
    is_leaf: impl Fn(usize) -> bool,
) -> Result<(), String> {
    for (place, id) in ids.iter().enumerate() {
        if usize::try_from(*id) != Ok(place) {
            return Err(format!(
                "node numbers other than 0, 1, 2, … in order are not supported yet, found {id} at \
                 place {place}"
            ));
        }
    }
    let mut reached = vec![false; ids.len()];
    let mut open = vec![0usize];
    while let Some(place) = open.pop() {
        if reached[place] {
            return Err(format!("node {place} is reached twice"));
        }
        reached[place] = true;
        if is_leaf(place) {
            continue;
        }
        for child in [if_true[place], if_false[place]] {
            match usize::try_from(child) {
                Ok(child) if child < ids.len() => open.push(child),
                _ => {
                    return Err(format!(
                        "node {place} leads to node {child}, which is not there"
                    ));
                }
            }
        }
    }
    match reached.iter().position(|reached| !reached) {
        Some(place) => Err(format!("node {place} cannot be reached")),
        None => Ok(()),
    }
}

/// Verifies the classes that the leaves vote for.
fn leaves(node: &NodeProto, tree_count: i64) -> Result<(), String> {
    let labels = ints(node, "classlabels_int64s").len().max(
        find(node, "classlabels_strings")
            .map(|a| a.strings.len())
            .unwrap_or_default(),
    );
    let classes = ints(node, "class_ids");
    let trees = ints(node, "class_treeids");
    let nodes = ints(node, "class_nodeids");
    if trees.len() != classes.len() || nodes.len() != classes.len() {
        return Err("its class_* attributes have different lengths".to_string());
    }
    for class in classes {
        match usize::try_from(*class) {
            Ok(class) if class < labels => {}
            _ => {
                return Err(format!(
                    "class {class} is voted for, there are {labels} classes"
                ));
            }
        }
    }
    for tree in trees {
        if *tree < 0 || *tree >= tree_count {
            return Err(format!(
                "a leaf names tree {tree}, there are {tree_count} trees"
            ));
        }
    }
    Ok(())
}

fn find<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    find(node, name)
        .map(|attribute| attribute.ints.as_slice())
        .unwrap_or_default()
}
