"""A version becomes shadow, canary and champion, and is taken back, while customers are scored: not one
request fails, everyone is answered by a version that was to answer, and whatever was acknowledged is
there after every crash."""

import json
import math
import random
import threading
import time

import pytest

from churn_versions import add_version
from export import read
from metrics import metric
from rollouts import roll_out, rolled_out
from server import Server, prediction_of, refuse, succeed
from telco import customer
from waiting import eventually

CUSTOMERS = [f"C-{number:04}" for number in range(200)]
# No fault of a canary is to take it back in these tests.
LENIENT = {"max_error_rate": 1.0, "max_latency_ratio": 1e6, "max_score_drift": 1e6}


@pytest.fixture
def models(tmp_path):
    """A repository with versions 1 and 2 of churn, of which the second says it is a candidate."""
    models = tmp_path / "models"
    add_version(models, 1)
    add_version(models, 2, shift=0.5, state="candidate")
    return models


@pytest.fixture
def served(tmp_path, models):
    with Server(tmp_path / "data", models=models) as server:
        server.models = models
        client = server.client()
        for customer_id in CUSTOMERS[:20]:
            client.store(customer_id, customer())
        yield server


def url(server):
    return f"http://{server.address}"


def states(client):
    listed = client.get("/v1/models").json()["models"]
    return {version["version"]: version["state"] for version in listed if version["name"] == "churn"}


def answered_by(client, customer_id):
    return prediction_of(client.score(customer_id), "churn")["version"]


class Load:
    """Scores customers on several connections, and counts. Which versions may answer is said before
    every change and after it; an answer is judged by when it was asked for and when it came."""

    def __init__(self, server, threads=3):
        self.server = server
        # Who may answer, and since when.
        self._allowed = [(0.0, {"1"})]
        self.answers = 0
        self.wrong = []
        self.seen = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def _run(self, number):
        client = self.server.client()
        chance = random.Random(number)
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                answer = client.post("/v1/score", {"customer_id": chance.choice(CUSTOMERS[:20])})
                version = prediction_of(answer.json(), "churn")["version"] if answer.status == 200 else answer
            except Exception as error:  # a request that fails is what the tests look for
                version = error
            allowed = self._allowed_between(asked, time.monotonic())
            with self._lock:
                self.answers += 1
                self.seen.add(version if isinstance(version, str) else "?")
                if version not in allowed:
                    self.wrong.append(version)

    def _allow(self, versions):
        self._allowed.append((time.monotonic(), set(versions)))

    def _allowed_between(self, asked, answered):
        """Whoever might answer at any time between the two."""
        spans = list(self._allowed)
        ends = [since for since, _ in spans[1:]] + [math.inf]
        found = [who for (since, who), end in zip(spans, ends) if since <= answered and asked <= end]
        return set().union(*found)

    def wait_for_more(self, answers=60):
        """Until that many further requests are answered."""
        wanted = self.answers + answers
        deadline = time.monotonic() + 300
        while self.answers < wanted and time.monotonic() < deadline:
            time.sleep(0.005)  # between two looks at the counter
        assert self.answers >= wanted, "the load has come to a stop"

    def change(self, before, after, change):
        """Makes a change during which versions of both sets may answer."""
        self._allow({*before, *after})
        changed = change()
        self._allow(after)
        self.wait_for_more()
        return changed

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self.wrong, f"{len(self.wrong)} of {self.answers} requests: {self.wrong[:3]}"


# What every step of the way is: what is asked for, who answers afterwards, and the states then.
WAY = [
    ("shadow", {"version": "2"}, {"1"}, {"1": "champion", "2": "shadow"}),
    (
        *("canary", {"version": "2", "percent": 20.0, "guardrails": LENIENT}),
        *({"1", "2"}, {"1": "champion", "2": "canary"}),
    ),
    (
        *("canary", {"version": "2", "percent": 100.0, "guardrails": LENIENT}),
        *({"2"}, {"1": "champion", "2": "canary"}),
    ),
    ("rollback", {}, {"1"}, {"1": "champion", "2": "candidate"}),
    ("promote", {"version": "2"}, {"2"}, {"1": "candidate", "2": "champion"}),
    ("rollback", {}, {"1"}, {"1": "champion", "2": "candidate"}),
    ("retire", {"version": "2"}, {"1"}, {"1": "champion", "2": "retired"}),
    ("candidate", {"version": "2"}, {"1"}, {"1": "champion", "2": "candidate"}),
    ("promote", {"version": "2"}, {"2"}, {"1": "candidate", "2": "champion"}),
]


def test_a_version_goes_all_the_way_over_http_and_no_request_fails(served):
    client = served.client()
    assert states(client) == {"1": "champion", "2": "candidate"}
    with Load(served) as load:
        load.wait_for_more()
        now = {"1"}
        for revision, (action, fields, then, expected) in enumerate(WAY, start=1):
            roles = load.change(now, then, lambda: rolled_out(client, action, **fields))
            now = then
            assert roles["revision"] == revision
            assert states(client) == expected, action
    assert load.seen == {"1", "2"}
    roles = client.get("/v1/models/churn").json()["roles"]
    assert (roles["champion"], roles["before"], roles["canary"]) == ("2", ["1"], None)


def test_a_version_goes_all_the_way_by_command_and_no_request_fails(served):
    client = served.client()
    with Load(served, threads=2) as load:
        now = {"1"}
        for action, fields, then, expected in WAY:
            arguments = ["model", action, "churn"]
            if "version" in fields:
                arguments.append(fields["version"])
            if "percent" in fields:
                arguments += ["--percent", fields["percent"]]
            for limit, value in fields.get("guardrails", {}).items():
                arguments += [f"--{limit.replace('_', '-')}", value]
            arguments += ["--server", url(served), "--reason", f"to try {action}"]
            said = load.change(now, then, lambda: succeed(*arguments).stdout)
            now = then
            assert said.startswith("churn: champion "), said
            listed = json.loads(succeed("model", "list", "--server", url(served), "--json").stdout)
            assert {v["version"]: v["state"] for v in listed["models"]} == expected
    # And what there is to see of it is seen at a glance.
    lines = succeed("model", "list", env={"BELLWETHER_SERVER": url(served)}).stdout.splitlines()
    assert lines[0].split() == [
        "MODEL", "VERSION", "STATE", "SHARE", "REQUESTS", "ERRORS", "P50", "DIGEST", "WHY",
    ]  # fmt: skip
    assert lines[1].split()[:4] == ["churn", "1", "candidate", "(before)"]
    assert lines[2].split()[:3] == ["churn", "2", "champion"]
    counts = {v["version"]: v["scores"] for v in client.get("/v1/models").json()["models"]}
    assert sum(scores["requests"] for scores in counts.values()) == load.answers
    assert all(scores["errors"] == 0 and scores["p50_ms"] > 0 for scores in counts.values())
    shown = succeed("model", "show", "churn", "--server", url(served)).stdout
    assert shown.startswith("churn: champion 2; before it 1\n")


def test_a_rollback_takes_less_than_a_second_and_needs_nothing_from_the_disk(served):
    client = served.client()
    took = []

    def rollback():
        begun = time.monotonic()
        rolled_out(client, "rollback", reason="complaints")
        assert answered_by(client, CUSTOMERS[0]) == "1"
        took.append(time.monotonic() - begun)

    # A machine may stand still for a second; it does not do so every time for minutes.
    enough = time.monotonic() + 120
    with Load(served) as load:
        while len(took) < 3 or (min(took) >= 1.0 and time.monotonic() < enough):
            load.change({"1"}, {"2"}, lambda: rolled_out(client, "promote", 2))
            # Given a champion that is found to be bad, and files of the one before that are gone
            model = served.models / "churn" / "1" / "model.onnx"
            kept = model.read_bytes()
            model.write_bytes(b"broken")
            # When it is taken back, the one before answers: it was in memory all the time
            load.change({"2"}, {"1"}, rollback)
            model.write_bytes(kept)
    assert min(took) < 1.0, took


def test_a_canary_answers_its_share_of_the_customers_and_always_the_same(served, tmp_path):
    client = served.client()
    count = 1500
    keys = [f"customer-{number:05}" for number in range(count)]
    features = customer()
    rows = "".join(json.dumps({"customer_id": key, **features}) + "\n" for key in keys)
    pushed = client.request("POST", "/v1/features/customer", rows, {"Content-Type": "application/x-ndjson"})
    assert pushed.status == 200, pushed

    def taken():
        return {key for key in keys if answered_by(client, key) == "2"}

    last = set()
    for percent in (5.0, 20.0):
        rolled_out(client, "canary", 2, percent=percent, guardrails=LENIENT)
        found = taken()
        deviation = math.sqrt(percent / 100 * (1 - percent / 100) / count)
        assert abs(len(found) / count - percent / 100) < 4 * deviation, len(found)
        # Whoever was in it stays in it, also the next time
        assert last <= found
        last = found
    assert taken() == last
    # And on another server with the same share.
    add_version(tmp_path / "others", 1)
    add_version(tmp_path / "others", 2)
    with Server(tmp_path / "other", models=tmp_path / "others") as other:
        elsewhere = other.client()
        rolled_out(elsewhere, "promote", 1)
        rolled_out(elsewhere, "canary", 2, percent=20.0, guardrails=LENIENT)
        for key in keys[:300]:
            elsewhere.store(key, features)
            assert (answered_by(elsewhere, key) == "2") == (key in last)


def test_for_a_canary_that_fails_the_champion_answers_and_the_failure_is_counted(served):
    client = served.client()
    add_version(served.models, 3, shift=math.nan, state="candidate")
    assert client.post("/v2/repository/models/churn/load", {}).status == 200
    alone = {key: client.score(key, explain=3)["predictions"] for key in CUSTOMERS[:20]}
    rolled_out(client, "canary", 3, percent=100.0, guardrails=LENIENT)
    # Everyone is answered as if there were no canary
    for key in CUSTOMERS[:20]:
        assert client.score(key, explain=3)["predictions"] == alone[key]
    found = {v["version"]: v for v in client.get("/v1/models/churn").json()["versions"]}
    assert (found["3"]["scores"]["requests"], found["3"]["scores"]["errors"]) == (20, 20)
    assert "not a number" in found["3"]["scores"]["last_error"]["message"]
    assert found["1"]["scores"]["errors"] == 0
    said = succeed("model", "show", "churn", "--server", url(served)).stdout
    assert "version 3 failed last at" in said


def test_every_transition_is_an_audit_row_with_who_and_why(tmp_path, models):
    data_dir = tmp_path / "data"
    with Server(data_dir, models=models) as server:
        client = server.client()
        rolled_out(client, "shadow", 2, reason="trained on October")
        rolled_out(client, "canary", 2, percent=5, reason="no difference in shadow")
        rolled_out(client, "promote", 2, reason="held for a week")
        assert roll_out(client, "promote", 2).status == 409
        rolled_out(client, "rollback", reason="complaints from Linz")
        rolled_out(client, "retire", 2)
    succeed("ledger", "export", "--data-dir", data_dir, "--format", "parquet", "--output", tmp_path / "out")
    rows = [row for row in read(tmp_path / "out", "audit").to_dicts() if row["action"].startswith("model.")]
    assert [(row["action"], row["subject"], row["reason"]) for row in rows] == [
        ("model.shadow", "churn/2", "trained on October"),
        ("model.canary", "churn/2", "no difference in shadow"),
        ("model.promote", "churn/2", "held for a week"),
        ("model.rollback", "churn/2", "complaints from Linz"),
        ("model.retire", "churn/2", ""),
    ]
    assert {row["actor"] for row in rows} == {"anonymous"}
    assert {row["outcome"] for row in rows} == {"done"}
    led_to = [json.loads(row["details"])["roles"] for row in rows]
    assert [roles["revision"] for roles in led_to] == [1, 2, 3, 4, 5]
    assert [roles["champion"] for roles in led_to] == [1, 1, 2, 1, 1]
    assert led_to[1]["canary"]["percent"] == 5.0
    assert led_to[4]["retired"] == [2]
    succeed("ledger", "verify", "--data-dir", data_dir)


class Changes:
    """Transitions one after the other, as fast as they are answered, until the server is gone."""

    ACTIONS = ["shadow", "canary", "canary", "promote", "promote", "rollback", "retire", "candidate"]

    def __init__(self, server, seed):
        self.acknowledged = None
        self.count = 0
        self._client = server.client()
        self._chance = random.Random(seed)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while True:
            action = self._chance.choice(self.ACTIONS)
            fields = {} if action == "rollback" else {"version": self._chance.choice([1, 2, 3])}
            if action == "canary":
                fields["percent"] = self._chance.randrange(1, 10_000) / 100
            try:
                answer = roll_out(self._client, action, **fields)
            except Exception:  # the server is gone
                return
            assert answer.status in (200, 409), answer
            if answer.status == 200:
                self.acknowledged = answer.json()
                self.count += 1

    def join(self):
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_what_was_acknowledged_is_there_after_a_kill_at_any_moment(tmp_path, models):
    data_dir = tmp_path / "data"
    add_version(models, 3, shift=-0.5, state="candidate")
    chance = random.Random(20260131)
    known = None
    for attempt in range(8):
        server = Server(data_dir, models=models)
        client = server.client()
        found = client.get("/v1/models/churn").json()["roles"]
        if known is not None:
            # One more may be there, which was recorded and not answered any more.
            assert found["revision"] in (known["revision"], known["revision"] + 1)
            if found["revision"] == known["revision"]:
                assert found == known
        # And what is said is what is done.
        client.store("C-1", customer())
        answering = {found["champion"]} | ({found["canary"]["version"]} if found["canary"] else set())
        assert answered_by(client, "C-1") in answering

        changes = Changes(server, seed=attempt)
        eventually("a few transitions", lambda: changes.count >= 3, seconds=120)
        time.sleep(chance.uniform(0, 0.5))  # the random moment
        server.kill()
        changes.join()
        known = changes.acknowledged or found
        if attempt == 3:
            # Without the file everything is in the ledger.
            (data_dir / "rollout.json").unlink()
        if attempt == 5:
            # A file that an earlier crash might have left changes nothing.
            (data_dir / ".rollout-left").write_text("{")
    assert known["revision"] > 20, "hardly anything was tried"


def test_what_is_not_possible_is_refused_with_the_reason(served):
    client = served.client()
    add_version(served.models, 4, state="candidate")
    broken = served.models / "churn" / "3"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no model")
    client.post("/v2/repository/models/churn/load", {})
    rolled_out(client, "canary", 2, percent=5)
    rolled_out(client, "candidate", 4)

    def refused(status, *words, **body):
        model = body.pop("model", "churn")
        answer = client.post(f"/v1/models/{model}/rollout", body)
        assert answer.status == status, answer
        for word in words:
            assert word in answer.error(), answer

    refused(409, "promote churn/1", "already", action="promote", version="1")
    refused(409, "is the champion", action="retire", version="1")
    refused(409, "version 2 is the canary", action="canary", version="4", percent=1)
    refused(409, "version 2 is what a rollback", action="rollback", version="1")
    refused(409, "version 3", "model.onnx", action="promote", version="3")
    refused(409, "a candidate that is kept loaded already", action="candidate", version="4")
    refused(404, "no model", "churn", model="chrun", action="rollback")
    refused(404, "no version", "1, 2, 3, 4", action="promote", version="9")
    refused(404, "no version", action="retire", version="9")
    refused(422, "action", "shadow", action="ship")
    refused(422, "version", action="promote")
    refused(422, "version", "first", action="promote", version="first")
    refused(422, "percent", "missing", action="canary", version="2")
    for percent in (0, -1, 100.5, 0.001):
        refused(422, "percent", "0.01 to 100", action="canary", version="2", percent=percent)
    refused(422, "percent", "only a canary", action="promote", version="2", percent=5)
    refused(422, "guardrails.max_error_rate", action="canary", version="2", percent=5, guardrails={"max_error_rate": 2})
    refused(422, "guardrails", action="canary", version="2", percent=5, guardrails={"speed": 2})
    refused(422, "reason", action="rollback", reason="x" * 1001)
    assert client.request("POST", "/v1/models/churn/rollout", b"{").status == 400
    assert client.get("/v1/models/chrun").status == 404
    # Nothing of this has changed anything.
    assert client.get("/v1/models/churn").json()["roles"]["revision"] == 2
    assert states(client) == {"1": "champion", "2": "canary", "3": "unavailable", "4": "candidate"}

    said = refuse("model", "promote", "churn", "1", "--server", url(served))
    assert "409" in said and "champion already" in said
    said = refuse("model", "list", "--server", "http://127.0.0.1:9")
    assert "is the server running there?" in said


def test_a_rollback_may_name_what_it_takes_back(served):
    client = served.client()
    rolled_out(client, "promote", 2)
    said = refuse("model", "rollback", "churn", "--from", "1", "--server", url(served))
    assert "version 2 is what a rollback would take back now" in said
    succeed("model", "rollback", "churn", "--from", "2", "--server", url(served))
    assert states(client) == {"1": "champion", "2": "candidate"}


def test_what_comes_after_a_transition_is_a_candidate_until_somebody_says_otherwise(served):
    client = served.client()
    # With nothing said, the highest number answers
    add_version(served.models, 3, shift=0.1)
    assert client.post("/v2/repository/models/churn/load", {}).status == 200
    assert answered_by(client, CUSTOMERS[0]) == "3"
    # and a rollback goes to the next one below that is no candidate;
    assert rolled_out(client, "rollback")["champion"] == "1"
    # from then on a new version waits.
    add_version(served.models, 4, shift=0.2)
    assert client.post("/v2/repository/models/churn/load", {}).status == 200
    assert states(client) == {"1": "champion", "2": "candidate", "3": "candidate", "4": "candidate"}
    assert answered_by(client, CUSTOMERS[0]) == "1"


def test_a_retired_version_is_not_loaded_and_its_files_stay(served):
    client = served.client()
    rolled_out(client, "retire", 2)
    answer = client.get("/v2/models/churn/versions/2")
    assert answer.status == 404 and "model candidate churn 2" in answer.error()
    assert (served.models / "churn" / "2" / "model.onnx").is_file()
    # Loading the model again does not bring it back, promoting it does.
    assert client.post("/v2/repository/models/churn/load", {}).status == 200
    assert states(client) == {"1": "champion", "2": "retired"}
    rolled_out(client, "promote", 2)
    assert answered_by(client, CUSTOMERS[0]) == "2"


def test_roles_and_shares_are_metrics(served):
    client = served.client()
    rolled_out(client, "canary", 2, percent=12.5)
    role = "bellwether_model_role"
    assert metric(client, role, model="churn", version="1", role="champion") == 1
    assert metric(client, role, model="churn", version="2", role="canary") == 1
    assert metric(client, "bellwether_canary_share", model="churn") == 0.125
    rolled_out(client, "rollback")
    assert metric(client, role, model="churn", version="2", role="canary") == 0
    assert metric(client, role, model="churn", version="2", role="candidate") == 1
    assert metric(client, "bellwether_canary_share", model="churn") == 0
    # A version that is not there any more has none.
    rolled_out(client, "retire", 2)

    def is_freed():
        text = client.get("/metrics").body.decode()
        assert 'version="1"' in text
        return 'version="2"' not in text

    eventually("no metric of version 2", is_freed, seconds=120)
    rolled_out(client, "candidate", 2)
    assert metric(client, role, model="churn", version="2", role="candidate") == 1


def test_a_champion_whose_folder_is_gone_is_replaced_by_the_one_before_and_that_is_said(tmp_path, models):
    data_dir = tmp_path / "data"
    with Server(data_dir, models=models) as server:
        rolled_out(server.client(), "promote", 2)
    folder = models / "churn" / "2"
    folder.rename(tmp_path / "aside")
    with Server(data_dir, models=models) as server:
        client = server.client()
        client.store("C-1", customer())
        assert answered_by(client, "C-1") == "1"
        stand_in = client.get("/v1/models/churn").json()["stand_in"]
        assert "version 2 has no folder" in stand_in and "version 1" in stand_in
        assert "version 2 has no folder" in succeed("model", "list", "--server", url(server)).stdout
        assert metric(client, "bellwether_model_stand_in", model="churn") == 1

        def is_logged():
            errors = [entry for entry in server.entries() if entry["level"] == "ERROR"]
            return any("version 2 has no folder" in entry.get("problem", "") for entry in errors)

        eventually("that is in the log", is_logged)
    # It was only away: with its folder back it is the champion again.
    (tmp_path / "aside").rename(folder)
    with Server(data_dir, models=models) as server:
        client = server.client()
        assert answered_by(client, "C-1") == "2"
        assert metric(client, "bellwether_model_stand_in", model="churn") == 0


def test_a_state_file_that_is_wrong_is_refused_with_what_to_do(tmp_path, models):
    data_dir = tmp_path / "data"
    with Server(data_dir, models=models) as server:
        rolled_out(server.client(), "promote", 2)
    state = data_dir / "rollout.json"
    kept = state.read_text()
    state.write_text(kept[: len(kept) // 2])
    said = refuse("check", "--data-dir", data_dir, "--models", models)
    assert "rollout.json" in said and "move it away" in said
    # Moved away, as it says, nothing is lost.
    state.unlink()
    with Server(data_dir, models=models) as server:
        client = server.client()
        assert client.get("/v1/models/churn").json()["roles"]["champion"] == "2"
    assert json.loads(state.read_text())["models"]["churn"]["champion"] == 2
