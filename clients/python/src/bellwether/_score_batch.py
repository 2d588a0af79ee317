"""Scoring a table.

A table goes out in requests of some thousand rows, each one Arrow batch: the server reads such a batch as a
whole before it answers, so it never waits for a client that sends before it reads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pyarrow
import pyarrow.ipc

from ._http import Call, Steps, ask
from ._progress import ProgressOption, Reporter
from ._tables import Kind, from_arrow, to_arrow

#: Rows of one request, and of one with reasons, which take longer.
ROWS_PER_REQUEST = 4_096
EXPLAINED_ROWS_PER_REQUEST = 1_024

#: Bytes of one request, about.
BYTES_PER_REQUEST = 8 * 1024 * 1024

_ARROW = "application/vnd.apache.arrow.stream"


def score_batch(
    table: Any,
    models: str | Sequence[str] | None,
    explain: int | None,
    record: bool,
    returns: Kind,
    progress: ProgressOption,
) -> Steps[Any]:
    """See :meth:`Client.score_batch`."""
    arrow = to_arrow(table)
    parts: list[pyarrow.Table] = []
    with Reporter(progress) as reporter:
        for done, call in _calls(arrow, models, explain, record):
            parts.append((yield from ask(call)))
            reporter.report("score", done, arrow.num_rows)
    # A model that came or went meanwhile has no scores in the other rows.
    return from_arrow(pyarrow.concat_tables(parts, promote_options="default"), returns)


def _calls(
    table: pyarrow.Table, models: str | Sequence[str] | None, explain: int | None, record: bool
) -> Iterator[tuple[int, Call[pyarrow.Table]]]:
    """One call for each slice of the table, with the rows that are answered when it is done. A table without
    rows is sent, too: its columns are checked."""
    rows = EXPLAINED_ROWS_PER_REQUEST if explain else ROWS_PER_REQUEST
    if table.nbytes > BYTES_PER_REQUEST:
        rows = max(1, min(rows, table.num_rows * BYTES_PER_REQUEST // table.nbytes))
    parameters: dict[str, Any] = {}
    if models is not None:
        parameters["models"] = models if isinstance(models, str) else ",".join(models)
    if explain is not None:
        parameters["explain"] = explain
    if not record:
        parameters["record"] = "false"
    for start in range(0, max(1, table.num_rows), rows):
        part = table.slice(start, rows).combine_chunks()
        call = Call(
            "POST",
            "/v1/score/batch",
            _read,
            {
                "params": parameters,
                "content": _stream(part),
                "headers": {"Content-Type": _ARROW, "Accept": _ARROW},
            },
            # Each answered score is a row of the ledger.
            repeatable=not record,
        )
        yield start + part.num_rows, call


def _stream(table: pyarrow.Table) -> bytes:
    body = io.BytesIO()
    with pyarrow.ipc.new_stream(body, table.schema) as writer:
        writer.write_table(table)
    return body.getvalue()


def _read(response: httpx.Response) -> pyarrow.Table:
    return pyarrow.ipc.open_stream(response.content).read_all()
