"""A corpus of a merge plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store
from carat.data.store.layout import SPLIT
from carat.data.store.manifest import ModalityInfo


@dataclass(frozen=True)
class Part:
    """A corpus of a plan.

    Args:
        name: name of the corpus.
        store: its store.
        labels: by label of the merged store, columns of this store's labels; none if it is unknown.
        modalities: by modality of the merged store, that of this store.
        splits: splits to take.
        left_out: rows of the store that are left out.
    """

    name: str
    store: Store
    labels: Mapping[str, Sequence[int]]
    modalities: Mapping[str, str]
    splits: Sequence[str]
    left_out: frozenset[int] = frozenset()

    def info(self, m: str) -> ModalityInfo:
        """What the manifest of the store says of a modality of the merged store."""
        return self.store.manifest.modalities[self.modalities[m]]

    def rows(self) -> NDArray[np.int64]:
        """Rows of the store that are taken and have a modality, ascending."""
        rows = np.sort(np.concatenate([self.store.indices(split) for split in self.splits]))
        present = [self.store.lengths(m)[rows] > 0 for m in self.modalities.values()]
        kept = rows[np.any(present, axis=0)]
        return np.array([row for row in kept if row not in self.left_out], np.int64)

    def split_names(self) -> list[str]:
        """Split of every row of the store."""
        names = list(self.store.manifest.splits)
        return [names[code] for code in self.store.array(SPLIT)]

    def targets(self, row: int) -> NDArray[np.float32]:
        """Labels (L,) of a row for the merged store: 0, 1, or NaN where unknown."""
        own = self.store.targets(np.array([row]))[0]
        return np.array([combine(own[list(columns)]) for columns in self.labels.values()], np.float32)

    def grades(self, row: int) -> NDArray[np.float32]:
        """Graded labels (L,) of a row: the largest of those that mean the same; binary ones are 0 or 1."""
        own = self.store.soft_targets(np.array([row]))[0]
        return np.array(
            [max(np.nan_to_num(own[list(c)]), default=0) for c in self.labels.values()], np.float32
        )


def combine(values: NDArray[np.float32]) -> float:
    """Combine labels that mean the same: present if one is, absent if all are, otherwise unknown.

    >>> [combine(np.array(x, np.float32)) for x in ([0, 1], [0, 0], [np.nan, 1], [np.nan, 0], [])]
    [1.0, 0.0, 1.0, nan, nan]
    """
    if (values == 1).any():
        return 1.0
    return 0.0 if len(values) and (values == 0).all() else float("nan")
