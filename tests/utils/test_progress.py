"""Progress: bars where someone watches, lines in logs, silence in workers."""

from __future__ import annotations

import io
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
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(items: Any, clock: Clock, seconds: float, total: int | None) -> list[Any]:
    """Iterate with progress, so many seconds per item."""
    done = []
    for item in track(items, "Scoring test", total):
        clock.now += seconds
        done.append(item)
    return done


def test_long_work_without_a_terminal_is_a_line_for_every_tenth(clock: Clock, logged: list[str]) -> None:
    assert work(range(40), clock, 3.0, 40) == list(range(40))
    assert logged == [
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


def test_lines_are_seconds_apart(clock: Clock, logged: list[str]) -> None:
    work(range(10), clock, 2.0, 10)  # a tenth takes two seconds: a line for every third of them
    assert [line.split(",")[0] for line in logged] == [
        "Scoring test: 30%",
        "Scoring test: 60%",
        "Scoring test: 90%",
        "Scoring test: finished in 20 s",
    ]


def test_short_work_and_no_work_need_no_line(clock: Clock, logged: list[str]) -> None:
    work(range(40), clock, 0.1, 40)
    work([], clock, 1.0, 0)
    assert logged == []


def test_work_of_unknown_length_is_counted(clock: Clock, logged: list[str]) -> None:
    work(range(7), clock, 10.0, None)
    assert logged == ["Scoring test: 3 done in 30 s", "Scoring test: 6 done in 60 s"]


def test_work_that_fails_is_not_finished(clock: Clock, logged: list[str]) -> None:
    def broken() -> Iterator[int]:
        yield from range(9)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        work(broken(), clock, 6.0, 10)
    assert not any("finished" in line for line in logged)
    assert len(logged) == 9


def test_workers_are_silent(clock: Clock, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    hide_progress()
    assert work(range(40), clock, 3.0, 40) == list(range(40))
    assert logged == []
    assert sys.stderr.getvalue() == ""
    logger.warning("what matters is shown")
    assert logged == ["what matters is shown"]


def test_quiet_children_hide_their_progress(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    monkeypatch.setattr("os.setpgrp", lambda: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    exit_with_parent(quiet=False)
    assert not progress.is_silent()
    exit_with_parent(quiet=True)
    assert progress.is_silent()
    sys.stderr.close()


def test_a_terminal_gets_a_bar(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    assert list(track(iter("abc"), "Scoring [red]test", total=3)) == ["a", "b", "c"]
    shown = sys.stderr.getvalue()
    assert "Scoring [red]test" in shown  # brackets in names are no markup
    assert "3/3" in shown
    assert logged == []


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a notebook's cell shows, state by state; IPython as far as it is used."""
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


def test_a_notebook_gets_a_bar(cell: list[dict[str, str]], clock: Clock, logged: list[str]) -> None:
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
    assert logged == []


def test_a_notebook_is_refreshed_a_few_times_per_second(cell: list[dict[str, str]], clock: Clock) -> None:
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


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not progress.in_notebook()
    ipython.get_ipython = lambda: None  # type: ignore[attr-defined]
    assert not progress.in_notebook()
