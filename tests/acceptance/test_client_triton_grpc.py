"""NVIDIA's tritonclient over gRPC: one call, many at once, streams, and what it makes of refusals."""

import asyncio
import queue

import grpc
import numpy
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as async_grpcclient
from tritonclient.utils import InferenceServerException

from protocol_models import MODELS, judge
from server import ANSWER_SECONDS


@pytest.fixture
def triton(protocol_server):
    client = grpcclient.InferenceServerClient(protocol_server.grpc_address)
    yield client
    client.close()


def inputs_of(expert, feed):
    inputs = []
    for name, array in feed.items():
        tensor = grpcclient.InferInput(name, list(array.shape), expert.datatype(name))
        inputs.append(tensor.set_data_from_numpy(array))
    return inputs


def arrays_of(expert, result):
    return {name: result.as_numpy(name) for name in expert.outputs}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("named", [True, False], ids=["named outputs", "all outputs"])
def test_scores_equal_onnxruntime(protocol_server, triton, model, count, named):
    expert = judge(protocol_server.models, model)
    feed = expert.rows(count)
    outputs = [grpcclient.InferRequestedOutput(name) for name in expert.outputs] if named else None
    result = triton.infer(model, inputs_of(expert, feed), outputs=outputs, request_id="row 7")
    answered = result.get_response()
    assert (answered.model_name, answered.model_version, answered.id) == (model, "1", "row 7")
    expert.check(feed, arrays_of(expert, result))


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_requests_score_as_onnxruntime(protocol_server, triton, compression):
    expert = judge(protocol_server.models, "pipeline")
    feed = expert.rows(300)
    result = triton.infer("pipeline", inputs_of(expert, feed), compression_algorithm=compression)
    expert.check(feed, arrays_of(expert, result))


def test_a_request_larger_than_grpc_takes_by_default_is_taken(protocol_server, triton):
    expert = judge(protocol_server.models, "mixed")
    feed = expert.rows(100_000)
    sent = sum(array.nbytes for array in feed.values())
    assert sent > 2 * 2**20
    found = arrays_of(expert, triton.infer("mixed", inputs_of(expert, feed)))
    expert.check(feed, found)


def test_parameters_of_its_own_and_of_the_caller_are_passed_over(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feed = expert.rows(2)
    result = triton.infer(
        "boosted",
        inputs_of(expert, feed),
        model_version="1",
        priority=1,
        timeout=30_000_000,
        client_timeout=ANSWER_SECONDS,
        parameters={"note": "mine", "trace": True, "depth": 3, "share": 0.5},
        headers={"x-request-id": "7"},
    )
    expert.check(feed, arrays_of(expert, result))


def test_many_requests_at_once_are_each_answered_with_their_own(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feeds = [expert.rows(3, seed=seed) for seed in range(24)]
    answers = queue.Queue()
    for number, feed in enumerate(feeds):

        def answered(result, error, number=number):
            answers.put((number, result, error))

        triton.async_infer("boosted", inputs_of(expert, feed), answered, request_id=str(number))
    for _ in feeds:
        number, result, error = answers.get(timeout=ANSWER_SECONDS)
        assert error is None
        assert result.get_response().id == str(number)
        expert.check(feeds[number], arrays_of(expert, result))


def test_its_asyncio_client_scores_as_onnxruntime(protocol_server):
    expert = judge(protocol_server.models, "pipeline")
    feeds = [expert.rows(3, seed=seed) for seed in range(8)]

    async def score():
        async with async_grpcclient.InferenceServerClient(protocol_server.grpc_address) as client:
            assert await client.is_server_ready()
            return await asyncio.gather(
                *(client.infer("pipeline", inputs_of(expert, feed)) for feed in feeds)
            )

    for feed, result in zip(feeds, asyncio.run(score())):
        expert.check(feed, arrays_of(expert, result))


# Streams.


def stream(client, requests):
    """Sends requests, each the arguments of async_stream_infer; returns (result, error) in the order
    in which they came back."""
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for request in requests:
        client.async_stream_infer(**request)
    found = [answers.get(timeout=ANSWER_SECONDS) for _ in requests]
    client.stop_stream()
    assert answers.empty(), "more answers than requests"
    return found


def test_a_stream_answers_in_order_with_ids(protocol_server, triton):
    requests, expected = [], []
    for number in range(30):
        model = MODELS[number % len(MODELS)]
        expert = judge(protocol_server.models, model)
        # Of very different sizes: the small ones must not overtake the large ones.
        feed = expert.rows(1000 if number % 5 == 0 else 1, seed=number)
        requests.append(
            {"model_name": model, "inputs": inputs_of(expert, feed), "request_id": f"request {number}"}
        )
        expected.append((expert, feed))
    for number, (result, error) in enumerate(stream(triton, requests)):
        assert error is None
        assert result.get_response().id == f"request {number}"
        expert, feed = expected[number]
        expert.check(feed, arrays_of(expert, result))


def test_an_error_in_a_stream_is_of_its_request_and_the_stream_goes_on(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feed = expert.rows(1)
    right = {"model_name": "boosted", "inputs": inputs_of(expert, feed)}
    wrong_model = {**right, "model_name": "astrology"}
    wrong_shape = {**right, "inputs": [zeros(shape=(1, 3))]}
    requests = [right, wrong_model, right, wrong_shape, right]
    requests = [{**request, "request_id": str(number)} for number, request in enumerate(requests)]
    answers = stream(triton, requests)
    for number in (0, 2, 4):
        result, error = answers[number]
        assert error is None
        assert result.get_response().id == str(number)
        expert.check(feed, arrays_of(expert, result))
    assert "astrology" in answers[1][1].message()
    assert "measurements" in answers[3][1].message()


def test_an_error_in_a_stream_says_which_request_it_is_of(protocol_server):
    """The client leaves the id of a refused request out; it is in the message all the same."""
    messages, service = grpcclient.service_pb2, grpcclient.service_pb2_grpc
    requests = [messages.ModelInferRequest(model_name="astrology", id=f"wish {i}") for i in range(3)]
    with grpc.insecure_channel(protocol_server.grpc_address) as channel:
        stub = service.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter(requests), timeout=ANSWER_SECONDS))
    assert [answer.infer_response.id for answer in answers] == ["wish 0", "wish 1", "wish 2"]
    assert all("astrology" in answer.error_message for answer in answers)


def test_a_second_stream_works_after_the_first(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feed = expert.rows(1)
    request = {"model_name": "boosted", "inputs": inputs_of(expert, feed)}
    for _ in range(2):
        ((result, error),) = stream(triton, [request])
        assert error is None
        expert.check(feed, arrays_of(expert, result))


# What it asks besides.


def test_health_and_metadata(triton):
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("boosted") and triton.is_model_ready("boosted", "1")
    assert not triton.is_model_ready("astrology")
    about = triton.get_server_metadata(as_json=True)
    assert about["name"] == "bellwether"
    metadata = triton.get_model_metadata("boosted", as_json=True)
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "measurements", "datatype": "FP32", "shape": ["-1", "4"]}]
    index = triton.get_model_repository_index(as_json=True)["models"]
    assert {model["name"]: model["state"] for model in index} == {name: "READY" for name in MODELS}


def test_the_standard_health_service_answers(protocol_server):
    """`grpc.health.v1.Health`, as load balancers ask it: SERVING is 1, in field 1."""
    with grpc.insecure_channel(protocol_server.grpc_address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda name: bytes([10, len(name)]) + name.encode() if name else b"",
            response_deserializer=bytes,
        )
        assert check("", timeout=ANSWER_SECONDS) == b"\x08\x01"
        assert check("inference.GRPCInferenceService", timeout=ANSWER_SECONDS) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as raised:
            check("unheard.of", timeout=ANSWER_SECONDS)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_configuration_names_the_tensors_as_triton_does(triton):
    config = triton.get_model_config("pipeline", as_json=True)["config"]
    assert config["name"] == "pipeline"
    assert {i["name"]: i["data_type"] for i in config["input"]} == {
        "colour": "TYPE_STRING",
        "size": "TYPE_FP32",
    }


def test_statistics_count_what_was_inferred(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")

    def successes():
        (found,) = triton.get_inference_statistics("boosted", "1").model_stats
        assert (found.name, found.version) == ("boosted", "1")
        return found.inference_stats.success.count

    before = successes()
    for _ in range(3):
        triton.infer("boosted", inputs_of(expert, expert.rows(2)))
    assert successes() == before + 3


# Refusals.


def zeros(name="measurements", shape=(1, 4)):
    tensor = grpcclient.InferInput(name, list(shape), "FP32")
    return tensor.set_data_from_numpy(numpy.zeros(shape, numpy.float32))


def shared_memory():
    return grpcclient.InferInput("measurements", [1, 4], "FP32").set_shared_memory("region", 16)


REFUSED = {
    "an unknown model": (lambda c: c.infer("astrology", [zeros()]), "NOT_FOUND", "astrology"),
    "an unknown version": (lambda c: c.infer("boosted", [zeros()], model_version="7"), "NOT_FOUND", "7"),
    "an unknown input": (lambda c: c.infer("boosted", [zeros("stars")]), "INVALID_ARGUMENT", "stars"),
    "another shape": (
        lambda c: c.infer("boosted", [zeros(shape=(1, 3))]),
        "INVALID_ARGUMENT",
        "measurements",
    ),
    "no inputs": (lambda c: c.infer("boosted", []), "INVALID_ARGUMENT", "measurements"),
    "an unknown output": (
        lambda c: c.infer("boosted", [zeros()], outputs=[grpcclient.InferRequestedOutput("luck")]),
        "INVALID_ARGUMENT",
        "luck",
    ),
    "metadata of an unknown model": (lambda c: c.get_model_metadata("astrology"), "NOT_FOUND", "astrology"),
    "configuration of an unknown model": (
        lambda c: c.get_model_config("astrology"),
        "NOT_FOUND",
        "astrology",
    ),
    "statistics of an unknown model": (
        lambda c: c.get_inference_statistics("astrology"),
        "NOT_FOUND",
        "astrology",
    ),
    "shared memory": (lambda c: c.get_system_shared_memory_status(), "UNIMPLEMENTED", ""),
    "CUDA shared memory": (lambda c: c.get_cuda_shared_memory_status(), "UNIMPLEMENTED", ""),
    "traces": (lambda c: c.get_trace_settings(), "UNIMPLEMENTED", ""),
    "logging": (lambda c: c.get_log_settings(), "UNIMPLEMENTED", ""),
    "an input in shared memory": (
        lambda c: c.infer("boosted", [shared_memory()]),
        "INVALID_ARGUMENT or UNIMPLEMENTED",
        "shared",
    ),
}


@pytest.mark.parametrize("call, code, word", REFUSED.values(), ids=REFUSED)
def test_a_refusal_has_its_code_and_its_reason(triton, call, code, word):
    with pytest.raises(InferenceServerException) as raised:
        call(triton)
    assert raised.value.status().removeprefix("StatusCode.") in code.split(" or ")
    assert word in raised.value.message()
