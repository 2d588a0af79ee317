"""Thresholds of trees as the estimator has them.

LightGBM and scikit-learn's histogram boosting compare float64 values with float64 thresholds. Exporters write
the thresholds as float32; a value between the two forms of a threshold then takes the other branch, and the
score is another one. The operators of ONNX can hold float64 (``nodes_values_as_tensor``, since version 3 of
``ai.onnx.ml``): this walks the trees of the graph and of the estimator side by side and puts them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

import numpy

_OPERATORS = {"TreeEnsembleClassifier": "class_weights", "TreeEnsembleRegressor": "target_weights"}


@dataclass(frozen=True)
class Leaf:
    value: float


@dataclass(frozen=True)
class Split:
    """``value of feature <= threshold`` goes left."""

    feature: int
    threshold: float
    left: Any
    right: Any


Tree = Union[Leaf, Split]


def trees_of(model: Any) -> list[Tree] | None:
    """The trees of an estimator that compares in float64; ``None`` for any other."""
    library = type(model).__module__.partition(".")[0]
    if library == "lightgbm" and hasattr(model, "booster_"):
        # Categorical splits are sets, and become several nodes in the graph: not this way.
        dumped = model.booster_.dump_model()["tree_info"]
        return [_lightgbm(tree["tree_structure"]) for tree in dumped]
    if library == "sklearn" and type(model).__name__.startswith("HistGradientBoosting"):
        return [_histogram(tree.nodes, 0) for iteration in model._predictors for tree in iteration]
    return None


def _lightgbm(node: dict[str, Any]) -> Tree:
    if "split_feature" not in node:
        return Leaf(float(node["leaf_value"]))
    numeric = node["decision_type"] == "<="
    threshold = float(node["threshold"]) if numeric else numpy.nan
    return Split(
        node["split_feature"], threshold, _lightgbm(node["left_child"]), _lightgbm(node["right_child"])
    )


def _histogram(nodes: Any, index: int) -> Tree:
    node = nodes[index]
    if node["is_leaf"]:
        return Leaf(float(node["value"]))
    threshold = numpy.nan if node["is_categorical"] else float(node["num_threshold"])
    left, right = _histogram(nodes, int(node["left"])), _histogram(nodes, int(node["right"]))
    return Split(int(node["feature_idx"]), threshold, left, right)


def widen(graph: Any, trees: list[Tree]) -> bool:
    """Gives the one tree operator of an ONNX model the estimator's float64 numbers.

    Returns whether it did: ``False``, with nothing changed, when the trees are not the same.
    """
    from onnx import helper, numpy_helper

    nodes = [node for node in graph.graph.node if node.op_type in _OPERATORS]
    domains = [opset for opset in graph.opset_import if opset.domain == "ai.onnx.ml"]
    if len(nodes) != 1 or len(domains) != 1:
        return False
    if domains[0].version < 2 and any(node.op_type == "LabelEncoder" for node in graph.graph.node):
        return False  # the one operator besides trees that is another one in version 3
    node = nodes[0]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    weights_name = _OPERATORS[node.op_type]
    exact = _exact(attributes, weights_name, trees)
    if exact is None:
        return False
    thresholds, weights = exact
    wide = {"nodes_values": thresholds, weights_name: weights}
    for name in ("base_values", "nodes_hitrates"):
        if name in attributes:
            wide[name] = numpy.array(attributes[name], dtype=numpy.float64)
    kept = [a for a in node.attribute if a.name not in wide]
    added = [
        helper.make_attribute(f"{name}_as_tensor", numpy_helper.from_array(values, f"{name}_as_tensor"))
        for name, values in wide.items()
    ]
    del node.attribute[:]
    node.attribute.extend(kept + added)
    domains[0].version = max(domains[0].version, 3)
    return True


def _exact(
    attributes: dict[str, Any], weights_name: str, trees: list[Tree]
) -> tuple[numpy.ndarray, numpy.ndarray] | None:
    """Thresholds and weights in the order of the graph; ``None`` when the trees are not the same."""
    if "nodes_values" not in attributes or weights_name not in attributes:
        return None
    of_weights = weights_name.removesuffix("_weights")
    thresholds = numpy.array(attributes["nodes_values"], dtype=numpy.float64)
    weights = numpy.array(attributes[weights_name], dtype=numpy.float64)
    places = {
        key: place
        for place, key in enumerate(
            zip(attributes[f"{of_weights}_treeids"], attributes[f"{of_weights}_nodeids"])
        )
    }
    roots = dict(_roots(attributes))
    if sorted(roots) != list(range(len(trees))):
        return None
    index = {
        key: place for place, key in enumerate(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"]))
    }
    waiting = [(number, roots[number], tree) for number, tree in enumerate(trees)]
    while waiting:
        number, place, tree = waiting.pop()
        mode = attributes["nodes_modes"][place]
        if isinstance(tree, Leaf):
            weight = places.get((number, attributes["nodes_nodeids"][place]))
            if mode != b"LEAF" or weight is None:
                return None
            if _close(weights[weight], tree.value):
                weights[weight] = tree.value
            continue
        same = mode == b"BRANCH_LEQ" and attributes["nodes_featureids"][place] == tree.feature
        if not same or not _close(thresholds[place], tree.threshold):
            return None
        thresholds[place] = tree.threshold
        waiting.append((number, index[number, attributes["nodes_truenodeids"][place]], tree.left))
        waiting.append((number, index[number, attributes["nodes_falsenodeids"][place]], tree.right))
    return thresholds, weights


def _roots(attributes: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """The place of each tree's root: the node that is no node's child."""
    numbers, nodes = attributes["nodes_treeids"], attributes["nodes_nodeids"]
    children: set[tuple[int, int]] = set()
    for place, number in enumerate(numbers):
        if attributes["nodes_modes"][place] != b"LEAF":
            children.add((number, attributes["nodes_truenodeids"][place]))
            children.add((number, attributes["nodes_falsenodeids"][place]))
    for place, key in enumerate(zip(numbers, nodes)):
        if key not in children:
            yield key[0], place


def _close(rounded: float, exact: float) -> bool:
    return bool(abs(rounded - exact) <= 1e-5 * max(abs(exact), 1e-30))
