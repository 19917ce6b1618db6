"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from carat.utils.errors import RunError

LOCK = ".lock"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, until this one leaves it or dies.

    Raises:
        RunError: another one is at work in it.
    """
    file = folder / LOCK
    opened = _open(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        opened.close()


def _open(file: Path) -> IO[str]:
    while True:
        opened = file.open("w", encoding="utf-8")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            opened.close()
            raise RunError(f"{file.parent}: another carat is at work in it") from error
        if file.exists() and os.path.samestat(file.stat(), os.fstat(opened.fileno())):
            return opened
        opened.close()  # whoever had it removed it in between
