"""Tables of any kind in, and in the kind that was asked for out."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow

Kind = Literal["arrow", "pandas", "polars"]


def kind_of(table: Any) -> Kind:
    """The library that a table is of; Arrow for everything that only offers its data as Arrow."""
    library = type(table).__module__.partition(".")[0]
    if library == "pandas":
        return "pandas"
    return "polars" if library == "polars" else "arrow"


def is_table(value: Any) -> bool:
    """Whether :func:`to_arrow` takes it."""
    tables = (pyarrow.Table, pyarrow.RecordBatch)
    return isinstance(value, tables) or kind_of(value) == "pandas" or hasattr(value, "__arrow_c_stream__")


def to_arrow(table: Any) -> pyarrow.Table:
    """A pandas or Polars frame, an Arrow table or batch, or anything else with ``__arrow_c_stream__`` or
    ``to_arrow()``."""
    if isinstance(table, pyarrow.Table):
        return table
    if isinstance(table, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([table])
    if kind_of(table) == "pandas":
        return pyarrow.Table.from_pandas(table, preserve_index=False)
    if hasattr(table, "__arrow_c_stream__"):
        return pyarrow.table(table)
    if hasattr(table, "to_arrow"):
        return to_arrow(table.to_arrow())
    found = type(table).__name__
    raise TypeError(f"expected a pandas, Polars or Arrow table, found {found}")


def from_arrow(table: pyarrow.Table, kind: Kind) -> Any:
    """The table as one of the library ``kind``."""
    if kind == "arrow":
        return table
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars

        return polars.from_arrow(table)
    raise ValueError(f'returns: expected "arrow", "pandas" or "polars", found {kind!r}')
