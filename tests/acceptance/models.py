"""Model files, read and made with the onnx package and run with ONNX Runtime: the second opinion that
the server's numbers are compared with."""

import functools
import json
import math
import shutil

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from server import MODELS
from telco import ADD_ONS

NUMPY_TYPES = {"tensor(float)": numpy.float32, "tensor(int64)": numpy.int64, "tensor(string)": object}
OIP_TYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64", "tensor(string)": "BYTES"}


def sample_model(name):
    return MODELS / name / "1" / "model.onnx"


class Reference:
    """A sample model in ONNX Runtime."""

    def __init__(self, name):
        self.session = onnxruntime.InferenceSession(
            str(sample_model(name)), providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name: i.type for i in self.session.get_inputs()}

    def run(self, rows):
        """Output name -> array, for rows given as dicts of features; null becomes NaN."""
        feed = {}
        for name, kind in self.inputs.items():
            column = [[math.nan if row[name] is None else row[name]] for row in rows]
            feed[name] = numpy.array(column, dtype=NUMPY_TYPES[kind])
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feed)))

    def oip_inputs(self, rows):
        """The same rows as the `inputs` of an Open Inference Protocol request."""
        return [
            {
                "name": name,
                "shape": [len(rows), 1],
                "datatype": OIP_TYPES[kind],
                "data": [row[name] for row in rows],
            }
            for name, kind in self.inputs.items()
        ]


@functools.cache
def reference(name):
    return Reference(name)


def best_add_on(features, probabilities):
    """What `upsell` has to answer: (score, label) of the likeliest add-on not yet held."""
    open_choices = [(float(p), name) for name, p in zip(ADD_ONS, probabilities) if features[name] != "Yes"]
    return max(open_choices, key=lambda choice: choice[0]) if open_choices else (0.0, None)


class LinearModel:
    """The weights of a sample model, read from its file: what an exact contribution has to be.

    The graph is known: strings are concatenated and one-hot encoded over one list of categories,
    numbers are concatenated, imputed and scaled, and one Gemm takes first the one then the other.
    """

    def __init__(self, name):
        graph = onnx.load(str(sample_model(name))).graph
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._inputs = {i.name for i in graph.input}
        constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        one = {node.op_type: node for node in graph.node}

        encoder, imputer, scaler, gemm = (one[op] for op in ("OneHotEncoder", "Imputer", "Scaler", "Gemm"))
        gemm_options = _attributes(gemm)
        weights = constants[gemm.input[1]].astype(float)
        if gemm_options.get("transB", 0):
            weights = weights.T
        self.weights = weights * gemm_options.get("alpha", 1.0)  # [terms, outputs]
        self.bias = constants[gemm.input[2]].astype(float).reshape(-1) * gemm_options.get("beta", 1.0)

        self.categories = [c.decode() for c in _attributes(encoder)["cats_strings"]]
        self.strings = self._sources(encoder.input[0])
        self.numbers = self._sources(imputer.input[0])
        self.imputed = _attributes(imputer)["imputed_value_floats"]
        self.offset = _attributes(scaler)["offset"]
        self.scale = _attributes(scaler)["scale"]
        self.features = self.strings + self.numbers
        assert len(self.weights) == len(self.strings) * len(self.categories) + len(self.numbers)
        strings_first = self._sources(gemm.input[0]) == self.features
        self.string_base = 0 if strings_first else len(self.numbers)
        self.number_base = len(self.strings) * len(self.categories) if strings_first else 0

    def _sources(self, tensor):
        """The graph inputs a tensor comes from, in order of concatenation."""
        if tensor in self._inputs:
            return [tensor]
        node = self._made_by.get(tensor)
        found = []
        if node is not None and node.op_type != "Constant":
            for source in node.input:
                found += self._sources(source)
        return found

    def term(self, feature, value, output=0):
        """What a value of a feature adds to the log-odds."""
        if feature in self.strings:
            if value not in self.categories:
                return 0.0
            row = self.strings.index(feature) * len(self.categories) + self.categories.index(value)
            return self.weights[self.string_base + row][output]
        column = self.numbers.index(feature)
        number = self.imputed[min(column, len(self.imputed) - 1)] if value is None else value
        scaled = (number - self.offset[column]) * self.scale[column]
        return scaled * self.weights[self.number_base + column][output]

    def log_odds(self, features, output=0):
        return self.bias[output] + sum(self.term(f, features[f], output) for f in self.features)


def _attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


# Model folders made by the tests.


def copy_sample(name, models_dir, new_name=None):
    """Copies a sample model into another repository; returns the folder of its version."""
    version = models_dir / (new_name or name) / "1"
    shutil.copytree(MODELS / name / "1", version)
    return version


def change_golden(version):
    """Makes the expected outputs wrong by more than any tolerance."""
    path = version / "golden.json"
    golden = json.loads(path.read_text())
    outputs = golden["rows"][0]["outputs"]
    outputs["probabilities"] = [p + 0.25 for p in outputs["probabilities"]]
    path.write_text(json.dumps(golden))


def save(nodes, inputs, outputs, initializers, models_dir, name, version="1"):
    """Writes `models_dir/name/version/model.onnx` and nothing else; returns the folder."""
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    folder = models_dir / name / version
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
    return folder


def tensor_info(name, element, shape):
    return helper.make_tensor_value_info(name, element, shape)


def weighted_sum_model(models_dir, name="weighted_sum", version="1"):
    """measurements [N,3] float -> total [N,1] = measurements . (1, 10, 100) + 0.5"""
    weights = numpy.array([[1.0], [10.0], [100.0]], dtype=numpy.float32)
    return save(
        [helper.make_node("Gemm", ["measurements", "weights", "bias"], ["total"])],
        [tensor_info("measurements", TensorProto.FLOAT, ["N", 3])],
        [tensor_info("total", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(numpy.array([0.5], dtype=numpy.float32), "bias"),
        ],
        models_dir,
        name,
        version,
    )


def colour_model(models_dir, name="colours"):
    """colour [N,1] string -> encoded [N,1,3], one-hot over red, green, blue"""
    return save(
        [
            helper.make_node(
                "OneHotEncoder",
                ["colour"],
                ["encoded"],
                domain="ai.onnx.ml",
                cats_strings=["red", "green", "blue"],
                zeros=1,
            )
        ],
        [tensor_info("colour", TensorProto.STRING, ["N", 1])],
        [tensor_info("encoded", TensorProto.FLOAT, ["N", 1, 3])],
        [],
        models_dir,
        name,
    )


def mistyped_model(models_dir, name="mistyped"):
    """A model whose input `contract` is a number, where the feature of that name is a string."""
    folder = save(
        [
            helper.make_node("Identity", ["contract"], ["log_odds"]),
            helper.make_node("Sigmoid", ["log_odds"], ["yes"]),
            helper.make_node("Sub", ["one", "yes"], ["no"]),
            helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
        ],
        [tensor_info("contract", TensorProto.FLOAT, ["N", 1])],
        [
            tensor_info("log_odds", TensorProto.FLOAT, ["N", 1]),
            tensor_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
        [numpy_helper.from_array(numpy.array([1.0], dtype=numpy.float32), "one")],
        models_dir,
        name,
    )
    (folder / "model.toml").write_text(
        """
[model]
task = "binary"
view = "customer"
description = "a number where the view has a string"
owner = "tests"

[output]
probabilities = "probabilities"
log_odds = "log_odds"
positive = 1

[label]
outcome = "churn"
window = "30d"
maturity = "30d"
"""
    )
    return folder
