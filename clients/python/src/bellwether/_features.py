"""Features: writing what is known, reading what was known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pyarrow
import pyarrow.parquet

from ._errors import InvalidRequest
from ._http import AsyncTransport, Call, Steps, SyncTransport, ask, message_of
from ._json import plain
from ._progress import ProgressOption, Reporter
from ._tables import Kind, from_arrow, kind_of, to_arrow

#: Rows of one request.
ROWS_PER_REQUEST = 5_000


@dataclass(frozen=True)
class Refused:
    """A row that was not written: its index in the table, and why."""

    index: int
    error: str


@dataclass
class Pushed:
    """What became of the rows of :meth:`Features.push`."""

    written: int = 0
    #: How many rows were refused.
    refused_total: int = 0
    #: The first refused rows of each request, at most a hundred each.
    refused: list[Refused] = field(default_factory=list)

    def add(self, other: Pushed) -> None:
        """Adds what became of further rows."""
        self.written += other.written
        self.refused_total += other.refused_total
        self.refused += other.refused


class Features:
    """``client.features``."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def push(self, table: Any, *, view: str = "customer", progress: ProgressOption = None) -> Pushed:
        """Writes the rows of a table to a view's entities.

        Columns are the view's key columns and features; ``occurred_at``, if there is one, says from when on
        the values of a row hold. Null and NaN say that a value is known to be missing. Features that are no
        columns keep their values. Rows that do not fit are refused, the others are written; when none of a
        request fits, the reason is raised.
        """
        return self._transport.follow(_push(table, view, progress))

    def get(self, key: Any, *, view: str = "customer") -> dict[str, Any]:
        """What is known of one entity: each feature with its ``value``, and when it was last told, ``as_of``.

        A composite key is a list of its parts, in the order of the view's key columns.
        """
        return self._transport.run(_get(key, view))

    def training_set(
        self,
        observations: Any,
        *,
        view: str = "customer",
        features: Sequence[str] | None = None,
        time: str = "observed_at",
        returns: Kind | None = None,
        progress: ProgressOption = None,
    ) -> Any:
        """The observations with, for each, the features of its entity as they were known at its time.

        ``observations`` has the view's key columns and the column ``time``; its other columns, a label for
        instance, are carried through. ``features`` are the wanted ones, by default all of the view. The result
        is a table of the same kind, or of the kind ``returns``.
        """
        return self._transport.follow(_training_set(observations, view, features, time, returns, progress))


class AsyncFeatures:
    """``client.features`` of an asynchronous client: as :class:`Features`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def push(self, table: Any, *, view: str = "customer", progress: ProgressOption = None) -> Pushed:
        """See :meth:`Features.push`."""
        return await self._transport.follow(_push(table, view, progress))

    async def get(self, key: Any, *, view: str = "customer") -> dict[str, Any]:
        """See :meth:`Features.get`."""
        return await self._transport.run(_get(key, view))

    async def training_set(
        self,
        observations: Any,
        *,
        view: str = "customer",
        features: Sequence[str] | None = None,
        time: str = "observed_at",
        returns: Kind | None = None,
        progress: ProgressOption = None,
    ) -> Any:
        """See :meth:`Features.training_set`."""
        return await self._transport.follow(
            _training_set(observations, view, features, time, returns, progress)
        )


def _push(table: Any, view: str, progress: ProgressOption) -> Steps[Pushed]:
    arrow = to_arrow(table)
    pushed = Pushed()
    with Reporter(progress) as reporter:
        for start, call in _pushes(arrow, view):
            reporter.report("push", start, arrow.num_rows)
            pushed.add((yield from ask(call)))
    return pushed


def _pushes(arrow: pyarrow.Table, view: str) -> Iterator[tuple[int, Call[Pushed]]]:
    """One call for each slice of the table, with the row it starts at."""
    for start in range(0, arrow.num_rows, ROWS_PER_REQUEST):
        rows = arrow.slice(start, ROWS_PER_REQUEST).to_pylist()
        yield (
            start,
            Call(
                "POST",
                f"/v1/features/{quote(view, safe='')}",
                partial(_pushed, start=start),
                {
                    "content": "".join(_lines(rows)).encode(),
                    "headers": {"Content-Type": "application/x-ndjson"},
                },
                # Writing the same values twice leaves what writing them once leaves.
                repeatable=True,
                accept=(422,),
            ),
        )


def _pushed(response: httpx.Response, start: int) -> Pushed:
    answer = response.json()
    refused = answer.get("refused", [])
    if response.status_code == 422:
        # Not one row fitted: a mistake of the table, not of some rows.
        raise InvalidRequest(message_of(response), 422)
    return Pushed(
        written=answer.get("written", 0),
        refused_total=answer.get("refused_total", len(refused)),
        refused=[Refused(start + row["index"], row["error"]) for row in refused],
    )


def _get(key: Any, view: str) -> Call[dict[str, Any]]:
    parts = [key] if isinstance(key, (str, int)) else list(key)
    path = "/".join(quote(str(part), safe="") for part in [view, *parts])
    return Call("GET", f"/v1/features/{path}", lambda response: dict(response.json()), repeatable=True)


def _training_set(
    observations: Any,
    view: str,
    features: Sequence[str] | None,
    time: str,
    returns: Kind | None,
    progress: ProgressOption,
) -> Steps[Any]:
    with Reporter(progress) as reporter:
        reporter.report("training set")
        table = yield from ask(_training_set_call(observations, view, features, time))
    return from_arrow(table, returns or kind_of(observations))


def _training_set_call(
    observations: Any, view: str, features: Sequence[str] | None, time: str
) -> Call[pyarrow.Table]:
    body = io.BytesIO()
    pyarrow.parquet.write_table(to_arrow(observations), body)
    parameters: dict[str, str] = {"observed_at": time}
    if features is not None:
        parameters["features"] = ",".join(features)
    return Call(
        "POST",
        f"/v1/features/{quote(view, safe='')}/training-set",
        lambda response: pyarrow.parquet.read_table(io.BytesIO(response.content)),
        {
            "params": parameters,
            "content": body.getvalue(),
            "headers": {"Content-Type": "application/vnd.apache.parquet"},
            # It takes as long as it takes.
            "timeout": None,
        },
        # One is made at a time, and one that nobody reads any more may still be in the making.
        retry_when_busy=False,
    )


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(plain(row), allow_nan=False) + "\n"
