"""The connection to a server."""

from __future__ import annotations

from typing import Any

import httpx

from ._errors import BellwetherError, ServerUnavailable
from ._features import Features


class Client:
    """A connection to one server, kept open until :meth:`close`; also a context manager.

    ``timeout`` is in seconds and bounds each request but those that compute training sets, which may take
    as long as they need.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, timeout: float = 30.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout)
        #: What is known of customers and other entities.
        self.features = Features(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def _request(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """The answer to a request; a refusal is raised unless its status is in ``accept``."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ServerUnavailable(f"{self._http.base_url}: {error}") from error
        if response.is_success or response.status_code in accept:
            return response
        message = _message(response)
        if response.status_code in (429, 503, 504):
            raise ServerUnavailable(message, response.status_code)
        raise BellwetherError(message, response.status_code)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code} of {response.request.method} {response.request.url}"
