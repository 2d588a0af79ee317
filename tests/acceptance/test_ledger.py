"""What the ledger promises: every answer and every outcome is there afterwards, exactly as it was
given, checkable and readable by other tools."""

import json
from datetime import datetime, timedelta, timezone

import duckdb
import polars
import pytest

from export import export
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
    predictions, outcomes = export(recorded[0], output)
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
    predictions, outcomes = export(data_dir, tmp_path / "tables")
    assert len(predictions) == len(outcomes) == 0
    assert "prediction_id" in predictions.columns and "outcome_id" in outcomes.columns


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
    predictions, outcomes = export(data_dir, tmp_path / "tables")
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
