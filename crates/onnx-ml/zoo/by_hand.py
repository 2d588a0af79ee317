"""Helpers for graphs made by hand: what the operators can do and exporters seldom or never write."""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import data
import zoo

PRODUCER = f"onnx.helper {onnx.__version__}"
KINDS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.bool_): TensorProto.BOOL,
    np.dtype(object): TensorProto.STRING,
}
FLOAT, DOUBLE, INT64, INT32, STRING, BOOL, FLOAT16 = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.STRING,
    TensorProto.BOOL,
    TensorProto.FLOAT16,
)


def ml(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, domain="ai.onnx.ml", **attributes)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, **attributes)


def model(
    nodes, inputs, outputs, constants=None, opsets=((17, ""), (3, "ai.onnx.ml")), shapes=None, ir=8, functions=()
):
    """`inputs`: name -> array (its first dimension becomes free), `outputs`: name -> element type.

    `shapes` overrides the declared shape of an input; None declares none."""
    values = []
    for name, array in inputs.items():
        shape = [None, *array.shape[1:]] if array.ndim else []
        if shapes and name in shapes:
            shape = shapes[name]
        values.append(helper.make_tensor_value_info(name, KINDS[array.dtype], shape))
    results = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(
        nodes,
        "zoo",
        values,
        results,
        initializer=[numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for version, domain in opsets],
        functions=list(functions),
        producer_name="zoo",
    )
    made.ir_version = ir
    return made


def hand(name, estimator, kind="other"):
    """Decorator: registers a function that returns a Made."""

    def decorate(build):
        zoo.register(name, PRODUCER, estimator, kind, build)
        return build

    return decorate


def numbers(seed=111, rows=zoo.ROWS, dtype=np.float32):
    return data.numbers(rows, seed=seed).astype(dtype)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_zero(x):
    """Scores that are (nearly) zero stay zero and take no part."""
    e = np.where(np.abs(x) > 1e-7, np.exp(x - x.max(axis=1, keepdims=True)), 0)
    return e / e.sum(axis=1, keepdims=True)


def probit(x):
    """With ONNX Runtime's approximation of the inverse error function (Winitzki 2008), good to 2e-3."""
    y = 2 * x - 1
    logarithm = np.log((1 - y) * (1 + y))
    half = 2 / (math.pi * 0.147) + 0.5 * logarithm
    return math.sqrt(2) * np.sign(y) * np.sqrt(np.sqrt(half * half - logarithm / 0.147) - half)


TRANSFORM = {
    "NONE": lambda x: x,
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "SOFTMAX": softmax,
    "SOFTMAX_ZERO": softmax_zero,
    "PROBIT": probit,
}

LETTERS = ["a", "b é", "c"]
