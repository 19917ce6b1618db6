"""The package's logger: progress and notes on standard error, until the application configures logging."""

from __future__ import annotations

import logging
import sys

from carat.utils.errors import printable

logger = logging.getLogger("carat")
"""Library code logs progress with `info` and potential problems with `warning`."""


class StandardError(logging.Handler):
    """Handler that writes to the current `sys.stderr`, which notebooks and tests replace.

    Control characters, which a file may have put into a message, are replaced.
    """

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.format(record).splitlines() or [""]
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)


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
