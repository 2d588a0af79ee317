"""The project's Python client on a real server, waiting and asynchronous."""

import asyncio
import datetime
import inspect
import json
from pathlib import Path

import bellwether
import pandas
import polars
import pyarrow
import pytest

from clients import run_client
from telco import customer

SCRIPT = Path(__file__).parent / "clients" / "bellwether_client.py"


@pytest.mark.parametrize("library", ["arrow", "pandas", "polars"])
def test_features_are_pushed_and_come_back_as_they_were_known(shared_server, library):
    ended = run_client("python", SCRIPT, f"http://{shared_server.address}", library)
    assert ended.returncode == 0, ended.stdout
    said = json.loads(ended.stdout.splitlines()[-1])

    # Null and NaN are known to be missing; a row that does not fit is refused, the others are written.
    assert said["pushed"] == 3
    written, refused_total, refused = said["partly"]
    assert (written, refused_total) == (3, 1)
    assert refused[0][0] == 2 and "tenure" in refused[0][1]
    assert "tenur" in said["typo"] and "tenure?" in said["typo"]

    # What was known at the time: the last values; of a time before the push, and of a stranger, defaults.
    assert said["library"] == ("pyarrow" if library == "arrow" else library)
    assert said["arrow"] is True
    assert said["tenure"] == [4, 41, 0, 0]
    assert said["charges_missing"] == [False, True, True, True]
    assert said["churned"] == [1, 0, 1, 0]

    status, problem = said["unknown"]
    assert status == 404 and "custmer" in problem
    assert "127.0.0.1:9" in said["lost"]


class Waiting:
    """An asynchronous client, or a part of it, whose calls are waited for: tests are written once."""

    def __init__(self, inner, loop):
        self.inner, self.loop = inner, loop

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(found):
            return Waiting(found, self.loop)
        return lambda *arguments, **options: self.loop.run_until_complete(found(*arguments, **options))


@pytest.fixture(params=["threads", "asyncio"])
def python(request, shared_server):
    url = f"http://{shared_server.address}"
    if request.param == "threads":
        with bellwether.Client(url) as client:
            yield client
        return
    loop = asyncio.new_event_loop()
    client = Waiting(bellwether.AsyncClient(url), loop)
    yield client
    client.close()
    loop.close()


def test_a_customer_is_scored_with_reasons_and_the_outcome_reported(python, customer_id):
    python.features.push(pandas.DataFrame([{"customer_id": customer_id, **customer(total_charges=None)}]))
    scores = python.score(customer_id, explain=3, features={"tenure": 70}, deadline=30)
    assert scores.customer_id == customer_id and scores.missing == ["total_charges"]
    assert {prediction.model for prediction in scores} == {"churn", "upsell"}
    assert 0 < scores["churn"].score < python.score(customer_id, models="churn")["churn"].score
    assert scores["churn"].version == 1 and scores["churn"].label is None
    reasons = scores["churn"].reasons
    assert len(reasons.contributions) == 3
    with pytest.raises(KeyError, match="no prediction of 'chrun'; those there are: churn, upsell"):
        scores["chrun"]

    told = python.outcome(
        "churn", prediction_id=scores.prediction_id, value=1.0, outcome_id=f"o-{customer_id}"
    )
    again = python.outcome(
        "churn", prediction_id=scores.prediction_id, value=1.0, outcome_id=f"o-{customer_id}"
    )
    assert (told.duplicate, again.duplicate) == (False, True)
    with pytest.raises(bellwether.Conflict):
        python.outcome("churn", customer_id=customer_id, outcome_id=f"o-{customer_id}")
    now = datetime.datetime.now(datetime.timezone.utc)
    assert not python.outcome("stayed", customer_id=customer_id, occurred_at=now).duplicate


def test_many_customers_are_scored_in_their_order(python, customer_id):
    ids = [f"{customer_id}-{number}" for number in range(25)]
    python.features.push(
        pandas.DataFrame([{"customer_id": one, **customer(tenure=3 * n)} for n, one in enumerate(ids)])
    )
    told = []
    scores = python.score_many(ids, models=["churn"], progress=told.append)
    assert [answer.customer_id for answer in scores] == ids
    alone = [python.score(one, models="churn")["churn"].score for one in ids]
    assert [answer["churn"].score for answer in scores] == alone
    assert (told[-1].done, told[-1].total) == (25, 25)
    assert python.score_many([]) == []
    with pytest.raises(bellwether.NotFound):
        python.score_many([*ids, "nobody at all"])


@pytest.mark.parametrize("library", ["arrow", "pandas", "polars"])
def test_a_table_is_scored_as_its_customers_are_one_by_one(python, customer_id, library):
    ids = [f"{customer_id}-{number}" for number in range(20)]
    python.features.push(
        pandas.DataFrame([{"customer_id": one, **customer(tenure=3 * n)} for n, one in enumerate(ids)])
    )
    rows = {"customer_id": [*ids, "nobody at all"], "monthly_charges": [20.5] * 20 + [None]}
    frame = {"arrow": pyarrow.table, "pandas": pandas.DataFrame, "polars": polars.DataFrame}[library](rows)
    told = []
    scores = python.score_batch(frame, explain=2, returns=library, progress=told.append)
    assert type(scores) is {"arrow": pyarrow.Table}.get(library, type(frame))
    columns = scores.to_pydict() if library == "arrow" else {n: list(scores[n]) for n in frame_columns(scores)}
    alone = [python.score(one, features={"monthly_charges": 20.5}, explain=2) for one in ids]
    assert columns["customer_id"] == rows["customer_id"]
    assert columns["churn_score"][:20] == [one["churn"].score for one in alone]
    assert columns["upsell_label"][:20] == [one["upsell"].label for one in alone]
    reasons = json.loads(columns["churn_reasons"][0])
    assert [r["feature"] for r in reasons["contributions"]] == [
        r.feature for r in alone[0]["churn"].reasons.contributions
    ]
    assert "no such customer" in columns["error"][20]
    assert (told[-1].done, told[-1].total) == (21, 21)
    with pytest.raises(bellwether.InvalidRequest, match="did you mean tenure"):
        python.score_batch(pandas.DataFrame({"customer_id": ids, "tenuer": 3}))
    empty = python.score_batch(pyarrow.table({"customer_id": pyarrow.array([], "string")}), models="churn")
    assert empty.num_rows == 0 and "churn_score" in empty.column_names


def frame_columns(frame):
    return list(frame.columns)


def test_events_count_and_what_is_known_is_read_back(python, customer_id):
    now = datetime.datetime.now(datetime.timezone.utc)
    ticket = {
        "event": "ticket",
        "customer_id": customer_id,
        "occurred_at": now - datetime.timedelta(minutes=1),
    }
    assert python.events.send({**ticket, "event_id": f"{customer_id}-1"}).accepted == 1
    sent = python.events.send(
        [{**ticket, "event_id": f"{customer_id}-1"}, ticket, {**ticket, "customer_id": ""}]
    )
    assert (sent.accepted, sent.duplicates, sent.refused_total) == (1, 1, 1)
    assert sent.refused[0].index == 2 and "customer_id" in sent.refused[0].error
    table = pandas.DataFrame(
        {
            "event_id": [f"{customer_id}-p{number}" for number in range(3)],
            "event": "payment",
            "customer_id": customer_id,
            "occurred_at": pandas.Timestamp(now) - pandas.to_timedelta([1, 2, 3], unit="h"),
            "status": ["failed", None, "failed"],
            "amount": [10.5, 20.0, None],
        }
    )
    assert python.events.send(table).accepted == 3

    features = python.features.get(customer_id)["features"]
    assert features["tickets_1h"]["value"] == 2
    assert features["payments_failed_90d"]["value"] == 2
    with pytest.raises(bellwether.InvalidRequest, match="customer_id"):
        python.events.send({**ticket, "customer_id": ""})


def test_models_are_listed_and_what_is_wrong_is_an_exception_in_the_words_of_the_server(python, customer_id):
    assert {(version.model, version.state) for version in python.models.list()} >= {("churn", "champion")}
    (churn,) = python.models.list("churn")
    assert churn.version == 1 and len(churn.digest) == 64
    with pytest.raises(bellwether.NotFound) as unknown:
        python.score(customer_id)
    assert unknown.value.status == 404 and customer_id in str(unknown.value)
    python.features.push(pandas.DataFrame([{"customer_id": customer_id, "tenure": 3}]))
    with pytest.raises(bellwether.InvalidRequest, match="tenur"):
        python.score(customer_id, features={"tenur": 3})
    with pytest.raises(bellwether.InvalidRequest, match="tenure"):
        python.features.push(pandas.DataFrame([{"customer_id": customer_id, "tenure": -3}]))
