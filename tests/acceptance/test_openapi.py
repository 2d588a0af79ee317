"""The description at /openapi.json is true: schemathesis makes requests from it, right ones and wrong
ones, and every answer is one that the description names, in the form it gives, and no failure of
the server."""

from clients import run_client
from models import copy_sample
from protocol_models import make_models
from server import Server
from telco import customer

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
# The same requests every time, so that a failure can be looked at; 40 of each kind for an operation
# find what they find in the first minute.
BOUNDS = ["--seed", "20260131", "--max-examples", "40", "--generation-deterministic"]


# Unloading comes last: what is unloaded is not ready, and says so with a 503.
RUNS = [["--exclude-path-regex", "/unload$"], ["--include-path-regex", "/unload$"]]


# Who asks for an answer within microseconds gets a 504, which is no failure of the server.
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""


def test_every_answer_is_as_described(data_dir, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    for name in ("churn", "upsell"):
        copy_sample(name, tmp_path / "models")
    make_models(tmp_path / "models")
    with Server(data_dir, models=tmp_path / "models") as server:
        server.client().store("c-1", customer())
        for chosen in RUNS:
            done = run_client(
                "schemathesis",
                "run",
                f"http://{server.address}/openapi.json",
                *["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", *BOUNDS],
                *["--continue-on-failure", "--no-shrink", "--no-color", "--request-timeout", "120"],
                *["--warnings", "off", "--suppress-health-check", "all", *chosen],
                timeout=1200,
                cwd=tmp_path,
            )
            assert done.returncode == 0, done.stdout
        assert server.client().get("/livez").status == 200
        panics = [line for line in server.log if "panicked" in line]
        assert not panics, panics
