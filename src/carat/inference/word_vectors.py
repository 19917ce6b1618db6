"""Word vectors as the text features of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.recipes.sources.glove import GloveSource
from carat.runs.card import RunCard
from carat.utils.errors import RunError

PREFIX = "glove:"
"""Start of the sources of modalities that are word vectors; the rest is a hash of the file."""


def vector_modality(folder: Path, card: RunCard, vectors: Path | None) -> str:
    """Return the modality that consists of word vectors.

    Args:
        folder: folder of the run.
        card: card of the run.
        vectors: file of the vectors.

    Raises:
        RunError: the run has no such modality, or more than one, or the file is not given.
    """
    found = [m for m, modality in card.modalities.items() if modality.source.startswith(PREFIX)]
    if len(found) != 1:
        raise RunError(
            f"{folder}: the run was trained on features, so it cannot read texts; train on a store whose "
            f"recipe has one source 'tokens' or 'glove'"
        )
    if vectors is None:
        raise RunError(
            f"{folder}: {found[0]} are word vectors; name their file to read texts: --vectors FILE, "
            f"carat.load(run, vectors=FILE)"
        )
    return found[0]


class WordVectors:
    """Word vectors of texts, by the file that a run was trained on.

    Args:
        file: file of the vectors, see `GloveSource`.
        source: source of the run's modality, which the file must match.
        max_length: number of words that the model reads.

    Raises:
        DataError: the file cannot be read.
        RunError: it is another file than that of the training.
    """

    def __init__(self, file: Path, source: str, max_length: int) -> None:
        self._source, self._max_length = GloveSource(file), max_length
        if self._source.id != source:
            raise RunError(f"{file}: is {self._source.id}, but the run was trained on {source}")

    def encode(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """Look up word vectors (T, d); a text without words is one unknown word."""
        vectors = [x for x in self._source.read(texts) if x is not None]
        return [x if len(x) else np.zeros((1, x.shape[1]), np.float32) for x in vectors]

    def used_part(self, text: str) -> tuple[str, int]:
        """Return a text, and the end of what the model reads at most, in characters: one token per word."""
        end = position = 0
        for word in islice(text.split(), self._max_length):
            position = text.index(word, position) + len(word)
            end = position
        return text, end
