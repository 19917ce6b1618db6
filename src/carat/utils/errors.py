"""Exceptions with one-line messages, which the command line prints without a traceback."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class CaratError(Exception):
    """Base class: invalid input, configuration or environment. The command line exits with code 2.

    Its text is one line without control characters, whatever a name from a file has.
    """

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class ConfigError(CaratError):
    """Invalid experiment, recipe or command."""


class DataError(CaratError):
    """Invalid table, feature file or store."""


class RunError(CaratError):
    """A run folder cannot be written, read or used with the given data."""


class ExportError(CaratError):
    """A run cannot be exported, or the exported file computes other scores."""


class StoppedError(CaratError):
    """A training was stopped before its end."""


class Interrupted(BaseException):
    """Interrupted by a signal; the work can be resumed. The command line exits with code 128 + `number`."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a hint to append to an error about an unknown word; empty if no choice is similar.

    >>> did_you_mean("epochz", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    >>> did_you_mean("x", ["epochs"])
    ''
    """
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated: Python's own error, or PyTorch's on the CPU or a GPU."""
    in_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    )
    return isinstance(error, MemoryError) or in_torch


MAX_MESSAGE = 300
"""Length in characters beyond which messages are shortened."""


JOINERS = (chr(0x200C), chr(0x200D))
"""Invisible characters of ordinary text, which join letters and emoji or keep them apart."""


def printable(text: str) -> str:
    """Replace characters that are not printable, such as line breaks and escape sequences, by question marks.

    Other spaces are kept, such as the no-break space, and so are `JOINERS`.

    >>> printable("a\\x1b[31mb")
    'a?[31mb'
    """
    return "".join(
        c if c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs" else "?" for c in text
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type, without control characters.

    >>> first_line(ValueError("no\\nnumber")), first_line(MemoryError())
    ('no', 'MemoryError')
    """
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def shorten(message: str, limit: int = MAX_MESSAGE) -> str:
    """Cut out the middle of a message that is longer than the limit.

    >>> shorten("abcdefghij", 7)
    'abc…hij'
    """
    if len(message) <= limit:
        return message
    head = limit // 2
    return f"{message[:head]}…{message[len(message) - (limit - head - 1) :]}"
