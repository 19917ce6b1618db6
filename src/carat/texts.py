"""Texts of a user's own: read from files, turned into a run's tokens, and taken apart word by word."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carat.encoder_configs import ENCODERS
from carat.errors import DataError, RunError, did_you_mean
from carat.hugging_face import encode, read_tokenizer
from carat.run import RunCard

WORD = re.compile(r"\S*\w\S*")
LEAST = 0.005
"""How far a score must fall without a word that carried it."""


class Text(NamedTuple):
    """One text and what it is called."""

    id: str
    text: str


class Reader:
    """Turns texts into tokens as a run's training store did.

    Args:
        folder: of the run.
        card: of the run.
        longest: tokens that its method can read, by modality; longer texts are cut.

    Raises:
        RunError: the run has no modality of tokens, or more than one.
        DataError: its tokenizer cannot be read.
    """

    def __init__(self, folder: Path, card: RunCard, longest: Mapping[str, int]) -> None:
        found = {m: x.tokens for m, x in card.modalities.items() if x.tokens is not None}
        if len(found) != 1:
            has = "features" if not found else f"the tokens of {' and '.join(found)}"
            raise RunError(
                f"{folder}: it was trained on {has}, so it reads no texts; that needs a store whose recipe "
                f"has one source 'tokens'"
            )
        ((self.modality, tokens),) = found.items()
        self.longest = min(tokens.longest, longest[self.modality])
        """Tokens at which texts are cut."""
        self.cut = 0
        """Texts so far that have as many."""
        self._tokenizer = read_tokenizer(folder / ENCODERS / self.modality, self.longest)

    def read(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """(tokens, 1) of each text, special tokens included."""
        found = encode(self._tokenizer, texts)
        self.cut += sum(len(ids) == self.longest for ids in found)
        return [np.array(ids, dtype=np.int32)[:, None] for ids in found]

    def spell(self, ids: NDArray[Any]) -> list[str]:
        """What tokens (T,) are called."""
        return [self._tokenizer.id_to_token(int(id)) or "?" for id in ids]


def without_each_word(text: str) -> list[tuple[str, str]]:
    """Every word of a text, with the text that is left without it.

    >>> without_each_word("so  glad")
    [('so', 'glad'), ('glad', 'so')]
    """
    found = list(WORD.finditer(text))
    return [(x.group(), f"{text[: x.start()]}{text[x.end() :].lstrip()}".strip()) for x in found]


def strongest(words: Sequence[str], falls: NDArray[Any], most: int) -> list[str]:
    """At most so many words without which a score falls by `LEAST`, the largest fall first.

    Args:
        words: of a text, in order.
        falls: (words,), score of the whole text minus that of the text without the word.
        most: how many.
    """
    order = np.argsort(-falls, kind="stable")[:most]
    return [words[i].strip(".,;:!?\"'()…") for i in order if falls[i] >= LEAST]


def read_texts(file: Path, column: str) -> Iterator[Text]:
    """Texts of a file: lines of `.txt`, rows of `.csv` or `.tsv`, objects of `.jsonl`.

    Ids are those of a column or key `id` where there is one, else the numbers of lines or rows from 1. Empty
    texts are passed over.

    Args:
        file: UTF-8.
        column: of the text, in a table or in objects.

    Raises:
        DataError: unknown ending, it cannot be read, or a column is missing; names the line.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(READERS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for found in READERS[file.suffix](opened, file, column):
                if found.text.strip():
                    yield found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _lines(opened: Any, file: Path, column: str) -> Iterator[Text]:
    for number, line in enumerate(opened, start=1):
        yield Text(str(number), line.strip())


def _rows(opened: Any, file: Path, column: str) -> Iterator[Text]:
    rows = csv.DictReader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
    columns = list(rows.fieldnames or [])
    if column not in columns:
        hint = did_you_mean(column, columns) or f"; it has: {', '.join(columns)}"
        raise DataError(f"{file}: no column '{column}'{hint}; --column names another")
    for number, row in enumerate(rows, start=1):
        yield Text(row.get("id") or str(number), row[column] or "")


def _objects(opened: Any, file: Path, column: str) -> Iterator[Text]:
    for number, line in enumerate(opened, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from error
        text = found.get(column, 0) if isinstance(found, dict) else 0
        text = "" if text is None else text
        if not isinstance(text, str):
            raise DataError(f"{file}, line {number}: no text under '{column}'; --column names another key")
        yield Text(str(found.get("id", number)), text)


READERS = {".txt": _lines, ".csv": _rows, ".tsv": _rows, ".jsonl": _objects}
