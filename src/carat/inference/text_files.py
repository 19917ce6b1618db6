"""Reading of text files for prediction: plain text, CSV, TSV and JSON lines."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from carat.data.tables.content import COMPRESSIONS, TextContent
from carat.data.tables.delimited import Delimited
from carat.data.tables.format import TableFormat
from carat.data.tables.json_lines import JsonLines
from carat.utils.errors import DataError, did_you_mean, printable, shorten


class Text(NamedTuple):
    """A text of a file."""

    id: str
    text: str
    conversation: str = ""
    """Name of the conversation; empty for none."""
    order: float = 0.0
    """Sort key within the conversation."""

    @property
    def is_empty(self) -> bool:
        """Whether the text is empty or only whitespace."""
        return not self.text.strip()


class Columns(NamedTuple):
    """Columns of a table, or keys of JSON objects."""

    text: str
    conversation: str | None = None
    """Conversation name; a text without one is read without context."""
    order: str | None = None
    """Number by which the texts of a conversation are sorted."""


COLUMN_OPTIONS = ("--column", "--conversation", "--order")
"""Command-line options for the fields of `Columns`."""
ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")


class TextFile:
    """The texts of a file, also empty ones: lines of `.txt`, rows of `.csv` or `.tsv`, objects of `.jsonl`.

    IDs are those of a column or key `id` if there is one, else the numbers of lines or rows, from 1. Tables
    are read and checked like those of recipes.

    Args:
        file: text file, plain or compressed.
        columns: columns or keys to read.
        format: how the file is written; what is not set is detected.

    Raises:
        DataError: unknown file extension, the file cannot be read, a row is malformed, or a column is
            missing.
    """

    def __init__(self, file: Path, columns: Columns, format: TableFormat | None = None) -> None:
        self.file, self.columns = file, columns
        suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in COMPRESSIONS]
        ending = suffixes[-1] if suffixes else ""
        if ending not in ENDINGS:
            raise DataError(f"{file}: unknown ending '{printable(ending)}'; use {', '.join(ENDINGS)}")
        format = format or TableFormat()
        self._source: TextContent | JsonLines | Delimited
        if ending == ".txt":
            for column in (columns.conversation, columns.order):
                if column is not None:
                    raise DataError(f"{file}: a .txt file has no column '{column}'; use .csv, .tsv or .jsonl")
            self._source = TextContent(file, format.encoding)
        elif ending == ".jsonl":
            self._source = JsonLines(file, format)
        else:
            self._source = Delimited(file, format)
            _check_columns(file, self._source.names, columns)
        self.notes = self._source.notes
        """What was detected, for the user."""

    def __iter__(self) -> Iterator[Text]:
        """Yield the texts.

        Raises:
            DataError: a line is invalid, or all texts are empty.
        """
        if isinstance(self._source, TextContent):
            texts = _read_lines(self._source)
        elif isinstance(self._source, JsonLines):
            texts = _read_objects(self._source, self.columns)
        else:
            texts = _read_rows(self._source, self.columns)
        all_empty = True
        for text in texts:
            all_empty &= text.is_empty
            yield text
        if all_empty:
            raise DataError(f"{self.file}: no texts, or only empty ones")


def read_texts(file: Path, columns: Columns, format: TableFormat | None = None) -> Iterator[Text]:
    """Read the texts of a file; see `TextFile`."""
    yield from TextFile(file, columns, format)


def _check_columns(file: Path, names: list[str], columns: Columns) -> None:
    for option, column in zip(COLUMN_OPTIONS, columns, strict=True):
        if column is not None and column not in names:
            shown = printable(shorten(", ".join(names), 150))
            hint = did_you_mean(column, map(printable, names)) or f"; the columns are: {shown}"
            raise DataError(f"{file}: no column '{column}'{hint}; select another with {option}")


def _read_lines(content: TextContent) -> Iterator[Text]:
    for number, line in enumerate(content.lines(), start=1):
        yield Text(str(number), line.strip())


def _read_rows(table: Delimited, columns: Columns) -> Iterator[Text]:
    place = {name: i for i, name in enumerate(table.names)}
    for number, row in enumerate(table, start=1):
        id = row.cells[place["id"]] if "id" in place else ""
        conversation = "" if columns.conversation is None else row.cells[place[columns.conversation]]
        order = 0.0
        if columns.order is not None:
            order = _parse_order(row.cells[place[columns.order]], f"{table.file}, data row {number}")
        yield Text(id or str(number), row.cells[place[columns.text]], conversation, order)


def _read_objects(lines: JsonLines, columns: Columns) -> Iterator[Text]:
    has_conversation = columns.conversation is None
    for number, content in lines:
        where = f"{lines.file}, line {number}"
        text = content.get(columns.text, 0)
        text = "" if text is None else text
        if not isinstance(text, str):
            raise DataError(f"{where}: no text under key '{columns.text}'; select another with --column")
        conversation = None if columns.conversation is None else content.get(columns.conversation)
        has_conversation |= conversation is not None
        order = 0.0
        if columns.order is not None:
            order = _parse_order(content.get(columns.order), where)
        id = content.get("id")
        yield Text(
            str(number) if id is None or id == "" else str(id),
            text,
            "" if conversation is None else str(conversation),
            order,
        )
    if not has_conversation:
        raise DataError(
            f"{lines.file}: no line has the key '{columns.conversation}'; select another with --conversation"
        )


def _parse_order(value: Any, where: str) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if math.isfinite(number := float(value)):
            return number
    found = printable(shorten("" if value is None else str(value), 60))
    raise DataError(f"{where}: expected a finite number, found '{found}'")
