"""What MLServer's clients say of tensors besides their type: data frames, arrays, texts. And the other
short form of the protocol: a body that is nothing but the bytes of a model's only input."""

import json
import math

import numpy
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models import colour_model, copy_sample, reference, save, tensor_info, weighted_sum_model
from server import Server
from telco import VARIED

LENGTH = "Inference-Header-Content-Length"

MANIFEST = """
[model]
task = "regression"
view = "customer"
[inputs]
measurements = ["tenure", "monthly_charges", "total_charges"]
[output]
probabilities = "total"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("content")
    models = folder / "models"
    copy_sample("churn", models)
    weighted_sum_model(models)
    named = weighted_sum_model(models, "named_sum")
    (named / "model.toml").write_text(MANIFEST)
    colour_model(models)
    for name, element, dims in [
        ("vector", TensorProto.FLOAT, ["N"]),
        ("texts", TensorProto.STRING, ["N"]),
        ("integers", TensorProto.INT64, ["N", 1]),
        ("two_open", TensorProto.FLOAT, ["N", "M"]),
        ("three_open", TensorProto.FLOAT, ["N", "M", "K"]),
        ("text_pairs", TensorProto.STRING, ["N", 2]),
    ]:
        node = helper.make_node("Identity", ["x"], ["y"])
        save([node], [tensor_info("x", element, dims)], [tensor_info("y", element, dims)], [], models, name)
    with Server(folder / "data", models=models, cwd=folder) as server:
        server.models = models
        yield server


def infer(client, model, inputs, content_type="pd", **fields):
    parameters = {"content_type": content_type} if content_type else {}
    body = {"inputs": inputs, "parameters": parameters, **fields}
    return client.post(f"/v2/models/{model}/infer", body)


def column(name, datatype, data, flat=False, content_type=None):
    tensor = {"name": name, "datatype": datatype, "shape": [len(data)] + [1] * (not flat), "data": data}
    if content_type:
        tensor["parameters"] = {"content_type": content_type}
    return tensor


def frame(rows, flat=False):
    """The columns as a data frame of these rows has them: floats are FP64, what is missing is null."""
    columns = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        if any(isinstance(value, str) for value in values):
            columns.append(column(name, "BYTES", values, flat, "str"))
        elif all(isinstance(value, int) for value in values):
            columns.append(column(name, "INT64", values, flat))
        else:
            columns.append(column(name, "FP64", values, flat))
    return columns


def data_frame(answer):
    """The answer as MLServer's pandas codec decodes it: one column for each output."""
    assert answer.status == 200, answer
    reply = answer.json()
    assert reply["parameters"].keys() == {"prediction_id", "content_type"}
    assert reply["parameters"]["content_type"] == "pd"
    columns = {}
    for output in reply["outputs"]:
        assert output["shape"] == [len(output["data"]), 1]
        columns[output["name"]] = output["data"]
    return columns


# Data frames.


@pytest.mark.parametrize("flat", [False, True], ids=["[N, 1]", "[N]"])
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_a_data_frame_is_scored_as_onnxruntime_scores_it(client, flat, order):
    rows = [dict(row) for row in VARIED]
    rows[0]["total_charges"] = None
    found = data_frame(infer(client, "churn", frame(rows, flat)[::order]))
    expected = reference("churn").run(rows)
    # A matrix is one column for each of its own.
    names = ["log_odds", "probabilities_0", "probabilities_1"]
    assert list(found) == names
    columns = numpy.concatenate([expected["log_odds"], expected["probabilities"]], axis=1)
    for name, column in zip(names, columns.T):
        numpy.testing.assert_allclose(numpy.array(found[name]), column, atol=1e-6, rtol=1e-5)


def test_columns_without_the_inputs_names_are_laid_side_by_side(client):
    columns = [column("a", "INT64", [1, 2]), column("b", "FP64", [3.5, None]), column("c", "BOOL", [True, False])]
    found = data_frame(infer(client, "weighted_sum", columns))
    assert found == {"total": [1 + 35 + 100 + 0.5, None]}


def test_columns_that_the_manifest_names_are_laid_in_its_order(client):
    columns = [
        column("total_charges", "FP64", [3.0]),
        column("tenure", "INT64", [1]),
        column("monthly_charges", "FP64", [2.0]),
    ]
    assert data_frame(infer(client, "named_sum", columns)) == {"total": [321.5]}


def test_a_column_of_json_texts(client):
    columns = [column("colour", "BYTES", ['"green"', "null", '"red"'], content_type="pd_json")]
    found = data_frame_of_cube(infer(client, "colours", columns))
    assert found == [[[0, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]]


def data_frame_of_cube(answer):
    """An output of three dimensions is no column, and stays as it is."""
    assert answer.status == 200, answer
    (output,) = answer.json()["outputs"]
    return numpy.array(output["data"]).reshape(output["shape"]).tolist()


def test_texts_in_the_answer_say_what_they_are(client):
    answer = infer(client, "text_pairs", [column("a", "BYTES", ["x", "y"]), column("b", "BYTES", ["z", "é"])])
    assert data_frame(answer) == {"y_0": ["x", "y"], "y_1": ["z", "é"]}
    assert [o["parameters"] for o in answer.json()["outputs"]] == [{"content_type": "str"}] * 2


# Arrays and texts.


@pytest.mark.parametrize("whole", ["np", None])
def test_an_array_is_taken_to_the_graphs_type_and_shape(client, whole):
    tensor = column("x", "FP64", [0.5, None, 3], content_type="np")
    answer = infer(client, "vector", [tensor], content_type=whole)
    assert answer.status == 200, answer
    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["shape"], output["data"]) == ("FP32", [3], [0.5, None, 3])


@pytest.mark.parametrize("content_type, model, data", [("np", "vector", [1.5]), ("str", "texts", ["é"])])
def test_the_one_input_of_such_a_request_need_not_be_named(client, content_type, model, data):
    datatype = "FP64" if content_type == "np" else "BYTES"
    tensor = column("input-1", datatype, data, content_type=content_type)
    answer = infer(client, model, [tensor], content_type=content_type)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == data


def test_bytes_behind_the_json_are_columns_too(client):
    values = numpy.array([1, 2, 3], numpy.float64)
    columns = [
        {"name": name, "datatype": "FP64", "shape": [1, 1], "parameters": {"binary_data_size": 8}}
        for name in "abc"
    ]
    text = json.dumps({"inputs": columns, "parameters": {"content_type": "pd"}}).encode()
    headers = {LENGTH: str(len(text))}
    answer = client.request("POST", "/v2/models/weighted_sum/infer", text + values.tobytes(), headers)
    assert data_frame(answer) == {"total": [321.5]}


# What is refused.

THREE = [column(name, "FP64", [1.0, 2.0]) for name in "abc"]
WRONG = [
    ("an unknown type", "weighted_sum", "base64", THREE, ["parameters.content_type", "base64", "pd, np or str"]),
    (
        "an unknown type of an input",
        "vector",
        "pd",
        [column("x", "BYTES", ["a"], content_type="datetime")],
        ["inputs[0].parameters.content_type", "datetime", "pd_json"],
    ),
    ("too few columns", "weighted_sum", "pd", THREE[:2], ["measurements", "3 columns", "found 2"]),
    ("too many columns", "weighted_sum", "pd", [*THREE, column("d", "FP64", [1.0, 2.0])], ["found 4"]),
    ("no columns", "weighted_sum", "pd", [], ["no columns"]),
    ("a column twice", "weighted_sum", "pd", [THREE[0], *THREE[:2]], ['"a"', "twice"]),
    (
        "columns of other lengths",
        "weighted_sum",
        "pd",
        [*THREE[:2], column("c", "FP64", [1.0])],
        ['"c"', "2 rows", "found 1"],
    ),
    (
        "a name the manifest does not have",
        "named_sum",
        "pd",
        [column(name, "FP64", [1.0]) for name in ("tenure", "monthly_charges", "charges")],
        ['"charges" is not known', "total_charges"],
    ),
    (
        "a name that is missing",
        "named_sum",
        "pd",
        [column(name, "FP64", [1.0]) for name in ("tenure", "monthly_charges")],
        ['"total_charges" is missing'],
    ),
    ("text for a number", "vector", "pd", [column("x", "BYTES", ["1"])], ["row 0", '"x"', "FP32", '"1"']),
    ("a number for text", "texts", "pd", [column("x", "FP64", [1.0])], ["row 0", '"x"', "BYTES"]),
    ("a fraction for an integer", "integers", "pd", [column("x", "FP64", [1.0, 0.5])], ["row 1", "INT64", "0.5"]),
    ("a missing integer", "integers", "pd", [column("x", "FP64", [None])], ["row 0", "INT64"]),
    ("an inexact integer", "vector", "pd", [column("x", "INT64", [2**24 + 1])], ["row 0", "16777217"]),
    ("an infinite number", "vector", "pd", [column("x", "FP64", [1e39])], ["row 0", "FP32"]),
    ("no text", "vector", "pd", [column("x", "FP64", [1.0], content_type="str")], ["inputs[0]", "BYTES", "FP64"]),
    ("no JSON", "texts", "pd", [column("x", "BYTES", ["a"], content_type="pd_json")], ["inputs[0]", "element 0"]),
    ("no type at all", "vector", "pd", [column("x", "FLOAT", [1.0])], ['"x"', "datatype", "FLOAT"]),
    ("another shape", "vector", "pd", [{**column("x", "FP64", [1.0]), "shape": [3]}], ['"x"', "fill"]),
]


@pytest.mark.parametrize("model, content_type, inputs, words", [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_what_does_not_fit_is_refused_by_name(client, model, content_type, inputs, words):
    answer = infer(client, model, inputs, content_type=content_type)
    assert answer.status == 400, answer
    for word in words:
        assert word in answer.error()


def test_the_number_of_rows_is_bounded(client):
    answer = infer(client, "vector", [column("x", "INT64", [0] * 100_001)])
    assert answer.status == 413
    assert "100001" in answer.error()


# Bytes alone.


def post_bytes(client, model, data):
    return client.request("POST", f"/v2/models/{model}/infer", data, {LENGTH: "0"})


def only_output(answer):
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(answer.body) - length}
    return output, answer.body[length:]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_bytes_alone_are_as_many_rows_as_they_fill(server, client, rows):
    sent = numpy.random.default_rng(rows).normal(size=(rows, 3)).astype(numpy.float32)
    output, data = only_output(post_bytes(client, "weighted_sum", sent.tobytes()))
    assert output["shape"] == [rows, 1]
    session = onnxruntime.InferenceSession(str(server.models / "weighted_sum" / "1" / "model.onnx"))
    (expected,) = session.run(["total"], {"measurements": sent})
    numpy.testing.assert_allclose(numpy.frombuffer(data, "<f4").reshape(rows, 1), expected, rtol=1e-5)


def test_one_row_where_more_is_open(client):
    sent = numpy.array([1.5, math.inf, -2], numpy.float32)
    output, data = only_output(post_bytes(client, "two_open", sent.tobytes()))
    assert output["shape"] == [1, 3]
    assert data == sent.tobytes()


@pytest.mark.parametrize("text", ["green", "", "é\n\x00 longer than any short text"])
def test_bytes_alone_are_one_text(client, text):
    encoded = text.encode()
    output, data = only_output(post_bytes(client, "texts", encoded))
    assert output["shape"] == [1]
    assert data == len(encoded).to_bytes(4, "little") + encoded


@pytest.mark.parametrize(
    "model, data, words",
    [
        ("weighted_sum", bytes(13), ["measurements", "multiple of 12", "13"]),
        ("churn", bytes(4), ["19 inputs", LENGTH]),
        ("three_open", bytes(4), ["more open"]),
        ("text_pairs", b"ab", ["[N, 2]"]),
        ("texts", b"\xff", ["UTF-8"]),
    ],
)
def test_bytes_that_say_too_little_are_refused(client, model, data, words):
    answer = post_bytes(client, model, data)
    assert answer.status == 400, answer
    for word in words:
        assert word in answer.error()
