"""Tasks, reports and results: what the workers of every engine have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from carat.utils.errors import CaratError

Engine = Literal["local", "ray"]
"""Where workers run: processes of this machine, or a Ray cluster."""

Report = Callable[[Any], bool]
"""Sends an intermediate result to the caller; returns whether the task should stop."""

TaskFunction = Callable[[Any, Report], Any]
"""Performs one task."""

Prepare = Callable[..., TaskFunction]
"""Sets up a worker. A function of a module, so that other processes can import it."""

OnReport = Callable[[int, Any], bool]
"""Receives the index of a task and its report; returns whether the task should stop."""

ATTEMPTS = 3
"""How often a task is started whose worker dies."""


@dataclass(frozen=True)
class TaskResult:
    """The outcome of a task."""

    index: int
    """Position of the task."""
    result: Any = None
    problem: str = ""
    """Why there is no result, in one line."""
    died: bool = False
    """Whether there is none because the worker died."""


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Call a function and turn an exception into text: a failing task must not end the others.

    Returns:
        The result and an empty string, or None and the problem in one line.
    """
    try:
        return function(*arguments), ""
    except CaratError as error:
        return None, str(error)
    except Exception as error:
        return None, one_line(error)


def one_line(error: BaseException) -> str:
    """An unexpected error in one line."""
    return f"{type(error).__name__} {' '.join(str(error).split())[:300]}"
