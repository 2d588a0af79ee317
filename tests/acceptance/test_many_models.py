"""Forty models in one repository, some of them broken: each is loaded or listed with its reason, and
the server is ready all the same."""

import time

import numpy
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import colour_model, mistyped_model, save, tensor_info, weighted_sum_model
from server import Server

ML = "ai.onnx.ml"
NUMBERS = numpy.array([[0.5, -2.0, 3.25], [0.0, 1.0, -0.125]], dtype=numpy.float32)
TEXTS = numpy.array([["red", "green", "blue"], ["", "red", "purple"]], dtype=object)
OIP_TYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}

# name -> operator, attributes, domain: from x [N, 3] float to y.
OF_NUMBERS = {
    "identity": ("Identity", {}, ""),
    "negated": ("Neg", {}, ""),
    "absolute": ("Abs", {}, ""),
    "rectified": ("Relu", {}, ""),
    "leaky": ("LeakyRelu", {"alpha": 0.1}, ""),
    "squashed": ("Sigmoid", {}, ""),
    "flattened": ("Tanh", {}, ""),
    "softly": ("Softmax", {"axis": 1}, ""),
    "exponential": ("Exp", {}, ""),
    "rounded_up": ("Ceil", {}, ""),
    "rounded_down": ("Floor", {}, ""),
    "as_double": ("Cast", {"to": TensorProto.DOUBLE}, ""),
    "as_integer": ("Cast", {"to": TensorProto.INT64}, ""),
    "best_column": ("ArgMax", {"axis": 1, "keepdims": 1}, ""),
    "transposed": ("Transpose", {"perm": [1, 0]}, ""),
    "mean": ("ReduceMean", {"axes": [1], "keepdims": 1}, ""),
    "largest": ("ReduceMax", {"axes": [1], "keepdims": 1}, ""),
    "scaled": ("Scaler", {"offset": [1.0, 0.0, 2.0], "scale": [0.5, 2.0, 1.0]}, ML),
    "normalised": ("Normalizer", {"norm": "L2"}, ML),
    "imputed": ("Imputer", {"imputed_value_floats": [7.0], "replaced_value_float": 0.0}, ML),
    "binarised": ("Binarizer", {"threshold": 0.4}, ML),
    "regressed": ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0], "intercepts": [0.5]}, ML),
}
OF_TEXTS = {
    "echoed": ("Identity", {}, ""),
    "counted": (
        "LabelEncoder",
        {"keys_strings": ["red", "green"], "values_int64s": [1, 2], "default_int64": -1},
        ML,
    ),
    "renamed": (
        "LabelEncoder",
        {"keys_strings": ["red", "green"], "values_strings": ["rot", "grün"], "default_string": "?"},
        ML,
    ),
    "hot": ("OneHotEncoder", {"cats_strings": ["red", "green", "blue"], "zeros": 1}, ML),
}
WITH_CONSTANT = {"added": "Add", "subtracted": "Sub", "multiplied": "Mul", "divided": "Div"}

# Models that are refused -> words of the reason.
BROKEN = {
    "truncated": ["model.onnx"],
    "empty_file": ["model.onnx"],
    "no_protobuf": ["model.onnx"],
    "no_file": ["model.onnx", "missing"],
    "a_folder": ["model.onnx"],
    "foreign": ["Astrology", "com.example"],
    "misspelt_toml": ["model.toml", "taks"],
    "mistyped": ["model.toml", "contract"],
}


def one_node(models, name, operator, attributes, domain, element, constant=None):
    inputs = ["x"] if constant is None else ["x", "c"]
    initializers = [] if constant is None else [numpy_helper.from_array(constant, "c")]
    node = helper.make_node(operator, inputs, ["y"], domain=domain, **attributes)
    output = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph(
        [node], name, [tensor_info("x", element, ["N", 3])], [output], initializers
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # The output's type is what ONNX Runtime says it is.
    session = onnxruntime.InferenceSession(model.SerializeToString())
    kind = getattr(TensorProto, session.get_outputs()[0].type[7:-1].upper())
    rank = len(session.get_outputs()[0].shape)
    save(
        [node],
        [tensor_info("x", element, ["N", 3])],
        [tensor_info("y", kind, [None] * rank)],
        initializers,
        models,
        name,
    )


def make_good(models):
    for name, (operator, attributes, domain) in OF_NUMBERS.items():
        one_node(models, name, operator, attributes, domain, TensorProto.FLOAT)
    for name, (operator, attributes, domain) in OF_TEXTS.items():
        one_node(models, name, operator, attributes, domain, TensorProto.STRING)
    for name, operator in WITH_CONSTANT.items():
        constant = numpy.array([2.0, -4.0, 0.5], dtype=numpy.float32)
        one_node(models, name, operator, {}, "", TensorProto.FLOAT, constant)
    weighted_sum_model(models)
    colour_model(models)
    return [*OF_NUMBERS, *OF_TEXTS, *WITH_CONSTANT, "weighted_sum", "colours"]


def make_broken(models):
    for name in BROKEN:
        if name != "mistyped":
            (models / name / "1").mkdir(parents=True)
    good = (models / "weighted_sum" / "1" / "model.onnx").read_bytes()
    (models / "truncated" / "1" / "model.onnx").write_bytes(good[: len(good) // 2])
    (models / "empty_file" / "1" / "model.onnx").write_bytes(b"")
    (models / "no_protobuf" / "1" / "model.onnx").write_bytes(b"PK\x03\x04 a pickle, perhaps")
    (models / "a_folder" / "1" / "model.onnx").mkdir()
    foreign = helper.make_model(
        helper.make_graph(
            [helper.make_node("Astrology", ["x"], ["y"], domain="com.example")],
            "foreign",
            [tensor_info("x", TensorProto.FLOAT, ["N", 3])],
            [tensor_info("y", TensorProto.FLOAT, ["N", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
        ir_version=8,
    )
    (models / "foreign" / "1" / "model.onnx").write_bytes(foreign.SerializeToString())
    (models / "misspelt_toml" / "1" / "model.onnx").write_bytes(good)
    (models / "misspelt_toml" / "1" / "model.toml").write_text('[model]\ntaks = "binary"\n')
    mistyped_model(models)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    models = folder / "models"
    good = make_good(models)
    make_broken(models)
    started = time.monotonic()
    with Server(folder / "data", models=models) as server:
        server.seconds_to_ready = time.monotonic() - started
        server.models = models
        server.good = good
        yield server


@pytest.fixture
def client(many):
    client = many.client()
    yield client
    client.close()


def index_of(answer):
    assert answer.status == 200, answer
    return {entry["name"]: entry for entry in answer.json()}


def test_there_are_forty(many):
    assert len(many.good) + len(BROKEN) >= 40


def test_the_server_is_soon_ready(many, client, tmp_path):
    assert client.get("/readyz").status == 200
    assert client.get("/v2/health/ready").status == 200
    # They load in milliseconds; the rest is room for a development build on a busy machine, which may be
    # busier than that for a while.
    seconds = [many.seconds_to_ready]
    while seconds[-1] >= 20 and len(seconds) < 5:
        started = time.monotonic()
        with Server(tmp_path / str(len(seconds)), models=many.models):
            seconds.append(time.monotonic() - started)
    assert seconds[-1] < 20, seconds


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_folder_is_in_the_index(many, client, method):
    index = index_of(client.request(method, "/v2/repository/index"))
    assert sorted(index) == sorted([*many.good, *BROKEN])
    wrong = {name: index[name] for name in many.good if index[name]["state"] != "READY"}
    assert not wrong
    assert not any(index[name]["reason"] for name in many.good)


def test_only_those_that_are_ready_are_listed_on_request(many, client):
    answer = client.post("/v2/repository/index", {"ready": True})
    assert sorted(index_of(answer)) == sorted(many.good)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_listed_with_its_reason(client, name):
    entry = index_of(client.get("/v2/repository/index"))[name]
    assert entry["state"] == "UNAVAILABLE"
    for word in BROKEN[name]:
        assert word in entry["reason"], entry["reason"]
    ready = client.get(f"/v2/models/{name}/ready")
    assert ready.status == 503
    assert entry["reason"] in ready.json()["reasons"][0]
    metadata = client.get(f"/v2/models/{name}")
    assert metadata.status == 404 and entry["reason"] in metadata.error()


@pytest.mark.parametrize("name", [*OF_NUMBERS, *OF_TEXTS, *WITH_CONSTANT, "weighted_sum", "colours"])
def test_a_good_model_answers_as_onnxruntime_does(many, client, name):
    path = many.models / name / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    rows = TEXTS if taken.type == "tensor(string)" else NUMBERS
    rows = rows[:, : taken.shape[1]]
    metadata = client.get(f"/v2/models/{name}").json()
    assert metadata["inputs"] == [
        {"name": taken.name, "datatype": OIP_TYPES[taken.type], "shape": [-1, taken.shape[1]]}
    ]
    assert [o["datatype"] for o in metadata["outputs"]] == [OIP_TYPES[given.type]]
    tensor = {
        "name": taken.name,
        "datatype": OIP_TYPES[taken.type],
        "shape": list(rows.shape),
        "data": rows.tolist(),
    }
    answer = client.post(f"/v2/models/{name}/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer
    (output,) = answer.json()["outputs"]
    (expected,) = session.run(None, {taken.name: rows})
    assert output["datatype"] == OIP_TYPES[given.type]
    assert output["shape"] == list(expected.shape)
    expected = expected.reshape(-1).tolist()
    if expected and isinstance(expected[0], float):
        assert output["data"] == pytest.approx(expected, abs=1e-6, rel=1e-5)
    else:
        assert output["data"] == expected


# What the graph says of its outputs.


@pytest.mark.parametrize(
    "labels, found",
    [
        ({"classlabels_strings": ["no", "yes"]}, ["no", "yes"]),
        ({"classlabels_int64s": [0, 1]}, [0, 1]),
    ],
    ids=["texts", "numbers"],
)
def test_the_classes_of_a_zip_map_are_in_the_metadata(tmp_path, labels, found):
    nodes = [
        helper.make_node("Softmax", ["x"], ["scores"], axis=1),
        helper.make_node("ZipMap", ["scores"], ["probabilities"], domain=ML, **labels),
    ]
    kind = "string" if "classlabels_strings" in labels else "int64"
    key = TensorProto.STRING if kind == "string" else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    output = helper.make_value_info("probabilities", maps)
    models = tmp_path / "models"
    save(nodes, [tensor_info("x", TensorProto.FLOAT, ["N", 2])], [output], [], models, "zipped")
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        (output,) = client.get("/v2/models/zipped").json()["outputs"]
        assert output["datatype"] == "FP32"
        assert output["shape"] == [-1, 2]
        assert output["parameters"] == {"labels": found}
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 3]}
        answer = client.post("/v2/models/zipped/infer", {"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == [0.5, 0.5]
