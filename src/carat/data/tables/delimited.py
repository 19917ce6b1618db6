"""Rows of delimited text, such as CSV and TSV, each of them checked before any is used."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from carat.data.tables.content import TextContent
from carat.data.tables.format import SEPARATORS, TableFormat
from carat.data.tables.quoting import PROFILE_ROWS, RowShape
from carat.utils.errors import DataError, printable, shorten

NO_QUOTE = "none"
MAX_COLUMNS = 50_000
"""Maximum number of cells in a row."""
SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Separators by file extension."""


class Row(NamedTuple):
    """A row of a table."""

    line: int
    """Number of its first line in the file."""
    lines: int
    """Number of lines that it spans."""
    cells: list[str]


class _MalformedError(Exception):
    """A line that contradicts the rules of the table."""

    def __init__(self, line: int, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.line, self.problem, self.remedy = line, problem, remedy


class Delimited:
    """The rows of a delimited text file. Its structure is checked as a whole when it is opened.

    Empty lines are skipped. A cell in quotes may span lines, unless these lines look like rows: a quotation
    mark that is only a character of the text would swallow them.

    Args:
        file: text file, plain or compressed.
        format: how the table is written; what is not set is detected.

    Raises:
        DataError: the file is not text, has no header, has a name twice, or a row is malformed.
    """

    def __init__(self, file: Path, format: TableFormat) -> None:
        self.file = file
        self._content = TextContent(file, format.encoding)
        self.notes = list(self._content.notes)
        """What was detected, for the user."""
        self._format = format
        first = self._first_line()
        self._skipped = 0
        self.separator = format.separator or self._detect_separator(first)
        self.quote = NO_QUOTE if format.quote == NO_QUOTE else format.quote or '"'
        if format.quote is None and self._content.has_quotes:
            self._detect_quote()
        self.names = self._read_names()
        """Column names."""

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows.

        Raises:
            DataError: a row is malformed.
        """
        try:
            with closing(self._rows(self.quote)) as rows:
                yield from islice(rows, 1 if self._format.header else 0, None)
        except _MalformedError as error:
            raise self._error(error) from error

    def _first_line(self) -> str:
        with closing(self._content.lines()) as content:
            first = next((line for line in content if line.strip()), None)
        if first is None:
            raise DataError(f"{self.file}: the table is empty")
        return first

    def _detect_separator(self, first: str) -> str:
        first = first.rstrip("\r\n")
        if first.lower().startswith("sep=") and len(first) == 5:  # written by Excel
            self._skipped = 1
            return first[-1]
        suffixes = [x.lower() for x in self.file.suffixes]
        usual = next((SEPARATOR_OF[x] for x in reversed(suffixes) if x in SEPARATOR_OF), None)
        if usual is not None and usual in first:
            return usual
        found = [x for x in SEPARATORS if x in first]
        if not found:
            return usual or ","
        if usual is not None:
            self.notes.append(
                f"{self.file.name}: cells are separated by {SEPARATORS[found[0]]}s, which was detected; to "
                "change that, set separator (--separator)"
            )
        return found[0]

    def _detect_quote(self) -> None:
        """Check all rows, and decide whether quotes are ordinary characters."""
        problem = self._find_problem('"')
        if problem is None:
            return
        self.quote = NO_QUOTE
        if self._find_problem(NO_QUOTE) is not None:
            raise self._error(problem) from problem
        if self.separator != "\t":
            problem.remedy = "if quotes are ordinary characters in this file, set quote: none (--quote none)"
            raise self._error(problem) from problem
        self.notes.append(
            f"{self.file.name}, line {problem.line}: {problem.problem}, so quotes are read as ordinary "
            "characters; to change that, set quote (--quote)"
        )

    def _find_problem(self, quote: str) -> _MalformedError | None:
        """Find a row with another number of cells, or one that swallows others."""
        try:
            self._check(quote)
        except _MalformedError as problem:
            return problem
        return None

    def _check(self, quote: str) -> None:
        shape, spans_lines = RowShape(self.separator, quote), False
        with closing(self._rows(quote)) as rows:
            for number, row in enumerate(rows):
                if row.lines > 1:
                    spans_lines = True
                elif number <= PROFILE_ROWS and (number or not self._format.header):
                    shape.learn(row.cells)
        if not spans_lines:
            return
        with closing(self._content.lines()) as content, closing(self._rows(quote)) as rows:
            read = 0
            for row in rows:
                skipped = row.line - 1 - read
                spanned = list(islice(content, skipped, skipped + row.lines))
                read = row.line - 1 + row.lines
                if (found := shape.find(row.cells, spanned)) is not None:
                    raise _MalformedError(
                        row.line,
                        f"a quote opens a cell that runs to line {row.line + row.lines - 1}, but line "
                        f"{row.line + found} looks like a row of its own",
                        f"close the quote, or set quote: '{quote}' if the text really spans these lines",
                    )

    def _describe_width(self, number: int, row: Row, width: int) -> str:
        cells = f"{len(row.cells)} cell{'s' if len(row.cells) != 1 else ''}"
        if not self._format.header:
            expected = "`columns` names" if self._format.columns else "the first row has"
            return f"data row {number + 1} has {cells}, but {expected} {width}"
        return f"data row {number} has {cells}, but the header has {width}"

    def _rows(self, quote: str) -> Generator[Row, None, None]:
        """Yield the rows, the header included; all have the same number of cells."""
        with closing(self._content.lines()) as content:
            reader = csv.reader(
                islice(content, self._skipped, None),
                delimiter=self.separator,
                quotechar=None if quote == NO_QUOTE else quote,
                quoting=csv.QUOTE_NONE if quote == NO_QUOTE else csv.QUOTE_MINIMAL,
                strict=True,
            )
            width, number, done = len(self._format.columns or ()), 0, 0
            try:
                for cells in reader:
                    if cells:
                        row = Row(self._skipped + done + 1, reader.line_num - done, cells)
                        width = width or len(cells)
                        if width > MAX_COLUMNS:
                            raise _MalformedError(
                                row.line, f"more than {MAX_COLUMNS} cells, which is refused"
                            )
                        if len(cells) != width:
                            raise _MalformedError(row.line, self._describe_width(number, row, width))
                        yield row
                        number += 1
                    done = reader.line_num
            except csv.Error as error:
                problem = _explain(error, self._skipped + reader.line_num)
                raise _MalformedError(self._skipped + done + 1, problem) from error

    def _read_names(self) -> list[str]:
        try:
            with closing(self._rows(self.quote)) as rows:
                first = next(rows).cells
        except _MalformedError as error:
            raise self._error(error) from error
        if not self._format.header:
            return list(self._format.columns or map(str, range(len(first))))
        places: dict[str, int] = {}
        for place, name in enumerate(map(str.strip, first), start=1):
            if places.setdefault(name, place) != place and name:
                raise DataError(
                    f"{self.file}: columns {places[name]} and {place} are both named "
                    f"'{printable(shorten(name, 60))}'; rename one of them"
                )
        return first

    def _error(self, error: _MalformedError) -> DataError:
        remedy = f"; {error.remedy}" if error.remedy else ""
        return DataError(f"{self.file}, line {error.line}: {shorten(error.problem, 200)}{remedy}")


def _explain(error: csv.Error, last_line: int) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "a quote opens a cell and is never closed"
    if "expected after" in message:
        return f"a quoted cell goes on after its closing quote in line {last_line}"
    if "field limit" in message:
        return f"a cell is longer than {csv.field_size_limit()} characters; is a quote not closed?"
    return message
