"""The built-in benchmark: a learnable dataset of three modalities with correlated labels."""

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
LABEL_FREQUENCY = np.array([0.40, 0.30, 0.25, 0.20, 0.18, 0.15])
LABEL_LOADINGS = np.array([[0.9, 0.1], [-0.7, 0.3], [-0.6, -0.6], [0.5, 0.7], [-0.5, -0.7], [-0.3, 0.8]])
"""Loadings of each label on two latent factors (valence, arousal by surprise), which correlate the labels."""
WIDTHS = {"text": 24, "visual": 16, "audio": 20}
LENGTHS = {"text": (5, 20), "visual": (8, 30), "audio": (12, 40)}
"""Minimum and maximum time steps."""
TRACE_PROBABILITY = {
    "text": np.array([0.8, 0.6, 0.5, 0.4, 0.5, 0.4]),
    "visual": np.array([0.6, 0.4, 0.5, 0.7, 0.6, 0.4]),
    "audio": np.array([0.4, 0.6, 0.7, 0.5, 0.4, 0.7]),
}
"""Probability that a present label leaves a trace in a modality; each label leaves at least one trace."""
FALSE_TRACE_PROBABILITY = 0.015
"""Probability that an absent label leaves a trace in a modality."""
TRACE_NORM = 5.0
"""Norm of a trace, in standard deviations of the noise."""
TRACE_STEPS = 3
"""Duration of a trace in time steps."""
GROUP_SIZE = 4
"""Samples per group, which stands for a video; no group crosses splits."""
SPLIT_FRACTIONS = {"train": 0.7, "valid": 0.15, "test": 0.15}


def make_synthetic(
    out: str | os.PathLike[str],
    *,
    samples: int = 3000,
    seed: int = 0,
    missing: float = 0.05,
    overwrite: bool = False,
) -> Store:
    """Generate the built-in benchmark.

    Labels are correlated. Each present label leaves a short trace, a fixed direction in feature space, at a
    random time in some of the modalities. No single modality has all traces.

    Args:
        out: folder of the store.
        samples: number of samples, at least 100.
        seed: random seed; equal seeds give equal stores.
        missing: probability in [0, 1) that a sample lacks a modality; every sample has at least one.
        overwrite: replace an existing store.

    Returns:
        The store, with splits train, valid and test.

    Raises:
        DataError: an argument is out of range, or the target exists.

    Example:
        store = carat.make_synthetic("tiny-store", samples=200, missing=0.1)
        store.label_names
    """
    if samples < 100:
        raise DataError(f"samples must be at least 100, found {samples}")
    if seed < 0:
        raise DataError(f"seed must not be negative, found {seed}")
    if not 0 <= missing < 1:
        raise DataError(f"missing must be in [0, 1), found {missing}")
    rng = np.random.default_rng(seed)
    directions = {m: _draw_directions(len(LABELS), width, rng) for m, width in WIDTHS.items()}
    labels = _draw_labels(samples, rng)
    splits = list(SPLIT_FRACTIONS)
    split_ends = np.cumsum([round(samples * fraction) for fraction in SPLIT_FRACTIONS.values()])
    sources = dict.fromkeys(WIDTHS, f"synthetic:{seed}")
    with StoreWriter(out, "synthetic", LABELS, sources, splits, overwrite=overwrite) as writer:
        for i in track(range(samples), "Generating", total=samples):
            group_start = i - i % GROUP_SIZE
            split = splits[min(int(np.searchsorted(split_ends, group_start, side="right")), len(splits) - 1)]
            features = _draw_features(labels[i].astype(bool), directions, missing, rng)
            writer.append(f"s{i:06d}", split, labels[i], features, group=f"g{i // GROUP_SIZE:05d}")
        writer.notes.append(
            f"made by `carat data synth --samples {samples} --seed {seed} --missing {missing}`"
        )
    return open_store(out)


def _draw_directions(labels: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw orthogonal unit vectors, one per label: (L, d)."""
    basis, _ = np.linalg.qr(rng.normal(size=(width, labels)))
    return np.asarray(basis.T)


def _draw_labels(samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw correlated labels (N, L) with the frequencies `LABEL_FREQUENCY`."""
    factors = rng.normal(size=(samples, 2))
    scores = factors @ LABEL_LOADINGS.T + rng.normal(scale=0.7, size=(samples, len(LABELS)))
    thresholds = np.array(
        [np.quantile(x, 1 - frequency) for x, frequency in zip(scores.T, LABEL_FREQUENCY, strict=True)]
    )
    return np.asarray(scores > thresholds, dtype=np.int64)


def _draw_features(
    labels: NDArray[np.bool_],
    directions: dict[str, NDArray[Any]],
    missing: float,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.float32]]:
    """Draw the features (T, d) of a sample, by modality that it has."""
    is_missing = rng.random(len(WIDTHS)) < missing
    if is_missing.all():
        is_missing[rng.integers(len(WIDTHS))] = False
    modalities = [m for m, absent in zip(WIDTHS, is_missing, strict=True) if not absent]
    traces = {m: np.where(labels, rng.random(len(labels)) < TRACE_PROBABILITY[m], False) for m in modalities}
    without_trace = labels & ~np.any(list(traces.values()), axis=0)
    for label in np.flatnonzero(without_trace):
        traces[modalities[rng.integers(len(modalities))]][label] = True
    features = {}
    for m in modalities:
        low, high = LENGTHS[m]
        x = rng.normal(size=(rng.integers(low, high + 1), WIDTHS[m]))
        false_traces = ~labels & (rng.random(len(labels)) < FALSE_TRACE_PROBABILITY)
        for label in np.flatnonzero(traces[m] | false_traces):
            start = rng.integers(len(x) - TRACE_STEPS + 1)
            x[start : start + TRACE_STEPS] += TRACE_NORM * directions[m][label]
        features[m] = x.astype(np.float32)
    return features
