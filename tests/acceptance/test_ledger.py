"""What the ledger promises: every answer and every outcome is there afterwards, exactly as it was
given, checkable and readable by other tools."""

import json
import struct
from datetime import datetime, timedelta, timezone

import duckdb
import numpy
import polars
import pytest

from export import export
from models import reference
from server import FEATURES, MODELS, Server, refuse, succeed
from telco import VARIED, customer


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A stopped server's directory, with the answers and outcomes that went into it."""
    data_dir = tmp_path_factory.mktemp("ledger") / "data"
    answers, outcomes = [], []
    with Server(data_dir) as server:
        client = server.client()
        for number, features in enumerate(VARIED * 5):
            customer_id = f"ledger-{number}"
            client.store(customer_id, features)
            answers.append(client.score(customer_id, explain=4))
        answers.append(
            client.score("ledger-0", models=["churn"], features={"contract": "Two year", "tenure": 30})
        )
        for number, answer in enumerate(answers):
            outcome = {
                "outcome_id": f"outcome-{number}",
                "prediction_id": answer["prediction_id"],
                "outcome": "churn",
                "value": number / 3,
                "occurred_at": f"2026-05-01T00:00:{number:02}.123456Z",
            }
            outcomes.append(outcome)
            assert client.post("/v1/outcomes", outcome).status in (200, 201)
        unnamed = {"outcome_id": "by-customer", "customer_id": "ledger-3", "outcome": "stayed"}
        outcomes.append(unnamed)
        assert client.post("/v1/outcomes", unnamed).status in (200, 201)
        # Once more, as a client does that lost the answer.
        assert client.post("/v1/outcomes", outcomes[0]).json()["duplicate"] is True
    return data_dir, answers, outcomes


@pytest.fixture(scope="module")
def exported(recorded, tmp_path_factory):
    output = tmp_path_factory.mktemp("export") / "tables"
    predictions, _, outcomes = export(recorded[0], output)
    return output, predictions, outcomes


def test_verify_finds_a_stopped_ledger_sound(recorded):
    data_dir, answers, outcomes = recorded
    said = succeed("ledger", "verify", "--data-dir", data_dir).stdout
    assert str(len(answers)) in said and str(len(outcomes)) in said
    report = json.loads(succeed("ledger", "verify", "--data-dir", data_dir, "--json").stdout)
    assert report["predictions"] == len(answers)
    assert report["outcomes"] == len(outcomes)


def test_every_answered_score_is_one_row_with_the_same_bits(recorded, exported):
    _, answers, _ = recorded
    _, predictions, _ = exported
    rows = {(row["prediction_id"], row["model"]): row for row in predictions.to_dicts()}
    assert len(rows) == len(predictions)
    answered = {(a["prediction_id"], p["model"]): (a, p) for a in answers for p in a["predictions"]}
    assert set(rows) == set(answered)
    for key, (answer, prediction) in answered.items():
        row = rows[key]
        assert row["customer_id"] == answer["customer_id"]
        assert row["version"] == prediction["version"]
        assert row["score"] == prediction["score"], "bit for bit"
        assert row["label"] == prediction.get("label")
        assert row["view"] == "customer"
        assert row["view_digest"] and row["model_digest"]
        if prediction.get("reasons") is not None:
            logged = json.loads(row["reasons"])
            answered_reasons = prediction["reasons"]
            assert logged["base"] == answered_reasons["base"]
            assert logged["other"] == answered_reasons["other"]
            pairs = [(c["feature"], c["contribution"]) for c in answered_reasons["contributions"]]
            assert [(c["feature"], c["contribution"]) for c in logged["contributions"]] == pairs


def test_feature_values_are_logged_as_they_were_served(recorded, exported):
    _, answers, _ = recorded
    _, predictions, _ = exported
    rows = {row["prediction_id"]: row for row in predictions.to_dicts() if row["model"] == "churn"}
    for answer, features in zip(answers, VARIED * 5):
        row = rows[answer["prediction_id"]]
        logged = json.loads(row["features"])
        for name, value in features.items():
            assert logged[name] == value, name
        sources = json.loads(row["features_source"])
        assert sources["tenure"] == "stored"
        assert datetime.fromisoformat(json.loads(row["features_as_of"])["tenure"]).tzinfo is not None
    overridden = rows[answers[-1]["prediction_id"]]
    assert json.loads(overridden["features"])["contract"] == "Two year"
    assert json.loads(overridden["features_source"])["contract"] == "override"
    assert json.loads(overridden["features_source"])["gender"] == "stored"


def test_times_are_utc_and_now(exported):
    _, predictions, outcomes = exported
    now = datetime.now(timezone.utc)
    for column in (predictions["at"], outcomes["received_at"], outcomes["occurred_at"]):
        assert column.dtype == polars.Datetime("us", "UTC")
    for at in [*predictions["at"], *outcomes["received_at"]]:
        assert now - timedelta(hours=1) < at <= now


def test_every_outcome_is_one_row(recorded, exported):
    _, _, sent = recorded
    _, _, outcomes = exported
    rows = {row["outcome_id"]: row for row in outcomes.to_dicts()}
    assert len(rows) == len(outcomes) == len(sent)
    for outcome in sent:
        row = rows[outcome["outcome_id"]]
        assert row["outcome"] == outcome["outcome"]
        assert row["value"] == outcome.get("value")
        assert row["prediction_id"] == outcome.get("prediction_id")
        if "customer_id" in outcome:
            assert row["customer_id"] == outcome["customer_id"]
        if "occurred_at" in outcome:
            assert row["occurred_at"] == datetime.fromisoformat(outcome["occurred_at"])


# Inferences: tensors in, tensors out.


def as_bytes(tensor):
    """A tensor of JSON as one whose data are bytes behind it, and those bytes."""
    if tensor["datatype"] == "BYTES":
        texts = [text.encode() for text in tensor["data"]]
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        kind = {"FP32": numpy.float32, "INT64": numpy.int64}[tensor["datatype"]]
        numbers = [numpy.nan if number is None else number for number in tensor["data"]]
        data = numpy.array(numbers, dtype=kind).tobytes()
    head = {name: tensor[name] for name in ("name", "shape", "datatype")}
    return {**head, "parameters": {"binary_data_size": len(data)}}, data


def infer_bytes(client, path, tensors, **fields):
    pairs = [as_bytes(tensor) for tensor in tensors]
    head = json.dumps({"inputs": [tensor for tensor, _ in pairs], **fields}).encode()
    body = head + b"".join(data for _, data in pairs)
    return client.request("POST", path, body, {"Inference-Header-Content-Length": str(len(head))})


def tensors_of(listed):
    """Tensors as the table holds them: by name, and of each type what it can hold."""

    def held(tensor):
        data = tensor["data"]
        if tensor["datatype"] == "FP32":
            data = [None if number is None else numpy.float32(number).item() for number in data]
        return {"datatype": tensor["datatype"], "shape": tensor["shape"], "data": data}

    return {tensor["name"]: held(tensor) for tensor in listed}


def test_every_inference_is_one_row_with_what_was_sent_and_answered(data_dir, tmp_path):
    path = "/v2/models/churn/infer"
    sent = [reference("churn").oip_inputs(rows) for rows in (VARIED, VARIED[:1], VARIED[1:3])]
    with Server(data_dir) as server:
        client = server.client()
        answers = [
            client.post(path, {"id": "first", "inputs": sent[0]}),
            client.post("/v2/models/churn/versions/1/infer", {"inputs": sent[1]}),
            infer_bytes(client, path, sent[2], id="third"),
        ]
        assert [answer.status for answer in answers] == [200] * 3, answers
        replies = [answer.json() for answer in answers]
        # What is refused leaves no row.
        assert client.post(path, {"inputs": sent[0][1:]}).status == 400
        outcome = {"prediction_id": replies[0]["parameters"]["prediction_id"], "outcome": "churn"}
        assert client.post("/v1/outcomes", outcome).status == 200
    report = json.loads(succeed("ledger", "verify", "--data-dir", data_dir, "--json").stdout)
    assert (report["predictions"], report["inferences"], report["outcomes"]) == (0, 3, 1)

    _, inferences, outcomes = export(data_dir, tmp_path / "tables")
    rows = {row["prediction_id"]: row for row in inferences.to_dicts()}
    assert len(rows) == len(inferences) == 3
    for inputs, reply, request_id in zip(sent, replies, ["first", None, "third"]):
        row = rows[reply["parameters"]["prediction_id"]]
        assert (row["model"], row["version"], row["request_id"]) == ("churn", "1", request_id)
        assert row["rows"] == inputs[0]["shape"][0]
        assert row["model_digest"]
        assert json.loads(row["inputs"]) == tensors_of(inputs)
        assert json.loads(row["outputs"]) == tensors_of(reply["outputs"])
    assert outcomes["prediction_id"].to_list() == [replies[0]["parameters"]["prediction_id"]]
    assert inferences["at"].dtype == polars.Datetime("us", "UTC")


def test_of_a_large_inference_the_shapes_are_kept(data_dir, tmp_path):
    inputs = reference("churn").oip_inputs(VARIED[:1] * 2000)
    with Server(data_dir) as server:
        reply = server.client().post("/v2/models/churn/infer", {"inputs": inputs}).json()
    _, inferences, _ = export(data_dir, tmp_path / "tables")
    (row,) = inferences.to_dicts()
    assert row["prediction_id"] == reply["parameters"]["prediction_id"]
    assert row["rows"] == 2000
    for tensors, listed in ((row["inputs"], inputs), (row["outputs"], reply["outputs"])):
        without = {name: {**tensor, "data": None} for name, tensor in tensors_of(listed).items()}
        assert json.loads(tensors) == without


# Other tools.


def test_duckdb_reads_the_same_and_joins_the_two(recorded, exported):
    _, answers, _ = recorded
    output, predictions, _ = exported
    joined = duckdb.sql(
        f"""
        select count(*) as joined, count(distinct p.prediction_id) as predictions
        from '{output}/predictions-*.parquet' p
        join '{output}/outcomes-*.parquet' o using (prediction_id)
        """
    ).fetchall()
    assert joined == [(len(predictions), len(answers))]
    scores = duckdb.sql(
        f"select score from '{output}/predictions-*.parquet' order by prediction_id, model"
    ).fetchall()
    assert [s for (s,) in scores] == predictions.sort("prediction_id", "model")["score"].to_list()


def test_an_empty_ledger_exports_tables_without_rows(data_dir, tmp_path):
    with Server(data_dir):
        pass
    succeed("ledger", "verify", "--data-dir", data_dir)
    predictions, inferences, outcomes = export(data_dir, tmp_path / "tables")
    assert len(predictions) == len(inferences) == len(outcomes) == 0
    assert "prediction_id" in predictions.columns and "outcome_id" in outcomes.columns
    assert {"prediction_id", "inputs", "outputs"} <= set(inferences.columns)


def test_a_directory_in_use_is_neither_verified_nor_exported(data_dir, tmp_path):
    with Server(data_dir):
        said = refuse("ledger", "verify", "--data-dir", data_dir)
        assert "in use" in said and str(data_dir) in said
        said = refuse(
            "ledger", "export", "--data-dir", data_dir, "--format", "parquet", "--output", tmp_path / "out"
        )
        assert "in use" in said


def test_a_directory_without_a_ledger_is_an_error(tmp_path):
    assert str(tmp_path / "nothing") in refuse("ledger", "verify", "--data-dir", tmp_path / "nothing")
    refuse(
        "ledger",
        "export",
        "--data-dir",
        tmp_path / "nothing",
        "--format",
        "parquet",
        "--output",
        tmp_path / "out",
    )


def segments(data_dir):
    found = sorted((data_dir / "ledger").glob("*.log"))
    assert found, sorted(p.name for p in data_dir.rglob("*"))
    return found


def filled(data_dir, scores=20):
    """A ledger with a few predictions and one outcome, which makes them durable."""
    with Server(data_dir) as server:
        client = server.client()
        client.store("c", customer())
        answers = [client.score("c") for _ in range(scores)]
        outcome = {
            "outcome_id": f"for-{answers[-1]['prediction_id']}",
            "prediction_id": answers[-1]["prediction_id"],
            "outcome": "churn",
        }
        assert client.post("/v1/outcomes", outcome).status in (200, 201)
    return answers


def test_a_torn_tail_is_discarded_and_the_rest_is_kept(data_dir, tmp_path):
    answers = filled(data_dir)
    last = segments(data_dir)[-1]
    with last.open("ab") as file:
        # Part of a frame that was never finished.
        file.write(last.read_bytes()[-60:-20])
    succeed("ledger", "verify", "--data-dir", data_dir)
    with Server(data_dir) as server:
        assert server.client().score("c")["prediction_id"]
    succeed("ledger", "verify", "--data-dir", data_dir)
    predictions, _, outcomes = export(data_dir, tmp_path / "tables")
    assert {a["prediction_id"] for a in answers} < set(predictions["prediction_id"])
    assert len(set(predictions["prediction_id"])) == len(answers) + 1
    assert outcomes["prediction_id"].to_list() == [answers[-1]["prediction_id"]]


def test_a_damaged_ledger_is_found_and_not_served_over(data_dir):
    filled(data_dir)
    # What follows the damage says that the damaged part had been synced.
    filled(data_dir)
    first = segments(data_dir)[0]
    bytes_ = bytearray(first.read_bytes())
    bytes_[len(bytes_) // 3] ^= 0x40
    first.write_bytes(bytes_)
    assert first.name in refuse("ledger", "verify", "--data-dir", data_dir)
    arguments = [
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        data_dir,
        "--models",
        MODELS,
        "--features",
        FEATURES,
    ]
    assert first.name in refuse("serve", *arguments)
