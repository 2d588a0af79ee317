"""MLflow's scoring server: tables in, predictions out, for clients that know nothing of tensors."""

import csv
import io
import json
import math

import numpy
import pytest
from onnx import TensorProto, helper

from models import colour_model, copy_sample, reference, save, tensor_info, weighted_sum_model
from server import Server
from telco import VARIED


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("invocations")
    models = folder / "models"
    copy_sample("churn", models)
    weighted_sum_model(models)
    weighted_sum_model(models, version="2")
    colour_model(models)
    labels = helper.make_node("Identity", ["x"], ["label"])
    pairs = helper.make_node("Concat", ["x", "x"], ["pair"], axis=1)
    inputs = [tensor_info("x", TensorProto.INT64, ["N", 1])]
    outputs = [
        tensor_info("label", TensorProto.INT64, ["N", 1]),
        tensor_info("pair", TensorProto.INT64, ["N", 2]),
    ]
    save([labels, pairs], inputs, outputs, [], models, "classifier")
    with Server(folder / "data", models=models, cwd=folder) as server:
        yield server


def invoke(client, model, body):
    return client.post(f"/invocations?model={model}", body)


def predictions(answer):
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/json"
    reply = answer.json()
    assert list(reply) == ["predictions"]
    return reply["predictions"]


def post_csv(client, model, text, content_type="text/csv"):
    return client.request("POST", f"/invocations?model={model}", text, {"Content-Type": content_type})


# The forms of a table.

ROWS = [dict(row) for row in VARIED]
ROWS[0]["total_charges"] = None
NAMES = list(ROWS[0])


def as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


FORMS = {
    "dataframe_split": {
        "columns": NAMES,
        "index": list(range(len(ROWS))),
        "data": [[row[name] for name in NAMES] for row in ROWS],
    },
    "dataframe_records": ROWS,
    "instances": ROWS,
    "inputs": {name: [row[name] for row in ROWS] for name in NAMES},
}


def assert_equals_onnxruntime(found, rows):
    expected = reference("churn").run(rows)
    assert len(found) == len(rows)
    for name, array in expected.items():
        given = numpy.array([record[name] for record in found])
        # A row of one value is the value itself.
        array = array[:, 0] if array.shape[1:] == (1,) else array
        numpy.testing.assert_allclose(given, array, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_scored_as_onnxruntime_scores_it(client, form):
    body = {form: FORMS[form], "params": {}}
    assert_equals_onnxruntime(predictions(invoke(client, "churn", body)), ROWS)


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8", "Text/CSV;header=present"])
def test_csv_is_scored_as_onnxruntime_scores_it(client, content_type):
    found = predictions(post_csv(client, "churn", as_csv(ROWS), content_type))
    assert_equals_onnxruntime(found, ROWS)


def test_a_record_may_leave_out_what_is_missing(client):
    rows = [{k: v for k, v in row.items() if v is not None} for row in ROWS]
    assert "total_charges" not in rows[0]
    found = predictions(invoke(client, "churn", {"dataframe_records": rows}))
    assert_equals_onnxruntime(found, ROWS)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"data": [[1, 2, 3], [0, 0.5, None]]}},
        {"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2, 3], [0, 0.5, None]]}},
        {"dataframe_records": [{"c": 1, "b": 2, "a": 3}, {"c": 0, "b": 0.5, "a": None}]},
        {"instances": [[1, 2, 3], [0, 0.5, None]]},
        {"instances": [{"measurements": [1, 2, 3]}, {"measurements": [0, 0.5, None]}]},
        {"inputs": [[1, 2, 3], [0, 0.5, None]]},
        {"inputs": {"measurements": [[1, 2, 3], [0, 0.5, None]]}},
        {"inputs": {"c": [1, 0], "b": [2, 0.5], "a": [3, None]}},
    ],
    ids=json.dumps,
)
def test_the_columns_of_one_input_stand_side_by_side(client, body):
    assert predictions(invoke(client, "weighted_sum", body)) == [321.5, None]


def test_several_outputs_are_a_record_for_each_row(client):
    found = predictions(invoke(client, "classifier", {"instances": [7, 8]}))
    assert found == [{"label": 7, "pair": [7, 7]}, {"label": 8, "pair": [8, 8]}]
    assert predictions(invoke(client, "classifier", {"dataframe_split": {"columns": ["x"], "data": []}})) == []


def test_values_keep_their_dimensions(client):
    found = predictions(invoke(client, "colours", {"dataframe_records": [{"colour": "green"}]}))
    assert found == [[[0, 1, 0]]]


@pytest.mark.parametrize("text", ["", "NaN", "nan", "NA", "N/A", "null", "None", " "])
def test_what_csv_has_where_a_number_is_missing(client, text):
    found = predictions(post_csv(client, "weighted_sum", f"a,b,c\n1,{text},2\n"))
    assert found == [None]


# Which model.


def test_the_model_is_named_by_query_or_header(client):
    body = {"instances": [[1, 2, 3]]}
    header = {"Bellwether-Model": "weighted_sum"}
    for path, headers in [
        ("/invocations?model=weighted_sum", {}),
        ("/invocations?model=weighted_sum&version=1", {}),
        ("/invocations", header),
        ("/invocations?version=2", header),
        ("/invocations?model=weighted_sum", {"Bellwether-Model": "churn"}),
    ]:
        assert predictions(client.request("POST", path, body, headers)) == [321.5], path


def test_the_only_model_need_not_be_named(tmp_path):
    weighted_sum_model(tmp_path / "models")
    with Server(tmp_path / "data", models=tmp_path / "models") as server:
        client = server.client()
        assert predictions(client.post("/invocations", {"instances": [[1, 2, 3]]})) == [321.5]
        assert client.post("/invocations?version=3", {"instances": [[1, 2, 3]]}).status == 404


def test_of_several_models_one_must_be_named(client):
    answer = client.post("/invocations", {"instances": [[1, 2, 3]]})
    assert answer.status == 400
    for word in ["?model=NAME", "Bellwether-Model", "churn", "weighted_sum"]:
        assert word in answer.error()
    assert invoke(client, "astrology", {"instances": []}).status == 404
    assert invoke(client, "churn&version=9", {"instances": []}).status == 404


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_it_is_well(client, path):
    assert client.get(path).status == 200


def test_the_version_is_plain_text(client):
    answer = client.get("/version")
    assert answer.status == 200
    assert answer.body.decode() == client.get("/v2").json()["version"]


# What is refused.

WRONG = [
    ("no JSON", "weighted_sum", b"{", ["body"]),
    ("nothing", "weighted_sum", b"", ["body"]),
    ("more than JSON", "weighted_sum", b'{"instances": []} 1', ["body"]),
    ("no form", "weighted_sum", {}, ["exactly one", "dataframe_split"]),
    ("two forms", "weighted_sum", {"instances": [], "inputs": []}, ["exactly one"]),
    ("params", "weighted_sum", {"instances": [[1, 2, 3]], "params": {"t": 1}}, ["params", "none"]),
    ("a list", "weighted_sum", [[1, 2, 3]], ["body"]),
    ("no rows", "weighted_sum", {"dataframe_records": {"a": 1}}, ["dataframe_records"]),
    ("no data", "weighted_sum", {"dataframe_split": {"columns": ["a"]}}, ["dataframe_split", "data"]),
    ("an unknown field", "weighted_sum", {"dataframe_split": {"data": [], "dta": []}}, ["dta"]),
    (
        "a short row",
        "weighted_sum",
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [1, 2]]}},
        ["row 1", "3 values", "found 2"],
    ),
    ("a wrong name", "weighted_sum", {"dataframe_split": {"columns": [None], "data": [[1]]}}, ["columns[0]"]),
    ("a ragged tensor", "weighted_sum", {"instances": [[1, 2, 3], [1, 2]]}, ["row 1", "array of 3"]),
    ("a value among arrays", "weighted_sum", {"instances": [[1, 2, 3], 1]}, ["row 1", "array of 3"]),
    ("too few columns", "weighted_sum", {"dataframe_records": [{"a": 1}]}, ["measurements", "3"]),
    ("a text", "weighted_sum", {"instances": [[1, 2, 3], [1, 2, "x"]]}, ["row 1", "measurements", '"x"']),
    ("a fraction", "classifier", {"instances": [1, 2.5]}, ["row 1", '"x"', "INT64", "2.5"]),
    ("a missing integer", "classifier", {"dataframe_records": [{"x": None}]}, ["row 0", '"x"', "INT64"]),
    ("rows without names", "churn", {"instances": [[1, 2]]}, ["19 inputs", "by name"]),
    ("a number for text", "colours", {"instances": [5]}, ["row 0", '"colour"', "BYTES", "5"]),
    ("a column too many", "churn", {"dataframe_records": [{**ROWS[1], "shoe": 1}]}, ['"shoe" is not known']),
    (
        "a column too few",
        "churn",
        {"dataframe_records": [{k: v for k, v in ROWS[1].items() if k != "tenure"}]},
        ['"tenure" is missing'],
    ),
]


@pytest.mark.parametrize("model, body, words", [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_what_does_not_fit_is_refused_by_row_and_column(client, model, body, words):
    answer = invoke(client, model, body)
    assert answer.status == 400, answer
    for word in words:
        assert word in answer.error()


WRONG_CSV = [
    ("nothing", "", ["empty"]),
    ("a short line", "a,b,c\n1,2,3\n1,2\n", ["line 3", "3 values", "found 2"]),
    ("the index of a data frame", ",a,b,c\n0,1,2,3\n", ["column 0", "no name"]),
    ("a text", "a,b,c\n1,2,3\n1,2,many\n", ["row 1", '"c"', "FP32", "many"]),
    ("a column twice", "a,a,c\n1,2,3\n", ['"a"', "twice"]),
]


@pytest.mark.parametrize("text, words", [c[1:] for c in WRONG_CSV], ids=[c[0] for c in WRONG_CSV])
def test_csv_that_does_not_fit_is_refused_by_place(client, text, words):
    answer = post_csv(client, "weighted_sum", text)
    assert answer.status == 400, answer
    for word in words:
        assert word in answer.error()


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "application/json; charset=latin-1", "text/plain", "nonsense"],
)
def test_other_content_types_are_refused(client, content_type):
    answer = post_csv(client, "weighted_sum", '{"instances": [[1, 2, 3]]}', content_type)
    assert answer.status == 415
    assert "Content-Type" in answer.error()


def test_sizes_are_bounded(client):
    rows = {"instances": [[0, 0, 0]] * 100_001}
    answer = invoke(client, "weighted_sum", rows)
    assert answer.status == 413 and "100001" in answer.error()
    sparse = {"dataframe_records": [{f"c{i}": 1} for i in range(5_000)]}
    answer = invoke(client, "weighted_sum", sparse)
    assert answer.status == 413 and "null" in answer.error()
    wide = {"dataframe_split": {"columns": [f"c{i}" for i in range(10_001)], "data": []}}
    answer = invoke(client, "weighted_sum", wide)
    assert answer.status == 413 and "10000" in answer.error()
    answer = invoke(client, "weighted_sum", b" " * (4 * 1024 * 1024 + 1))
    assert answer.status == 413 and "max_body_bytes" in answer.error()


def test_a_large_table_equals_onnxruntime(client):
    rows = [ROWS[i % len(ROWS)] for i in range(5_000)]
    split = {"columns": NAMES, "data": [[row[name] for name in NAMES] for row in rows]}
    found = predictions(invoke(client, "churn", {"dataframe_split": split}))
    assert_equals_onnxruntime(found, rows)
    assert not any(math.isnan(value) for record in found for value in record["probabilities"])
