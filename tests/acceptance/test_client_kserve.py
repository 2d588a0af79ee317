"""KServe's own clients, REST and gRPC: what they send is understood, and what they make of the answer
is what ONNX Runtime says."""

import pytest

from clients import ClientError, ClientProcess
from protocol_models import MODELS, judge

# numpy data as bytes and as JSON (gRPC knows bytes only), and lists as they are given.
FORMS = [("rest", "binary"), ("rest", "json"), ("rest", "list"), ("grpc", "binary"), ("grpc", "list")]
TRANSPORTS = ["rest", "grpc"]


@pytest.fixture(scope="module")
def kserve(protocol_server):
    process = ClientProcess(
        "kserve_client.py", f"http://{protocol_server.address}", str(protocol_server.grpc_address)
    )
    yield process
    process.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_server_is_live_and_ready(kserve, transport):
    assert kserve.call(transport=transport, call="is_server_live") is True
    assert kserve.call(transport=transport, call="is_server_ready") is True


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_model_is_ready_if_it_is_there(kserve, transport):
    assert kserve.call(transport=transport, call="is_model_ready", model="boosted") is True
    assert kserve.call(transport=transport, call="is_model_ready", model="astrology") is False


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("transport, form", FORMS, ids=[f"{t} {f}" for t, f in FORMS])
@pytest.mark.parametrize("count", [1, 50])
def test_scores_equal_onnxruntime(protocol_server, kserve, model, transport, form, count):
    expert = judge(protocol_server.models, model)
    feed = expert.rows(count)
    answered = kserve.call(
        transport=transport,
        call="infer",
        model=model,
        form=form,
        inputs=expert.json_inputs(feed),
        id="row 7",
        # Parameters nobody knows here are passed over.
        parameters={"note": "mine", "priority": 3, "trace": True},
    )
    assert (answered["model_name"], answered["id"]) == (model, "row 7")
    expert.check(feed, expert.from_json(answered["outputs"]))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_rows_are_answered_with_no_rows(protocol_server, kserve, transport):
    expert = judge(protocol_server.models, "boosted")
    inputs = expert.json_inputs(expert.rows(0))
    answered = kserve.call(
        transport=transport, call="infer", model="boosted", form="binary", inputs=inputs, id="none"
    )
    shapes = {output["name"]: output["shape"] for output in answered["outputs"]}
    assert shapes == {"label": [0], "probabilities": [0, 3]}


# What is wrong -> the changed call, the HTTP status, the gRPC code.
WRONG = {
    "an unknown model": ({"model": "astrology"}, "404 Not Found", "NOT_FOUND", "astrology"),
    "an unknown input": ({"name": "stars"}, "400 Bad Request", "INVALID_ARGUMENT", "stars"),
    "another shape": (
        {"shape": [1, 2], "data": [1.0, 2.0]},
        "400 Bad Request",
        "INVALID_ARGUMENT",
        "measurements",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", ["binary", "list"])
def test_a_wrong_request_is_told_what_is_wrong(kserve, transport, form, wrong):
    changes, status, code, word = WRONG[wrong]
    tensor = {"name": "measurements", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
    model = changes.get("model", "boosted")
    tensor.update({key: value for key, value in changes.items() if key != "model"})
    with pytest.raises(ClientError) as raised:
        kserve.call(
            transport=transport, call="infer", model=model, form=form, inputs=[tensor], id="wrong"
        )
    assert raised.value.kind == {"rest": "HTTPStatusError", "grpc": "AioRpcError"}[transport]
    assert word in raised.value.message
    assert {"rest": status, "grpc": code}[transport] in raised.value.message
