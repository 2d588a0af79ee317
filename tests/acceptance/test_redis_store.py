"""The shared store: servers on one Redis are one, and an outage of it hangs nothing."""

import json
import threading
import time
from datetime import datetime, timezone

import pytest

from metrics import metric
from redis_server import RedisServer
from server import FEATURES, MODELS, Server, refuse, run, succeed
from telco import customer
from waiting import eventually

# While Redis is there, a busy machine may take its time; while it is not, it is not waited for.
PATIENT = {"connect_timeout": "10s", "timeout": "10s"}
SHORT = {"connect_timeout": "500ms", "timeout": "200ms"}
# An answer comes far sooner, whatever the machine does besides.
HANG_SECONDS = 30
RETURN_SECONDS = 120


@pytest.fixture
def redis(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as redis:
        yield redis


def start(folder, url, **settings):
    """A server whose configuration names the shared store."""
    folder.mkdir(exist_ok=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**PATIENT, **settings}.items()]
    return Server(folder / "data", settings="\n".join(["[store]", f'url = "{url}"', *lines, ""]))


def known(client, customer_id):
    """The values of a customer; a window's time is that of the request, so times are left out."""
    return {name: feature["value"] for name, feature in client.stored(customer_id).items()}


def test_a_server_on_redis_stores_and_scores_like_any_other(tmp_path, redis, client, customer_id):
    with start(tmp_path / "a", redis.url) as server:
        shared = server.client()
        features = customer(tenure=7)
        shared.store(customer_id, features)
        client.store(customer_id, features)
        assert {name: shared.stored(customer_id)[name]["value"] for name in features} == features
        first, second = shared.score(customer_id, explain=3), client.score(customer_id, explain=3)
        assert first["predictions"] == second["predictions"]
        assert first["features"] == second["features"]
        assert "store" not in first["features"]
        assert shared.delete(f"/v1/customers/{customer_id}").status == 204
        assert shared.get(f"/v1/customers/{customer_id}").status == 404
        assert shared.post("/v1/score", {"customer_id": customer_id}).status == 404


def test_two_servers_on_one_redis_agree(tmp_path, redis):
    with start(tmp_path / "a", redis.url) as first, start(tmp_path / "b", redis.url) as second:
        one, other = first.client(), second.client()
        one.store("c", customer(tenure=1))
        assert known(other, "c") == known(one, "c")
        other.store("c", {"tenure": 2})
        assert one.stored("c")["tenure"]["value"] == 2
        assert one.score("c")["predictions"] == other.score("c")["predictions"]

        # Both write the same customers at the same time, each a feature of its own.
        def write(server, feature):
            client = server.client()
            for number in range(60):
                client.store(f"c{number % 3}", {feature: number})

        writers = [
            threading.Thread(target=write, args=(first, "tenure")),
            threading.Thread(target=write, args=(second, "monthly_charges")),
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        for number in range(3):
            stored = known(one, f"c{number}")
            assert stored == known(other, f"c{number}")
            assert (stored["tenure"], stored["monthly_charges"]) == (57 + number, 57 + number)

        # Every event reaches both, as a broker may deliver it; each is counted once.
        for number in range(10):
            event = {
                "event_id": f"e{number}",
                "event": "ticket",
                "customer_id": "c0",
                "occurred_at": datetime.now(timezone.utc).isoformat(),
                "properties": {},
            }
            for client in (one, other) if number % 2 else (other, one):
                answer = client.post("/v1/events", event)
                assert 200 <= answer.status < 300, answer
        assert known(one, "c0")["tickets_24h"] == known(other, "c0")["tickets_24h"] == 10

        assert other.delete("/v1/customers/c").status == 204
        assert one.get("/v1/customers/c").status == 404


def test_what_a_server_wrote_is_there_after_its_restart_and_its_crash(tmp_path, redis):
    server = start(tmp_path / "a", redis.url)
    server.client().store("c", customer(tenure=1))
    server.stop()
    server = start(tmp_path / "a", redis.url)
    client = server.client()
    assert client.stored("c")["tenure"]["value"] == 1
    client.store("c", {"tenure": 2})
    server.kill()
    # Another server goes on; the first one's log, which it applies again, changes nothing of that.
    with start(tmp_path / "b", redis.url) as other:
        other.client().store("c", {"tenure": 3})
        with start(tmp_path / "a", redis.url) as server:
            assert server.client().stored("c")["tenure"]["value"] == 3


class Load:
    """Scores from several threads until told to stop; every answer is kept with its time."""

    def __init__(self, server, threads=4):
        self.answers = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(server,)) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, server):
        client = server.client()
        while not self.over.is_set():
            started = time.monotonic()
            answer = client.post("/v1/score", {"customer_id": "c"})
            self.answers.append((time.monotonic() - started, answer))

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        slowest = max(seconds for seconds, _ in self.answers)
        assert slowest < HANG_SECONDS, f"an answer took {slowest:.1f} s"
        return [answer for _, answer in self.answers]


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("on_failure", ["unavailable", "defaults"])
def test_with_redis_gone_in_mid_load_answers_come_as_configured_and_service_returns(
    tmp_path, redis, fault, on_failure
):
    with start(tmp_path / "a", redis.url, on_failure=on_failure, **SHORT) as server:
        client = server.client()

        # So short a patience may be too short for a moment while nothing is wrong with Redis.
        def is_stored():
            answer = client.put("/v1/customers/c", {"features": customer(tenure=7)})
            return 200 <= answer.status < 300

        def scored():
            answer = client.post("/v1/score", {"customer_id": "c"})
            is_whole = answer.status == 200 and "store" not in answer.json()["features"]
            return answer.json()["predictions"] if is_whole else None

        eventually("the customer is stored", is_stored, RETURN_SECONDS)
        whole = eventually("the customer is scored", scored, RETURN_SECONDS)
        load = Load(server)
        eventually("some answers", lambda: len(load.answers) > 20, RETURN_SECONDS)
        if fault == "killed":
            redis.kill()
        else:
            redis.freeze()

        def shows_the_outage(answer):
            if on_failure == "unavailable":
                return answer.status == 503
            return answer.status == 200 and answer.json()["features"].get("store") == "unavailable"

        def is_out():
            return shows_the_outage(client.post("/v1/score", {"customer_id": "c"}))

        eventually("the outage", is_out, RETURN_SECONDS)
        # What reads the store says so; what does not goes on.
        assert client.get("/v1/customers/c").status == 503
        put = client.put("/v1/customers/c", {"features": {"tenure": 8}})
        assert put.status == 503 and put.headers["Retry-After"]
        assert client.get("/livez").status == 200
        if fault == "killed":
            redis.restart()
            # It came back empty, as a Redis without persistence does.
            client.get("/readyz")
        else:
            redis.thaw()

        # The update that was answered 503 was logged, and is applied when the store is back.
        def is_back():
            answer = client.get("/v1/customers/c")
            return answer.status == 200 and answer.json()["features"]["tenure"]["value"] == 8

        eventually("the store is back", is_back, RETURN_SECONDS)
        eventually("the end of the outage", lambda: not is_out(), RETURN_SECONDS)
        eventually("the customer is stored again", is_stored, RETURN_SECONDS)
        assert eventually("the customer is scored again", scored, RETURN_SECONDS) == whole
        answers = load.stop()
        for answer in answers:
            if answer.status == 200:
                body = answer.json()
                lost = body["features"].get("store") == "unavailable"
                assert not lost or on_failure == "defaults"
                if lost:
                    needed = {"tenure", "contract"}
                    assert needed <= set(body["features"]["missing"])
            else:
                # Killed, Redis is empty for a moment after its return.
                allowed = {503, 404} if fault == "killed" else {503}
                assert answer.status in allowed and on_failure == "unavailable" or answer.status == 404, answer
                if answer.status == 503:
                    assert answer.headers["Retry-After"]
        counted = "bellwether_store_defaults_total" if on_failure == "defaults" else "bellwether_store_unavailable_total"
        assert metric(client, counted) > 0


def test_a_server_starts_and_stops_without_its_redis(tmp_path, redis):
    redis.kill()
    with start(tmp_path / "a", redis.url) as server:
        client = server.client()
        answer = client.post("/v1/score", {"customer_id": "c"})
        assert answer.status == 503 and answer.headers["Retry-After"] == "1", answer
        assert client.put("/v1/customers/c", {"features": {"tenure": 1}}).status == 503
    # What was logged meanwhile is applied by the next start.
    redis.restart()
    with start(tmp_path / "a", redis.url) as server:
        client = server.client()
        is_there = lambda: client.get("/v1/customers/c").status == 200  # noqa: E731
        eventually("what was logged is applied", is_there, RETURN_SECONDS)
        assert client.stored("c")["tenure"]["value"] == 1


def test_the_url_is_taken_from_the_environment_and_a_table_is_pushed(tmp_path, redis):
    table = tmp_path / "customers.csv"
    table.write_text("customer_id,tenure\nc,9\n")
    env = {"BELLWETHER_STORE_URL": redis.url}
    succeed("features", "push", "--view", "customer", table, "--data-dir", tmp_path / "a", env=env)
    with Server(tmp_path / "b", env=env) as server:
        assert server.client().stored("c")["tenure"]["value"] == 9


def test_a_password_is_used_and_never_shown(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder, ["--requirepass", "hunter2"]) as redis:
        url = f"redis://:hunter2@127.0.0.1:{redis.port}"
        with start(tmp_path / "a", url) as server:
            server.client().store("c", customer(tenure=1))
            redis.kill()
            answer = server.client().post("/v1/score", {"customer_id": "c"})
            assert answer.status == 503 and b"hunter2" not in answer.body
        assert "hunter2" not in server.log_text()
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "bellwether.toml").write_text("[store]\nurl = redis://:hunter2@127.0.0.1\n")
    arguments = ["--models", MODELS, "--features", FEATURES]
    said = refuse("check", *arguments, cwd=folder)
    assert "bellwether.toml" in said and "hunter2" not in said, said
    for url in ["http://:hunter2@127.0.0.1", "redis://:hunter2@127.0.0.1:x"]:
        said = refuse("check", *arguments, "--store-url", url)
        assert "store.url" in said and "expected redis://" in said and "hunter2" not in said, said
    assert run("check", *arguments, "--store-url", "redis://:hunter2@127.0.0.1").returncode == 0
