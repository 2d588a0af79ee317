"""Whatever comes in, the answer is a 4xx whose body is exactly {"error": "..."} and names what was
wrong, and the server goes on answering.

A new case is a line in one of the tables: a name, the request, the status, words the error must say.
"""

import errno
import json
import socket
import struct

import pytest

from server import ANSWER_SECONDS, Answer
from telco import customer

STORED = "errors-stored"
MEGABYTE = 1024 * 1024

# Any status in this range: where more than one is a fair answer.
ANY = range(400, 500)


@pytest.fixture(scope="module", autouse=True)
def stored_customer(shared_server):
    client = shared_server.client()
    client.store(STORED, customer())
    client.close()


@pytest.fixture(autouse=True)
def still_answers(shared_server):
    """After each test, however it went, a new connection is served as before."""
    yield
    client = shared_server.client()
    assert client.get("/livez").status == 200
    assert client.get("/readyz").status == 200
    assert client.score(STORED)["predictions"]
    client.close()


def assert_refused(answer, status, words):
    message = answer.error()
    assert answer.status in (status if isinstance(status, range) else [status]), answer
    assert answer.headers.get("Content-Type", "").startswith("application/json"), dict(answer.headers)
    for word in words:
        assert word.lower() in message.lower(), f"the error does not say {word!r}: {message}"
    assert "panic" not in message.lower()
    assert len(message) < 2000, "an error is a message, not an echo of the request"


def score_with(**changes):
    return {"customer_id": STORED, **changes}


def overriding(text):
    """A score request whose overrides are written by hand, for what json.dumps cannot write."""
    return f'{{"customer_id": "{STORED}", "features": {text}}}'


def nested(depth):
    return "[" * depth + "]" * depth


SCORE = [
    ("customer not known", {"customer_id": "nobody"}, 404, ["customer_id"]),
    ("no customer_id", {"models": ["churn"]}, ANY, ["customer_id"]),
    ("customer_id is a number", {"customer_id": 7}, ANY, ["customer_id"]),
    ("customer_id is null", {"customer_id": None}, ANY, ["customer_id"]),
    ("customer_id is empty", {"customer_id": ""}, ANY, ["customer_id"]),
    ("customer_id is too long", {"customer_id": "x" * 100_000}, ANY, ["customer_id"]),
    ("model not known", score_with(models=["astrology"]), 404, ["astrology"]),
    ("one model of two not known", score_with(models=["churn", "astrology"]), 404, ["astrology"]),
    ("models is a string", score_with(models="churn"), ANY, ["models"]),
    ("models holds a number", score_with(models=[1]), ANY, ["models"]),
    ("models names a path", score_with(models=["../churn"]), ANY, ["../churn"]),
    ("explain is negative", score_with(explain=-1), ANY, ["explain"]),
    ("explain is a fraction", score_with(explain=1.5), ANY, ["explain"]),
    ("explain is a string", score_with(explain="all"), ANY, ["explain"]),
    ("explain is huge", overriding("{}")[:-1] + ', "explain": 1e300}', ANY, ["explain"]),
    ("unknown field", score_with(explian=3), ANY, ["explian"]),
    ("features is a list", score_with(features=[1]), ANY, ["features"]),
    ("features is a string", score_with(features="tenure"), ANY, ["features"]),
    ("override names no feature", score_with(features={"shoe_size": 43}), ANY, ["shoe_size"]),
    ("override of the key", score_with(features={"customer_id": "x"}), ANY, ["customer_id"]),
    ("override of a derived feature", score_with(features={"addon_count": 3}), ANY, ["addon_count"]),
    ("string for an integer", score_with(features={"tenure": "twelve"}), ANY, ["tenure"]),
    ("digits in a string for an integer", score_with(features={"tenure": "12"}), ANY, ["tenure"]),
    ("fraction for an integer", score_with(features={"tenure": 1.5}), ANY, ["tenure"]),
    ("bool for an integer", score_with(features={"tenure": True}), ANY, ["tenure"]),
    ("list for an integer", score_with(features={"tenure": [1]}), ANY, ["tenure"]),
    ("object for an integer", score_with(features={"tenure": {"value": 1}}), ANY, ["tenure"]),
    ("string for a number", score_with(features={"monthly_charges": "84.35"}), ANY, ["monthly_charges"]),
    ("bool for a number", score_with(features={"monthly_charges": False}), ANY, ["monthly_charges"]),
    ("number for a string", score_with(features={"contract": 12}), ANY, ["contract"]),
    ("bool for a string", score_with(features={"partner": True}), ANY, ["partner"]),
    ("below the range", score_with(features={"tenure": -1}), ANY, ["tenure"]),
    ("above the range", score_with(features={"tenure": 100_000}), ANY, ["tenure"]),
    ("number below the range", score_with(features={"monthly_charges": -0.01}), ANY, ["monthly_charges"]),
    ("number above the range", score_with(features={"monthly_charges": 1e30}), ANY, ["monthly_charges"]),
    ("more than 64 bits", score_with(features={"tenure": 2**63}), ANY, ["tenure"]),
    ("more than 128 bits", score_with(features={"tenure": 10**60}), ANY, ["tenure"]),
    ("the NaN literal", overriding('{"monthly_charges": NaN}'), ANY, ["monthly_charges"]),
    ("NaN as a string", score_with(features={"monthly_charges": "NaN"}), ANY, ["monthly_charges"]),
    ("the Infinity literal", overriding('{"monthly_charges": Infinity}'), ANY, ["monthly_charges"]),
    ("1e999", overriding('{"monthly_charges": 1e999}'), ANY, ["monthly_charges"]),
    ("-1e999", overriding('{"monthly_charges": -1e999}'), ANY, ["monthly_charges"]),
    ("a number of 100,000 digits", overriding('{"tenure": %s}' % ("9" * 100_000)), ANY, ["tenure"]),
]

BODIES = [
    ("empty", b"", ANY, []),
    ("blank", b"  \n ", ANY, []),
    ("cut off", b'{"customer_id": "x"', 400, []),
    ("not JSON", b"customer_id=x", 400, []),
    ("two values", b'{"customer_id": "x"} {"customer_id": "y"}', 400, []),
    ("a trailing comma", b'{"customer_id": "x",}', 400, []),
    ("single quotes", b"{'customer_id': 'x'}", 400, []),
    ("a key twice", b'{"customer_id": "x", "customer_id": "y"}', ANY, ["customer_id"]),
    ("a list", b"[]", ANY, []),
    ("a string", b'"x"', ANY, []),
    ("null", b"null", ANY, []),
    ("a number", b"1", ANY, []),
    ("not UTF-8", b'{"customer_id": "\xff\xfe"}', 400, []),
    ("half a surrogate pair", b'{"customer_id": "\\ud800"}', 400, []),
    ("zero bytes", b"\0" * 100, 400, []),
    ("a raw control character", b'{"customer_id": "a\nb"}', 400, []),
    ("a byte order mark", b"\xef\xbb\xbf{", 400, []),
    ("lists nested 100,000 deep", nested(100_000).encode(), ANY, []),
    ("objects nested 10,000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, ANY, []),
    ("a deep override", overriding('{"contract": %s}' % nested(5_000)).encode(), ANY, []),
]

PUT = [
    ("no features", {}, ANY, ["features"]),
    ("features is null", {"features": None}, ANY, ["features"]),
    ("features is a list", {"features": []}, ANY, ["features"]),
    ("unknown field", {"features": {}, "featurs": {}}, ANY, ["featurs"]),
    ("no such feature", {"features": {"shoe_size": 43}}, ANY, ["shoe_size"]),
    ("a derived feature", {"features": {"charge_per_month": 3.0}}, ANY, ["charge_per_month"]),
    ("string for an integer", {"features": {"tenure": "one"}}, ANY, ["tenure"]),
    ("number for a string", {"features": {"gender": 1}}, ANY, ["gender"]),
    ("out of range", {"features": {"senior_citizen": 2}}, ANY, ["senior_citizen"]),
    ("the NaN literal", '{"features": {"total_charges": NaN}}', ANY, ["total_charges"]),
    ("1e999", '{"features": {"total_charges": 1e999}}', ANY, ["total_charges"]),
    ("one good, one bad", {"features": {"gender": "Male", "tenure": "one"}}, ANY, ["tenure"]),
]

OUTCOMES = [
    ("nothing", {}, ANY, []),
    ("no outcome", {"outcome_id": "e1", "customer_id": STORED}, ANY, ["outcome"]),
    ("outcome is empty", {"outcome_id": "e2", "customer_id": STORED, "outcome": ""}, ANY, ["outcome"]),
    ("outcome is a number", {"outcome_id": "e3", "customer_id": STORED, "outcome": 1}, ANY, ["outcome"]),
    ("for nobody", {"outcome_id": "e4", "outcome": "churn"}, ANY, ["prediction_id", "customer_id"]),
    ("prediction_id is no UUID", {"prediction_id": "17", "outcome": "churn"}, ANY, ["prediction_id"]),
    ("prediction_id is a number", {"prediction_id": 17, "outcome": "churn"}, ANY, ["prediction_id"]),
    ("value is a string", {"customer_id": STORED, "outcome": "churn", "value": "1"}, ANY, ["value"]),
    ("value is NaN", f'{{"customer_id": "{STORED}", "outcome": "churn", "value": NaN}}', ANY, ["value"]),
    ("value is 1e999", f'{{"customer_id": "{STORED}", "outcome": "churn", "value": 1e999}}', ANY, ["value"]),
    (
        "no such time",
        {"customer_id": STORED, "outcome": "churn", "occurred_at": "yesterday"},
        ANY,
        ["occurred_at"],
    ),
    (
        "no such day",
        {"customer_id": STORED, "outcome": "churn", "occurred_at": "2026-02-30T00:00:00Z"},
        ANY,
        ["occurred_at"],
    ),
    (
        "time is a number",
        {"customer_id": STORED, "outcome": "churn", "occurred_at": 1700000000},
        ANY,
        ["occurred_at"],
    ),
    (
        "outcome_id is empty",
        {"outcome_id": "", "customer_id": STORED, "outcome": "churn"},
        ANY,
        ["outcome_id"],
    ),
    (
        "outcome_id is too long",
        {"outcome_id": "x" * 100_000, "customer_id": STORED, "outcome": "churn"},
        ANY,
        ["outcome_id"],
    ),
    ("unknown field", {"customer_id": STORED, "outcome": "churn", "valu": 1}, ANY, ["valu"]),
]


def table(cases):
    return pytest.mark.parametrize(
        "request_body, status, words", [c[1:] for c in cases], ids=[c[0] for c in cases]
    )


@table(SCORE)
def test_a_wrong_score_request_is_refused(client, request_body, status, words):
    assert_refused(client.post("/v1/score", request_body), status, words)


@table(BODIES)
@pytest.mark.parametrize("path", ["/v1/score", "/v1/outcomes", "/v2/models/churn/infer"])
def test_a_body_that_is_no_request_is_refused(client, path, request_body, status, words):
    if path != "/v1/score":
        status, words = ANY, []  # the bodies are near misses of a score request
    assert_refused(client.post(path, request_body), status, words)


@table(PUT)
def test_a_wrong_put_is_refused_and_stores_nothing(client, customer_id, request_body, status, words):
    assert_refused(client.put(f"/v1/customers/{customer_id}", request_body), status, words)
    assert client.get(f"/v1/customers/{customer_id}").status == 404


@table(OUTCOMES)
def test_a_wrong_outcome_is_refused(client, request_body, status, words):
    assert_refused(client.post("/v1/outcomes", request_body), status, words)


# What the table of bodies cannot say.


def test_a_customer_who_is_not_stored_is_404(client):
    assert_refused(client.get("/v1/customers/nobody"), 404, ["customer_id"])


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/scores", "/v1/customers/", "/v3", "/livez/", "/v1/score/x/y"]
)
def test_a_path_that_does_not_exist_is_refused(client, path):
    assert_refused(client.get(path), ANY, [])


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1/score"),
        ("DELETE", "/v1/score"),
        ("PUT", "/v1/outcomes"),
        ("POST", f"/v1/customers/{STORED}"),
        ("PATCH", f"/v1/customers/{STORED}"),
        ("POST", "/readyz"),
        ("DELETE", "/metrics"),
        ("GET", "/v2/models/churn/infer"),
        ("BREW", "/v1/score"),
    ],
)
def test_a_method_that_does_not_fit_is_405(client, method, path):
    assert_refused(client.request(method, path, b"{}"), 405, [])


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/xml",
        "",
        "nonsense",
        "application/json; charset=latin-1",
    ],
)
def test_a_strange_content_type_is_accepted_or_refused_in_json(client, content_type):
    body = json.dumps({"customer_id": STORED})
    answer = client.request("POST", "/v1/score", body, {"Content-Type": content_type})
    if answer.status != 200:
        assert_refused(answer, 415, ["application/json"])


@pytest.mark.parametrize(
    "customer_id, path",
    [
        ("with space", "with%20space"),
        ("slash/inside", "slash%2Finside"),
        ("Jürgen", "J%C3%BCrgen"),
        ("客户", "%E5%AE%A2%E6%88%B7"),
        ("per%cent", "per%25cent"),
        ("quote\"'", "quote%22%27"),
        ("..", "%2e%2e"),
        ("a\nb", "a%0Ab"),
        ("zero\0", "zero%00"),
        ("?&=#", "%3F%26%3D%23"),
        ("not UTF-8", "%FF%FE"),
        ("bad escape", "%zz"),
        ("x" * 10_000, "x" * 10_000),
    ],
    ids=lambda text: text[:12],
)
def test_an_odd_customer_id_is_kept_exactly_or_refused(client, customer_id, path):
    answer = client.put(f"/v1/customers/{path}", {"features": {"tenure": 5}})
    if answer.status >= 300:
        assert_refused(answer, ANY, [])
        return
    shown = client.get(f"/v1/customers/{path}")
    assert shown.status == 200
    stored_as = shown.json()["customer_id"]
    # An escape that decodes to nothing sensible may be kept as it was written, but never altered.
    assert stored_as in (customer_id, path)
    assert client.score(stored_as)["customer_id"] == stored_as
    assert 200 <= client.delete(f"/v1/customers/{path}").status < 300
    assert client.get(f"/v1/customers/{path}").status == 404


# Bodies that are too large, chunked, slow or never end, over a bare socket.


def exchange(server, head, pieces=()):
    """Sends a request piece by piece, as far as the server lets it, and reads the answer to its end.
    Returns (status, body)."""
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(head)
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # the server has heard enough; its answer is still there to read
        received = b""
        while True:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
            header, separator, body = received.partition(b"\r\n\r\n")
            if separator:
                length = content_length(header)
                if length is not None and len(body) >= length:
                    break
    header, _, body = received.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 "), f"no answer, but {received[:200]!r}"
    return int(header.split()[1]), body


def content_length(header):
    for line in header.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return None


def head(path, *headers, method="POST"):
    lines = [f"{method} {path} HTTP/1.1", "Host: bellwether", "Content-Type: application/json", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"


def assert_json_error(answer, *statuses):
    status, body = answer
    assert status in statuses, (status, body)
    assert list(json.loads(body)) == ["error"]


@pytest.mark.parametrize("path", ["/v1/score", "/v1/outcomes", "/v2/models/churn/infer"])
def test_a_body_of_ten_megabytes_is_413(shared_server, path):
    filler = b'{"customer_id": "' + b"x" * MEGABYTE
    answer = exchange(
        shared_server, head(path, f"Content-Length: {10 * MEGABYTE}"), [filler] + [b"x" * MEGABYTE] * 9
    )
    assert_json_error(answer, 413)


def send_all(server, path, size, content_type="application/json"):
    """What a client hears that sends `size` bytes to their end before it listens."""
    client = server.client()
    pieces = (bytes(MEGABYTE) for _ in range(size // MEGABYTE))
    client.connection.request(
        "POST", path, body=pieces, headers={"Content-Length": str(size), "Content-Type": content_type}
    )
    response = client.connection.getresponse()
    closes = response.headers.get("Connection") == "close"
    answer = Answer(response.status, response.headers, response.read())
    # The connection goes on
    assert not closes and client.get("/livez").status == 200, answer
    return answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/score", 413),
        ("/v1/events", 413),
        ("/v2/models/churn/infer", 413),
        ("/invocations", 413),
        ("/v1/outcomes", 413),
        ("/v1/models/churn/rollout", 413),
        ("/v1/nothing", 404),
        ("/v1/audit", 405),
    ],
)
def test_the_refusal_of_a_large_body_is_heard_by_who_sends_before_he_listens(shared_server, path, status):
    answer = send_all(shared_server, path, 100 * MEGABYTE)
    assert answer.status == status, answer
    assert answer.error()


def test_another_kind_of_body_is_refused_and_that_is_heard(shared_server):
    for path in ("/v1/events", "/v1/score/batch"):
        answer = send_all(shared_server, path, 100 * MEGABYTE, "image/png")
        assert answer.status == 415, answer


def test_who_asks_before_he_sends_a_large_body_is_not_asked_for_it(shared_server):
    for path in ("/v1/score", "/v1/events", "/v2/models/churn/infer", "/v1/nothing"):
        headers = head(path, f"Content-Length: {300 * MEGABYTE}", "Expect: 100-continue")
        status, body = exchange(shared_server, headers)
        assert status == (404 if path == "/v1/nothing" else 413), body


def test_a_put_of_ten_megabytes_is_413(shared_server):
    headers = head("/v1/customers/large", f"Content-Length: {10 * MEGABYTE}", method="PUT")
    assert_json_error(exchange(shared_server, headers, [b" " * MEGABYTE] * 10), 413)


def test_ten_megabytes_in_chunks_are_413(shared_server):
    pieces = [chunk(b" " * MEGABYTE)] * 10 + [LAST_CHUNK]
    assert_json_error(exchange(shared_server, head("/v1/score", "Transfer-Encoding: chunked"), pieces), 413)


def test_a_chunked_body_is_as_good_as_any(shared_server):
    body = json.dumps({"customer_id": STORED}).encode()
    pieces = [chunk(body[:5]), chunk(body[5:6]), chunk(body[6:]), LAST_CHUNK]
    status, answered = exchange(shared_server, head("/v1/score", "Transfer-Encoding: chunked"), pieces)
    assert status == 200
    assert json.loads(answered)["customer_id"] == STORED


def test_a_broken_chunk_is_refused(shared_server):
    status, _ = exchange(shared_server, head("/v1/score", "Transfer-Encoding: chunked"), [b"nonsense\r\n"])
    assert status == 400


def test_a_client_that_leaves_in_the_middle_harms_nobody(shared_server):
    host, port = shared_server.address.rsplit(":", 1)
    for _ in range(50):
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(head("/v1/score", "Content-Length: 1000") + b'{"customer_id"')
            # With this option, closing resets the connection.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_bytes_that_are_no_http_are_refused(shared_server):
    host, port = shared_server.address.rsplit(":", 1)
    for noise in (b"\0" * 1000 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + b"\r\n\r\n", b"GET\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            try:
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except OSError as error:
                # The server may have closed it at any of these steps; it must not keep it open.
                assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN), error
                continue
            assert not answer.startswith(b"HTTP/1.1 2")


def test_an_error_closes_no_connection_that_could_go_on(client):
    assert client.post("/v1/score", {"customer_id": STORED}).status == 200
    opened = client.connection.sock
    for _ in range(100):
        assert client.post("/v1/score", {"customer_id": "nobody"}).status == 404
        assert client.post("/v1/score", {"customer_id": STORED}).status == 200
    assert client.connection.sock is opened
