"""Errors of the API: a status, and one line without paths of the machine."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path

from carat.utils.errors import CaratError, is_out_of_memory, shorten
from carat.utils.logging import logger
from carat.utils.parallel.tasks import EXHAUSTED

ABSOLUTE_PATH = re.compile(r"(?<![\w.~:/-])/(?:[^/\s:'\"]+/)+")
"""Folders of an absolute path."""


class ApiError(CaratError):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        message: one line for the user.
        retry_after: seconds after which the request may be repeated; None if that is useless.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def hide_paths(message: str, names: Mapping[str, str] | None = None) -> str:
    """Replace paths of the machine in a message.

    Args:
        message: message of an error.
        names: what to write in place of known paths.

    >>> hide_paths("/srv/x/a.npz: no /srv/runs/one/run.json", {"/srv/x/a.npz": "upload"})
    'upload: no run.json'
    """
    for path in sorted(names or (), key=len, reverse=True):
        message = message.replace(path, (names or {})[path])
    return shorten(ABSOLUTE_PATH.sub("", message))


def describe_fault(error: Exception) -> tuple[int, str]:
    """Status and message for an unexpected exception, whose own message may quote what a user sent."""
    logger.error(f"serve: unexpected {type(error).__name__} {_place_of(error)}")
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return 503, f"the server has no resources left ({error.strerror}); try again later"
    if is_out_of_memory(error):
        return 503, "out of memory; send less at a time"
    return 500, "internal error; please report this fault of carat"


def _place_of(error: Exception) -> str:
    """File and line where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
