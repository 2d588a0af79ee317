"""The loop closes: customers are scored, outcomes come in, the model is fitted anew on what was served,
and the candidate stands beside the champion until it is promoted."""

import csv
import json
import math
import random
import shutil
from datetime import UTC, datetime, timedelta

import polars
import pytest

from server import FEATURES, MODELS, Server, prediction_of, refuse, succeed
from telco import customer

# Several hundred predictions, so that the hold-out quarter says something.
CUSTOMERS = 480

CONTRACTS = ["Month-to-month", "One year", "Two year"]


def later(days):
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def made_up_customers(seed):
    """[(id, features, leaves)]: long contracts leave more often here, which is the opposite of what the
    sample model has learned, with noise."""
    chance = random.Random(seed)
    found = []
    for number in range(CUSTOMERS):
        contract = chance.choice(CONTRACTS)
        tenure = chance.randrange(1, 72)
        features = customer(
            contract=contract,
            tenure=tenure,
            total_charges=None if number % 10 == 0 else round(84.35 * tenure, 2),
            internet_service=chance.choice(["Fiber optic", "DSL", "No"]),
        )
        log_odds = {"Month-to-month": -2.0, "One year": 0.0, "Two year": 2.0}[contract] - (tenure - 36) / 30
        leaves = chance.random() < 1 / (1 + math.exp(-log_odds))
        found.append((f"{seed}-{number}", features, leaves))
    return found


def score_and_report(server, customers):
    """Scores every customer and posts what happened afterwards; every fourth outcome names the
    prediction instead of the customer, and one is sent twice."""
    client = server.client()
    predictions = {}
    for customer_id, features, _ in customers:
        client.store(customer_id, features)
        scored = client.score(customer_id, models=["churn"])
        predictions[customer_id] = (scored["prediction_id"], prediction_of(scored, "churn")["score"])
    for number, (customer_id, _, leaves) in enumerate(customers):
        if not leaves:
            continue
        outcome = {"outcome_id": f"left-{customer_id}", "outcome": "churn"}
        if number % 4 == 0:
            outcome["prediction_id"] = predictions[customer_id][0]
        else:
            outcome["customer_id"] = customer_id
        for _ in range(2 if number % 50 == 1 else 1):
            answer = client.post("/v1/outcomes", outcome)
            assert answer.status == 200, answer
    return predictions


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Two replicas that each scored half of the customers. Some outcomes of the first half's customers
    reached the second replica."""
    folder = tmp_path_factory.mktemp("retrain")
    models = folder / "models"
    shutil.copytree(MODELS / "churn", models / "churn")
    customers = made_up_customers(7)
    half = CUSTOMERS // 2
    predictions = {}
    with Server(folder / "one", models=models) as server:
        predictions |= score_and_report(server, customers[: half - 20])
        crossing = customers[half - 20 : half]
        predictions |= score_and_report(server, [(name, features, False) for name, features, _ in crossing])
    with Server(folder / "two", models=models) as server:
        predictions |= score_and_report(server, customers[half:])
        client = server.client()
        for customer_id, _, leaves in crossing:
            if leaves:
                outcome = {"outcome": "churn", "prediction_id": predictions[customer_id][0]}
                assert client.post("/v1/outcomes", outcome).status == 200
    return folder, models, customers, predictions


def arguments(history, *more):
    folder, models, _, _ = history
    dirs = ["--data-dir", folder / "one", "--data-dir", folder / "two"]
    return [*dirs, "--models", models, "--features", FEATURES, *more]


def test_a_training_set_holds_what_was_served_and_what_came_of_it(history, tmp_path):
    _, _, customers, predictions = history
    # Given predictions of two replicas, when they are read a month later
    file = tmp_path / "churn.parquet"
    said = succeed(
        "ledger", "training-set", "--model", "churn", *arguments(history),
        "--as-of", later(31), "--output", file, "--json",
    )  # fmt: skip
    # Then every one of them is a row with the label of what happened, wherever it was reported
    counts = json.loads(said.stdout)["counts"]
    left = sum(leaves for _, _, leaves in customers)
    assert counts["predictions"] == counts["matured"] == CUSTOMERS
    assert (counts["positive"], counts["without_outcome"], counts["unmatured"]) == (left, CUSTOMERS - left, 0)
    assert counts["of_unknown_predictions"] == 0
    rows = {row["customer_id"]: row for row in polars.read_parquet(file).to_dicts()}
    assert len(rows) == CUSTOMERS
    for customer_id, features, leaves in customers:
        row = rows[customer_id]
        prediction_id, score = predictions[customer_id]
        assert row["label"] == leaves, row
        assert (row["prediction_id"], row["served_score"]) == (prediction_id, score)
        assert (row["outcome_at"] is not None) == leaves
        assert row["model_version"] == "1"
        assert {name: row[name] for name in features} == features

    # And as text it is the same rows.
    text = tmp_path / "churn.csv"
    succeed(
        "ledger", "training-set", "--model", "churn", *arguments(history),
        "--as-of", later(31), "--output", text,
    )  # fmt: skip
    with text.open(newline="", encoding="utf-8") as lines:
        labels = {row["customer_id"]: row["label"] for row in csv.DictReader(lines)}
    assert labels == {customer_id: str(int(leaves)) for customer_id, _, leaves in customers}


def test_before_maturity_there_are_no_labels(history, tmp_path):
    said = succeed(
        "ledger", "training-set", "--model", "churn", *arguments(history),
        "--as-of", later(29), "--output", tmp_path / "none.parquet", "--json",
    )  # fmt: skip
    counts = json.loads(said.stdout)["counts"]
    assert (counts["matured"], counts["unmatured"]) == (0, CUSTOMERS)
    assert polars.read_parquet(tmp_path / "none.parquet").height == 0
    # And nothing to learn from.
    problem = refuse("train", "--model", "churn", "--from-ledger", *arguments(history), "--as-of", later(29))
    assert f"of {CUSTOMERS} predictions {CUSTOMERS} are too young" in problem, problem


def test_one_replica_alone_does_not_know_what_the_other_was_told(history, tmp_path):
    folder, models, _, _ = history
    said = succeed(
        "ledger", "training-set", "--model", "churn", "--data-dir", folder / "two", "--models", models,
        "--features", FEATURES, "--as-of", later(31), "--output", tmp_path / "two.csv", "--json",
    )  # fmt: skip
    counts = json.loads(said.stdout)["counts"]
    assert counts["predictions"] == CUSTOMERS // 2
    assert counts["of_unknown_predictions"] > 0


def test_a_candidate_is_fitted_judged_served_by_version_and_promoted(history, tmp_path):
    folder, models, customers, _ = history
    # When the model is fitted anew a month later
    said = succeed(
        "train", "--model", "churn", "--from-ledger", *arguments(history), "--as-of", later(31), "--json"
    )
    answer = json.loads(said.stdout)
    # Then the next version has been written, and nothing else
    version = models / "churn" / "2"
    assert answer["folder"] == str(version)
    assert sorted(path.name for path in (models / "churn").iterdir()) == ["1", "2"]
    files = sorted(path.name for path in version.iterdir())
    assert files == ["golden.json", "model.onnx", "model.toml", "report.json", "report.md"]
    # And its report compares it with the champion on the later rows
    report = json.loads((version / "report.json").read_text())
    assert report == answer["report"]
    split, comparison = report["split"], report["comparison"]
    assert split["training_rows"] + split["holdout_rows"] == CUSTOMERS
    assert 0.2 * CUSTOMERS <= split["holdout_rows"] <= 0.3 * CUSTOMERS
    for model in ("candidate", "champion"):
        for measure in ("log_loss", "roc_auc", "brier_score"):
            estimate = comparison[model][measure]
            assert estimate["low"] <= estimate["value"] <= estimate["high"], (model, measure, estimate)
        assert 0 <= comparison[model]["expected_calibration_error"]["value"] < 1
        assert comparison[model]["calibration"]
    # who had learned the opposite,
    assert comparison["candidate"]["roc_auc"]["value"] > 0.7 > comparison["champion"]["roc_auc"]["value"]
    assert comparison["verdict"] == "better"
    # and who says again exactly what it had said.
    assert report["reproduced"] == {"rows": CUSTOMERS, "equal": CUSTOMERS, "largest_difference": 0.0}
    assert "better" in (version / "report.md").read_text()

    # And it is sound, and listed by a server that goes on with the champion
    succeed("check", "--models", models, "--features", FEATURES, cwd=tmp_path)
    with Server(folder / "one", models=models, arguments=["--strict"]) as server:
        client = server.client()
        states = {m["version"]: m["state"] for m in client.get("/v1/models").json()["models"]}
        assert states == {"1": "champion", "2": "candidate"}
        customer_id, features, _ = customers[1]
        assert prediction_of(client.score(customer_id), "churn")["version"] == "1"
        inputs = client.get("/v2/models/churn/versions/2").json()["inputs"]
        kinds = {"INT64": int, "FP32": float, "BYTES": str}
        tensors = [
            {
                "name": tensor["name"],
                "shape": [1, 1],
                "datatype": tensor["datatype"],
                "data": [kinds[tensor["datatype"]](features[tensor["name"]])],
            }
            for tensor in inputs
        ]
        outputs = client.post("/v2/models/churn/versions/2/infer", {"inputs": tensors})
        assert outputs.status == 200, outputs
        assert outputs.json()["model_version"] == "2"
        by_name = {output["name"]: output["data"] for output in outputs.json()["outputs"]}

        # When it is promoted, by the command that its report names, it is the champion.
        command = "model promote churn 2"
        assert command in (version / "report.md").read_text()
        assert command in (version / "model.toml").read_text()
        succeed(*command.split(), "--server", f"http://{server.address}", "--reason", "it is better")
        promoted = prediction_of(client.score(customer_id), "churn")
        assert promoted["version"] == "2"
        assert promoted["score"] == by_name["probabilities"][1]

    # And the next one does not write over it.
    again = succeed(
        "train", "--model", "churn", "--from-ledger", *arguments(history), "--as-of", later(31), "--json"
    )
    assert json.loads(again.stdout)["folder"] == str(models / "churn" / "3")
    third = json.loads((models / "churn" / "3" / "report.json").read_text())
    assert third["champion"] == "2"
    assert third["comparison"]["verdict"] == "no clear difference"
    # Of all predictions it has answered one, as its files are now.
    assert third["reproduced"] == {"rows": 1, "equal": 1, "largest_difference": 0.0}


def test_what_cannot_be_learned_from_is_refused_with_what_to_do(history, tmp_path):
    folder, _, _, _ = history
    train = ["train", "--from-ledger", "--data-dir", folder / "one", "--features", FEATURES]
    as_of = ["--as-of", later(31)]

    def repository(change):
        models = tmp_path / f"models-{change.__name__}"
        shutil.copytree(MODELS / "churn" / "1", models / "churn" / "1")
        manifest = models / "churn" / "1" / "model.toml"
        manifest.write_text(change(manifest.read_text()))
        return ["--model", "churn", "--models", models]

    def without_label(text):
        before, label = text.split("[label]\n")
        return before + label[label.index("[reasons]") :]

    def early(text):
        return text.replace('maturity = "30d"', 'maturity = "10d"')

    def other_outcome(text):
        return text.replace('outcome = "churn"', 'outcome = "moved"')

    for change, more, expected in [
        (without_label, as_of, "no [label] section"),
        (early, as_of, "maturity = 10d is shorter than window = 30d"),
        (other_outcome, as_of, "0 of the"),
        (str.strip, [*as_of, "--min-rows", "10000"], "expected at least 10000 (--min-rows)"),
        (str.rstrip, ["--as-of", "tomorrow"], "--as-of: expected"),
    ]:
        problem = refuse(*train, *repository(change), *more)
        assert expected in problem, (change.__name__, problem)
    twice = refuse(*train, *repository(str.lstrip), *as_of, "--data-dir", folder / "one")
    assert "is given twice" in twice, twice
    unknown = refuse(*train, "--model", "chrun", "--models", MODELS, *as_of)
    assert "the models are: churn, upsell" in unknown, unknown
    affinity = refuse(*train, "--model", "upsell", "--models", MODELS, *as_of)
    assert "only binary models" in affinity, affinity
    # Nothing was left behind.
    for models in tmp_path.glob("models-*"):
        assert [path.name for path in (models / "churn").iterdir()] == ["1"]
