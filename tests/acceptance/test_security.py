"""API keys: without one 401, without the scope 403, on every route and call; changed while the server
runs; rates; what is recorded; what is never shown."""

import json
import socket
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2

from export import read
from keys import SCOPES, Key, KeyedClient, call, create, keys_file, revoke, rotate
from models import copy_sample
from server import Server, refuse, run, succeed
from telco import customer
from waiting import eventually

# What every route asks for, by the beginning of its path; the longest that fits counts. A route that
# begins with none of these fails the test: whoever adds one says here who may use it.
PUBLIC = None
ROUTES = {
    "/livez": PUBLIC,
    "/readyz": PUBLIC,
    "/ping": PUBLIC,
    "/health": PUBLIC,
    "/v2/health/": PUBLIC,
    "/v1/score": "score",
    "/v2": "score",
    "/invocations": "score",
    "/version": "score",
    "/v1/outcomes": "feedback",
    "/v1/customers": "data",
    "/v1/events": "data",
    "/v1/features": "data",
    "/v1/features/reload": "deploy",
    "/v1/features/{view}/backfill": "deploy",
    "/v1/models": "deploy",
    "/v2/repository": "deploy",
    "/v1/audit": "admin",
    "/metrics": "metrics",
}

INFERENCE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
CALLS = {
    INFERENCE + "ServerLive": PUBLIC,
    INFERENCE + "ServerReady": PUBLIC,
    HEALTH + "Check": PUBLIC,
    INFERENCE + "ModelInfer": "score",
    INFERENCE + "ModelReady": "score",
    INFERENCE + "ServerMetadata": "score",
    INFERENCE + "ModelMetadata": "score",
    INFERENCE + "ModelConfig": "score",
    INFERENCE + "ModelStatistics": "score",
    INFERENCE + "RepositoryIndex": "deploy",
    INFERENCE + "RepositoryModelLoad": "deploy",
    INFERENCE + "RepositoryModelUnload": "deploy",
}
STREAM = INFERENCE + "ModelStreamInfer"

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


def scope_of(path):
    fitting = [known for known in ROUTES if path.startswith(known)]
    assert fitting, f"{path}: which scope does it need?"
    return ROUTES[max(fitting, key=len)]


class Protected:
    """A server with a key for each scope, and one that lacks only that."""

    def __init__(self, folder):
        self.data_dir = folder / "data"
        self.keys = {scope: create(self.data_dir, scope) for scope in SCOPES}
        self.lacking = {
            scope: create(self.data_dir, [s for s in SCOPES if s not in (scope, "admin")]) for scope in SCOPES
        }
        self.server = Server(self.data_dir, grpc_listen="127.0.0.1:0")

    def client(self, key=None):
        client = KeyedClient(self.server.address, key)
        self.server._clients.append(client)
        return client


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    made = Protected(tmp_path_factory.mktemp("protected"))
    with made.server:
        made.client(made.keys["data"]).store("c-1", customer())
        yield made


@pytest.fixture(scope="module")
def channel(protected):
    with grpc.insecure_channel(protected.server.grpc_address) as channel:
        yield channel


def bad_keys(key):
    """What is not a key that is in force, though it may look like one."""
    secret = key.secret
    other = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    return [
        Key(key.id, f"bw_{key.id}_{other}"),
        Key("nobody", f"bw_nobody_{secret}"),
        Key("", "bw__"),
        Key("", "x"),
    ]


def documented_routes(client):
    description = client.get("/openapi.json").json()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            if method in ("get", "put", "post", "delete", "patch", "head", "options", "trace"):
                yield method.upper(), path, operation


def plausible(path):
    """The path with something for each parameter that is not there, so that nothing is changed."""
    for name in ("{version}", "{name}", "{view}", "{key}", "{id}"):
        path = path.replace(name, "1" if name == "{version}" else "not-there")
    assert "{" not in path, f"{path}: what stands for the parameter?"
    return path


def test_every_route_is_closed_without_the_scope_and_open_with_it(protected):
    anonymous = protected.client()
    routes = list(documented_routes(anonymous))
    assert len(routes) > 30
    for method, path, operation in routes:
        scope = scope_of(path)
        # The description says the same
        described = operation.get("security")
        assert described == (None if scope is PUBLIC else [{"api_key": [scope]}]), (method, path)
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        place = plausible(path)
        without = anonymous.request(method, place, body)
        if scope is PUBLIC:
            assert without.status not in (401, 403), (method, path, without)
            continue
        assert without.status == 401, (method, path, without)
        assert "API key" in without.error()
        assert without.headers["WWW-Authenticate"].startswith("Bearer")
        for bad in bad_keys(protected.keys[scope]):
            answer = protected.client(bad).request(method, place, body)
            assert answer.status == 401, (method, path, bad, answer)
            assert bad.text not in answer.error()
        lacking = protected.client(protected.lacking[scope]).request(method, place, body)
        assert lacking.status == 403, (method, path, lacking)
        assert f"needs {scope}" in lacking.error()
        for allowed in (scope, "admin"):
            answer = protected.client(protected.keys[allowed]).request(method, place, body)
            assert answer.status not in (401, 403), (method, path, allowed, answer)


def test_what_no_description_lists_is_closed_as_well(protected):
    anonymous = protected.client()
    # Composite keys, a path that is written differently, a method that is not there
    for method, path in [
        ("GET", "/v1/features/customer/a/b"),
        ("DELETE", "/v1/features/customer/a/b"),
        ("POST", "/v2/models/ch%75rn/infer"),
        ("POST", "/v2/models/churn/infer?x=1"),
        ("HEAD", "/v1/models"),
        ("DELETE", "/v1/score"),
        ("OPTIONS", "/v1/score"),
        ("PATCH", "/metrics"),
    ]:
        assert anonymous.request(method, path).status == 401, (method, path)
    for path in ("/docs/", "/openapi.json"):
        assert anonymous.get(path).status == 200, path
    assert anonymous.get("/no/such/route").status == 404


def test_who_sends_much_before_it_listens_hears_that_a_key_is_needed(protected):
    size, piece = 100 * 1024 * 1024, bytes(1024 * 1024)
    for path in ("/v1/score", "/v2/models/churn/infer", "/v1/models/churn/versions"):
        for key, status in ((None, 401), (protected.lacking[scope_of(path)], 403)):
            client = protected.client(key)
            headers = {"Content-Length": str(size), **(key.header if key else {})}
            pieces = (piece for _ in range(size // len(piece)))
            client.connection.request("POST", path, body=pieces, headers=headers)
            answer = client.connection.getresponse()
            assert answer.status == status and b"API key" in answer.read(), (path, answer.status)
            # And the connection goes on
            assert client.get("/livez").status == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Basic {key}", "bw {key}", "{key}", "Bearer {key} {key}"])
def test_a_key_counts_in_the_bearer_header_only(protected, value):
    key = protected.keys["score"].text
    answer = protected.client().request(
        "POST", "/v1/score", {"customer_id": "c-1"}, {"Authorization": value.format(key=key)}
    )
    assert answer.status == 401, answer
    for place in (f"/v1/score?key={key}", f"/v1/score?access_token={key}"):
        assert protected.client().post(place, {"customer_id": "c-1"}).status == 401


def test_every_grpc_call_is_closed_without_the_scope_and_open_with_it(protected, channel):
    for path, scope in CALLS.items():
        code, _ = call(channel, path)
        if scope is PUBLIC:
            assert code not in (UNAUTHENTICATED, PERMISSION_DENIED), (path, code)
            continue
        assert code == UNAUTHENTICATED, (path, code)
        for bad in bad_keys(protected.keys[scope]):
            assert call(channel, path, key=bad)[0] == UNAUTHENTICATED, (path, bad)
        code, details = call(channel, path, key=protected.lacking[scope])
        assert (code, f"needs {scope}" in details) == (PERMISSION_DENIED, True), (path, details)
        for allowed in (scope, "admin"):
            code, details = call(channel, path, key=protected.keys[allowed])
            assert code not in (UNAUTHENTICATED, PERMISSION_DENIED), (path, allowed, details)


def test_the_list_of_grpc_calls_is_that_of_the_server(protected, channel):
    """A call that is not in the list above must not be there; Triton's description names all that
    clients could ask for."""
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name in methods:
        path = INFERENCE + name
        if path not in CALLS and path != STREAM:
            code, _ = call(channel, path, key=protected.keys["admin"])
            assert code == grpc.StatusCode.UNIMPLEMENTED, path


def test_what_is_not_there_is_said_to_be_not_there_to_everyone(protected, channel):
    """It tells nobody anything: which routes and calls there are is public."""
    for key in (None, protected.lacking["score"], protected.keys["admin"]):
        assert protected.client(key).get("/no/such/route").status == 404
        for path in (INFERENCE + "NoSuchCall", INFERENCE + "CudaSharedMemoryStatus", "/no.such.Service/Call"):
            assert call(channel, path, key=key)[0] == grpc.StatusCode.UNIMPLEMENTED, path


def infer_message():
    """An inference that is answered, if only with an error message."""
    return service_pb2.ModelInferRequest(model_name="not-there").SerializeToString()


class Stream:
    """An open stream of inferences."""

    def __init__(self, channel, key):
        self.waiting = threading.Semaphore(0)
        self.ended = False
        self.answers = channel.stream_stream(STREAM)(
            self.messages(), metadata=key.metadata if key else None, timeout=60
        )

    def messages(self):
        while True:
            self.waiting.acquire()
            if self.ended:
                return
            yield infer_message()

    def ask(self):
        self.waiting.release()
        return next(self.answers)

    def end(self):
        self.ended = True
        self.waiting.release()


def test_a_stream_is_closed_without_the_scope_and_ends_with_its_key(protected, channel):
    for key, code in [
        (None, UNAUTHENTICATED),
        (protected.lacking["score"], PERMISSION_DENIED),
    ]:
        stream = Stream(channel, key)
        with pytest.raises(grpc.RpcError) as refused:
            stream.ask()
        stream.end()
        assert refused.value.code() == code
    # Given a stream that is open with a key
    key = create(protected.data_dir, "score")
    stream = eventually("the new key is taken", lambda: open_stream(channel, key))
    # When the key is revoked, then the stream ends
    revoke(protected.data_dir, key)
    with pytest.raises(grpc.RpcError) as ended:
        eventually("the stream ends", lambda: stream.ask() and False)
    stream.end()
    assert ended.value.code() == UNAUTHENTICATED


def test_the_first_message_of_an_old_stream_is_refused_when_its_key_is_revoked(protected, channel):
    # Given a stream that was let in with a key and over which nothing has been asked
    key = create(protected.data_dir, "score")
    eventually("the new key is taken", lambda: score_status(protected, key) == 200)
    stream = Stream(channel, key)
    assert stream.answers.initial_metadata() is not None
    # When the key is revoked, then the first question is not answered
    revoke(protected.data_dir, key)
    eventually("the key is refused", lambda: score_status(protected, key) == 401)
    with pytest.raises(grpc.RpcError) as refused:
        stream.ask()
    stream.end()
    assert refused.value.code() == UNAUTHENTICATED and "revoked" in refused.value.details()


def test_a_batch_without_an_end_ends_with_its_key(protected):
    # Given a client that sends one customer after the other and is answered
    key = create(protected.data_dir, "score")
    eventually("the new key is taken", lambda: score_status(protected, key) == 200)
    host, port = protected.server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        row = b'{"customer_id": "c-1"}\n'
        piece = f"{len(row):x}\r\n".encode() + row + b"\r\n"
        head = "POST /v1/score/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        head += f"Content-Type: application/x-ndjson\r\nAuthorization: Bearer {key.text}\r\n\r\n"
        connection.sendall(head.encode())
        answered = connection.makefile("rb")

        def ask():
            connection.sendall(piece)
            while line := answered.readline():
                if line.startswith(b"{"):
                    return json.loads(line)
            raise AssertionError("the answer ended without a word")

        assert "predictions" in ask()
        # When its key is revoked, then it is told so instead of being answered
        revoke(protected.data_dir, key)
        told = eventually("the answers end", lambda: ask().get("error"))
        assert "revoked" in told and answered.read().endswith(b"0\r\n\r\n"), told


def open_stream(channel, key):
    stream = Stream(channel, key)
    try:
        stream.ask()
    except grpc.RpcError:
        stream.end()
        return None
    return stream


def score_status(protected, key):
    return protected.client(key).post("/v1/score", {"customer_id": "c-1"}).status


def test_a_new_key_is_taken_and_a_revoked_one_refused_without_a_restart(protected):
    key = create(protected.data_dir, "score", "short-lived")
    eventually("the new key is taken", lambda: score_status(protected, key) == 200)
    client = protected.client(key)
    revoke(protected.data_dir, key)
    eventually("refused", lambda: client.post("/v1/score", {"customer_id": "c-1"}).status == 401)
    assert "revoked" in client.post("/v1/score", {"customer_id": "c-1"}).error()
    # Revoking again is no mistake; a key that is not there is
    revoke(protected.data_dir, key)
    assert "nobody" in refuse("keys", "revoke", "--data-dir", protected.data_dir, "nobody")


def test_an_expired_key_is_refused(protected):
    # Given a key that is taken for so long as it was made for, on a machine that lets it be taken by then
    for seconds in (3, 15, 60):
        expires = time.monotonic() + seconds
        key = create(protected.data_dir, "score", "brief", "--expires", f"{seconds}s")
        while not (is_taken := score_status(protected, key) == 200) and time.monotonic() < expires:
            time.sleep(0.05)  # between two looks
        if is_taken:
            break
    assert is_taken, "it is not taken before it expires"
    # Then it is refused some time
    eventually("refused", lambda: score_status(protected, key) == 401, seconds + 60)
    listed = json.loads(succeed("keys", "list", "--data-dir", protected.data_dir, "--json").stdout)
    state = {entry["id"]: entry["state"] for entry in listed["keys"]}
    assert state[key.id] == "expired"
    assert state[protected.keys["score"].id] == "active"


def test_a_secret_that_was_replaced_is_taken_for_its_grace_only(protected):
    key = create(protected.data_dir, "score")
    eventually("the new key is taken", lambda: score_status(protected, key) == 200)
    new = rotate(protected.data_dir, key, grace="0s")
    eventually("the new secret is taken", lambda: score_status(protected, new) == 200)
    assert score_status(protected, key) == 401
    newer = rotate(protected.data_dir, new, grace="1h")
    eventually("the newer secret is taken", lambda: score_status(protected, newer) == 200)
    assert score_status(protected, new) == 200


def test_keys_rotate_under_load_and_no_request_fails(protected, channel):
    # Given callers over HTTP, on both lanes, and over gRPC, who all use the key of the moment
    current = create(protected.data_dir, "score")
    eventually("the key is taken", lambda: score_status(protected, current) == 200)
    shared = {"key": current}
    counted, failed = [], []
    done = threading.Event()

    def over_http(path, body):
        client = KeyedClient(protected.server.address)
        while not done.is_set():
            client.key = shared["key"]
            answer = client.post(path, body)
            counted.append(path)
            if answer.status in (401, 403) or answer.status >= 500:
                failed.append((path, answer))
        client.close()

    def over_grpc():
        while not done.is_set():
            code, details = call(channel, INFERENCE + "ModelMetadata", key=shared["key"])
            counted.append(INFERENCE)
            if code in (UNAUTHENTICATED, PERMISSION_DENIED):
                failed.append((code, details))

    threads = [
        threading.Thread(target=over_http, args=("/v1/score", {"customer_id": "c-1"})),
        threading.Thread(target=over_http, args=("/v2/models/churn/infer", {"inputs": []})),
        threading.Thread(target=over_grpc),
    ]
    for thread in threads:
        thread.start()
    try:
        # When it is rotated again and again, and they are given the new secret once it is taken
        for _ in range(4):
            new = rotate(protected.data_dir, shared["key"], grace="1h")
            eventually("the new secret is taken", lambda new=new: score_status(protected, new) == 200)
            shared["key"] = new
        eventually("many answers", lambda: len(counted) > 100, 120)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    # Then nobody was refused
    assert not failed, failed[:3]


def test_a_broken_keys_file_leaves_the_keys_in_force(protected):
    file = keys_file(protected.data_dir)
    good = file.read_text()
    reloads = 'bellwether_security_reload_errors_total{file="keys"}'

    def said(part):
        return lambda: any(part in line for line in protected.server.log)

    try:
        file.write_text(good + "\n[[key]]\nid = 7\n")
        line = good.count("\n") + 3
        eventually("the mistake is in the log", said(f"line {line}"))
        assert score_status(protected, protected.keys["score"]) == 200
        assert score_status(protected, None) == 401
        # And so does one that is empty, and one that is gone: it does not open the server
        file.write_text("")
        eventually("that is in the log", said("it holds no keys any more"))
        assert score_status(protected, None) == 401
        file.unlink()
        assert score_status(protected, protected.keys["score"]) == 200
        metrics = protected.client(protected.keys["admin"]).get("/metrics").body.decode()
        assert reloads in metrics
    finally:
        file.write_text(good)
    # And a file that is right again is taken
    key = create(protected.data_dir, "score")
    eventually("the new key is taken", lambda: score_status(protected, key) == 200)


def test_a_rate_is_kept_and_other_keys_do_not_feel_it(protected, channel):
    limited = create(protected.data_dir, "score", "slow", "--rate", "0.01", "--burst", "3")
    eventually("the new key is known", lambda: score_status(protected, limited) != 401)
    client = protected.client(limited)
    # One was taken by the look that found the key
    statuses = [client.post("/v1/score", {"customer_id": "c-1"}).status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    refused = client.post("/v2/models/churn/infer", {"inputs": []})
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 100
    assert "0.01 requests a second" in refused.error()
    code, _ = call(channel, INFERENCE + "ModelMetadata", key=limited)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    # And all others are served, also without a key where none is asked for
    assert score_status(protected, protected.keys["score"]) == 200
    assert client.get("/livez").status == 200


def acts(protected, limit=1000):
    answer = protected.client(protected.keys["admin"]).get(f"/v1/audit?limit={limit}")
    assert answer.status == 200, answer
    return answer.json()["acts"]


def calls(protected):
    """The acts but for those about keys, which come when the file is looked at."""
    return [act for act in acts(protected) if act["subject"] != "keys"]


def load_request(name, **parameters):
    message = service_pb2.RepositoryModelLoadRequest(model_name=name)
    for parameter, value in parameters.items():
        message.parameters[parameter].string_param = value
    return message.SerializeToString()


def test_administrative_calls_are_recorded_before_they_are_answered(protected, channel):
    deploy, lacking = protected.keys["deploy"], protected.lacking["deploy"]
    client = protected.client(deploy)
    before = len(calls(protected))
    grpc_load, grpc_unload = INFERENCE + "RepositoryModelLoad", INFERENCE + "RepositoryModelUnload"
    # Given calls that change something, right ones and wrong ones, over HTTP and gRPC
    assert client.post("/v2/repository/models/churn/load", {}).status == 200
    refused = client.post("/v2/repository/models/not-there/load", {})
    assert refused.status == 400
    assert client.post("/v1/features/reload", b"").status == 200
    assert call(channel, grpc_load, load_request("upsell"), deploy)[0] == grpc.StatusCode.OK
    with_files = call(channel, grpc_load, load_request("upsell", config="{}"), deploy)
    assert with_files[0] == grpc.StatusCode.INVALID_ARGUMENT
    not_there = call(channel, grpc_load, load_request("not-there"), deploy)
    assert not_there[0] == grpc.StatusCode.NOT_FOUND
    no_message = call(channel, grpc_unload, b"\xff", deploy)
    assert no_message[0] == grpc.StatusCode.INVALID_ARGUMENT
    too_large = call(channel, grpc_unload, b"x" * (33 << 20), deploy)
    assert too_large[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    # And calls whose key lacks the scope
    forbidden = protected.client(lacking).post("/v2/repository/models/churn/load", {})
    assert forbidden.status == 403
    denied = call(channel, grpc_unload, load_request("churn"), lacking)
    assert denied[0] == PERMISSION_DENIED
    # And calls that change nothing, and some of nobody who is known
    assert client.get("/v1/models").status == 200
    assert client.post("/v2/repository/index", {}).status == 200
    assert call(channel, INFERENCE + "RepositoryIndex", key=deploy)[0] == grpc.StatusCode.OK
    assert protected.client(lacking).get("/v1/models").status == 403
    assert protected.client().post("/v2/repository/models/churn/load", {}).status == 401
    assert call(channel, grpc_load, load_request("churn"))[0] == UNAUTHENTICATED
    # Then the first are recorded, with who, what, and what came of it, the newest first
    expected = [
        (deploy, "POST /v2/repository/models/{name}/load", "churn", "done"),
        (deploy, "POST /v2/repository/models/{name}/load", "not-there", refused.error()),
        (deploy, "POST /v1/features/reload", "", "done"),
        (deploy, "gRPC RepositoryModelLoad", "upsell", "done"),
        (deploy, "gRPC RepositoryModelLoad", "upsell", with_files[1]),
        (deploy, "gRPC RepositoryModelLoad", "not-there", not_there[1]),
        (deploy, "gRPC RepositoryModelUnload", "", no_message[1]),
        (deploy, "gRPC RepositoryModelUnload", "", too_large[1]),
        (lacking, "POST /v2/repository/models/{name}/load", "churn", forbidden.error()),
        (lacking, "gRPC RepositoryModelUnload", "", denied[1]),
    ]
    expected = [(f"key:{key.id}", *rest) for key, *rest in expected]

    def recorded():
        newest = calls(protected)
        newest = newest[: len(newest) - before]
        return [(act["actor"], act["action"], act["subject"], act["outcome"]) for act in reversed(newest)]

    # Those of calls that were done or could have been are there when they are answered; nobody waits for
    # the others.
    assert recorded()[:8] == expected[:8]
    eventually("the rows of those that were not let in", lambda: len(recorded()) == len(expected))
    assert recorded() == expected
    assert calls(protected)[0]["details"] == {"refused": "scope"}
    for limit in ("0", "-1", "x", "10001"):
        answer = protected.client(protected.keys["admin"]).get(f"/v1/audit?limit={limit}")
        assert answer.status == 400 and "limit" in answer.error()
    assert len(acts(protected, limit=2)) == 2


def test_only_so_many_refused_calls_are_recorded(protected):
    lacking = protected.client(protected.lacking["deploy"])
    before = len(acts(protected, limit=10_000))
    for _ in range(300):
        assert lacking.post("/v2/repository/models/churn/load", {}).status == 403
    assert len(acts(protected, limit=10_000)) - before < 300


def test_a_revoked_key_that_tries_again_is_recorded(protected):
    key = create(protected.data_dir, "deploy")
    client = protected.client(key)
    eventually("the new key is taken", lambda: client.get("/v1/models").status == 200)
    revoke(protected.data_dir, key)
    eventually("the key is refused", lambda: client.get("/v1/models").status == 401)

    def found():
        client.post("/v1/features/reload", b"")
        return [act for act in acts(protected) if act["actor"] == f"key:{key.id}"]

    # More of them than are written may have been tried before.
    tried = eventually("the row", found)
    assert {(act["action"], act["details"]["refused"]) for act in tried} == {
        ("POST /v1/features/reload", "revoked")
    }


def test_a_call_is_recorded_although_its_caller_has_gone(protected):
    before = len(calls(protected))
    host, port = protected.server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /v2/repository/models/churn/load HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        head += f"Expect: 100-continue\r\nAuthorization: Bearer {protected.keys['deploy'].text}\r\n\r\n"
        connection.sendall(head.encode())
        # It has begun when the server asks for the body
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"{}")
    eventually("the row", lambda: len(calls(protected)) > before)


def test_changed_keys_are_recorded_by_id(protected):
    key = create(protected.data_dir, "data")
    change = lambda kind: lambda: any(  # noqa: E731
        act["action"] == "keys.change" and key.id in act["details"][kind] for act in acts(protected)
    )
    eventually("the new key in the audit", change("added"))
    revoke(protected.data_dir, key)
    eventually("the revoked key in the audit", change("changed"))


def about_keys(server, admin):
    """What the rows say of keys, the oldest first: action, details and actor."""
    acts = KeyedClient(server.address, admin).get("/v1/audit").json()["acts"]
    return [(act["action"], act["details"], act["actor"]) for act in reversed(acts) if act["subject"] == "keys"]


def test_keys_that_were_changed_while_no_server_ran_are_recorded_at_the_start(data_dir):
    # Given keys that were there before the first server
    admin, other, gone = (create(data_dir, scope) for scope in ("admin", "score", "data"))
    rows = [("keys.found", {"keys": sorted([admin.id, other.id, gone.id])}, "server")]

    def recorded(server):
        return eventually("the rows", lambda: about_keys(server, admin) == rows)

    with Server(data_dir) as server:
        recorded(server)
        server.kill()
    # When they are changed while none runs, also behind the back of `bellwether keys`
    new = create(data_dir, "feedback")
    rotate(data_dir, other)
    file = keys_file(data_dir)
    entries = file.read_text().split("[[key]]")
    file.write_text("[[key]]".join(entry for entry in entries if gone.id not in entry))
    rows.append(
        (
            "keys.change",
            {"added": [new.id], "changed": [other.id], "removed": [gone.id], "found": "at the start"},
            "command line",
        )
    )
    # Then one row says so, however often a server starts and however it ends
    for _ in range(3):
        with Server(data_dir) as server:
            recorded(server)
            server.kill()
    # And a change while it runs is not found again after it was killed
    with Server(data_dir) as server:
        revoke(data_dir, new)
        rows.append(("keys.change", {"added": [], "changed": [new.id], "removed": []}, "command line"))
        recorded(server)
        server.kill()
    with Server(data_dir) as server:
        recorded(server)
    # And the digests of the secrets are in the file of keys only
    digests = [line.split('"')[1].encode() for line in file.read_text().splitlines() if "sha256" in line]
    assert len(digests) >= 4
    for path in data_dir.rglob("*"):
        if path.is_file() and path != file:
            content = path.read_bytes()
            assert not any(digest in content for digest in digests), path


def test_a_server_without_keys_grants_everything_until_there_is_one(data_dir):
    with Server(data_dir, grpc_listen="127.0.0.1:0") as server:
        client = server.client()
        client.store("c-1", customer())
        assert client.get("/metrics").status == 200
        warned = lambda: any("no API keys" in entry["message"] for entry in server.entries())  # noqa: E731
        eventually("the warning in the log", warned)
        assert client.post("/v1/features/reload", b"").status == 200
        recorded = client.get("/v1/audit").json()
        assert [(act["actor"], act["outcome"]) for act in recorded["acts"]] == [("anonymous", "done")]
        assert recorded["complete"]
        # When a key is made, it is asked for
        key = create(data_dir, "score")
        eventually("closed", lambda: client.get("/metrics").status == 401)
        assert KeyedClient(server.address, key).post("/v1/score", {"customer_id": "c-1"}).status == 200


def test_pages_of_other_sites_may_not_use_a_server_without_keys(data_dir, tmp_path):
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"}
    with Server(data_dir) as server:
        client = server.client()
        own = {"Origin": f"http://{server.address}", "Sec-Fetch-Site": "same-origin"}
        # Both ways a request takes, and one that is recorded
        for path in ("/v1/score", "/v2/models/churn/infer", "/v1/features/reload"):
            refused = client.request("POST", path, b"{}", other)
            assert (refused.status, "evil.example" in refused.error()) == (403, True), (path, refused)
            assert client.request("POST", path, b"{}", own).status != 403, path
        # What everyone may see stays open, and links lead where they lead
        assert client.request("GET", "/livez", None, other).status == 200
        assert client.request("GET", "/v1/models", None, {"Sec-Fetch-Site": "cross-site"}).status == 200
        assert 'bellwether_denied_total{reason="site"} 3' in client.get("/metrics").body.decode()
    # Unless it is told that everyone may
    with Server(tmp_path / "open", settings="allow_remote_without_keys = true\n") as server:
        assert server.client().request("POST", "/v1/features/reload", b"", other).status == 200


def test_beyond_loopback_nothing_is_served_without_keys(tmp_path):
    data_dir = tmp_path / "data"
    for setting in ('listen = "0.0.0.0:0"', 'grpc_listen = "[::]:0"'):
        config = tmp_path / "bellwether.toml"
        config.write_text(setting)
        arguments = ("--config", config, "--data-dir", data_dir)
        for command in ("check", "serve"):
            said = refuse(command, *arguments)
            assert "keys create" in said and "--allow-remote-without-keys" in said
            assert str(keys_file(data_dir)) in said
    # With a key it may; the check listens nowhere
    create(data_dir, "score")
    assert run("check", *arguments).returncode == 0


def test_a_wrong_keys_file_is_refused_at_the_start(tmp_path):
    data_dir = tmp_path / "data"
    create(data_dir, "score")
    file = keys_file(data_dir)
    file.write_text(file.read_text().replace('"score"', '"scroe"'))
    for command in ("check", "serve"):
        said = refuse(command, "--data-dir", data_dir)
        assert str(file) in said and "line" in said and "scroe" in said


def test_arguments_of_keys_are_checked(tmp_path):
    create = ("keys", "create", "--data-dir", tmp_path, "--name", "n")
    assert "scroe" in refuse(*create, "--scope", "scroe")
    assert "rate" in refuse(*create, "--scope", "score", "--rate=-1")
    assert "burst" in refuse(*create, "--scope", "score", "--rate", "1", "--burst", "0")
    assert "--rate" in refuse(*create, "--scope", "score", "--burst", "5")
    assert "expires" in refuse(*create, "--scope", "score", "--expires", "soon")
    assert not keys_file(tmp_path).exists()


def test_the_key_is_printed_alone_and_the_file_is_the_owners(tmp_path):
    done = succeed("keys", "create", "--data-dir", tmp_path, "--name", "pipeline", "--scope", "deploy,score")
    text = done.stdout.strip()
    assert text.startswith("bw_") and "\n" not in text
    assert "score,deploy" in done.stderr and text not in done.stderr
    assert keys_file(tmp_path).stat().st_mode & 0o777 == 0o600
    listed = succeed("keys", "list", "--data-dir", tmp_path).stdout
    assert "pipeline" in listed and "score,deploy" in listed and "active" in listed
    assert text.rsplit("_", 1)[1] not in listed


def test_commands_show_their_key_and_say_why_they_are_refused(protected, tmp_path):
    url = f"http://{protected.server.address}"
    backfill = ("features", "backfill", "--view", "customer", "--server", url)
    assert "BELLWETHER_API_KEY" in refuse(*backfill)
    said = refuse(*backfill, env={"BELLWETHER_API_KEY": protected.keys["score"].text})
    assert "needs deploy" in said
    succeed(*backfill, env={"BELLWETHER_API_KEY": protected.keys["deploy"].text})
    succeed(*backfill, "--key", protected.keys["deploy"].text)
    events = tmp_path / "events.ndjson"
    events.write_text('{"event_id": "1", "event": "ticket", "customer_id": "c-1"}\n')
    load = ("events", "load", events, "--server", url)
    assert "401" in refuse(*load)
    succeed(*load, env={"BELLWETHER_API_KEY": protected.keys["data"].text})


def test_no_secret_is_in_logs_metrics_files_or_the_ledger(tmp_path):
    # Given a server that has seen right keys and wrong ones, and a rotation
    data_dir = tmp_path / "data"
    keys = [create(data_dir, "admin"), create(data_dir, "score")]
    with Server(data_dir, grpc_listen="127.0.0.1:0", env={"BELLWETHER_LOG": "debug"}) as server:
        keys.append(rotate(data_dir, keys[1]))
        wrong = Key("x", "bw_x_" + "5a" * 32)
        keys.append(wrong)
        with grpc.insecure_channel(server.grpc_address) as channel:
            for key in keys:
                client = KeyedClient(server.address, key)
                for method, path in [
                    ("POST", "/v1/score"),
                    ("POST", "/v2/models/churn/infer"),
                    ("POST", "/v1/features/reload"),
                    ("GET", "/v1/audit"),
                    ("GET", "/metrics"),
                ]:
                    client.request(method, path, b"{}" if method == "POST" else None)
                call(channel, INFERENCE + "ModelInfer", key=key)
                client.close()
        metrics = KeyedClient(server.address, keys[0]).get("/metrics").body.decode()
    # Then their secrets are nowhere
    places = {"log": server.log_text(), "metrics": metrics}
    for file in data_dir.rglob("*"):
        if file.is_file():
            places[str(file)] = file.read_bytes().decode("latin-1")
    assert str(keys_file(data_dir)) in places
    for place, text in places.items():
        for key in keys:
            assert key.secret not in text, place
    # And the metrics count refusals by their reason, by no key
    assert 'bellwether_denied_total{reason="unknown"}' in metrics
    assert 'bellwether_denied_total{reason="scope"}' in metrics
    assert not any(key.id in metrics for key in keys[:2])


def test_audit_rows_are_exported(tmp_path):
    data_dir = tmp_path / "data"
    key = create(data_dir, "deploy")
    with Server(data_dir) as server:
        assert KeyedClient(server.address, key).post("/v1/features/reload", b"").status == 200
    succeed("ledger", "export", "--data-dir", data_dir, "--output", tmp_path / "export")
    rows = {row["action"]: row for row in read(tmp_path / "export", "audit").to_dicts()}
    assert {action: (row["actor"], row["outcome"]) for action, row in rows.items()} == {
        "keys.found": ("server", "done"),
        "POST /v1/features/reload": (f"key:{key.id}", "done"),
    }
    assert json.loads(rows["POST /v1/features/reload"]["details"]) == {"status": 200}


def multipart(files):
    """A form with these files, and its content type."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files.items()
    ]
    return b"\r\n".join(parts) + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_deploys_and_transitions_are_recorded_once_and_with_the_key(tmp_path):
    data_dir, models = tmp_path / "data", tmp_path / "models"
    copy_sample("churn", models)
    deploy, admin = create(data_dir, "deploy"), create(data_dir, "admin")
    files = {name: (models / "churn" / "1" / name).read_bytes() for name in ("model.onnx", "model.toml")}
    with Server(data_dir, models=models) as server:
        client = KeyedClient(server.address, deploy)
        body, headers = multipart(files)
        made = client.request("POST", "/v1/models/churn/versions", body, headers)
        assert made.status == 201, made
        rollout = "/v1/models/churn/rollout"
        shadow = client.post(rollout, {"action": "shadow", "version": "2", "reason": "to compare"})
        assert shadow.status == 200, shadow
        refused = client.post(rollout, {"action": "retire", "version": "1"})
        assert refused.status == 409, refused
        recorded = KeyedClient(server.address, admin).get("/v1/audit").json()["acts"]
    recorded = [act for act in recorded if act["subject"] != "keys"]
    assert {act["actor"] for act in recorded} == {f"key:{deploy.id}"}
    found = [(act["action"], act["outcome"]) for act in recorded]
    # The newest first; what has a richer row of its own has no other
    assert found[0] == ("POST /v1/models/{name}/rollout", refused.error())
    assert [act for act in found[1:] if act[0].startswith("POST")] == []
    assert {"model.deploy", "model.shadow"} <= {act for act, _ in found}
    assert [act["reason"] for act in recorded if act["action"] == "model.shadow"] == ["to compare"]


def test_an_upload_whose_key_is_revoked_meanwhile_is_not_deployed(tmp_path):
    data_dir, models = tmp_path / "data", tmp_path / "models"
    copy_sample("churn", models)
    key, admin = create(data_dir, "deploy"), create(data_dir, "admin")
    body, headers = multipart({"model.onnx": (models / "churn" / "1" / "model.onnx").read_bytes()})
    with Server(data_dir, models=models) as server:
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            # Given an upload that was let in and of which half has come
            head = "POST /v1/models/churn/versions?promote=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            head += f"Content-Type: {headers['Content-Type']}\r\nContent-Length: {len(body)}\r\n"
            head += f"Expect: 100-continue\r\nAuthorization: Bearer {key.text}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
            connection.sendall(body[: len(body) // 2])
            # When its key is revoked before the rest comes
            revoke(data_dir, key)
            client = KeyedClient(server.address, key)
            eventually("the key is refused", lambda: client.get("/v1/models").status == 401)
            connection.sendall(body[len(body) // 2 :])
            answer = bytearray()
            while piece := connection.recv(65_536):
                answer += piece
        # Then nothing is deployed, and the record says that it was tried
        assert answer.startswith(b"HTTP/1.1 401") and b"revoked" in answer, answer
        operator = KeyedClient(server.address, admin)
        listed = operator.get("/v1/models").json()["models"]
        assert {entry["version"] for entry in listed if entry["name"] == "churn"} == {"1"}, listed
        recorded = operator.get("/v1/audit").json()["acts"]
        tried = [act for act in recorded if act["action"] == "POST /v1/models/{name}/versions"]
        assert len(tried) == 1 and "revoked" in tried[0]["outcome"], recorded
