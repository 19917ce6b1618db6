"""Types and helpers shared by all pools of workers."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from carat.utils.errors import CaratError

Engine = Literal["local", "ray"]
"""Where workers run: local processes or a Ray cluster."""

Report = Callable[[Any], bool]
"""Sends an intermediate result to the caller; returns whether to stop the task."""

TaskFunction = Callable[[Any, Report], Any]
"""Runs one task."""

Prepare = Callable[..., TaskFunction]
"""Sets up a worker. A module-level function, so that other processes can import it."""

OnReport = Callable[[int, Any], bool]
"""Receives the index of a task and its report; returns whether to stop the task."""

EXHAUSTED = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
}
"""Error numbers of the operating system that do not depend on the task."""

ATTEMPTS = 3
"""Number of attempts if the worker of a task dies."""


def use_one_thread() -> None:
    """Let PyTorch compute with one thread in this process, also if imported later. Called in workers."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task."""

    index: int
    """Index of the task."""
    result: Any = None
    problem: str = ""
    """One-line error message; empty if the task succeeded."""
    environmental: bool = False
    """Whether the task failed for want of room, memory or the like, so that it may succeed later."""
    died: bool = False
    """Whether the task failed because its worker died."""


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str, bool]:
    """Call a function and convert an exception to text, so that other tasks continue.

    Returns:
        The first fields of `TaskResult` after the index: the result, or None with a one-line error message
        and whether the cause is the environment.
    """
    try:
        return function(*arguments), "", False
    except CaratError as error:
        return None, str(error), isinstance(error.__cause__, OSError) and error.__cause__.errno in EXHAUSTED
    except Exception as error:
        return None, one_line(error), isinstance(error, (OSError, MemoryError))


def one_line(error: BaseException) -> str:
    """Format an unexpected exception in one line."""
    return f"{type(error).__name__} {' '.join(str(error).split())[:300]}"
