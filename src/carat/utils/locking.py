"""Exclusive locks on folders: one process at a time writes into one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from carat.utils.errors import RunError, printable

LOCK = ".lock"
"""Lock file of a folder. Its content names the holder; the lock itself ends with the holder's process."""
NO_LOCK = "is not a lock file of carat; remove it"


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
        opened = _open(folder / LOCK, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder, opened) from error


def _open(file: Path, flags: int) -> IO[str]:
    """Open a lock file, which is never a link, a pipe or a name of another file.

    Raises:
        RunError: it is something else.
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise
        raise RunError(f"{file}: {NO_LOCK}") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise RunError(f"{file}: {NO_LOCK}")
    return os.fdopen(handle, "r+" if flags & os.O_RDWR else "r", encoding="utf-8", errors="replace")


def _acquire(file: Path) -> IO[str]:
    while True:
        opened = _open(file, os.O_RDWR | os.O_CREAT)  # keeps the holder's name
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
    holder = printable(opened.read(200).strip())
    return RunError(f"{folder}: in use by another carat process" + (f" ({holder})" if holder else ""))
