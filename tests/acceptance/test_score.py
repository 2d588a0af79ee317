"""What POST /v1/score promises: the stored view, overrides, reasons that add up, honest reports of
what was missing or unknown."""

import math
import re
import time
import tomllib
from datetime import datetime, timezone

import pytest

from models import LinearModel, best_add_on, reference
from server import MODELS, Server, prediction_of
from telco import ADD_ONS, FEATURES, VARIED, customer

UUID_V7 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def churn_score(scored):
    return prediction_of(scored, "churn")["score"]


def expected_churn(features):
    return float(reference("churn").run([features])["probabilities"][0, 1])


def baseline(model):
    with (MODELS / model / "1" / "model.toml").open("rb") as file:
        return tomllib.load(file)["reasons"]["baseline"]


# The stored customer.


def test_what_was_put_is_what_get_shows(client, customer_id):
    before = datetime.now(timezone.utc)
    features = customer()
    client.store(customer_id, features)
    stored = client.stored(customer_id)
    assert {name: stored[name]["value"] for name in features} == features
    for name in features:
        as_of = datetime.fromisoformat(stored[name]["as_of"])
        assert as_of.utcoffset().total_seconds() == 0, "times are UTC"
        assert abs((as_of - before).total_seconds()) < 60


def test_a_partial_update_leaves_the_other_features_alone(client, customer_id):
    client.store(customer_id, customer(tenure=7))
    first = client.stored(customer_id)
    time.sleep(0.01)  # so that a rewritten value would carry a later time
    client.store(customer_id, {"tenure": 8})
    second = client.stored(customer_id)
    assert second["tenure"]["value"] == 8
    assert datetime.fromisoformat(second["tenure"]["as_of"]) > datetime.fromisoformat(
        first["tenure"]["as_of"]
    )
    for name in set(customer()) - {"tenure"}:
        assert second[name] == first[name]


def test_null_is_a_value(client, customer_id):
    client.store(customer_id, customer(total_charges=500.0))
    with_value = churn_score(client.score(customer_id))
    client.store(customer_id, {"total_charges": None})
    assert client.stored(customer_id)["total_charges"]["value"] is None
    with_null = churn_score(client.score(customer_id))
    assert with_null == pytest.approx(expected_churn(customer(total_charges=None)), abs=1e-5)
    assert with_null != with_value


def test_derived_features_are_shown_and_follow_their_sources(client, customer_id):
    client.store(
        customer_id, customer(tenure=10, total_charges=505.0, online_backup="Yes", streaming_tv="Yes")
    )
    shown = client.stored(customer_id)
    assert shown["charge_per_month"]["value"] == 50.5
    assert shown["addon_count"]["value"] == 2
    assert shown["is_new_customer"]["value"] is True
    client.store(customer_id, {"tenure": 20, "tech_support": "Yes"})
    shown = client.stored(customer_id)
    assert shown["charge_per_month"]["value"] == 25.25
    assert shown["addon_count"]["value"] == 3
    assert shown["is_new_customer"]["value"] is False


def test_delete_removes_the_customer(client, customer_id):
    client.store(customer_id, customer())
    assert 200 <= client.delete(f"/v1/customers/{customer_id}").status < 300
    assert client.get(f"/v1/customers/{customer_id}").status == 404
    assert client.post("/v1/score", {"customer_id": customer_id}).status == 404
    client.store(customer_id, {"tenure": 3})
    assert client.stored(customer_id)["tenure"]["value"] == 3


def test_what_was_put_survives_a_restart(data_dir):
    with Server(data_dir) as server:
        server.client().store("restarted", customer())
        score = churn_score(server.client().score("restarted"))
    with Server(data_dir) as server:
        assert server.client().stored("restarted")["monthly_charges"]["value"] == 84.35
        assert churn_score(server.client().score("restarted")) == score


# The score.


@pytest.mark.parametrize("features", VARIED)
def test_scores_equal_onnxruntime(client, customer_id, features):
    client.store(customer_id, features)
    scored = client.score(customer_id)
    assert churn_score(scored) == pytest.approx(expected_churn(features), abs=1e-5)
    score, label = best_add_on(features, reference("upsell").run([features])["probabilities"][0])
    upsell = prediction_of(scored, "upsell")
    assert upsell["score"] == pytest.approx(score, abs=1e-5)
    assert upsell["label"] == label


def test_an_answer_has_the_stated_shape(client, customer_id):
    client.store(customer_id, customer())
    scored = client.score(customer_id)
    assert UUID_V7.match(scored["prediction_id"])
    assert scored["customer_id"] == customer_id
    assert scored["features"]["missing"] == []
    assert scored["features"]["unknown"] == []
    assert scored["features"]["stale"] == []
    for prediction in scored["predictions"]:
        assert prediction["version"] == "1"
        assert 0 < prediction["score"] < 1
        assert prediction.get("reasons") is None, "reasons come only when asked for"


def test_the_same_question_gets_the_same_bits_and_a_new_id(client, customer_id):
    client.store(customer_id, customer())
    first, second = client.score(customer_id, explain=5), client.score(customer_id, explain=5)
    assert first["predictions"] == second["predictions"]
    assert first["prediction_id"] != second["prediction_id"]


def test_models_left_out_means_every_model_of_the_view(client, customer_id):
    client.store(customer_id, customer())
    assert {p["model"] for p in client.score(customer_id)["predictions"]} == {"churn", "upsell"}
    for models in (["churn"], ["upsell"], ["upsell", "churn"]):
        predictions = client.score(customer_id, models=models)["predictions"]
        assert [p["model"] for p in predictions] == models, "answered in the order asked"


def test_an_override_counts_for_one_request_and_is_not_stored(client, customer_id):
    client.store(customer_id, customer(contract="Month-to-month"))
    plain = churn_score(client.score(customer_id))
    overridden = churn_score(client.score(customer_id, features={"contract": "Two year", "tenure": 70}))
    assert overridden == pytest.approx(expected_churn(customer(contract="Two year", tenure=70)), abs=1e-5)
    assert overridden < plain
    assert client.stored(customer_id)["contract"]["value"] == "Month-to-month"
    assert churn_score(client.score(customer_id)) == plain


def test_a_null_override_hides_the_stored_value(client, customer_id):
    client.store(customer_id, customer(total_charges=590.5))
    overridden = churn_score(client.score(customer_id, features={"total_charges": None}))
    assert overridden == pytest.approx(expected_churn(customer(total_charges=None)), abs=1e-5)


def test_upsell_offers_nothing_to_who_holds_everything(client, customer_id):
    client.store(customer_id, customer(**{name: "Yes" for name in ADD_ONS}))
    prediction = prediction_of(client.score(customer_id, models=["upsell"], explain=3), "upsell")
    assert prediction["score"] == 0
    assert prediction.get("label") is None


def test_upsell_never_offers_what_is_held(client, customer_id):
    client.store(customer_id, customer())
    held = {name: "No" for name in ADD_ONS}
    for _ in ADD_ONS:
        label = prediction_of(client.score(customer_id, models=["upsell"], features=held), "upsell")["label"]
        assert held[label] == "No"
        held[label] = "Yes"
    assert set(held.values()) == {"Yes"}, "each add-on was the best one once"


# What was missing or unknown.


def test_features_never_stored_are_reported_as_missing_and_take_their_defaults(client, customer_id):
    client.store(customer_id, {"tenure": 7})
    scored = client.score(customer_id, models=["churn"])
    # These have no default: the graph imputes them.
    assert {"monthly_charges", "total_charges"} <= set(scored["features"]["missing"])
    assert "tenure" not in scored["features"]["missing"]
    assert set(scored["features"]["missing"]) <= set(FEATURES)
    defaults = {
        "gender": "Female",
        "senior_citizen": 0,
        "tenure": 7,
        "monthly_charges": None,
        "total_charges": None,
        **{name: "No" for name in ["partner", "dependents", "multiple_lines", "internet_service", *ADD_ONS]},
        "phone_service": "Yes",
        "contract": "Month-to-month",
        "paperless_billing": "Yes",
        "payment_method": "Electronic check",
    }
    assert churn_score(scored) == pytest.approx(expected_churn(defaults), abs=1e-5)


def test_a_category_never_seen_is_reported_and_passed_on(client, customer_id):
    client.store(customer_id, customer())
    scored = client.score(customer_id, features={"payment_method": "Barter"})
    assert scored["features"]["unknown"] == ["payment_method"]
    assert churn_score(scored) == pytest.approx(expected_churn(customer(payment_method="Barter")), abs=1e-5)


# Reasons.


def sum_of(reasons):
    return reasons["base"] + math.fsum(c["contribution"] for c in reasons["contributions"]) + reasons["other"]


def assert_sums_to_log_odds(prediction):
    score = prediction["score"]
    log_odds = math.log(score / (1 - score))
    # The graph computes in float32: the log-odds of the printed score is known no better than this.
    tolerance = 1e-5 + 2.0**-23 / (score * (1 - score))
    assert sum_of(prediction["reasons"]) == pytest.approx(log_odds, abs=tolerance)


@pytest.mark.parametrize("features", VARIED)
@pytest.mark.parametrize("explain", [1, 5, 19])
def test_base_contributions_and_other_are_the_log_odds(client, customer_id, features, explain):
    client.store(customer_id, features)
    for prediction in client.score(customer_id, explain=explain)["predictions"]:
        if prediction["model"] == "upsell" and prediction.get("label") is None:
            continue
        assert_sums_to_log_odds(prediction)


@pytest.mark.parametrize("features", VARIED)
def test_a_contribution_is_the_weight_times_the_distance_from_the_baseline(client, customer_id, features):
    client.store(customer_id, features)
    for prediction in client.score(customer_id, explain=len(FEATURES))["predictions"]:
        model = LinearModel(prediction["model"])
        output = ADD_ONS.index(prediction["label"]) if prediction["model"] == "upsell" else 0
        origin = baseline(prediction["model"])
        reasons = prediction["reasons"]
        assert reasons["base"] == pytest.approx(model.log_odds(origin, output), abs=1e-5)
        assert reasons["other"] == pytest.approx(0, abs=1e-5), "nothing is left over when all are named"
        named = {c["feature"]: c for c in reasons["contributions"]}
        assert len(named) == len(reasons["contributions"])
        assert set(named) <= set(model.features), "only what the model looks at"
        for feature in model.features:
            want = model.term(feature, features[feature], output) - model.term(
                feature, origin[feature], output
            )
            got = named[feature]["contribution"] if feature in named else 0.0
            assert got == pytest.approx(want, abs=1e-5), feature
            if feature in named:
                assert named[feature]["value"] == features[feature]


def test_explain_n_names_the_n_largest_in_order(client, customer_id):
    features = VARIED[2]
    client.store(customer_id, features)
    everything = prediction_of(client.score(customer_id, explain=len(FEATURES)), "churn")["reasons"]
    sizes = [abs(c["contribution"]) for c in everything["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    for n in (1, 3, 7):
        reasons = prediction_of(client.score(customer_id, explain=n), "churn")["reasons"]
        assert reasons["contributions"] == everything["contributions"][:n]
        rest = everything["other"] + math.fsum(c["contribution"] for c in everything["contributions"][n:])
        assert reasons["other"] == pytest.approx(rest, abs=1e-5)


def test_the_baseline_customer_is_explained_by_the_base_alone(client, customer_id):
    client.store(customer_id, baseline("churn"))
    prediction = prediction_of(client.score(customer_id, models=["churn"], explain=19), "churn")
    assert_sums_to_log_odds(prediction)
    for contribution in prediction["reasons"]["contributions"]:
        assert contribution["contribution"] == pytest.approx(0, abs=1e-6)


def test_contributions_report_the_override_not_the_stored_value(client, customer_id):
    client.store(customer_id, customer(contract="Month-to-month"))
    scored = client.score(customer_id, explain=19, features={"contract": "Two year"})
    named = {c["feature"]: c for c in prediction_of(scored, "churn")["reasons"]["contributions"]}
    assert named["contract"]["value"] == "Two year"
    assert_sums_to_log_odds(prediction_of(scored, "churn"))
