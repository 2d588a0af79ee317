"""Tree ensembles made by hand: every operator, mode, aggregate and transform, judged by plain Python."""

import numpy as np

import tree_builder
import zoo
from by_hand import FLOAT, INT64, KINDS, LETTERS, PRODUCER, STRING, TRANSFORM, hand, model, numbers
from zoo import Made

# ---------------------------------------------------------------------------------------------------
# Trees


COLUMNS = {
    0: np.round(np.linspace(-2, 2, 17), 3),
    1: np.round(np.linspace(-1.5, 1.5, 13), 3),
    4: np.round(np.geomspace(0.1, 6, 12), 3),
    5: np.arange(0.0, 9.0),
    6: np.arange(0.0, 20.0),
    7: np.array([0.0, 0.5, 1.0]),
}
COUNTS = {5: COLUMNS[5], 6: COLUMNS[6], 7: np.array([0.0, 1.0])}
ORDERED = list(tree_builder.MODES[:4])
ALL_BUT_MEMBER = list(tree_builder.MODES[:6])


def normal_weight(rng):
    return rng.normal()


def share_weight(rng):
    """A probability not too near to one half, where the probit approximation loses its digits."""
    return rng.uniform(0.05, 0.35) + 0.6 * rng.integers(2)


def forest(seed, count, modes, targets, weight=normal_weight, width=np.float32, depth=5, columns=COLUMNS, share=0.7):
    rng = np.random.default_rng(seed)
    return [tree_builder.a_branch(rng, depth, columns, modes, targets, weight, width, share) for _ in range(count)]


def judged(made, ordinary, say, tolerance=1e-5):
    """The model fed with ordinary and edge rows; `say` gives plain Python's opinion on any rows."""
    result = zoo.with_edges(made, ordinary, {}, tolerance=tolerance, no_reference="plain Python says it")
    (table,) = result.inputs.values()
    result.ordinary = len(table)
    with np.errstate(all="ignore"):
        result.expected = say(table)
    return result


def one_target(tree):
    """The tree with the first weight of every leaf only, as version 5 has it."""
    if isinstance(tree, tree_builder.Leaf):
        return tree_builder.Leaf(tree.weights[:1])
    tree.when_true, tree.when_false = one_target(tree.when_true), one_target(tree.when_false)
    return tree


def tree_regressor(
    name,
    estimator,
    seed,
    count=6,
    modes=ALL_BUT_MEMBER,
    targets=2,
    how="SUM",
    post="NONE",
    base=None,
    dtype=np.float32,
    weight=normal_weight,
    tolerance=1e-5,
):
    def build():
        trees = forest(seed, count, modes, targets, weight, dtype if np.dtype(dtype).kind == "f" else np.float32)
        table = numbers(dtype=dtype)
        made = model(
            [tree_builder.regressor(trees, ["X"], ["Y"], targets, how, post, base, double=dtype == np.float64)],
            {"X": table},
            {"Y": FLOAT},
        )

        def say(rows):
            scores, _ = tree_builder.aggregate(trees, rows, targets, how, base)
            # Of the transforms ONNX Runtime applies only PROBIT to a single target.
            return {"Y": TRANSFORM[post](scores) if targets > 1 or post == "PROBIT" else scores}

        return judged(made, table, say, tolerance)

    zoo.register(name, PRODUCER, estimator, "other" if post == "PROBIT" else "trees", build)


tree_regressor("tree_regressor_modes", "TreeEnsembleRegressor, all node modes, missing values to either side", 1)
tree_regressor(
    "tree_regressor_average", "TreeEnsembleRegressor, AVERAGE, base values", 2, how="AVERAGE", base=[0.25, -1.5]
)
tree_regressor("tree_regressor_min", "TreeEnsembleRegressor, MIN, base values", 3, how="MIN", base=[10.0, -0.5])
tree_regressor("tree_regressor_max", "TreeEnsembleRegressor, MAX", 4, how="MAX")
tree_regressor(
    "tree_regressor_one_tree", "TreeEnsembleRegressor of a single tree", 5, count=1, targets=1, modes=["BRANCH_LT"]
)
tree_regressor("tree_regressor_gt", "TreeEnsembleRegressor, BRANCH_GT only", 6, targets=1, modes=["BRANCH_GT"])
tree_regressor(
    "tree_regressor_gte",
    "TreeEnsembleRegressor, BRANCH_GTE only, one target with base value",
    7,
    targets=1,
    modes=["BRANCH_GTE"],
    base=[3.5],
)
tree_regressor(
    "tree_regressor_eq",
    "TreeEnsembleRegressor, BRANCH_EQ and BRANCH_NEQ",
    8,
    targets=3,
    modes=["BRANCH_EQ", "BRANCH_NEQ"],
)
tree_regressor("tree_regressor_logistic", "TreeEnsembleRegressor, LOGISTIC", 9, post="LOGISTIC", targets=1)
tree_regressor("tree_regressor_softmax", "TreeEnsembleRegressor, SOFTMAX", 10, post="SOFTMAX", targets=3)
tree_regressor(
    "tree_regressor_probit", "TreeEnsembleRegressor, PROBIT", 11, count=1, post="PROBIT", targets=1, weight=share_weight
)
tree_regressor(
    "tree_regressor_double",
    "TreeEnsembleRegressor, float64 thresholds and input",
    12,
    dtype=np.float64,
    base=[0.1, 0.2],
)


def classes_said(labels, trees, rows, post, base):
    """Label and scores of a classifier with one score a class."""
    scores, spoken = tree_builder.aggregate(trees, rows, len(labels), base=base)
    best = np.where(spoken, scores, -np.inf).argmax(axis=1)
    return {"label": np.array(labels, dtype=object)[best], "scores": TRANSFORM[post](scores)}


def binary_said(labels, trees, rows, post, base):
    """The same for two labels with only one score between them, as ONNX Runtime does it."""
    scores, _ = tree_builder.aggregate(trees, rows, 1, base=base)
    score = scores[:, 0]
    shares = min(w for tree in trees for w in tree_builder.weights_of(tree)) >= 0
    second = score > (0.5 if shares else 0)
    if post == "PROBIT":
        return {"label": np.array(labels, dtype=object)[second.astype(int)]}
    if shares:
        both = np.stack([1 - score, score], axis=1)
    elif post == "LOGISTIC":
        both = TRANSFORM["LOGISTIC"](np.stack([-score, score], axis=1))
    else:
        both = np.stack([-score, score], axis=1)
    return {"label": np.array(labels, dtype=object)[second.astype(int)], "scores": both}


def tree_classifier(
    name,
    estimator,
    seed,
    labels,
    count=6,
    modes=ALL_BUT_MEMBER,
    post="NONE",
    base=None,
    dtype=np.float32,
    weight=normal_weight,
    share=0.7,
    binary=False,
):
    """`binary`: two labels and one score."""

    def build():
        width = dtype if np.dtype(dtype).kind == "f" else np.float32
        trees = forest(seed, count, modes, 1 if binary else len(labels), weight, width, share=share)
        table = numbers(dtype=dtype)
        made = model(
            [
                tree_builder.classifier(
                    trees, ["X"], ["label", "scores"], labels, post, base, double=dtype == np.float64
                )
            ],
            {"X": table},
            {"label": STRING if isinstance(labels[0], str) else INT64, "scores": FLOAT},
        )

        def say(rows):
            said = (binary_said if binary else classes_said)(labels, trees, rows, post, base)
            if isinstance(labels[0], int):
                said["label"] = said["label"].astype(np.int64)
            return said

        if np.dtype(dtype).kind != "f":
            return Made(made, {"X": table}, say(table), no_reference="plain Python says it")
        return judged(made, table, say, 1e-4 if post == "PROBIT" else 1e-5)

    zoo.register(name, PRODUCER, estimator, "other" if post == "PROBIT" else "trees", build)


tree_classifier(
    "tree_classifier_modes",
    "TreeEnsembleClassifier, all node modes, base values",
    21,
    [7, -3, 100],
    base=[0.1, 0.0, -0.3],
)
tree_classifier("tree_classifier_softmax", "TreeEnsembleClassifier, SOFTMAX", 22, LETTERS, post="SOFTMAX")
tree_classifier(
    "tree_classifier_softmax_zero", "TreeEnsembleClassifier, SOFTMAX_ZERO", 23, LETTERS, post="SOFTMAX_ZERO", count=2
)
tree_classifier("tree_classifier_logistic", "TreeEnsembleClassifier, LOGISTIC", 24, [0, 1, 2], post="LOGISTIC")
tree_classifier(
    "tree_classifier_probit",
    "TreeEnsembleClassifier, PROBIT, every leaf speaks of every class",
    25,
    [0, 1, 2],
    post="PROBIT",
    count=1,
    weight=share_weight,
    share=1.0,
)
tree_classifier(
    "tree_classifier_double", "TreeEnsembleClassifier, float64 thresholds and input", 26, [0, 1, 2], dtype=np.float64
)
tree_classifier("tree_classifier_int64", "TreeEnsembleClassifier, int64 input", 27, [0, 1, 2], dtype=np.int64)
tree_classifier("tree_classifier_int32", "TreeEnsembleClassifier, int32 input", 28, LETTERS, dtype=np.int32)


def binary_tree(name, estimator, seed, labels, post="NONE", base=None, weight=normal_weight):
    tree_classifier(name, estimator, seed, labels, post=post, base=base, weight=weight, binary=True)


binary_tree("tree_binary_none", "TreeEnsembleClassifier, binary with one score", 31, [0, 1])
binary_tree(
    "tree_binary_base",
    "TreeEnsembleClassifier, binary with one score and a base value, string labels",
    32,
    ["no", "yes"],
    base=[0.4],
)
binary_tree(
    "tree_binary_logistic",
    "TreeEnsembleClassifier, binary with one score, LOGISTIC",
    33,
    [5, 9],
    post="LOGISTIC",
    base=[-0.2],
)
binary_tree(
    "tree_binary_softmax", "TreeEnsembleClassifier, binary with one score, SOFTMAX", 34, ["no", "yes"], post="SOFTMAX"
)
binary_tree(
    "tree_binary_shares",
    "TreeEnsembleClassifier, binary with one positive score (share of a forest)",
    35,
    [0, 1],
    weight=lambda rng: rng.uniform(0, 1 / 6),
)


def tree_version5(
    name,
    estimator,
    seed,
    count=6,
    modes=tree_builder.MODES,
    targets=2,
    how="SUM",
    post="NONE",
    dtype=np.float32,
    weight=normal_weight,
    columns=COLUMNS,
    with_leaf=False,
):
    def build():
        trees = [one_target(t) for t in forest(seed, count, list(modes), targets, weight, dtype, columns=columns)]
        if with_leaf:
            trees.insert(1, tree_builder.Leaf([(0, 0.75)]))
        table = numbers(dtype=dtype)
        made = model(
            [tree_builder.version5(trees, ["X"], ["Y"], targets, how, post, double=dtype == np.float64)],
            {"X": table},
            {"Y": KINDS[np.dtype(dtype)]},
            opsets=((21, ""), (5, "ai.onnx.ml")),
            ir=10,
        )

        def say(rows):
            scores, _ = tree_builder.aggregate(trees, rows, targets, how)
            return {"Y": TRANSFORM[post](scores) if targets > 1 or post == "PROBIT" else scores}

        return judged(made, table, say)

    zoo.register(name, PRODUCER, estimator, "other" if post == "PROBIT" else "trees", build)


tree_version5("tree5_modes", "TreeEnsemble, all node modes", 41)
tree_version5(
    "tree5_member",
    "TreeEnsemble, BRANCH_MEMBER of small and large sets",
    42,
    modes=["BRANCH_MEMBER", "BRANCH_LEQ"],
    columns=COUNTS,
)
tree_version5(
    "tree5_leq",
    "TreeEnsemble, BRANCH_LEQ only, a tree of one leaf among them",
    43,
    modes=["BRANCH_LEQ"],
    targets=1,
    with_leaf=True,
)
tree_version5("tree5_double", "TreeEnsemble, float64", 44, dtype=np.float64, targets=3)
tree_version5("tree5_average", "TreeEnsemble, AVERAGE", 45, how="AVERAGE")
tree_version5("tree5_min", "TreeEnsemble, MIN", 46, how="MIN")
tree_version5("tree5_max", "TreeEnsemble, MAX", 47, how="MAX", targets=3)
tree_version5("tree5_softmax", "TreeEnsemble, SOFTMAX", 48, post="SOFTMAX", targets=3)
tree_version5("tree5_softmax_zero", "TreeEnsemble, SOFTMAX_ZERO", 49, count=2, post="SOFTMAX_ZERO", targets=3)
tree_version5("tree5_logistic", "TreeEnsemble, LOGISTIC", 50, post="LOGISTIC", modes=ORDERED)
tree_version5("tree5_probit", "TreeEnsemble, PROBIT", 51, count=1, post="PROBIT", targets=1, weight=share_weight)


@hand("tree5_member_large", "TreeEnsemble, BRANCH_MEMBER of negative and large numbers", "trees")
def _():
    rng = np.random.default_rng(53)
    choices = np.array([-40, -7, -1, 0, 5, 31, 32, 33, 64, 100, 1000, 70000, 2**24])

    def large(depth):
        if depth == 0:
            return tree_builder.Leaf([(0, float(np.float32(rng.normal())))])
        members = sorted(float(v) for v in rng.choice(choices, int(rng.integers(1, 8)), replace=False))
        return tree_builder.Branch(
            int(rng.integers(3)), "BRANCH_MEMBER", members[0], members, False, large(depth - 1), large(depth - 1)
        )

    trees = [large(4) for _ in range(4)]
    table = rng.choice(np.append(choices, [1, -2, 99]), (zoo.ROWS, 3)).astype(np.float32)
    made = model(
        [tree_builder.version5(trees, ["X"], ["Y"], 1)], {"X": table}, {"Y": FLOAT}, opsets=((5, "ai.onnx.ml"),), ir=10
    )
    return Made(
        made, {"X": table}, {"Y": tree_builder.aggregate(trees, table, 1)[0]}, 1e-5, no_reference="plain Python says it"
    )


@hand("tree_zero_rows", "TreeEnsembleClassifier asked for no rows at all", "trees")
def _():
    trees = forest(52, 3, ORDERED, 3)
    table = np.zeros((0, 8), dtype=np.float32)
    made = model(
        [tree_builder.classifier(trees, ["X"], ["label", "scores"], [0, 1, 2])],
        {"X": table},
        {"label": INT64, "scores": FLOAT},
    )
    return Made(
        made, {"X": table}, {"label": np.zeros(0), "scores": np.zeros((0, 3))}, whole=True, no_reference="no rows"
    )
