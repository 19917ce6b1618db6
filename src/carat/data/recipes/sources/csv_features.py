"""CSV files of features, one step per row, as openSMILE and OpenFace write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.utils.errors import DataError, did_you_mean, printable
from carat.utils.reading import read_text

MAX_CSV = 1 << 30
"""Limit in bytes of a file."""
NOT_FEATURES = frozenset(
    ("name", "file", "filename", "frame", "frameindex", "frametime", "time", "start", "end", "face_id",
     "timestamp", "confidence", "success", "", "index", "unnamed: 0")
)  # fmt: skip
"""Columns of openSMILE, OpenFace and pandas that are no features and left out: names, times, detection,
numbers of rows."""
MISSING = re.compile(r"-?(nan|inf)(\([a-z]*\))?|n/?a|--undefined--|", re.IGNORECASE)
"""Cells without a number, as C libraries, R and Praat print them: `nan`, `-nan(ind)`, `inf`, `NA`,
`--undefined--`; or empty."""
DECIMAL_COMMA = re.compile(r"-?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class CsvFeatures:
    """The features of a CSV file."""

    names: list[str]
    """Names of the d columns; empty if the file has a header only."""
    values: NDArray[np.float32]
    """(T, d)."""
    keys: list[str]
    """Key of each row, if there is a column of keys."""


def read_csv(file: Path, columns: Sequence[str] | None = None, key: str | None = None) -> CsvFeatures:
    """Read a CSV file of features with a header, separated by `,`, `;` or tabs.

    Args:
        file: CSV file.
        columns: names or patterns (`AU*_r`) of the columns to read, in this order; defaults to all numeric
            columns except for `NOT_FEATURES`.
        key: column with the key of each row.

    Raises:
        DataError: not a table of numbers, a column is missing, or only part of a column is numbers.
    """
    header, rows = _read_rows(file)
    if key is not None and key not in header:
        raise DataError(f"{file}: no column '{key}'{did_you_mean(key, header) or _available(header)}")
    names = _choose(file, header, rows, columns, key)
    indices = [header.index(name) for name in names]
    values = np.empty((len(rows), len(indices)), dtype=np.float32)
    for number, row in enumerate(rows, start=1):
        for column, index in enumerate(indices):
            values[number - 1, column] = _number(file, number, names[column], row[index])
    keys = [] if key is None else [row[header.index(key)].strip("'\"") for row in rows]
    return CsvFeatures(names if rows else [], values, keys)


def _read_rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """Read the header and the rows; cells are stripped, as OpenFace writes spaces after its commas."""
    text = read_text(file, limit=MAX_CSV)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read as CSV ({error})") from error
    if len(lines) < 1:
        raise DataError(f"{file}: is empty")
    header = [cell.strip() for cell in lines[0]]
    if len(set(header)) < len(header):
        duplicate = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{file}: two columns are named '{duplicate}'")
    if all(_is_number(cell) for cell in header):
        raise DataError(f"{file}: has no header; the first line must name the columns")
    for number, row in enumerate(lines[1:], start=1):
        if len(row) != len(header):
            raise DataError(f"{file}: data row {number} has {len(row)} cells, expected {len(header)}")
    return header, [[cell.strip() for cell in row] for row in lines[1:]]


def _choose(
    file: Path, header: list[str], rows: list[list[str]], columns: Sequence[str] | None, key: str | None
) -> list[str]:
    """Names of the columns to read."""
    if columns is None:
        candidates = [
            (name, index)
            for index, name in enumerate(header)
            if name != key and name.casefold() not in NOT_FEATURES
        ]
        chosen = [name for name, index in candidates if _is_numeric(file, name, [row[index] for row in rows])]
        if not chosen:
            raise DataError(f"{file}: no numeric column{_available(header)}")
        return chosen
    chosen = []
    for pattern in columns:
        matching = [name for name in header if fnmatchcase(name, pattern)]
        if not matching:
            raise DataError(
                f"{file}: no column '{pattern}'{did_you_mean(pattern, header) or _available(header)}"
            )
        chosen += [name for name in matching if name not in chosen]
    return chosen


def _number(file: Path, row: int, column: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        if MISSING.fullmatch(cell):
            return float("nan")
    raise DataError(f"{file}: column '{column}', data row {row}: '{cell[:40]}' is not a number")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return MISSING.fullmatch(cell) is not None
    return True


def _is_numeric(file: Path, column: str, cells: Sequence[str]) -> bool:
    """Whether a column has numbers only.

    Raises:
        DataError: it also has other cells, or numbers with a decimal comma.
    """
    others = [number for number, cell in enumerate(cells, start=1) if not _is_number(cell)]
    if not others:
        return True
    cell = cells[others[0] - 1]
    where = f"{file}: column '{printable(column)}', data row {others[0]}: '{printable(cell[:40])}'"
    if DECIMAL_COMMA.fullmatch(cell):
        raise DataError(f"{where} has a decimal comma; save the file with decimal points")
    if any(cell and _is_number(cell) for cell in cells):
        raise DataError(f"{where} is not a number, but other rows have numbers; name the features by columns")
    return False


def _available(header: Sequence[str]) -> str:
    more = f" and {len(header) - 8} more" if len(header) > 8 else ""
    return f"; available: {', '.join(header[:8])}{more}"


def read_keyed_csv(file: Path, key: str, columns: Sequence[str] | None) -> dict[str, NDArray[Any]]:
    """Read a CSV file of the features of many clips by key; rows with the same key are the steps of one.

    Raises:
        DataError: see `read_csv`.
    """
    features = read_csv(file, columns, key)
    steps: dict[str, list[int]] = {}
    for number, name in enumerate(features.keys):
        steps.setdefault(name, []).append(number)
    return {name: features.values[numbers] for name, numbers in steps.items()}
