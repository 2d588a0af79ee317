"""Requests, and what is done when one gets no answer.

A :class:`Call` is a request and how its answer is read; :data:`Steps` are several calls that make one answer.
Both are made once, in one place, and know nothing of waiting. Running them is all that differs between the
client (:class:`SyncTransport`) and the asynchronous client (:class:`AsyncTransport`).
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Union, cast

import httpx

from ._errors import BellwetherError, ServerUnavailable, error_of

Answer = TypeVar("Answer")

#: The file of a certificate authority, a TLS context, or whether certificates are verified at all.
Verify = Union[bool, str, ssl.SSLContext]

#: The file of a certificate with its key, or a file for each.
Certificate = Union[str, tuple[str, str]]

DEFAULT_URL = "http://127.0.0.1:8080"

#: The longest pause before another try, in seconds, whatever the server asks for.
LONGEST_PAUSE = 5.0

#: Answers that say that nothing was done: another try does not do it twice.
_NOT_NOW = (429, 503)


@dataclass
class Call(Generic[Answer]):
    """One request."""

    method: str
    path: str
    #: What is made of the answer.
    read: Callable[[httpx.Response], Answer]
    #: Arguments of ``httpx.Client.request``.
    options: dict[str, Any] = field(default_factory=dict)
    #: Arguments that hold files, made anew for each try.
    body: Callable[[], dict[str, Any]] = dict
    #: Sending it twice is as good as sending it once.
    repeatable: bool = False
    #: "Not now" from the server means that nothing was done.
    retry_when_busy: bool = True
    #: Answers other than 2xx that ``read`` takes.
    accept: tuple[int, ...] = ()


#: What a method does when one call is not enough: it yields calls, is handed the answer of each, and returns
#: its own. When a call fails it is closed where it stands, so that a context it opened is left.
Steps = Generator[Call[Any], Any, Answer]


def ask(call: Call[Answer]) -> Steps[Answer]:
    """A call among steps: ``answer = yield from ask(call)``, of the type that the call has."""
    answer: Answer = yield call
    return answer


@dataclass(frozen=True)
class Settings:
    """How a server is reached."""

    url: str
    timeout: float
    retries: int
    api_key: str | None = field(repr=False)
    verify: Verify
    cert: Certificate | None

    @staticmethod
    def of(
        url: str | None,
        timeout: float,
        retries: int,
        api_key: str | None,
        verify: Verify,
        cert: Certificate | None,
    ) -> Settings:
        """Settings with what is left out taken from the environment, as the commands take it."""
        url = url or os.environ.get("BELLWETHER_SERVER") or DEFAULT_URL
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, found {url!r}")
        if not timeout > 0:
            raise ValueError(f"timeout: expected seconds above 0, found {timeout!r}")
        if retries < 0:
            raise ValueError(f"retries: expected 0 or more, found {retries!r}")
        # A key that was read from a file may have a line end.
        key = (api_key or os.environ.get("BELLWETHER_API_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError("api_key: it has characters that no key has")
        shown = os.environ.get("BELLWETHER_CLIENT_CERT")
        shown_key = os.environ.get("BELLWETHER_CLIENT_KEY")
        return Settings(
            url=url,
            timeout=timeout,
            retries=retries,
            api_key=key or None,
            verify=(os.environ.get("BELLWETHER_CA_FILE") or True) if verify is True else verify,
            cert=cert or ((shown, shown_key) if shown and shown_key else None),
        )

    def for_httpx(self) -> dict[str, Any]:
        """The arguments of an httpx client."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"base_url": self.url, "timeout": self.timeout, "headers": headers, "verify": self._tls()}

    def _tls(self) -> bool | ssl.SSLContext:
        if isinstance(self.verify, ssl.SSLContext):
            context = self.verify
        elif isinstance(self.verify, str):
            context = ssl.create_default_context(cafile=_file("verify", self.verify))
        elif self.verify and self.cert is None:
            return True
        else:
            context = ssl.create_default_context()
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        if self.cert is not None:
            files = (self.cert,) if isinstance(self.cert, str) else self.cert
            context.load_cert_chain(*(_file("cert", file) for file in files))
        return context

    def pause(
        self, call: Call[Any], tried: int, ended: httpx.Response | httpx.TransportError
    ) -> float | None:
        """How long to wait before another try; ``None`` when there is to be none."""
        if tried > self.retries:
            return None
        asked = 0.0
        if isinstance(ended, httpx.Response):
            if ended.status_code not in _NOT_NOW or not call.retry_when_busy:
                return None
            asked = _seconds(ended.headers)
        elif not call.repeatable and not isinstance(ended, (httpx.ConnectError, httpx.ConnectTimeout)):
            # The server may have done it: the caller has to decide.
            return None
        own = 0.1 * float(2 ** (tried - 1)) * random.uniform(0.5, 1.5)
        return min(max(asked, own), LONGEST_PAUSE)


def _file(option: str, path: str) -> str:
    # TLS libraries say that there is no file, and not which.
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{option}: no file {path}")
    return path


class SyncTransport:
    """Runs calls and waits for them."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None) -> None:
        self._settings = settings
        self.http = httpx.Client(**settings.for_httpx(), transport=transport)

    def run(self, call: Call[Answer]) -> Answer:
        tried = 0
        while True:
            tried += 1
            ended = self._send(call)
            pause = self._settings.pause(call, tried, ended)
            if pause is None:
                return _result(call, ended, self._settings.url)
            time.sleep(pause)

    def follow(self, steps: Steps[Answer]) -> Answer:
        with closing(steps):
            answer: Any = None
            while True:
                try:
                    call = steps.send(answer)
                except StopIteration as ended:
                    return cast(Answer, ended.value)
                answer = self.run(call)

    def _send(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return self.http.request(call.method, call.path, **call.options, **call.body())
        except httpx.TransportError as error:
            return error


class AsyncTransport:
    """Runs calls in an event loop."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self._settings = settings
        self.http = httpx.AsyncClient(**settings.for_httpx(), transport=transport)

    async def run(self, call: Call[Answer]) -> Answer:
        tried = 0
        while True:
            tried += 1
            ended = await self._send(call)
            pause = self._settings.pause(call, tried, ended)
            if pause is None:
                return _result(call, ended, self._settings.url)
            await asyncio.sleep(pause)

    async def follow(self, steps: Steps[Answer]) -> Answer:
        with closing(steps):
            answer: Any = None
            while True:
                try:
                    call = steps.send(answer)
                except StopIteration as ended:
                    return cast(Answer, ended.value)
                answer = await self.run(call)

    async def _send(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        try:
            return await self.http.request(call.method, call.path, **call.options, **call.body())
        except httpx.TransportError as error:
            return error


def _result(call: Call[Answer], ended: httpx.Response | httpx.TransportError, url: str) -> Answer:
    if isinstance(ended, httpx.TransportError):
        reason = str(ended) or type(ended).__name__
        raise ServerUnavailable(f"{url}: {reason}") from ended
    if not ended.is_success and ended.status_code not in call.accept:
        raise error_of(ended.status_code, message_of(ended))
    try:
        return call.read(ended)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        where = f"{ended.request.method} {ended.request.url}"
        raise BellwetherError(f"{where}: not the answer of a Bellwether server ({error!r})") from error


def message_of(response: httpx.Response) -> str:
    """What the server says about a refusal."""
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code} of {response.request.method} {response.request.url}"


def _seconds(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
