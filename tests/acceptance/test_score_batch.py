"""POST /v1/score/batch: many customers in one request, each answered as /v1/score answers it; streamed, so
that neither side holds more than a piece; and out of the way of whoever asks for one customer."""

import contextlib
import gzip
import http.client
import io
import json
import socket
import threading
import time
from pathlib import Path

import onnx
import polars
import pyarrow
import pytest

from churn_versions import add_version
from export import export
from rollouts import rolled_out
from server import ANSWER_SECONDS, Client, Server
from telco import VARIED, customer, ibm_customers
from waiting import eventually

PATH = "/v1/score/batch"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def arrow(rows, step=1000):
    """Rows as an Arrow stream, in batches."""
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    body = io.BytesIO()
    with pyarrow.ipc.new_stream(body, table.schema) as writer:
        writer.write_table(table, max_chunksize=step)
    return body.getvalue()


def post(client, body, content_type=NDJSON, query="", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request("POST", PATH + query, body, {"Content-Type": content_type, **headers})


def answers(answer):
    """The lines of an answer."""
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == NDJSON
    return [json.loads(line) for line in answer.body.splitlines()]


def table(answer):
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == ARROW
    return pyarrow.ipc.open_stream(answer.body).read_all()


def without_id(scored):
    return {name: value for name, value in scored.items() if name != "prediction_id"}


def store_all(client, rows):
    answer = client.request("POST", "/v1/features/customer", lines(rows), {"Content-Type": NDJSON})
    assert answer.status == 200 and answer.json()["written"] == len(rows), answer


@pytest.fixture(scope="module")
def telco(tmp_path_factory):
    """A server that knows the customers of the public data set, and their ids."""
    customers = ibm_customers()
    with Server(tmp_path_factory.mktemp("telco") / "data") as server:
        store_all(server.client(), [{"customer_id": i, **features} for i, features, _ in customers])
        yield server, customers


@pytest.fixture
def varied(client, customer_id):
    """Stored customers that differ in every feature."""
    ids = [f"{customer_id}-{number}" for number in range(len(VARIED))]
    store_all(client, [{"customer_id": one, **features} for one, features in zip(ids, VARIED)])
    return ids


def test_every_customer_of_the_public_data_gets_the_bits_of_a_request_of_his_own(telco):
    server, customers = telco
    client = server.client()
    rows = [{"customer_id": one} for one, _, _ in customers]
    alone = [without_id(client.score(row["customer_id"])) for row in rows]
    as_lines = answers(post(client, lines(rows)))
    assert [without_id(line) for line in as_lines] == alone
    assert len({line["prediction_id"] for line in as_lines}) == len(rows)
    found = table(post(client, arrow(rows), ARROW))
    assert found["customer_id"].to_pylist() == [row["customer_id"] for row in rows]
    assert found["error"].null_count == len(rows)
    for model in ("churn", "upsell"):
        predictions = [next(p for p in scored["predictions"] if p["model"] == model) for scored in alone]
        assert found[f"{model}_score"].to_pylist() == [p["score"] for p in predictions]
        assert found[f"{model}_label"].to_pylist() == [p.get("label") for p in predictions]
        assert found[f"{model}_version"].to_pylist() == [p["version"] for p in predictions]


def test_what_a_row_brings_is_used_instead_of_what_is_stored(telco):
    server, customers = telco
    client = server.client()
    # Everybody with the features of the next one, a missing value among them.
    features = [features for _, features, _ in customers]
    assert any(one["total_charges"] is None for one in features)
    changed = [
        (one, changed) for (one, _, _), changed in zip(customers, features[1:] + features[:1])
    ]
    some = [at for at, (_, f) in enumerate(changed) if f["total_charges"] is None or at % 50 == 0]
    alone = {at: without_id(client.score(changed[at][0], features=changed[at][1])) for at in some}
    rows = [{"customer_id": one, **features} for one, features in changed]
    as_lines = answers(post(client, lines(rows)))
    from_arrow = answers(post(client, arrow(rows), ARROW, Accept=NDJSON))
    for at, expected in alone.items():
        assert without_id(as_lines[at]) == expected
        assert without_id(from_arrow[at]) == expected
    assert [without_id(line) for line in as_lines] == [without_id(line) for line in from_arrow]


def test_reasons_and_models_are_those_of_a_request_for_one(client, varied):
    rows = [{"customer_id": one, "tenure": 3} for one in varied]
    found = answers(post(client, lines(rows), query="?models=churn&explain=3"))
    alone = [
        client.score(one, models=["churn"], explain=3, features={"tenure": 3}) for one in varied
    ]
    assert [without_id(line) for line in found] == [without_id(one) for one in alone]
    in_columns = table(post(client, arrow(rows), ARROW, query="?models=churn&explain=3"))
    reasons = [json.loads(text) for text in in_columns["churn_reasons"].to_pylist()]
    assert reasons == [one["predictions"][0]["reasons"] for one in alone]
    assert not [name for name in in_columns.column_names if name.startswith("upsell")]


def test_polars_writes_a_request_and_reads_the_answer(client, varied):
    frame = polars.DataFrame({"customer_id": varied, "contract": ["Two year"] * len(varied)})
    body = io.BytesIO()
    frame.write_ipc_stream(body)
    answer = post(client, body.getvalue(), ARROW)
    assert answer.status == 200, answer
    scores = polars.read_ipc_stream(answer.body)
    expected = [client.score(one, features={"contract": "Two year"})["predictions"][0]["score"] for one in varied]
    assert scores["churn_score"].to_list() == expected
    # And as lines, as it writes those.
    found = answers(post(client, frame.write_ndjson().encode()))
    assert [line["predictions"][0]["score"] for line in found] == expected


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_compressed_body_is_read_as_it_comes(client, varied, coding):
    body = lines({"customer_id": varied[at % len(varied)]} for at in range(10_000))
    if coding == "gzip":
        body = gzip.compress(body)
    found = answers(post(client, body, query="?models=churn", Content_Encoding=coding))
    assert [line["customer_id"] for line in found] == [varied[at % len(varied)] for at in range(10_000)]


def test_rows_that_are_wrong_say_why_and_the_others_are_scored(client, varied):
    one = varied[0]
    body = lines(
        [
            {"customer_id": one},
            {"customer_id": "nobody at all"},
            {"customer_id": one, "tenure": "soon"},
            {"customer_id": one, "tenuer": 3},
            {"tenure": 3},
        ]
    )
    body += b"\n{\n" + lines([{"customer_id": one, "tenure": -4}, {"customer_id": one}])
    found = answers(post(client, body))
    assert [line.get("row") for line in found] == [None, 2, 3, 4, 5, 6, 7, None]
    assert [line.get("customer_id") for line in found[1:7]] == ["nobody at all", one, one, None, None, one]
    for line, said in zip(
        found[1:7],
        [
            "no such customer",
            'tenure: expected int64, found the string "soon"',
            "tenuer: no such feature in view customer; did you mean tenure?",
            "customer_id: missing",
            "not JSON",
            "tenure: ",
        ],
    ):
        assert said in line["error"], line
    alone = [p["score"] for p in client.score(one)["predictions"]]
    for line in (found[0], found[7]):
        assert [p["score"] for p in line["predictions"]] == alone
    # In columns: the whole row is there, without scores.
    rows = [{"customer_id": i, "tenure": t} for i, t in [(one, 3), ("nobody", 3), (None, 3), (one, -4)]]
    in_columns = table(post(client, arrow(rows), ARROW))
    assert in_columns["churn_score"].is_null().to_pylist() == [False, True, True, True]
    assert [bool(error) for error in in_columns["error"].to_pylist()] == [False, True, True, True]


def test_what_is_wrong_with_the_whole_request_is_said_before_any_answer(client, varied):
    row = lines([{"customer_id": varied[0]}])
    wrong_column = arrow([{"customer_id": varied[0], "tenuer": 3}])
    for body, content_type, query, headers, status, said in [
        (row, "text/csv", "", {}, 415, "Content-Type"),
        (row, NDJSON, "", {"Accept": "text/csv"}, 406, "Accept"),
        (row, NDJSON, "", {"Content-Encoding": "zstd"}, 415, "Content-Encoding"),
        (row, NDJSON, "?model=churn", {}, 400, "model"),
        (row, NDJSON, "?models=", {}, 422, "models: empty"),
        (row, NDJSON, "?models=chrun", {}, 404, "chrun"),
        (b"x" * 1_100_000, NDJSON, "", {}, 413, "score_batch.max_line_bytes"),
        (wrong_column, ARROW, "", {}, 422, "did you mean tenure?"),
        (arrow([{"id": "a"}]), ARROW, "", {}, 422, "no column customer_id"),
        (b"no arrow at all", ARROW, "", {}, 400, "no Arrow IPC stream"),
        (b"not gzip", NDJSON, "", {"Content-Encoding": "gzip"}, 400, "expected gzip"),
    ]:
        answer = client.request("POST", PATH + query, body, {"Content-Type": content_type, **headers})
        assert answer.status == status and said in answer.error(), answer
    assert answers(post(client, b"")) == []
    assert table(post(client, arrow(pyarrow.table({"customer_id": pyarrow.array([], "string")})), ARROW)).num_rows == 0


def test_a_stream_that_breaks_is_answered_up_to_there_and_says_so(client, varied):
    rows = [{"customer_id": varied[at % len(varied)]} for at in range(3000)]
    cut = arrow(rows, step=500)[:-300]
    found = answers(post(client, cut, ARROW, Accept=NDJSON))
    assert len(found) == 2501
    assert "ends within a message" in found[-1]["error"] and "row" not in found[-1]
    assert all("prediction_id" in line for line in found[:-1])
    # An Arrow stream cannot say it: it is not whole.
    broken = Client(f"{client.connection.host}:{client.connection.port}")
    with contextlib.closing(broken), pytest.raises((http.client.IncompleteRead, ConnectionError)):
        post(broken, cut, ARROW)
    long = lines(rows[:10]) + b'{"customer_id": "' + b"x" * 1_100_000 + b'"}\n'
    found = answers(post(client, lines(rows) * 2 + long))
    assert "score_batch.max_line_bytes" in found[-1]["error"] and len(found) > 4000


class Stream:
    """A request whose rows are sent while its answer is read."""

    def __init__(self, server, content_type=NDJSON, query=""):
        host, port = server.address.rsplit(":", 1)
        self.socket = socket.socket()
        # What the system holds for a client that does not read is no part of these tests.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.settimeout(ANSWER_SECONDS)
        self.socket.connect((host, int(port)))
        head = f"POST {PATH}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        self.socket.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        self.reader = None

    def send(self, data):
        self.socket.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self):
        self.socket.sendall(b"0\r\n\r\n")

    def begin(self):
        """The status of the answer, which has begun."""
        self.reader = http.client.HTTPResponse(self.socket, method="POST")
        self.reader.begin()
        return self.reader.status

    def line(self):
        return json.loads(self.reader.readline())

    def rest(self):
        return [json.loads(line) for line in self.reader.read().splitlines()]

    def close(self):
        if self.reader is not None:
            self.reader.close()
        # Whoever is sending on another thread is woken.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def test_a_row_is_answered_before_the_next_is_sent(shared_server, client, varied):
    with contextlib.closing(Stream(shared_server)) as stream:
        for at, one in enumerate(varied):
            stream.send(lines([{"customer_id": one}]))
            if at == 0:
                assert stream.begin() == 200
            assert stream.line()["customer_id"] == one
        stream.end()
        assert stream.rest() == []


def test_more_requests_than_may_run_are_told_to_come_back_and_single_scores_are_answered(tmp_path):
    with Server(tmp_path / "data", settings="[score_batch]\nmax_requests = 1\n") as server:
        client = server.client()
        client.store("a", customer())
        with contextlib.closing(Stream(server)) as stream:
            stream.send(lines([{"customer_id": "a"}]))
            assert stream.begin() == 200
            assert stream.line()["customer_id"] == "a"
            busy = post(client, lines([{"customer_id": "a"}]))
            assert busy.status == 429 and "max_requests" in busy.error(), busy
            assert int(busy.headers["Retry-After"]) >= 1
            assert "bellwether_score_batch_in_flight 1\n" in client.get("/metrics").body.decode()
            # Who asks for one customer is not in its way, nor it in theirs.
            assert client.score("a")["predictions"]
            stream.send(lines([{"customer_id": "a"}]))
            stream.end()
            assert [line["customer_id"] for line in stream.rest()] == ["a"]
        # Who has an answer may ask again at once.
        for _ in range(20):
            assert answers(post(client, lines([{"customer_id": "a"}])))
        metrics = client.get("/metrics").body.decode()
        assert 'bellwether_score_batch_requests_total{outcome="busy"} 1\n' in metrics
        assert 'bellwether_score_batch_requests_total{outcome="done"} 21\n' in metrics
        assert "bellwether_score_batch_in_flight 0\n" in metrics


def test_a_client_that_does_not_read_takes_no_memory_and_no_place(tmp_path):
    settings = '[score_batch]\nmax_requests = 1\nanswer_bytes = 1_000_000\nstall_timeout = "3s"\n'
    with Server(tmp_path / "data", settings=settings) as server:
        client = server.client()
        client.store("a", customer())
        rows = lines([{"customer_id": "a"}] * 2000)
        # What a batch takes while it is scored is there before anything is compared.
        answers(post(client, rows * 10))
        before = server.resident_bytes()
        sent = 0

        def push(stream):
            nonlocal sent
            # It is refused at last: nobody takes the answers.
            with contextlib.suppress(OSError):
                while sent < 3_000:
                    stream.send(rows)
                    sent += 1

        with contextlib.closing(Stream(server)) as stream:
            sender = threading.Thread(target=push, args=(stream,), daemon=True)
            sender.start()
            gone = 'bellwether_score_batch_requests_total{outcome="gone"} 1\n'
            eventually(
                "a client that reads nothing is given up",
                lambda: gone in client.get("/metrics").body.decode(),
                seconds=600,
            )
            assert answers(post(client, lines([{"customer_id": "a"}])))
            # Six million rows were to come; their answers alone would be two thousand megabytes.
            assert sent < 3_000
            assert server.resident_bytes() - before < 100 * 1024 * 1024
        sender.join(60)
        assert not sender.is_alive()


def test_every_answer_is_in_the_ledger_unless_nothing_is_to_be_recorded(tmp_path):
    with Server(tmp_path / "data") as server:
        client = server.client()
        store_all(client, [{"customer_id": f"c{at}", **features} for at, features in enumerate(VARIED)])
        rows = [{"customer_id": f"c{at % len(VARIED)}", "tenure": 9} for at in range(6000)]
        told = answers(post(client, lines(rows[:100]), query="?explain=2"))
        told += answers(post(client, lines(rows)))
        assert answers(post(client, lines(rows[:50]), query="?record=false"))[0]["prediction_id"]
        alone = client.score("c1", features={"tenure": 9}, explain=2)
    predictions, _, _ = export(tmp_path / "data", tmp_path / "export")
    recorded = predictions.unique("prediction_id")
    assert set(recorded["prediction_id"]) == {line["prediction_id"] for line in [*told, alone]}
    # A row of it says what a row of a single request says.
    volatile = {"prediction_id", "at"}
    one = predictions.filter(polars.col("prediction_id") == alone["prediction_id"])
    other = predictions.filter(polars.col("prediction_id") == told[1]["prediction_id"])
    columns = [name for name in one.columns if name not in volatile and not name.endswith("_at")]
    assert one.select(columns).to_dicts() == other.select(columns).to_dicts()


def test_a_canary_answers_its_customers_here_too(tmp_path):
    models = tmp_path / "models"
    add_version(models, 1)
    add_version(models, 2, shift=0.5, state="candidate")
    with Server(tmp_path / "data", models=models) as server:
        client = server.client()
        ids = [f"C-{number:03}" for number in range(100)]
        store_all(client, [{"customer_id": one, **customer()} for one in ids])
        # Whoever shares the machine may hold up one version more than the other.
        rolled_out(client, "canary", 2, percent=40, guardrails={"max_latency_ratio": 1e6})
        alone = [without_id(client.score(one)) for one in ids]
        together = answers(post(client, lines({"customer_id": one} for one in ids)))
        assert [without_id(line) for line in together] == alone
        assert {line["predictions"][0]["version"] for line in together} == {"1", "2"}


def test_a_server_that_stops_lets_a_request_end_and_then_ends_it(tmp_path):
    settings = 'shutdown_timeout = "10s"\n'
    with Server(tmp_path / "data", settings=settings) as server:
        client = server.client()
        client.store("a", customer())
        with contextlib.closing(Stream(server)) as stream:
            stream.send(lines([{"customer_id": "a"}]))
            assert stream.begin() == 200
            assert stream.line()["customer_id"] == "a"
            server.terminate()
            # It goes on for a while.
            stream.send(lines([{"customer_id": "a"}]))
            assert stream.line()["customer_id"] == "a"
            last = stream.rest()
            assert len(last) == 1 and "stopping" in last[0]["error"], last
        assert server.wait() == 0


def niceness(server, name):
    """That of the server's threads of this name."""
    found = set()
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        fields = (task / "stat").read_text()
        if f"({name})" in fields:
            found.add(int(fields.rsplit(")", 1)[1].split()[16]))
    return found


def test_single_scores_are_answered_while_many_are_scored(telco):
    server, customers = telco
    body = lines({"customer_id": one} for one, _, _ in customers)
    done = threading.Event()
    found = []

    def batch():
        with contextlib.closing(Client(server.address)) as client:
            found.append(answers(post(client, body * 2)))
        done.set()

    thread = threading.Thread(target=batch)
    thread.start()
    client = server.client()
    meanwhile = 0
    deadline = time.monotonic() + ANSWER_SECONDS
    while not done.is_set() and time.monotonic() < deadline:
        client.score(customers[meanwhile % len(customers)][0])
        meanwhile += 1
    thread.join(ANSWER_SECONDS)
    assert len(found[0]) == 2 * len(customers)
    assert meanwhile > 10
    # Whoever has work that cannot wait goes before the threads that score batches.
    assert niceness(server, "score-batch") == {19}
    assert niceness(server, "serve-0") == {0}


CUSTOMER_VIEW = """
[view]
name = "customer"
entity = "customer_id"
[[relation]]
name = "site"
view = "site"
key = "site_id"
[[feature]]
name = "site_id"
type = "string"
[[feature]]
name = "charges"
type = "float64"
default = 10.0
max_age = "1d"
[[feature]]
name = "weight"
type = "float64"
source = "request"
default = 0.5
[[feature]]
name = "tickets"
type = "float64"
aggregate = { event = "ticket", function = "count", window = "30d" }
[[feature]]
name = "site_risk"
type = "float64"
from = "site.risk"
default = 0.25
[[feature]]
name = "load"
type = "float64"
expression = "charges * (1 + site_risk) + tickets * weight + request_hour * 0"
"""

SITE_VIEW = """
[view]
name = "site"
entity = "site_id"
[[feature]]
name = "risk"
type = "float64"
"""


def load_model(folder):
    """A model that says what it is given."""
    number = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["load"], ["variable"])],
        "load",
        [onnx.helper.make_tensor_value_info("load", number, [None, 1])],
        [onnx.helper.make_tensor_value_info("variable", number, [None, 1])],
    )
    folder.mkdir(parents=True)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "model.onnx")


def test_related_entities_windows_and_stale_values_are_those_of_a_request_for_one(tmp_path):
    load_model(tmp_path / "models" / "load" / "1")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "customer.toml").write_text(CUSTOMER_VIEW)
    (tmp_path / "features" / "site.toml").write_text(SITE_VIEW)
    with Server(
        tmp_path / "data", models=tmp_path / "models", features=tmp_path / "features"
    ) as server:
        client = server.client()
        sites = [{"site_id": f"s{at}", "risk": at / 8} for at in range(5)]
        answer = client.request("POST", "/v1/features/site", lines(sites), {"Content-Type": NDJSON})
        assert answer.status == 200, answer
        # Customers of known, unknown and no sites; every third has told nothing for long.
        customers = [
            {
                "customer_id": f"c{at}",
                "charges": at + 0.1,
                **({"site_id": f"s{at % 7}"} if at % 5 else {}),
                **({"occurred_at": "2020-01-01T00:00:00Z"} if at % 3 == 0 else {}),
            }
            for at in range(600)
        ]
        store_all(client, customers)
        events = [
            {"event_id": str(at), "event": "ticket", "customer_id": f"c{at % 11}"} for at in range(100)
        ]
        assert client.request("POST", "/v1/events", lines(events), {"Content-Type": NDJSON}).status == 200
        brought = [{}, {"site_id": "s4"}, {"site_id": None}, {"site_risk": 0.7}, {"weight": 2.0}, {"tickets": 5}]
        rows = [{"customer_id": one["customer_id"], **brought[at % 6]} for at, one in enumerate(customers)]
        together = answers(post(client, lines(rows)))
        seen = set()
        for row, found in zip(rows, together):
            features = {name: value for name, value in row.items() if name not in ("customer_id", "weight")}
            context = {"weight": row["weight"]} if "weight" in row else {}
            alone = client.score(row["customer_id"], features=features, context=context)
            assert without_id(found) == without_id(alone)
            seen.update(found["features"]["stale"] + found["features"]["missing"])
        assert {"charges", "site_id", "site_risk", "weight"} <= seen
