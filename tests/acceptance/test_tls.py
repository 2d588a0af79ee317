"""TLS with a real chain: a root that clients trust, an intermediate authority, a server; renewed while
the server runs; and clients that have to show certificates of their own."""

import http.client
import socket
import ssl
import threading

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates import Authority, replace
from deaf import Deaf
from keys import call, create
from server import Answer, Server, refuse, run, succeed
from test_connections import connect, is_closed
from waiting import eventually

SERVER_READY = "/inference.GRPCInferenceService/ServerReady"


class TlsClient:
    """A connection over TLS that trusts one authority."""

    def __init__(self, address, authority, client=None):
        context = ssl.create_default_context(cafile=str(authority.root_file))
        if client:
            context.load_cert_chain(*map(str, client[:2]))
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)

    def request(self, method, path, body=None):
        self.connection.request(method, path, body=body)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def get(self, path):
        return self.request("GET", path)

    def serial(self):
        """The serial number of the certificate that the server has shown."""
        self.connection.connect()
        shown = self.connection.sock.getpeercert()
        return int(shown["serialNumber"], 16)

    def close(self):
        self.connection.close()


class TlsServer(Server):
    """A server with TLS on both ports."""

    def __init__(self, folder, certificate, key, *arguments, **options):
        flags = ["--tls-cert-file", certificate, "--tls-key-file", key, *arguments]
        options = {"grpc_listen": "127.0.0.1:0", "wait_until_ready": False, **options}
        super().__init__(folder / "data", arguments=flags, **options)


def grpc_code(address, authority, client=None):
    root = authority.root_file.read_bytes()
    chain, key = (client[0].read_bytes(), client[1].read_bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    with grpc.secure_channel(address, credentials) as channel:
        return call(channel, SERVER_READY, timeout=20)[0]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("trusted"), "trusted")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def server(tmp_path_factory, trusted):
    certificate, key, _ = trusted.server()
    with TlsServer(tmp_path_factory.mktemp("tls"), certificate, key) as server:
        eventually("ready", lambda: TlsClient(server.address, trusted).get("/readyz").status == 200)
        yield server


def test_http_and_grpc_are_served_to_who_trusts_the_root(server, trusted):
    client = TlsClient(server.address, trusted)
    profile = '{"features": {"tenure": 12}}'
    assert client.request("PUT", "/v1/customers/c-1", profile).status == 200
    scored = client.request("POST", "/v1/score", '{"customer_id": "c-1"}')
    assert scored.status == 200 and scored.json()["predictions"]
    assert grpc_code(server.grpc_address, trusted) == grpc.StatusCode.OK
    client.close()


def test_a_server_of_another_authority_is_not_believed(server, other):
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(server.address, other).get("/readyz")
    assert grpc_code(server.grpc_address, other) == grpc.StatusCode.UNAVAILABLE


def test_both_ports_agree_on_their_protocol_only(server, trusted):
    for address, offered, agreed in [
        (server.address, ["h2", "http/1.1"], "http/1.1"),
        (server.grpc_address, ["h2", "http/1.1"], "h2"),
    ]:
        context = ssl.create_default_context(cafile=str(trusted.root_file))
        context.set_alpn_protocols(offered)
        host, port = address.rsplit(":", 1)
        connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)
        connection.connect()
        assert connection.sock.selected_alpn_protocol() == agreed
        assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")
        connection.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_of_tls_are_refused(server, trusted, version):
    context = ssl.create_default_context(cafile=str(trusted.root_file))
    context.minimum_version = version
    context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    host, port = server.address.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connection.connect()


def test_plain_requests_are_not_answered_and_do_no_harm(server, trusted):
    host, port = server.address.rsplit(":", 1)
    plain = http.client.HTTPConnection(host, int(port), timeout=60)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.request("GET", "/livez")
        plain.getresponse()
    assert TlsClient(server.address, trusted).get("/livez").status == 200
    metrics = TlsClient(server.address, trusted).get("/metrics").body.decode()
    assert "bellwether_tls_handshakes_failed_total" in metrics


def test_commands_check_the_certificate(server, trusted, other):
    url = f"https://{server.address}"
    backfill = ("features", "backfill", "--view", "customer", "--server", url)
    succeed(*backfill, "--ca-file", trusted.root_file)
    succeed(*backfill, env={"BELLWETHER_CA_FILE": str(trusted.root_file)})
    assert "--ca-file" in refuse(*backfill)
    assert "certificate" in refuse(*backfill, "--ca-file", other.root_file)
    key_file = trusted.folder / "server-key.pem"
    assert "expected certificates" in refuse(*backfill, "--ca-file", key_file)


def test_a_renewed_certificate_is_taken_without_a_lost_request(tmp_path):
    authority = Authority(tmp_path, "renewed")
    certificate, key, first = authority.server()
    with TlsServer(tmp_path, certificate, key) as server:
        # Given a connection that is open, and callers that make requests all the while
        open_before = TlsClient(server.address, authority)
        assert open_before.get("/livez").status == 200
        assert TlsClient(server.address, authority).serial() == first
        failed, done = [], threading.Event()

        def calls():
            while not done.is_set():
                client = TlsClient(server.address, authority)
                answer = client.get("/livez")
                if answer.status != 200:
                    failed.append(answer)
                client.close()

        caller = threading.Thread(target=calls)
        caller.start()
        try:
            # When certificate and key are replaced, one after the other
            _, _, second = authority.server()
            shown = lambda: TlsClient(server.address, authority).serial()  # noqa: E731
            eventually("the new certificate", lambda: shown() == second)
            # And then by a pair that does not fit
            stranger, _, _ = authority.leaf(ExtendedKeyUsageOID.SERVER_AUTH)
            replace(certificate, stranger)
            eventually(
                "the mistake in the log",
                lambda: any("certificate in force stays" in line for line in server.log),
            )
            # Then new connections get the one that was right, and nobody was turned away
            assert shown() == second
        finally:
            done.set()
            caller.join()
        assert not failed, failed[:3]
        assert open_before.get("/livez").status == 200
        open_before.close()


def test_clients_show_certificates_when_asked_for(tmp_path, trusted, other):
    certificate, key, _ = trusted.server("mutual")
    friend = trusted.client("friend")
    stranger = other.client("stranger")
    arguments = ("--tls-client-ca-file", trusted.root_file)
    with TlsServer(tmp_path, certificate, key, *arguments) as server:
        with_one = TlsClient(server.address, trusted, friend)
        assert with_one.get("/livez").status == 200
        with_one.close()
        assert grpc_code(server.grpc_address, trusted, friend) == grpc.StatusCode.OK
        for client in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                TlsClient(server.address, trusted, client).get("/livez")
            assert grpc_code(server.grpc_address, trusted, client) == grpc.StatusCode.UNAVAILABLE
        # And so do commands
        url = f"https://{server.address}"
        backfill = ("features", "backfill", "--view", "customer", "--server", url)
        backfill += ("--ca-file", trusted.root_file)
        succeed(*backfill, "--client-cert", friend[0], "--client-key", friend[1])
        refuse(*backfill)
        assert "--client-key" in refuse(*backfill, "--client-cert", friend[0])


def test_keys_are_asked_for_over_tls_as_well(tmp_path, trusted):
    certificate, key, _ = trusted.server("keyed")
    made = create(tmp_path / "data", "score")
    with TlsServer(tmp_path, certificate, key) as server:
        client = TlsClient(server.address, trusted)
        assert client.get("/v2").status == 401
        client.connection.request("GET", "/v2", headers=made.header)
        assert client.connection.getresponse().status == 200
        client.close()


def test_files_that_are_wrong_are_named(tmp_path, trusted, other):
    certificate, key, _ = trusted.server("wrong")
    _, other_key, _ = other.server("wrong")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    config = tmp_path / "bellwether.toml"
    for settings, parts in [
        ({"cert_file": certificate}, ["tls.key_file"]),
        ({"key_file": key}, ["tls.cert_file"]),
        ({"client_ca_file": trusted.root_file}, ["tls.client_ca_file", "tls.cert_file"]),
        ({"cert_file": tmp_path / "none.pem", "key_file": key}, ["none.pem"]),
        ({"cert_file": text, "key_file": key}, ["text.pem", "expected certificates"]),
        ({"cert_file": certificate, "key_file": text}, ["text.pem", "expected a private key"]),
        ({"cert_file": certificate, "key_file": certificate}, ["tls.key_file"]),
        ({"cert_file": certificate, "key_file": other_key}, [str(certificate), str(other_key)]),
        (
            {"cert_file": certificate, "key_file": key, "client_ca_file": text},
            ["tls.client_ca_file", "text.pem"],
        ),
    ]:
        lines = [f'{name} = "{value}"' for name, value in settings.items()]
        config.write_text("[tls]\n" + "\n".join(lines))
        for command in ("check", "serve"):
            said = refuse(command, "--config", config, "--data-dir", tmp_path / "data")
            assert all(part in said for part in parts), said
            assert "PRIVATE" not in said
    config.write_text(f'[tls]\ncert_file = "{certificate}"\nkey_file = "{key}"')
    assert run("check", "--config", config).returncode == 0


def test_a_server_with_tls_stops_while_a_client_shakes_hands(tmp_path, trusted):
    certificate, key, _ = trusted.server("stopping")
    with TlsServer(tmp_path, certificate, key) as server:
        host, port = server.address.rsplit(":", 1)
        silent = socket.create_connection((host, int(port)))
        assert TlsClient(server.address, trusted).get("/livez").status == 200
    # Stopped in time by now
    silent.close()


def test_who_agrees_on_tls_and_then_does_nothing_is_given_up(tmp_path, trusted):
    # Given a server with one place, over TLS
    certificate, key, _ = trusted.server("patient")
    config = tmp_path / "bellwether.toml"
    config.write_text('max_connections = 1\nhandshake_timeout = "4s"\nwrite_timeout = "500ms"\n')
    with TlsServer(tmp_path, certificate, key, cwd=tmp_path) as server:
        context = ssl.create_default_context(cafile=str(trusted.root_file))
        context.set_alpn_protocols(["h2"])
        # When the place is taken by who says nothing at all, by who agrees on keys and then says nothing,
        # and by who asks and takes no answer
        silent = connect(server.grpc_address)
        eventually("the first is given up", lambda: is_closed(silent))
        shaken = context.wrap_socket(connect(server.grpc_address), server_hostname="127.0.0.1")
        eventually("the second is given up", lambda: is_closed(shaken))
        context.set_alpn_protocols(["http/1.1"])
        deaf = context.wrap_socket(
            connect(server.address, receive_buffer=4096), server_hostname="127.0.0.1"
        )
        client = Deaf(deaf, b"GET /openapi.json HTTP/1.1\r\nHost: b\r\n\r\n" * 10)

        def is_served():
            client.send_more()
            return grpc_code(server.grpc_address, trusted) == grpc.StatusCode.OK

        # Then the others are served
        eventually("the place is free", is_served, seconds=120)
        for connection in (silent, shaken, deaf):
            connection.close()
