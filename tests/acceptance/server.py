"""A real Bellwether for the tests: started on a port of its own choosing, talked to over HTTP, and
stopped or killed. Nothing here sleeps and hopes: every wait is for something seen, up to a deadline.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("BELLWETHER_BIN", REPOSITORY / "target" / "debug" / "bellwether"))
MODELS = REPOSITORY / "models"
FEATURES = REPOSITORY / "features"

# A development build on a busy machine loads models in seconds, not milliseconds.
START_SECONDS = 120
# An idle one stops in a moment, but for a disk that others write to as well.
STOP_SECONDS = 60
# Whoever is answered by threads of the lowest priority waits for all others on the machine.
ANSWER_SECONDS = 300


def clean_environment(extra=None):
    """The caller's environment without Bellwether's own variables, so that only the test decides."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BELLWETHER_")}
    environment.update(extra or {})
    return environment


def run(*arguments, cwd=REPOSITORY, env=None, timeout=300):
    """Runs `bellwether ARGUMENTS` to its end."""
    return subprocess.run(
        [str(BINARY), *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def succeed(*arguments, **options):
    """Runs a command that must succeed."""
    done = run(*arguments, **options)
    assert done.returncode == 0, (
        f"bellwether {arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def refuse(*arguments, **options):
    """Runs a command that must fail with a message, not with a panic; returns what it said."""
    done = run(*arguments, **options)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 101), f"bellwether {arguments} exited {done.returncode}\n{said}"
    assert done.returncode > 0, f"bellwether {arguments} died of signal {-done.returncode}\n{said}"
    assert "panicked" not in said, said
    assert said.strip(), f"bellwether {arguments} failed without a word"
    return said


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def error(self):
        """The message of an error answer, whose body must be exactly {"error": "..."}."""
        # 501 is a refusal too: of a part of the protocol that the server does not have.
        assert 400 <= self.status < 500 or self.status == 501, f"expected a refusal, got {self}"
        body = self.json()
        assert list(body) == ["error"], f"an error has one field, `error`: {self}"
        assert isinstance(body["error"], str) and body["error"].strip(), f"the error says nothing: {self}"
        return body["error"]

    def __repr__(self):
        return f"{self.status} {self.body[:1000]!r}"


class Client:
    """One keep-alive connection, for one thread. It is opened again after an answer that closed it; a
    request is never sent twice."""

    def __init__(self, address, timeout=ANSWER_SECONDS):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """`body` is sent as JSON, or as it is when it is text or bytes."""
        headers = dict(headers or {})
        if isinstance(body, str):
            body = body.encode()
        elif body is not None and not isinstance(body, bytes):
            body = json.dumps(body, allow_nan=False).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, body=body, headers=headers)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def get(self, path):
        return self.request("GET", path)

    def put(self, path, body):
        return self.request("PUT", path, body)

    def post(self, path, body):
        return self.request("POST", path, body)

    def delete(self, path):
        return self.request("DELETE", path)

    # The calls most tests make, checked.

    def store(self, customer_id, features):
        answer = self.put(f"/v1/customers/{customer_id}", {"features": features})
        assert 200 <= answer.status < 300, answer

    def stored(self, customer_id):
        """The customer's features: name -> {"value", "as_of"}."""
        answer = self.get(f"/v1/customers/{customer_id}")
        assert answer.status == 200, answer
        assert answer.json()["customer_id"] == customer_id
        return answer.json()["features"]

    def score(self, customer_id, **fields):
        answer = self.post("/v1/score", {"customer_id": customer_id, **fields})
        assert answer.status == 200, answer
        return answer.json()

    def close(self):
        self.connection.close()


def prediction_of(scored, model):
    """The one prediction of `model` in the answer of /v1/score."""
    found = [p for p in scored["predictions"] if p["model"] == model]
    assert len(found) == 1, f"expected one prediction of {model} in {scored}"
    return found[0]


def free_port():
    """A port that nobody listens on now, and that nobody is given who asks for any: neither a connection
    nor another server takes it before it is used."""
    try:
        first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first_given = 49152
    while True:
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", random.randrange(first_given // 2, first_given)))
            except OSError:
                continue
            return listener.getsockname()[1]


class Server:
    """A running `bellwether serve`. Use it as a context, or call stop() or kill()."""

    def __init__(
        self,
        data_dir,
        models=MODELS,
        features=FEATURES,
        listen="127.0.0.1:0",
        grpc_listen=None,
        arguments=(),
        env=None,
        cwd=None,
        start_seconds=START_SECONDS,
        wait_until_ready=True,
        settings=None,
    ):
        """With `None` for data_dir, models, features, listen or grpc_listen that flag is left out. `settings`
        is the text of the bellwether.toml in the directory that it starts in."""
        command = [str(BINARY), "serve"]
        flags = {"--listen": listen, "--data-dir": data_dir, "--models": models, "--features": features}
        flags["--grpc-listen"] = grpc_listen
        for flag, value in flags.items():
            if value is not None:
                command += [flag, str(value)]
        command += map(str, arguments)
        self.log = []
        self.address = None
        self.grpc_address = None
        self._listening = threading.Event()
        self._clients = []
        # In an empty directory of its own no bellwether.toml is picked up by accident.
        if cwd is None:
            cwd = Path(str(data_dir) + ".cwd")
            cwd.mkdir(parents=True, exist_ok=True)
        if settings is not None:
            (Path(cwd) / "bellwether.toml").write_text(settings)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._wait_until_ready(start_seconds, wait_until_ready)

    def _read_log(self):
        for line in self.process.stderr:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.log.append(text)
            if self.address is None and "listening" in text:
                try:
                    entry = json.loads(text)
                except ValueError:
                    continue
                if entry.get("message") == "listening":
                    self.grpc_address = entry.get("grpc")
                    self.address = entry["address"]
                    self._listening.set()
        self._listening.set()  # the log has ended: nobody need wait any longer

    def _wait_until_ready(self, seconds, ready_is_wanted=True):
        deadline = time.monotonic() + seconds
        self._listening.wait(seconds)
        if self.address is None:
            self.kill()
            # A negative code is a signal: -9 is our own, for a server that went on in silence.
            raise AssertionError(
                f"not listening ({seconds} s, exit code {self.process.returncode}):\n" + self.log_text()
            )
        while ready_is_wanted:
            client = Client(self.address)
            try:
                ready = client.get("/readyz")
                if ready.status == 200:
                    return
            except OSError as error:
                ready = error
            finally:
                client.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"/readyz answers {ready}:\n" + self.log_text())
            time.sleep(0.02)  # between two looks at /readyz

    def entries(self):
        """The entries of the log so far."""
        entries = []
        for text in self.log:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(text))
        return entries

    def resident_bytes(self):
        """The memory that it occupies."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def log_text(self):
        return "\n".join(self.log)

    def client(self):
        client = Client(self.address)
        self._clients.append(client)
        return client

    def terminate(self):
        """Sends SIGTERM and does not wait."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=STOP_SECONDS):
        """Waits for the end; returns the exit code with the whole log read."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout} s:\n" + self.log_text()) from None
        self._reader.join(STOP_SECONDS)
        return code

    def stop(self):
        """SIGTERM; an idle server is soon gone, with exit code 0."""
        for client in self._clients:
            client.close()
        self.terminate()
        code = self.wait()
        assert code == 0, f"exit code {code} after SIGTERM:\n" + self.log_text()

    def kill(self):
        """SIGKILL: the process gets no chance to write another byte."""
        self.process.kill()
        self.process.wait()
        self._reader.join(STOP_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, trace):
        if self.process.poll() is not None:
            return
        if error_type is None:
            self.stop()
        else:
            self.kill()
