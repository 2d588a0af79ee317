"""Tensors as bytes: the binary tensor data extension of the Open Inference Protocol. What is sent as
bytes arrives to the bit, NaN included, and what does not fit is refused by name."""

import json
import math
import struct

import numpy
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models import OIP_TYPES, copy_sample, reference, save, tensor_info, weighted_sum_model
from server import Server
from telco import VARIED

LENGTH = "Inference-Header-Content-Length"

# OIP name -> the type in ONNX, in numpy, and the values at the ends of its range.
TYPES = {
    "BOOL": (TensorProto.BOOL, numpy.bool_, [True, False, False, True]),
    "UINT8": (TensorProto.UINT8, numpy.uint8, [0, 1, 127, 2**8 - 1]),
    "UINT16": (TensorProto.UINT16, numpy.uint16, [0, 1, 258, 2**16 - 1]),
    "UINT32": (TensorProto.UINT32, numpy.uint32, [0, 1, 2**17 + 1, 2**32 - 1]),
    "UINT64": (TensorProto.UINT64, numpy.uint64, [0, 1, 2**53 + 1, 2**64 - 1]),
    "INT8": (TensorProto.INT8, numpy.int8, [-(2**7), -1, 0, 2**7 - 1]),
    "INT16": (TensorProto.INT16, numpy.int16, [-(2**15), -1, 258, 2**15 - 1]),
    "INT32": (TensorProto.INT32, numpy.int32, [-(2**31), -1, 2**17 + 1, 2**31 - 1]),
    "INT64": (TensorProto.INT64, numpy.int64, [-(2**63), -1, 2**53 + 1, 2**63 - 1]),
    "FP16": (TensorProto.FLOAT16, numpy.float16, [0.1, -65504.0, math.nan, math.inf]),
    "FP32": (TensorProto.FLOAT, numpy.float32, [0.1, -1e-45, math.nan, -math.inf]),
    "FP64": (TensorProto.DOUBLE, numpy.float64, [0.1, 5e-324, math.nan, math.inf]),
    "BYTES": (
        TensorProto.STRING,
        object,
        ["", "Month-to-month", "Zoë \U0001f980\n\x00end", "longer than any short string " * 9],
    ),
}


def array_of(datatype, shape=(2, 2)):
    _, dtype, values = TYPES[datatype]
    return numpy.array(values, dtype=dtype).reshape(shape)


def to_bytes(array):
    if array.dtype == object:
        encoded = [text.encode() for text in array.reshape(-1)]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return numpy.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


def from_bytes(datatype, shape, data):
    if datatype != "BYTES":
        dtype = numpy.dtype(TYPES[datatype][1]).newbyteorder("<")
        return numpy.frombuffer(data, dtype=dtype).reshape(shape)
    texts = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return numpy.array(texts, dtype=object).reshape(shape)


def equal(found, expected):
    """Equal to the bit, where NaN equals NaN."""
    if found.shape != expected.shape:
        return False
    return to_bytes(found) == to_bytes(expected)


def binary_input(name, datatype, array):
    """An input of a request and its bytes."""
    data = to_bytes(array)
    tensor = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    return {**tensor, "parameters": {"binary_data_size": len(data)}}, data


def post(client, model, inputs, version="1", length=None, tail=b"", **fields):
    """Sends inputs, each a dict or a pair of a dict and its bytes. `length` overrides the header."""
    pairs = [i if isinstance(i, tuple) else (i, b"") for i in inputs]
    text = json.dumps({"inputs": [tensor for tensor, _ in pairs], **fields}).encode()
    body = text + b"".join(data for _, data in pairs) + tail
    length = len(text) if length is None else length
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(length)}
    return client.request("POST", f"/v2/models/{model}/versions/{version}/infer", body, headers)


def outputs_of(answer):
    """Output name -> array, of an answer whose outputs are bytes or JSON."""
    assert answer.status == 200, answer
    length = answer.headers[LENGTH]
    if length is None:
        assert answer.headers["Content-Type"] == "application/json"
        length = len(answer.body)
    else:
        assert answer.headers["Content-Type"] == "application/octet-stream"
    reply, rest = json.loads(answer.body[: int(length)]), answer.body[int(length) :]
    outputs = {}
    for output in reply["outputs"]:
        if "data" in output:
            assert "parameters" not in output
            dtype = TYPES[output["datatype"]][1]
            values = [math.nan if value is None else value for value in output["data"]]
            outputs[output["name"]] = numpy.array(values, dtype=dtype).reshape(output["shape"])
            continue
        size = output["parameters"]["binary_data_size"]
        outputs[output["name"]] = from_bytes(output["datatype"], output["shape"], rest[:size])
        rest = rest[size:]
    assert rest == b"", "bytes that belong to no output"
    return outputs


def echo_model(models_dir, name, datatypes):
    """Inputs x_FP32, ... [N, 2] -> outputs y_FP32, ... that are the same."""
    return save(
        [helper.make_node("Identity", [f"x_{d}"], [f"y_{d}"]) for d in datatypes],
        [tensor_info(f"x_{d}", TYPES[d][0], ["N", 2]) for d in datatypes],
        [tensor_info(f"y_{d}", TYPES[d][0], ["N", 2]) for d in datatypes],
        [],
        models_dir,
        name,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("binary")
    models = folder / "models"
    for datatype in TYPES:
        echo_model(models, f"echo_{datatype}", [datatype])
    echo_model(models, "echo", list(TYPES))
    echo_model(models, "pair", ["FP32", "BYTES"])
    weighted_sum_model(models)
    copy_sample("churn", models)
    with Server(folder / "data", models=models, cwd=folder) as server:
        server.models = models
        yield server


def test_the_extension_is_announced(client):
    assert "binary_tensor_data" in client.get("/v2").json()["extensions"]


# Bytes in, bytes and JSON out.


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_is_echoed_to_the_bit(client, datatype):
    model = f"echo_{datatype}"
    for kind in ("inputs", "outputs"):
        assert [t["datatype"] for t in client.get(f"/v2/models/{model}").json()[kind]] == [datatype]
    sent = array_of(datatype)
    tensor = binary_input(f"x_{datatype}", datatype, sent)
    found = outputs_of(post(client, model, [tensor], parameters={"binary_data_output": True}))
    assert equal(found[f"y_{datatype}"], sent)


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_is_answered_as_json_unless_asked_otherwise(client, datatype):
    sent = array_of(datatype)
    answer = post(client, f"echo_{datatype}", [binary_input(f"x_{datatype}", datatype, sent)])
    assert answer.status == 200, answer
    assert answer.headers[LENGTH] is None
    (output,) = answer.json()["outputs"]
    assert output["shape"] == [2, 2]
    for found, value in zip(output["data"], sent.reshape(-1).tolist(), strict=True):
        is_number = not isinstance(value, float) or math.isfinite(value)
        assert found == (value if is_number else None)


@pytest.mark.parametrize("datatype", TYPES)
def test_json_in_and_bytes_out(client, datatype):
    sent = array_of(datatype)
    if sent.dtype.kind == "f":
        sent = numpy.nan_to_num(sent, posinf=1.0, neginf=-1.0)
    tensor = {"name": f"x_{datatype}", "datatype": datatype, "shape": [2, 2], "data": sent.tolist()}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    answer = client.post(f"/v2/models/echo_{datatype}/infer", body)
    assert equal(outputs_of(answer)[f"y_{datatype}"], sent)


@pytest.mark.parametrize("datatype", TYPES)
@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "JSON"])
def test_no_rows_in_no_rows_out(client, datatype, as_bytes):
    sent = numpy.empty((0, 2), dtype=TYPES[datatype][1])
    tensor = binary_input(f"x_{datatype}", datatype, sent)
    answer = post(client, f"echo_{datatype}", [tensor], parameters={"binary_data_output": as_bytes})
    assert outputs_of(answer)[f"y_{datatype}"].shape == (0, 2)


@pytest.mark.parametrize("order", [1, -1], ids=["in the graph's order", "backwards"])
def test_many_inputs_in_one_request(server, client, order):
    datatypes = list(TYPES)[::order]
    sent = {d: array_of(d) for d in datatypes}
    inputs = []
    for place, datatype in enumerate(datatypes):
        if place % 3 == 1 and sent[datatype].dtype.kind != "f":
            data = sent[datatype].reshape(-1).tolist()
            inputs.append({"name": f"x_{datatype}", "datatype": datatype, "shape": [2, 2], "data": data})
        else:
            inputs.append(binary_input(f"x_{datatype}", datatype, sent[datatype]))
    outputs = [
        {"name": f"y_{d}", "parameters": {"binary_data": place % 2 == 0}}
        for place, d in enumerate(datatypes)
    ]
    answer = post(client, "echo", inputs, outputs=outputs, id="mixed")
    found = outputs_of(answer)
    assert list(found) == [f"y_{d}" for d in datatypes]
    session = onnxruntime.InferenceSession(str(server.models / "echo" / "1" / "model.onnx"))
    expected = session.run([f"y_{d}" for d in datatypes], {f"x_{d}": sent[d] for d in datatypes})
    for place, (datatype, array) in enumerate(zip(datatypes, expected)):
        if place % 2 == 0 or array.dtype.kind != "f":
            assert equal(found[f"y_{datatype}"], array), datatype


@pytest.mark.parametrize(
    "whole, own, is_binary",
    [
        (None, None, False),
        (True, None, True),
        (False, None, False),
        (None, True, True),
        (True, False, False),
        (False, True, True),
    ],
)
def test_an_output_decides_before_the_request(client, whole, own, is_binary):
    fields = {} if whole is None else {"parameters": {"binary_data_output": whole}}
    output = {"name": "y_FP32"} if own is None else {"name": "y_FP32", "parameters": {"binary_data": own}}
    tensor = binary_input("x_FP32", "FP32", numpy.zeros((1, 2), numpy.float32))
    answer = post(client, "echo_FP32", [tensor], outputs=[output], **fields)
    assert answer.status == 200
    assert (answer.headers[LENGTH] is not None) == is_binary


def test_unknown_parameters_are_passed_over(client):
    tensor, data = binary_input("x_FP32", "FP32", numpy.ones((1, 2), numpy.float32))
    tensor["parameters"]["note"] = "mine"
    answer = post(client, "echo_FP32", [(tensor, data)], parameters={"priority": 3})
    assert outputs_of(answer)["y_FP32"].tolist() == [[1, 1]]


# Real models.


def churn_inputs(rows):
    """The rows as bytes, with NaN for a missing number."""
    onnx_types = {"FP32": numpy.float32, "INT64": numpy.int64, "BYTES": object}
    inputs = []
    for name, kind in reference("churn").inputs.items():
        datatype = OIP_TYPES[kind]
        column = [[math.nan if row[name] is None else row[name]] for row in rows]
        inputs.append(binary_input(name, datatype, numpy.array(column, dtype=onnx_types[datatype])))
    return inputs


@pytest.mark.parametrize("count", [1, 8, 20_000])
def test_rows_with_nan_equal_onnxruntime(client, count):
    rows = [VARIED[i % len(VARIED)] for i in range(count)]
    rows[0] = {**rows[0], "total_charges": None}
    found = outputs_of(post(client, "churn", churn_inputs(rows), parameters={"binary_data_output": True}))
    expected = reference("churn").run(rows)
    assert list(found) == list(expected)
    for name, array in expected.items():
        numpy.testing.assert_allclose(found[name], array, atol=1e-6, rtol=1e-5)


def test_twenty_thousand_rows_of_numbers_equal_onnxruntime(server, client):
    rows = numpy.random.default_rng(7).normal(size=(20_000, 3)).astype(numpy.float32)
    rows[::97, 1] = math.nan
    answer = post(
        client,
        "weighted_sum",
        [binary_input("measurements", "FP32", rows)],
        outputs=[{"name": "total", "parameters": {"binary_data": True}}],
    )
    found = outputs_of(answer)["total"]
    path = server.models / "weighted_sum" / "1" / "model.onnx"
    (expected,) = onnxruntime.InferenceSession(str(path)).run(["total"], {"measurements": rows})
    numpy.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


# The client library that people use.


@pytest.fixture
def triton(server):
    client = pytest.importorskip("tritonclient.http").InferenceServerClient(server.address)
    yield client
    client.close()


@pytest.mark.parametrize("named_outputs", [True, False])
def test_tritonclient_gets_back_what_it_sends(triton, named_outputs):
    httpclient = pytest.importorskip("tritonclient.http")
    assert triton.is_server_ready() and triton.is_model_ready("echo")
    inputs, sent = [], {}
    for datatype in TYPES:
        # The library sends texts as bytes and gives bytes back.
        array = array_of(datatype)
        if datatype == "BYTES":
            array = numpy.array([t.encode() for t in array.reshape(-1)], dtype=object).reshape(2, 2)
        tensor = httpclient.InferInput(f"x_{datatype}", [2, 2], datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
        sent[datatype] = array
    outputs = [httpclient.InferRequestedOutput(f"y_{d}") for d in TYPES] if named_outputs else None
    result = triton.infer("echo", inputs, outputs=outputs, request_id="7")
    assert result.get_response()["id"] == "7"
    for datatype, array in sent.items():
        found = result.as_numpy(f"y_{datatype}")
        assert found.shape == array.shape
        assert found.dtype == array.dtype
        if datatype == "BYTES":
            assert found.tolist() == array.tolist()
        else:
            assert equal(found, array), datatype


def test_tritonclient_sends_json_too(triton):
    httpclient = pytest.importorskip("tritonclient.http")
    tensor = httpclient.InferInput("x_FP32", [1, 2], "FP32")
    tensor.set_data_from_numpy(numpy.array([[1.5, -2]], numpy.float32), binary_data=False)
    output = httpclient.InferRequestedOutput("y_FP32", binary_data=False)
    assert triton.infer("echo_FP32", [tensor], outputs=[output]).as_numpy("y_FP32").tolist() == [[1.5, -2]]


def test_tritonclient_sees_the_reason_of_a_refusal(triton):
    httpclient = pytest.importorskip("tritonclient.http")
    utils = pytest.importorskip("tritonclient.utils")
    tensor = httpclient.InferInput("x_FP32", [1, 3], "FP32")
    tensor.set_data_from_numpy(numpy.zeros((1, 3), numpy.float32))
    with pytest.raises(utils.InferenceServerException, match="x_FP32.*shape"):
        triton.infer("echo_FP32", [tensor])


# What is refused.


def pair_request(changes=None, data=None, json_data=None):
    """x_FP32 as bytes, then x_BYTES as bytes; with changes to the first."""
    numbers, number_bytes = binary_input("x_FP32", "FP32", numpy.array([[1, 2]], numpy.float32))
    texts = binary_input("x_BYTES", "BYTES", numpy.array([["red", "blue"]], dtype=object))
    numbers.update(changes or {})
    if json_data is not None:
        numbers["data"] = json_data
    return [(numbers, number_bytes if data is None else data), texts]


def sized(size):
    return {"parameters": {"binary_data_size": size}}


WRONG = [
    ("a header that is no number", {"length": "many"}, [LENGTH, "many"]),
    ("a negative header", {"length": "-1"}, [LENGTH, "-1"]),
    ("a header with a sign", {"length": "+10"}, [LENGTH, "+10"]),
    ("an empty header", {"length": ""}, [LENGTH]),
    ("a header longer than the body", {"length": "100000"}, [LENGTH, "100000", "at most"]),
    ("a header beyond 64 bits", {"length": str(2**70)}, [LENGTH, "at most"]),
    ("a header that cuts the JSON", {"length": "10"}, []),
    ("a header that takes binary data in", {"length": "cut"}, []),
    ("a header of zero", {"length": "0"}, ["body"]),
    ("more than the shape needs", {"inputs": pair_request(sized(12), bytes(12))}, ["x_FP32", "8", "12"]),
    ("less than the shape needs", {"inputs": pair_request(sized(4), bytes(4))}, ["x_FP32", "8", "4"]),
    ("bytes left over", {"tail": b"\0\0"}, ["body", "found"]),
    ("bytes for no input", {"inputs": [], "tail": b"\0"}, []),
    ("bytes missing", {"inputs": pair_request(data=b"")}, ["inputs[1]", "binary_data_size", "at most"]),
    ("a size beyond the body", {"inputs": pair_request(sized(10**6))}, ["inputs[0]", "at most", "1000000"]),
    ("a size beyond 64 bits", {"inputs": pair_request(sized(2**64))}, ["inputs[0]", "binary_data_size"]),
    ("the largest size", {"inputs": pair_request(sized(2**64 - 1))}, ["inputs[0]", "at most"]),
    ("a negative size", {"inputs": pair_request(sized(-1))}, ["inputs[0]", "binary_data_size", "-1"]),
    ("a fraction of a size", {"inputs": pair_request(sized(8.5))}, ["inputs[0]", "binary_data_size", "8.5"]),
    ("a size in words", {"inputs": pair_request(sized("8"))}, ["inputs[0]", "binary_data_size", '"8"']),
    ("both forms of data", {"inputs": pair_request(json_data=[1, 2])}, ["inputs[0]", "data", "both"]),
    (
        "neither form of data",
        {"inputs": pair_request({"parameters": {}}, b"")},
        ["inputs[0]", "neither"],
    ),
    ("another datatype", {"inputs": pair_request({"datatype": "INT32"})}, ["x_FP32", "FP32", "INT32"]),
    ("another shape", {"inputs": pair_request({"shape": [2, 1]})}, ["x_FP32", "shape"]),
    ("a huge shape", {"inputs": pair_request({"shape": [2**62, 2]}), "status": 413}, ["x_FP32", "rows"]),
    (
        "a shape whose bytes overflow",
        {"inputs": pair_request({"shape": [1, 2**63]}), "status": 413},
        ["x_FP32", "too large"],
    ),
    ("another number of rows", {"inputs": pair_request({"shape": [2, 2]}, bytes(8))}, ["x_FP32", "16", "8"]),
    (
        "classification",
        {"outputs": [{"name": "y_FP32", "parameters": {"classification": 2}}], "status": 501},
        ["classification"],
    ),
    (
        "shared memory",
        {"outputs": [{"name": "y_FP32", "parameters": {"shared_memory_region": "a"}}], "status": 501},
        ["shared_memory_region"],
    ),
]


@pytest.mark.parametrize("fields, words", [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_a_wrong_request_is_refused_by_name(client, fields, words):
    fields = dict(fields)
    inputs = fields.pop("inputs", None)
    inputs = pair_request() if inputs is None else inputs
    if fields.get("length") == "cut":
        fields["length"] = len(json.dumps({"inputs": [tensor for tensor, _ in inputs]})) + 3
    status = fields.pop("status", 400)
    answer = post(client, "pair", inputs, **fields)
    assert answer.status == status, answer
    for word in words:
        assert word in answer.error()


def test_a_size_without_the_header_is_refused(client):
    tensor, data = binary_input("x_FP32", "FP32", numpy.zeros((1, 2), numpy.float32))
    answer = client.post("/v2/models/echo_FP32/infer", {"inputs": [tensor]})
    assert answer.status == 400
    assert LENGTH in answer.error() and "inputs[0]" in answer.error()


# Given as the bytes of two texts, shape [1, 2].
WRONG_TEXTS = [
    ("no second text", b"\3\0\0\0red", ["element 1", "found 0"]),
    ("half a length", b"\3\0\0\0red\4\0", ["element 1", "found 2"]),
    ("half a text", b"\3\0\0\0red\4\0\0\0bl", ["element 1", "4", "found 2"]),
    ("a length of four gigabytes", b"\xff\xff\xff\xff", ["element 0", "4294967295"]),
    ("a third text", b"\0\0\0\0" * 3, ["expected 8", "found 12"]),
    ("no UTF-8", b"\0\0\0\0\2\0\0\0\xc3\x28", ["element 1", "UTF-8"]),
    ("nothing", b"", ["element 0"]),
]


@pytest.mark.parametrize("data, words", [c[1:] for c in WRONG_TEXTS], ids=[c[0] for c in WRONG_TEXTS])
def test_wrong_texts_are_refused_by_element(client, data, words):
    tensor = {"name": "x_BYTES", "datatype": "BYTES", "shape": [1, 2], **sized(len(data))}
    answer = post(client, "echo_BYTES", [(tensor, data)])
    assert answer.status == 400
    message = answer.error()
    for word in ["x_BYTES", *words]:
        assert word in message, message


def test_a_flag_that_is_neither_is_refused(client):
    tensor = {"name": "x_BOOL", "datatype": "BOOL", "shape": [1, 2], **sized(2)}
    message = post(client, "echo_BOOL", [(tensor, b"\1\2")]).error()
    assert "x_BOOL" in message and "element 1" in message


@pytest.mark.parametrize("rows, status", [(100_000, 200), (100_001, 413)])
def test_the_number_of_rows_is_bounded(client, rows, status):
    tensor = binary_input("x_UINT8", "UINT8", numpy.zeros((rows, 2), numpy.uint8))
    answer = post(client, "echo_UINT8", [tensor], parameters={"binary_data_output": True})
    assert answer.status == status
