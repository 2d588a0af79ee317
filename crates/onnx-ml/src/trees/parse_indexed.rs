//! Reads `TreeEnsemble` into an [`Ensemble`] and a [`Finish`].
//!
//! Its nodes and leaves are known by their places in the arrays, so all there is to verify is that
//! the places are there; [`grow`] sees to it that the trees are trees.

use crate::node::Node;
use crate::trees::ensemble::{Aggregate, Ensemble, Weight};
use crate::trees::finish::Finish;
use crate::trees::grow::{Forest, Kind, RawNode, grow, member_set};
use crate::trees::parse::{
    MOST_NODES, Numbers, Parsed, Precision, feature, missing, number_of_targets, same_length,
};
use crate::trees::post::Post;

/// `TreeEnsemble`.
pub(crate) fn tree_ensemble(node: &Node<'_>) -> Result<Parsed, String> {
    let targets = number_of_targets(node)?;
    let aggregate = match node.int("aggregate_function")? {
        Some(0) => Aggregate::Average,
        None | Some(1) => Aggregate::Sum,
        Some(2) => Aggregate::Min,
        Some(3) => Aggregate::Max,
        Some(other) => {
            return Err(format!(
                "attribute `aggregate_function` is {other}, expected 0 to 3"
            ));
        }
    };
    let post = Post::read_number(node)?;
    node.ignore(&["nodes_hitrates"]);
    let mut numbers = Numbers::default();
    let mut required = |name: &'static str| match node.tensor(name)? {
        Some(tensor) => numbers.convert(name, &tensor),
        None => Err(format!("attribute `{name}` is missing")),
    };
    let splits = required("nodes_splits")?;
    let leaf_weights = required("leaf_weights")?;
    let members = match node.tensor("membership_values")? {
        Some(tensor) => numbers.convert("membership_values", &tensor)?,
        None => Vec::new(),
    };
    let modes = match node.tensor("nodes_modes")? {
        Some(tensor) => tensor
            .as_slice::<u8>()
            .ok_or("attribute `nodes_modes` is not a tensor of uint8")?
            .to_vec(),
        None => return Err("attribute `nodes_modes` is missing".to_string()),
    };
    let features = node.ints("nodes_featureids")?.unwrap_or_default();
    let yes = node.ints("nodes_truenodeids")?.unwrap_or_default();
    let no = node.ints("nodes_falsenodeids")?.unwrap_or_default();
    let yes_leaf = node.ints("nodes_trueleafs")?.unwrap_or_default();
    let no_leaf = node.ints("nodes_falseleafs")?.unwrap_or_default();
    let leaf_targets = node.ints("leaf_targetids")?.unwrap_or_default();
    let tree_roots = node.ints("tree_roots")?.unwrap_or_default();
    let count = features.len();
    same_length(
        count,
        "nodes_featureids",
        &[
            ("nodes_splits", splits.len()),
            ("nodes_modes", modes.len()),
            ("nodes_truenodeids", yes.len()),
            ("nodes_falsenodeids", no.len()),
            ("nodes_trueleafs", yes_leaf.len()),
            ("nodes_falseleafs", no_leaf.len()),
        ],
    )?;
    let leaves = leaf_targets.len();
    same_length(
        leaves,
        "leaf_targetids",
        &[("leaf_weights", leaf_weights.len())],
    )?;
    let missing = missing(node, count)?;
    if count == 0 || count + leaves >= MOST_NODES {
        return Err(format!("it has {count} nodes and {leaves} leaves"));
    }
    if tree_roots.is_empty() {
        return Err("attribute `tree_roots` names no tree".to_string());
    }
    let mut sets = MemberSets::new(&members);
    let mut nodes = Vec::with_capacity(count + leaves);
    for place in 0..count {
        let name = || format!("node {place}");
        let kind = match modes[place] {
            0 => Kind::AtMost,
            1 => Kind::Below,
            2 => Kind::AtLeast,
            3 => Kind::Above,
            4 => Kind::Equals,
            5 => Kind::Differs,
            6 => Kind::Member,
            other => return Err(format!("{}: its mode {other} is not known", name())),
        };
        let set = match kind {
            Kind::Member => sets
                .next()
                .ok_or_else(|| format!("{}: `membership_values` has no set for it", name()))?,
            _ => 0,
        };
        let child = |ids: &[i64], leaf: &[i64], way: &str| {
            let id = ids[place];
            let (limit, offset, what) = match leaf[place] {
                0 => (count, 0, "node"),
                _ => (leaves, count, "leaf"),
            };
            match usize::try_from(id) {
                Ok(id) if id < limit => Ok((id + offset) as u32),
                _ => Err(format!("{}: its {way} {what} {id} is not there", name())),
            }
        };
        nodes.push(RawNode {
            kind,
            missing_holds: missing.get(place) == Some(&1),
            feature: feature(features[place], name)?,
            set,
            yes: child(yes, yes_leaf, "true")?,
            no: child(no, no_leaf, "false")?,
            value: splits[place],
        });
    }
    let mut weights = Vec::with_capacity(leaves);
    for (leaf, (target, value)) in leaf_targets.iter().zip(&leaf_weights).enumerate() {
        if !usize::try_from(*target).is_ok_and(|target| target < targets) {
            return Err(format!(
                "leaf {leaf} is for target {target}, and there are {targets}"
            ));
        }
        weights.push(Weight {
            target: *target as u32,
            value: *value,
        });
        nodes.push(RawNode {
            kind: Kind::Leaf,
            missing_holds: false,
            feature: 0,
            set: 0,
            yes: leaf as u32,
            no: 1,
            value: 0.0,
        });
    }
    let mut roots = Vec::with_capacity(tree_roots.len());
    for (tree, root) in tree_roots.iter().enumerate() {
        match usize::try_from(*root) {
            Ok(place) if place < count => roots.push(place as u32),
            _ => return Err(format!("tree {tree}: its root {root} is not there")),
        }
    }
    let forest = Forest {
        nodes: &nodes,
        roots: &roots,
        sets: &sets.sets,
        name: &|tree, place| match (place as usize).checked_sub(count) {
            Some(leaf) => format!("tree {tree}, leaf {leaf}"),
            None => format!("tree {tree}, node {place}"),
        },
    };
    let (trees, features) = grow(&forest)?;
    let precision = numbers.precision();
    let ensemble = Ensemble {
        features,
        targets,
        trees,
        weights,
        aggregate,
        wide: precision == Precision::Double,
    };
    Ok(Parsed {
        finish: Finish::scores(&ensemble, Vec::new(), post),
        ensemble,
        precision,
    })
}

/// The sets in `membership_values`, where NaN ends each.
struct MemberSets<'a> {
    left: Option<&'a [f64]>,
    sets: Vec<Box<[f64]>>,
}

impl<'a> MemberSets<'a> {
    fn new(values: &'a [f64]) -> MemberSets<'a> {
        MemberSets {
            left: (!values.is_empty()).then_some(values),
            sets: Vec::new(),
        }
    }

    /// The place of the next set.
    fn next(&mut self) -> Option<u32> {
        let values = self.left?;
        let end = values.iter().position(|value| value.is_nan());
        let (set, left) = match end {
            Some(end) => (&values[..end], Some(&values[end + 1..])),
            None => (values, None),
        };
        self.left = left.filter(|left| !left.is_empty());
        self.sets.push(member_set(set));
        Some((self.sets.len() - 1) as u32)
    }
}
