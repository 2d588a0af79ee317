"""The files of a version: ``model.onnx``, ``model.toml`` and ``golden.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._sample import Column


@dataclass(frozen=True)
class Bundle:
    """A version that can be deployed, or written to a folder and looked at.

    The server reproduces ``golden.json``, which holds the estimator's own predictions, before it serves it.
    """

    #: The contents of the files by their names.
    files: dict[str, bytes]
    #: How the graph takes numbers: ``float64`` or ``float32``.
    precision: str
    #: How many rows ONNX Runtime was asked about; 0 when it is not installed.
    checked_rows: int
    #: The largest difference to the estimator on those rows.
    largest_difference: float

    def save(self, folder: str | Path) -> Path:
        """Writes the files to a folder, for ``bellwether model validate`` and ``deploy``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


def manifest(sections: Mapping[str, Mapping[str, Any]], choices: Iterable[Mapping[str, Any]]) -> bytes:
    """``model.toml``: sections in their order, those without a value left out."""
    lines = ["# Written by the Python client of Bellwether."]
    for name, values in sections.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            lines += [f"[{name}]", *(f"{_key(key)} = {_value(value)}" for key, value in given.items()), ""]
    for choice in choices:
        given = {key: value for key, value in choice.items() if value is not None}
        lines += ["[[choice]]", *(f"{_key(key)} = {_value(value)}" for key, value in given.items()), ""]
    return "\n".join(lines).encode()


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # The escapes of JSON are those of TOML, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        # TOML wants digits on both sides of a point, or an exponent.
        text = repr(value)
        return text if "." in text or "e" in text else f"{text}.0"
    raise TypeError(f"model.toml: expected text, a number, a truth value or a list, found {value!r}")


def golden(tolerance: float, output: str, rows: Iterable[tuple[dict[str, Any], list[float]]]) -> bytes:
    """``golden.json``: rows with what the estimator says of them."""
    listed = [{"inputs": inputs, "outputs": {output: answer}} for inputs, answer in rows]
    return json.dumps({"tolerance": tolerance, "rows": listed}, indent=1, allow_nan=False).encode()


def typical(columns: Iterable[Column]) -> dict[str, Any]:
    """The middle of each column of numbers and the most frequent text: the reference for reasons."""
    found: dict[str, Any] = {}
    for column in columns:
        values = [value for value in column.values if value is not None]
        if not values:
            continue
        if column.kind == "text" or isinstance(values[0], bool):
            found[column.feature] = max(sorted(set(values)), key=values.count)
        else:
            # One that occurs, so that an integer stays one; pandas makes integers with gaps floats.
            middle = sorted(values)[(len(values) - 1) // 2]
            found[column.feature] = int(middle) if float(middle).is_integer() else middle
    return found
