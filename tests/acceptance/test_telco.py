"""The main job on real data: every customer of the public IBM Telco set is stored and scored over
HTTP, and the answers hold up against scikit-learn's figures and ONNX Runtime."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from sklearn.metrics import roc_auc_score

from models import best_add_on, reference
from server import Server, prediction_of
from telco import ADD_ONS, ibm_customers

# scikit-learn's logistic regression on the same split, and how far below it an answer may be.
SKLEARN_AUC = 0.837
MARGIN = 0.005
# More than this on these data means that the answer leaked into the features.
LEAKAGE_AUC = 0.86

CONNECTIONS = 4


@pytest.fixture(scope="module")
def customers():
    return ibm_customers()


@pytest.fixture(scope="module")
def scored(customers, tmp_path_factory):
    """The answer of /v1/score for every customer, in the order of the file."""

    def store_and_score(part):
        client = server.client()
        answers = []
        for customer_id, features, _ in part:
            client.store(quote(customer_id), features)
            answers.append(client.score(customer_id, models=["churn", "upsell"]))
        client.close()
        return answers

    with Server(tmp_path_factory.mktemp("telco") / "data") as server:
        parts = [customers[start::CONNECTIONS] for start in range(CONNECTIONS)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            answered = list(threads.map(store_and_score, parts))
    in_order = [None] * len(customers)
    for start, answers in enumerate(answered):
        in_order[start::CONNECTIONS] = answers
    return in_order


def test_every_customer_is_scored_once(customers, scored):
    assert len(customers) == len(scored) == 7043
    assert [answer["customer_id"] for answer in scored] == [customer_id for customer_id, _, _ in customers]
    assert len({answer["prediction_id"] for answer in scored}) == 7043


def test_churn_ranks_the_hold_out_as_well_as_scikit_learn(customers, scored):
    hold_out = [index for index in range(len(customers)) if index % 5 == 4]
    churned = [customers[index][2] for index in hold_out]
    scores = [prediction_of(scored[index], "churn")["score"] for index in hold_out]
    auc = roc_auc_score(churned, scores)
    print(f"AUC of churn on {len(hold_out)} hold-out customers: {auc:.4f}")
    assert SKLEARN_AUC - MARGIN <= auc <= LEAKAGE_AUC


def test_churn_scores_equal_onnxruntime(customers, scored):
    expected = reference("churn").run([features for _, features, _ in customers])["probabilities"][:, 1]
    differences = [
        abs(prediction_of(answer, "churn")["score"] - float(want)) for answer, want in zip(scored, expected)
    ]
    print(f"largest difference: {max(differences):.2e}")
    assert max(differences) <= 1e-5


def test_upsell_picks_the_likeliest_add_on_not_held_as_onnxruntime_does(customers, scored):
    expected = reference("upsell").run([features for _, features, _ in customers])["probabilities"]
    for (customer_id, features, _), answer, probabilities in zip(customers, scored, expected):
        prediction = prediction_of(answer, "upsell")
        score, label = best_add_on(features, probabilities)
        assert abs(prediction["score"] - score) <= 1e-5, customer_id
        if prediction.get("label") != label:
            # Two add-ons may be equally likely up to the last bits; either is then the best.
            chosen = float(probabilities[ADD_ONS.index(prediction["label"])])
            assert features[prediction["label"]] != "Yes", customer_id
            assert abs(chosen - score) <= 1e-5, customer_id


def test_who_holds_every_add_on_is_offered_none(customers, scored):
    holders = [
        i for i, (_, features, _) in enumerate(customers) if all(features[a] == "Yes" for a in ADD_ONS)
    ]
    assert holders, "the data has such customers"
    for index in holders:
        prediction = prediction_of(scored[index], "upsell")
        assert prediction["score"] == 0
        assert prediction.get("label") is None


def test_blank_total_charges_is_reported_and_imputed(customers, scored):
    blank = [i for i, (_, features, _) in enumerate(customers) if features["total_charges"] is None]
    assert len(blank) == 11
    for index in blank:
        assert 0 < prediction_of(scored[index], "churn")["score"] < 1
        assert "total_charges" in scored[index]["features"]["missing"]
