"""What POST /v1/outcomes promises: acknowledged once, whatever the network makes of it."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from telco import customer


@pytest.fixture
def prediction_id(client, customer_id):
    client.store(customer_id, customer())
    return client.score(customer_id)["prediction_id"]


def new_id():
    return str(uuid.uuid4())


def accepted(answer):
    assert answer.status in (200, 201), answer
    return answer.json()


def test_an_outcome_is_accepted_once(client, prediction_id):
    outcome = {"outcome_id": new_id(), "prediction_id": prediction_id, "outcome": "churn", "value": 1.0}
    first = accepted(client.post("/v1/outcomes", outcome))
    assert first["outcome_id"] == outcome["outcome_id"]
    assert not first.get("duplicate")
    for _ in range(3):
        again = client.post("/v1/outcomes", outcome)
        assert again.status == 200
        assert again.json()["outcome_id"] == outcome["outcome_id"]
        assert again.json()["duplicate"] is True


@pytest.mark.parametrize(
    "change",
    [{"outcome": "stayed"}, {"value": 0.0}, {"value": None}, {"occurred_at": "2026-01-02T00:00:00Z"}],
    ids=lambda change: next(iter(change)),
)
def test_the_same_id_with_other_content_is_a_conflict(client, prediction_id, change):
    outcome = {
        "outcome_id": new_id(),
        "prediction_id": prediction_id,
        "outcome": "churn",
        "value": 1.0,
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    accepted(client.post("/v1/outcomes", outcome))
    conflict = client.post("/v1/outcomes", {**outcome, **change})
    assert conflict.status == 409
    assert "outcome_id" in conflict.error()
    assert client.post("/v1/outcomes", outcome).json()["duplicate"] is True, "the first one stands"


def test_an_outcome_without_an_id_is_given_one(client, prediction_id):
    outcome = {"prediction_id": prediction_id, "outcome": "churn"}
    first = accepted(client.post("/v1/outcomes", outcome))["outcome_id"]
    second = accepted(client.post("/v1/outcomes", outcome))["outcome_id"]
    assert first and second and first != second


def test_an_outcome_may_name_the_customer_instead(client, customer_id):
    client.store(customer_id, customer())
    accepted(
        client.post("/v1/outcomes", {"outcome_id": new_id(), "customer_id": customer_id, "outcome": "churn"})
    )


def test_an_outcome_for_a_prediction_made_elsewhere_is_kept(client):
    # Another replica may have made it: version 7 of UUID, never seen by this server.
    elsewhere = "01890a5d-ac96-774b-bcce-b302099a8057"
    accepted(
        client.post("/v1/outcomes", {"outcome_id": new_id(), "prediction_id": elsewhere, "outcome": "churn"})
    )


def test_times_are_taken_with_any_offset(client, prediction_id):
    outcome = {"outcome_id": new_id(), "prediction_id": prediction_id, "outcome": "churn"}
    accepted(client.post("/v1/outcomes", {**outcome, "occurred_at": "2026-03-01T12:00:00+02:00"}))
    same_moment = client.post("/v1/outcomes", {**outcome, "occurred_at": "2026-03-01T10:00:00Z"})
    assert same_moment.status == 200, "the same moment written differently is the same outcome"
    assert same_moment.json()["duplicate"] is True


def test_many_sending_the_same_outcome_at_once_add_it_once(shared_server, prediction_id):
    outcome = {"outcome_id": new_id(), "prediction_id": prediction_id, "outcome": "churn", "value": 1.0}

    def send(_):
        client = shared_server.client()
        answer = accepted(client.post("/v1/outcomes", outcome))
        client.close()
        return bool(answer.get("duplicate"))

    with ThreadPoolExecutor(16) as threads:
        duplicates = list(threads.map(send, range(64)))
    assert duplicates.count(False) == 1
