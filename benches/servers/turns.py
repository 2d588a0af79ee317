"""One server's turn: start it, check it, load it at every level, look at its memory, stop it."""

import contextlib
import http.client
import json
import subprocess
import tempfile
from pathlib import Path

import bodies
import catalog
import launch
import load
import processes

MANY_MODELS = 10


class LedgerNotSound(Exception):
    """What `bellwether ledger verify` said after the load, where that was not good."""


class Turns:
    def __init__(self, chosen, model, questions, binary, pythons):
        self.chosen = chosen
        self.model = model
        self.questions = questions
        self.binary = binary
        self.pythons = pythons
        self.logs = chosen.cache / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def running(self, server, models=None):
        """(process, port, working folder) of a started server that is stopped and cleared away at the end."""
        log = self.logs / f"{server.name}.log"
        # In the cache folder rather than in /tmp, which may be memory: a ledger needs a disk.
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.chosen.cache) as folder:
            folder, port = Path(folder), processes.free_port()
            if server.folder is None:
                models = models or {catalog.MODEL: self.model}
                process = launch.bellwether(self.binary, models, folder, port, log)
            else:
                process = launch.peer(server, self.pythons[server.name], self.model, folder, port, log)
            try:
                yield process, port, folder
            finally:
                process.stop()

    def take(self, server):
        """Everything measured in one turn, as {"levels": {connections: …}, "large": …, "ready_s": …, …}."""
        measured = {"levels": {}, "livez": {}}
        with self.running(server) as (process, port, folder):
            measured["ready_s"] = round(self.until_right(server, process, port), 3)
            asked = 1 + self.check(server, port)
            measured["rss_idle_mb"], measured["pss_idle_mb"] = process.memory_mb()

            def run(path, file, connections):
                url = f"http://127.0.0.1:{port}{path}"
                return load.measure(process, url, file, connections, self.chosen.warmup, self.chosen.seconds)

            one, large = (self.questions.files[server.dialect, size] for size in (1, bodies.LARGE_ROWS))
            for connections in self.chosen.connections:
                if server.folder is None:
                    measured["livez"][connections] = run("/livez", None, connections)
                measured["levels"][connections] = run(server.path, one, connections)
            measured["large"] = run(server.path, large, 1)
            measured["rss_mb"], measured["pss_mb"] = process.memory_mb()
            asked += sum(level["asked"] for level in [*measured["levels"].values(), measured["large"]])
            process.stop()
            if server.folder is None:
                measured["requests"], measured["ledger_rows"] = asked, self.ledger_rows(folder / "data")
        return measured

    def until_right(self, server, process, port):
        rows = self.questions.one[0]
        body = bodies.body(server.dialect, rows)

        def answers_rightly():
            status, answer = launch.ask(port, "POST", server.path, body)
            if status == 200:
                self.questions.compare(server.dialect, rows, answer)
            return status == 200

        return launch.wait_until(process, answers_rightly)

    def check(self, server, port):
        """Compares the answers to all questions with ONNX Runtime's; returns how many there were."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            return self.questions.check(
                server.dialect, lambda body: launch.ask(port, "POST", server.path, body, connection)
            )
        finally:
            connection.close()

    def ledger_rows(self, data):
        """How many predictions and inferences the ledger of a stopped Bellwether holds."""
        command = [self.binary, "ledger", "verify", "--data-dir", data, "--json"]
        ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        try:
            report = json.loads(ended.stdout)
        except ValueError as error:
            raise LedgerNotSound(f"ledger verify said no JSON: {(ended.stderr or ended.stdout)[-300:]}") from error
        if not report["sound"]:
            raise LedgerNotSound(ended.stdout[:300])
        return report["predictions"] + report["inferences"]

    def many_models(self, server):
        """Bellwether with ten models in its repository: seconds from its start until /v2/health/ready says
        yes, and its memory then and when every model has answered."""
        models = {f"{catalog.MODEL}-{number}": self.model for number in range(MANY_MODELS)}
        with self.running(server, models) as (process, port, _folder):
            ready = launch.wait_until(process, lambda: launch.ask(port, "GET", "/v2/health/ready")[0] == 200, 0.001)
            resident, _ = process.memory_mb()
            rows = self.questions.one[0]
            for name in models:
                path = server.path.replace(catalog.MODEL, name)
                status, answer = launch.ask(port, "POST", path, bodies.body(server.dialect, rows))
                if status != 200:
                    raise bodies.WrongAnswer(f"status {status} of {path}: {answer[:200]!r}")
                self.questions.compare(server.dialect, rows, answer)
            used, _ = process.memory_mb()
        return {"models": MANY_MODELS, "ready_s": round(ready, 3), "rss_mb": resident, "rss_used_mb": used}
