"""Rows as an estimator takes them, and the same rows as a graph with one input a column takes them.

Columns hold numbers or text. Truth values are numbers. A missing number is NaN to the graph and missing
text is empty text, as the server passes them on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from .._errors import ConversionError
from .._tables import kind_of

Kind = Literal["number", "text"]

#: The most rows that are looked at; of more, as many are taken from all over the sample.
MOST_ROWS = 5_000

_UNSEEN = "unseen by the estimator"


@dataclass(frozen=True)
class Column:
    """One column of the sample."""

    name: str
    #: What it is called in the view, and in the graph.
    feature: str
    kind: Kind
    #: The values as JSON has them: ``None`` where one is missing.
    values: list[Any]

    def feed(self, number_type: type) -> numpy.ndarray:
        """The values as the graph's input takes them, ``[rows, 1]``."""
        if self.kind == "text":
            column = numpy.array(["" if value is None else value for value in self.values], dtype=object)
        else:
            column = numpy.array([math.nan if v is None else v for v in self.values], dtype=number_type)
        return column.reshape(-1, 1)


@dataclass(frozen=True)
class Sample:
    """Some rows."""

    #: The rows as they were given: what the estimator takes.
    table: Any
    columns: list[Column]

    @staticmethod
    def of(table: Any, features: Sequence[str] | Mapping[str, str] | None) -> Sample:
        """Reads a pandas or Polars frame, or an array whose columns ``features`` names."""
        mapping = dict(features) if isinstance(features, Mapping) else {}
        names = None if isinstance(features, Mapping) else features
        if isinstance(table, numpy.ndarray):
            if table.ndim != 2 or names is None or len(names) != table.shape[1]:
                raise ConversionError(
                    "sample: an array has no column names: give features=[…] with one for each of its columns"
                )
        elif kind_of(table) not in ("pandas", "polars") or not hasattr(table, "columns"):
            raise ConversionError(
                f"sample: expected a pandas or Polars data frame or an array, found {type(table).__name__}"
            )
        count = len(table)
        if count == 0:
            raise ConversionError("sample: no rows; give some hundred that are like those to be scored")
        if count > MOST_ROWS:
            table = take(table, spread(count, MOST_ROWS))
        columns = [_column(name, mapping.get(name, name), values) for name, values in _values(table, names)]
        unknown = [name for name in mapping if name not in {column.name for column in columns}]
        if unknown:
            raise ConversionError(f"features: the sample has no column {unknown[0]!r}")
        twice = {
            column.feature for column in columns if [c.feature for c in columns].count(column.feature) > 1
        }
        if twice:
            raise ConversionError(f"features: several columns are called {min(twice)!r}")
        return Sample(table, columns)

    @property
    def rows(self) -> int:
        return len(self.table)

    def row(self, index: int) -> dict[str, Any]:
        """One row as JSON has it."""
        return {column.feature: column.values[index] for column in self.columns}

    def feed(self, number_type: type) -> dict[str, numpy.ndarray]:
        """The inputs of the graph."""
        return {column.feature: column.feed(number_type) for column in self.columns}

    def only(self, features: Collection[str]) -> Sample:
        """The same rows for a graph that reads some of the columns."""
        return Sample(self.table, [column for column in self.columns if column.feature in features])

    def edges(self) -> Iterator[tuple[str, Sample]]:
        """Rows that a sample seldom has: a value missing, and text that the estimator never saw.

        Each comes with words for it, and is the first row of the sample but for one column.
        """
        for index, column in enumerate(self.columns):
            changes: list[tuple[str, Any]] = [(f"a missing value of {column.name}", None)]
            if column.kind == "text":
                changes.append((f"a value of {column.name} that it never saw", _UNSEEN))
            for words, value in changes:
                table = _changed(self.table, column.name, index, value)
                if table is None:
                    continue
                columns = [
                    Column(c.name, c.feature, c.kind, [value if c is column else c.values[0]])
                    for c in self.columns
                ]
                yield words, Sample(table, columns)


def spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the indices below ``count``, from all over, the first among them."""
    if count <= wanted:
        return list(range(count))
    return [index * count // wanted for index in range(wanted)]


def take(table: Any, indices: list[int]) -> Any:
    """These rows of a table, as the same kind of table."""
    return table.iloc[indices] if kind_of(table) == "pandas" else table[indices]


def _values(table: Any, names: Sequence[str] | None) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(table, numpy.ndarray):
        for index, name in enumerate(names or []):
            yield name, table[:, index].tolist()
        return
    for name in table.columns:
        if not isinstance(name, str):
            raise ConversionError(f"sample: expected columns named like features, found {name!r}")
        column = table[name]
        yield name, (column.tolist() if kind_of(table) == "pandas" else column.to_list())


def _column(name: str, feature: str, values: list[Any]) -> Column:
    plain = [_plain(name, value) for value in values]
    kinds = {type(value) is str for value in plain if value is not None}
    if len(kinds) > 1:
        raise ConversionError(f"sample: column {name} has both text and numbers")
    # A column without a single value: a number is as good as any.
    return Column(name, feature, "text" if kinds == {True} else "number", plain)


def _plain(name: str, value: Any) -> Any:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, numpy.bool_)):
        return bool(value)
    if isinstance(value, (int, numpy.integer)):
        return int(value)
    if isinstance(value, (float, numpy.floating)):
        number = float(value)
        if math.isinf(number):
            raise ConversionError(f"sample: column {name} has an infinite value, which no feature can have")
        return None if math.isnan(number) else number
    raise ConversionError(
        f"sample: column {name} has a {type(value).__name__}; expected numbers, truth values or text"
    )


def _changed(table: Any, name: str, index: int, value: Any) -> Any:
    """The first row with another value in a column; ``None`` when the table cannot hold it."""
    if isinstance(table, numpy.ndarray):
        if table.dtype.kind == "f" and value is None:
            row = table[:1].copy()
            row[0, index] = math.nan
            return row
        return None
    row = take(table, [0])
    if kind_of(table) == "polars":
        import polars

        return row.with_columns(polars.lit(value, dtype=row.schema[name]).alias(name))
    column = row[name]
    if str(column.dtype) == "category":
        changed = column.cat.set_categories([*column.cat.categories, *([] if value is None else [value])])
        changed.iloc[0] = value
    elif value is None and column.dtype.kind in "iub":
        changed = column.astype("float64")
        changed.iloc[0] = math.nan
    else:
        changed = column.copy()
        changed.iloc[0] = math.nan if value is None else value
    return row.assign(**{name: changed})
