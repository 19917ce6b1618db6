"""Progress: bars on terminals and in notebooks, log lines, and silent workers."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from carat.utils import progress
from carat.utils.logging import hide_progress, logger
from carat.utils.parallel.child import exit_with_parent
from carat.utils.progress import NotebookBar, open_bar, track


class Clock:
    """Clock that advances only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Messages of the logger at its default level."""
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield shown
    logger.removeHandler(handler)
    logger.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(items: Any, clock: Clock, seconds: float, total: int | None) -> list[Any]:
    """Iterate with progress, advancing the clock per item."""
    done = []
    for item in track(items, "Scoring test", total):
        clock.now += seconds
        done.append(item)
    return done


def test_one_line_per_tenth_without_a_terminal(clock: Clock, lines: list[str]) -> None:
    assert work(range(40), clock, 3.0, 40) == list(range(40))
    assert lines == [
        *(
            f"Scoring test: {share}%, about {left} left"
            for share, left in (
                (10, "2 min"),
                (20, "2 min"),
                (30, "84 s"),
                (40, "72 s"),
                (50, "60 s"),
                (60, "48 s"),
                (70, "36 s"),
                (80, "24 s"),
                (90, "12 s"),
            )
        ),
        "Scoring test: finished in 2 min",
    ]


def test_lines_have_a_minimum_interval(clock: Clock, lines: list[str]) -> None:
    work(range(10), clock, 2.0, 10)  # a tenth takes two seconds: a line for every third of them
    assert [line.split(",")[0] for line in lines] == [
        "Scoring test: 30%",
        "Scoring test: 60%",
        "Scoring test: 90%",
        "Scoring test: finished in 20 s",
    ]


def test_short_and_empty_operations_have_no_lines(clock: Clock, lines: list[str]) -> None:
    work(range(40), clock, 0.1, 40)
    work([], clock, 1.0, 0)
    assert lines == []


def test_operation_of_unknown_length_is_counted(clock: Clock, lines: list[str]) -> None:
    work(range(7), clock, 10.0, None)
    assert lines == ["Scoring test: 3 done in 30 s", "Scoring test: 6 done in 60 s"]


def test_failed_operation_is_not_reported_as_finished(clock: Clock, lines: list[str]) -> None:
    def broken() -> Iterator[int]:
        yield from range(9)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        work(broken(), clock, 6.0, 10)
    assert not any("finished" in line for line in lines)
    assert len(lines) == 9


def test_workers_are_silent(clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    hide_progress()
    assert work(range(40), clock, 3.0, 40) == list(range(40))
    assert lines == []
    assert sys.stderr.getvalue() == ""
    logger.warning("what matters is shown")
    assert lines == ["what matters is shown"]


def test_quiet_children_hide_their_progress(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr("os.setpgrp", lambda: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    exit_with_parent(quiet=False)
    assert not progress.is_silent()
    exit_with_parent(quiet=True)
    assert progress.is_silent()
    sys.stderr.close()


def test_bar_on_a_terminal(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    assert list(track(iter("abc"), "Scoring [red]test", total=3)) == ["a", "b", "c"]
    shown = sys.stderr.getvalue()
    assert "Scoring [red]test" in shown  # brackets in names are no markup
    assert "3/3" in shown
    assert lines == []


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Outputs of a notebook cell over time, with a minimal IPython."""
    shown: list[dict[str, str]] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")

    def show(content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        shown.append(content)
        return SimpleNamespace(update=lambda content, raw: shown.append(content))

    ipython.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
    display.display = show  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_bar_in_a_notebook(cell: list[dict[str, str]], clock: Clock, lines: list[str]) -> None:
    work(range(3), clock, 2.0, 3)
    assert cell[0]["text/html"].startswith('<progress value="0" max="3"')
    assert [state.get("text/plain") for state in cell] == [
        "Scoring test 0/3, 0 s",
        "Scoring test 1/3, 2 s, about 4 s left",
        "Scoring test 2/3, 4 s, about 2 s left",
        "Scoring test 3/3, 6 s",
        None,  # the bar is removed
    ]
    assert cell[-1] == {"text/html": ""}
    assert lines == []


def test_notebook_refresh_rate_is_limited(cell: list[dict[str, str]], clock: Clock) -> None:
    work(range(1000), clock, 0.01, 1000)
    assert 40 <= len(cell) <= 55
    assert cell[-2]["text/plain"].startswith("Scoring test 1000/1000")


def test_names_in_a_notebook_are_escaped(cell: list[dict[str, str]], clock: Clock) -> None:
    bar = open_bar()
    assert isinstance(bar, NotebookBar)
    bar.start("<script>", None)
    clock.now += 1
    bar.update(5, "loss <b>")
    bar.close()
    assert cell[-1] == {
        "text/html": (
            '<progress style="vertical-align: middle"></progress> &lt;script&gt; 5, 1 s, loss &lt;b&gt;'
        ),
        "text/plain": "<script> 5, 1 s, loss <b>",
    }


def test_ipython_on_a_terminal_is_not_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not progress.in_notebook()
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    assert not progress.in_notebook()
