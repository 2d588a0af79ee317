"""Events: telling what happened."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import httpx

from ._answers import RefusedEvent, Sent
from ._errors import InvalidRequest
from ._http import AsyncTransport, Call, Steps, SyncTransport, ask, message_of
from ._json import plain
from ._progress import ProgressOption, Reporter
from ._tables import is_table, to_arrow

#: Events of one request.
EVENTS_PER_REQUEST = 1_000

#: Columns of a table that are an event's own; every other one is a property.
_OWN = ("event_id", "event", "occurred_at", "properties")


class Events:
    """``client.events``."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def send(
        self,
        events: Mapping[str, Any] | Iterable[Mapping[str, Any]] | Any,
        *,
        keys: Iterable[str] = ("customer_id",),
        progress: ProgressOption = None,
    ) -> Sent:
        """Sends one event, many, or a table with an event in each row.

        An event is ``{"event": "ticket", "customer_id": "C-1", "occurred_at": …, "properties": {…}}``. Of a
        table, the columns ``keys`` say to whom it happened and those that are not fields of an event are
        properties. When it returns, the accepted events are on disk and counted.

        Without an ``event_id`` one is made up, which makes trying again within this call safe. Choose ids
        yourself when a program that failed will send its events again.
        """
        return self._transport.follow(_send(events, tuple(keys), progress))


class AsyncEvents:
    """``client.events`` of an asynchronous client: as :class:`Events`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def send(
        self,
        events: Mapping[str, Any] | Iterable[Mapping[str, Any]] | Any,
        *,
        keys: Iterable[str] = ("customer_id",),
        progress: ProgressOption = None,
    ) -> Sent:
        """See :meth:`Events.send`."""
        return await self._transport.follow(_send(events, tuple(keys), progress))


def _send(events: Any, keys: tuple[str, ...], progress: ProgressOption) -> Steps[Sent]:
    listed = _listed(events, keys)
    sent = Sent()
    with Reporter(progress) as reporter:
        for start, call in _calls(listed):
            reporter.report("events", start, len(listed))
            _add(sent, (yield from ask(call)))
    return _checked(sent)


def _listed(events: Any, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    if isinstance(events, Mapping):
        given = [dict(events)]
    elif is_table(events):
        given = [_of_row(row, keys) for row in to_arrow(events).to_pylist()]
    else:
        given = [dict(event) for event in events]
    for event in given:
        event.setdefault("event_id", str(uuid.uuid4()))
    return given


def _of_row(row: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    event = {
        name: value for name, value in row.items() if name in (*_OWN, *keys) and plain(value) is not None
    }
    properties = {
        name: value for name, value in row.items() if name not in (*_OWN, *keys) and plain(value) is not None
    }
    if properties:
        event["properties"] = {**event.get("properties", {}), **properties}
    return event


def _calls(events: list[dict[str, Any]]) -> Iterator[tuple[int, Call[Sent]]]:
    for start in range(0, len(events), EVENTS_PER_REQUEST):
        lines = [
            json.dumps(plain(event), allow_nan=False) for event in events[start : start + EVENTS_PER_REQUEST]
        ]
        yield (
            start,
            Call(
                "POST",
                "/v1/events",
                partial(_sent, start=start),
                {"content": "\n".join(lines).encode(), "headers": {"Content-Type": "application/x-ndjson"}},
                # Every event has an id, and one that was taken is not taken twice.
                repeatable=True,
                accept=(422,),
            ),
        )


def _sent(response: httpx.Response, start: int) -> Sent:
    answer = response.json()
    refused = [
        RefusedEvent(start + r["index"], r.get("event_id"), r["error"]) for r in answer.get("refused", [])
    ]
    if response.status_code == 422 and not refused:
        raise InvalidRequest(message_of(response), 422)
    return Sent(
        accepted=answer["accepted"],
        duplicates=answer["duplicates"],
        refused_total=answer.get("refused_total", len(refused)),
        refused=refused,
    )


def _checked(sent: Sent) -> Sent:
    """Raises when not one event fitted: a mistake of the caller, not of some events."""
    if sent.refused and sent.accepted + sent.duplicates == 0:
        count = (
            "" if sent.refused_total == 1 else f"all {sent.refused_total} events were refused; the first: "
        )
        raise InvalidRequest(count + sent.refused[0].error, 422)
    return sent


def _add(sent: Sent, other: Sent) -> None:
    sent.accepted += other.accepted
    sent.duplicates += other.duplicates
    sent.refused_total += other.refused_total
    sent.refused += other.refused
