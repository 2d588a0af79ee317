//! Reads `TreeEnsembleClassifier` and `TreeEnsembleRegressor` into an [`Ensemble`] and a [`Finish`].
//!
//! Whatever a file says is verified here once: afterwards every index is inside its array and every
//! tree is a tree. Time and memory grow with the number of nodes alone, whatever ids they have.
//! Where the ONNX specification is silent the results are those of onnxruntime:
//!
//! - weights of nodes that are not leaves are ignored, as are nodes that no path leads to;
//! - of several weights of one leaf for one target the first counts if the model has one target,
//!   else all are added;
//! - a leaf without weight gives its `nodes_values` if the model has one target, else nothing;
//! - on the way to a leaf, NaN fails every test but `BRANCH_NEQ`, unless
//!   `nodes_missing_value_tracks_true` of the node is 1.

use crate::node::Node;
use crate::tensor::{Data, Tensor};
use crate::trees::ensemble::{Aggregate, Ensemble, Weight};
use crate::trees::finish::{Classes, Finish};
use crate::trees::grow::{Forest, Kind, RawNode, grow};
use crate::trees::places::{Places, node_name};
use crate::trees::post::Post;

/// More targets or classes are not believed.
const MOST_TARGETS: i64 = 1 << 24;
/// More nodes cannot be counted.
pub(super) const MOST_NODES: usize = 1 << 31;

/// An operator's node as read.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub ensemble: Ensemble,
    pub finish: Finish,
    /// The type of the numbers in the file.
    pub precision: Precision,
}

/// A type of numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    Half,
    Single,
    Double,
}

/// `TreeEnsembleRegressor`.
pub(crate) fn regressor(node: &Node<'_>) -> Result<Parsed, String> {
    let targets = number_of_targets(node)?;
    let aggregate = match node.string("aggregate_function")? {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => {
            return Err(format!(
                "attribute `aggregate_function` is `{other}`, expected SUM, AVERAGE, MIN or MAX"
            ));
        }
    };
    let post = Post::read(node)?;
    let mut numbers = Numbers::default();
    let base = numbers.read(node, "base_values")?.unwrap_or_default();
    if !base.is_empty() && base.len() != targets {
        return Err(format!(
            "attribute `base_values` has {} numbers, expected none or {targets}",
            base.len()
        ));
    }
    let votes = Votes::read(node, &mut numbers, "target", targets)?;
    let ensemble = tuples(node, numbers, votes, targets, aggregate, None)?;
    Ok(Parsed {
        finish: Finish::scores(&ensemble.0, base, post),
        ensemble: ensemble.0,
        precision: ensemble.1,
    })
}

/// `TreeEnsembleClassifier`.
pub(crate) fn classifier(node: &Node<'_>) -> Result<Parsed, String> {
    let labels = Classes::read(node)?;
    let count = labels.len();
    let post = Post::read(node)?;
    let mut numbers = Numbers::default();
    let base = numbers.read(node, "base_values")?.unwrap_or_default();
    let fits = match count {
        1 | 2 => base.len() <= count,
        _ => base.is_empty() || base.len() == count,
    };
    if !fits {
        return Err(format!(
            "attribute `base_values` has {} numbers for {count} classes",
            base.len()
        ));
    }
    let votes = Votes::read(node, &mut numbers, "class", count)?;
    let all_positive = !votes.values.iter().any(|weight| *weight < 0.0);
    // Two classes of which the leaves name one only are one sum.
    let only = match (count, votes.ids.first()) {
        (2, Some(first)) if votes.ids.iter().all(|id| id == first) => Some(usize::from(*first > 0)),
        _ => None,
    };
    let (ensemble, precision) = tuples(node, numbers, votes, count, Aggregate::Sum, only)?;
    Ok(Parsed {
        finish: Finish::classes(labels, base, post, only, all_positive),
        ensemble,
        precision,
    })
}

pub(super) fn number_of_targets(node: &Node<'_>) -> Result<usize, String> {
    match node.int("n_targets")? {
        Some(targets @ 1..=MOST_TARGETS) => Ok(targets as usize),
        Some(other) => Err(format!(
            "attribute `n_targets` is {other}, expected 1 to {MOST_TARGETS}"
        )),
        None => Err("attribute `n_targets` is missing".to_string()),
    }
}

/// The arrays of numbers of a node, which may be lists of float32 or tensors.
#[derive(Default)]
pub(super) struct Numbers {
    found: Option<(Precision, &'static str)>,
}

impl Numbers {
    /// The numbers of `name`, or since version 3 of the tensor `name_as_tensor`.
    fn read(&mut self, node: &Node<'_>, name: &'static str) -> Result<Option<Vec<f64>>, String> {
        let list = node.floats(name)?.filter(|list| !list.is_empty());
        if node.version >= 3
            && let Some(tensor) = node.tensor(&format!("{name}_as_tensor"))?
            && !tensor.is_empty()
        {
            if list.is_some() {
                return Err(format!("both `{name}` and `{name}_as_tensor` are given"));
            }
            return self.convert(name, &tensor).map(Some);
        }
        Ok(list.map(|list| list.iter().copied().map(f64::from).collect()))
    }

    /// The numbers of a tensor. All tensors of a node have one type.
    pub fn convert(&mut self, name: &'static str, tensor: &Tensor) -> Result<Vec<f64>, String> {
        let (precision, values) = match tensor.data() {
            Data::F32(values) => (
                Precision::Single,
                values.iter().copied().map(f64::from).collect(),
            ),
            Data::F64(values) => (Precision::Double, values.clone()),
            Data::F16(values) if node_takes_half(name) => (
                Precision::Half,
                values.iter().map(|value| value.to_f64()).collect(),
            ),
            _ => {
                return Err(format!(
                    "`{name}` has element type {}, expected float or double",
                    tensor.data_type()
                ));
            }
        };
        match self.found {
            Some((other, other_name)) if other != precision => Err(format!(
                "`{name}` and `{other_name}` are of different types"
            )),
            _ => {
                self.found = Some((precision, name));
                Ok(values)
            }
        }
    }

    pub fn precision(&self) -> Precision {
        self.found
            .map_or(Precision::Single, |(precision, _)| precision)
    }
}

/// Float16 came with `TreeEnsemble`.
fn node_takes_half(name: &str) -> bool {
    matches!(name, "nodes_splits" | "leaf_weights" | "membership_values")
}

/// What the leaves give: the attributes `target_…` or `class_…`.
struct Votes<'a> {
    ids: &'a [i64],
    trees: &'a [i64],
    nodes: &'a [i64],
    values: Vec<f64>,
}

impl<'a> Votes<'a> {
    fn read(
        node: &Node<'a>,
        numbers: &mut Numbers,
        prefix: &str,
        targets: usize,
    ) -> Result<Votes<'a>, String> {
        let ids = node.ints(&format!("{prefix}_ids"))?.unwrap_or_default();
        let trees = node.ints(&format!("{prefix}_treeids"))?.unwrap_or_default();
        let nodes = node.ints(&format!("{prefix}_nodeids"))?.unwrap_or_default();
        let name = if prefix == "class" {
            "class_weights"
        } else {
            "target_weights"
        };
        let values = numbers.read(node, name)?.unwrap_or_default();
        same_length(
            ids.len(),
            &format!("{prefix}_ids"),
            &[
                (&format!("{prefix}_treeids"), trees.len()),
                (&format!("{prefix}_nodeids"), nodes.len()),
                (name, values.len()),
            ],
        )?;
        for (place, id) in ids.iter().enumerate() {
            if usize::try_from(*id).is_ok_and(|id| id < targets) {
                continue;
            }
            return Err(format!(
                "{}: weight {place} is for {prefix} {id}, and there are {targets}",
                node_name(trees[place], nodes[place])
            ));
        }
        if ids.len() >= MOST_NODES {
            return Err(format!("`{prefix}_ids` has {} numbers", ids.len()));
        }
        Ok(Votes {
            ids,
            trees,
            nodes,
            values,
        })
    }
}

pub(super) fn same_length(
    expected: usize,
    name: &str,
    others: &[(&str, usize)],
) -> Result<(), String> {
    for (other, found) in others {
        if *found != expected {
            return Err(format!(
                "attribute `{other}` has {found} elements, and `{name}` has {expected}"
            ));
        }
    }
    Ok(())
}

/// The column that a test reads.
pub(super) fn feature(id: i64, name: impl Fn() -> String) -> Result<u32, String> {
    if !(0..i64::from(i32::MAX)).contains(&id) {
        return Err(format!("{}: its feature id is {id}", name()));
    }
    Ok(id as u32)
}

/// The `nodes_missing_value_tracks_true`, or none.
pub(super) fn missing<'a>(node: &Node<'a>, count: usize) -> Result<&'a [i64], String> {
    let name = "nodes_missing_value_tracks_true";
    let missing = node.ints(name)?.unwrap_or_default();
    if !missing.is_empty() {
        same_length(count, "nodes_featureids", &[(name, missing.len())])?;
    }
    Ok(missing)
}

/// The ensemble of the attributes that the classifier and the regressor share. With `only` all
/// weights are for that class, and the ensemble has one target.
fn tuples(
    node: &Node<'_>,
    mut numbers: Numbers,
    votes: Votes<'_>,
    targets: usize,
    aggregate: Aggregate,
    only: Option<usize>,
) -> Result<(Ensemble, Precision), String> {
    node.ignore(&["nodes_hitrates"]);
    if node.version >= 3 {
        node.ignore(&["nodes_hitrates_as_tensor"]);
    }
    let trees = node.ints("nodes_treeids")?.unwrap_or_default();
    let ids = node.ints("nodes_nodeids")?.unwrap_or_default();
    let features = node.ints("nodes_featureids")?.unwrap_or_default();
    let yes = node.ints("nodes_truenodeids")?.unwrap_or_default();
    let no = node.ints("nodes_falsenodeids")?.unwrap_or_default();
    let modes = node.texts("nodes_modes")?.unwrap_or_default();
    let values = numbers.read(node, "nodes_values")?.unwrap_or_default();
    let count = ids.len();
    same_length(
        count,
        "nodes_nodeids",
        &[
            ("nodes_treeids", trees.len()),
            ("nodes_featureids", features.len()),
            ("nodes_truenodeids", yes.len()),
            ("nodes_falsenodeids", no.len()),
            ("nodes_modes", modes.len()),
            ("nodes_values", values.len()),
        ],
    )?;
    let missing = missing(node, count)?;
    if count == 0 || count >= MOST_NODES {
        return Err(format!("it has {count} nodes"));
    }
    let places = Places::new(trees, ids)?;
    let mut nodes = Vec::with_capacity(count);
    let mut is_child = vec![false; count];
    for place in 0..count {
        let name = || node_name(trees[place], ids[place]);
        let kind = mode(&modes[place]).ok_or_else(|| {
            let unknown = String::from_utf8_lossy(&modes[place]);
            format!("{}: its mode `{unknown}` is not known", name())
        })?;
        let mut raw = RawNode {
            kind,
            missing_holds: missing.get(place) == Some(&1),
            feature: 0,
            set: 0,
            yes: 0,
            no: 0,
            value: values[place],
        };
        if kind != Kind::Leaf {
            raw.feature = feature(features[place], name)?;
            for (child, id, way) in [(&mut raw.yes, yes, "true"), (&mut raw.no, no, "false")] {
                let id = id[place];
                *child = places
                    .find(trees[place], id)
                    .ok_or_else(|| format!("{}: its {way} node {id} is not there", name()))?;
                is_child[*child as usize] = true;
            }
        }
        nodes.push(raw);
    }
    let roots = places.roots(&is_child)?;
    // What a node was made of is not needed besides the node.
    drop((values, is_child));
    let precision = numbers.precision();
    let wide = precision == Precision::Double;
    let sharing = Sharing {
        first_only: targets == 1,
        one_target: only.is_some(),
        aggregate,
        wide,
    };
    let weights = weights(&mut nodes, &places, &votes, sharing)?;
    let forest = Forest {
        nodes: &nodes,
        roots: &roots,
        sets: &[],
        name: &|_, place| node_name(trees[place as usize], ids[place as usize]),
    };
    let (trees, features) = grow(&forest)?;
    let ensemble = Ensemble {
        features,
        targets: if only.is_some() { 1 } else { targets },
        trees,
        weights,
        aggregate,
        wide,
    };
    Ok((ensemble, precision))
}

fn mode(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"LEAF" => Kind::Leaf,
        b"BRANCH_LEQ" => Kind::AtMost,
        b"BRANCH_LT" => Kind::Below,
        b"BRANCH_GTE" => Kind::AtLeast,
        b"BRANCH_GT" => Kind::Above,
        b"BRANCH_EQ" => Kind::Equals,
        b"BRANCH_NEQ" => Kind::Differs,
        _ => return None,
    })
}

/// What becomes of several weights of one leaf.
#[derive(Clone, Copy)]
struct Sharing {
    /// There is one target: the first weight counts.
    first_only: bool,
    /// All weights are for the only target.
    one_target: bool,
    aggregate: Aggregate,
    /// Sums of weights are float64; else they are float32, as the weights are.
    wide: bool,
}

/// The weights in the order of the nodes; the leaves are told which are theirs.
fn weights(
    nodes: &mut [RawNode],
    places: &Places<'_>,
    votes: &Votes<'_>,
    sharing: Sharing,
) -> Result<Vec<Weight>, String> {
    // First how many each leaf has, so that each gets a range, then the weights themselves.
    let mut leaves = Vec::with_capacity(votes.ids.len());
    for (tree, id) in votes.trees.iter().zip(votes.nodes) {
        let place = places.find(*tree, *id);
        let place = place.ok_or_else(|| {
            format!(
                "{}: it has a weight and is not there",
                node_name(*tree, *id)
            )
        })?;
        leaves.push(place);
        let node = &mut nodes[place as usize];
        if node.kind == Kind::Leaf {
            node.no += 1;
        }
    }
    let mut next = 0u32;
    for node in nodes.iter_mut().filter(|node| node.kind == Kind::Leaf) {
        node.yes = next;
        next += node.no;
        node.no = 0;
    }
    let nothing = Weight {
        target: 0,
        value: 0.0,
    };
    let mut given = vec![nothing; next as usize];
    for (vote, place) in leaves.iter().enumerate() {
        let node = &mut nodes[*place as usize];
        if node.kind != Kind::Leaf {
            continue;
        }
        let target = if sharing.one_target {
            0
        } else {
            votes.ids[vote]
        };
        given[(node.yes + node.no) as usize] = Weight {
            target: target as u32,
            value: votes.values[vote],
        };
        node.no += 1;
    }
    let mut merged = Vec::with_capacity(given.len());
    for node in nodes.iter_mut().filter(|node| node.kind == Kind::Leaf) {
        let first = merged.len();
        let own = &mut given[node.yes as usize..(node.yes + node.no) as usize];
        if sharing.first_only {
            merged.push(own.first().copied().unwrap_or(Weight {
                target: 0,
                value: node.value,
            }));
        } else {
            merge(own, sharing, &mut merged);
        }
        node.yes = first as u32;
        node.no = (merged.len() - first) as u32;
    }
    Ok(merged)
}

/// Appends the weights of one leaf with each target once, in the order of the targets.
fn merge(own: &mut [Weight], sharing: Sharing, merged: &mut Vec<Weight>) {
    if !own.is_sorted_by_key(|weight| weight.target) {
        own.sort_by_key(|weight| weight.target);
    }
    let first = merged.len();
    for weight in own {
        match merged[first..].last_mut() {
            Some(last) if last.target == weight.target => match sharing.aggregate {
                Aggregate::Sum | Aggregate::Average => {
                    let sum = last.value + weight.value;
                    last.value = if sharing.wide {
                        sum
                    } else {
                        f64::from(sum as f32)
                    };
                }
                Aggregate::Min => last.value = last.value.min(weight.value),
                Aggregate::Max => last.value = last.value.max(weight.value),
            },
            _ => merged.push(*weight),
        }
    }
}
