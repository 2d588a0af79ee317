"""Tables in, predictions out: the data frames of MLServer's clients and `POST /invocations` of MLflow's
scoring server, for models of floats and of texts, agree with ONNX Runtime."""

import json

import numpy
import pytest

from clients import ClientProcess
from models import colour_model
from protocol_models import gradient_boosting_model, judge
from server import Server

FLOATS = ["a", "b", "c", "d"]


@pytest.fixture(scope="session")
def server(protocol_server):
    return protocol_server


@pytest.fixture(scope="module")
def codecs():
    process = ClientProcess("mlserver_codecs.py")
    yield process
    process.close()


def table(expert, count, seed=1):
    """Rows of a model as columns of JSON values, and as the arrays that ONNX Runtime takes."""
    feed = expert.rows(count, seed)
    if expert.name == "boosted":
        matrix = feed["measurements"]
        return {name: matrix[:, i].tolist() for i, name in enumerate(FLOATS)}, feed
    return {name: array[:, 0].tolist() for name, array in feed.items()}, feed


def rows_of(columns):
    return [list(row) for row in zip(*columns.values())]


def records_of(columns):
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def check_predictions(expert, feed, predictions):
    """One entry for each row, by output; an output with one value for each row is that value."""
    expected = expert.answers(feed)
    assert len(predictions) == len(next(iter(feed.values())))
    for row, prediction in enumerate(predictions):
        assert list(prediction) == list(expected)
        for name, array in expected.items():
            value = array[row].tolist() if hasattr(array[row], "tolist") else array[row]
            if array.dtype.kind == "f":
                assert prediction[name] == pytest.approx(value, rel=1e-5, abs=1e-6)
            else:
                assert prediction[name] == value


# MLServer's content types.


@pytest.mark.parametrize("model", ["boosted", "pipeline"])
def test_a_data_frame_of_mlserver_scores_as_onnxruntime(protocol_server, client, codecs, model):
    """Its codec sends a float column as FP64, whatever the model wants."""
    expert = judge(protocol_server.models, model)
    columns, feed = table(expert, 20)
    request = codecs.call(columns=columns)
    assert request["parameters"] == {"content_type": "pd"}
    assert "FP64" in {tensor["datatype"] for tensor in request["inputs"]}
    answer = client.post(f"/v2/models/{model}/infer", request)
    assert answer.status == 200, answer
    expected = expert.answers(feed)
    first, second = expected
    frame = codecs.call(answer=answer.json())
    assert frame[first] == expected[first].tolist()
    if second in frame:
        assert numpy.allclose(frame[second], expected[second])
    else:
        # A data frame has columns only: an output of several is as many columns.
        found = [frame[name] for name in frame if name != first]
        assert numpy.allclose(numpy.array(found).T, expected[second], atol=1e-6)


def test_a_missing_value_of_a_data_frame_is_not_a_number(protocol_server, client):
    expert = judge(protocol_server.models, "boosted")
    columns, feed = table(expert, 3)
    columns["b"][1] = None
    feed["measurements"][1, 1] = numpy.nan
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [3, 1], "data": values} for name, values in columns.items()
    ]
    body = {"parameters": {"content_type": "pd"}, "inputs": inputs}
    answer = client.post("/v2/models/boosted/infer", body)
    assert answer.status == 200, answer
    labels = {o["name"]: o["data"] for o in answer.json()["outputs"]}["label"]
    assert labels == expert.answers(feed)["label"].tolist()


def test_columns_of_a_data_frame_may_be_one_dimensional(protocol_server, client):
    expert = judge(protocol_server.models, "pipeline")
    columns, feed = table(expert, 4)
    inputs = [
        {"name": "colour", "datatype": "BYTES", "shape": [4], "data": columns["colour"]},
        {"name": "size", "datatype": "FP64", "shape": [4], "data": columns["size"]},
    ]
    inputs[0]["parameters"] = {"content_type": "str"}
    body = {"id": "7", "parameters": {"content_type": "pd"}, "inputs": inputs}
    answer = client.post("/v2/models/pipeline/infer", body)
    assert answer.status == 200, answer
    assert answer.json()["id"] == "7"
    verdicts = {o["name"]: o["data"] for o in answer.json()["outputs"]}["verdict"]
    assert verdicts == expert.answers(feed)["verdict"].tolist()


def test_texts_of_mlserver_are_the_one_input_of_a_model(codecs, tmp_path):
    colour_model(tmp_path / "models")
    with Server(tmp_path / "data", models=tmp_path / "models") as server:
        request = codecs.call(texts=["blue", "red"])
        assert request["parameters"] == {"content_type": "str"}
        answer = server.client().post("/v2/models/colours/infer", request)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [0, 0, 1, 1, 0, 0]


WRONG_FRAMES = {
    "a column the model does not have": ("size", {"name": "weight"}, "weight"),
    "texts where numbers belong": ("size", {"datatype": "BYTES", "data": ["x"]}, "size"),
    "a content type nobody has": ("size", {"parameters": {"content_type": "parquet"}}, "parquet"),
    "another number of rows": ("size", {"shape": [2], "data": [1.0, 2.0]}, ""),
}


@pytest.mark.parametrize("column, changes, word", WRONG_FRAMES.values(), ids=WRONG_FRAMES)
def test_a_wrong_data_frame_is_refused_by_name(client, column, changes, word):
    inputs = [
        {"name": "colour", "datatype": "BYTES", "shape": [1], "data": ["red"]},
        {"name": "size", "datatype": "FP64", "shape": [1], "data": [1.5]},
    ]
    next(tensor for tensor in inputs if tensor["name"] == column).update(changes)
    body = {"parameters": {"content_type": "pd"}, "inputs": inputs}
    answer = client.post("/v2/models/pipeline/infer", body)
    assert answer.status == 400, answer
    assert word in answer.error()


# MLflow's invocations.

BODIES = {
    "dataframe_split": lambda c: {"dataframe_split": {"columns": list(c), "data": rows_of(c)}},
    "dataframe_split with an index": lambda c: {
        "dataframe_split": {
            "index": list(range(len(rows_of(c)))),
            "columns": list(c),
            "data": rows_of(c),
        }
    },
    "dataframe_records": lambda c: {"dataframe_records": records_of(c)},
    "instances": lambda c: {"instances": records_of(c)},
    "inputs": lambda c: {"inputs": c},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("model", ["boosted", "pipeline"])
@pytest.mark.parametrize("count", [1, 20])
def test_invocations_score_as_onnxruntime(protocol_server, client, model, count, body):
    expert = judge(protocol_server.models, model)
    columns, feed = table(expert, count)
    answer = client.post(f"/invocations?model={model}", body(columns))
    assert answer.status == 200, answer
    assert list(answer.json()) == ["predictions"]
    check_predictions(expert, feed, answer.json()["predictions"])


@pytest.mark.parametrize("field", ["inputs", "instances"])
def test_a_tensor_is_invoked_as_a_list(protocol_server, client, field):
    expert = judge(protocol_server.models, "boosted")
    feed = expert.rows(5)
    answer = client.post("/invocations?model=boosted", {field: feed["measurements"].tolist()})
    assert answer.status == 200, answer
    check_predictions(expert, feed, answer.json()["predictions"])


def test_columns_may_come_in_any_order(protocol_server, client):
    expert = judge(protocol_server.models, "pipeline")
    columns, feed = table(expert, 5)
    backwards = dict(reversed(columns.items()))
    answer = client.post("/invocations?model=pipeline", BODIES["dataframe_split"](backwards))
    check_predictions(expert, feed, answer.json()["predictions"])


def test_csv_is_invoked_as_mlflow_takes_it(protocol_server, client):
    expert = judge(protocol_server.models, "pipeline")
    columns, feed = table(expert, 5)
    lines = [",".join(columns), *(f"{colour},{size!r}" for colour, size in rows_of(columns))]
    headers = {"Content-Type": "text/csv"}
    answer = client.request("POST", "/invocations?model=pipeline", "\n".join(lines) + "\n", headers)
    assert answer.status == 200, answer
    check_predictions(expert, feed, answer.json()["predictions"])


def test_the_only_model_need_not_be_named(tmp_path):
    gradient_boosting_model(tmp_path / "models", "alone")
    with Server(tmp_path / "data", models=tmp_path / "models") as server:
        answer = server.client().post("/invocations", {"inputs": [[0.5, -0.5, 1.0, 0.0]]})
        assert answer.status == 200, answer
        assert len(answer.json()["predictions"]) == 1


ONE = {"columns": ["colour", "size"], "data": [["red", 1.5]]}

# What is wrong -> the query, the body, the status, a word of the message.
WRONG_INVOCATIONS = {
    "no model where there are three": ("", {"dataframe_split": ONE}, 400, "model"),
    "an unknown model": ("?model=astrology", {"dataframe_split": ONE}, 404, "astrology"),
    "none of the four forms": ("?model=pipeline", {"rows": []}, 400, "dataframe_split"),
    "two of the four forms": ("?model=pipeline", {"dataframe_split": ONE, "instances": []}, 400, "instances"),
    "a column missing": (
        "?model=pipeline",
        {"dataframe_split": {"columns": ["colour"], "data": [["red"]]}},
        400,
        "size",
    ),
    "a column too many": (
        "?model=pipeline",
        {"dataframe_records": [{"colour": "red", "size": 1.5, "weight": 2}]},
        400,
        "weight",
    ),
    "a short row": ("?model=pipeline", {"dataframe_split": {**ONE, "data": [["red"]]}}, 400, "data"),
    "a text for a number": (
        "?model=pipeline",
        {"dataframe_split": {**ONE, "data": [["red", "large"]]}},
        400,
        "size",
    ),
    "a list that is no list of rows": ("?model=boosted", {"inputs": 7}, 400, "inputs"),
    "no JSON": ("?model=boosted", "{", 400, ""),
}


@pytest.mark.parametrize(
    "query, body, status, word", WRONG_INVOCATIONS.values(), ids=WRONG_INVOCATIONS
)
def test_a_wrong_invocation_is_refused_by_name(client, query, body, status, word):
    answer = client.post(f"/invocations{query}", body if isinstance(body, str) else json.dumps(body))
    assert answer.status == status, answer
    assert word in answer.error()
