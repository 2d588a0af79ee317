"""Models: what is served, deploying a folder, and the rollout of versions."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union
from urllib.parse import quote

import httpx

from ._answers import Deployed, Model, ModelVersion, Roles
from ._errors import ModelRefused
from ._http import AsyncTransport, Call, Steps, SyncTransport, ask, message_of
from ._json import plain
from ._progress import ProgressOption, Reporter

#: The files of a version, in the order in which they are sent.
BUNDLE_FILES = ("model.onnx", "model.toml", "golden.json")

#: A server may load a large model for minutes.
DEPLOY_SECONDS = 900.0

#: A folder of one version, or the contents of its files by their names.
BundleLike = Union[str, Path, Mapping[str, bytes]]

#: The transitions of the rollout, as the server calls them.
Action = Literal["shadow", "canary", "promote", "rollback", "candidate", "retire"]

Report = Callable[[str, int, Union[int, None]], None]


class Models:
    """``client.models``."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(self, name: str | None = None) -> list[ModelVersion]:
        """Every version of every model, or of the model ``name``."""
        return self._transport.run(list_call(name))

    def get(self, name: str) -> Model:
        """A model with the roles of its versions, and how they do."""
        return self._transport.run(_get(name))

    def deploy_bundle(
        self,
        name: str,
        bundle: BundleLike,
        *,
        promote: bool = False,
        reason: str | None = None,
        progress: ProgressOption = None,
    ) -> Deployed:
        """Uploads a version: a folder with ``model.onnx`` and perhaps ``model.toml`` and ``golden.json``.

        It takes the next number. When this returns, the server has loaded it, reproduced its golden rows and
        serves it: the first version of a model as champion, a later one as candidate, or as champion with
        ``promote``. A version that the server refuses raises :class:`ModelRefused` and changes nothing.
        """
        return self._transport.follow(_deploy_bundle(name, bundle, promote, reason, progress))

    def shadow(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """Has a version score what the champion scores, unseen; :meth:`get` has how they compare."""
        return self._transport.run(_rollout(name, "shadow", version, reason))

    def canary(
        self,
        name: str,
        version: int,
        *,
        percent: float,
        guardrails: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> Roles:
        """Gives a version a share of the customers, always the same ones; again with more to raise it.

        The server takes it back by itself when a guardrail is breached.
        """
        return self._transport.run(_canary(name, version, percent, guardrails, reason))

    def promote(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """Makes a version the champion: it answers whenever no version is named."""
        return self._transport.run(_rollout(name, "promote", version, reason))

    def rollback(self, name: str, version: int | None = None, *, reason: str | None = None) -> Roles:
        """Ends the canary if there is one, or else goes back to the champion before.

        With ``version`` only if that is the one to be taken back; otherwise it is a :class:`Conflict`.
        """
        return self._transport.run(_rollout(name, "rollback", version, reason))

    def candidate(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """Ends a version's role as shadow or canary."""
        return self._transport.run(_rollout(name, "candidate", version, reason))

    def retire(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """Unloads a version; its files stay."""
        return self._transport.run(_rollout(name, "retire", version, reason))


class AsyncModels:
    """``client.models`` of an asynchronous client: as :class:`Models`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self, name: str | None = None) -> list[ModelVersion]:
        """See :meth:`Models.list`."""
        return await self._transport.run(list_call(name))

    async def get(self, name: str) -> Model:
        """See :meth:`Models.get`."""
        return await self._transport.run(_get(name))

    async def deploy_bundle(
        self,
        name: str,
        bundle: BundleLike,
        *,
        promote: bool = False,
        reason: str | None = None,
        progress: ProgressOption = None,
    ) -> Deployed:
        """See :meth:`Models.deploy_bundle`."""
        return await self._transport.follow(_deploy_bundle(name, bundle, promote, reason, progress))

    async def shadow(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """See :meth:`Models.shadow`."""
        return await self._transport.run(_rollout(name, "shadow", version, reason))

    async def canary(
        self,
        name: str,
        version: int,
        *,
        percent: float,
        guardrails: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> Roles:
        """See :meth:`Models.canary`."""
        return await self._transport.run(_canary(name, version, percent, guardrails, reason))

    async def promote(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """See :meth:`Models.promote`."""
        return await self._transport.run(_rollout(name, "promote", version, reason))

    async def rollback(self, name: str, version: int | None = None, *, reason: str | None = None) -> Roles:
        """See :meth:`Models.rollback`."""
        return await self._transport.run(_rollout(name, "rollback", version, reason))

    async def candidate(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """See :meth:`Models.candidate`."""
        return await self._transport.run(_rollout(name, "candidate", version, reason))

    async def retire(self, name: str, version: int, *, reason: str | None = None) -> Roles:
        """See :meth:`Models.retire`."""
        return await self._transport.run(_rollout(name, "retire", version, reason))


def _path(name: str, rest: str = "") -> str:
    return f"/v1/models/{quote(name, safe='')}{rest}"


def list_call(name: str | None = None) -> Call[list[ModelVersion]]:
    """The versions of all models, or of one. The call comes before an upload, too: a server that is to refuse
    the caller says so here, where under an upload it would end the connection, with its words lost."""

    def read(response: httpx.Response) -> list[ModelVersion]:
        versions = [ModelVersion.of(raw) for raw in response.json()["models"]]
        return [version for version in versions if name is None or version.model == name]

    return Call("GET", "/v1/models", read, repeatable=True)


def _get(name: str) -> Call[Model]:
    return Call("GET", _path(name), lambda response: Model.of(response.json()), repeatable=True)


def _canary(
    name: str, version: int, percent: float, guardrails: Mapping[str, Any] | None, reason: str | None
) -> Call[Roles]:
    limits = None if guardrails is None else dict(guardrails)
    return _rollout(name, "canary", version, reason, percent=percent, guardrails=limits)


def _rollout(
    name: str, action: Action, version: int | None, reason: str | None, **fields: Any
) -> Call[Roles]:
    body = {"action": action, "reason": reason, "version": _number(version), **fields}
    given = {field: plain(value) for field, value in body.items() if value is not None}
    # A transition is never sent twice: the second could undo what somebody did in between.
    return Call(
        "POST",
        _path(name, "/rollout"),
        lambda response: Roles.of(response.json()),
        {"json": given},
        retry_when_busy=False,
    )


def _number(version: int | None) -> int | None:
    try:
        return None if version is None else int(version)
    except (TypeError, ValueError):
        hint = "; it has the number as .version" if hasattr(version, "version") else ""
        raise TypeError(f"version: expected a whole number, found a {type(version).__name__}{hint}") from None


def _deploy_bundle(
    name: str, bundle: BundleLike, promote: bool, reason: str | None, progress: ProgressOption
) -> Steps[Deployed]:
    with Reporter(progress) as reporter:
        yield from ask(list_call())
        return (yield from ask(deploy_call(name, bundle, promote, reason, reporter.report)))


def deploy_call(
    name: str, bundle: BundleLike, promote: bool, reason: str | None, report: Report
) -> Call[Deployed]:
    """The upload of a bundle; ``report`` is told how much of it is sent."""
    contents = _contents(bundle)
    total = sum(len(content) for content in contents.values())
    parameters = {"promote": "true" if promote else "false"}
    if reason is not None:
        parameters["reason"] = reason

    def body() -> dict[str, Any]:
        sent = _Sent(total, report)
        files = {
            part: (part, _Counted(content, sent), "application/octet-stream")
            for part, content in contents.items()
        }
        return {"files": files}

    return Call(
        "POST",
        _path(name, "/versions"),
        _deployed,
        {"params": parameters, "timeout": DEPLOY_SECONDS},
        body,
        retry_when_busy=False,
        accept=(422,),
    )


def _deployed(response: httpx.Response) -> Deployed:
    if response.status_code == 422:
        raise ModelRefused(message_of(response), 422)
    return Deployed.of(response.json())


def _contents(bundle: BundleLike) -> dict[str, bytes]:
    if isinstance(bundle, Mapping):
        unknown = [name for name in bundle if name not in BUNDLE_FILES]
        if unknown:
            raise ValueError(
                f"bundle: expected the files {', '.join(BUNDLE_FILES)}, found {', '.join(unknown)}"
            )
        found = {name: bytes(bundle[name]) for name in BUNDLE_FILES if name in bundle}
        where = "the bundle"
    else:
        folder = Path(bundle)
        found = {name: (folder / name).read_bytes() for name in BUNDLE_FILES if (folder / name).is_file()}
        where = str(folder)
    if "model.onnx" not in found:
        raise FileNotFoundError(f"{where}: no model.onnx")
    return found


class _Sent:
    """Counts what the parts of an upload gave away."""

    def __init__(self, total: int, report: Report) -> None:
        self._total = total
        self._report = report
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._done < self._total:
            self._report("upload", self._done, self._total)
        else:
            self._report("load", 0, None)


class _Counted(io.BytesIO):
    """A part of an upload."""

    def __init__(self, content: bytes, sent: _Sent) -> None:
        super().__init__(content)
        self._sent = sent

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if piece:
            self._sent.add(len(piece))
        return piece
