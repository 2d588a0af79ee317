"""NVIDIA's tritonclient over HTTP, as its users call it: its defaults, its other forms, and what it
makes of refusals."""

import asyncio

import numpy
import pytest
import tritonclient.http as httpclient
import tritonclient.http.aio as async_httpclient
from tritonclient.utils import InferenceServerException

from protocol_models import MODELS, judge


@pytest.fixture
def triton(protocol_server):
    client = httpclient.InferenceServerClient(protocol_server.address, concurrency=4)
    yield client
    client.close()


def inputs_of(expert, feed, binary=True):
    inputs = []
    for name, array in feed.items():
        tensor = httpclient.InferInput(name, list(array.shape), expert.datatype(name))
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return inputs


def arrays_of(expert, result):
    return {name: result.as_numpy(name) for name in expert.outputs}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [1, 50])
def test_its_defaults_score_as_onnxruntime(protocol_server, triton, model, count):
    expert = judge(protocol_server.models, model)
    feed = expert.rows(count)
    result = triton.infer(model, inputs_of(expert, feed), request_id="row 7")
    answered = result.get_response()
    assert (answered["model_name"], answered["model_version"], answered["id"]) == (model, "1", "row 7")
    expert.check(feed, arrays_of(expert, result))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_bytes_and_json_mix(protocol_server, triton, model, binary_in, binary_out):
    expert = judge(protocol_server.models, model)
    feed = expert.rows(5)
    outputs = [httpclient.InferRequestedOutput(name, binary_data=binary_out) for name in expert.outputs]
    result = triton.infer(model, inputs_of(expert, feed, binary_in), outputs=outputs)
    expert.check(feed, arrays_of(expert, result))


@pytest.mark.parametrize("sent", ["gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_score_as_onnxruntime(protocol_server, triton, sent, wanted, binary):
    expert = judge(protocol_server.models, "pipeline")
    feed = expert.rows(200)
    result = triton.infer(
        "pipeline",
        inputs_of(expert, feed, binary),
        request_compression_algorithm=sent,
        response_compression_algorithm=wanted,
    )
    expert.check(feed, arrays_of(expert, result))


def test_parameters_of_its_own_and_of_the_caller_are_passed_over(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feed = expert.rows(2)
    result = triton.infer(
        "boosted",
        inputs_of(expert, feed),
        model_version="1",
        priority=1,
        timeout=30_000_000,
        parameters={"note": "mine", "trace": True, "depth": 3, "share": 0.5},
        headers={"X-Request-Id": "7"},
    )
    expert.check(feed, arrays_of(expert, result))


def test_many_requests_at_once_are_each_answered_with_their_own(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")
    feeds = [expert.rows(3, seed=seed) for seed in range(24)]
    waiting = [triton.async_infer("boosted", inputs_of(expert, feed)) for feed in feeds]
    for feed, answer in zip(feeds, waiting):
        expert.check(feed, arrays_of(expert, answer.get_result()))


def test_its_asyncio_client_scores_as_onnxruntime(protocol_server):
    expert = judge(protocol_server.models, "pipeline")
    feeds = [expert.rows(3, seed=seed) for seed in range(8)]

    async def score():
        async with async_httpclient.InferenceServerClient(protocol_server.address) as client:
            assert await client.is_server_ready()
            assert any(m["name"] == "pipeline" for m in await client.get_model_repository_index())
            calls = [client.infer("pipeline", inputs_of(expert, f, binary=f is feeds[0])) for f in feeds]
            return await asyncio.gather(*calls)

    for feed, result in zip(feeds, asyncio.run(score())):
        expert.check(feed, arrays_of(expert, result))


# What it asks besides.


def test_health_and_metadata(protocol_server, triton):
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("boosted") and triton.is_model_ready("boosted", "1")
    assert not triton.is_model_ready("astrology")
    about = triton.get_server_metadata()
    assert about["name"] == "bellwether"
    metadata = triton.get_model_metadata("boosted")
    assert metadata["inputs"] == [{"name": "measurements", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ]
    index = {model["name"]: model["state"] for model in triton.get_model_repository_index()}
    assert index == {name: "READY" for name in MODELS}


def test_the_configuration_names_the_tensors_as_triton_does(triton):
    config = triton.get_model_config("pipeline")
    assert config["name"] == "pipeline"
    assert {i["name"]: i["data_type"] for i in config["input"]} == {
        "colour": "TYPE_STRING",
        "size": "TYPE_FP32",
    }
    assert {o["name"]: o["data_type"] for o in config["output"]} == {
        "verdict": "TYPE_STRING",
        "scores": "TYPE_FP32",
    }
    assert isinstance(config["max_batch_size"], int)
    # With a batch size the dimensions are those of one row; without, those of the tensor.
    row_only = config["max_batch_size"] > 0
    assert [i["dims"] for i in config["input"]] == ([[1], [1]] if row_only else [[-1, 1], [-1, 1]])


def test_statistics_count_what_was_inferred(protocol_server, triton):
    expert = judge(protocol_server.models, "boosted")

    def stats():
        (found,) = triton.get_inference_statistics("boosted", "1")["model_stats"]
        assert (found["name"], found["version"]) == ("boosted", "1")
        return found

    before = stats()
    for _ in range(3):
        triton.infer("boosted", inputs_of(expert, expert.rows(2)))
    after = stats()
    done = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
    assert done == 3
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    everything = triton.get_inference_statistics()["model_stats"]
    assert {model["name"] for model in everything} == set(MODELS)


# Refusals.


def zeros(name="measurements", shape=(1, 4)):
    tensor = httpclient.InferInput(name, list(shape), "FP32")
    tensor.set_data_from_numpy(numpy.zeros(shape, numpy.float32))
    return tensor


def shared_memory():
    tensor = httpclient.InferInput("measurements", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    return tensor


REFUSED = {
    "an unknown model": (lambda c: c.infer("astrology", [zeros()]), "404", "astrology"),
    "an unknown version": (lambda c: c.infer("boosted", [zeros()], model_version="7"), "404", "7"),
    "an unknown input": (lambda c: c.infer("boosted", [zeros("stars")]), "400", "stars"),
    "another shape": (lambda c: c.infer("boosted", [zeros(shape=(1, 3))]), "400", "measurements"),
    "no inputs": (lambda c: c.infer("boosted", []), "400", "measurements"),
    "an unknown output": (
        lambda c: c.infer("boosted", [zeros()], outputs=[httpclient.InferRequestedOutput("luck")]),
        "400",
        "luck",
    ),
    "metadata of an unknown model": (lambda c: c.get_model_metadata("astrology"), "404", "astrology"),
    "configuration of an unknown model": (lambda c: c.get_model_config("astrology"), "404", "astrology"),
    "statistics of an unknown model": (
        lambda c: c.get_inference_statistics("astrology"),
        "404",
        "astrology",
    ),
}

# What this server does not have: refused as unsupported, or as a route that does not exist.
MISSING = {
    "shared memory": lambda c: c.get_system_shared_memory_status(),
    "CUDA shared memory": lambda c: c.get_cuda_shared_memory_status(),
    "traces": lambda c: c.get_trace_settings(),
    "logging": lambda c: c.get_log_settings(),
    "an input in shared memory": lambda c: c.infer("boosted", [shared_memory()]),
    "classification": lambda c: c.infer(
        "boosted", [zeros()], outputs=[httpclient.InferRequestedOutput("probabilities", class_count=2)]
    ),
}


@pytest.mark.parametrize("call, status, word", REFUSED.values(), ids=REFUSED)
def test_a_refusal_has_its_status_and_its_reason(triton, call, status, word):
    with pytest.raises(InferenceServerException) as raised:
        call(triton)
    assert raised.value.status() == status
    assert word in raised.value.message()


@pytest.mark.parametrize("call", MISSING.values(), ids=MISSING)
def test_what_is_not_supported_says_so(triton, call):
    with pytest.raises(InferenceServerException) as raised:
        call(triton)
    assert raised.value.status() in ("400", "404", "501")
    # The client says this when an answer was not {"error": "..."}.
    assert "an exception occurred in the client" not in raised.value.message()
    assert "empty response" not in raised.value.message()
