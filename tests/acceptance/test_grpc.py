"""The Open Inference Protocol over gRPC: the calls of Triton's service by Triton's own client, gRPC's
health checks, and frames that no client would send."""

import contextlib
import errno
import queue
import re
import socket
import struct
import threading

import grpc
import numpy
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from models import copy_sample, reference, weighted_sum_model
from server import REPOSITORY, Server, refuse
from telco import VARIED
from test_binary_tensors import TYPES, array_of, echo_model, equal, from_bytes, to_bytes
from waiting import eventually

WAIT = 60
SERVICE = "/inference.GRPCInferenceService/"
MAX_BODY = 200_000
MAX_TENSOR_BODY = 1_000_000
MAX_ROWS = 1000

# What the protocol calls the typed field of a datatype; FP16 has none.
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def start(folder, models):
    config = folder / "bellwether.toml"
    config.write_text(
        f"max_body_bytes = {MAX_BODY}\nmax_tensor_body_bytes = {MAX_TENSOR_BODY}\nmax_rows = {MAX_ROWS}\n"
    )
    server = Server(
        folder / "data", models=models, cwd=folder, arguments=["--grpc-listen", "127.0.0.1:0"]
    )
    server.grpc_address = next(entry["grpc"] for entry in server.entries() if "grpc" in entry)
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpc")
    models = folder / "models"
    for datatype in TYPES:
        echo_model(models, f"echo_{datatype}", [datatype])
    echo_model(models, "pair", ["FP32", "BYTES"])
    weighted_sum_model(models)
    copy_sample("churn", models)
    copy_sample("upsell", models)
    broken = models / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"no model")
    with start(folder, models) as server:
        yield server


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(autouse=True)
def still_well(request):
    """Whatever a test has sent, the server goes on."""
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        assert server.process.poll() is None, server.log_text()
        assert "panicked" not in server.log_text()


@contextlib.contextmanager
def refused(code, *words):
    """The call fails with `code`, and its message has the words."""
    with pytest.raises((grpc.RpcError, InferenceServerException)) as caught:
        yield
    error = caught.value
    if isinstance(error, InferenceServerException):
        found, message = error.status(), error.message()
    else:
        found, message = f"StatusCode.{error.code().name}", error.details()
    assert (found, bool(message)) == (f"StatusCode.{code}", True), error
    for word in words:
        assert word in message, error


def triton_input(name, datatype, array):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def raw_request(model, inputs, raw=None, **fields):
    """`inputs` are (name, datatype, array); `raw` replaces their bytes."""
    request = service_pb2.ModelInferRequest(model_name=model, **fields)
    for name, datatype, array in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=list(array.shape))
    request.raw_input_contents.extend([to_bytes(array) for _, _, array in inputs] if raw is None else raw)
    return request


def typed_request(model, inputs, **fields):
    request = service_pb2.ModelInferRequest(model_name=model, **fields)
    for name, datatype, array in inputs:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=list(array.shape))
        values = array.reshape(-1).tolist()
        if datatype == "BYTES":
            values = [text.encode() for text in values]
        getattr(tensor.contents, FIELDS[datatype]).extend(values)
    return request


def raw_output(response, index=0):
    output = response.outputs[index]
    return from_bytes(output.datatype, list(output.shape), response.raw_output_contents[index])


TEXT = numpy.array([["a", "b"]], dtype=object)
ONE = numpy.array([[1.5, -2.0]], dtype=numpy.float32)


# The calls about the server.


def test_the_port_is_off_unless_it_is_asked_for(tmp_path):
    with Server(tmp_path / "data", models=tmp_path, cwd=tmp_path) as server:
        assert not any("grpc" in entry for entry in server.entries())


def test_live_ready_and_metadata(client, server):
    assert client.is_server_live() and client.is_server_ready()
    found = client.get_server_metadata()
    over_http = server.client().get("/v2").json()
    assert (found.name, found.version) == ("bellwether", over_http["version"])
    assert sorted(found.extensions) == sorted(over_http["extensions"])


def test_a_model_is_ready_or_not_and_an_unknown_one_is_not(client):
    assert client.is_model_ready("churn") and client.is_model_ready("churn", "1")
    assert not client.is_model_ready("broken")
    assert not client.is_model_ready("churn", "7")
    assert not client.is_model_ready("no-such-model")


def test_model_metadata_is_that_of_http(client, server):
    over_http = server.client()
    for path, arguments in [("upsell", ("upsell",)), ("churn/versions/1", ("churn", "1"))]:
        found = client.get_model_metadata(*arguments, as_json=True)
        expected = over_http.get(f"/v2/models/{path}").json()
        for tensor in expected["inputs"] + expected["outputs"]:
            tensor.pop("parameters", None)
            tensor["shape"] = [str(dim) for dim in tensor["shape"]]  # as JSON has the message's int64
        assert found == expected
    with refused("NOT_FOUND", "no-such-model"):
        client.get_model_metadata("no-such-model")
    with refused("NOT_FOUND", "7"):
        client.get_model_metadata("churn", "7")
    with refused("UNAVAILABLE", "broken"):
        client.get_model_metadata("broken")


def test_the_repository_index_is_that_of_http(client, server):
    found = client.get_model_repository_index(as_json=True)["models"]
    expected = server.client().post("/v2/repository/index", {}).json()
    for entry in found:
        entry.setdefault("reason", "")
    assert found == expected
    assert {entry["state"] for entry in found} == {"READY", "UNAVAILABLE"}


def test_model_config_is_that_of_http(client, server):
    over_http = server.client()
    for model in ["churn", "upsell", "pair", *(f"echo_{datatype}" for datatype in TYPES)]:
        expected = over_http.get(f"/v2/models/{model}/config").json()
        found = client.get_model_config(model).config
        assert (found.name, found.platform, found.backend, found.max_batch_size) == (
            expected["name"],
            expected["platform"],
            expected["backend"],
            expected["max_batch_size"],
        )
        for tensors, kind in [(found.input, "input"), (found.output, "output")]:
            assert [(t.name, model_config_pb2.DataType.Name(t.data_type), list(t.dims)) for t in tensors] == [
                (t["name"], t["data_type"], t["dims"]) for t in expected[kind]
            ]
    with refused("NOT_FOUND", "no-such-model"):
        client.get_model_config("no-such-model")


def test_statistics_are_those_of_http(client, server):
    client.infer("pair", [triton_input("x_FP32", "FP32", ONE), triton_input("x_BYTES", "BYTES", TEXT)])
    expected = server.client().get("/v2/models/pair/stats").json()["model_stats"]
    found = client.get_inference_statistics("pair").model_stats
    assert [(s.name, s.version, s.inference_count, s.last_inference) for s in found] == [
        (s["name"], s["version"], s["inference_count"], s["last_inference"]) for s in expected
    ]
    stages = expected[0]["inference_stats"]
    for stage in stages:
        duration = getattr(found[0].inference_stats, stage)
        assert {"count": duration.count, "ns": duration.ns} == stages[stage], stage
    names = {s.name for s in client.get_inference_statistics().model_stats}
    assert {"churn", "pair", "echo_FP32"} <= names and "broken" not in names
    with refused("NOT_FOUND", "no-such-model"):
        client.get_inference_statistics("no-such-model")


def test_models_are_unloaded_and_loaded_while_the_server_runs(tmp_path):
    models = tmp_path / "models"
    echo_model(models, "echo_FP32", ["FP32"])
    with start(tmp_path, models) as server, triton.InferenceServerClient(server.grpc_address) as client:
        inputs = [triton_input("x_FP32", "FP32", ONE)]
        client.unload_model("echo_FP32")
        assert not client.is_model_ready("echo_FP32")
        with refused("UNAVAILABLE", "unloaded"):
            client.infer("echo_FP32", inputs)
        client.load_model("echo_FP32")
        assert equal(client.infer("echo_FP32", inputs).as_numpy("y_FP32"), ONE)
        with refused("NOT_FOUND", "nope"):
            client.load_model("nope")
        client.unload_model("nope")
        with refused("INVALID_ARGUMENT", "parameters.config"):
            client.load_model("echo_FP32", config="{}")
        with refused("INVALID_ARGUMENT", "parameters.file:1/model.onnx"):
            client.load_model("echo_FP32", files={"file:1/model.onnx": b"bytes"})
        (models / "echo_FP32" / "1" / "model.onnx").write_bytes(b"no model")
        with refused("FAILED_PRECONDITION", "echo_FP32"):
            client.load_model("echo_FP32")
        assert equal(client.infer("echo_FP32", inputs).as_numpy("y_FP32"), ONE), "it goes on as it was"


@pytest.mark.parametrize(
    "call",
    [
        "get_system_shared_memory_status",
        "unregister_system_shared_memory",
        "get_cuda_shared_memory_status",
        "get_trace_settings",
        "get_log_settings",
    ],
)
def test_what_is_not_here_says_so(client, call):
    with refused("UNIMPLEMENTED"):
        getattr(client, call)()


# Tensors in, tensors out.


@pytest.mark.parametrize("datatype", TYPES)
def test_every_type_is_echoed_raw_to_the_bit(client, datatype):
    sent = array_of(datatype)
    inputs = [triton_input(f"x_{datatype}", datatype, sent)]
    result = client.infer(f"echo_{datatype}", inputs, request_id="a-1")
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == (f"echo_{datatype}", "1", "a-1")
    assert equal(raw_output(response), sent)
    assert not response.outputs[0].HasField("contents"), "who sends raw is answered raw"
    assert result.as_numpy(f"y_{datatype}").shape == sent.shape


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_elements_are_answered_typed_and_raw(stub, datatype):
    sent = array_of(datatype)
    request = typed_request(f"echo_{datatype}", [(f"x_{datatype}", datatype, sent)])
    response = stub.ModelInfer(request)
    assert equal(raw_output(response), sent)
    found = list(getattr(response.outputs[0].contents, FIELDS[datatype]))
    expected = list(getattr(request.inputs[0].contents, FIELDS[datatype]))
    assert repr(found) == repr(expected)  # where NaN is NaN


def test_fp16_has_no_typed_form(stub):
    request = raw_request("echo_FP16", [("x_FP16", "FP16", array_of("FP16"))], raw=[])
    with refused("INVALID_ARGUMENT", "x_FP16", "raw_input_contents"):
        stub.ModelInfer(request)


@pytest.mark.parametrize("datatype", TYPES)
def test_no_rows_in_no_rows_out(stub, datatype):
    empty = numpy.empty((0, 2), dtype=TYPES[datatype][1])
    inputs = [(f"x_{datatype}", datatype, empty)]
    response = stub.ModelInfer(raw_request(f"echo_{datatype}", inputs))
    assert list(response.outputs[0].shape) == [0, 2] and response.raw_output_contents[0] == b""
    if datatype in FIELDS:
        response = stub.ModelInfer(typed_request(f"echo_{datatype}", inputs))
        assert list(response.outputs[0].shape) == [0, 2]


def test_raw_and_typed_inputs_in_one_request(stub):
    numbers, texts = ONE, array_of("BYTES", (2, 2))[:1]
    request = typed_request("pair", [("x_BYTES", "BYTES", texts)])
    request.inputs.add(name="x_FP32", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(to_bytes(numbers))
    response = stub.ModelInfer(request)
    assert equal(raw_output(response, 0), numbers) and equal(raw_output(response, 1), texts)


def test_only_the_outputs_that_are_asked_for_in_that_order(client):
    inputs = [
        triton_input("x_BYTES", "BYTES", array_of("BYTES")),
        triton_input("x_FP32", "FP32", array_of("FP32")),
    ]
    for names in (["y_BYTES"], ["y_BYTES", "y_FP32"], ["y_FP32", "y_BYTES"]):
        wanted = [triton.InferRequestedOutput(name) for name in names]
        result = client.infer("pair", inputs, outputs=wanted)
        assert [output.name for output in result.get_response().outputs] == names
        for name in names:
            assert result.as_numpy(name).shape == (2, 2)


@pytest.mark.parametrize("model", ["churn", "upsell"])
def test_sample_models_agree_with_onnx_runtime(client, model):
    expected = reference(model).run(VARIED)
    inputs = []
    for tensor in reference(model).oip_inputs(VARIED):
        values = [numpy.nan if value is None else value for value in tensor["data"]]
        dtype = TYPES[tensor["datatype"]][1]
        inputs.append(triton_input(tensor["name"], tensor["datatype"], numpy.array([values], dtype=dtype).T))
    result = client.infer(model, inputs)
    for name, values in expected.items():
        found = result.as_numpy(name)
        if values.dtype == object:
            assert [text.decode() for text in found.reshape(-1)] == list(values.reshape(-1))
        else:
            numpy.testing.assert_allclose(found, values.reshape(found.shape), rtol=1e-5, atol=1e-6)


def test_parameters_that_are_not_known_change_nothing(client, stub):
    inputs = [triton_input("x_FP32", "FP32", ONE)]
    parameters = {"who": "me", "n": 3, "flag": True}
    result = client.infer("echo_FP32", inputs, parameters=parameters, priority=3, sequence_id=9)
    assert equal(result.as_numpy("y_FP32"), ONE)
    # KServe's client says of every raw input how long it is.
    request = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    request.inputs[0].parameters["binary_data_size"].int64_param = 8
    assert equal(raw_output(stub.ModelInfer(request)), ONE)


def test_a_thousand_calls_over_one_connection_at_once(client):
    answers = queue.Queue()
    for number in range(1000):
        array = numpy.array([[number, -number]], dtype=numpy.float32)
        client.async_infer(
            "echo_FP32",
            [triton_input("x_FP32", "FP32", array)],
            lambda result, error: answers.put((result, error)),
            request_id=str(number),
        )
    seen = set()
    for _ in range(1000):
        result, error = answers.get(timeout=WAIT)
        assert error is None, error
        number = int(result.get_response().id)
        assert result.as_numpy("y_FP32")[0, 0] == number
        seen.add(number)
    assert seen == set(range(1000))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client, algorithm):
    sent = numpy.zeros((1000, 2), dtype=numpy.float32)
    result = client.infer(
        "echo_FP32", [triton_input("x_FP32", "FP32", sent)], compression_algorithm=algorithm
    )
    assert equal(result.as_numpy("y_FP32"), sent)


# Refusals.


def test_unknown_models_versions_inputs_and_outputs(stub):
    inputs = [("x_FP32", "FP32", ONE)]
    with refused("NOT_FOUND", "no-such-model"):
        stub.ModelInfer(raw_request("no-such-model", inputs))
    with refused("NOT_FOUND", '"7"'):
        stub.ModelInfer(raw_request("echo_FP32", inputs, model_version="7"))
    with refused("UNAVAILABLE", "broken"):
        stub.ModelInfer(raw_request("broken", inputs))
    with refused("INVALID_ARGUMENT", '"nope"', "x_FP32"):
        stub.ModelInfer(raw_request("echo_FP32", [("nope", "FP32", ONE)]))
    with refused("INVALID_ARGUMENT", "x_FP32", "twice"):
        stub.ModelInfer(raw_request("echo_FP32", inputs * 2))
    with refused("INVALID_ARGUMENT", "x_BYTES", "missing"):
        stub.ModelInfer(raw_request("pair", inputs))
    request = raw_request("echo_FP32", inputs)
    request.outputs.add(name="nope")
    with refused("INVALID_ARGUMENT", "outputs[0]", '"nope"', "y_FP32"):
        stub.ModelInfer(request)


@pytest.mark.parametrize("name", ["classification", "shared_memory_region"])
def test_extensions_that_are_not_here_are_refused_by_name(stub, name):
    request = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    request.outputs.add(name="y_FP32").parameters[name].int64_param = 1
    with refused("UNIMPLEMENTED", f"outputs[0].parameters.{name}"):
        stub.ModelInfer(request)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([b""], ["expected 8 bytes", "found 0"]),
        ([b"1234567"], ["expected 8 bytes", "found 7"]),
        ([b"123456789"], ["expected 8 bytes", "found 9"]),
        ([b"12345678", b"12345678"], ["raw_input_contents", "expected 1", "found 2"]),
        ([], ["fp32_contents", "0 elements"]),
    ],
)
def test_raw_contents_that_do_not_fit(stub, raw, words):
    with refused("INVALID_ARGUMENT", *words):
        stub.ModelInfer(raw_request("echo_FP32", [("x_FP32", "FP32", ONE)], raw=raw))


def test_a_tensor_is_raw_or_typed_and_not_both(stub):
    request = typed_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    request.raw_input_contents.append(to_bytes(ONE))
    with refused("INVALID_ARGUMENT", "inputs[0].contents", "both"):
        stub.ModelInfer(request)


def test_typed_contents_that_do_not_fit(stub):
    request = typed_request("echo_UINT8", [("x_UINT8", "UINT8", array_of("UINT8"))])
    request.inputs[0].contents.uint_contents[2] = 256
    with refused("INVALID_ARGUMENT", "x_UINT8", "uint_contents", "element 2", "256"):
        stub.ModelInfer(request)
    request.inputs[0].contents.uint_contents.pop()
    with refused("INVALID_ARGUMENT", "uint_contents", "3 elements"):
        stub.ModelInfer(request)
    request.inputs[0].contents.uint_contents.append(1)
    request.inputs[0].contents.fp32_contents.append(1.0)
    with refused("INVALID_ARGUMENT", "fp32_contents"):
        stub.ModelInfer(request)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([-1, 2], ["shape", "-1"]),
        ([2], ["shape", "[2]"]),
        ([], ["shape"]),
        ([1, 3], ["shape", "[1, 3]"]),
        ([2**62, 2**62], ["shape"]),
        ([2**63 - 1, 2], ["shape"]),
        ([MAX_ROWS + 1, 2], ["shape", str(MAX_ROWS)]),
        ([1] * 100_000, ["shape"]),
    ],
)
def test_shapes_that_lie(stub, shape, words):
    request = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    request.inputs[0].shape[:] = shape
    with refused("INVALID_ARGUMENT", "x_FP32", *words):
        stub.ModelInfer(request)


def test_a_message_over_the_limit(stub, client):
    array = numpy.zeros((MAX_ROWS, 2), dtype=numpy.float32)
    with refused("RESOURCE_EXHAUSTED", "max_tensor_body_bytes", str(MAX_TENSOR_BODY)):
        stub.ModelInfer(raw_request("echo_FP32", [("x_FP32", "FP32", array)], raw=[bytes(MAX_TENSOR_BODY)]))
    # Everything but raw tensors takes many times its size in memory, and has the smaller limit.
    request = raw_request("echo_FP32", [("x_FP32", "FP32", array)])
    request.inputs[0].contents.fp64_contents.extend([0.5] * (MAX_BODY // 8))
    with refused("RESOURCE_EXHAUSTED", "max_body_bytes", str(MAX_BODY)):
        stub.ModelInfer(request)
    assert equal(raw_output(stub.ModelInfer(raw_request("echo_FP32", [("x_FP32", "FP32", array)]))), array)


def test_a_small_message_cannot_become_a_large_one(channel):
    empty_inputs = b"\x2a\x00" * 50_000
    with refused("RESOURCE_EXHAUSTED", "50000"):
        call_bytes(channel, "ModelInfer", empty_inputs)


def test_a_compressed_message_over_the_limit(server):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc_address, options, grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with refused("RESOURCE_EXHAUSTED"):
            stub.ModelInfer(raw_request("echo_FP32", [("x_FP32", "FP32", ONE)], raw=[bytes(50_000_000)]))


def test_a_deadline_that_has_passed(client, stub):
    inputs = [triton_input("x_FP32", "FP32", ONE)]
    with refused("DEADLINE_EXCEEDED"):
        client.infer("echo_FP32", inputs, client_timeout=1e-6)
    # As a parameter, in microseconds: the server's own answer.
    with refused("DEADLINE_EXCEEDED", "deadline"):
        slow = numpy.zeros((MAX_ROWS, 2), dtype=numpy.float32)
        client.infer("echo_FP32", [triton_input("x_FP32", "FP32", slow)], timeout=1)
    client.infer("echo_FP32", inputs, timeout=60_000_000)
    request = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    request.parameters["timeout"].int64_param = -1
    with refused("INVALID_ARGUMENT", "parameters.timeout"):
        stub.ModelInfer(request)


def test_metadata_says_the_priority(client):
    inputs = [triton_input("x_FP32", "FP32", ONE)]
    client.infer("echo_FP32", inputs, headers={"bellwether-priority": "batch"})
    with refused("INVALID_ARGUMENT", "bellwether-priority", "urgent"):
        client.infer("echo_FP32", inputs, headers={"bellwether-priority": "urgent"})


# Frames that no client sends.


def call_bytes(channel, method, message, **options):
    call = channel.unary_unary(SERVICE + method, lambda request: request, lambda response: response)
    return call(message, timeout=WAIT, **options)


def test_messages_that_are_none(channel):
    message = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)]).SerializeToString()
    assert call_bytes(channel, "ModelInfer", message)
    for wrong in [message[:-1], message[:20], b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"]:
        with refused("INVALID_ARGUMENT", "message"):
            call_bytes(channel, "ModelInfer", wrong)
        with refused("INVALID_ARGUMENT", "message"):
            call_bytes(channel, "ModelMetadata", b"\x0a\x05abc")


def test_paths_that_are_no_calls(channel):
    for path in [SERVICE + "NoSuchCall", SERVICE, "/", "/other.Service/ModelInfer", SERVICE + "x" * 5000]:
        call = channel.unary_unary(path, lambda request: request, lambda response: response)
        with refused("UNIMPLEMENTED", "no call"):
            call(b"", timeout=WAIT)


def test_an_error_with_a_long_name_in_it_still_arrives(stub):
    name = "\N{PILE OF POO}" * 20_000
    with refused("NOT_FOUND"):
        stub.ModelInfer(service_pb2.ModelInferRequest(model_name=name))
    with refused("INVALID_ARGUMENT", "echo_FP32"):
        stub.ModelInfer(raw_request("echo_FP32", [(name, "FP32", ONE)]))


def test_two_messages_where_one_is_expected_are_one_answer_or_a_refusal(channel):
    message = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)]).SerializeToString()
    call = channel.stream_stream(SERVICE + "ModelInfer", lambda r: r, lambda r: r)
    with contextlib.suppress(grpc.RpcError):
        assert len(list(call(iter([message, message]), timeout=WAIT))) == 1
    with refused("INTERNAL"):
        list(call(iter([]), timeout=WAIT))


# Streams.


class Stream:
    """A stream of Triton's client; answers in the order they come."""

    def __init__(self, client):
        self.client = client
        self.answers = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, request_id, array, model="echo_FP32"):
        self.client.async_stream_infer(
            model, [triton_input("x_FP32", "FP32", array)], request_id=request_id
        )

    def receive(self):
        return self.answers.get(timeout=WAIT)


def numbered(number):
    return numpy.array([[number, 0.5]], dtype=numpy.float32)


def test_a_stream_answers_in_order_and_goes_on_after_an_error(client):
    stream = Stream(client)
    for number in range(100):
        wrong = number % 10 == 5
        stream.send(str(number), numbered(number), "no-such-model" if wrong else "echo_FP32")
    for number in range(100):
        result, error = stream.receive()
        if number % 10 == 5:
            assert result is None and "no-such-model" in error.message()
            continue
        assert error is None, error
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param is True
        assert equal(result.as_numpy("y_FP32"), numbered(number))
    client.stop_stream()


def test_a_refused_request_of_a_stream_is_named_by_its_id(stub):
    wrong = raw_request("echo_FP32", [("nope", "FP32", ONE)], id="second")
    right = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)], id="third")
    answers = list(stub.ModelStreamInfer(iter([right, wrong, right]), timeout=WAIT))
    assert [answer.infer_response.id for answer in answers] == ["third", "second", "third"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert '"nope"' in answers[1].error_message and not answers[1].infer_response.outputs


def test_garbage_in_a_stream_is_an_error_and_the_stream_goes_on(channel):
    call = channel.stream_stream(SERVICE + "ModelStreamInfer", lambda r: r, lambda r: r)
    right = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)]).SerializeToString()
    answers = list(call(iter([b"\xff" * 10, right, right[:-3], right]), timeout=WAIT))
    parsed = [service_pb2.ModelStreamInferResponse.FromString(answer) for answer in answers]
    assert [bool(answer.error_message) for answer in parsed] == [True, False, True, False]


def test_a_message_over_the_limit_ends_the_stream(stub):
    large = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)], raw=[bytes(MAX_TENSOR_BODY)])
    right = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
    answers = stub.ModelStreamInfer(iter([right, large, right]), timeout=WAIT)
    assert next(answers).error_message == ""
    with refused("RESOURCE_EXHAUSTED", "max_tensor_body_bytes"):
        next(answers)


def test_who_does_not_read_is_not_read_from(stub):
    """A stream runs ahead of its reader by the windows of the connection and no further."""
    taken = 0
    array = numpy.zeros((MAX_ROWS, 2), dtype=numpy.float32)
    request = raw_request("echo_FP32", [("x_FP32", "FP32", array)])
    total = 20_000  # 160 MB of answers
    stuck = threading.Event()

    def requests():
        nonlocal taken
        for taken in range(total):
            if stuck.is_set():
                return
            yield request

    answers = stub.ModelStreamInfer(requests(), timeout=WAIT)
    next(answers)
    previous = -1
    while taken != previous:  # until no more are taken from us for a while
        previous = taken
        stuck.wait(1)
    assert taken < total - 1, "the server took every request, and nobody read an answer"
    stuck.set()
    answers.cancel()


# Health, and the end.


def test_the_health_of_the_server_and_of_the_service(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with refused("NOT_FOUND", "nope"):
        health.Check(health_pb2.HealthCheckRequest(service="nope"))
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nope"), timeout=WAIT)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_calls_that_need_no_key_take_small_messages_only(channel):
    for path in (SERVICE + "ServerLive", SERVICE + "ServerReady", "/grpc.health.v1.Health/Check"):
        with refused("RESOURCE_EXHAUSTED", "16384 bytes", "not to be set"):
            channel.unary_unary(path)(b"x" * 20_000, timeout=WAIT)
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"x" * 20_000, timeout=WAIT)
    with refused("RESOURCE_EXHAUSTED", "16384 bytes"):
        next(watch)


def test_a_watch_whose_message_does_not_come_ends(tmp_path):
    config = tmp_path / "bellwether.toml"
    config.write_text('request_timeout = "500ms"\n')
    arguments = ["--grpc-listen", "127.0.0.1:0"]
    with Server(tmp_path / "data", models=tmp_path, cwd=tmp_path, arguments=arguments) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            never = threading.Event()
            messages = (never.wait() for _ in range(1))
            watch = channel.stream_stream("/grpc.health.v1.Health/Watch")(messages, timeout=WAIT)
            with refused("DEADLINE_EXCEEDED", "the message did not come in time"):
                next(watch)
            never.set()


def test_a_server_without_its_models_is_not_serving(tmp_path):
    with Server(
        tmp_path / "data",
        models=tmp_path,
        cwd=tmp_path,
        arguments=["--grpc-listen", "127.0.0.1:0", "--require-model", "churn"],
        wait_until_ready=False,
    ) as server:
        address = next(entry["grpc"] for entry in server.entries() if "grpc" in entry)
        with grpc.insecure_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
            assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


def test_at_the_end_watchers_are_told_and_requests_of_streams_are_answered(tmp_path):
    models = tmp_path / "models"
    echo_model(models, "echo_FP32", ["FP32"])
    server = start(tmp_path, models)
    with server, grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        waiting = queue.Queue()
        sent = []

        def requests():
            while (request := waiting.get()) is not None:
                yield request
                # Whoever asks for the next one has sent it.
                sent.append(request)

        answers = stub.ModelStreamInfer(requests(), timeout=WAIT)
        request = raw_request("echo_FP32", [("x_FP32", "FP32", ONE)])
        waiting.put(request)
        assert next(answers).error_message == ""
        for _ in range(50):
            waiting.put(request)
        eventually("all are sent", lambda: len(sent) == 51)
        server.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for _ in range(50):
            assert next(answers).error_message == ""
        # An open stream does not hold the end up: its client is sent elsewhere.
        with refused("UNAVAILABLE", "stopping"):
            next(answers)
        waiting.put(None)
        assert server.wait() == 0
        assert "closed before" not in server.log_text()


def test_an_address_that_others_reach_is_refused_without_keys(tmp_path):
    said = refuse("serve", "--grpc-listen", "0.0.0.0:0", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert "grpc_listen" in said and "--allow-remote-without-keys" in said
    said = refuse("serve", "--grpc-listen", "nonsense", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert "grpc_listen" in said and "nonsense" in said


def test_other_protocols_on_the_port_do_not_hurt(server):
    host, port = server.grpc_address.rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = struct.pack(">HBBBI", 0, 0, 4, 0, 0)
    for sent in [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 50, preface + b"\xff" * 100, preface + settings]:
        with socket.create_connection((host, int(port)), timeout=WAIT) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError as error:
                # The server may have closed it at any of these steps; it must not keep it open.
                assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN), error


def test_calls_are_counted_by_name_and_code(stub, server):
    def counted():
        samples = {}
        for line in server.client().get("/metrics").body.decode().splitlines():
            if line.startswith("bellwether_grpc_requests_total"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    stub.ModelInfer(raw_request("echo_FP32", [("x_FP32", "FP32", ONE)]))
    with refused("NOT_FOUND"):
        stub.ModelInfer(raw_request("no-such-model", []))
    names = "\n".join(counted())
    assert 'call="/inference.GRPCInferenceService/ModelInfer",code="Ok"' in names
    assert 'call="/inference.GRPCInferenceService/ModelInfer",code="NotFound"' in names
    assert "no-such-model" not in names


# The protocol, field by field.


def test_field_numbers_are_those_of_the_published_protocol(server):
    """Every field that our messages have is named and numbered as in Triton's descriptors."""
    published = dict(service_pb2.DESCRIPTOR.message_types_by_name)
    published.update(model_config_pb2.DESCRIPTOR.message_types_by_name)
    ours = {
        "TensorMetadata": published["ModelMetadataResponse"].nested_types_by_name["TensorMetadata"],
        "InputTensor": published["ModelInferRequest"].nested_types_by_name["InferInputTensor"],
        "RequestedOutput": published["ModelInferRequest"].nested_types_by_name["InferRequestedOutputTensor"],
        "OutputTensor": published["ModelInferResponse"].nested_types_by_name["InferOutputTensor"],
        "Contents": published["InferTensorContents"],
        "ReadyResponse": published["ModelReadyResponse"],
        "ModelRequest": published["ModelStatisticsRequest"],
        "RepositoryModelRequest": published["RepositoryModelUnloadRequest"],
        "ModelIndex": published["RepositoryIndexResponse"].nested_types_by_name["ModelIndex"],
        "VersionPolicy": published["ModelVersionPolicy"],
        "InputConfig": published["ModelInput"],
        "OutputConfig": published["ModelOutput"],
        "Reshape": published["ModelTensorReshape"],
        "HealthRequest": health_pb2.DESCRIPTOR.message_types_by_name["HealthCheckRequest"],
        "HealthResponse": health_pb2.DESCRIPTOR.message_types_by_name["HealthCheckResponse"],
    }
    folder = REPOSITORY / "src" / "serve" / "grpc"
    source = (folder / "messages.rs").read_text() + (folder / "config.rs").read_text()
    checked = 0
    for name, body in re.findall(r"pub struct (\w+) \{\n(.*?)\n\}", source, re.DOTALL):
        if name == "Parameter":
            continue  # a oneof: its fields are in an enum
        descriptor = ours.get(name) or published[name]
        for number, field in re.findall(r'tag = "(\d+)"\)\]\s+pub (\w+):', body):
            assert descriptor.fields_by_number[int(number)].name == field, (name, number, field)
            checked += 1
    assert checked > 80
