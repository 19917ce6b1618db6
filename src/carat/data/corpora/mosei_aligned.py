"""Reader of word-aligned MOSEI as used by CARAT and TAILOR, `train_valid_test.pt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import length, sequence, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "src-text", "visual": "src-visual", "audio": "src-audio"}
TARGET = "tgt"
BEGIN, END, FIRST_LABEL = 2, 3, 4
"""Tokens of a label list: 2 begins it, 3 ends it, and 4 to 9 are the six labels."""


class AlignedFile:
    """Features (60 time steps; text 300, visual 35, audio 74 wide) and label lists by split.

    Args:
        file: `train_valid_test.pt`, a dict of train, valid and test.

    Raises:
        DataError: the file cannot be read, or splits or entries are missing or invalid.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.splits = open_splits(file, [*FEATURES.values(), TARGET])

    def count(self, split: str) -> int:
        """Return the number of samples of a split."""
        return length(self.splits[split][TARGET], split)

    def features(self, split: str, i: int) -> dict[str, NDArray[Any]]:
        """Return the features of a sample, padded as in the file: (T, d) by modality."""
        return {
            m: sequence(self.splits[split][key][i], f"{self.file}, {split}, {key}, sample {i}")
            for m, key in FEATURES.items()
        }

    def labels(self, split: str, i: int) -> NDArray[np.uint8]:
        """Return the labels of a sample, (6,), 0 or 1."""
        what = f"{self.file}, {split}, {TARGET}, sample {i}"
        tokens = to_array(self.splits[split][TARGET][i], what).reshape(-1)
        if tokens.dtype.kind not in "iuf" or not np.isfinite(tokens).all():
            raise DataError(f"{what}: expected tokens such as [2, 4, 7, 3], found {tokens.dtype}")
        ids = [int(x) for x in tokens]
        if ids[:1] == [BEGIN]:
            ids = ids[1:]
        if END in ids:  # the rest is padding
            ids = ids[: ids.index(END)]
        labels = np.zeros(len(MOSEI), dtype=np.uint8)
        for token in ids:
            if not FIRST_LABEL <= token < FIRST_LABEL + len(MOSEI):
                raise DataError(f"{what}: unexpected token {token}; labels are 4 to 9, between 2 and 3")
            labels[token - FIRST_LABEL] = 1
        return labels


def open_mosei_aligned(file: Path) -> Corpus:
    """Open the dataset. The file has no IDs, so a sample's ID is its split and index, and its own group.

    Args:
        file: see `AlignedFile`.

    Raises:
        DataError: see `AlignedFile`.
    """
    aligned = AlignedFile(file)

    def samples() -> Iterator[CorpusSample]:
        for split in aligned.splits:
            for i in range(aligned.count(split)):
                yield CorpusSample(
                    f"{split}/{i:05d}", split, aligned.labels(split, i), aligned.features(split, i)
                )

    return Corpus(
        name="mosei-aligned",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mosei-aligned:{hash_file(file).sha256[:12]}"),
        samples=samples(),
        count=sum(map(aligned.count, aligned.splits)),
        notes=["the file has no video IDs: samples count as independent, so intervals are too narrow"],
    )
