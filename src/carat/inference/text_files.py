"""Reading of text files for prediction: plain text, CSV, TSV and JSON lines."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from carat.utils.errors import DataError, did_you_mean


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


def read_texts(file: Path, columns: Columns) -> Iterator[Text]:
    """Read texts, including empty ones: lines of `.txt`, rows of `.csv` or `.tsv`, objects of `.jsonl`.

    IDs are those of a column or key `id` if there is one, else the numbers of lines or rows, from 1.

    Args:
        file: UTF-8 file.
        columns: columns or keys to read.

    Raises:
        DataError: unknown file extension, the file cannot be read, a column is missing, or all texts are
            empty.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(READERS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            all_empty = True
            for text in READERS[file.suffix](opened, file, columns):
                all_empty &= text.is_empty
                yield text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if all_empty:
        raise DataError(f"{file}: no texts, or only empty ones")


def _read_lines(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    for column in (columns.conversation, columns.order):
        if column is not None:
            raise DataError(f"{file}: a .txt file has no column '{column}'; use .csv, .tsv or .jsonl")
    for number, line in enumerate(opened, start=1):
        yield Text(str(number), line.strip())


def _read_rows(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    rows = csv.DictReader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
    names = list(rows.fieldnames or [])
    for option, column in zip(COLUMN_OPTIONS, columns, strict=True):
        if column is not None and column not in names:
            hint = did_you_mean(column, names) or f"; the columns are: {', '.join(names)}"
            raise DataError(f"{file}: no column '{column}'{hint}; select another with {option}")
    for number, row in enumerate(rows, start=1):
        conversation = row[columns.conversation] or "" if columns.conversation is not None else ""
        order = 0.0 if columns.order is None else _parse_order(row[columns.order], file, f"data row {number}")
        yield Text(row.get("id") or str(number), row[columns.text] or "", conversation, order)


def _read_objects(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    has_conversation = columns.conversation is None
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from error
        text = content.get(columns.text, 0) if isinstance(content, dict) else 0
        text = "" if text is None else text
        if not isinstance(text, str):
            raise DataError(
                f"{file}, line {number}: no text under key '{columns.text}'; select another with --column"
            )
        conversation = None if columns.conversation is None else content.get(columns.conversation)
        has_conversation |= conversation is not None
        order = 0.0
        if columns.order is not None:
            order = _parse_order(content.get(columns.order), file, f"line {number}")
        yield Text(
            str(content.get("id", number)), text, "" if conversation is None else str(conversation), order
        )
    if not has_conversation:
        raise DataError(
            f"{file}: no line has the key '{columns.conversation}'; select another with --conversation"
        )


def _parse_order(value: Any, file: Path, where: str) -> float:
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(number := float(value)):
            return number
    raise DataError(f"{file}, {where}: expected a finite number, found '{'' if value is None else value}'")


READERS = {".txt": _read_lines, ".csv": _read_rows, ".tsv": _read_rows, ".jsonl": _read_objects}
"""Readers by file extension."""
