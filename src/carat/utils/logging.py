"""The package's logger: progress and notes on standard error, until the application configures logging."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from carat.utils.errors import printable

logger = logging.getLogger("carat")
"""Library code logs progress with `info` and potential problems with `warning`."""


class StandardError(logging.Handler):
    """Handler that writes to the current `sys.stderr`, which notebooks and tests replace.

    Control characters, which a file may have put into a message, are replaced. A message that cannot be
    written, as on a full disk, is dropped: no work ends for it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.format(record).splitlines() or [""]
        try:
            print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)
        except BrokenPipeError:
            raise
        except OSError:
            drop_output(sys.stderr)


def drop_output(stream: TextIO) -> None:
    """Send the output of a stream that cannot be written to nowhere, what it still holds included."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def show_progress(*, force: bool = False) -> None:
    """Show carat's messages unless the application has configured logging itself. Called on import.

    Args:
        force: show them in any case, as the command line does.
    """
    configured = logger.handlers or logging.getLogger().handlers
    shown = any(isinstance(handler, StandardError) for handler in logger.handlers)
    if not configured or (force and not shown):
        logger.addHandler(StandardError())
        logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def hide_progress() -> None:
    """Hide progress lines and bars; only warnings are shown. Called in worker processes."""
    logger.setLevel(logging.WARNING)
