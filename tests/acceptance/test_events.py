"""POST /v1/events and /v1/features: what happened and what is known, in every form it is sent in."""

import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import polars
import pytest

from server import Server

VIEWS = {
    "customer": """
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "tenure"
type = "int64"
min = 0

[[feature]]
name = "contract"
type = "string"

[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = ["1h", "30d"] }
""",
    "cell": """
[view]
name = "cell"
entity = ["site_id", "cell_id"]

[[feature]]
name = "technology"
type = "string"

[[feature]]
name = "drops_1h"
type = "int64"
aggregate = { event = "drop", function = "count", window = "1h" }
""",
}


def make_server(folder, settings="", **options):
    for name in ("models", "features"):
        (folder / name).mkdir()
    for name, text in VIEWS.items():
        (folder / "features" / f"{name}.toml").write_text(text)
    (folder / "bellwether.toml").write_text(settings)
    return Server(
        folder / "data",
        models=folder / "models",
        features=folder / "features",
        arguments=["--config", folder / "bellwether.toml"],
        **options,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with make_server(tmp_path_factory.mktemp("events")) as server:
        yield server


def ago(**time):
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


def event(event_id, customer_id, **fields):
    return {"event_id": event_id, "event": "ticket", "customer_id": customer_id, **fields}


def send(client, body, content_type=None, **headers):
    if content_type:
        headers["Content-Type"] = content_type
    return client.request("POST", "/v1/events", body, headers)


def taken(answer, accepted, duplicates=0):
    """The events of the answer were taken, none was refused."""
    assert answer.status == 200, answer
    assert answer.json() == {"accepted": accepted, "duplicates": duplicates, "refused": [], "refused_total": 0}


def refused(answer):
    """All events of the answer were refused; returns its body."""
    assert answer.status == 422, answer
    reply = answer.json()
    assert (reply["accepted"], reply["duplicates"]) == (0, 0)
    assert reply["refused_total"] >= 1
    return reply


def tickets(client, customer_id, window="30d"):
    return client.stored(customer_id)[f"tickets_{window}"]["value"]


def test_a_customer_known_only_by_events_exists(client, customer_id):
    assert client.get(f"/v1/customers/{customer_id}").status == 404
    taken(client.post("/v1/events", event("1", customer_id)), 1)
    assert tickets(client, customer_id) == 1


def test_windows_move_with_the_time_that_events_occurred_at(client, customer_id):
    events = [
        event("1", customer_id, occurred_at=ago(minutes=5)),
        event("2", customer_id, occurred_at=ago(hours=2)),
        event("3", customer_id, occurred_at=ago(days=31)),
        event("4", customer_id, event="other"),
    ]
    taken(client.post("/v1/events", events), 4)
    assert tickets(client, customer_id, "1h") == 1
    assert tickets(client, customer_id, "30d") == 2


def test_an_event_that_is_sent_again_is_counted_once(client, customer_id):
    first = event("1", customer_id, occurred_at=ago(minutes=1))
    taken(client.post("/v1/events", first), 1)
    for _ in range(3):
        taken(client.post("/v1/events", first), 0, duplicates=1)
    taken(client.post("/v1/events", [first, event("2", customer_id), event("2", customer_id)]), 1, 2)
    assert tickets(client, customer_id) == 2
    # The same id of another customer is another event.
    taken(client.post("/v1/events", event("1", customer_id + "-b")), 1)


def test_events_sent_at_once_are_counted_once(server, customer_id):
    events = [event(str(number), customer_id) for number in range(200)]

    def send_all(_):
        client = server.client()
        return client.post("/v1/events", events).json()

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(send_all, range(8)))
    assert sum(reply["accepted"] for reply in replies) == 200
    assert sum(reply["duplicates"] for reply in replies) == 7 * 200
    assert tickets(server.client(), customer_id) == 200


def lines(events):
    return "\n".join(map(json.dumps, events)) + "\n"


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/jsonl", "application/json"])
def test_lines_of_events(client, customer_id, content_type):
    events = [event(str(number), customer_id) for number in range(10)]
    taken(send(client, lines(events), content_type), 10)
    assert tickets(client, customer_id) == 10


def test_compressed_events(client, customer_id):
    body = gzip.compress(lines([event(str(number), customer_id) for number in range(10)]).encode())
    taken(send(client, body, "application/x-ndjson", **{"Content-Encoding": "gzip"}), 10)
    assert tickets(client, customer_id) == 10


def cloud_event(event_id, customer_id, **changes):
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/crm",
        "type": "ticket",
        "subject": customer_id,
        "time": ago(minutes=1),
        "data": {"severity": "high"},
        **changes,
    }


def test_cloud_events(client, customer_id):
    one = cloud_event("1", customer_id)
    taken(send(client, json.dumps(one), "application/cloudevents+json; charset=utf-8"), 1)
    many = [cloud_event("2", "somebody else", data={"customer_id": customer_id}), one]
    taken(send(client, json.dumps(many), "application/cloudevents-batch+json"), 1, 1)
    taken(send(client, lines([cloud_event("3", customer_id)]), "application/x-ndjson"), 1)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "4",
        "ce-source": "/crm",
        "ce-type": "ticket",
        "ce-subject": quote(customer_id),
    }
    taken(send(client, '{"severity": "low"}', "application/json", **headers), 1)
    assert tickets(client, customer_id) == 4
    reply = refused(send(client, "{}", "application/json", **{**headers, "ce-specversion": "0.3"}))
    assert "specversion" in reply["error"]
    assert send(client, '{"severity"', "application/json", **headers).status == 400


def test_a_table_of_events(client, customer_id):
    frame = polars.DataFrame(
        {
            "event_id": ["1", "2", None],
            "event": ["ticket"] * 3,
            "customer_id": [customer_id] * 3,
            "occurred_at": [datetime.now(UTC) - timedelta(hours=number) for number in (0, 2, 3)],
            "minutes": [1.5, None, 2.0],
        }
    )
    bodies = io.BytesIO()
    frame.write_ipc_stream(bodies)
    answer = send(client, bodies.getvalue(), "application/vnd.apache.arrow.stream")
    assert answer.status == 200, answer
    reply = answer.json()
    assert (reply["accepted"], reply["refused_total"], reply["refused"][0]["index"]) == (2, 1, 2)
    assert tickets(client, customer_id, "1h") == 1
    assert tickets(client, customer_id, "30d") == 2
    cut = send(client, bodies.getvalue()[:-40], "application/vnd.apache.arrow.stream")
    assert cut.status == 400
    assert "Arrow" in cut.error()


def test_good_events_are_taken_and_wrong_ones_listed(client, customer_id):
    events = [
        event("1", customer_id),
        event("2", ""),
        {**event("3", customer_id), "propertys": {}},
        event("4", customer_id),
        event("x" * 257, customer_id),
    ]
    answer = send(client, lines(events), "application/x-ndjson")
    assert answer.status == 200, answer
    reply = answer.json()
    assert (reply["accepted"], reply["duplicates"], reply["refused_total"]) == (2, 0, 3)
    assert [(one["index"], one["line"]) for one in reply["refused"]] == [(1, 2), (2, 3), (4, 5)]
    assert [one["event_id"] for one in reply["refused"][:2]] == ["2", "3"]
    errors = [one["error"] for one in reply["refused"]]
    assert errors[0] == "customer_id: empty"
    assert "did you mean properties?" in errors[1]
    assert errors[2].startswith("event_id: 257 bytes long")
    assert tickets(client, customer_id) == 2


def test_at_most_a_hundred_refused_events_are_listed(client):
    reply = refused(client.post("/v1/events", [{}] * 250))
    assert reply["refused_total"] == 250
    assert [one["index"] for one in reply["refused"]] == list(range(100))
    assert reply["error"].startswith("all 250 events were refused; the first: event_id: missing")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"event_id": None}, "event_id: missing; it makes sending an event again safe"),
        ({"event_id": 7}, "event_id: expected text, found the number 7"),
        ({"event": None}, "event: missing"),
        ({"event": "a ticket"}, "event: expected 1 to 128 letters"),
        ({"customer_id": "a\nb"}, "customer_id: holds control characters"),
        ({"customer_id": "x" * 257}, "customer_id: 257 bytes long"),
        ({"customer_id": 1.5}, "customer_id: expected text or a whole number"),
        ({"customer_id": None}, "customer_id (view customer)"),
        ({"customer_id": None, "site_id": "S-1"}, "found only site_id, expected"),
        ({"occurred_at": "yesterday"}, "occurred_at: expected a time like"),
        ({"occurred_at": 1769860800}, "occurred_at: expected a time like"),
        ({"occurred_at": "1969-12-31T00:00:00Z"}, "occurred_at: expected a time between"),
        ({"occurred_at": "2200-01-01T00:00:00Z"}, "occurred_at: expected a time between"),
        ({"occurred_at": ago(hours=-1)}, "s in the future, at most 5 s"),
        ({"properties": []}, "properties: expected an object, found an array"),
        ({"properties": {"x": "y" * 17_000}}, "at most 16384 are allowed"),
        ({"customerid": "C"}, "did you mean customer_id?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_every_mistake_is_named(client, customer_id, changes, said):
    reply = refused(client.post("/v1/events", {**event("1", customer_id), **changes}))
    assert said in reply["error"]
    assert reply["refused"][0]["error"] == reply["error"]
    assert client.get(f"/v1/customers/{customer_id}").status == 404, "a refused event leaves nothing"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "said"),
    [
        ("", "application/json", 400, "body: empty"),
        ('{"event_id": "1",\n "event" }', "application/json", 400, "line 2, column 10"),
        ('{"event_id": "1"}\n{"event', "application/x-ndjson", 400, "line 2"),
        ("3", "application/json", 422, "found the number 3"),
        ("<event/>", "application/xml", 415, "application/cloudevents+json"),
        ("{}", "application/vnd.apache.arrow.stream", 400, "Arrow"),
        ("[" + ",".join(["{}"] * 10_001) + "]", "application/json", 413, "10000 events"),
    ],
    ids=["empty", "json", "line", "number", "xml", "arrow", "many"],
)
def test_a_body_that_cannot_be_read_takes_nothing(client, body, content_type, status, said):
    answer = send(client, body, content_type)
    assert answer.status == status, answer
    assert said in answer.error()


def test_the_size_of_a_body_is_bounded(tmp_path):
    with make_server(tmp_path, "[events]\nmax_body_bytes = 1000\nmax_batch_events = 3\n") as server:
        client = server.client()
        answer = client.post("/v1/events", [event("1", "x" * 200)] * 10)
        assert answer.status == 413
        assert "events.max_body_bytes" in answer.error()
        answer = client.post("/v1/events", [event("1", "x")] * 4)
        assert answer.status == 413
        assert "events.max_batch_events" in answer.error()
        answer = client.post("/v1/features/customer", [{"customer_id": "x"}] * 4)
        assert answer.status == 413
        assert "events.max_batch_events" in answer.error()


def test_the_future_is_parked_when_that_is_declared(tmp_path, customer_id):
    with make_server(tmp_path, '[events]\nfuture = "park"\nmax_ahead = "2h"\n') as server:
        client = server.client()
        events = [event("1", customer_id, occurred_at=ago(hours=-1))]
        taken(client.post("/v1/events", events), 1)
        assert tickets(client, customer_id) == 0, "its time has not come"
        taken(client.post("/v1/events", events), 0, duplicates=1)
        reply = refused(client.post("/v1/events", event("2", customer_id, occurred_at=ago(hours=-3))))
        assert "events.max_ahead" in reply["error"]


def test_an_event_reaches_every_view_whose_key_it_carries(client, customer_id):
    both = {"event_id": "1", "event": "drop", "customer_id": customer_id, "site_id": 17, "cell_id": "a/b"}
    taken(client.post("/v1/events", {**both, "site_id": customer_id}), 1)
    assert client.get(f"/v1/customers/{customer_id}").status == 200
    answer = client.get(f"/v1/features/cell/{customer_id}/a%2Fb")
    assert answer.status == 200, answer
    assert answer.json()["key"] == {"site_id": customer_id, "cell_id": "a/b"}
    assert answer.json()["features"]["drops_1h"]["value"] == 1


def test_events_are_counted_in_metrics(client, customer_id):
    def counted(outcome, view):
        found = 0.0
        for line in client.get("/metrics").body.decode().splitlines():
            labels = ['source="http"', f'view="{view}"', f'outcome="{outcome}"']
            if line.startswith("bellwether_events_total{") and all(label in line for label in labels):
                found = float(line.split()[-1])
        return found

    outcomes = [("accepted", "customer"), ("duplicate", "customer"), ("refused", "none")]
    before = [counted(*outcome) for outcome in outcomes]
    client.post("/v1/events", [event("1", customer_id), event("2", customer_id), event("1", customer_id), {}])
    after = [counted(*outcome) for outcome in outcomes]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1]
    assert "bellwether_event_lateness_seconds_count" in client.get("/metrics").body.decode()


def test_acknowledged_events_survive_kill(tmp_path, customer_id):
    server = make_server(tmp_path)
    events = [event(str(number), customer_id) for number in range(100)]
    taken(server.client().post("/v1/events", events), 100)
    server.kill()
    again = Server(tmp_path / "data", models=tmp_path / "models", features=tmp_path / "features")
    with again as server:
        client = server.client()
        assert tickets(client, customer_id) == 100
        taken(client.post("/v1/events", events), 0, duplicates=100)


# /v1/features: what is known of entities of any view.


def test_features_of_a_composite_key(client, customer_id):
    path = f"/v1/features/cell/{customer_id}/{quote('7 ä/b', safe='')}"
    key = {"site_id": customer_id, "cell_id": "7 ä/b"}
    assert client.get(path).status == 404
    written = client.put(path, {"features": {"technology": "5G"}})
    assert written.status == 200, written
    assert (written.json()["view"], written.json()["key"], written.json()["unknown"]) == ("cell", key, [])
    found = client.get(path).json()
    assert (found["view"], found["key"]) == ("cell", key)
    assert found["features"]["technology"]["value"] == "5G"
    assert found["features"]["drops_1h"]["value"] == 0
    assert client.delete(path).status == 204
    assert client.delete(path).status == 404
    assert client.get(path).status == 404


def test_features_of_customers_are_the_same_by_either_path(client, customer_id):
    answer = client.put(f"/v1/features/customer/{customer_id}", {"features": {"tenure": 3}})
    assert answer.status == 200, answer
    assert client.stored(customer_id)["tenure"]["value"] == 3
    client.store(customer_id, {"tenure": 4})
    found = client.get(f"/v1/features/customer/{customer_id}").json()["features"]
    assert found["tenure"]["value"] == 4


def test_a_value_of_an_earlier_time_does_not_replace_a_later_one(client, customer_id):
    path = f"/v1/features/customer/{customer_id}"
    client.put(path, {"features": {"tenure": 5}})
    answer = client.put(path, {"features": {"tenure": 4, "contract": "old"}, "occurred_at": ago(days=1)})
    assert answer.status == 200, answer
    found = client.get(path).json()["features"]
    assert (found["tenure"]["value"], found["contract"]["value"]) == (5, "old")
    answer = client.put(path, {"features": {"tenure": 4}, "occurred_at": ago(days=-1)})
    assert answer.status == 422
    assert "occurred_at" in answer.error()


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/v1/features/custmer/x", 404, "did you mean customer?"),
        ("GET", "/v1/features/cell/x", 422, "/v1/features/cell/{site_id}/{cell_id}, found 1"),
        ("GET", "/v1/features/cell/x/y/z", 422, "found 3"),
        ("GET", "/v1/features/customer/x%0Ay", 422, "control characters"),
        ("GET", "/v1/features/customer/%FF", 400, "UTF-8"),
        ("GET", "/v1/features/customer/nobody-at-all", 404, "not known in view customer"),
        ("PUT", "/v1/features/customer/x", 422, "features.tenur: no such feature"),
        ("POST", "/v1/features/custmer", 404, "did you mean customer?"),
    ],
)
def test_paths_that_name_nothing_are_refused(client, method, path, status, said):
    body = {"features": {"tenur": 1}} if method == "PUT" else None
    answer = client.request(method, path, body)
    assert answer.status == status, answer
    assert said in answer.error()


def rows(customer_id, count):
    return [
        {"customer_id": f"{customer_id}-{number}", "tenure": number, "contract": None if number % 2 else "One year"}
        for number in range(count)
    ]


def as_csv(table):
    lines = ["customer_id,tenure,contract"]
    lines += [f"{row['customer_id']},{row['tenure']},{row['contract'] or ''}" for row in table]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    ("content_type", "encode"),
    [("application/json", json.dumps), ("application/x-ndjson", lines), ("text/csv", as_csv)],
    ids=["list", "lines", "csv"],
)
def test_rows_for_many_entities(client, customer_id, content_type, encode):
    table = rows(customer_id, 50)
    answer = client.request(
        "POST", "/v1/features/customer", encode(table), {"Content-Type": content_type}
    )
    assert answer.status == 200, answer
    assert answer.json() == {"written": 50, "refused": [], "refused_total": 0}
    for row in table:
        stored = client.stored(row["customer_id"])
        assert {name: stored[name]["value"] for name in ("tenure", "contract")} == {
            "tenure": row["tenure"],
            "contract": row["contract"],
        }


def test_wrong_rows_are_listed_and_the_others_written(client, customer_id):
    table = [
        {"customer_id": customer_id, "tenure": 1},
        {"customer_id": customer_id, "tenure": -1},
        {"tenure": 1},
        {"customer_id": customer_id, "tenur": 1},
        3,
        {"customer_id": customer_id, "tickets_1h": 1},
        {"customer_id": 17, "occurred_at": "now"},
    ]
    answer = client.post("/v1/features/customer", table)
    assert answer.status == 200, answer
    reply = answer.json()
    assert (reply["written"], reply["refused_total"]) == (1, 6)
    assert [row["index"] for row in reply["refused"]] == [1, 2, 3, 4, 5, 6]
    errors = [row["error"] for row in reply["refused"]]
    assert errors[0] == "tenure: -1 is out of range, expected at least 0"
    assert errors[1] == "customer_id: missing"
    assert "did you mean tenure?" in errors[2]
    assert errors[3] == "expected an object, found the number 3"
    assert "tickets_1h" in errors[4]
    assert errors[5].startswith("occurred_at: expected a time")
    answer = client.post("/v1/features/customer", [{"tenure": 1}] * 2)
    assert answer.status == 422
    assert answer.json()["error"] == "all 2 rows were refused; the first: customer_id: missing"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("", 400, "header"),
        ("tenure\n1\n", 422, "no column customer_id"),
        ("customer_id,tenur\nx,1\n", 422, "did you mean tenure?"),
        ("customer_id,tenure,tenure\nx,1,1\n", 422, "is there twice"),
        ("customer_id,tenure\nx,1,2\n", 422, "3 cells, the header has 2"),
        ("customer_id,tenure\nx,one\n", 422, 'tenure: expected int64, found "one"'),
        ("customer_id,tenure\n,1\n", 422, "customer_id: empty"),
    ],
)
def test_csv_that_does_not_fit(client, body, status, said):
    answer = client.request("POST", "/v1/features/customer", body, {"Content-Type": "text/csv"})
    assert answer.status == status, answer
    assert said in answer.json()["error"]
