"""Word vectors, from an `.npz` file or a GloVe or word2vec text file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.recipes.sources.arrays import ArraySource
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

MAX_LINE = 1 << 20
"""Maximum length of a line with a word and its vector, in characters."""
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")


def tokenize(text: str) -> list[str]:
    """Split a text into lowercase words, numbers and punctuation, with clitics as in GloVe's vocabulary.

    >>> tokenize("I don't KNOW, it's 5!")
    ['i', 'do', "n't", 'know', ',', 'it', "'s", '5', '!']
    """
    tokens = []
    for token in TOKEN.findall(text.lower().replace("’", "'")):
        if token.endswith("n't") and len(token) > 3:
            tokens += [token[:-3], "n't"]
        elif "'" in token[1:]:
            word, clitic = token.split("'", 1)
            tokens += [word, "'" + clitic]
        else:
            tokens.append(token)
    return tokens


class GloveSource:
    """Look up the word vectors of texts. Tokens without a vector are zeros, so that positions are kept.

    Args:
        file: `.npz` file with the arrays `words` (V,) and `vectors` (V, d), or a text file with a word and
            its vector on each line.

    Raises:
        DataError: the file cannot be read or has another format.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        self.id = f"glove:{hash_file(file).sha256[:12]}"
        if file.suffix == ".npz":
            arrays = ArraySource(file, values="vectors", keys="words")
            self._index, self._vectors = arrays.index.positions, np.asarray(arrays.values)
        else:
            try:
                self._index, self._vectors = _read_text(file)
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 text ({error.reason})") from error
        if self._vectors.ndim != 2:
            raise DataError(f"{file}: expected vectors (V, d), found {self._vectors.shape}")
        self._width = self._vectors.shape[1]
        self._tokens = self._unknown = 0

    def read(self, texts: Sequence[str]) -> list[NDArray[Any] | None]:
        """Return word vectors (T, d) for each text."""
        return [self._read_one(text) for text in texts]

    def report(self) -> list[str]:
        """Count the tokens without a vector."""
        share = self._unknown / max(self._tokens, 1)
        return [f"{self._unknown} of {self._tokens} tokens ({share:.0%}) have no vector and became zeros"]

    def _read_one(self, text: str) -> NDArray[Any]:
        tokens = tokenize(text)
        features = np.zeros((len(tokens), self._width), dtype=np.float32)
        self._tokens += len(tokens)
        for i, token in enumerate(tokens):
            if token in self._index:
                features[i] = self._vectors[self._index[token]]
            else:
                self._unknown += 1
        return features


def _read_text(file: Path) -> tuple[dict[str, int], NDArray[np.float32]]:
    words: dict[str, int] = {}
    vectors: list[NDArray[np.float32]] = []
    width = None
    with file.open(encoding="utf-8") as opened:
        for number, line in enumerate(iter(lambda: opened.readline(MAX_LINE + 1), ""), start=1):
            if len(line) > MAX_LINE:
                raise DataError(f"{file}, line {number}: longer than {MAX_LINE} characters")
            word, *cells = line.rstrip().split(" ")
            if number == 1 and len(cells) == 1 and word.isdecimal() and cells[0].isdecimal():
                width = int(cells[0])  # header of the word2vec format: number of words and their width
                continue
            width = width or len(cells)
            if len(cells) > width:  # a few words in the published files contain spaces
                word, cells = " ".join([word, *cells[:-width]]), cells[-width:]
            try:
                vector = np.array(cells, dtype=np.float32)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: expected a word and a vector of numbers") from error
            if not width:
                raise DataError(f"{file}, line {number}: expected a word and its vector, separated by spaces")
            if len(vector) != width:
                raise DataError(f"{file}, line {number}: {len(vector)} numbers, expected {width}")
            words.setdefault(word, len(vectors))
            vectors.append(vector)
    if not vectors:
        raise DataError(f"{file}: contains no word vectors")
    return words, np.stack(vectors)
