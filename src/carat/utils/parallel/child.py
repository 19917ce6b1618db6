"""Start and termination of child processes."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from carat.utils.logging import hide_progress


@dataclass(eq=False)
class Child:
    """A child process and the parent's end of the pipe to it."""

    process: SpawnProcess
    pipe: Connection


_alive: list[SpawnProcess] = []
"""Children of this process that were not ended yet."""
os.register_at_fork(after_in_child=_alive.clear)  # they are not the fork's


@atexit.register
def _end_all() -> None:
    """Kill what an error left behind: at exit, `multiprocessing` would wait for it forever."""
    _kill(list(_alive))


def start_child(target: Callable[..., None], *arguments: Any, name: str | None = None) -> Child:
    """Start a fresh Python process that calls `target(*arguments, pipe)`.

    Args:
        target: module-level function, which receives its end of the pipe as the last argument.
        arguments: picklable arguments.
        name: name of the process, for messages.
    """
    context = multiprocessing.get_context("spawn")
    own_end, child_end = context.Pipe()
    process = context.Process(target=target, args=(*arguments, child_end), name=name)
    with _interrupts_blocked():
        process.start()
        _alive.append(process)
    child_end.close()
    return Child(process, own_end)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C; a child started inside inherits this, so that it is not interrupted while it starts."""
    _ensure_tracker()  # which unblocks it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ensure_tracker() -> None:
    """Start Python's process that removes what killed processes leave behind, without a warning."""
    variable, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[variable] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def end_children(children: Sequence[Child], patience: float = 0.0) -> None:
    """Wait for children up to `patience` seconds together, then kill them, also if this is interrupted."""
    deadline = time.monotonic() + patience
    try:
        for child in children:
            child.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        _kill([child.process for child in children])


def _kill(processes: Sequence[SpawnProcess]) -> None:
    """Kill children and the processes that they forked, such as workers of a data loader."""
    killed = [process for process in processes if process in _alive]
    for process in killed:
        assert process.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # see `exit_with_parent`
        process.kill()  # it may be too young to have its own group
    for process in killed:
        process.join()
        _alive.remove(process)


def describe_exit(code: int | None) -> str:
    """Describe how a process ended, for messages.

    >>> describe_exit(-9), describe_exit(1)
    ('was killed by signal 9', 'ended unexpectedly with exit code 1')
    """
    if code is not None and code < 0:
        return f"was killed by signal {-code}"
    return f"ended unexpectedly with exit code {code}"


def exit_with_parent(*, quiet: bool = True) -> None:
    """Exit this child process when its parent exits for any reason. Called in the child process.

    The child leaves the process group of the terminal, whose signals then reach only the parent, and leads
    its own, so that it can be killed with what it forks.

    Args:
        quiet: discard progress and warnings.
    """
    os.setpgrp()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # discards one of before
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, handler)
    if quiet:
        hide_progress()
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for the process's lifetime
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    """Exit when the parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
