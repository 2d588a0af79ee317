"""A cluster on this machine: a scheduler and executors, each a process with a port of its own choosing."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading

import pytest

from server import BINARY, FEATURES, MODELS, REPOSITORY, START_SECONDS, clean_environment, run
from waiting import eventually

STOP_SECONDS = 60
NOT_BUILT = "built without the cluster"


def require_cluster():
    """Skips where the binary was built without the feature; ./test builds it with."""
    said = run("executor", "--scheduler", "http://127.0.0.1:1", "--connect-timeout", "0s", "--listen", "127.0.0.1:0")
    if NOT_BUILT in said.stderr:
        assert said.returncode == 2, said
        assert "CI" not in os.environ, "CI builds with the feature `full`"
        pytest.skip("the binary was built without the feature `full`")


class Service:
    """A running `bellwether scheduler` or `bellwether executor`."""

    def __init__(self, *command):
        self.log = []
        self.address = None
        self._listening = threading.Event()
        self.process = subprocess.Popen(
            [str(BINARY), *map(str, command)],
            cwd=REPOSITORY,
            # What Ballista tells is logged at this level.
            env=clean_environment({"BELLWETHER_LOG": "info,bellwether=debug"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._listening.wait(START_SECONDS)
        if self.address is None:
            self.kill()
            raise AssertionError(f"not listening ({command}):\n" + "\n".join(self.log))

    def _read_log(self):
        for line in self.process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.log.append(text)
            with contextlib.suppress(ValueError):
                entry = json.loads(text)
                if entry.get("message") == "listening":
                    self.address = entry["address"]
                    self._listening.set()
        self._listening.set()

    def said(self, message):
        """How often it has logged that message."""
        count = 0
        for text in list(self.log):
            with contextlib.suppress(ValueError):
                count += json.loads(text).get("message") == message
        return count

    def has_logged(self, part):
        return any(part in text for text in list(self.log))

    def tasks_done(self):
        return self.said("task done")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM ends it within seconds, with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {STOP_SECONDS} s:\n" + "\n".join(self.log)) from None
        assert code == 0, f"exit code {code} after SIGTERM:\n" + "\n".join(self.log)


class Cluster:
    """A scheduler with `executors` executors of one task each. Use it as a context."""

    def __init__(self, folder, executors=2, models=MODELS, scheduler=()):
        self.scheduler = None
        self.executors = []
        try:
            self.scheduler = Service(
                *("scheduler", "--listen", "127.0.0.1:0", "--ready-executors", executors, *scheduler)
            )
            self.url = f"http://{self.scheduler.address}"
            for _ in range(executors):
                self.executors.append(
                    Service(
                        *("executor", "--scheduler", self.url, "--listen", "127.0.0.1:0"),
                        *("--models", models, "--features", FEATURES),
                        *("--concurrent-tasks", 1, "--work-dir", folder),
                    )
                )
            eventually(f"a scheduler with {executors} executors is ready", self.is_ready, START_SECONDS)
        except BaseException:
            self.kill()
            raise

    def is_ready(self):
        host, port = self.scheduler.address.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=STOP_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def services(self):
        return [*self.executors, *([self.scheduler] if self.scheduler else [])]

    def log_text(self):
        return "\n---\n".join("\n".join(service.log) for service in self.services())

    def kill(self):
        for service in self.services():
            service.kill()

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, trace):
        if error_type is not None:
            self.kill()
            return
        for service in self.services():
            if service.process.poll() is None:
                service.stop()
