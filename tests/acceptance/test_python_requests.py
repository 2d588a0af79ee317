"""What the Python client sends, what it tries again, and what it makes of answers: without a server."""

import asyncio
import inspect
import io
import json
import sys

import bellwether
import httpx
import numpy
import pyarrow
import pyarrow.ipc
import pytest
from bellwether import _progress
from bellwether._progress import Progress, Reporter, line

from waiting import eventually

SCORES = {
    "prediction_id": "p-1",
    "customer_id": "c1",
    "predictions": [{"model": "churn", "version": "3", "score": 0.25}],
    "features": {"stale": [], "missing": ["tenure"], "unknown": []},
}
NO_MODELS = httpx.Response(200, json={"models": []})
ROLES = {
    "model": "churn",
    "revision": 2,
    "champion": "2",
    "before": ["1"],
    "canary": None,
    "shadows": [],
    "retired": [],
}


class Answers:
    """A server of which each answer is told beforehand: a response, or what happens instead of one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def later(self, request):
        await request.aread()
        return self(request)

    def client(self, **options):
        return bellwether.Client("http://server", transport=httpx.MockTransport(self), **options)


def busy(**headers):
    return httpx.Response(503, json={"error": "the ledger is full"}, headers=headers)


def test_a_score_is_asked_for_again_when_the_server_said_that_it_did_nothing():
    server = Answers(busy(), httpx.ConnectError("refused"), httpx.Response(200, json=SCORES))
    with server.client() as client:
        scores = client.score("c1", models=["churn"], explain=2, features={"tenure": 3})
    assert (scores["churn"].score, scores["churn"].version, scores.missing) == (0.25, 3, ["tenure"])
    sent = {"customer_id": "c1", "models": ["churn"], "features": {"tenure": 3}, "explain": 2}
    assert [json.loads(request.content) for request in server.requests] == [sent] * 3


def test_a_score_is_not_asked_for_again_when_the_server_may_have_answered():
    server = Answers(httpx.ReadTimeout("no answer"))
    with server.client() as client, pytest.raises(bellwether.ServerUnavailable, match="no answer"):
        client.score("c1")
    assert len(server.requests) == 1


def test_a_table_is_scored_in_requests_of_one_arrow_batch_each():
    ids = [f"c{number}" for number in range(10_000)]

    def answer(request):
        (batch,) = pyarrow.ipc.open_stream(request.content)
        body = io.BytesIO()
        scored = batch.append_column("churn_score", pyarrow.array([0.5] * batch.num_rows))
        with pyarrow.ipc.new_stream(body, scored.schema) as writer:
            writer.write_batch(scored)
        sizes.append((batch.num_rows, str(request.url.query, "ascii")))
        return httpx.Response(200, content=body.getvalue())

    sizes, told = [], []
    with bellwether.Client("http://server", transport=httpx.MockTransport(answer)) as client:
        scores = client.score_batch(pyarrow.table({"customer_id": ids}), models=["a", "b"], progress=told.append)
        assert scores["customer_id"].to_pylist() == ids
        assert [rows for rows, _ in sizes] == [4096, 4096, 1808]
        assert {query for _, query in sizes} == {"models=a%2Cb"}
        assert [progress.done for progress in told] == [4096, 8192, 10_000]
        wide = pyarrow.table({"customer_id": ids[:100], "note": ["x" * 1_000_000] * 100})
        client.score_batch(wide, record=False, explain=3)
        assert all(rows <= 8 for rows, _ in sizes[3:])
        assert sizes[-1][1] == "explain=3&record=false"


def test_a_batch_is_sent_again_when_the_server_said_that_it_did_nothing_and_not_when_it_broke_off():
    table = pyarrow.table({"customer_id": ["c1"]})
    body = io.BytesIO()
    with pyarrow.ipc.new_stream(body, table.schema) as writer:
        writer.write_table(table)
    done = httpx.Response(200, content=body.getvalue())
    server = Answers(httpx.Response(429, json={"error": "4 batches"}, headers={"Retry-After": "0"}), done)
    with server.client() as client:
        assert client.score_batch(table).num_rows == 1
    server = Answers(httpx.RemoteProtocolError("broke off"), done)
    with server.client() as client, pytest.raises(bellwether.ServerUnavailable, match="broke off"):
        client.score_batch(table)
    server = Answers(httpx.RemoteProtocolError("broke off"), done)
    with server.client() as client:
        assert client.score_batch(table, record=False).num_rows == 1


def test_an_outcome_is_reported_again_with_the_same_id_after_a_lost_connection():
    answer = httpx.Response(200, json={"outcome_id": "x", "duplicate": True})
    server = Answers(httpx.ReadError("lost"), answer)
    with server.client() as client:
        assert client.outcome("churn", prediction_id="p-1", value=1).duplicate
    first, second = (json.loads(request.content) for request in server.requests)
    assert first == second and first["outcome_id"]


def test_events_are_sent_again_with_the_ids_they_had():
    taken = httpx.Response(200, json={"accepted": 2, "duplicates": 0, "refused": [], "refused_total": 0})
    server = Answers(httpx.ReadError("lost"), taken)
    events = [
        {"event": "ticket", "customer_id": "c1"},
        {"event": "ticket", "customer_id": "c2", "event_id": "mine"},
    ]
    with server.client() as client:
        assert client.events.send(events).accepted == 2
    first, second = (request.content for request in server.requests)
    assert first == second
    ids = [json.loads(event)["event_id"] for event in first.splitlines()]
    assert ids[0] and ids[1] == "mine"


@pytest.mark.parametrize("failure", [busy(), httpx.ReadError("lost")])
def test_a_transition_is_never_sent_twice(failure):
    server = Answers(failure)
    with server.client() as client, pytest.raises(bellwether.ServerUnavailable):
        client.models.rollback("churn")
    assert len(server.requests) == 1


def test_transitions_say_what_and_why():
    server = Answers(*[httpx.Response(200, json=ROLES) for _ in range(6)])
    with server.client() as client:
        client.models.shadow("churn", 2)
        client.models.canary("churn", 2, percent=5, guardrails={"max_error_rate": 0.1}, reason="looks well")
        roles = client.models.promote("churn", 2)
        client.models.rollback("churn", 2)
        client.models.candidate("churn", 2)
        client.models.retire("churn", 1, reason="old")
    assert (roles.champion, roles.before, roles.canary) == (2, [1], None)
    assert {request.url.path for request in server.requests} == {"/v1/models/churn/rollout"}
    assert [json.loads(request.content) for request in server.requests] == [
        {"action": "shadow", "version": 2},
        {
            "action": "canary",
            "reason": "looks well",
            "version": 2,
            "percent": 5,
            "guardrails": {"max_error_rate": 0.1},
        },
        {"action": "promote", "version": 2},
        {"action": "rollback", "version": 2},
        {"action": "candidate", "version": 2},
        {"action": "retire", "reason": "old", "version": 1},
    ]


@pytest.mark.parametrize(
    "status, kind",
    [
        (400, bellwether.InvalidRequest),
        (401, bellwether.Unauthorized),
        (403, bellwether.Forbidden),
        (404, bellwether.NotFound),
        (409, bellwether.Conflict),
        (422, bellwether.InvalidRequest),
        (429, bellwether.ServerUnavailable),
        (500, bellwether.BellwetherError),
        (504, bellwether.ServerUnavailable),
    ],
)
def test_a_refusal_is_an_exception_with_the_words_and_the_status_of_the_server(status, kind):
    server = Answers(httpx.Response(status, json={"error": "because"}))
    with server.client(retries=0) as client, pytest.raises(bellwether.BellwetherError) as refused:
        client.score("c1")
    assert type(refused.value) is kind
    assert (str(refused.value), refused.value.status) == ("because", status)


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json={"hello": 1})]
)
def test_an_answer_of_something_else_is_said_to_be_none_of_bellwether(answer):
    with (
        Answers(answer).client() as client,
        pytest.raises(bellwether.BellwetherError, match="POST http://server/v1/score"),
    ):
        client.score("c1")


def test_url_and_key_come_from_the_environment_and_the_key_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("BELLWETHER_SERVER", "http://elsewhere")
    monkeypatch.setenv("BELLWETHER_API_KEY", "bw_1_secret")
    server = Answers(httpx.Response(200, json={"models": []}))
    with bellwether.Client(transport=httpx.MockTransport(server)) as client:
        assert client.models.list() == []
        assert "secret" not in repr(client._transport._settings)
    (request,) = server.requests
    assert request.url.host == "elsewhere"
    assert request.headers["Authorization"] == "Bearer bw_1_secret"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"url": "localhost:8080"}, "url: expected http://HOST:PORT.*'localhost:8080'"),
        ({"timeout": 0}, "timeout: expected seconds above 0, found 0"),
        ({"retries": -1}, "retries: expected 0 or more, found -1"),
        ({"api_key": "bw_1_sec\nret"}, "api_key: it has characters that no key has"),
        ({"verify": "nowhere/ca.pem"}, "verify: no file nowhere/ca.pem"),
        ({"cert": ("nowhere/c.pem", "nowhere/k.pem")}, "cert: no file nowhere/c.pem"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named_at_once(options, words):
    for client in (bellwether.Client, bellwether.AsyncClient):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as refused:
            client(**options)
        assert "sec" not in str(refused.value).replace("seconds", "")


def test_a_key_that_was_read_from_a_file_may_have_a_line_end():
    server = Answers(NO_MODELS)
    with server.client(api_key="bw_1_secret\n") as client:
        client.models.list()
    assert server.requests[0].headers["Authorization"] == "Bearer bw_1_secret"


def test_customers_with_numbers_for_ids_are_scored_as_they_were_pushed():
    ids = numpy.array([7, 8])
    taken = httpx.Response(200, json={"outcome_id": "x", "duplicate": False})
    server = Answers(httpx.Response(200, json=SCORES), httpx.Response(200, json=SCORES), taken)
    with server.client() as client:
        client.score_many(ids, concurrency=1)
        client.outcome("churn", customer_id=ids[0])
        with pytest.raises(TypeError, match="customer_id: expected text or a whole number, found 7.5"):
            client.score(7.5)
    sent = [json.loads(request.content)["customer_id"] for request in server.requests]
    assert sent == ["7", "8", "7"]


def test_numbers_of_numpy_are_numbers_and_a_version_is_one():
    server = Answers(httpx.Response(200, json=ROLES))
    with server.client() as client:
        client.models.canary("churn", numpy.int64(2), percent=numpy.float32(5))
        deployed = bellwether.Deployed("churn", 2, "candidate", None, None, None, {})
        with pytest.raises(TypeError, match="version: expected a whole number, found a Deployed.*.version"):
            client.models.promote("churn", deployed)
    assert json.loads(server.requests[0].content) == {"action": "canary", "version": 2, "percent": 5}


def test_a_table_of_which_no_row_fits_is_refused_in_the_words_of_the_server():
    words = "all 2 rows were refused; the first: customer_id: missing"
    refused = [{"index": 0, "error": "customer_id: missing"}, {"index": 1, "error": "customer_id: missing"}]
    server = Answers(httpx.Response(422, json={"written": 0, "refused": refused, "error": words}))
    with server.client() as client, pytest.raises(bellwether.InvalidRequest) as raised:
        client.features.push(pyarrow.table({"tenure": [1, 2]}))
    assert str(raised.value) == words


def test_a_bundle_is_uploaded_in_parts_and_tells_how_far_it_is(tmp_path):
    deployed = {"model": "churn", "version": "4", "state": "champion", "previous_champion": "3"}
    server = Answers(NO_MODELS, httpx.ConnectError("refused"), httpx.Response(201, json=deployed))
    (tmp_path / "model.onnx").write_bytes(b"o" * 200_000)
    (tmp_path / "golden.json").write_bytes(b"{}")
    (tmp_path / "report.md").write_bytes(b"stays here")
    told = []
    with server.client() as client:
        answer = client.models.deploy_bundle(
            "churn", tmp_path, promote=True, reason="new data", progress=told.append
        )
    assert (answer.version, answer.previous_champion) == (4, 3)
    request = server.requests[-1]
    assert request.url.path == "/v1/models/churn/versions"
    assert dict(request.url.params) == {"promote": "true", "reason": "new data"}
    assert request.content.count(b'form-data; name="model.onnx"') == 1
    assert request.content.count(b"o" * 200_000) == 1
    assert b'name="golden.json"' in request.content and b"stays here" not in request.content
    uploads = [progress.done for progress in told if progress.stage == "upload"]
    assert uploads and uploads[-1] < 200_002 and told[-1] == Progress("load", 0, None)


def test_a_version_that_is_refused_says_which_golden_row():
    server = Answers(
        NO_MODELS, httpx.Response(422, json={"error": "golden.json row 3: expected 0.2, found 0.3"})
    )
    with server.client() as client, pytest.raises(bellwether.ModelRefused, match="row 3"):
        client.models.deploy_bundle("churn", {"model.onnx": b"o"})


def test_a_folder_without_a_model_is_no_bundle(tmp_path):
    with Answers(NO_MODELS).client() as client, pytest.raises(FileNotFoundError, match="model.onnx"):
        client.models.deploy_bundle("churn", tmp_path)


def test_a_caller_who_may_not_deploy_is_told_so_before_anything_is_converted_or_sent():
    server = Answers(httpx.Response(403, json={"error": "the key lacks the scope deploy"}))
    with server.client() as client, pytest.raises(bellwether.Forbidden, match="scope deploy"):
        client.deploy("churn", "no estimator", None)
    assert [request.method for request in server.requests] == ["GET"]


def test_the_asynchronous_client_does_the_same():
    server = Answers(busy(), httpx.Response(200, json=SCORES), httpx.ReadTimeout("no answer"))

    async def talk():
        async with bellwether.AsyncClient(
            "http://server", transport=httpx.MockTransport(server.later)
        ) as client:
            scores = await client.score("c1")
            with pytest.raises(bellwether.ServerUnavailable, match="no answer"):
                await client.score("c1")
            return scores

    assert asyncio.run(talk())["churn"].score == 0.25
    assert len(server.requests) == 3


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def methods(one):
        found = {name: method for name, method in inspect.getmembers(one, callable) if not name.startswith("_")}
        assert all(method.__doc__ for method in found.values()), one
        return {name: inspect.signature(method) for name, method in found.items()}

    def arguments(one):
        return [str(given) for name, given in inspect.signature(one).parameters.items() if name != "transport"]

    assert methods(bellwether.Client) == methods(bellwether.AsyncClient)
    assert arguments(bellwether.Client) == arguments(bellwether.AsyncClient)
    threads, loop = bellwether.Client(), bellwether.AsyncClient()
    for part in ("features", "events", "models"):
        assert methods(getattr(threads, part)) == methods(getattr(loop, part)), part
    threads.close()
    asyncio.run(loop.close())


def test_the_bar_says_how_far_it_is():
    assert line(Progress("upload", 1, 4), 2.2) == "upload [#######.......................]  25% 2 s"
    assert line(Progress("load", 0, None), 3) == "load … 3 s"


class Notebook(io.StringIO):
    """Standard error as a notebook has it, which says that it is no terminal."""


Notebook.__module__ = "ipykernel.iostream"


def assert_cleared(terminal):
    """The last thing written is blanks over the bar, and the cursor is back."""
    *_, bar, blanks, end = terminal.getvalue().split("\r")
    assert bar.strip() and not blanks.strip() and len(blanks) >= len(bar.rstrip()) and end == ""


def test_a_bar_is_shown_in_notebooks_too(monkeypatch):
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(_progress, "PATIENCE_SECONDS", 0.0)
    for stream, shown in ((Notebook(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Reporter(None) as reporter:
            reporter.report("convert")
            if shown:
                eventually("a bar", lambda: "convert" in stream.getvalue())
        assert bool(stream.getvalue()) == shown


def test_a_bar_comes_with_what_takes_a_while_and_goes_with_it(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(_progress, "PATIENCE_SECONDS", 3600.0)
    # Given something that is over before anybody waits, and something on what is no terminal
    with Reporter(True) as quick, Reporter(None) as piped:
        quick.report("upload", 1, 2)
        piped.report("upload", 1, 2)
    assert terminal.getvalue() == ""
    # When something takes longer, then the bar is drawn, and cleared at the end
    monkeypatch.setattr(_progress, "PATIENCE_SECONDS", 0.0)
    with Reporter(True) as slow:
        slow.report("upload", 1, 2)
        eventually("a bar", lambda: " 50%" in terminal.getvalue())
    assert_cleared(terminal)


@pytest.mark.parametrize("waits", ["threads", "asyncio"])
def test_a_bar_goes_when_what_it_shows_fails_on_the_way(monkeypatch, waits):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(_progress, "PATIENCE_SECONDS", 0.0)

    def fail(request):
        eventually("a bar", lambda: "events" in terminal.getvalue())
        return httpx.Response(500, json={"error": "the disk is full"})

    async def fail_later(request):
        return fail(request)

    async def send_later():
        async with bellwether.AsyncClient("http://server", transport=httpx.MockTransport(fail_later)) as client:
            await client.events.send({"event": "ticket"}, progress=True)

    def send():
        with bellwether.Client("http://server", transport=httpx.MockTransport(fail)) as client:
            client.events.send({"event": "ticket"}, progress=True)

    with pytest.raises(bellwether.BellwetherError, match="the disk is full"):
        send() if waits == "threads" else asyncio.run(send_later())
    assert_cleared(terminal)
