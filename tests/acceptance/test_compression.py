"""Bodies in gzip and deflate, both ways: read on every route, bounded by what they are inflated to, and
refused with a reason when they are damaged."""

import gzip
import json
import zlib

import numpy
import pytest

from models import copy_sample, reference, weighted_sum_model
from server import Server
from telco import VARIED, customer

LENGTH = "Inference-Header-Content-Length"


def bare_deflate(data):
    """A deflate stream without zlib's header, as some clients send it."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


ENCODERS = {
    "gzip": ("gzip", gzip.compress),
    "several gzip members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare_deflate),
    "plain": ("identity", bytes),
}
DECODERS = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compression")
    weighted_sum_model(folder / "models")
    copy_sample("churn", folder / "models")
    # Read from the directory in which the server starts.
    settings = "max_body_bytes = 100000\nmax_tensor_body_bytes = 400000\n"
    with Server(folder / "data", models=folder / "models", settings=settings) as server:
        yield server


def post(client, path, body, encoding, **headers):
    return client.request("POST", path, body, {"Content-Encoding": encoding, **headers})


def sum_request(rows):
    """A request to weighted_sum, and its answer."""
    values = numpy.arange(rows * 3, dtype=numpy.float32).reshape(rows, 3) % 7
    tensor = {"name": "measurements", "datatype": "FP32", "shape": [rows, 3], "data": values.tolist()}
    expected = values @ numpy.array([1, 10, 100], numpy.float32) + 0.5
    return {"inputs": [tensor]}, expected.tolist()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("rows", [1, 4000], ids=["small", "large"])
def test_a_compressed_request_is_answered_as_a_plain_one(client, encoder, rows):
    encoding, compress = ENCODERS[encoder]
    request, expected = sum_request(rows)
    body = compress(json.dumps(request).encode())
    answer = post(client, "/v2/models/weighted_sum/infer", body, encoding)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == expected


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_length_of_the_json_counts_inflated_bytes(client, encoder):
    encoding, compress = ENCODERS[encoder]
    values = numpy.array([[1, 2, 3]], numpy.float32)
    tensor = {"name": "measurements", "datatype": "FP32", "shape": [1, 3]}
    tensor["parameters"] = {"binary_data_size": values.nbytes}
    text = json.dumps({"inputs": [tensor]}).encode()
    body = compress(text + values.tobytes())
    answer = post(client, "/v2/models/weighted_sum/infer", body, encoding, **{LENGTH: str(len(text))})
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [321.5]


def test_every_route_that_takes_a_body_takes_a_compressed_one(client):
    features = gzip.compress(json.dumps({"features": customer()}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert client.request("PUT", "/v1/customers/c-1", features, headers).status == 200
    scored = post(client, "/v1/score", zlib.compress(b'{"customer_id": "c-1"}'), "deflate")
    assert scored.status == 200, scored
    prediction_id = scored.json()["prediction_id"]
    outcome = {"prediction_id": prediction_id, "outcome": "churn", "value": 1.0}
    assert post(client, "/v1/outcomes", gzip.compress(json.dumps(outcome).encode()), "gzip").status < 300
    assert post(client, "/v2/repository/index", gzip.compress(b"{}"), "gzip").status == 200
    body = gzip.compress(b'{"instances": [[1, 2, 3]]}')
    assert post(client, "/invocations?model=weighted_sum", body, "gzip").json() == {"predictions": [321.5]}


# What is refused.


def test_the_limit_is_on_what_a_body_is_inflated_to(client):
    for size, status in [(100_000, 400), (100_001, 413), (50_000_000, 413)]:
        for encoding, compress in [("gzip", gzip.compress), ("deflate", zlib.compress)]:
            # Spaces: no JSON, but read to its end
            body = compress(b" " * size)
            assert len(body) < 100_000
            answer = post(client, "/v2/models/weighted_sum/infer", body, encoding)
            assert answer.status == status, (size, answer)
            if status == 413:
                assert "max_body_bytes" in answer.error() and "100000" in answer.error()
    body = gzip.compress(bytes(400_001))
    answer = post(client, "/v2/models/weighted_sum/infer", body, "gzip", **{LENGTH: "0"})
    assert answer.status == 413
    assert "max_tensor_body_bytes" in answer.error()


WHOLE = gzip.compress(b'{"inputs": []}')
DAMAGED = [
    ("no gzip", "gzip", b'{"inputs": []}', "header"),
    ("cut off", "gzip", WHOLE[:-9], "end missing"),
    ("without its sum", "gzip", WHOLE[:-8], "end missing"),
    ("a wrong sum", "gzip", WHOLE[:-8] + bytes(4) + WHOLE[-4:], "check"),
    ("more behind it", "gzip", WHOLE + b"more", f"behind byte {len(WHOLE)}"),
    ("zlib cut off", "deflate", zlib.compress(b'{"inputs": []}')[:-1], "end missing"),
    ("more behind zlib", "deflate", zlib.compress(b"{}") + b"more", "4 more bytes"),
    ("no deflate", "deflate", b"\xff\xff\xff\xff", "at byte"),
]


@pytest.mark.parametrize("encoding, body, word", [c[1:] for c in DAMAGED], ids=[c[0] for c in DAMAGED])
def test_a_damaged_body_is_refused_with_what_was_wrong(client, encoding, body, word):
    answer = post(client, "/v2/models/weighted_sum/infer", body, encoding)
    assert answer.status == 400, answer
    assert answer.error().startswith("body: ") and word in answer.error()


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, deflate"])
def test_other_encodings_are_refused_with_those_understood(client, encoding):
    answer = post(client, "/v2/models/weighted_sum/infer", WHOLE, encoding)
    assert answer.status == 415
    assert "gzip, deflate and identity" in answer.error()


# Answers.


@pytest.mark.parametrize(
    "accept, encoding",
    [
        (None, None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.1, deflate;q=0.2", "deflate"),
        ("gzip;q=0", None),
    ],
)
@pytest.mark.parametrize("rows", [1, 4000], ids=["small", "large"])
def test_an_answer_is_encoded_as_the_client_accepts(client, accept, encoding, rows):
    request, expected = sum_request(rows)
    # http.client sends an Accept-Encoding of its own unless one is given.
    headers = {"Accept-Encoding": accept or "identity"}
    answer = client.request("POST", "/v2/models/weighted_sum/infer", request, headers)
    assert answer.status == 200, answer
    assert "accept-encoding" in answer.headers["Vary"].lower()
    if rows == 1:
        assert answer.headers["Content-Encoding"] is None, "it does not pay for a small answer"
    else:
        assert answer.headers["Content-Encoding"] == encoding
    body = DECODERS[answer.headers["Content-Encoding"]](answer.body)
    assert json.loads(body)["outputs"][0]["data"] == expected


# The client library that people use.


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_tritonclient_compresses_both_ways(server, request_algorithm, response_algorithm, binary):
    httpclient = pytest.importorskip("tritonclient.http")
    rows = [{**row, "total_charges": row["total_charges"] or 0.0} for row in VARIED] * 20
    types = {"FP32": numpy.float32, "INT64": numpy.int64, "BYTES": object}
    inputs = []
    for tensor in reference("churn").oip_inputs(rows):
        array = numpy.array(tensor["data"], dtype=types[tensor["datatype"]]).reshape(tensor["shape"])
        inputs.append(httpclient.InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    expected = reference("churn").run(rows)
    outputs = [httpclient.InferRequestedOutput(name, binary_data=binary) for name in expected]
    with httpclient.InferenceServerClient(server.address) as triton:
        result = triton.infer(
            "churn",
            inputs,
            outputs=outputs,
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
    for name, array in expected.items():
        numpy.testing.assert_allclose(result.as_numpy(name), array, atol=1e-6, rtol=1e-5)
