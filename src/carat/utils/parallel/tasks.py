"""What an engine is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = Callable[[Any], bool]
"""Report something in the middle of a task; answers whether the task is to stop."""

TaskFunction = Callable[[Any, Report], Any]
"""Does one task."""

ATTEMPTS = 3
"""How often a task is begun whose workers die."""


@dataclass(frozen=True)
class TaskResult:
    """What became of a task."""

    index: int
    """Its place among the tasks."""
    result: Any = None
    problem: str = ""
    """Why there is no result, in one line."""


def one_line(error: BaseException) -> str:
    """An unexpected error, for people."""
    return f"{type(error).__name__} {' '.join(str(error).split())[:300]}"
