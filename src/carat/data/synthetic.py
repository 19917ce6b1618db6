"""The built-in benchmark: learnable, three modalities of unequal length, correlated labels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.labels import MOSEI
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.utils.errors import DataError
from carat.utils.progress import track

LABELS = MOSEI
FREQUENCY = np.array([0.40, 0.30, 0.25, 0.20, 0.18, 0.15])
AXES = np.array([[0.9, 0.1], [-0.7, 0.3], [-0.6, -0.6], [0.5, 0.7], [-0.5, -0.7], [-0.3, 0.8]])
"""Place of each label on two hidden axes (pleasant, aroused by surprise): nearby labels occur together."""
WIDTHS = {"text": 24, "visual": 16, "audio": 20}
LENGTHS = {"text": (5, 20), "visual": (8, 30), "audio": (12, 40)}
SHOWN = {
    "text": np.array([0.8, 0.6, 0.5, 0.4, 0.5, 0.4]),
    "visual": np.array([0.6, 0.4, 0.5, 0.7, 0.6, 0.4]),
    "audio": np.array([0.4, 0.6, 0.7, 0.5, 0.4, 0.7]),
}
"""How often a present label leaves a trace in a modality; each leaves one in one modality at least."""
MISLEADING = 0.015
"""How often an absent label leaves a trace all the same."""
STRENGTH = 5.0
"""Length of a trace's vector, in standard deviations of the noise."""
STEPS = 3
"""Time steps of a trace."""
GROUP = 4
"""Samples of one group, a pretended video; groups do not cross splits."""
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


def make_synthetic(
    out: str | os.PathLike[str],
    *,
    samples: int = 3000,
    seed: int = 0,
    missing: float = 0.05,
    overwrite: bool = False,
) -> Store:
    """Write the built-in benchmark as a store.

    Labels are drawn with correlations; each present label leaves a short trace, a fixed direction in
    feature space, at a random time in some of the modalities. No single modality holds all traces.

    Args:
        out: folder of the store to make.
        samples: how many, 100 at least.
        seed: the same seed gives the same store.
        missing: how often a modality is absent from a sample; a sample that would lack all keeps one.
        overwrite: replace an existing store.

    Returns:
        The store, with splits train, valid and test.

    Raises:
        DataError: too few samples, a negative seed, or a share outside [0, 1).

    Example:
        store = carat.make_synthetic("tiny-store", samples=200, missing=0.1)
        store.label_names
    """
    if samples < 100:
        raise DataError(f"the built-in benchmark needs 100 samples at least, found {samples}")
    if seed < 0:
        raise DataError(f"seed must not be negative, found {seed}")
    if not 0 <= missing < 1:
        raise DataError(f"missing must be in [0, 1), found {missing}")
    random = np.random.default_rng(seed)
    patterns = {m: _directions(len(LABELS), width, random) for m, width in WIDTHS.items()}
    labels = _labels(samples, random)
    ends = np.cumsum([round(samples * share) for share in SHARES.values()])
    sources = dict.fromkeys(WIDTHS, f"synthetic:{seed}")
    with StoreWriter(out, "synthetic", LABELS, sources, list(SHARES), overwrite=overwrite) as writer:
        for i in track(range(samples), "Synthesising", total=samples):
            start = i - i % GROUP
            split = list(SHARES)[min(int(np.searchsorted(ends, start, side="right")), len(SHARES) - 1)]
            features = _features(labels[i].astype(bool), patterns, missing, random)
            writer.append(f"s{i:06d}", split, labels[i], features, group=f"g{i // GROUP:05d}")
        writer.notes.append(
            f"made by `carat data synth --samples {samples} --seed {seed} --missing {missing}`"
        )
    return open_store(out)


def _directions(labels: int, width: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Orthogonal unit vectors, one per label: (L, d)."""
    basis, _ = np.linalg.qr(random.normal(size=(width, labels)))
    return np.asarray(basis.T)


def _labels(samples: int, random: np.random.Generator) -> NDArray[np.int64]:
    mood = random.normal(size=(samples, 2))
    leaning = mood @ AXES.T + random.normal(scale=0.7, size=(samples, len(LABELS)))
    cut = np.array([np.quantile(x, 1 - share) for x, share in zip(leaning.T, FREQUENCY, strict=True)])
    return np.asarray(leaning > cut, dtype=np.int64)


def _features(
    present: NDArray[np.bool_],
    patterns: dict[str, NDArray[Any]],
    missing: float,
    random: np.random.Generator,
) -> dict[str, NDArray[np.float32]]:
    absent = random.random(len(WIDTHS)) < missing
    if absent.all():
        absent[random.integers(len(WIDTHS))] = False
    kept = [m for m, gone in zip(WIDTHS, absent, strict=True) if not gone]
    shown = {m: np.where(present, random.random(len(present)) < SHOWN[m], False) for m in kept}
    hidden = present & ~np.any(list(shown.values()), axis=0)
    for label in np.flatnonzero(hidden):
        shown[kept[random.integers(len(kept))]][label] = True
    features = {}
    for m in kept:
        low, high = LENGTHS[m]
        x = random.normal(size=(random.integers(low, high + 1), WIDTHS[m]))
        misleading = ~present & (random.random(len(present)) < MISLEADING)
        for label in np.flatnonzero(shown[m] | misleading):
            start = random.integers(len(x) - STEPS + 1)
            x[start : start + STEPS] += STRENGTH * patterns[m][label]
        features[m] = x.astype(np.float32)
    return features
