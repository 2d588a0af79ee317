"""Random trees, written as any of the three tree operators of ai.onnx.ml, and evaluated in plain Python."""

import math

import numpy as np
from onnx import TensorProto, helper

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")


class Branch:
    def __init__(self, feature, mode, value, members, missing_true, when_true, when_false):
        self.feature, self.mode, self.value, self.members = feature, mode, value, members
        self.missing_true, self.when_true, self.when_false = missing_true, when_true, when_false


class Leaf:
    def __init__(self, weights):
        self.weights = weights  # [(target, weight)]


def random_tree(rng, depth, columns, modes, targets, weight, width=np.float32, share=0.7):
    """`columns`: feature -> values to split at. `weight`: draws one leaf weight. `share` of the targets
    have a weight in a leaf, at least one."""
    if depth == 0 or rng.random() < 0.15:
        chosen = [t for t in range(targets) if rng.random() < share] or [int(rng.integers(targets))]
        return Leaf([(t, float(np.float32(weight(rng)))) for t in chosen])
    feature = int(rng.choice(sorted(columns)))
    mode = str(rng.choice(modes))
    choices = columns[feature]
    members = []
    if mode == "BRANCH_MEMBER":
        # ONNX Runtime takes whole numbers only, and beyond 0 to 30 it cuts off the fraction of a feature.
        choices = [v for v in choices if v == int(v) and v >= 0]
        count = int(rng.integers(1, min(6, len(choices)) + 1))
        members = sorted(float(v) for v in rng.choice(choices, count, replace=False))
    value = float(width(rng.choice(choices)))
    deeper = [random_tree(rng, depth - 1, columns, modes, targets, weight, width, share) for _ in range(2)]
    return Branch(feature, mode, value, members, bool(rng.integers(2)), *deeper)


def a_branch(rng, *args, **kwargs):
    """A random tree that is not a single leaf."""
    while True:
        tree = random_tree(rng, *args, **kwargs)
        if isinstance(tree, Branch):
            return tree


def holds(branch, x):
    if math.isnan(x) and branch.missing_true:
        return True
    return {
        "BRANCH_LEQ": x <= branch.value,
        "BRANCH_LT": x < branch.value,
        "BRANCH_GTE": x >= branch.value,
        "BRANCH_GT": x > branch.value,
        "BRANCH_EQ": x == branch.value,
        "BRANCH_NEQ": x != branch.value,
        "BRANCH_MEMBER": x in branch.members,
    }[branch.mode]


def leaf_of(tree, row):
    while isinstance(tree, Branch):
        tree = tree.when_true if holds(tree, float(row[tree.feature])) else tree.when_false
    return tree


def aggregate(trees, table, targets, how="SUM", base=None):
    """float64 scores [rows, targets] before the post transform, and which targets any leaf spoke of.

    A target no leaf spoke of has the score 0 (+ base)."""
    scores = np.zeros((len(table), targets))
    spoken = np.full((len(table), targets), base is not None)
    for number, row in enumerate(table):
        said = [[] for _ in range(targets)]
        for tree in trees:
            for target, weight in leaf_of(tree, row).weights:
                said[target].append(weight)
        for target, weights in enumerate(said):
            if weights:
                spoken[number, target] = True
                total = {"SUM": sum, "AVERAGE": sum, "MIN": min, "MAX": max}[how](weights)
                scores[number, target] = total / len(trees) if how == "AVERAGE" else total
    return scores + (np.array(base) if base is not None else 0), spoken


def weights_of(tree):
    if isinstance(tree, Leaf):
        return [weight for _, weight in tree.weights]
    return weights_of(tree.when_true) + weights_of(tree.when_false)


def flat(trees):
    """Attributes nodes_* and (tree, node, target, weight) of leaves, in the layout of versions 1 to 3."""
    nodes = {
        k: []
        for k in (
            "treeids",
            "nodeids",
            "featureids",
            "modes",
            "values",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
        )
    }
    leaves = []

    def write(tree_number, tree, counter):
        mine = counter[0]
        counter[0] += 1
        at = len(nodes["treeids"])
        is_leaf = isinstance(tree, Leaf)
        for key, value in (
            ("treeids", tree_number),
            ("nodeids", mine),
            ("featureids", 0 if is_leaf else tree.feature),
            ("modes", "LEAF" if is_leaf else tree.mode),
            ("values", 0.0 if is_leaf else tree.value),
            ("missing_value_tracks_true", 0 if is_leaf else int(tree.missing_true)),
            ("truenodeids", 0),
            ("falsenodeids", 0),
        ):
            nodes[key].append(value)
        if is_leaf:
            leaves.extend((tree_number, mine, target, weight) for target, weight in tree.weights)
        else:
            nodes["truenodeids"][at] = write(tree_number, tree.when_true, counter)
            nodes["falsenodeids"][at] = write(tree_number, tree.when_false, counter)
        return mine

    for number, tree in enumerate(trees):
        write(number, tree, [0])
    return {f"nodes_{k}": v for k, v in nodes.items()}, leaves


def with_doubles(attributes, names):
    """float64 attributes are tensors with the suffix _as_tensor (version 3)."""
    changed = dict(attributes)
    for name in names:
        if name in changed:
            values = changed.pop(name)
            changed[f"{name}_as_tensor"] = helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], values)
    return changed


def regressor(trees, inputs, outputs, targets, how="SUM", post="NONE", base=None, double=False):
    attributes, leaves = flat(trees)
    attributes.update(
        target_treeids=[leaf[0] for leaf in leaves],
        target_nodeids=[leaf[1] for leaf in leaves],
        target_ids=[leaf[2] for leaf in leaves],
        target_weights=[leaf[3] for leaf in leaves],
        n_targets=targets,
        aggregate_function=how,
        post_transform=post,
    )
    if base is not None:
        attributes["base_values"] = base
    if double:
        attributes = with_doubles(attributes, ["nodes_values", "target_weights", "base_values"])
    return helper.make_node("TreeEnsembleRegressor", inputs, outputs, domain="ai.onnx.ml", **attributes)


def classifier(trees, inputs, outputs, labels, post="NONE", base=None, double=False):
    attributes, leaves = flat(trees)
    attributes.update(
        class_treeids=[leaf[0] for leaf in leaves],
        class_nodeids=[leaf[1] for leaf in leaves],
        class_ids=[leaf[2] for leaf in leaves],
        class_weights=[leaf[3] for leaf in leaves],
        post_transform=post,
    )
    attributes["classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"] = labels
    if base is not None:
        attributes["base_values"] = base
    if double:
        attributes = with_doubles(attributes, ["nodes_values", "class_weights", "base_values"])
    return helper.make_node("TreeEnsembleClassifier", inputs, outputs, domain="ai.onnx.ml", **attributes)


AGGREGATES = {"AVERAGE": 0, "SUM": 1, "MIN": 2, "MAX": 3}
# ONNX Runtime's numbers. The specification has 1 for SOFTMAX and 2 for LOGISTIC.
TRANSFORMS = {"NONE": 0, "LOGISTIC": 1, "SOFTMAX": 2, "SOFTMAX_ZERO": 3, "PROBIT": 4}


def version5(trees, inputs, outputs, targets, how="SUM", post="NONE", double=False):
    """TreeEnsemble of version 5, where a leaf has one target: other weights of a leaf are dropped."""
    kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
    nodes = {
        k: []
        for k in (
            "featureids",
            "modes",
            "splits",
            "missing_value_tracks_true",
            "truenodeids",
            "trueleafs",
            "falsenodeids",
            "falseleafs",
        )
    }
    leaf_targets, leaf_weights, members, roots = [], [], [], []

    def leaf(tree):
        target, weight = tree.weights[0]
        leaf_targets.append(target)
        leaf_weights.append(weight)
        return len(leaf_targets) - 1

    def write(tree):
        mine = len(nodes["modes"])
        nodes["featureids"].append(tree.feature)
        nodes["modes"].append(MODES.index(tree.mode))
        nodes["splits"].append(tree.value)
        nodes["missing_value_tracks_true"].append(int(tree.missing_true))
        if tree.mode == "BRANCH_MEMBER":
            members.extend([*tree.members, float("nan")])
        for side, child in (("true", tree.when_true), ("false", tree.when_false)):
            nodes[f"{side}leafs"].append(int(isinstance(child, Leaf)))
            nodes[f"{side}nodeids"].append(0)
        for side, child in (("true", tree.when_true), ("false", tree.when_false)):
            where = leaf(child) if isinstance(child, Leaf) else write(child)
            nodes[f"{side}nodeids"][mine] = where
        return mine

    for tree in trees:
        if isinstance(tree, Leaf):
            # A tree of one leaf: a node both of whose sides are that leaf.
            tree = Branch(0, "BRANCH_LEQ", 0.0, [], False, tree, tree)
        roots.append(write(tree))
    modes = nodes.pop("modes")
    splits = nodes.pop("splits")
    attributes = {f"nodes_{k}": v for k, v in nodes.items()}
    attributes.update(
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [len(modes)], modes),
        nodes_splits=helper.make_tensor("splits", kind, [len(splits)], splits),
        leaf_targetids=leaf_targets,
        leaf_weights=helper.make_tensor("weights", kind, [len(leaf_weights)], leaf_weights),
        tree_roots=roots,
        n_targets=targets,
        aggregate_function=AGGREGATES[how],
        post_transform=TRANSFORMS[post],
    )
    if members:
        attributes["membership_values"] = helper.make_tensor("members", kind, [len(members)], members)
    return helper.make_node("TreeEnsemble", inputs, outputs, domain="ai.onnx.ml", **attributes)
