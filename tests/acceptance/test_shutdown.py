"""A restart that nobody notices: readiness says first that the server is going, everything is served
while load balancers find out, what is in flight is finished, and the log says how far it is."""

import http.client
import json
import socket
import time

import pytest

from export import read
from faulty import champion, slow_steps, with_steps
from heavy import Heavy, assert_one_answer_each, heavy_model
from server import ANSWER_SECONDS, STOP_SECONDS, Client, Server, free_port, refuse, succeed

IN_FLIGHT = 50
# Long enough to ask a busy machine what these tests ask.
DELAY_SECONDS = 10


@pytest.fixture
def models(tmp_path):
    heavy_model(tmp_path / "models")
    return tmp_path / "models"


def entries(server, word):
    """The entries of the log whose message holds a word."""
    found = [json.loads(line) for line in server.log if line.startswith("{")]
    return [entry for entry in found if word in entry.get("message", "")]


def status_of(address, path):
    """The status that a new connection sees, or None when there is no connection to be had."""
    client = Client(address, timeout=ANSWER_SECONDS)
    try:
        return client.get(path).status
    except ConnectionError:
        return None
    finally:
        client.close()


def wait_for_status(address, path, expected):
    deadline = time.monotonic() + STOP_SECONDS
    while (status := status_of(address, path)) not in expected:
        assert time.monotonic() < deadline, f"{path} still answers {status}"
        time.sleep(0.005)  # between two looks


def begin(address, path, body, headers):
    """Opens a connection whose handler runs and waits for the body."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
    lines = [f"POST {path} HTTP/1.1", "Host: b", "Expect: 100-continue", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
    return connection


def read_answer(connection):
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return response.status, response.read()


def test_fifty_requests_in_flight_at_sigterm_are_all_answered(data_dir, models):
    # Given fifty requests that the server has begun, which two at a time take seconds,
    arguments = ["--max-concurrency", 2, "--max-queue", IN_FLIGHT]
    arguments += ["--request-deadline", "60s", "--shutdown-timeout", "60s"]
    server = Server(data_dir, models=models, arguments=arguments)
    heavy = Heavy(server)
    body, headers = heavy.message(seconds=0.1)
    connections = [begin(server.address, heavy.path, body, headers) for _ in range(IN_FLIGHT)]
    for connection in connections:
        connection.sendall(body)

    # when it is told to stop,
    server.terminate()

    # then it takes no new connection any more, but answers all fifty,
    wait_for_status(server.address, "/livez", {None})
    answers = []
    for connection in connections:
        with connection:
            answers.append(read_answer(connection))
    assert [status for status, _ in answers] == [200] * IN_FLIGHT, answers
    assert_one_answer_each([answered for _, answered in answers])

    # says meanwhile how many are left, and ends well.
    assert server.wait(ANSWER_SECONDS) == 0, server.log_text()
    left = [entry["in_flight"] for entry in entries(server, "draining")]
    assert left and 0 < max(left) <= IN_FLIGHT, server.log_text()
    assert entries(server, "stopped"), server.log_text()


def test_a_server_that_is_told_to_stop_goes_on_serving_while_it_says_that_it_is_not_ready(data_dir, models):
    arguments = ["--shutdown-delay", f"{DELAY_SECONDS}s"]
    server = Server(data_dir, models=models, arguments=arguments)
    heavy = Heavy(server)
    old = server.client()
    assert old.get("/readyz").status == 200
    told = time.monotonic()
    server.terminate()

    # Every question of readiness is answered no, by a connection from before and by new ones,
    wait_for_status(server.address, "/readyz", {503})
    answer = old.get("/readyz")
    assert answer.status == 503
    assert any("stopping" in reason for reason in answer.json()["reasons"]), answer
    assert status_of(server.address, "/v2/health/ready") == 503
    # but it lives, and new connections are served.
    assert status_of(server.address, "/livez") == 200
    assert status_of(server.address, "/v2/health/live") == 200
    for _ in range(5):
        answer = heavy.send(seconds=0.01).answer()
        assert answer.status == 200, answer
        # The next request of this client shall reach a server that stays.
        assert answer.headers["Connection"] == "close", answer.headers

    # It is gone after the delay, not before.
    assert server.wait(DELAY_SECONDS + STOP_SECONDS) == 0, server.log_text()
    assert time.monotonic() - told >= DELAY_SECONDS
    assert status_of(server.address, "/livez") is None


def test_without_requests_and_without_a_delay_it_is_gone_at_once(data_dir, models):
    server = Server(data_dir, models=models)
    server.stop()
    assert not entries(server, "closed before"), server.log_text()


# The answers of grpc.health.v1.Health/Check: the field `status` with 1 for SERVING, 2 for NOT_SERVING.
SERVING = b"\x08\x01"
NOT_SERVING = b"\x08\x02"


def test_over_grpc_too_it_is_not_serving_before_it_is_gone(data_dir, models):
    import grpc

    port = free_port()
    arguments = ["--shutdown-delay", f"{DELAY_SECONDS}s", "--grpc-listen", f"127.0.0.1:{port}"]
    server = Server(data_dir, models=models, arguments=arguments)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=ANSWER_SECONDS, wait_for_ready=True) == SERVING
        server.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while (status := check(b"", timeout=ANSWER_SECONDS)) != NOT_SERVING:
            assert status == SERVING and time.monotonic() < deadline, status
            time.sleep(0.005)  # between two looks
    assert server.wait(DELAY_SECONDS + STOP_SECONDS) == 0, server.log_text()


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--shutdown-delay", "soon"),
        ("--request-deadline", "10"),
        ("--max-concurrency", "-1"),
        ("--max-queue", "many"),
    ],
)
def test_a_wrong_setting_is_named(data_dir, flag, value):
    said = refuse("serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, f"{flag}={value}")
    assert flag in said and value in said, said


def test_an_administrative_call_that_the_stop_gives_up_is_recorded(data_dir, tmp_path):
    # Given a server with a version on its way in that takes much longer to load than a stop may take
    models = tmp_path / "models"
    champion(models)
    config = tmp_path / "bellwether.toml"
    config.write_text('shutdown_timeout = "1s"\n[repository]\nwatch = "0s"\n')
    server = Server(data_dir, models=models, cwd=tmp_path)
    with_steps(models, 2, slow_steps() * 500)
    body = b"{}"
    with begin(server.address, "/v2/repository/models/churn/load", body, {}) as connection:
        connection.sendall(body)
        # When it is told to stop while it loads
        server.terminate()
        assert server.wait(ANSWER_SECONDS) == 0, server.log_text()
    assert entries(server, "administrative calls were given up"), server.log_text()
    # Then the record has the call, and that it was not finished
    succeed("ledger", "export", "--data-dir", data_dir, "--output", tmp_path / "export")
    (row,) = read(tmp_path / "export", "audit").to_dicts()
    assert (row["action"], row["subject"]) == ("POST /v2/repository/models/{name}/load", "churn")
    assert row["outcome"].startswith("given up"), row
