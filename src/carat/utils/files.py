"""Atomic writes: a file appears under its name when it is complete."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def replace_file(file: Path, *parts: bytes | memoryview) -> None:
    """Write a file atomically: after a crash or a power loss it has either its old or its new content.

    Args:
        file: file to write; missing parent folders are created.
        parts: content, written one after another.

    Raises:
        OSError: the file cannot be written; the old content remains.
    """
    temporary = file.with_name(unfinished_name(file.name))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as opened:
            for part in parts:
                opened.write(part)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # frees space on a full disk
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error


def write_atomically(file: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, see `replace_file`."""
    replace_file(file, text.encode())


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_atomically(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
