"""Programs of others that talk to the server, run with the packages of their own environment."""

import json
import os
import subprocess
from pathlib import Path

from server import ANSWER_SECONDS, REPOSITORY

VENV = Path(os.environ.get("BELLWETHER_CLIENTS_VENV", REPOSITORY / ".venv-clients"))

# Compiled modules are kept: these packages take many seconds to import without.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run_client(program, *arguments, timeout=120, **options):
    """Runs a program of the clients' environment to its end; returns it with what it said."""
    return subprocess.run(
        [str(VENV / "bin" / program), *map(str, arguments)],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **options,
    )


class ClientProcess:
    """A script of clients/ that answers one line of JSON with another, so that the seconds it takes
    to import its packages are spent once."""

    def __init__(self, script, *arguments):
        self.process = subprocess.Popen(
            [str(VENV / "bin" / "python"), str(Path(__file__).parent / "clients" / script), *arguments],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, **request):
        """What the script answers: its result. An error of the client is raised as ClientError."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client ended with exit code {self.process.wait(ANSWER_SECONDS)}"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["error"], answer["message"])
        return answer["result"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(ANSWER_SECONDS) == 0
        self.process.stdout.close()


class ClientError(Exception):
    """What a client raised: the name of its class, and its message."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
