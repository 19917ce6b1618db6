"""Distribution of the training data and of validation scores, which a run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.batch import Batch
from carat.data.loader import make_loader, usable_rows
from carat.evaluation.drift import (
    Reference,
    fit_features,
    mean_over_time,
    quantiles_of,
    to_arrays,
)
from carat.evaluation.known import split_labels
from carat.training.setup import Task

SAMPLES = 5000
"""Training samples that references are learnt from, at most."""
FEWEST = 50
"""Validation samples with a modality below which distances of training samples are taken too."""


def fit_references(
    task: Task, scores: NDArray[Any], thresholds: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Learn the distribution of every modality, of scores and of labels.

    Args:
        task: its store and modalities.
        scores: (N, L) raw scores of validation.
        thresholds: (L,).

    Returns:
        Arrays of `reference.safetensors`, see `carat.runs.reference`.
    """
    references = {}
    for m, info in task.store.manifest.modalities.items():
        if m not in task.pad_to or info.waveform is not None:
            continue
        reference = _fit_tokens(task, m, info.tokens.vocabulary) if info.tokens else _fit_features(task, m)
        if reference is not None:
            references[m] = _with_distances(task, m, reference)
    true, known = split_labels(task.store.targets(usable_rows(task.store, "train", list(task.pad_to))))
    return to_arrays(references) | {
        "scores/quantiles": quantiles_of(scores),
        "scores/predicted": (scores > thresholds).mean(0),
        "labels/rate": true.sum(0) / np.maximum(known.sum(0), 1),
    }


def _batches(task: Task, m: str, split: str, most: int | None = None) -> Iterator[Batch]:
    """Batches of one modality: of samples of a split that have it, `most` of them at random."""
    rows = task.store.indices(split)
    rows = rows[task.store.lengths(m)[rows] > 0]
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(task.experiment.seed).choice(rows, most, replace=False))
    loader: Any = make_loader(
        task.store,
        rows,
        [m],
        batch_size=task.experiment.data.batch_size,
        max_length=task.model.max_length,
        pad_to=task.pad_to,
    )
    yield from loader


def _presence(task: Task, m: str) -> float:
    return float((task.store.lengths(m)[task.store.indices("train")] > 0).mean())


def _fit_features(task: Task, m: str) -> Reference | None:
    means = [
        mean_over_time(batch.features[m].numpy(), batch.masks[m].numpy())
        for batch in _batches(task, m, "train", SAMPLES)
    ]
    return fit_features(np.concatenate(means), _presence(task, m)) if means else None


def _fit_tokens(task: Task, m: str, vocabulary: int) -> Reference:
    seen = np.zeros(vocabulary, dtype=bool)
    for batch in _batches(task, m, "train"):
        ids = batch.features[m].numpy()
        seen[(ids[..., 0] if ids.ndim == 3 else ids)[batch.masks[m].numpy()]] = True
    nothing = np.zeros(0)
    return Reference(quantiles_of(nothing), _presence(task, m), nothing, nothing, np.zeros((0, 0)), seen)


def _with_distances(task: Task, m: str, reference: Reference) -> Reference:
    found: list[NDArray[np.float64]] = []
    for split in ("valid", "train"):
        if sum(map(len, found)) < FEWEST:
            found += [
                reference.distances(batch.features[m].numpy(), batch.masks[m].numpy())
                for batch in _batches(task, m, split, SAMPLES)
            ]
    return replace(reference, quantiles=quantiles_of(np.concatenate([np.zeros(0), *found])))
