"""What an operations team relies on: health, metrics, the description of the API, logs that hold no
personal data, and a shutdown that finishes what was begun."""

import http.client
import json
import re
import signal
import socket
import time
import uuid
from urllib.parse import urljoin, urlsplit

import pytest

from models import reference
from server import ANSWER_SECONDS, STOP_SECONDS, Client, Server, succeed
from telco import VARIED, customer

# Health.


def test_livez_and_readyz_answer(client):
    assert client.get("/livez").status == 200
    assert client.get("/readyz").status == 200


def test_a_port_is_chosen_and_named(shared_server):
    host, port = shared_server.address.rsplit(":", 1)
    assert host == "127.0.0.1" and int(port) > 0


# Metrics.

SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: \d+)?$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def metrics_of(client):
    """The samples of /metrics: (name, labels as a frozen set of pairs) -> value; and metric -> type."""
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples, types = {}, {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} is declared twice"
            types[name] = kind
        elif line and not line.startswith("#"):
            sample = SAMPLE.match(line)
            assert sample, f"not a sample: {line}"
            key = (sample["name"], frozenset(LABEL.findall(sample["labels"] or "")))
            assert key not in samples, f"twice: {line}"
            samples[key] = float(sample["value"])
    assert samples
    return samples, types


def stage_histograms(client):
    """(metric, stage, model, version) -> number of observations, for every histogram with a stage."""
    samples, types = metrics_of(client)
    counts = {}
    for (name, label_pairs), value in samples.items():
        labels = dict(label_pairs)
        if "stage" in labels and name.endswith("_count"):
            metric = name.removesuffix("_count")
            assert types[metric] == "histogram", (
                f"{metric} is a {types[metric]}: quantiles cannot be added up"
            )
            counts[(metric, labels["stage"], labels.get("model"), labels.get("version"))] = value
    return counts


def test_every_stage_of_a_score_has_a_histogram_that_moves(client, customer_id):
    client.store(customer_id, customer())
    client.score(customer_id)
    before = stage_histograms(client)
    assert {stage for _, stage, _, _ in before} >= {"store", "features", "model", "ledger"}
    assert {(m, v) for _, stage, m, v in before if stage == "model"} >= {("churn", "1"), ("upsell", "1")}
    for _ in range(10):
        client.score(customer_id, models=["churn"])
    after = stage_histograms(client)
    for key, count in before.items():
        _, stage, model, _ = key
        if stage in ("store", "features", "ledger") and model in (None, ""):
            assert after[key] >= count + 10, key
        if stage == "model" and model == "churn":
            assert after[key] >= count + 10, key
        if stage == "model" and model == "upsell":
            assert after[key] == count, key


def test_histograms_are_cumulative(client, customer_id):
    client.store(customer_id, customer())
    client.score(customer_id)
    samples, _ = metrics_of(client)
    series = {}
    for (name, label_pairs), value in samples.items():
        labels = dict(label_pairs)
        if name.endswith("_bucket"):
            bound = float(labels.pop("le").replace("+Inf", "inf"))
            series.setdefault((name.removesuffix("_bucket"), frozenset(labels.items())), []).append(
                (bound, value)
            )
    assert series
    for (name, labels), buckets in series.items():
        buckets.sort()
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), name
        assert buckets[-1][0] == float("inf")
        assert samples[(name + "_count", labels)] == counts[-1], name


def test_metrics_never_name_a_customer(client):
    secret = f"nobody-must-read-{uuid.uuid4()}"
    client.store(secret, customer())
    client.score(secret)
    client.post("/v1/score", {"customer_id": secret + "-unknown"})
    client.post("/v1/score", {"customer_id": secret, "models": ["no-such-model-" + secret]})
    client.get(f"/no-such-path/{secret}")
    assert secret not in client.get("/metrics").body.decode()


# The description of the API.


@pytest.fixture
def openapi(client):
    answer = client.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.json()


def without_names(path):
    return re.sub(r"\{[^}]*\}", "{}", path)


# Every route the acceptance tests call.
ROUTES = [
    ("post", "/v1/score"),
    ("post", "/v1/outcomes"),
    ("put", "/v1/customers/{}"),
    ("get", "/v1/customers/{}"),
    ("delete", "/v1/customers/{}"),
    ("get", "/v2"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
    ("get", "/v2/models/{}"),
    ("get", "/v2/models/{}/ready"),
    ("post", "/v2/models/{}/infer"),
    ("get", "/v2/models/{}/versions/{}"),
    ("get", "/v2/models/{}/versions/{}/ready"),
    ("post", "/v2/models/{}/versions/{}/infer"),
    ("get", "/v2/models/{}/config"),
    ("get", "/v2/models/{}/versions/{}/config"),
    ("get", "/v2/models/stats"),
    ("get", "/v2/models/{}/stats"),
    ("get", "/v2/models/{}/versions/{}/stats"),
    ("post", "/v1/score/batch"),
    ("post", "/v1/events"),
    ("post", "/v1/features/{}"),
    ("get", "/v1/features/{}/{}"),
    ("put", "/v1/features/{}/{}"),
    ("delete", "/v1/features/{}/{}"),
    ("post", "/v2/repository/index"),
    ("post", "/v2/repository/models/{}/load"),
    ("post", "/v2/repository/models/{}/unload"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
]


def test_every_route_is_described(openapi):
    described = {(m, without_names(path)) for path, methods in openapi["paths"].items() for m in methods}
    assert set(ROUTES) <= described
    assert openapi["openapi"].startswith("3.")
    assert openapi["info"]["title"] and openapi["info"]["version"]


def test_every_described_route_answers(client, openapi):
    bodies = {
        "/v1/score": {"customer_id": "described"},
        "/v1/score/batch": {"customer_id": "described"},
        "/v1/outcomes": {"customer_id": "described", "outcome": "churn"},
        "/v1/customers/{}": {"features": customer()},
        "/v1/events": {"event_id": "1", "event": "ticket", "customer_id": "described"},
        "/v1/features/{}": [{"customer_id": "described", **customer()}],
        "/v1/features/{}/training-set": "customer_id,observed_at\ndescribed,2026-01-01T00:00:00Z\n",
        "/v1/features/{}/{}": {"features": customer()},
        "/v2/models/{}/infer": {"inputs": reference("churn").oip_inputs(VARIED[:1])},
        "/v2/models/{}/versions/{}/infer": {"inputs": reference("churn").oip_inputs(VARIED[:1])},
        "/v2/repository/index": {},
        "/invocations": {"dataframe_records": VARIED[:1]},
    }
    queries = {"/invocations": "?model=churn"}
    # What these change outlives the test: test_deploys.py and test_rollout.py ask servers of their own.
    elsewhere = {"/v1/models/{}/versions", "/v1/models/{}/rollout"}
    for path, methods in openapi["paths"].items():
        template = without_names(path)
        if template in elsewhere:
            continue
        for method, operation in methods.items():
            if method not in ("get", "put", "post", "delete", "patch"):
                continue
            client.store("described", customer())
            filled = path
            for name in re.findall(r"\{([^}]*)\}", path):
                value = "1" if "version" in name else "churn" if "/models/" in path else "described"
                value = "customer" if name == "view" else value
                filled = filled.replace("{%s}" % name, value)
            body = bodies.get(template, {}) if method in ("put", "post", "patch") else None
            answer = client.request(method.upper(), filled + queries.get(path, ""), body)
            assert answer.status < 300, f"{method} {filled}: {answer}"
            assert str(answer.status) in operation["responses"], (
                f"{method} {path}: {answer.status} is not described"
            )
            if path.endswith("/unload"):
                # The other tests need it.
                assert client.post(filled.removesuffix("unload") + "load", {}).status == 200


def test_every_reference_in_the_description_leads_somewhere(openapi):
    text = json.dumps(openapi)
    for target in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        place = openapi
        for step in target.split("/"):
            assert step in place, target
            place = place[step]


def test_errors_are_described_as_they_are(openapi):
    responses = openapi["paths"]["/v1/score"]["post"]["responses"]
    assert any(status.startswith("4") for status in responses), list(responses)


def follow(client, path):
    """GET with up to three redirects inside the server."""
    for _ in range(3):
        answer = client.get(path)
        if answer.status not in (301, 302, 303, 307, 308):
            break
        path = urljoin(path, answer.headers["Location"])
        assert not urlsplit(path).netloc or urlsplit(path).netloc.startswith("127.0.0.1"), path
        path = urlsplit(path).path
    return path, answer


def test_docs_come_whole_from_the_binary(client):
    path, page = follow(client, "/docs")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    html = page.body.decode()
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", html)
    assert loaded, "a page without scripts shows nothing"
    for url in loaded:
        if url.startswith(("data:", "#")):
            continue
        assert not urlsplit(url).netloc, f"{url} comes from elsewhere"
        asset = client.get(urljoin(path, url))
        assert asset.status == 200, url
        if asset.headers["Content-Type"].startswith("text/css"):
            assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", asset.body.decode()), url


# Logs.


def test_logs_are_json_lines_without_personal_data(data_dir):
    secret_id = "kunde-0815-geheim"
    secrets = [secret_id, "7431.1875", "Secret payment", "secret-outcome-id", "not-a-number-secret"]
    with Server(data_dir) as server:
        client = server.client()
        client.store(secret_id, customer(total_charges=7431.1875, payment_method="Secret payment"))
        scored = client.score(secret_id, explain=19, features={"monthly_charges": 7431.1875})
        outcome = {
            "outcome_id": "secret-outcome-id",
            "customer_id": secret_id,
            "outcome": "churn",
            "value": 7431.1875,
        }
        assert client.post("/v1/outcomes", outcome).status in (200, 201)
        assert client.post("/v1/outcomes", {**outcome, "value": 1}).status == 409
        # Errors tell the caller what was wrong; the log must not repeat it.
        assert client.post("/v1/score", {"customer_id": secret_id + "x"}).status == 404
        wrong = {"customer_id": secret_id, "features": {"tenure": "not-a-number-secret"}}
        assert 400 <= client.post("/v1/score", wrong).status < 500
        assert 400 <= client.put(f"/v1/customers/{secret_id}", {"features": wrong["features"]}).status < 500
        inputs = reference("churn").oip_inputs(
            [customer(payment_method="Secret payment", total_charges=7431.1875)]
        )
        assert client.post("/v2/models/churn/infer", {"inputs": inputs}).status == 200
        assert client.get(f"/v1/customers/{secret_id}").status == 200
        assert client.get(f"/{secret_id}").status == 404
        client.delete(f"/v1/customers/{secret_id}")
    assert scored["prediction_id"]
    assert server.log
    for line in server.log:
        json.loads(line)
        for secret in secrets:
            assert secret not in line, line


# Shutdown.


def test_sigterm_and_sigint_stop_an_idle_server_with_code_0(data_dir):
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        # Whatever is waited for at the end is waited for in vain.
        server = Server(data_dir, arguments=["--shutdown-timeout", "1h"])
        idle = server.client()  # an open connection that asks for nothing must not hold it up
        assert idle.get("/livez").status == 200
        server.process.send_signal(stop_signal)
        assert server.wait() == 0


def test_what_is_in_flight_at_sigterm_is_finished(data_dir):
    # Given requests whose handlers are running and wait for the rest of their bodies
    # (the server's "100 Continue" says that they are),
    server = Server(data_dir, arguments=["--shutdown-timeout", "2m"])
    server.client().store("in-flight", customer())
    host, port = server.address.rsplit(":", 1)
    body = json.dumps({"customer_id": "in-flight"}).encode()
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    connections = []
    for _ in range(20):
        connection = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body[:5])
        connections.append(connection)

    # when the server is told to stop and takes no new work,
    server.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            newcomer = Client(server.address)
            refused = newcomer.get("/readyz").status == 503
            newcomer.close()
        except OSError:
            refused = True
        if refused:
            break
        time.sleep(0.01)
    assert refused, "still ready after SIGTERM"

    # then all of them are answered, and it ends well.
    for connection in connections:
        connection.sendall(body[5:])
    for connection in connections:
        with connection:
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            answered = response.read()
            assert response.status == 200, answered
            assert json.loads(answered)["predictions"]
    assert server.wait() == 0
    succeed("ledger", "verify", "--data-dir", data_dir)
