"""Aligned MOSEI as CARAT and TAILOR read it: `train_valid_test.pt`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import item, length, sequence, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "src-text", "visual": "src-visual", "audio": "src-audio"}
TARGET = "tgt"
BEGIN, END, FIRST = 2, 3, 4
"""Tokens of a label list: it begins with 2, ends with 3, and 4 to 9 are the six labels."""


class AlignedFile:
    """The file, opened: splits of features (60 steps × 300 / 35 / 74) and label lists.

    Args:
        file: `train_valid_test.pt`, a dict of train, valid and test.

    Raises:
        DataError: names split and entry, what was found and what was expected.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.splits = open_splits(file, [*FEATURES.values(), TARGET])

    def count(self, split: str) -> int:
        """Samples of a split."""
        return length(self.splits[split][TARGET], split)

    def features(self, split: str, i: int) -> dict[str, NDArray[Any]]:
        """(T, d) by modality, padded as the file has it."""
        return {
            m: sequence(item(self.splits[split][key], i), f"{self.file}, {split}, {key}, sample {i}")
            for m, key in FEATURES.items()
        }

    def labels(self, split: str, i: int) -> NDArray[np.uint8]:
        """(6,), 0 or 1."""
        what = f"{self.file}, {split}, {TARGET}, sample {i}"
        tokens = to_array(item(self.splits[split][TARGET], i), what).reshape(-1)
        if tokens.dtype.kind not in "iuf" or not np.isfinite(tokens).all():
            raise DataError(f"{what}: expected tokens such as [2, 4, 7, 3], found {tokens.dtype}")
        numbers = [int(x) for x in tokens]
        if numbers[:1] == [BEGIN]:
            numbers = numbers[1:]
        if END in numbers:  # what follows is padding
            numbers = numbers[: numbers.index(END)]
        out = np.zeros(len(MOSEI), dtype=np.uint8)
        for number in numbers:
            if not FIRST <= number < FIRST + len(MOSEI):
                raise DataError(f"{what}: token {number}; 2 begins, 3 ends, 4 to 9 are the labels")
            out[number - FIRST] = 1
        return out


def open_mosei_aligned(file: Path) -> Corpus:
    """The data set; the file names no samples: ids are split and place, and every sample is a group."""
    opened = AlignedFile(file)

    def samples() -> Iterator[CorpusSample]:
        for split in opened.splits:
            for i in range(opened.count(split)):
                yield CorpusSample(
                    f"{split}/{i:05d}", split, opened.labels(split, i), opened.features(split, i)
                )

    return Corpus(
        name="mosei-aligned",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mosei-aligned:{hash_file(file).sha256[:12]}"),
        samples=samples(),
        count=sum(map(opened.count, opened.splits)),
        notes=["the file names no videos: samples count as independent, so that intervals are narrow"],
    )
