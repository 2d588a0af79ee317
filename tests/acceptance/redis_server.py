"""A real Redis for a test: on a free port of this machine, without persistence, gone with the test."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from server import free_port

START_SECONDS = 30
ADVICE = "redis-server not found (Debian, Ubuntu: apt-get install redis-server; ./test does it)"


class RedisServer:
    """Use it as a context. It can be frozen, killed and started again on its port."""

    def __init__(self, folder, arguments=()):
        self.program = shutil.which("redis-server")
        if self.program is None:
            if os.environ.get("CI"):
                pytest.fail(ADVICE)
            pytest.skip(ADVICE)
        self.folder = folder
        self.arguments = arguments
        for _ in range(10):  # somebody else may take the port first
            self.port = free_port()
            if self._launch():
                return
        raise AssertionError("redis-server did not start on any of ten ports")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _launch(self):
        command = [self.program, "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [*map(str, command), *self.arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.01)  # between two looks
        return False

    def kill(self):
        """What it held is lost."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        assert self._launch(), "redis-server did not start again"

    def freeze(self):
        """Connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
