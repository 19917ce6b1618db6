"""Tables of samples, whose cells are read as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carat.data.tables.delimited import Delimited
from carat.data.tables.format import TableFormat
from carat.data.tables.json_lines import JsonLines, to_cell
from carat.data.tables.parquet import read_parquet
from carat.utils.errors import DataError, did_you_mean, printable, shorten

BOOLEAN = {"true": 1, "false": 0, "yes": 1, "no": 0, "t": 1, "f": 0, "y": 1, "n": 0}
"""Numbers for words, in lower case."""
UNKNOWN = frozenset(
    (
        "",
        "nan",
        "-nan",
        "nan(ind)",
        "-nan(ind)",
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "null",
        "none",
        "?",
        "-",
        "unknown",
    )
)
"""Cells that stand for a missing number, in lower case."""
CHUNK = 1_000_000
"""Cells that are converted at a time."""
MAX_SPARSITY = 50
"""Cells of a table of JSON lines per value that the lines hold, at most."""
JSON_LINES = (".jsonl", ".ndjson")


class Table:
    """A table whose cells are text; `numbers` parses a column.

    Args:
        file: delimited text such as `.csv`, `.tsv` or `.txt`, or JSON lines (`.jsonl`), each plain or
            compressed (`.gz`, `.bz2`, `.zst`), or `.parquet`.
        format: how the table is written; what is not set is detected.

    Raises:
        DataError: the file cannot be read, a row is malformed, or there are no rows.
    """

    def __init__(self, file: Path, format: TableFormat | None = None) -> None:
        self.file = file
        self.notes: list[str] = []
        """What was detected, for the user."""
        self._columns, length = self._read(format or TableFormat())
        if not length:
            raise DataError(f"{file}: the table has no rows")
        self._files = [file]
        self._file_of: NDArray[np.int64] = np.zeros(length, dtype=np.int64)
        self._rows: NDArray[np.int64] = np.arange(length)
        self._lacking: dict[str, Path] = {}
        self._names = [""]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns; of joined tables, those that all of them have."""
        return [name for name in self._columns if name not in self._lacking]

    @property
    def lacking(self) -> Mapping[str, Path]:
        """Columns that only some of the joined tables have, and one of the files without it."""
        return self._lacking

    def where(self, row: int) -> str:
        """Describe a row, counted from 0: its file, and its number in the file, counted from 1."""
        return f"{self._files[self._file_of[row]]}: data row {self._rows[row] + 1}"

    def place(self, row: int) -> str:
        """Describe a row like `where`, with the name of the file only if the table has several."""
        name = f"{self._files[self._file_of[row]].name}: " if len(self._files) > 1 else ""
        return f"{name}data row {self._rows[row] + 1}"

    def select(self, rows: NDArray[np.int64]) -> Table:
        """Return a table of some of the rows."""
        selected = self._copy()
        selected._columns = {name: cells.take(pa.array(rows)) for name, cells in self._columns.items()}
        selected._file_of, selected._rows = self._file_of[rows], self._rows[rows]
        return selected

    def with_column(self, name: str, cells: Sequence[str]) -> Table:
        """Return a table with a further column, or with other cells in an existing one."""
        copy = self._copy()
        copy._columns = {**self._columns, name: pa.chunked_array([pa.array(cells, pa.string())])}
        copy._lacking = {column: file for column, file in self._lacking.items() if column != name}
        return copy

    def filled(self) -> Table:
        """Return a table with every column of the joined tables, empty in the rows of those that lack it."""
        copy = self._copy()
        copy._lacking = {name: file for name, file in self._lacking.items() if name not in self._columns}
        return copy

    @staticmethod
    def join(tables: Mapping[str, Table], column: str) -> Table:
        """Put tables below each other.

        Args:
            tables: tables by name.
            column: column that gets the name of each row's table, unless a table has a column of this name.
        """
        parts = list(tables.values())
        joined = parts[0]._copy()
        names = dict.fromkeys(name for part in parts for name in part._columns)
        joined._lacking = {
            name: part.file for part in reversed(parts) for name in names if name not in part._columns
        }
        joined._columns = {}
        for name in names:
            with suppress(DataError) if name in joined._lacking else nullcontext():
                chunks = [chunk for part in parts for chunk in part._chunks(name)]
                joined._columns[name] = pa.chunked_array(chunks, pa.string())
        joined._names = list(tables)
        joined._files = [part.file for part in parts]
        joined._file_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        joined._rows = np.concatenate([part._rows for part in parts])
        joined.notes = [note for part in parts for note in part.notes]
        if column not in names:
            origin = np.repeat(list(tables), [len(part) for part in parts])
            joined._columns[column] = pa.chunked_array([pa.array(origin.tolist(), pa.string())])
        return joined

    def parts(self) -> list[str]:
        """Return for each row the name of the table from which it was joined (N,)."""
        return [self._names[i] for i in self._file_of]

    def text(self, column: str) -> list[str]:
        """Return a column as text; missing cells are empty.

        Raises:
            DataError: no such column.
        """
        try:
            return [value or "" for value in self._as_text(column).to_pylist()]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.file}: column '{column}' is not text in UTF-8 ({error.reason})"
            ) from error

    def joined_text(self, columns: str | Sequence[str]) -> list[str]:
        """Return one or several columns as text, joined by "/"; rows in which all are empty are empty.

        Raises:
            DataError: no such column.
        """
        if isinstance(columns, str):
            return self.text(columns)
        rows = zip(*map(self.text, columns), strict=True)
        return ["/".join(parts) if any(parts) else "" for parts in rows]

    def numbers(self, column: str) -> list[float]:
        """Return a column as finite numbers; words such as "true" and "no" are 1 and 0.

        Raises:
            DataError: no such column, or a cell is not a finite number.
        """
        numbers: list[float] = self.numbers_or_unknown(column, unknown=()).tolist()
        return numbers

    def numbers_or_unknown(
        self, column: str, unknown: Iterable[str] = UNKNOWN, *, finite: bool = True
    ) -> NDArray[np.float64]:
        """Return a column as numbers (N,), NaN where a cell is a word for an unknown one.

        Args:
            column: name.
            unknown: words for unknown numbers, in lower case.
            finite: refuse infinite numbers.

        Raises:
            DataError: no such column, or a cell is not a number.
        """
        unknown = frozenset(unknown)
        parsed: dict[str, float] = {}
        for row, cell in enumerate(cells := self.text(column)):
            if cell in parsed:
                continue
            number = parse_number(cell, unknown)
            if number is None or (finite and abs(number) == float("inf")):
                file, _, place = self.where(row).rpartition(": ")
                found = printable(shorten(cell, 60))
                raise DataError(f"{file}: column '{column}', {place}: '{found}' is not a finite number")
            parsed[cell] = number
        return np.array([parsed[cell] for cell in cells], dtype=np.float64)

    def _chunks(self, column: str) -> list[pa.Array]:
        """Cells of a column as text, empty if there is no such column."""
        absent = pa.repeat(pa.scalar("", pa.string()), len(self))
        return self._as_text(column).chunks if column in self._columns else [absent]

    def _as_text(self, column: str) -> pa.ChunkedArray:
        if column in self._lacking:
            raise DataError(f"{self._lacking[column]}: no column '{column}', which the other tables have")
        if column not in self._columns:
            names = [printable(name) for name in self.columns]
            hint = did_you_mean(column, names) or f"; available: {shorten(', '.join(names), 150)}"
            raise DataError(f"{self.file}: no column '{column}'{hint}")
        try:
            return self._columns[column].cast(pa.string())
        except (pa.ArrowException, UnicodeDecodeError) as error:
            dtype = self._columns[column].type
            raise DataError(
                f"{self.file}: column '{column}' has type {dtype}, expected text or numbers"
            ) from error

    def _copy(self) -> Table:
        copy = object.__new__(Table)
        copy.__dict__.update(self.__dict__)
        return copy

    def _read(self, format: TableFormat) -> tuple[dict[str, Any], int]:
        """Read the columns by name, and their length."""
        suffixes = [suffix.lower() for suffix in self.file.suffixes]
        if ".parquet" in suffixes[-1:]:
            table = read_parquet(self.file)
            if len(set(table.column_names)) < len(table.column_names):
                raise DataError(f"{self.file}: two columns have the same name; rename one of them")
            return dict(zip(table.column_names, table.columns, strict=True)), len(table)
        if suffixes[-1:] == [".json"]:
            raise DataError(f"{self.file}: is JSON; save it as JSON lines (.jsonl), one object on each line")
        if any(suffix in JSON_LINES for suffix in suffixes[-2:]):
            objects = JsonLines(self.file, format)
            names = self._collect_keys(objects)
            rows: Iterable[Sequence[str]] = (
                [to_cell(content.get(name)) for name in names] for _, content in objects
            )
            self.notes = objects.notes
        else:
            delimited = Delimited(self.file, format)
            names, rows, self.notes = delimited.names, (row.cells for row in delimited), delimited.notes
        return _collect(names, iter(rows))

    def _collect_keys(self, objects: JsonLines) -> list[str]:
        """Return the keys of all objects, in order of appearance."""
        names: dict[str, None] = {}
        lines = values = 0
        for _, content in objects:
            names.update(dict.fromkeys(content))
            lines, values = lines + 1, values + len(content)
            if len(names) * lines > MAX_SPARSITY * values + CHUNK:
                raise DataError(f"{self.file}: lines have different keys, {len(names)} in {lines} lines")
        return list(names)


def parse_number(cell: str, unknown: frozenset[str] = frozenset()) -> float | None:
    """Parse a number, a word for yes or no (1 or 0), or a word for an unknown number (NaN).

    >>> parse_number("1.5"), parse_number("TRUE"), parse_number("n/a", UNKNOWN), parse_number("1_0")
    (1.5, 1.0, nan, None)
    """
    word = cell.strip().casefold()
    if word in unknown:
        return float("nan")
    if word in BOOLEAN:
        return float(BOOLEAN[word])
    try:
        number = float(word) if word.isascii() and "_" not in word else float("nan")
    except ValueError:
        return None
    return None if number != number else number


def _collect(names: Sequence[str], rows: Any) -> tuple[dict[str, Any], int]:
    """Collect rows as columns."""
    chunks: list[list[Any]] = [[] for _ in names]
    length = 0
    while block := list(islice(rows, max(CHUNK // max(len(names), 1), 1))):
        length += len(block)
        for column, cells in zip(chunks, zip(*block, strict=True), strict=True):
            column.append(pa.array(cells, pa.string()))
    columns = {
        name: pa.chunked_array(column, pa.string()) for name, column in zip(names, chunks, strict=True)
    }
    return columns, length
