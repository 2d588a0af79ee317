"""Telling how far something is that takes a while.

A bar on the terminal or below the cell of a notebook appears after a second and is gone at the end. Programs get
the same as calls of a function. Neither is there when nobody watches standard error and no function was given.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO, Union

#: Nothing is shown of what is done within this time.
PATIENCE_SECONDS = 1.0
_REDRAW_SECONDS = 0.2
_WIDTH = 30


@dataclass(frozen=True)
class Progress:
    """How far something is: ``done`` of ``total``, which is ``None`` when nobody can know."""

    stage: str
    done: int
    total: int | None


#: ``None``: a bar in terminals and notebooks; ``False``: nothing; a function: it is called.
ProgressOption = Union[None, bool, Callable[[Progress], None]]


class Reporter:
    """Passes on how far something is; a context, for the bar to be cleared at the end."""

    def __init__(self, option: ProgressOption) -> None:
        self._call = option if callable(option) else None
        wanted = option is True or (option is None and _is_watched(sys.stderr))
        self._bar = _Bar(sys.stderr) if wanted else None

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, stage: str, done: int = 0, total: int | None = None) -> None:
        progress = Progress(stage, done, total)
        if self._bar is not None:
            self._bar.latest = progress
        if self._call is not None:
            self._call(progress)


def _is_watched(stream: TextIO) -> bool:
    """A terminal, or a notebook, which says that it is none."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")


class _Bar:
    """One line that is drawn by a thread of its own, because what it shows waits for a server."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._width = 0
        self.latest = Progress("", 0, None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _draw(self) -> None:
        started = time.monotonic()
        if self._ended.wait(PATIENCE_SECONDS):
            return
        while not self._ended.wait(_REDRAW_SECONDS):
            self._write(line(self.latest, time.monotonic() - started))
        self._write("")

    def _write(self, text: str) -> None:
        # Back to the start of the line, and blanks over what is left of the text before: notebooks know no
        # other way of clearing it.
        self._stream.write(f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
        self._stream.flush()
        self._width = len(text)


def line(progress: Progress, seconds: float) -> str:
    """What the bar shows."""
    elapsed = f"{seconds:.0f} s"
    if not progress.total:
        return f"{progress.stage} … {elapsed}"
    share = min(progress.done / progress.total, 1.0)
    filled = int(share * _WIDTH)
    return f"{progress.stage} [{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%} {elapsed}"
