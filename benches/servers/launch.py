"""Starting each server, and waiting until it answers rightly."""

import http.client
import os
import shutil
import time

import catalog
import processes

READY_SECONDS = 120
# A process of NumPy or a BLAS that spreads over all cores would only take them from the others.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class NotReady(Exception):
    """A server did not come up."""


def bellwether(binary, models, folder, port, log):
    """`models` are the names under which copies of the model are served: {name: file}."""
    for name, file in models.items():
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        shutil.copy(file, version / "model.onnx")
    (folder / "features").mkdir()
    command = [binary, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", folder / "data"]
    command += ["--models", folder / "models", "--features", folder / "features"]
    # The settings of whoever runs this would make it another comparison.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BELLWETHER_")}
    return processes.Process(command, environment, folder, log)


def peer(server, python, model, folder, port, log):
    environment = {
        **os.environ,
        **ONE_THREAD,
        "PORT": str(port),
        "MODEL": str(model),
        "WORKDIR": str(folder),
        "WORKERS": str(server.workers),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    source = catalog.PEERS / server.folder
    return processes.Process([python, source / "serve.py"], environment, source, log)


def ask(port, method, path, body=None, connection=None):
    """(status, body) of one request; on a connection of its own unless one is given."""
    used = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        used.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = used.getresponse()
        return answer.status, answer.read()
    finally:
        if connection is None:
            used.close()


def wait_until(process, answers, pause=0.005):
    """Seconds from the start of the process until `answers()` is true; a refused connection is not yet."""
    while True:
        try:
            if answers():
                return time.monotonic() - process.started
        except (OSError, http.client.HTTPException):
            pass
        if process.ended() or time.monotonic() - process.started > READY_SECONDS:
            what = "it ended" if process.ended() else f"no right answer within {READY_SECONDS} s"
            raise NotReady(f"{what}; the end of {process.log}: {tail(process.log)}")
        time.sleep(pause)


def tail(log, characters=300):
    return log.read_text(errors="replace")[-characters:].strip()
