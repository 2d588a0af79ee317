"""Events from NATS JetStream and from files: the same state as over HTTP, whatever is killed or stopped
in between; what is no event ends in the dead-letter file."""

import gzip
import json
import random
import threading
import time

import pytest

from metrics import metric
from nats_server import NatsServer, needs_nats
from server import Server, refuse, succeed

pytestmark = needs_nats

DEADLINE_SECONDS = 300
CUSTOMERS = 40

VIEW = """
[view]
name = "customer"
entity = "customer_id"

[[feature]]
name = "tickets"
type = "int64"
aggregate = { event = "ticket", function = "count", window = "90d" }

[[feature]]
name = "hours"
type = "float64"
aggregate = { event = "ticket", function = "sum", window = "90d", value = "hours" }

[[feature]]
name = "longest"
type = "float64"
aggregate = { event = "ticket", function = "max", window = "30d", value = "hours" }

[[feature]]
name = "topics"
type = "int64"
aggregate = { event = "ticket", function = "count_distinct", window = "30d", value = "topic" }

[[feature]]
name = "last_topic"
type = "string"
aggregate = { event = "ticket", function = "last", window = "7d", value = "topic" }
"""


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "customer.toml").write_text(VIEW)
    return folder


@pytest.fixture
def nats(tmp_path):
    with NatsServer(tmp_path / "nats") as server:
        server.make_stream()
        yield server


def make_events(count, seed=7):
    """Events of the last hours, so that none leaves its window while a test runs; a tenth comes twice, and
    they come in no order."""
    chance = random.Random(seed)
    now = time.time()
    events = []
    for number in range(count):
        occurred_at = now - 3600 - chance.random() * 3 * 3600
        seconds, micros = int(occurred_at), int(occurred_at % 1 * 1e6)
        events.append(
            {
                "event_id": f"ticket-{number}",
                "event": "ticket",
                "customer_id": f"customer-{chance.randrange(CUSTOMERS)}",
                "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06}Z",
                "properties": {
                    "hours": chance.randrange(1, 400) / 4,
                    "topic": chance.choice(["billing", "speed", "outage", "move"]),
                },
            }
        )
    events += chance.sample(events, count // 10)
    chance.shuffle(events)
    return events


def expected_state(events):
    """What the events come to, computed here."""
    state = {}
    for event in {event["event_id"]: event for event in events}.values():
        state.setdefault(event["customer_id"], []).append(event)
    expected = {}
    for customer, own in state.items():
        hours = [event["properties"]["hours"] for event in own]
        last = max(own, key=lambda event: event["occurred_at"])
        expected[customer] = {
            "tickets": len(own),
            "hours": sum(hours),
            "longest": max(hours),
            "topics": len({event["properties"]["topic"] for event in own}),
            "last_topic": last["properties"]["topic"],
        }
    return expected


def state_of(server):
    client = server.client()
    state = {}
    for number in range(CUSTOMERS):
        customer = f"customer-{number}"
        answer = client.get(f"/v1/customers/{customer}")
        if answer.status != 404:
            assert answer.status == 200, answer
            features = answer.json()["features"]
            state[customer] = {name: feature["value"] for name, feature in features.items()}
    return state


def write_config(tmp_path, nats, **settings):
    settings = {
        "kind": "nats",
        "url": nats.url,
        "stream": "events",
        "consumer": "bellwether",
        "ack_wait": "2s",
        **settings,
    }
    config = tmp_path / "bellwether.toml"
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    config.write_text("[[source]]\n" + "\n".join(lines) + "\n")
    return ("--config", config)


def told(server, name, source="events"):
    """The value of a source's metric; 0 before there is one."""
    return metric(server.client(), f"bellwether_source_{name}", source=source)


def wait_for(what, condition, server=None, seconds=DEADLINE_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n" + (
            server.log_text() if server else ""
        )
        time.sleep(0.02)  # between two looks


def wait_until_consumed(nats, server, count):
    """Until every message of the stream is acknowledged."""

    def consumed():
        info = nats.consumer()
        return (
            info is not None
            and info.num_pending == 0
            and info.num_ack_pending == 0
            and info.ack_floor.stream_seq >= count
        )

    wait_for(f"{count} messages acknowledged", consumed, server)


def messages_of(events):
    return [json.dumps(event).encode() for event in events]


def test_the_same_stream_over_http_nats_and_files_ends_in_the_same_state(tmp_path, features, nats):
    events = make_events(3000)
    expected = expected_state(events)

    # Over HTTP
    with Server(tmp_path / "http", features=features) as server:
        client = server.client()
        for start in range(0, len(events), 500):
            answer = client.post("/v1/events", events[start : start + 500])
            assert 200 <= answer.status < 300, answer
        assert state_of(server) == expected

    # From NATS
    nats.publish(messages_of(events))
    arguments = write_config(tmp_path, nats)
    with Server(tmp_path / "nats-data", features=features, arguments=arguments) as server:
        wait_until_consumed(nats, server, len(events))
        assert state_of(server) == expected
        assert told(server, "received_total") >= len(events)
        assert told(server, "dead_letters_total") == 0

    # From files, one after the other
    ndjson, packed = tmp_path / "first.ndjson", tmp_path / "second.ndjson.gz"
    lines = [json.dumps(event) + "\n" for event in events]
    ndjson.write_text("".join(lines[:1000]))
    with gzip.open(packed, "wt") as file:
        file.writelines(lines[1000:])
    load = ("events", "load", ndjson, packed, "--data-dir", tmp_path / "file", "--features", features)
    report = json.loads(succeed(*load, "--json").stdout)
    assert report["read"] == len(events) and report["rejected"] == 0, report
    assert report["written"] == 3000 and report["duplicates"] == 300, report
    with Server(tmp_path / "file", features=features) as server:
        assert state_of(server) == expected


def test_a_server_killed_while_it_consumes_ends_in_the_same_state(tmp_path, features, nats):
    events = make_events(6000, seed=11)
    arguments = write_config(tmp_path, nats)
    data_dir = tmp_path / "data"

    # Given a stream that goes on while the server is killed again and again in the middle of it,
    half = len(events) // 2
    nats.publish(messages_of(events[:half]))
    rest = threading.Thread(target=nats.publish, args=(messages_of(events[half:]),))
    killed_within = 0
    for kill in range(3):
        server = Server(data_dir, features=features, arguments=arguments)
        if kill == 0:
            rest.start()
        wait_for("something consumed", lambda: told(server, "received_total") > 0, server)
        killed_within += nats.consumer().ack_floor.stream_seq < len(events)
        server.kill()
    rest.join()
    assert killed_within > 0, "the stream was consumed before the first kill"

    # then a last start ends where a server that was not killed would be.
    with Server(data_dir, features=features, arguments=arguments) as server:
        wait_until_consumed(nats, server, len(events))
        assert state_of(server) == expected_state(events)
        wait_for("the lag is told", lambda: told(server, "lag_messages") == 0, server)


def test_poison_is_put_aside_with_the_reason_and_does_not_block(tmp_path, features, nats):
    good = make_events(100)
    binary = b"\xff\xfe\x00"
    poison = [
        b"{this is no JSON",
        binary,
        b"",
        b"42",
        json.dumps({**good[0], "event_id": None}).encode(),
        json.dumps({**good[0], "event_id": "x", "occurred_at": "yesterday"}).encode(),
        json.dumps({"event_id": "y", "event": "ticket", "occurred_at": good[0]["occurred_at"]}).encode(),
        json.dumps({**good[0], "event_id": "z", "occurred_at": "2199-01-01T00:00:00Z"}).encode(),
    ]
    nats.publish(poison + messages_of(good))
    data_dir = tmp_path / "data"
    arguments = write_config(tmp_path, nats, name="crm")
    with Server(data_dir, features=features, arguments=arguments) as server:
        wait_until_consumed(nats, server, len(poison) + len(good))
        assert state_of(server) == expected_state(good)
        assert told(server, "dead_letters_total", source="crm") == len(poison)
        # Counted when the broker has been told.
        count = len(poison) + len(good)
        wait_for("all counted", lambda: told(server, "acknowledged_total", source="crm") >= count, server)

    file = data_dir / "dead-letters" / "crm.ndjson"
    letters = [json.loads(line) for line in file.read_text().splitlines()]
    assert [letter["sequence"] for letter in letters] == list(range(1, len(poison) + 1))
    for letter, payload in zip(letters, poison, strict=True):
        assert letter["stream"] == "events" and letter["subject"] == "events.crm"
        assert letter["time"].endswith("Z")
        if payload == binary:
            assert letter["payload_base64"] == "//4A"
        else:
            assert letter["payload"] == payload.decode()
    reasons = [letter["reason"] for letter in letters]
    for reason, word in zip(reasons[4:], ["event_id", "yesterday", "customer_id", "future"], strict=True):
        assert word in reason, reasons
    assert file.stat().st_mode & 0o077 == 0, "it holds what customers' events hold"


def test_nats_that_is_not_there_yet_or_goes_away_is_waited_for(tmp_path, features):
    events = make_events(300)
    nats = NatsServer(tmp_path / "nats")
    arguments = write_config(tmp_path, nats)
    with Server(tmp_path / "data", features=features, arguments=arguments) as server:
        # Given no NATS at all, the server serves and says so once,
        wait_for("the log says that NATS is missing", lambda: unavailable(server), server)
        client = server.client()
        assert client.get("/readyz").status == 200
        assert told(server, "connected") == 0
        try:
            # and once NATS is there, without the stream,
            nats.start()
            wait_for("the log says which stream is missing", lambda: "does not exist" in server.log_text(), server)
            # and then with it, it consumes.
            nats.make_stream()
            nats.publish(messages_of(events[:100]))
            wait_until_consumed(nats, server, 100)
            assert told(server, "connected") == 1

            # When NATS is stopped and started again,
            nats.stop()
            wait_for("not connected", lambda: told(server, "connected") == 0, server)
            assert client.get("/readyz").status == 200
            nats.start()
            nats.publish(messages_of(events[100:]))

            # then it goes on where it was.
            wait_until_consumed(nats, server, len(events))
            assert state_of(server) == expected_state(events)
            # One line for each reason, not for each try
            reason = None
            for entry in server.entries():
                if entry.get("message") == "source connected":
                    reason = None
                elif entry in unavailable(server):
                    assert entry["reason"] != reason, server.log_text()
                    reason = entry["reason"]
        finally:
            nats.stop()


def unavailable(server):
    return [e for e in server.entries() if e.get("message", "").startswith("source unavailable")]


def test_a_stop_acknowledges_what_was_applied(tmp_path, features, nats):
    events = make_events(2000)
    nats.publish(messages_of(events))
    arguments = write_config(tmp_path, nats, ack_wait="1h")
    with Server(tmp_path / "data", features=features, arguments=arguments) as server:
        wait_for("something consumed", lambda: told(server, "received_total") > 0, server)
    # Stopped in the middle, it left nothing that would have to wait for an hour. The broker may still be
    # at what the server sent last.
    wait_for("nothing pending", lambda: nats.consumer().num_ack_pending == 0)
    with Server(tmp_path / "data", features=features, arguments=arguments) as server:
        wait_until_consumed(nats, server, len(events))
        assert state_of(server) == expected_state(events)


def test_two_servers_share_a_consumer(tmp_path, features, nats):
    events = make_events(1000)
    # Nothing is delivered again because a busy machine took its time.
    arguments = write_config(tmp_path, nats, ack_wait="1h")
    with (
        Server(tmp_path / "one", features=features, arguments=arguments) as one,
        Server(tmp_path / "two", features=features, arguments=arguments) as two,
    ):
        nats.publish(messages_of(events))
        wait_until_consumed(nats, one, len(events))
        received = told(one, "received_total"), told(two, "received_total")
        assert sum(received) == len(events), received


def test_a_user_with_a_password_which_nobody_reads_in_the_log(tmp_path, features):
    events = make_events(20)
    with NatsServer(tmp_path / "nats", user="crm", password="pass word/%") as nats:
        nats.make_stream()
        nats.publish(messages_of(events))
        wrong = nats.url.replace("pass", "fail")
        arguments = write_config(tmp_path, nats, url=wrong)
        with Server(tmp_path / "wrong", features=features, arguments=arguments) as server:
            wait_for("the log says that it is refused", lambda: unavailable(server), server)
            assert "authorization" in unavailable(server)[0]["reason"], server.log_text()
        assert "fail%20word" not in server.log_text() and "fail word" not in server.log_text()
        arguments = write_config(tmp_path, nats)
        with Server(tmp_path / "data", features=features, arguments=arguments) as server:
            wait_until_consumed(nats, server, len(events))
            assert state_of(server) == expected_state(events)
        assert "pass%20word" not in server.log_text() and "pass word" not in server.log_text()


def test_cloud_events_in_both_modes(tmp_path, features, nats):
    events = expected = make_events(20)
    messages = []
    for number, event in enumerate(events):
        data = {"customer_id": event["customer_id"], **event["properties"]}
        attributes = {
            "specversion": "1.0",
            "id": event["event_id"],
            "type": event["event"],
            "source": "crm",
            "time": event["occurred_at"],
        }
        if number % 2 == 0:
            messages.append(json.dumps({**attributes, "data": data}).encode())
        else:
            headers = {f"ce-{name}": value for name, value in attributes.items()}
            messages.append((json.dumps(data).encode(), {**headers, "content-type": "application/json"}))
    nats.publish(messages)
    arguments = write_config(tmp_path, nats, format="cloudevents")
    with Server(tmp_path / "data", features=features, arguments=arguments) as server:
        wait_until_consumed(nats, server, len(events))
        assert state_of(server) == expected_state(expected), server.log_text()


def test_wrong_settings_are_refused_at_start_with_the_source_and_the_setting(tmp_path, features):
    nats = NatsServer(tmp_path / "nats")
    cases = [
        ({"stream": "a b"}, "stream"),
        ({"url": "http://127.0.0.1:4222"}, "url"),
        ({"format": "xml"}, "xml"),
        ({"stram": "events"}, "stram"),
        ({"name": "../up"}, "name"),
        ({"kind": "kafka"}, "kafka"),
    ]
    for settings, word in cases:
        arguments = write_config(tmp_path, nats, **settings)
        said = refuse("check", *arguments, "--features", features)
        assert word in said, said
