"""Processes that work for another one."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path

from carat.utils.logging import hide_progress


def exit_with_parent(*, quiet: bool = True) -> None:
    """End this process as soon as the one that started it ends, however it does.

    Signals of the terminal reach the parent alone; a quiet process shows no progress and no warnings.
    """
    os.setpgrp()
    if quiet:
        hide_progress()
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  for good
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
