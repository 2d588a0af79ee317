"""API keys for the tests: made with the command line, shown over HTTP and gRPC."""

import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from server import Client, succeed

SCOPES = ["score", "feedback", "data", "deploy", "metrics", "admin"]


@dataclass
class Key:
    id: str
    text: str

    @property
    def secret(self):
        return self.text.rsplit("_", 1)[1]

    @property
    def header(self):
        return {"Authorization": f"Bearer {self.text}"}

    @property
    def metadata(self):
        return [("authorization", f"Bearer {self.text}")]


def keys_file(data_dir):
    return Path(data_dir) / "keys.toml"


def create(data_dir, scopes, name="test", *flags):
    """Makes a key with `bellwether keys create`."""
    scopes = ",".join([scopes] if isinstance(scopes, str) else scopes)
    done = succeed(
        "keys", "create", "--data-dir", data_dir, "--name", name, "--scope", scopes, "--json", *flags
    )
    made = json.loads(done.stdout)
    return Key(made["id"], made["key"])


def rotate(data_dir, key, grace="1h"):
    done = succeed("keys", "rotate", "--data-dir", data_dir, key.id, "--grace", grace, "--json")
    return Key(key.id, json.loads(done.stdout)["key"])


def revoke(data_dir, key):
    succeed("keys", "revoke", "--data-dir", data_dir, key.id)


class KeyedClient(Client):
    """A client that shows a key, or none."""

    def __init__(self, address, key=None, **options):
        super().__init__(address, **options)
        self.key = key

    def request(self, method, path, body=None, headers=None):
        shown = self.key.header if self.key else {}
        return super().request(method, path, body, {**shown, **(headers or {})})


def call(channel, path, message=b"", key=None, timeout=60):
    """One gRPC call with one message each way, as bytes; returns (code, message of the refusal)."""
    made = channel.unary_unary(path)
    try:
        made(message, metadata=key.metadata if key else None, timeout=timeout)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""
