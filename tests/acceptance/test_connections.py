"""Connections that hold a place and do nothing: each is given up in its time, and who came to do
something gets the place."""

import contextlib
import socket
import time

import grpc
import pytest

from deaf import Deaf
from protocol_models import make_models
from server import ANSWER_SECONDS, Client, Server, refuse
from waiting import eventually

LIVE = "/inference.GRPCInferenceService/ServerLive"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SHORT = "500ms"
SHORT_SECONDS = 0.5


def serve(folder, settings, **options):
    return Server(folder / "data", grpc_listen="127.0.0.1:0", settings=settings, **options)


def connect(address, receive_buffer=None):
    host, port = address.rsplit(":", 1)
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect((host, int(port)))
    return connection


def is_closed(connection):
    """Waits for the server to close it, whatever comes before; an answer that never ends is no end."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def is_live(address):
    with grpc.insecure_channel(address) as channel:
        # A client that is itself held up between two steps is given up, too, and comes again.
        channel.unary_unary(LIVE)(b"", timeout=ANSWER_SECONDS, wait_for_ready=True)
    return True


def given_up(server, reason):
    """How many connections were, by the metrics."""
    name = f'bellwether_connections_given_up_total{{reason="{reason}"}} '
    lines = []
    with contextlib.closing(Client(server.address)) as client:
        with contextlib.suppress(ConnectionError):  # as above
            lines = client.get("/metrics").body.decode().splitlines()
    return sum(int(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize("sent", [b"", PREFACE[:10]], ids=["silent", "half a preface"])
def test_who_does_not_begin_http2_is_given_up_and_the_place_is_free(tmp_path, sent):
    # Given a server with one place, which is taken by somebody who does not begin
    settings = f'max_connections = 1\nhandshake_timeout = "{SHORT}"\n'
    with serve(tmp_path / "served", settings) as server, connect(server.grpc_address) as silent:
        silent.sendall(sent)
        # Then the others are served, over both protocols, as soon as that one is given up
        assert is_live(server.grpc_address)
        assert is_closed(silent)
        eventually("it is counted", lambda: given_up(server, "opening") >= 1)


def test_who_does_not_begin_does_not_hold_up_the_stop(tmp_path):
    settings = 'handshake_timeout = "10m"\nshutdown_timeout = "10m"\n'
    server = serve(tmp_path / "served", settings)
    with connect(server.grpc_address) as silent, connect(server.grpc_address) as half:
        half.sendall(PREFACE[:10])
        # Both are at the server when this one, which came later, is answered
        assert is_live(server.grpc_address)
        server.stop()
        assert is_closed(silent) and is_closed(half)
    assert "closed before" not in server.log_text()


def test_sockets_on_which_nobody_comes_take_no_place(tmp_path):
    # Given one place for two sockets, on both of which the server listens
    with serve(tmp_path / "served", "max_connections = 1\n") as server:
        for _ in range(3):
            client = Client(server.address)
            assert client.get("/livez").status == 200
            client.close()
            assert is_live(server.grpc_address)
        # And more connections than places wait for theirs
        first, second = Client(server.address), Client(server.address)
        assert first.get("/livez").status == 200
        second.connection.connect()
        second.connection.request("GET", "/livez")
        assert first.get("/livez").status == 200
        first.close()
        assert second.connection.getresponse().status == 200
        second.close()


def test_who_takes_nothing_of_an_answer_is_given_up(tmp_path):
    """As many requests, one behind the other, as fill every buffer on the way."""
    with serve(tmp_path / "served", f'write_timeout = "{SHORT}"\n') as server:
        with connect(server.address, receive_buffer=4096) as deaf:
            client = Deaf(deaf, REQUEST * 10)
            eventually("it is given up", lambda: client.send_more() or given_up(server, "write") >= 1)
        # And a client that takes its time but takes something is served to the end
        count = 20
        for _ in range(20):
            received, longest_pause = take_little_by_little(server, count)
            if received.count(b"HTTP/1.1 200 OK") == count + 1:
                return
            assert longest_pause > SHORT_SECONDS / 2, "it has always taken something"
            # The machine had it wait for so long that it was given up rightly.
        pytest.fail("this machine does not run a client for long enough")


REQUEST = b"GET /openapi.json HTTP/1.1\r\nHost: b\r\n\r\n"


def take_little_by_little(server, count):
    """The answers to so many requests until the end, and the longest that the client took nothing for."""
    received, longest_pause = bytearray(), 0.0
    with connect(server.address, receive_buffer=4096) as slow, contextlib.suppress(ConnectionError):
        slow.sendall(REQUEST * count + b"GET /livez HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        taken_at = time.monotonic()
        while piece := slow.recv(1024):
            received += piece
            taken_at, before = time.monotonic(), taken_at
            longest_pause = max(longest_pause, taken_at - before)
    return received, max(longest_pause, time.monotonic() - taken_at)


def test_over_http2_too_who_takes_nothing_is_given_up(tmp_path):
    make_models(tmp_path / "models")
    settings = f'write_timeout = "{SHORT}"\n'
    with serve(tmp_path / "served", settings, models=tmp_path / "models") as server:
        with connect(server.grpc_address, receive_buffer=4096) as deaf:
            # Settings, then pings without an end: each has an answer, and none is taken.
            deaf.sendall(PREFACE + b"\0\0\0\4\0\0\0\0\0")
            ping = b"\0\0\x08\6\0\0\0\0\0" + b"bellweth"
            client = Deaf(deaf, ping * 1000)
            eventually("it is given up", lambda: client.send_more() or given_up(server, "write") >= 1)
        assert is_live(server.grpc_address)


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4


def grpc_call(stream, path):
    """A call with an empty message."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "b",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, bytes(5))


def frames(connection):
    """What comes, frame by frame: kind, flags and stream."""
    received = connection.makefile("rb")
    while head := received.read(9):
        received.read(int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:], "big")


def test_an_answer_that_its_client_gives_no_room_is_given_up_and_the_connection_goes_on(tmp_path):
    with serve(tmp_path / "served", f'write_timeout = "{SHORT}"\n') as server:
        with connect(server.grpc_address) as connection:
            # Given a client that allows no byte of any answer, and asks
            no_room = (4).to_bytes(2, "big") + bytes(4)
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, no_room) + grpc_call(1, LIVE))
            received = frames(connection)
            # Then it gets the head, nothing, and is told that there is no more
            of_call = (kind for kind, _, stream in received if stream == 1)
            assert [next(of_call) for _ in range(2)] == [HEADERS, RST_STREAM]
            # And another call on the same connection is answered when there is room
            connection.sendall(grpc_call(3, LIVE) + frame(WINDOW_UPDATE, 0, 3, (1000).to_bytes(4, "big")))
            of_call = ((kind, flags & END_STREAM) for kind, flags, stream in received if stream == 3)
            expected = [(HEADERS, 0), (DATA, 0), (HEADERS, END_STREAM)]
            assert [next(of_call) for _ in expected] == expected
        metrics = server.client().get("/metrics").body.decode()
        assert "bellwether_grpc_streams_given_up_total 1" in metrics


@pytest.mark.parametrize(
    "setting", ['handshake_timeout = "0s"', 'idle_timeout = "0s"', 'write_timeout = "0s"', "max_connections = 0"]
)
def test_a_bound_that_lets_nobody_in_is_refused(tmp_path, setting):
    (tmp_path / "bellwether.toml").write_text(setting)
    name = setting.split()[0]
    for command in (["check"], ["serve", "--listen", "127.0.0.1:0"]):
        said = refuse(*command, "--config", tmp_path / "bellwether.toml", "--data-dir", tmp_path / "data")
        assert name in said and "expected" in said, said
