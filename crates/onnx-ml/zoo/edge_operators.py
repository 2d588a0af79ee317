"""The other operators of ai.onnx.ml in forms that exporters seldom write."""

import numpy as np
from onnx import helper

import zoo
from by_hand import DOUBLE, FLOAT, INT64, LETTERS, PRODUCER, STRING, TRANSFORM, hand, ml, model, numbers
from zoo import Made

# ---------------------------------------------------------------------------------------------------
# Linear models, scalers, encoders


@hand("only_ml_opset", "Scaler + LinearRegressor, the only opset imported is ai.onnx.ml")
def _():
    table = numbers()
    weights = [0.5, -1.0, 2.0, 0.25, 0.1, -0.3, 0.05, 1.5]
    made = model(
        [
            ml("Scaler", ["X"], ["scaled"], offset=[0.1] * 8, scale=[2.0] * 8),
            ml("LinearRegressor", ["scaled"], ["Y"], coefficients=weights, intercepts=[0.7]),
        ],
        {"X": table},
        {"Y": FLOAT},
        opsets=((3, "ai.onnx.ml"),),
    )
    return Made(made, {"X": table}, {"Y": (table.astype(float) - 0.1) * 2 @ np.array(weights) + 0.7})


@hand("odd_names", "LinearRegressor twice, names with spaces, slashes, accents, digits only")
def _():
    table = numbers()[:, :3].copy()
    made = model(
        [
            ml("LinearRegressor", ["in put/0:ü"], ["1"], coefficients=[1.0, -2.0, 3.0], intercepts=[0.5]),
            ml(
                "LinearRegressor",
                ["in put/0:ü"],
                ["out put:0/é"],
                coefficients=[1.0] * 3,
                intercepts=[0.0],
                post_transform="NONE",
            ),
        ],
        {"in put/0:ü": table},
        {"out put:0/é": FLOAT, "1": FLOAT},
    )
    x = table.astype(float)
    return Made(made, {"in put/0:ü": table}, {"1": x @ [1, -2, 3] + 0.5, "out put:0/é": x.sum(axis=1)})


@hand("linear_regressor_targets", "LinearRegressor with three targets, and one without intercept")
def _():
    rng = np.random.default_rng(61)
    coefficients = np.round(rng.normal(size=(3, 8)), 3)
    intercepts = [0.5, -1.0, 2.0]
    table = numbers()
    made = model(
        [
            ml(
                "LinearRegressor",
                ["X"],
                ["Y"],
                coefficients=coefficients.reshape(-1).tolist(),
                intercepts=intercepts,
                targets=3,
            ),
            ml("LinearRegressor", ["X"], ["Y1"], coefficients=coefficients[0].tolist(), targets=1),
        ],
        {"X": table},
        {"Y": FLOAT, "Y1": FLOAT},
    )
    x = table.astype(float)
    return Made(
        made,
        {"X": table},
        {"Y": x @ coefficients.T + intercepts, "Y1": x @ coefficients[0]},
        no_reference="it needs intercepts",
    )


def linear_classifier(name, post, labels, classes, dtype=np.float32, multi_class=1):
    def build():
        rng = np.random.default_rng(62)
        coefficients = np.round(rng.normal(size=(classes, 8)) * 0.5, 3)
        intercepts = np.round(rng.normal(size=classes), 3)
        if post == "PROBIT":
            coefficients, intercepts = np.abs(coefficients) * 0.01, 0.2 + 0.1 * np.abs(intercepts)
        table = numbers(dtype=dtype)
        key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
        made = model(
            [
                ml(
                    "LinearClassifier",
                    ["X"],
                    ["label", "scores"],
                    coefficients=coefficients.reshape(-1).tolist(),
                    intercepts=intercepts.tolist(),
                    post_transform=post,
                    multi_class=multi_class,
                    **{key: labels},
                )
            ],
            {"X": table},
            {"label": STRING if key.endswith("strings") else INT64, "scores": FLOAT},
        )
        said = {}
        if classes == 1:
            # One score for two labels: the first gets what is left of 1, whatever the transform.
            score = TRANSFORM[post](table.astype(float) @ coefficients.T + intercepts)
            said["scores"] = np.concatenate([1 - score, score], axis=1)
        else:
            said["scores"] = TRANSFORM[post](table.astype(float) @ coefficients.T + intercepts)
        return Made(made, {"X": table}, said, no_reference="plain Python says it")

    zoo.register(
        name, PRODUCER, f"LinearClassifier, {post}, {classes} scores, {np.dtype(dtype).name} input", "other", build
    )


linear_classifier("linear_classifier_none", "NONE", [3, 5, 9], 3)
linear_classifier("linear_classifier_softmax", "SOFTMAX", LETTERS, 3)
linear_classifier("linear_classifier_softmax_zero", "SOFTMAX_ZERO", LETTERS, 3)
linear_classifier("linear_classifier_logistic", "LOGISTIC", [0, 1, 2], 3, np.float64)
linear_classifier("linear_classifier_probit", "PROBIT", [0, 1, 2], 3)
linear_classifier("linear_classifier_one_score", "LOGISTIC", [4, 6], 1, np.int64)
linear_classifier("linear_classifier_one_raw_score", "NONE", ["no", "yes"], 1)


@hand("scaler_imputer_integers", "Scaler and Imputer of int64, int32 and float64; one value for all columns")
def _():
    whole = numbers(dtype=np.int64)
    small = numbers(112, dtype=np.int32)
    wide = numbers(113, dtype=np.float64)
    single = numbers(114)
    single[2, 3] = -5.0
    single[7, 1] = np.nan
    gaps = np.where(whole == 0, -1, whole)
    made = model(
        [
            ml("Imputer", ["whole"], ["filled"], imputed_value_int64s=list(range(10, 18)), replaced_value_int64=-1),
            ml("Scaler", ["filled"], ["scaled"], offset=[1.5] * 8, scale=[0.25 * (i + 1) for i in range(8)]),
            ml("Scaler", ["small"], ["small_scaled"], offset=[0.5], scale=[0.1]),
            ml("Scaler", ["wide"], ["wide_scaled"], offset=[0.1 * i for i in range(8)], scale=[3.0] * 8),
            ml("Imputer", ["single"], ["single_filled"], imputed_value_floats=[2.5], replaced_value_float=-5.0),
        ],
        {"whole": gaps, "small": small, "wide": wide, "single": single},
        {"filled": INT64, "scaled": FLOAT, "small_scaled": FLOAT, "wide_scaled": FLOAT, "single_filled": FLOAT},
    )
    filled = np.where(gaps == -1, np.arange(10, 18), gaps)
    said = {
        "filled": filled,
        "scaled": (filled - 1.5) * 0.25 * np.arange(1, 9),
        "small_scaled": (small - 0.5) * 0.1,
        "wide_scaled": (wide - 0.1 * np.arange(8)) * 3,
        "single_filled": np.where(single == -5, 2.5, single),
    }
    return Made(
        made,
        {"whole": gaps, "small": small, "wide": wide, "single": single},
        said,
        whole=True,
        no_reference="plain Python says it",
    )


@hand("normalizer_norms", "Normalizer MAX, L1, L2, with rows of zeros and negative rows; float64 and int64")
def _():
    table = numbers()
    table[3] = 0
    table[4] = -np.abs(table[4]) - 0.5
    whole = np.round(table * 4).astype(np.int64)
    wide = table.astype(np.float64)
    nodes, outputs = [], {}
    for source in ("X", "wide", "whole"):
        for norm in ("MAX", "L1", "L2"):
            nodes.append(ml("Normalizer", [source], [f"{source}_{norm}"], norm=norm))
            outputs[f"{source}_{norm}"] = FLOAT
    inputs = {"X": table, "wide": wide, "whole": whole}
    x = wide
    with np.errstate(all="ignore"):
        length = np.sqrt((x * x).sum(axis=1, keepdims=True))
        said = {"X_L2": np.where(length > 0, x / length, x), "wide_L2": np.where(length > 0, x / length, x)}
        total = np.abs(x).sum(axis=1, keepdims=True)
        said["X_L1"] = np.where(total > 0, x / total, x)
    return Made(model(nodes, inputs, outputs), inputs, said, no_reference="its MAX differs")


@hand("one_hot_forms", "OneHotEncoder of integers, floats and strings; zeros=1 for unknown values")
def _():
    rng = np.random.default_rng(63)
    integers = rng.integers(0, 6, (zoo.ROWS, 1))
    floats = integers.astype(np.float32)
    known = rng.choice([10, 20, 30], (zoo.ROWS, 2))
    words = rng.choice(np.array(["red", "green", "", "blå", "Red"], dtype=object), (zoo.ROWS, 2))
    flat = words[:, 0].copy()
    inputs = {"integers": integers, "floats": floats, "known": known, "words": words, "flat": flat}
    made = model(
        [
            ml("OneHotEncoder", ["integers"], ["of_integers"], cats_int64s=[1, 3, 5, 0], zeros=1),
            ml("OneHotEncoder", ["floats"], ["of_floats"], cats_int64s=[1, 3, 5, 0], zeros=1),
            ml("OneHotEncoder", ["known"], ["of_known"], cats_int64s=[30, 20, 10], zeros=0),
            ml("OneHotEncoder", ["words"], ["of_words"], cats_strings=["blå", "red", ""], zeros=1),
            ml("OneHotEncoder", ["flat"], ["of_flat"], cats_strings=["blå", "red", ""], zeros=1),
        ],
        inputs,
        {k: FLOAT for k in ("of_integers", "of_floats", "of_known", "of_words", "of_flat")},
    )
    words_hot = (words[:, :, None] == np.array(["blå", "red", ""], dtype=object)).astype(float)
    said = {
        "of_integers": integers[:, :, None] == [1, 3, 5, 0],
        "of_known": known[:, :, None] == [30, 20, 10],
        "of_words": words_hot,
        "of_flat": words_hot[:, 0],
    }
    return Made(made, inputs, said, no_reference="plain Python says it")


@hand("category_mapper", "CategoryMapper both ways, with values that are not listed")
def _():
    rng = np.random.default_rng(64)
    words = rng.choice(np.array(["one", "two", "three", "", "Zwölf"], dtype=object), (zoo.ROWS, 2))
    integers = rng.integers(-1, 5, (zoo.ROWS, 2))
    mapping = {"cats_strings": ["one", "two", "three", "Zwölf"], "cats_int64s": [1, 2, 3, 12]}
    inputs = {"words": words, "integers": integers}
    made = model(
        [
            ml("CategoryMapper", ["words"], ["as_integers"], default_int64=-7, **mapping),
            ml("CategoryMapper", ["integers"], ["as_words"], default_string="?", **mapping),
        ],
        inputs,
        {"as_integers": INT64, "as_words": STRING},
    )
    forward = dict(zip(mapping["cats_strings"], mapping["cats_int64s"]))
    back = {v: k for k, v in forward.items()}
    said = {
        "as_integers": np.vectorize(lambda w: forward.get(w, -7))(words),
        "as_words": np.vectorize(lambda i: back.get(i, "?"), otypes=[object])(integers),
    }
    return Made(made, inputs, said, no_reference="plain Python says it")


@hand("feature_vectorizer", "FeatureVectorizer of several widths; too narrow and too wide inputs are padded and cut")
def _():
    table = numbers()
    inputs = {"a": table[:, :2].copy(), "b": table[:, 2:3].copy(), "c": table[:, 3:8].copy()}
    made = model(
        [
            ml("FeatureVectorizer", ["a", "b", "c"], ["joined"], inputdimensions=[2, 1, 5]),
            ml(
                "LinearRegressor",
                ["joined"],
                ["Y"],
                coefficients=[1.0, 2.0, 3.0, 4.0, 0.5, 0.6, 0.7, 0.8],
                intercepts=[0.0],
            ),
        ],
        inputs,
        {"joined": FLOAT, "Y": FLOAT},
    )
    return Made(
        made,
        inputs,
        {"joined": table, "Y": table.astype(float) @ [1, 2, 3, 4, 0.5, 0.6, 0.7, 0.8]},
        no_reference="plain Python says it",
    )


@hand("feature_vectorizer_types", "FeatureVectorizer of int64, int32 and float64")
def _():
    nodes, inputs, outputs, said = [], {}, {}, {}
    for kind in (np.int64, np.int32, np.float64):
        name = np.dtype(kind).name
        for part in (1, 2):
            inputs[f"{name}_{part}"] = numbers(114 + part, dtype=kind)[:, 4:7].copy()
        nodes.append(ml("FeatureVectorizer", [f"{name}_1", f"{name}_2"], [f"{name}_joined"], inputdimensions=[3, 3]))
        outputs[f"{name}_joined"] = FLOAT
        said[f"{name}_joined"] = np.concatenate([inputs[f"{name}_1"], inputs[f"{name}_2"]], axis=1)
    return Made(model(nodes, inputs, outputs), inputs, said, no_reference="plain Python says it")


@hand("binarizer_extractor", "Binarizer and ArrayFeatureExtractor of several types")
def _():
    table = numbers()
    words = np.array([["x", "y", "z"], ["1", "2", "3"]] * 20, dtype=object)
    whole = numbers(115, dtype=np.int64)
    inputs = {"X": table, "words": words, "whole": whole}
    made = model(
        [
            ml("Binarizer", ["X"], ["flags"], threshold=0.25),
            ml("ArrayFeatureExtractor", ["X", "pick"], ["picked"]),
            ml("ArrayFeatureExtractor", ["words", "one"], ["word"]),
            ml("ArrayFeatureExtractor", ["whole", "pick"], ["picked_whole"]),
        ],
        inputs,
        {"flags": FLOAT, "picked": FLOAT, "word": STRING, "picked_whole": INT64},
        constants={"pick": np.array([6, 0, 0, 3]), "one": np.array([2])},
    )
    said = {
        "flags": table > 0.25,
        "picked": table[:, [6, 0, 0, 3]],
        "word": words[:, 2],
        "picked_whole": whole[:, [6, 0, 0, 3]],
    }
    return Made(made, inputs, said, whole=True, no_reference="plain Python says it")


# ---------------------------------------------------------------------------------------------------
# LabelEncoder


KEYS = {
    "strings": ["red", "green", "", "blå"],
    "int64s": [1, -2, 30, 0],
    "floats": [0.5, -2.0, float("nan"), 0.0],
}
DEFAULTS = {"strings": "other", "int64s": -99, "floats": -0.5}
ELEMENTS = {"strings": STRING, "int64s": INT64, "floats": FLOAT}


def encoder_inputs():
    rng = np.random.default_rng(65)
    floats = rng.choice(np.array([0.5, -2.0, np.nan, 0.0, 7.25, np.inf], dtype=np.float32), (zoo.ROWS, 2))
    floats[1, 0] = -0.0
    return {
        "strings": rng.choice(np.array(["red", "green", "", "blå", "Red", "grey"], dtype=object), (zoo.ROWS, 2)),
        "int64s": rng.choice([1, -2, 30, 0, 5], (zoo.ROWS, 2)),
        "floats": floats,
    }


def looked_up(array, keys, values, default, nan_is_key):
    def find(value):
        for key, result in zip(keys, values):
            if key == value or (nan_is_key and key != key and value != value):
                return result
        return default

    return np.array([find(v) for v in array.reshape(-1).tolist()], dtype=object).reshape(array.shape)


def encoder_model(pairs, opset, tensors):
    inputs = encoder_inputs()
    if tensors:
        inputs["doubles"] = inputs["floats"].astype(np.float64)
    keys = {**KEYS, "doubles": KEYS["floats"]}
    values = {"strings": ["A", "B", "", "Ö"], "int64s": [10, -20, 0, 7], "floats": [0.25, -1.5, float("nan"), 4.0]}
    values["doubles"] = values["floats"]
    defaults = {**DEFAULTS, "doubles": -0.5}
    elements = {**ELEMENTS, "doubles": DOUBLE}
    nodes, outputs, said = [], {}, {}
    for source, target in pairs:
        name = f"{source}_to_{target}"
        if tensors:
            attributes = {
                "keys_tensor": helper.make_tensor("keys", elements[source], [4], keys[source]),
                "values_tensor": helper.make_tensor("values", elements[target], [4], values[target]),
                "default_tensor": helper.make_tensor("default", elements[target], [1], [defaults[target]]),
            }
        else:
            default_name = {"strings": "default_string", "int64s": "default_int64", "floats": "default_float"}[target]
            attributes = {
                f"keys_{source}": keys[source],
                f"values_{target}": values[target],
                default_name: defaults[target],
            }
        nodes.append(ml("LabelEncoder", [source], [name], **attributes))
        outputs[name] = elements[target]
        said[name] = looked_up(inputs[source], keys[source], values[target], defaults[target], opset > 2)
    made = model(nodes, inputs, outputs, opsets=((21, ""), (opset, "ai.onnx.ml")), ir=10)
    return Made(made, inputs, said, whole=True, no_reference="plain Python says it")


PAIRS_2 = [(s, t) for s in ELEMENTS for t in ELEMENTS]


@hand("label_encoder_2", "LabelEncoder of version 2, all pairs of types; a key NaN is not found")
def _():
    return encoder_model(PAIRS_2, 2, tensors=False)


@hand("label_encoder_4", "LabelEncoder of version 4, all pairs of types, NaN as key")
def _():
    return encoder_model(PAIRS_2, 4, tensors=False)


@hand("label_encoder_4_tensors", "LabelEncoder of version 4, keys and values as tensors, float64 too")
def _():
    return encoder_model(TENSOR_PAIRS, 4, tensors=True)


TENSOR_PAIRS = [
    ("strings", "int64s"),
    ("strings", "floats"),
    ("strings", "strings"),
    ("int64s", "int64s"),
    ("int64s", "floats"),
    ("int64s", "strings"),
    ("floats", "int64s"),
    ("floats", "floats"),
    ("floats", "strings"),
    ("doubles", "int64s"),
    ("doubles", "doubles"),
    ("doubles", "strings"),
    ("strings", "doubles"),
    ("int64s", "doubles"),
]


@hand("label_encoder_1", "LabelEncoder of version 1, both ways")
def _():
    rng = np.random.default_rng(66)
    words = rng.choice(np.array(["a", "b", "c", "zz"], dtype=object), (zoo.ROWS, 1))
    places = rng.integers(-1, 5, (zoo.ROWS, 1))
    inputs = {"words": words, "places": places}
    classes = ["b", "a", "c"]
    made = model(
        [
            ml("LabelEncoder", ["words"], ["as_places"], classes_strings=classes, default_int64=-4),
            ml("LabelEncoder", ["places"], ["as_words"], classes_strings=classes, default_string="none"),
        ],
        inputs,
        {"as_places": INT64, "as_words": STRING},
        opsets=((11, ""), (1, "ai.onnx.ml")),
    )
    said = {
        "as_places": np.vectorize(lambda w: classes.index(w) if w in classes else -4)(words),
        "as_words": np.vectorize(lambda i: classes[i] if 0 <= i < 3 else "none", otypes=[object])(places),
    }
    return Made(made, inputs, said, no_reference="plain Python says it")
