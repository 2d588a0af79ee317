"""What goes wrong."""

from __future__ import annotations


class BellwetherError(Exception):
    """The server refused a request. ``status`` is that of HTTP, the message the server's own."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServerUnavailable(BellwetherError):
    """The server cannot be reached, or cannot answer now (429, 503, 504). Trying again may work."""
