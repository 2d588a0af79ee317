"""The model repository changes while the server serves: models are loaded, reloaded and unloaded, no
request notices but by its answer, and what is told of models is what their clients read."""

import json
import shutil
import threading

import numpy
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from models import colour_model, copy_sample, reference, save, tensor_info, weighted_sum_model
from server import Server
from telco import VARIED
from waiting import eventually

ROWS = [[1.0, 2.0, 3.0], [-1.0, 0.0, 0.5]]
TOTALS = [321.5, 49.5]


def biased_model(models, bias, name="weighted_sum", version="1"):
    """As `weighted_sum`, with another constant added: a change that the answer shows."""
    weights = numpy.array([[1.0], [10.0], [100.0]], dtype=numpy.float32)
    shutil.rmtree(models / name / version, ignore_errors=True)
    return save(
        [helper.make_node("Gemm", ["measurements", "weights", "bias"], ["total"])],
        [tensor_info("measurements", TensorProto.FLOAT, ["N", 3])],
        [tensor_info("total", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(numpy.array([bias], dtype=numpy.float32), "bias"),
        ],
        models,
        name,
        version,
    )


def transposed_model(models, name="transposed"):
    """x [N,3] -> y [3,N]: the rows are not the first dimension of every tensor."""
    return save(
        [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])],
        [tensor_info("x", TensorProto.FLOAT, ["N", 3])],
        [tensor_info("y", TensorProto.FLOAT, [3, "N"])],
        [],
        models,
        name,
    )


def flat_model(models, name="flat"):
    """x [N] -> y [N]"""
    return save(
        [helper.make_node("Neg", ["x"], ["y"])],
        [tensor_info("x", TensorProto.DOUBLE, ["N"])],
        [tensor_info("y", TensorProto.DOUBLE, ["N"])],
        [],
        models,
        name,
    )


@pytest.fixture
def served(tmp_path):
    """A server of its own with one model, whose folder the test may change."""
    models = tmp_path / "models"
    weighted_sum_model(models)
    # What changes in the folder is loaded when a test asks for it, and not before.
    settings = '[repository]\nwatch = "0s"\n'
    with Server(tmp_path / "data", models=models, settings=settings) as server:
        server.models = models
        yield server


@pytest.fixture
def client(served):
    client = served.client()
    yield client
    client.close()


@pytest.fixture
def triton(served):
    client = InferenceServerClient(served.address)
    yield client
    client.close()


def load(client, name, body=b""):
    return client.post(f"/v2/repository/models/{name}/load", body)


def unload(client, name, body=b""):
    return client.post(f"/v2/repository/models/{name}/unload", body)


def index_of(client):
    answer = client.post("/v2/repository/index", {})
    assert answer.status == 200, answer
    return {(entry["name"], entry["version"]): entry for entry in answer.json()}


def ask(client, name="weighted_sum", rows=ROWS, path=""):
    data = [value for row in rows for value in row]
    tensor = {"name": "measurements", "shape": [len(rows), 3], "datatype": "FP32", "data": data}
    return client.post(f"/v2/models/{name}{path}/infer", {"inputs": [tensor]})


def totals(answer):
    assert answer.status == 200, answer
    return answer.json()["outputs"][0]["data"]


def ready_gauge(client, name, version):
    """What the metric says: 1 or 0; None where there is none."""
    for line in client.get("/metrics").body.decode().splitlines():
        if line.startswith("bellwether_model_ready{") and f'model="{name}"' in line:
            if f'version="{version}"' in line:
                return float(line.rsplit(" ", 1)[1])
    return None


# Loading and unloading.


def test_a_model_added_to_the_folder_is_loaded_on_request(served, client):
    colour_model(served.models)
    assert client.get("/v2/models/colours").status == 404
    assert load(client, "colours").status == 200
    assert client.get("/v2/models/colours/ready").status == 200
    tensor = {"name": "colour", "shape": [1, 1], "datatype": "BYTES", "data": ["green"]}
    answer = client.post("/v2/models/colours/infer", {"inputs": [tensor]})
    assert answer.json()["outputs"][0]["data"] == [0, 1, 0]
    assert index_of(client)[("colours", "1")]["state"] == "READY"
    assert ready_gauge(client, "colours", "1") == 1


def test_a_new_version_answers_once_it_is_loaded_and_the_old_one_by_its_number(served, client):
    biased_model(served.models, 1000.5, version="2")
    assert ask(client).json()["model_version"] == "1"
    assert load(client, "weighted_sum", {}).status == 200
    assert ask(client).json()["model_version"] == "2"
    assert totals(ask(client)) == [total + 1000 for total in TOTALS]
    assert totals(ask(client, path="/versions/1")) == TOTALS
    assert client.get("/v2/models/weighted_sum").json()["versions"] == ["1", "2"]


def test_changed_files_answer_once_they_are_loaded_again(served, client):
    biased_model(served.models, 7.5)
    assert totals(ask(client)) == TOTALS
    assert load(client, "weighted_sum").status == 200
    assert totals(ask(client)) == [total + 7 for total in TOTALS]


def test_a_version_whose_folder_is_gone_goes_with_the_next_load(served, client):
    biased_model(served.models, 1000.5, version="2")
    assert load(client, "weighted_sum").status == 200
    shutil.rmtree(served.models / "weighted_sum" / "2")
    assert load(client, "weighted_sum").status == 200
    assert list(index_of(client)) == [("weighted_sum", "1")]
    assert ask(client, path="/versions/2").status == 404
    assert ready_gauge(client, "weighted_sum", "2") is None


def test_a_broken_file_leaves_the_old_version_serving_and_says_why(served, client):
    path = served.models / "weighted_sum" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])
    message = load(client, "weighted_sum").error()
    assert "model.onnx" in message and "weighted_sum" in message
    assert totals(ask(client)) == TOTALS
    entry = index_of(client)[("weighted_sum", "1")]
    assert entry["state"] == "READY" and "model.onnx" in entry["reason"]
    (listed,) = client.get("/v1/models").json()["models"]
    assert listed["state"] == "champion" and "model.onnx" in listed["reason"]
    assert ready_gauge(client, "weighted_sum", "1") == 1
    eventually("the problem in the log", lambda: "model.onnx" in served.log_text())

    biased_model(served.models, 7.5)
    assert load(client, "weighted_sum").status == 200
    assert not index_of(client)[("weighted_sum", "1")]["reason"]
    assert totals(ask(client)) == [total + 7 for total in TOTALS]


def test_a_new_version_that_is_broken_is_refused_and_the_old_one_answers(served, client):
    folder = served.models / "weighted_sum" / "2"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    message = load(client, "weighted_sum").error()
    assert "version 2" in message
    assert totals(ask(client)) == TOTALS
    index = index_of(client)
    assert index[("weighted_sum", "2")]["state"] == "UNAVAILABLE"
    assert index[("weighted_sum", "1")]["state"] == "READY"


def test_an_unloaded_model_is_out_of_service_and_can_be_loaded_again(served, client):
    assert unload(client, "weighted_sum").status == 200
    message = ask(client).error()
    assert "weighted_sum" in message and "unloaded" in message
    assert client.get("/v2/models/weighted_sum/ready").status == 503
    assert client.get("/v2/models/weighted_sum").status == 404
    entry = index_of(client)[("weighted_sum", "1")]
    assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
    assert client.post("/v2/repository/index", {"ready": True}).json() == []
    assert ready_gauge(client, "weighted_sum", "1") == 0
    assert client.get("/readyz").status == 200

    assert load(client, "weighted_sum").status == 200
    assert totals(ask(client)) == TOTALS
    assert ready_gauge(client, "weighted_sum", "1") == 1


def test_a_required_model_that_is_unloaded_takes_the_readiness_with_it(tmp_path):
    models = tmp_path / "models"
    weighted_sum_model(models)
    arguments = ["--require-model", "weighted_sum"]
    with Server(tmp_path / "data", models=models, arguments=arguments) as server:
        client = server.client()
        assert unload(client, "weighted_sum").status == 200
        not_ready = client.get("/v2/health/ready")
        assert not_ready.status == 503 and "weighted_sum" in not_ready.json()["reasons"][0]
        assert load(client, "weighted_sum").status == 200
        assert client.get("/v2/health/ready").status == 200


def test_scoring_takes_the_version_that_was_loaded_last(tmp_path, customer_id):
    models = tmp_path / "models"
    copy_sample("churn", models)
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        client.store(customer_id, VARIED[0])
        assert client.score(customer_id)["predictions"][0]["version"] == "1"
        shutil.copytree(models / "churn" / "1", models / "churn" / "2")
        assert load(client, "churn").status == 200
        assert client.score(customer_id)["predictions"][0]["version"] == "2"
        assert unload(client, "churn").status == 200
        assert client.post("/v1/score", {"customer_id": customer_id}).status == 503


def test_requests_that_run_during_reloads_are_all_answered(served, client):
    """Two hundred requests on four connections while the model is changed and reloaded: every answer
    is right for one of the versions there were, and every one is counted."""
    problems, answered = [], []
    biases = [0.5, 7.5]
    allowed = [[total + bias - 0.5 for total in TOTALS] for bias in biases]
    started = threading.Barrier(5)

    def send():
        own = served.client()
        started.wait()
        for _ in range(50):
            answer = ask(own)
            if answer.status != 200 or answer.json()["outputs"][0]["data"] not in allowed:
                problems.append(answer)
            answered.append(1)
        own.close()

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    started.wait()
    reloads = 0
    while any(sender.is_alive() for sender in senders) or reloads < 4:
        biased_model(served.models, biases[reloads % 2])
        assert load(client, "weighted_sum").status == 200
        reloads += 1
    for sender in senders:
        sender.join()
    assert not problems, problems[:3]
    assert len(answered) == 200
    (stats,) = client.get("/v2/models/weighted_sum/stats").json()["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 200
    assert stats["inference_stats"]["fail"]["count"] == 0
    assert stats["inference_count"] == 400


# What is refused.


@pytest.mark.parametrize("name", ["astrology", "..", "..%2Fmodels", "%2Fetc", "weighted_sum%2F1", ".git", "a%00b"])
def test_what_is_no_model_of_the_repository_is_not_loaded(client, name):
    answer = load(client, name)
    assert answer.status in (400, 404), answer
    assert answer.error()


def test_unloading_what_is_not_there_succeeds(client):
    assert unload(client, "astrology").status == 200


@pytest.mark.parametrize(
    "parameters, word",
    [
        ({"config": "{}"}, "config"),
        ({"file:1/model.onnx": "AAAA"}, "file:1/model.onnx"),
        ({"config": "{}", "file:1/model.onnx": "AAAA"}, "config"),
    ],
)
def test_files_and_settings_in_a_load_request_are_refused(client, parameters, word):
    answer = load(client, "weighted_sum", {"parameters": parameters})
    assert answer.status == 400
    assert word in answer.error()
    assert totals(ask(client)) == TOTALS


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b'{"parameters": 7}', b'{"parameters": [1]}', b"\xff"])
def test_a_body_that_is_no_request_is_refused(client, action, body):
    answer = client.post(f"/v2/repository/models/weighted_sum/{action}", body)
    assert answer.status == 400
    assert answer.error()
    assert totals(ask(client)) == TOTALS


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b"null", b'{"parameters": {}}', b'{"parameters": null}'])
def test_a_body_may_be_left_out(client, body):
    assert unload(client, "weighted_sum", body).status == 200
    assert load(client, "weighted_sum", body).status == 200


def test_the_index_refuses_another_shape_with_400(client):
    answer = client.post("/v2/repository/index", {"ready": "yes"})
    assert answer.status == 400 and "ready" in answer.error()


# What is told of models.


def test_the_server_announces_what_it_has(client):
    assert client.get("/v2").json()["extensions"] == [
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "statistics",
    ]


@pytest.mark.parametrize("path", ["", "/versions/1"])
def test_the_configuration_of_a_model_that_takes_rows(client, path):
    config = client.get(f"/v2/models/weighted_sum{path}/config").json()
    assert config == {
        "name": "weighted_sum",
        "platform": "bellwether_onnx",
        "backend": "bellwether_onnx",
        "version_policy": {"all": {}},
        "max_batch_size": 100_000,
        "input": [{"name": "measurements", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [{"name": "total", "data_type": "TYPE_FP32", "dims": [1]}],
    }


def test_the_configuration_of_tensors_that_are_otherwise(served, client):
    transposed_model(served.models)
    flat_model(served.models)
    assert load(client, "transposed").status == 200
    assert load(client, "flat").status == 200
    config = client.get("/v2/models/transposed/config").json()
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [3, -1]}]
    config = client.get("/v2/models/flat/config").json()
    flat = {"data_type": "TYPE_FP64", "dims": [1], "reshape": {"shape": []}}
    assert config["max_batch_size"] == 100_000
    assert config["input"] == [{"name": "x", **flat}]
    assert config["output"] == [{"name": "y", **flat}]


@pytest.mark.parametrize("what", ["config", "stats"])
@pytest.mark.parametrize("model", ["astrology", "weighted_sum/versions/7", "weighted_sum/versions/x"])
def test_nothing_is_told_of_what_is_not_there(client, model, what):
    answer = client.get(f"/v2/models/{model}/{what}")
    assert answer.status == 404
    assert answer.error()


def test_the_statistics_count_what_was_asked(client):
    assert totals(ask(client)) == TOTALS
    assert totals(ask(client, rows=ROWS[:1])) == TOTALS[:1]
    tensor = {"name": "wrong", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    assert client.post("/v2/models/weighted_sum/infer", {"inputs": [tensor]}).status == 400
    answers = [
        client.get(f"/v2/models/{path}stats").json()["model_stats"]
        for path in ("", "weighted_sum/", "weighted_sum/versions/1/")
    ]
    assert answers[0] == answers[1] == answers[2]
    (stats,) = answers[0]
    assert (stats["name"], stats["version"]) == ("weighted_sum", "1")
    assert stats["inference_count"] == 3
    assert stats["execution_count"] == 2
    assert stats["last_inference"] > 1_600_000_000_000
    assert stats["batch_stats"] == []
    inference = stats["inference_stats"]
    parts = ["queue", "compute_input", "compute_infer", "compute_output"]
    assert [inference[part]["count"] for part in parts] == [2, 2, 2, 2]
    assert inference["success"]["count"] == 2
    assert inference["success"]["ns"] == sum(inference[part]["ns"] for part in parts) > 0
    assert inference["fail"]["count"] == 1 and inference["fail"]["ns"] > 0
    for unused in ("cache_hit", "cache_miss"):
        assert inference[unused] == {"count": 0, "ns": 0}


def test_the_statistics_are_in_the_metrics(client):
    assert totals(ask(client)) == TOTALS
    metrics = client.get("/metrics").body.decode()
    for name, value in [
        ("requests_total", '{model="weighted_sum",version="1",outcome="success"} 1'),
        ("requests_total", '{model="weighted_sum",version="1",outcome="failure"} 0'),
        ("rows_total", '{model="weighted_sum",version="1"} 2'),
    ]:
        assert f"bellwether_inference_{name}{value}" in metrics


def test_the_statistics_outlast_a_reload(served, client):
    assert totals(ask(client)) == TOTALS
    biased_model(served.models, 7.5)
    assert load(client, "weighted_sum").status == 200
    assert ask(client).status == 200
    (stats,) = client.get("/v2/models/stats").json()["model_stats"]
    assert stats["execution_count"] == 2


# With Triton's client.


def test_tritonclient_loads_and_unloads(served, triton):
    colour_model(served.models)
    triton.load_model("colours")
    assert triton.is_model_ready("colours")
    states = {entry["name"]: entry["state"] for entry in triton.get_model_repository_index()}
    assert states == {"colours": "READY", "weighted_sum": "READY"}
    triton.unload_model("colours", unload_dependents=True)
    assert not triton.is_model_ready("colours")
    triton.unload_model("no such model")
    with pytest.raises(InferenceServerException, match="no model"):
        triton.load_model("no such model")
    with pytest.raises(InferenceServerException, match="config"):
        triton.load_model("colours", config=json.dumps({"max_batch_size": 8}))
    with pytest.raises(InferenceServerException, match="parameters"):
        triton.load_model("colours", config="{}", files={"file:1/model.onnx": b"bytes"})


def test_tritonclient_reads_the_configuration_and_the_statistics(triton, client):
    config = triton.get_model_config("weighted_sum")
    metadata = triton.get_model_metadata("weighted_sum")
    # As clients that generate load read them: a batch size above 0 stands for the first dimension.
    assert config["max_batch_size"] > 0
    for told, configured in zip(metadata["inputs"], config["input"], strict=True):
        assert told["shape"] == [-1, *configured["dims"]]
        assert configured["data_type"] == "TYPE_" + told["datatype"]
    assert triton.get_model_config("weighted_sum", "1") == config
    assert totals(ask(client)) == TOTALS
    for stats in (
        triton.get_inference_statistics(),
        triton.get_inference_statistics("weighted_sum"),
        triton.get_inference_statistics("weighted_sum", "1"),
    ):
        assert stats["model_stats"][0]["inference_stats"]["success"]["count"] == 1


def test_every_sample_model_has_a_configuration(shared_server):
    client = shared_server.client()
    config = client.get("/v2/models/churn/config").json()
    kinds = {tensor["name"]: tensor["data_type"] for tensor in config["input"]}
    assert sorted(kinds) == sorted(reference("churn").inputs)
    assert (kinds["contract"], kinds["tenure"]) == ("TYPE_STRING", "TYPE_INT64")
    client.close()
