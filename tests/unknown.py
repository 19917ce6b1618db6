"""Stores with unknown or graded labels, made from complete ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter


def rewrite(
    store: Store,
    path: Path,
    known: NDArray[np.bool_],
    corpora: Sequence[str] | None = None,
    grades: NDArray[np.float32] | None = None,
) -> Store:
    """Write a store again with some of its labels unknown, or with graded ones.

    Args:
        store: store to copy, all of whose labels are known.
        path: folder of the new store.
        known: (N, L), labels to keep.
        corpora: corpus of each sample; None for a single one.
        grades: (N, L), in [0, 1].
    """
    sources = {m: info.source for m, info in store.manifest.modalities.items()}
    splits = list(store.manifest.splits)
    with StoreWriter(path, store.manifest.name, store.label_names, sources, splits) as writer:
        for row in range(len(store)):
            sample = store[row]
            targets = np.where(known[row], sample.labels, np.nan)
            writer.append(
                sample.id,
                sample.split,
                targets,
                sample.features,
                group=sample.group,
                corpus="" if corpora is None else corpora[row],
                grades=None if grades is None else grades[row],
            )
        writer.notes += store.manifest.notes
    return open_store(path)


def draw_known(store: Store, share: float = 0.7, seed: int = 0) -> NDArray[np.bool_]:
    """Draw which labels (N, L) are known; a few samples have none, and most have some unknown ones."""
    random = np.random.default_rng(seed)
    known = random.random(store.labels.shape) < share
    known[random.random(len(known)) < 0.1] = False
    return known
