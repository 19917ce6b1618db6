"""Exclusive locks on folders: one process at a time writes into one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from carat.utils.errors import RunError

LOCK = ".lock"
"""Lock file of a folder. Its content names the holder; the lock itself ends with the holder's process."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside the block.

    Raises:
        RunError: another process holds it.
    """
    file = folder / LOCK
    opened = _acquire(file)
    try:
        yield
    finally:
        if _is_same(file, opened):  # unless another folder was renamed into place
            file.unlink()
        opened.close()


def refuse_locked(folder: Path) -> None:
    """Raise if the lock of a folder is held, without acquiring the lock.

    Raises:
        RunError: a process holds it.
    """
    try:
        opened = (folder / LOCK).open(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder, opened) from error


def _acquire(file: Path) -> IO[str]:
    while True:
        opened = file.open("a+", encoding="utf-8")  # keeps the holder's name
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with opened:
                raise _held(file.parent, opened) from error
        if _is_same(file, opened):
            break
        opened.close()  # its holder removed it between `open` and `flock`
    with contextlib.suppress(OSError):  # the name is for messages; a full disk must not prevent the lock
        os.ftruncate(opened.fileno(), 0)
        os.write(opened.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    return opened


def _is_same(file: Path, opened: IO[str]) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(opened.fileno()))
    except FileNotFoundError:
        return False


def _held(folder: Path, opened: IO[str]) -> RunError:
    opened.seek(0)
    holder = opened.read().strip()
    return RunError(f"{folder}: in use by another carat process" + (f" ({holder})" if holder else ""))
