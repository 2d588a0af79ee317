"""Features: writing what is known, reading what was known."""

from __future__ import annotations

import datetime
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow
import pyarrow.parquet

from ._errors import BellwetherError
from ._tables import Kind, from_arrow, kind_of, to_arrow

if TYPE_CHECKING:
    from ._client import Client

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


class Features:
    """``client.features``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def push(self, table: Any, *, view: str = "customer") -> Pushed:
        """Writes the rows of a table to a view's entities.

        Columns are the view's key columns and features; ``occurred_at``, if there is one, says from when on
        the values of a row hold. Null and NaN say that a value is known to be missing. Features that are no
        columns keep their values. Rows that do not fit are refused, the others are written; when none of a
        request fits, the reason is raised.
        """
        arrow = to_arrow(table)
        pushed = Pushed()
        for start in range(0, arrow.num_rows, ROWS_PER_REQUEST):
            rows = arrow.slice(start, ROWS_PER_REQUEST).to_pylist()
            body = "".join(_lines(rows))
            response = self._client._request(
                "POST",
                f"/v1/features/{quote(view, safe='')}",
                content=body.encode(),
                headers={"Content-Type": "application/x-ndjson"},
                accept=(422,),
            )
            answer = response.json()
            refused = answer.get("refused", [])
            if response.status_code == 422:
                # Not one row fitted: a mistake of the table, not of some rows.
                reason = f": {refused[0]['error']}" if refused else ""
                raise BellwetherError(f"{answer['error']}{reason}", 422)
            pushed.written += answer.get("written", 0)
            pushed.refused_total += answer.get("refused_total", len(refused))
            pushed.refused += [Refused(start + row["index"], row["error"]) for row in refused]
        return pushed

    def training_set(
        self,
        observations: Any,
        *,
        view: str = "customer",
        features: Sequence[str] | None = None,
        time: str = "observed_at",
        returns: Kind | None = None,
    ) -> Any:
        """The observations with, for each, the features of its entity as they were known at its time.

        ``observations`` has the view's key columns and the column ``time``; its other columns, a label for
        instance, are carried through. ``features`` are the wanted ones, by default all of the view. The result
        is a table of the same kind, or of the kind ``returns``.
        """
        arrow = to_arrow(observations)
        body = io.BytesIO()
        pyarrow.parquet.write_table(arrow, body)
        parameters: dict[str, str] = {"observed_at": time}
        if features is not None:
            parameters["features"] = ",".join(features)
        response = self._client._request(
            "POST",
            f"/v1/features/{quote(view, safe='')}/training-set",
            params=parameters,
            content=body.getvalue(),
            headers={"Content-Type": "application/vnd.apache.parquet"},
            timeout=None,
        )
        table = pyarrow.parquet.read_table(io.BytesIO(response.content))
        return from_arrow(table, returns or kind_of(observations))


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it: missing numbers are null, times RFC 3339."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
        return zoned.isoformat()
    return value
