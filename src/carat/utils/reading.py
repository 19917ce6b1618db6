"""Bounded reading of files from outside: regular files only, with limits of size and depth."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from carat.utils.errors import CaratError, DataError

MAX_TEXT = 64 << 20
"""Default limit in bytes of files that are read whole, such as JSON and YAML."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
"""Descriptions of what is not a regular file, by type."""


@contextmanager
def open_file(file: Path, error: type[CaratError] = DataError) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without ever waiting for a pipe or a device (context manager).

    Args:
        file: file to read; symbolic links are followed.
        error: exception for a file that cannot be opened.

    Raises:
        CaratError: `error`; the file does not exist, is not a regular file, or cannot be opened.
    """
    check_regular(file, error)  # before opening: opening some devices has effects
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as problem:
        raise error(f"{file}: cannot be read ({_reason(problem)})") from problem
    with os.fdopen(handle, "rb") as opened:
        if not stat.S_ISREG(os.fstat(handle).st_mode):  # replaced in between
            raise error(f"{file}: is not a regular file")
        yield opened


def check_regular(file: Path, error: type[CaratError] = DataError) -> None:
    """Check that a path is a regular file, or a link to one.

    Raises:
        CaratError: `error`; it does not exist, or is a folder, a named pipe, a device or a socket.
    """
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise error(f"{file}: no such file") from problem
    except (OSError, ValueError) as problem:
        raise error(f"{file}: cannot be read ({_reason(problem)})") from problem
    if not stat.S_ISREG(mode):
        raise error(f"{file}: is {KINDS.get(stat.S_IFMT(mode), 'something else')}, expected a file")


PLACEHOLDERS = {
    r"version https://git-lfs\.github\.com/spec/": "a Git LFS pointer, not the file itself: run git lfs pull",
    r"(\.\./)*(\.git)?/annex/objects/": "a git-annex pointer, not the file itself: run git annex get",
    r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+)?html\b": "a web page, not the file: download it again",
    r"<\?xml[^>]*>\s*<Error>": "the error message of a server, not the file: download it again",
    r"%PDF-": "a PDF document",
}
"""Patterns at the beginning of what is saved in place of a file, and descriptions."""


def check_content(file: Path, error: type[CaratError] = DataError) -> None:
    """Check that a file is not a Git LFS pointer or a web page that was saved in its place.

    Args:
        file: regular file of any format except HTML.
        error: exception for such a file.

    Raises:
        CaratError: `error`; it is, or it cannot be opened, see `open_file`.
    """
    with open_file(file, error) as opened:
        try:
            head = opened.read(4096).decode("latin-1")
        except OSError as problem:
            raise error(f"{file}: cannot be read ({_reason(problem)})") from problem
    head = head.removeprefix("\xef\xbb\xbf").lstrip()
    for pattern, description in PLACEHOLDERS.items():
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise error(f"{file}: is {description}")


def read_bytes(file: Path, error: type[CaratError] = DataError, limit: int = MAX_TEXT) -> bytes:
    """Read a whole file.

    Args:
        file: regular file.
        error: exception for a file that cannot be read.
        limit: maximum size in bytes.

    Raises:
        CaratError: `error`; see `open_file`, or the file is larger than the limit.
    """
    with open_file(file, error) as opened:
        try:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(min(limit, max(size, 1 << 16)) + 1)  # `read` allocates what it is asked for
        except OSError as problem:
            raise error(f"{file}: cannot be read ({_reason(problem)})") from problem
    if len(content) > limit:
        raise error(f"{file}: is larger than {limit >> 20} MB, which is the limit for a file of its kind")
    return content


def hash_file(file: Path, error: type[CaratError] = DataError) -> str:
    """Compute the SHA-256 of a file; see `open_file`."""
    with open_file(file, error) as opened:
        try:
            return hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]  # a reader fits
        except OSError as problem:
            raise error(f"{file}: cannot be read ({_reason(problem)})") from problem


def hash_unchanged(file: Path) -> str:
    """Compute the SHA-256 of a file once in a process, as long as its time and size stay the same.

    Raises:
        DataError: see `open_file`.
    """
    check_regular(file)
    state = file.stat()
    return _hash_of(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1 << 16)
def _hash_of(file: Path, modified: int, size: int) -> str:
    return hash_file(file)


def read_text(file: Path, error: type[CaratError] = DataError, limit: int = MAX_TEXT) -> str:
    """Read a whole UTF-8 file, with or without byte order mark; see `read_bytes`."""
    try:
        return read_bytes(file, error, limit).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{file}: is not UTF-8 text ({_reason(problem)})") from problem


def read_json(file: Path, error: type[CaratError] = DataError, limit: int = MAX_TEXT) -> Any:
    """Read a JSON file; duplicate keys are refused. See `read_bytes` and `parse_json`."""
    return parse_json(read_text(file, error, limit), str(file), error, unique_keys=True)


def parse_json(
    text: str, origin: str, error: type[CaratError] = DataError, *, unique_keys: bool = False
) -> Any:
    """Parse JSON text.

    Args:
        text: JSON.
        origin: file, or file and line, for messages.
        error: exception for invalid text.
        unique_keys: refuse an object that has a key twice, of which Python would keep the last.

    Raises:
        CaratError: `error`; not valid JSON, nested too deeply, or characters that are half of a pair.

    >>> parse_json('{"a": [1]}', "file.json")
    {'a': [1]}
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
        if "\\ud" in text or "\\uD" in text:  # an escape may be half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as problem:
        raise error(f"{origin}: not valid JSON (nested too deeply)") from problem
    except UnicodeEncodeError as problem:
        raise error(f"{origin}: not valid JSON (half of a surrogate pair)") from problem
    except ValueError as problem:
        raise error(f"{origin}: not valid JSON ({_reason(problem)})") from problem
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key '{next(key for key in keys if keys.count(key) > 1)}'")
    return values


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
