"""Progress of long work: a bar on a terminal or in a notebook, and log lines everywhere else."""

from __future__ import annotations

import html
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from carat.utils.logging import logger

T = TypeVar("T")

REFRESH = 0.2
"""Seconds between two states of a bar, at least."""
LINE_EVERY = 5.0
"""Seconds between two log lines, at least."""
LINES = 10
"""Log lines about one piece of work, at most."""
LINE_EVERY_UNKNOWN = 30.0
"""Seconds between two log lines where the amount of work is unknown."""


class Bar(ABC):
    """A bar for one kind of work after another."""

    def __init__(self) -> None:
        self._refreshed = 0.0

    @abstractmethod
    def start(self, description: str, total: int | None) -> None:
        """Show an empty bar for `total` steps; None if their number is unknown."""

    @abstractmethod
    def update(self, done: int, note: str = "") -> None:
        """Show that `done` steps are finished, with a note beside the bar."""

    def close(self) -> None:  # noqa: B027  nothing to stop in most of them
        """Stop showing progress."""

    def is_due(self) -> bool:
        """Whether the last refresh was long enough ago; an answer of True counts as one."""
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
    """An HTML bar below a notebook's cell; needs no widgets.

    Args:
        transient: remove the bar when it is closed.
    """

    def __init__(self, *, transient: bool = False) -> None:
        super().__init__()
        self._transient = transient
        self._handle: Any = None
        self._description, self._note, self._done = "", "", 0
        self._total: int | None = None
        self._began = 0.0

    def start(self, description: str, total: int | None) -> None:
        self._description, self._total, self._done, self._note = description, total, 0, ""
        self._began = time.monotonic()
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
        elapsed = time.monotonic() - self._began
        counted = f"{self._done}/{self._total}" if self._total is not None else str(self._done)
        parts = [f"{self._description} {counted}", format_duration(elapsed)]
        if self._total and 0 < self._done < self._total:
            left = elapsed / self._done * (self._total - self._done)
            parts.append(f"about {format_duration(left)} left")
        return ", ".join([*parts, self._note] if self._note else parts)


class LogLines(Bar):
    """Lines through carat's logger, about one for every tenth of the work; none for work of seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._description = ""
        self._total: int | None = None
        self._began = self._last = 0.0
        self._part = self._lines = 0

    def start(self, description: str, total: int | None) -> None:
        self._description, self._total = description, total
        self._began = self._last = time.monotonic()
        self._part = self._lines = 0

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        elapsed, waited = now - self._began, now - self._last
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
    """A bar where someone watches: on a terminal or in a notebook; None elsewhere.

    Args:
        transient: remove the bar when it is closed.
    """
    if in_notebook():
        return NotebookBar(transient=transient)
    return TerminalBar(transient=transient) if sys.stderr.isatty() else None


def is_silent() -> bool:
    """Whether progress is hidden: carat's logger was set to show warnings only, as in worker processes."""
    return logger.level > logging.INFO


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate and show how far it is: a bar on a terminal or in a notebook, log lines elsewhere.

    Args:
        items: what is iterated.
        description: what is done, e.g. "Scoring test".
        total: number of items, if it is known.

    Yields:
        The items.
    """
    if is_silent():
        yield from items
        return
    bar = open_bar(transient=True) or LogLines()
    bar.start(description, total)
    try:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(done)
    finally:
        bar.close()


def format_duration(seconds: float) -> str:
    """Seconds for people, in the unit that leaves one or two digits.

    >>> [format_duration(s) for s in (0.4, 41, 100, 735, 9000, 200000)]
    ['0 s', '41 s', '2 min', '12 min', '2.5 h', '56 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.{0 if seconds >= 36000 else 1}f} h"
