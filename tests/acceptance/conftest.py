"""Fixtures: a server that most tests share, and customers nobody else uses."""

import itertools

import pytest

from clients import VENV
from protocol_models import make_models
from server import BINARY, Server


def pytest_sessionstart(session):
    if not BINARY.is_file():
        pytest.exit(
            f"{BINARY} not found: run ./test, or build and name the binary in BELLWETHER_BIN", returncode=4
        )
    if not (VENV / "installed.sha256").is_file():
        pytest.exit(f"{VENV} not found: ./test makes it; or name another in BELLWETHER_CLIENTS_VENV", 4)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    """One server with the sample models for every test that does not need one of its own."""
    with Server(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def protocol_server(tmp_path_factory):
    """One server with the models of protocol_models.py, for tests that change none of them. It
    speaks HTTP and gRPC."""
    folder = tmp_path_factory.mktemp("protocols")
    make_models(folder / "models")
    with Server(folder / "data", models=folder / "models", grpc_listen="127.0.0.1:0") as server:
        server.models = folder / "models"
        yield server


@pytest.fixture(scope="session")
def server(shared_server):
    """The server of a file's tests; one that needs another has a fixture of this name."""
    return shared_server


@pytest.fixture
def client(server):
    client = server.client()
    yield client
    client.close()


_numbers = itertools.count(1)


@pytest.fixture
def customer_id():
    """An id no other test uses."""
    return f"customer-{next(_numbers)}"


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"
