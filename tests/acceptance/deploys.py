"""Versions to deploy, and load while that happens: every request is counted, and every answer is looked
up among the versions that were champion while it was under way."""

import json
import shutil
import threading
import time

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from churn_versions import shift_log_odds
from models import LinearModel, save, tensor_info
from server import MODELS, Client, run

BOUNDARY = "a-boundary"

# Values of the table that the heavy model reads from: 2 MiB in memory, so that a version that is not
# freed shows.
TABLE = 512 * 1024


def churn_version(folder, shift=0.0):
    """The sample model with something added to its log-odds."""
    shutil.copytree(MODELS / "churn" / "1", folder)
    if shift:
        model = onnx.load(str(folder / "model.onnx"))
        shift_log_odds(model.graph, shift)
        onnx.save(model, str(folder / "model.onnx"))
        (folder / "golden.json").unlink()
    return folder


def churn_score(features, shift=0.0):
    """What that model says of a customer."""
    return 1.0 / (1.0 + numpy.exp(-(LinearModel("churn").log_odds(features) + shift)))


def table_version(models, name, value):
    """x [N] int64 -> y [N] float: the value, read from a large table."""
    table = numpy.full(TABLE, value, dtype=numpy.float32)
    return save(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [tensor_info("x", TensorProto.INT64, ["N"])],
        [tensor_info("y", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(table, "table")],
        models,
        name,
    )


def break_golden(folder):
    """Row 2 expects something else."""
    path = folder / "golden.json"
    golden = json.loads(path.read_text())
    golden["rows"][2]["outputs"]["probabilities"] = [0.5, 0.5]
    path.write_text(json.dumps(golden))
    return folder


def form(folder):
    """The files of a version folder as a multipart body."""
    parts = []
    for name in ("model.onnx", "model.toml", "golden.json"):
        if (folder / name).is_file():
            parts.append((name, (folder / name).read_bytes()))
    return form_of(parts)


def form_of(parts):
    body = b""
    for name, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def post(client, model, body, query=""):
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return client.request("POST", f"/v1/models/{model}/versions{query}", body, headers)


def deploy(server, model, folder, *flags):
    """`bellwether model deploy`; what it prints, as it says it in JSON, or its refusal."""
    done = run("model", "deploy", model, folder, "--server", f"http://{server.address}", "--json", *flags)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


class Champions:
    """Which version of a model may have been champion when."""

    def __init__(self, version):
        self.spans = [[0.0, float("inf"), version]]

    def promote(self, act):
        """`act` makes another version champion and returns its number."""
        begun = time.monotonic()
        span = [begun, float("inf"), None]
        self.spans.append(span)
        span[2] = act()
        self.spans[-2][1] = time.monotonic()

    def at(self, begun, ended):
        return {version for since, until, version in self.spans if since <= ended and begun <= until}


class Load:
    """Threads that ask one after the other until they are stopped."""

    def __init__(self, server, ask, threads):
        """`ask(client)` sends one request and returns the version that answered, checked."""
        self.answers = []
        self.failures = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(server.address, ask), daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, address, ask):
        client = Client(address)
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                version = ask(client)
            except Exception as error:  # every kind of failure is one that a client would see
                self.failures.append(repr(error))
                client.close()
                client = Client(address)
            else:
                self.answers.append((begun, time.monotonic(), version))
        client.close()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def strangers(self, champions):
        """Answers of versions that were not champion at any moment of the request."""
        return [
            (version, sorted(allowed))
            for begun, ended, version in self.answers
            if version not in (allowed := champions.at(begun, ended))
        ]
