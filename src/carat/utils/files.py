"""Atomic writes: a file appears under its name when it is complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written."""


def unfinished_name(name: str) -> str:
    """The name under which a file is written before it gets its own.

    >>> unfinished_name("run.json")
    '.run.json.unfinished'
    """
    return f".{name}{UNFINISHED}"


def finished_name(name: str) -> str:
    """Inverse of `unfinished_name`; other names are returned unchanged.

    >>> finished_name(".run.json.unfinished"), finished_name("run.json")
    ('run.json', 'run.json')
    """
    if name.startswith(".") and name.endswith(UNFINISHED):
        return name[1 : -len(UNFINISHED)]
    return name


@contextmanager
def name_file(file: Path) -> Iterator[None]:
    """Add the name of a file to errors of the operating system inside the block that have none."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(file)) from error


@contextmanager
def create_file(file: Path) -> Iterator[BinaryIO]:
    """Create a file that does not exist, never through a link (context manager).

    Raises:
        OSError: the file exists, or cannot be written; it names the file.
    """
    with name_file(file):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(handle)


@contextmanager
def write_file(file: Path) -> Iterator[BinaryIO]:
    """Write a file atomically (context manager): if the block raises, the old content remains.

    Links are never followed: one in place of the file is replaced by the file.

    Args:
        file: file to write; missing parent folders are created.

    Raises:
        OSError: the file cannot be written; it names the file.
    """
    temporary = file.with_name(unfinished_name(file.name))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.unlink(missing_ok=True)  # left by a killed process
        with create_file(temporary) as opened:
            yield opened
        temporary.replace(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # frees space on a full disk
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


def replace_file(file: Path, *parts: bytes | memoryview) -> None:
    """Write a file atomically: after a crash or a power loss it has either its old or its new content.

    Args:
        file: file to write; missing parent folders are created.
        parts: content, written one after another.

    Raises:
        OSError: the file cannot be written; the old content remains.
    """
    with write_file(file) as opened:
        for part in parts:
            opened.write(part)


def write_atomically(file: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, see `replace_file`."""
    replace_file(file, text.encode())


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_atomically(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Write the entries of a folder to disk, so that renamed files survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
