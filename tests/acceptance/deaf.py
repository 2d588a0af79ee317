"""A client that asks and asks, and takes no answer."""

import ssl
from contextlib import suppress


class Deaf:
    """Sends a message over and over on a connection, and never reads."""

    def __init__(self, connection, message):
        # So long without anything taken is the end for now.
        connection.settimeout(0.2)
        self._connection = connection
        self._message = self._rest = message

    def send_more(self):
        """Sends for as long as the other side takes it. What is full may have room again when the other
        side was only slow, so whoever waits for something calls this at every look."""
        # One that has closed the connection takes nothing any more.
        with suppress(TimeoutError, ConnectionError, ssl.SSLError):
            for _ in range(1000):
                sent = self._connection.send(self._rest)
                self._rest = self._rest[sent:] or self._message
