"""Start and termination of child processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    process.start()
    child_end.close()
    return Child(process, own_end)


def end_children(children: Sequence[Child], patience: float = 0.0) -> None:
    """Wait for each child up to `patience` seconds, then kill it."""
    for child in children:
        child.process.join(patience)
        if child.process.exitcode is None:
            child.process.kill()
            child.process.join()


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

    The child leaves the process group of the terminal, whose signals then reach only the parent.

    Args:
        quiet: discard progress and warnings.
    """
    os.setpgrp()
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
