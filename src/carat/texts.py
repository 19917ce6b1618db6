"""Texts of a user's own: read from files, turned into a run's tokens, and taken apart word by word."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carat.context import Context, ContextTokenizer, own_steps
from carat.encoder_configs import ENCODERS
from carat.errors import DataError, RunError, did_you_mean
from carat.run import RunCard

WORD = re.compile(r"\S*\w\S*")
LEAST = 0.005
"""How far a score must fall without a word that carried it."""


class Text(NamedTuple):
    """One text and what it is called."""

    id: str
    text: str
    conversation: str = ""
    """Name of its conversation; none where it stands alone."""


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
        self.context = tokens.context
        """Tokens on either side that are read along."""
        self.cut = 0
        """Texts so far that have as many of their own, or more."""
        self._folder = folder
        self._tokenizer = ContextTokenizer(folder / ENCODERS / self.modality, tokens.longest, tokens.context)

    def contexts(
        self, texts: Sequence[str] | str, conversations: Sequence[Hashable] | None = None
    ) -> list[Context]:
        """The context of each text.

        Args:
            texts: those of a conversation in the order in which they were said.
            conversations: a name of each text's; all are one by default.

        Raises:
            RunError: the run reads every text by itself.
            DataError: not as many names as texts.
        """
        self._check_context()
        texts = [texts] if isinstance(texts, str) else texts
        return self._tokenizer.contexts(texts, [0] * len(texts) if conversations is None else conversations)

    def read(
        self, texts: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[NDArray[np.int32]]:
        """Tokens of each text, special ones included, as a store of the run has them.

        Raises:
            DataError: not as many contexts as texts.
        """
        found = [steps[: self.longest] for steps in self._tokenizer.read(texts, contexts)]
        self.cut += sum(len(own_steps(steps)) == self.longest for steps in found)
        return found

    def check(self, texts: Sequence[str], contexts: Sequence[Context]) -> None:
        """Refuse contexts of other texts, or where none are read.

        Raises:
            DataError: not as many contexts as texts.
            RunError: the run reads every text by itself.
        """
        self._check_context()
        if len(contexts) != len(texts):
            raise DataError(f"{len(texts)} texts, but the contexts of {len(contexts)}")

    def _check_context(self) -> None:
        if not self.context:
            raise RunError(
                f"{self._folder}: it reads every text by itself; that needs a store whose recipe sets context"
            )

    def spell(self, ids: NDArray[Any]) -> list[str]:
        """What tokens (T,) are called."""
        return self._tokenizer.spell(ids)


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


def carriers(
    whole: Mapping[str, float], parts: Sequence[tuple[str, Mapping[str, float]]], most: int
) -> dict[str, list[str]]:
    """By label, at most so many words that carried it: from a text's scores, and those without each word."""
    words = [word for word, _ in parts]
    return {
        name: strongest(words, score - np.array([rest[name] for _, rest in parts]), most)
        for name, score in whole.items()
        if words
    }


def check_texts(texts: Sequence[str], words: int) -> None:
    """Refuse what cannot be scored, or not taken apart into so many words.

    Raises:
        DataError: a text is empty, or there are fewer than no words.
    """
    if words < 0:
        raise DataError(f"words is {words}, but is to be 0 or more")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {i + 1} of {len(texts)}: no words")


def read_texts(file: Path, column: str, conversation: str | None = None) -> Iterator[Text]:
    """Texts of a file: lines of `.txt`, rows of `.csv` or `.tsv`, objects of `.jsonl`.

    Ids are those of a column or key `id` where there is one, else the numbers of lines or rows from 1. Empty
    texts are passed over.

    Args:
        file: UTF-8.
        column: of the text, in a table or in objects.
        conversation: column or key that names the text's.

    Raises:
        DataError: unknown ending, it cannot be read, or a column is missing; names the line.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(READERS)}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for found in READERS[file.suffix](opened, file, column, conversation):
                if found.text.strip():
                    yield found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _lines(opened: Any, file: Path, column: str, conversation: str | None) -> Iterator[Text]:
    if conversation is not None:
        raise DataError(f"{file}: lines have no column '{conversation}'; a .csv, .tsv or .jsonl has")
    for number, line in enumerate(opened, start=1):
        yield Text(str(number), line.strip())


def _rows(opened: Any, file: Path, column: str, conversation: str | None) -> Iterator[Text]:
    rows = csv.DictReader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
    columns = list(rows.fieldnames or [])
    for option, wanted in (("--column", column), ("--conversation", conversation)):
        if wanted is not None and wanted not in columns:
            hint = did_you_mean(wanted, columns) or f"; it has: {', '.join(columns)}"
            raise DataError(f"{file}: no column '{wanted}'{hint}; {option} names another")
    for number, row in enumerate(rows, start=1):
        named = row[conversation] or "" if conversation is not None else ""
        yield Text(row.get("id") or str(number), row[column] or "", named)


def _objects(opened: Any, file: Path, column: str, conversation: str | None) -> Iterator[Text]:
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
        if conversation is not None and conversation not in found:
            raise DataError(f"{file}, line {number}: no '{conversation}'; --conversation names another key")
        name = found[conversation] if conversation is not None else None
        yield Text(str(found.get("id", number)), text, "" if name is None else str(name))


READERS = {".txt": _lines, ".csv": _rows, ".tsv": _rows, ".jsonl": _objects}
