"""A real nats-server with JetStream for the tests: on a free port, its data in a folder of the test."""

import asyncio
import contextlib
import shutil
import subprocess
import time
from urllib.parse import quote

import nats
import pytest

from server import free_port
from nats.js.errors import NotFoundError

NATS_SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
START_SECONDS = 30

needs_nats = pytest.mark.skipif(NATS_SERVER is None, reason="skipped: nats-server not found")


class NatsServer:
    """Use it as a context, or call start() and stop(); it can be started again with what it had."""

    def __init__(self, folder, user=None, password=None):
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process = None
        self.user, self.password = user, password
        self.arguments = []
        if user is not None:
            self.arguments = ["--user", user, "--pass", password]
            self.url = f"nats://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{self.port}"

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "server.log").open("ab")
        command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.port), *self.arguments]
        command += ["-js", "-sd", str(self.folder / "store")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.call(lambda js: js.account_info())
            except Exception as error:  # not listening yet, or JetStream not ready
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                assert time.monotonic() < deadline, f"nats-server does not answer: {error!r}"
                time.sleep(0.05)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def call(self, work):
        """Runs `await work(jetstream)` on a connection of its own."""

        async def connected():
            async def say_nothing(error):
                pass

            client = await nats.connect(
                f"nats://127.0.0.1:{self.port}",
                allow_reconnect=False,
                connect_timeout=5,
                error_cb=say_nothing,
                user=self.user,
                password=self.password,
            )
            try:
                return await work(client.jetstream(timeout=10))
            finally:
                await client.close()

        return asyncio.run(connected())

    def make_stream(self, name="events", subjects=("events.>",)):
        self.call(lambda js: js.add_stream(name=name, subjects=list(subjects)))

    def publish(self, messages, subject="events.crm"):
        """Publishes (payload, headers) or payloads, and waits until the stream has them."""

        async def publish(js):
            for start in range(0, len(messages), 200):
                sent = []
                for message in messages[start : start + 200]:
                    payload, headers = message if isinstance(message, tuple) else (message, None)
                    sent.append(js.publish(subject, payload, headers=headers))
                await asyncio.gather(*sent)

        self.call(publish)

    def consumer(self, stream="events", consumer="bellwether"):
        """What the server says of the consumer; None while there is none."""

        async def info(js):
            with contextlib.suppress(NotFoundError):
                return await js.consumer_info(stream, consumer)
            return None

        return self.call(info)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
