"""The Open Inference Protocol over HTTP as its specification and Triton have it, byte by byte: what no
client library lets one send, and the exact form of what is answered."""

import gzip
import json
import zlib

import numpy
import pytest

from models import colour_model, weighted_sum_model
from protocol_models import MODELS, judge
from server import Server

LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/boosted/infer"


@pytest.fixture(scope="session")
def server(protocol_server):
    return protocol_server


@pytest.fixture
def boosted(protocol_server):
    return judge(protocol_server.models, "boosted")


# Who it is.


def test_health_is_told_in_words_and_in_json(client):
    live, ready = client.get("/v2/health/live"), client.get("/v2/health/ready")
    assert (live.status, live.json()["live"]) == (200, True)
    assert (ready.status, ready.json()["ready"]) == (200, True)
    for path in ("/v2/models/boosted/ready", "/v2/models/boosted/versions/1/ready"):
        answer = client.get(path)
        assert (answer.status, answer.json()["ready"]) == (200, True)


def test_only_extensions_that_are_here_are_announced(client):
    known = {
        "binary_tensor_data": None,
        "model_configuration": "/v2/models/boosted/config",
        "model_repository": "/v2/repository/index",
        "statistics": "/v2/models/boosted/stats",
    }
    announced = client.get("/v2").json()["extensions"]
    assert len(set(announced)) == len(announced)
    # A part of an extension is announced by name and part in brackets.
    assert {name.partition("(")[0] for name in announced} <= set(known)
    for name, path in known.items():
        assert name in announced
        if path:
            assert client.get(path).status == 200


# Bodies.


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_compressed_json_is_read(client, boosted, encode):
    feed = boosted.rows(100)
    body = json.dumps({"inputs": boosted.json_inputs(feed)}).encode()
    coding = {gzip.compress: "gzip", zlib.compress: "deflate"}[encode]
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    answer = client.request("POST", INFER, encode(body), headers)
    assert answer.status == 200, answer
    boosted.check(feed, boosted.from_json(answer.json()["outputs"]))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_limit_is_on_what_a_body_unpacks_to(protocol_server, client, coding):
    """Half a gigabyte of spaces takes half a megabyte on the way; it must not take more here."""
    engine = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    spaces = b" " * 2**20
    body = b"".join(engine.compress(spaces) for _ in range(512)) + engine.flush()
    assert len(body) < 2**20
    answer = client.request("POST", INFER, body, {"Content-Encoding": coding})
    assert answer.status == 413, answer
    assert answer.error()
    assert protocol_server.client().get("/readyz").status == 200


@pytest.mark.parametrize(
    "coding, body, status",
    [("gzip", b"no gzip", 400), ("deflate", b"no zlib", 400), ("zstd", b"", 415), ("gzip", b"", 400)],
)
def test_a_body_that_does_not_unpack_is_refused(client, coding, body, status):
    answer = client.request("POST", INFER, body, {"Content-Encoding": coding})
    assert answer.status == status, answer
    assert answer.error()


def test_a_body_cut_short_is_refused(client, boosted):
    body = gzip.compress(json.dumps({"inputs": boosted.json_inputs(boosted.rows(50))}).encode())
    answer = client.request("POST", INFER, body[:-20], {"Content-Encoding": "gzip"})
    assert answer.status == 400, answer
    assert answer.error()


@pytest.mark.parametrize("kind", [None, "application/json", "application/octet-stream", "text/plain"])
def test_a_request_is_read_whatever_it_calls_itself(protocol_server, boosted, kind):
    """Clients send no content type, or another than the body has; the length header decides."""
    feed = boosted.rows(1)
    body = json.dumps({"inputs": boosted.json_inputs(feed)}).encode()
    client = protocol_server.client()
    headers = {"Content-Length": str(len(body)), **({"Content-Type": kind} if kind else {})}
    client.connection.request("POST", INFER, body=body, headers=headers)
    response = client.connection.getresponse()
    answered = response.read()
    assert response.status == 200, answered
    boosted.check(feed, boosted.from_json(json.loads(answered)["outputs"]))


# The form of requests and answers.


def test_unknown_fields_and_parameters_are_passed_over(client, boosted):
    feed = boosted.rows(2)
    (tensor,) = boosted.json_inputs(feed)
    body = {
        "id": "request 7",
        "model_name": "boosted",
        "inputs": [{**tensor, "parameters": {"note": None, "depth": 1.5}}],
        "outputs": [{"name": "label", "parameters": {"colour": "red"}}, {"name": "probabilities"}],
        "parameters": {"note": "mine", "share": 0.5, "trace": True, "priority": 3, "list": [1, {"a": 2}]},
    }
    answer = client.post(INFER, body)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["id"] == "request 7"
    boosted.check(feed, boosted.from_json(answer.json()["outputs"]))


@pytest.mark.parametrize("model", MODELS)
def test_flat_and_nested_data_are_the_same(protocol_server, client, model):
    expert = judge(protocol_server.models, model)
    feed = expert.rows(6)
    flat = expert.json_inputs(feed)
    nested = [{**tensor, "data": feed[tensor["name"]].tolist()} for tensor in flat]
    answers = [client.post(f"/v2/models/{model}/infer", {"inputs": i}).json() for i in (flat, nested)]
    assert answers[0]["outputs"] == answers[1]["outputs"]
    expert.check(feed, expert.from_json(answers[0]["outputs"]))


# Raw bytes: a length of zero says that the whole body is the one input.


@pytest.mark.parametrize("rows", [1, 7])
def test_raw_bytes_are_the_one_input(client, boosted, rows):
    feed = boosted.rows(rows)
    data = feed["measurements"].tobytes()
    answer = client.request("POST", INFER, data, {LENGTH: "0", "Content-Type": "application/octet-stream"})
    assert answer.status == 200, answer
    # Without a request in JSON nothing asks for JSON: the outputs are bytes.
    size = int(answer.headers[LENGTH])
    reply, rest = json.loads(answer.body[:size]), answer.body[size:]
    found = {}
    for output, dtype in zip(reply["outputs"], [numpy.int64, numpy.float32], strict=True):
        length = output["parameters"]["binary_data_size"]
        found[output["name"]] = numpy.frombuffer(rest[:length], dtype).reshape(output["shape"])
        rest = rest[length:]
    boosted.check(feed, found)


@pytest.fixture(scope="module")
def one_input(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    colour_model(folder / "models")
    weighted_sum_model(folder / "models")
    with Server(folder / "data", models=folder / "models") as server:
        yield server


def test_a_raw_text_is_the_whole_body(one_input):
    answer = one_input.client().request("POST", "/v2/models/colours/infer", b"blue", {LENGTH: "0"})
    assert answer.status == 200, answer
    size = int(answer.headers[LENGTH])
    assert json.loads(answer.body[:size])["outputs"][0]["shape"] == [1, 1, 3]
    assert numpy.frombuffer(answer.body[size:], numpy.float32).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v2/models/pipeline/infer", b"\0" * 8),  # which of its two inputs would it be?
        (INFER, b"\0" * 15),  # no number of rows of 16 bytes
    ],
    ids=["two inputs", "part of a row"],
)
def test_raw_bytes_that_fit_no_input_are_refused(client, path, body):
    answer = client.request("POST", path, body, {LENGTH: "0"})
    assert answer.status == 400, answer
    assert answer.error()


# Refusals.

WRONG = {
    "not JSON": (INFER, "{", 400),
    "no object": (INFER, "[]", 400),
    "nothing": (INFER, "", 400),
    "no inputs": (INFER, "{}", 400),
    "inputs of another kind": (INFER, '{"inputs": 7}', 400),
    "a tensor without its name": (
        INFER,
        '{"inputs": [{"datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}',
        400,
    ),
    "an id of another kind": (INFER, '{"id": {}, "inputs": []}', 400),
    "a shape of another kind": (
        INFER,
        '{"inputs": [{"name": "measurements", "datatype": "FP32", "shape": "x", "data": []}]}',
        400,
    ),
    "text in a number": (
        INFER,
        '{"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [1, 4], "data": ["a"]}]}',
        400,
    ),
    "an unknown model": ("/v2/models/astrology/infer", '{"inputs": []}', 404),
    "an unknown version": ("/v2/models/boosted/versions/7/infer", '{"inputs": []}', 404),
    "no such route": ("/v2/models/boosted/fortune", "{}", 404),
    "a load of nothing": ("/v2/repository/models/astrology/load", "{}", 400),
    "a load with files": (
        "/v2/repository/models/boosted/load",
        '{"parameters": {"file:1/model.onnx": "AAAA"}}',
        400,
    ),
    "a load with settings": (
        "/v2/repository/models/boosted/load",
        '{"parameters": {"config": "{}"}}',
        400,
    ),
    "an index of another kind": ("/v2/repository/index", '{"ready": 7}', 400),
}


@pytest.mark.parametrize("path, body, status", WRONG.values(), ids=WRONG)
def test_a_refusal_has_tritons_status_and_one_field(client, path, body, status):
    answer = client.request("POST", path, body)
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.error()


@pytest.mark.parametrize("what", ["", "/config", "/stats", "/versions/7", "/versions/7/config"])
def test_what_is_told_of_unknown_models_is_404(client, what):
    model = "boosted" if "7" in what else "astrology"
    answer = client.get(f"/v2/models/{model}{what}")
    assert answer.status == 404, answer
    assert answer.error()
