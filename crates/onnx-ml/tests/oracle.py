"""Writes tests/data/oracle.json: small models, their inputs, and what ONNX Runtime makes of them.

    pip install onnx onnxruntime numpy
    python crates/onnx-ml/tests/oracle.py

The file is committed; run this only to add cases. Models are in hexadecimal. Numbers that JSON lacks
are the strings "nan", "inf" and "-inf". `output` is null where ONNX Runtime refuses the input.
"""

import json
import math
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ML = {
    "ArrayFeatureExtractor", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer",
    "OneHotEncoder", "Scaler",
}
TYPES = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64,
    "int32": TensorProto.INT32, "object": TensorProto.STRING, "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8, "int8": TensorProto.INT8,
}
NAN, INF = math.nan, math.inf
cases = []


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def write(array):
    return {
        "type": "string" if array.dtype == object or array.dtype.kind == "U" else str(array.dtype),
        "shape": list(array.shape),
        "values": plain(array.reshape(-1).tolist()),
    }


def node(operator, inputs, outputs, **attributes):
    domain = "ai.onnx.ml" if operator in ML else ""
    return helper.make_node(operator, inputs, outputs, domain=domain, **attributes)


def case(name, nodes, inputs, outputs, constants=(), rows="N"):
    """`inputs` maps names to arrays; `rows` names the first dimension of those of two dimensions."""
    declared = []
    for key, array in inputs.items():
        shape = [rows] + list(array.shape[1:]) if array.ndim else []
        declared.append(helper.make_tensor_value_info(key, TYPES[str(array.dtype)], shape))
    graph = helper.make_graph(
        nodes, "g", declared,
        [helper.make_tensor_value_info(key, kind, None) for key, kind in outputs.items()],
        initializer=[onnx.numpy_helper.from_array(a, key) for key, a in dict(constants).items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    try:
        found = [write(array) for array in session.run(None, inputs)]
    except Exception:  # the refusal itself is the expectation
        found = None
    cases.append({
        "name": name,
        "model": model.hex(),
        "inputs": [write(array) for array in inputs.values()],
        "outputs": found,
    })


def one(name, operator, x, kind=TensorProto.FLOAT, constants=(), **attributes):
    extra = list(dict(constants))
    case(name, [node(operator, ["x", *extra], ["y"], **attributes)], {"x": x}, {"y": kind}, constants)


def f(*rows):
    return np.array(rows, np.float32)


def s(*rows):
    return np.array(rows, object)


# OneHotEncoder
one("strings, the empty one a category", "OneHotEncoder", s(["a", "b"], ["", "zz"]),
    cats_strings=["a", "b", ""], zeros=1)
one("zeros by default", "OneHotEncoder", s(["zz"], ["a"]), cats_strings=["a", "b"])
one("unknown category without zeros", "OneHotEncoder", s(["zz"]), cats_strings=["a", "b"], zeros=0)
one("known category without zeros", "OneHotEncoder", s(["b"]), cats_strings=["a", "b"], zeros=0)
one("a category twice", "OneHotEncoder", s(["a"]), cats_strings=["a", "b", "a"])
one("one dimension", "OneHotEncoder", s("a", "b", "c"), cats_strings=["a", "b"])
one("three dimensions", "OneHotEncoder", s([["a"], ["b"]], [["c"], ["a"]]), cats_strings=["a", "b"])
one("float categories are cut", "OneHotEncoder", f([1.7, -0.5, NAN], [INF, -INF, 3.0], [0, -0.0, 2]),
    cats_int64s=[0, 1, 2])
one("double categories", "OneHotEncoder", np.array([[1.7], [NAN], [1e300]]),
    cats_int64s=[0, 1, -9223372036854775808])
one("int64 categories", "OneHotEncoder", np.array([[-3], [7], [2**40]], np.int64),
    cats_int64s=[7, 2**40, -3])

# Imputer
one("NaN replaced per column", "Imputer", f([NAN, NAN], [3, 4], [INF, -0.0]),
    imputed_value_floats=[1.5, 2.5], replaced_value_float=NAN)
one("zero replaced by default", "Imputer", f([0, NAN], [-0.0, 4]), imputed_value_floats=[1.0, 2.0])
one("one value for all columns", "Imputer", f([3, NAN], [1, 3]),
    imputed_value_floats=[7.0], replaced_value_float=3.0)
one("infinity replaced", "Imputer", f([INF, -INF]), imputed_value_floats=[7.0],
    replaced_value_float=INF)
one("imputer of one dimension", "Imputer", f(3, 1, 3), imputed_value_floats=[7.0, 8.0, 9.0],
    replaced_value_float=3.0)
one("integers replaced", "Imputer", np.array([[3, 3], [1, 2]], np.int64), TensorProto.INT64,
    imputed_value_int64s=[7, 8], replaced_value_int64=3)
one("integer zero replaced by default", "Imputer", np.array([[0, 3], [1, 0]], np.int64),
    TensorProto.INT64, imputed_value_int64s=[7, 8])

# Scaler
for kind in (np.float32, np.float64, np.int64, np.int32):
    one(f"scaled from {kind.__name__}", "Scaler", np.array([[1, 2], [16777217, -5]], kind),
        offset=[1.1, 2.0], scale=[0.5, 0.3])
one("scaled edge values", "Scaler", f([NAN, INF], [-INF, -0.0]), offset=[1.0, 2.0], scale=[0.5, 0.0])
one("scaled double out of float", "Scaler", np.array([[1e300], [0.1]]), offset=[1.0], scale=[2.0])
one("one pair for all columns", "Scaler", f([1, 2, 3]), offset=[1.0], scale=[0.5])
one("scaler of one dimension", "Scaler", f(1, 2), offset=[1.0, 2.0], scale=[0.5, 2.0])

# Cast
numbers = f([1.7, -1.7, NAN, INF, -INF, 1e30, 0.3, -0.0])
for kind in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.DOUBLE,
             TensorProto.STRING):
    one(f"float32 to {kind}", "Cast", numbers, kind, to=kind)
    one(f"float64 to {kind}", "Cast", numbers.astype(np.float64), kind, to=kind)
wide = np.array([[1, -1, 2**32 + 5, 2**62, 16777217]], np.int64)
for kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.BOOL,
             TensorProto.STRING):
    one(f"int64 to {kind}", "Cast", wide, kind, to=kind)
for kind in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING):
    one(f"bool to {kind}", "Cast", np.array([[True, False]]), kind, to=kind)
one("double to float", "Cast", np.array([[0.1, 1e300, NAN, 1e-50]]), to=TensorProto.FLOAT)
one("strings to floats", "Cast", s(["1.5", "nan", "INF", "-INF", "1e3", " 2"]), to=TensorProto.FLOAT)
one("strings to integers", "Cast", s(["15", "-3"]), TensorProto.INT64, to=TensorProto.INT64)
one("a string that is no number", "Cast", s([""]), to=TensorProto.FLOAT)

# Linear layers and what follows them
rng = np.random.RandomState(11)
one("sigmoid", "Sigmoid", f([0, -0.0, NAN, INF, -INF, 1, -1, 100, -100, 20, -88, 1e-8]))
one("sigmoid of double", "Sigmoid", np.array([[0.3, -2.5]]), TensorProto.DOUBLE)
x = rng.randn(5, 7).astype(np.float32)
b = rng.randn(7, 6).astype(np.float32)
c = rng.randn(6).astype(np.float32)
one("gemm", "Gemm", x, constants={"b": b, "c": c})
one("gemm without bias", "Gemm", x, constants={"b": b})
one("gemm transposed and scaled", "Gemm", x, constants={"b": b.T.copy(), "c": c[None, :]},
    transB=1, alpha=0.5, beta=-2.0)
one("gemm with one bias", "Gemm", x, constants={"b": b, "c": np.array(0.5, np.float32)})
case("gemm with a bias per row", [node("Gemm", ["x", "b", "c"], ["y"])], {"x": x},
     {"y": TensorProto.FLOAT}, {"b": b, "c": c[:5, None].copy()}, rows=5)
one("gemm by a large matrix", "Gemm", rng.randn(3, 260).astype(np.float32),
    constants={"b": np.round(rng.randn(260, 2) * 8).astype(np.float32)})
one("matmul", "MatMul", x, constants={"b": b})
one("matmul of three dimensions", "MatMul", rng.randn(2, 3, 7).astype(np.float32),
    constants={"b": b})
one("softmax", "Softmax", x, axis=1)
one("softmax of the last axis", "Softmax", x)
for norm in ("MAX", "L1", "L2"):
    one(f"normalizer {norm}", "Normalizer", x, norm=norm)
    one(f"normalizer {norm} of edge values", "Normalizer", f(
        [1, -2, NAN], [0, 0, 0], [-1, -2, -3], [NAN, 1, 2], [INF, 1, -1]), norm=norm)
    one(f"normalizer {norm} of integers", "Normalizer", np.array([[3, -4], [7, 1]], np.int64),
        norm=norm)
one("linear regressor", "LinearRegressor", x, coefficients=b[:, 0].tolist(), intercepts=[0.25])
case("linear classifier of three integers",
     [node("LinearClassifier", ["x"], ["label", "scores"], coefficients=b[:, :3].T.reshape(-1)
           .tolist(), intercepts=[0.1, 0.2, 0.3], classlabels_ints=[3, 5, 9],
           post_transform="SOFTMAX", multi_class=1)],
     {"x": x}, {"label": TensorProto.INT64, "scores": TensorProto.FLOAT})

# The shape of the sample models, with each way of flattening
flatten = {
    "Reshape to [-1, 10]": (node("Reshape", ["one_hot", "shape"], ["flat"]),
                            {"shape": np.array([-1, 10], np.int64)}),
    "Reshape to [0, -1]": (node("Reshape", ["one_hot", "shape"], ["flat"]),
                           {"shape": np.array([0, -1], np.int64)}),
    "Flatten": (node("Flatten", ["one_hot"], ["flat"], axis=1), {}),
}
rows = {
    "partner": s(["Yes"], ["No"], ["unheard of"], ["No"]),
    "contract": s(["One year"], ["Two year"], [""], ["Month-to-month"]),
    "tenure": np.array([[12], [0], [72], [-3]], np.int64),
    "charges": f([29.85], [NAN], [INF], [-0.0]),
}
weights = np.round(rng.randn(12, 6), 3).astype(np.float32)
for name, (flattening, shape) in flatten.items():
    for batch in ("N", None, 4):
        case(f"sample model, {name}, rows {batch}", [
            node("Concat", ["partner", "contract"], ["strings"], axis=1),
            node("OneHotEncoder", ["strings"], ["one_hot"], zeros=1,
                 cats_strings=["No", "Yes", "Month-to-month", "One year", "Two year"]),
            flattening,
            node("Cast", ["tenure"], ["tenure_float"], to=TensorProto.FLOAT),
            node("Concat", ["tenure_float", "charges"], ["numbers"], axis=1),
            node("Imputer", ["numbers"], ["imputed"], imputed_value_floats=[29.0, 70.35],
                 replaced_value_float=NAN),
            node("Scaler", ["imputed"], ["scaled"], offset=[32.4, 64.8], scale=[0.0407, 0.0332]),
            node("Concat", ["scaled", "flat"], ["features"], axis=1),
            node("Gemm", ["features", "weights", "bias"], ["layer"]),
            node("Identity", ["layer"], ["log_odds"]),
            node("Sigmoid", ["log_odds"], ["p"]),
            node("Sub", ["one", "p"], ["q"]),
            node("Concat", ["q", "p"], ["probabilities"], axis=-1),
        ], rows, {"log_odds": TensorProto.FLOAT, "probabilities": TensorProto.FLOAT}, constants={
            "weights": weights, "bias": weights[0], "one": np.array(1, np.float32), **shape,
        }, rows=batch)

# Small operators around models
one("log and clip", "Clip", x, constants={"low": np.array(-0.5, np.float32),
                                          "high": np.array(0.5, np.float32)})
one("argmax", "ArgMax", x, TensorProto.INT64, axis=1, keepdims=0)
one("row means", "ReduceMean", x, axes=[1])
one("where a number is missing", "IsNaN", f([1, NAN]), TensorProto.BOOL)
case("columns picked", [node("Gather", ["x", "columns"], ["y"], axis=1)], {"x": x},
     {"y": TensorProto.FLOAT}, {"columns": np.array([2, 0, 6], np.int64)})
case("number of rows", [node("Shape", ["x"], ["y"])], {"x": x}, {"y": TensorProto.INT64})
case("strings pass through", [node("Identity", ["x"], ["y"])], {"x": s(["a", "ü"])},
     {"y": TensorProto.STRING})

path = pathlib.Path(__file__).parent / "data" / "oracle.json"
lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in cases)
path.write_text(f"[\n{lines}\n]\n")
print(f"{len(cases)} cases, {path.stat().st_size} bytes")
