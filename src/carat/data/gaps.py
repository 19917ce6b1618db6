"""Gaps of a data set: modalities and labels of which training has no example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def untrained_modalities(
    present: Mapping[str, NDArray[np.bool_]], splits: Mapping[str, NDArray[np.int64]]
) -> list[str]:
    """Return the modalities that no training sample has.

    Args:
        present: by modality, (N,) whether each sample has it.
        splits: rows of each split; without a split "train" nothing is returned.
    """
    training = splits.get("train")
    return [] if training is None else [m for m, has in present.items() if not has[training].any()]


def describe_gaps(
    label_names: Sequence[str],
    labels: NDArray[Any],
    present: Mapping[str, NDArray[np.bool_]],
    splits: Mapping[str, NDArray[np.int64]],
) -> list[str]:
    """Describe modalities without a training sample, and labels without a positive sample in a split.

    Args:
        label_names: L names.
        labels: (N, L), 0 or 1; 0 where unknown.
        present: by modality, (N,) whether each sample has it.
        splits: rows of each split to describe.

    Returns:
        One line per gap.

    >>> rows = {"train": np.array([0]), "test": np.array([1])}
    >>> describe_gaps(  # doctest: +ELLIPSIS
    ...     ["sad"], np.array([[1], [0]]), {"audio": np.array([False, True])}, rows
    ... )
    ['no training sample has audio, so that models are trained without it', "split 'test' has no ..."]
    """
    lines = [
        f"no training sample has {m}, so that models are trained without it"
        for m in untrained_modalities(present, splits)
    ]
    for split, rows in splits.items():
        positives = labels[rows].sum(0)
        absent = [name for name, count in zip(label_names, positives, strict=True) if not count]
        if absent:
            lines.append(f"split '{split}' has no positive sample of: {', '.join(absent)}")
    return lines
