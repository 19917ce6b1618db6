"""Progress of long operations: a bar on a terminal or in a notebook, otherwise log lines."""

from __future__ import annotations

import html
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from carat.utils.logging import logger

T = TypeVar("T")

REFRESH = 0.2
"""Minimum seconds between two refreshes of a bar."""
LINE_EVERY = 5.0
"""Minimum seconds between two log lines."""
LINES = 10
"""Maximum number of log lines per operation."""
LINE_EVERY_UNKNOWN = 30.0
"""Minimum seconds between two log lines if the number of steps is unknown."""


class Bar(ABC):
    """Progress bar that is reused for consecutive operations."""

    def __init__(self) -> None:
        self._refreshed = 0.0

    @abstractmethod
    def start(self, description: str, total: int | None) -> None:
        """Reset the bar to an operation of `total` steps; None if their number is unknown."""

    @abstractmethod
    def update(self, done: int, note: str = "") -> None:
        """Show that `done` steps are complete, with a note beside the bar."""

    def close(self) -> None:  # noqa: B027  optional
        """Stop displaying progress."""

    def is_due(self) -> bool:
        """Return whether a refresh is due; True starts the next interval."""
        now = time.monotonic()
        if now - self._refreshed < REFRESH:
            return False
        self._refreshed = now
        return True


class TerminalBar(Bar):
    """A rich progress bar on standard error.

    Args:
        transient: remove the bar when it is closed.
    """

    def __init__(self, *, transient: bool = False) -> None:
        from rich import progress
        from rich.console import Console

        super().__init__()
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=transient,
        )
        self._task: Any = None

    def start(self, description: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(description, total=total, note="")
        self._progress.start()

    def update(self, done: int, note: str = "") -> None:
        if note:
            self._progress.update(self._task, completed=done, note=note)
        else:
            self._progress.update(self._task, completed=done)

    def close(self) -> None:
        self._progress.stop()


class NotebookBar(Bar):
    """An HTML progress bar in the output of a notebook cell, without widgets.

    Args:
        transient: remove the bar when it is closed.
    """

    def __init__(self, *, transient: bool = False) -> None:
        super().__init__()
        self._transient = transient
        self._handle: Any = None
        self._description, self._note, self._done = "", "", 0
        self._total: int | None = None
        self._started = 0.0

    def start(self, description: str, total: int | None) -> None:
        self._description, self._total, self._done, self._note = description, total, 0, ""
        self._started = time.monotonic()
        self._show()

    def update(self, done: int, note: str = "") -> None:
        self._done, self._note = done, note or self._note
        if self.is_due() or done == self._total:
            self._show()

    def close(self) -> None:
        if self._transient and self._handle is not None:
            self._handle.update({"text/html": ""}, raw=True)

    def _show(self) -> None:
        from IPython.display import display

        content = {"text/html": self._html(), "text/plain": self._text()}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def _html(self) -> str:
        ends = f' value="{self._done}" max="{self._total}"' if self._total else ""
        return f'<progress{ends} style="vertical-align: middle"></progress> {html.escape(self._text())}'

    def _text(self) -> str:
        elapsed = time.monotonic() - self._started
        counted = f"{self._done}/{self._total}" if self._total is not None else str(self._done)
        parts = [f"{self._description} {counted}", format_duration(elapsed)]
        if self._total and 0 < self._done < self._total:
            left = elapsed / self._done * (self._total - self._done)
            parts.append(f"about {format_duration(left)} left")
        return ", ".join([*parts, self._note] if self._note else parts)


class LogLines(Bar):
    """Log lines, about one per tenth of the steps; none for operations of a few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._description = ""
        self._total: int | None = None
        self._started = self._last = 0.0
        self._part = self._lines = 0

    def start(self, description: str, total: int | None) -> None:
        self._description, self._total = description, total
        self._started = self._last = time.monotonic()
        self._part = self._lines = 0

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        elapsed, waited = now - self._started, now - self._last
        if self._total is None:
            if waited >= LINE_EVERY_UNKNOWN:
                self._line(now, f"{done} done in {format_duration(elapsed)}")
            return
        part = done * LINES // max(self._total, 1)
        if done >= self._total:
            if self._lines:
                self._line(now, f"finished in {format_duration(elapsed)}")
        elif waited >= LINE_EVERY and part > self._part:
            self._part = part
            left = format_duration(elapsed / done * (self._total - done))
            self._line(now, f"{done / self._total:.0%}, about {left} left")

    def _line(self, now: float, text: str) -> None:
        logger.info("%s: %s", self._description, text)
        self._last = now
        self._lines += 1


def open_bar(*, transient: bool = False) -> Bar | None:
    """Create a progress bar on a terminal or in a notebook; None elsewhere.

    Args:
        transient: remove the bar when it is closed.
    """
    if in_notebook():
        return NotebookBar(transient=transient)
    return TerminalBar(transient=transient) if sys.stderr.isatty() else None


_make_bar: Callable[[], Bar] | None = None


def use_bar(make: Callable[[], Bar]) -> None:
    """Show the progress of this process by other bars than usual, also where it is otherwise silent."""
    global _make_bar
    _make_bar = make


def is_silent() -> bool:
    """Return whether the logger shows only warnings, as in worker processes."""
    return logger.level > logging.INFO


def in_notebook() -> bool:
    """Return whether this process is a notebook kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress: a bar on a terminal or in a notebook, log lines elsewhere.

    Args:
        items: items to iterate over.
        description: name of the operation, e.g. "Scoring test".
        total: number of items, if known.

    Yields:
        The items.
    """
    with progress(description, total) as update:
        for done, item in enumerate(items, start=1):
            yield item
            update(done)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of an operation, as `track` does (context manager).

    Args:
        description: name of the operation.
        total: number of steps, if known.

    Yields:
        Function to call with the number of steps that are done.
    """
    if _make_bar is None and is_silent():
        yield lambda done: None
        return
    bar = _make_bar() if _make_bar is not None else open_bar(transient=True) or LogLines()
    bar.start(description, total)
    try:
        yield bar.update
    finally:
        bar.close()


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, in the unit that needs one or two digits.

    >>> [format_duration(s) for s in (0.4, 41, 100, 735, 9000, 200000)]
    ['0 s', '41 s', '2 min', '12 min', '2.5 h', '56 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.{0 if seconds >= 36000 else 1}f} h"
