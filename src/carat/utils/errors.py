"""What carat says when it cannot go on: one clear line, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CaratError(Exception):
    """Input, configuration or environment that carat refuses. The command line exits with code 2."""


class ConfigError(CaratError):
    """An experiment or recipe that cannot be understood."""


class DataError(CaratError):
    """A table, feature file or store that cannot be trusted."""


class RunError(CaratError):
    """A run folder that cannot be written, read or used with the given data."""


class ExportError(CaratError):
    """A run that cannot be written as one file, or whose file gives other numbers."""


class StoppedError(CaratError):
    """A training was told to stop before its end."""


class Interrupted(BaseException):
    """A signal ended the work, which can be gone on with. The command line exits with code 128 + `number`."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A hint to append to an error about an unknown word, or an empty string.

    >>> did_you_mean("epochz", ["epochs", "seed"])
    "; did you mean 'epochs'?"
    >>> did_you_mean("x", ["epochs"])
    ''
    """
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
