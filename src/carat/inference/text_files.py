"""Files of texts that a user wants scored."""

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
    """One text and what it is called."""

    id: str
    text: str
    conversation: str = ""
    """Name of its conversation; none where it stands alone."""
    order: float = 0.0
    """By which it follows others of its conversation."""

    @property
    def has_words(self) -> bool:
        """Whether there is anything to score."""
        return bool(self.text.strip())


class Columns(NamedTuple):
    """Where a file holds what belongs to a text: columns of a table, or keys of objects."""

    text: str
    conversation: str | None = None
    """What names the text's; it stands alone where that is missing or empty."""
    order: str | None = None
    """Numbers by which those of a conversation follow one another."""


def read_texts(file: Path, columns: Columns) -> Iterator[Text]:
    """Texts of a file, empty ones too: lines of `.txt`, rows of `.csv` or `.tsv`, objects of `.jsonl`.

    Ids are those of a column or key `id` where there is one, else the numbers of lines or rows from 1.

    Args:
        file: UTF-8.
        columns: see there.

    Raises:
        DataError: unknown ending, it cannot be read, a column is missing, or no text has any words; names the
            line.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(READERS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            words = False
            for found in READERS[file.suffix](opened, file, columns):
                words |= found.has_words
                yield found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not words:
        raise DataError(f"{file}: no texts, or nothing but empty ones")


def _lines(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    for wanted in (columns.conversation, columns.order):
        if wanted is not None:
            raise DataError(f"{file}: lines have no column '{wanted}'; a .csv, .tsv or .jsonl has")
    for number, line in enumerate(opened, start=1):
        yield Text(str(number), line.strip())


def _rows(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    rows = csv.DictReader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
    has = list(rows.fieldnames or [])
    for option, wanted in zip(OPTIONS, columns, strict=True):
        if wanted is not None and wanted not in has:
            hint = did_you_mean(wanted, has) or f"; it has: {', '.join(has)}"
            raise DataError(f"{file}: no column '{wanted}'{hint}; {option} names another")
    for number, row in enumerate(rows, start=1):
        named = row[columns.conversation] or "" if columns.conversation is not None else ""
        place = 0.0 if columns.order is None else _number(row[columns.order], file, f"data row {number}")
        yield Text(row.get("id") or str(number), row[columns.text] or "", named, place)


def _number(written: Any, file: Path, where: str) -> float:
    with contextlib.suppress(TypeError, ValueError):
        if math.isfinite(number := float(written)):
            return number
    raise DataError(f"{file}, {where}: '{'' if written is None else written}' is no number to order by")


def _objects(opened: Any, file: Path, columns: Columns) -> Iterator[Text]:
    named = columns.conversation is None
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from error
        text = found.get(columns.text, 0) if isinstance(found, dict) else 0
        text = "" if text is None else text
        if not isinstance(text, str):
            raise DataError(
                f"{file}, line {number}: no text under '{columns.text}'; --column names another key"
            )
        name = None if columns.conversation is None else found.get(columns.conversation)
        named |= name is not None
        place = 0.0 if columns.order is None else _number(found.get(columns.order), file, f"line {number}")
        yield Text(str(found.get("id", number)), text, "" if name is None else str(name), place)
    if not named:
        raise DataError(f"{file}: no line has '{columns.conversation}'; --conversation names another key")


OPTIONS = ("--column", "--conversation", "--order")
"""Of the command line, that name `Columns`."""


READERS = {".txt": _lines, ".csv": _rows, ".tsv": _rows, ".jsonl": _objects}
