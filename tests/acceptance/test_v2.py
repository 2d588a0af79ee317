"""The Open Inference Protocol v2 over REST, for the sample models and for models of others: what is
loaded is served, what is not is listed with the reason, and neither stops the other."""

import json

import pytest

from models import (
    change_golden,
    colour_model,
    copy_sample,
    mistyped_model,
    reference,
    weighted_sum_model,
)
from server import FEATURES as FEATURES_DIR
from server import MODELS, Server, refuse, run, succeed
from telco import FEATURES, VARIED, customer
from waiting import eventually


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A server whose repository holds good models, raw ones and refused ones."""
    models = tmp_path_factory.mktemp("mixed") / "models"
    for name in ("churn", "upsell"):
        copy_sample(name, models)
    weighted_sum_model(models)
    weighted_sum_model(models, version="2")
    weighted_sum_model(models, version="10")
    colour_model(models)
    mistyped_model(models)
    change_golden(copy_sample("churn", models, "misremembered"))
    broken = copy_sample("churn", models, "broken") / "model.onnx"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    (models / "no_file" / "1").mkdir(parents=True)
    with Server(tmp_path_factory.mktemp("mixed-data") / "data", models=models) as server:
        server.models = models
        yield server


@pytest.fixture
def mixed_client(mixed):
    client = mixed.client()
    yield client
    client.close()


def infer(client, model, inputs, version="1", **fields):
    answer = client.post(f"/v2/models/{model}/versions/{version}/infer", {"inputs": inputs, **fields})
    assert answer.status == 200, answer
    return answer.json()


def outputs_of(answered):
    return {output["name"]: output for output in answered["outputs"]}


# Metadata and readiness.


def test_the_server_says_who_it_is(client):
    about = client.get("/v2").json()
    assert about["name"] == "bellwether"
    assert about["version"]
    assert isinstance(about["extensions"], list)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/churn/ready",
        "/v2/models/churn/versions/1/ready",
        "/v2/models/upsell/ready",
    ],
)
def test_what_is_loaded_is_ready(client, path):
    assert client.get(path).status == 200


@pytest.mark.parametrize("path", ["/v2/models/churn", "/v2/models/churn/versions/1"])
def test_metadata_names_every_input_and_output(client, path):
    metadata = client.get(path).json()
    assert metadata["name"] == "churn"
    assert metadata["versions"] == ["1"]
    assert "onnx" in metadata["platform"].lower()
    assert sorted(i["name"] for i in metadata["inputs"]) == sorted(FEATURES)
    kinds = {i["name"]: i["datatype"] for i in metadata["inputs"]}
    assert (kinds["tenure"], kinds["total_charges"], kinds["contract"]) == ("INT64", "FP32", "BYTES")
    assert all(i["shape"] == [-1, 1] for i in metadata["inputs"])
    assert [o["name"] for o in metadata["outputs"]] == ["log_odds", "probabilities"]
    assert metadata["outputs"][-1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/astrology",
        "/v2/models/astrology/ready",
        "/v2/models/churn/versions/7",
        "/v2/models/churn/versions/7/ready",
        "/v2/models/churn/versions/first",
        "/v2/models/..%2Fchurn",
    ],
)
def test_what_does_not_exist_is_refused(client, path):
    assert client.get(path).error()


# Inference.


@pytest.mark.parametrize("name", ["churn", "upsell"])
@pytest.mark.parametrize("rows", [VARIED[:1], VARIED], ids=["one row", "eight rows"])
def test_infer_equals_onnxruntime(client, name, rows):
    onnxruntime = reference(name)
    rows = [{**row, "total_charges": row["total_charges"] or 0.0} for row in rows]  # JSON has no NaN
    answered = infer(client, name, onnxruntime.oip_inputs(rows), id="question 7")
    assert answered["model_name"] == name
    assert answered["model_version"] == "1"
    assert answered["id"] == "question 7"
    outputs = outputs_of(answered)
    for output, expected in onnxruntime.run(rows).items():
        assert outputs[output]["datatype"] == "FP32"
        assert outputs[output]["shape"] == list(expected.shape)
        assert outputs[output]["data"] == pytest.approx(expected.reshape(-1).tolist(), abs=1e-5)


def test_infer_equals_score(client, customer_id):
    features = customer()
    client.store(customer_id, features)
    scored = client.score(customer_id, models=["churn"])["predictions"][0]["score"]
    outputs = outputs_of(infer(client, "churn", reference("churn").oip_inputs([features])))
    assert outputs["probabilities"]["data"][1] == scored


def test_infer_without_a_version_takes_the_highest(mixed_client):
    inputs = [{"name": "measurements", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]
    answer = mixed_client.post("/v2/models/weighted_sum/infer", {"inputs": inputs})
    assert answer.status == 200
    assert answer.json()["model_version"] == "10", "by number, not by letter"


def test_the_order_of_inputs_does_not_matter(client):
    inputs = reference("churn").oip_inputs(VARIED[:1])
    assert infer(client, "churn", inputs)["outputs"] == infer(client, "churn", inputs[::-1])["outputs"]


def test_only_the_outputs_asked_for_are_answered(client):
    answered = infer(
        client, "churn", reference("churn").oip_inputs(VARIED[:1]), outputs=[{"name": "log_odds"}]
    )
    assert list(outputs_of(answered)) == ["log_odds"]


def test_data_may_be_nested_as_the_shape_is(client):
    inputs = reference("churn").oip_inputs(VARIED[2:5])
    nested = [{**i, "data": [[value] for value in i["data"]]} for i in inputs]
    assert infer(client, "churn", nested)["outputs"] == infer(client, "churn", inputs)["outputs"]


def test_an_id_is_echoed_only_if_it_was_given(client):
    assert infer(client, "churn", reference("churn").oip_inputs(VARIED[:1])).get("id") in (None, "")


def changed(name, **changes):
    """The inputs of one row with one input changed; a change to None leaves the field out."""
    inputs = reference("churn").oip_inputs(VARIED[:1])
    for tensor in inputs:
        if tensor["name"] == name:
            tensor.update(changes)
            for field in [field for field, value in changes.items() if value is None]:
                del tensor[field]
    return inputs


WRONG_INPUTS = [
    ("none at all", [], []),
    ("one missing", [i for i in changed("tenure") if i["name"] != "tenure"], ["tenure"]),
    (
        "one unknown",
        [*changed("tenure"), {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}],
        ["x"],
    ),
    ("one twice", [*changed("tenure"), changed("tenure")[0]], [changed("tenure")[0]["name"]]),
    ("another datatype", changed("tenure", datatype="FP32"), ["tenure", "INT64", "FP32"]),
    ("no such datatype", changed("tenure", datatype="INTEGER"), ["tenure", "INTEGER"]),
    ("no datatype", changed("tenure", datatype=None), ["datatype"]),
    ("text in a number", changed("tenure", data=["seven"]), ["tenure"]),
    ("a fraction in an integer", changed("tenure", data=[7.5]), ["tenure"]),
    ("a number in a text", changed("contract", data=[7]), ["contract"]),
    ("null in an integer", changed("tenure", data=[None]), ["tenure"]),
    ("more than 64 bits", changed("tenure", data=[2**64]), ["tenure"]),
    ("another rank", changed("tenure", shape=[1]), ["tenure"]),
    ("another width", changed("tenure", shape=[1, 2], data=[1, 2]), ["tenure"]),
    ("more data than the shape says", changed("tenure", data=[1, 2]), ["tenure"]),
    ("less data than the shape says", changed("tenure", data=[]), ["tenure"]),
    ("more rows in one input", changed("tenure", shape=[2, 1], data=[1, 2]), []),
    ("a negative dimension", changed("tenure", shape=[-1, 1]), ["inputs[", "shape"]),
    ("a huge shape", changed("tenure", shape=[2**40, 1]), ["shape"]),
    ("a shape whose size overflows", changed("tenure", shape=[2**62, 2**62]), ["shape"]),
    ("no shape", changed("tenure", shape=None), ["shape"]),
    ("no data", changed("tenure", data=None), ["inputs[", "data"]),
    ("deeply nested data", changed("tenure", data=[[[[1]]]]), ["tenure"]),
]


@pytest.mark.parametrize("inputs, words", [c[1:] for c in WRONG_INPUTS], ids=[c[0] for c in WRONG_INPUTS])
def test_a_wrong_input_is_refused_by_name(client, inputs, words):
    message = client.post("/v2/models/churn/infer", {"inputs": inputs}).error()
    for word in words:
        assert word in message, message


def test_an_output_that_does_not_exist_is_refused(client):
    body = {"inputs": reference("churn").oip_inputs(VARIED[:1]), "outputs": [{"name": "fortune"}]}
    assert "fortune" in client.post("/v2/models/churn/infer", body).error()


# A folder with nothing but model.onnx.


def test_a_bare_model_is_served_raw(mixed_client):
    inputs = [{"name": "measurements", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, -1, 0, 0.5]}]
    total = outputs_of(infer(mixed_client, "weighted_sum", inputs))["total"]
    assert total == {"name": "total", "datatype": "FP32", "shape": [2, 1], "data": [321.5, 49.5]}
    metadata = mixed_client.get("/v2/models/weighted_sum").json()
    assert sorted(metadata["versions"]) == ["1", "10", "2"]
    assert metadata["inputs"] == [{"name": "measurements", "datatype": "FP32", "shape": [-1, 3]}]


def test_a_bare_model_of_strings_is_served_raw(mixed_client):
    inputs = [{"name": "colour", "shape": [3, 1], "datatype": "BYTES", "data": ["blue", "red", "purple"]}]
    encoded = outputs_of(infer(mixed_client, "colours", inputs))["encoded"]
    assert encoded["shape"] == [3, 1, 3]
    assert encoded["data"] == [0, 0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("model, unbound", [("weighted_sum", "measurements"), ("colours", "colour")])
def test_a_bare_model_that_does_not_bind_says_what_is_missing(mixed_client, customer_id, model, unbound):
    mixed_client.store(customer_id, customer())
    answer = mixed_client.post("/v1/score", {"customer_id": customer_id, "models": [model]})
    message = answer.error()
    assert model in message and unbound in message


def test_models_left_out_means_only_those_that_bind(mixed_client, customer_id):
    mixed_client.store(customer_id, customer())
    assert {p["model"] for p in mixed_client.score(customer_id)["predictions"]} == {"churn", "upsell"}


# Versions that are refused.

REFUSED = {
    "broken": [],
    "misremembered": ["golden"],
    "mistyped": ["contract", "string", "expected", "found"],
}


def index_of(client):
    answer = client.post("/v2/repository/index", {})
    assert answer.status == 200, answer
    return {(entry["name"], entry["version"]): entry for entry in answer.json()}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_version_is_unavailable_with_its_reason(mixed_client, name):
    entry = index_of(mixed_client)[(name, "1")]
    assert entry["state"] == "UNAVAILABLE"
    assert len(entry["reason"]) > 10
    for word in REFUSED[name]:
        assert word.lower() in entry["reason"].lower(), entry["reason"]


def test_a_mistyped_input_tells_the_file_and_both_types(mixed_client):
    reason = index_of(mixed_client)[("mistyped", "1")]["reason"]
    assert "string" in reason and "FP32" in reason, reason
    assert any(file in reason for file in ("customer.toml", "model.toml", "model.onnx")), reason


def test_the_others_are_ready_all_the_same(mixed_client):
    index = index_of(mixed_client)
    for key in [("churn", "1"), ("upsell", "1"), ("weighted_sum", "10"), ("colours", "1")]:
        assert index[key]["state"] == "READY"
        assert not index[key].get("reason")
    assert mixed_client.get("/readyz").status == 200
    assert mixed_client.get("/v2/health/ready").status == 200


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_version_is_not_served_and_says_why(mixed_client, customer_id, name):
    mixed_client.store(customer_id, customer())
    inputs = reference("churn").oip_inputs(VARIED[:1])
    assert mixed_client.get(f"/v2/models/{name}/versions/1/ready").status >= 400
    assert mixed_client.post(f"/v2/models/{name}/infer", {"inputs": inputs}).status in range(400, 504)
    answer = mixed_client.post("/v1/score", {"customer_id": customer_id, "models": [name]})
    assert name in answer.json()["error"]


def test_a_refusal_is_in_the_log_and_in_the_metrics(mixed, mixed_client):
    eventually("each in the log", lambda: all(name in mixed.log_text() for name in REFUSED))
    metrics = mixed_client.get("/metrics").body.decode()
    for name in REFUSED:
        assert name in metrics


def test_check_accepts_what_is_shipped():
    succeed("check", "--models", MODELS, "--features", FEATURES_DIR)


def test_check_reports_every_refused_version(mixed):
    said = refuse("check", "--models", mixed.models, "--features", FEATURES_DIR)
    for name in REFUSED:
        assert name in said


@pytest.mark.parametrize("name", REFUSED)
def test_strict_refuses_to_start(tmp_path, name):
    models = tmp_path / "models"
    copy_sample("churn", models)
    if name == "mistyped":
        mistyped_model(models)
    elif name == "misremembered":
        change_golden(copy_sample("churn", models, name))
    else:
        broken = copy_sample("churn", models, name) / "model.onnx"
        broken.write_bytes(broken.read_bytes()[:500])
    arguments = ["--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--models", models]
    assert name in refuse("serve", "--strict", *arguments, "--features", FEATURES_DIR)


def test_an_empty_model_folder_is_ready(data_dir, tmp_path):
    (tmp_path / "models").mkdir()
    with Server(data_dir, models=tmp_path / "models") as server:
        assert index_of(server.client()) == {}


def test_a_missing_model_folder_is_not_silently_served(data_dir, tmp_path):
    try:
        server = Server(data_dir, models=tmp_path / "nowhere", start_seconds=5)
    except AssertionError as error:
        assert "nowhere" in str(error)
        return
    server.kill()
    pytest.fail("ready without its models")


def test_a_view_that_contradicts_the_models_is_found_offline(tmp_path):
    features = tmp_path / "features"
    features.mkdir()
    text = (FEATURES_DIR / "customer.toml").read_text()
    assert text.count('name = "gender"') == 1
    # The feature is gone: both models need it.
    (features / "customer.toml").write_text(text.replace('name = "gender"', 'name = "sex"'))
    done = run("check", "--models", MODELS, "--features", features, "--json")
    assert done.returncode not in (0, 101)
    assert "gender" in done.stdout + done.stderr
    json.loads(done.stdout)
