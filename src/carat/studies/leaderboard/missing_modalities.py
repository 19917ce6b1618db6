"""Measurements of every trained model: validation, test, and test with missing modalities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from carat.data.store import Store
from carat.inference.predictor import Predictor
from carat.models.modality_dropout import keep_modalities
from carat.studies.jobs import Arrays

DROP_PROBABILITIES = tuple(tenths / 10 for tenths in range(1, 10))
"""Probabilities of dropping a modality at random."""
SEED = 0
"""Seed of the dropped modalities, the same for every method and training run."""


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all non-empty proper subsets of the modalities, the largest first."""
    sizes = range(len(modalities) - 1, 0, -1)
    return [subset for size in sizes for subset in combinations(modalities, size)]


def conditions(store: Store, modalities: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Build the modality masks of all conditions with missing modalities.

    `only text + audio` keeps these modalities; `30% away` drops each present modality with this probability,
    but never the last one of a sample.

    Args:
        store: the data.
        modalities: modalities of the model, in the order of the M axis.

    Returns:
        Masks (N, M) of all N samples of the store by condition, available to the model = True.
    """
    masks = {}
    for subset in subsets(modalities):
        masks[f"only {' + '.join(subset)}"] = np.tile([m in subset for m in modalities], (len(store), 1))
    modality_mask = np.stack([store.lengths(m) > 0 for m in modalities], axis=1)
    uniform = np.random.default_rng(SEED).random(modality_mask.shape)
    for p in DROP_PROBABILITIES if len(modalities) > 1 else ():
        kept = keep_modalities(torch.from_numpy(modality_mask), torch.from_numpy(uniform), p)
        masks[f"{p:.0%} away"] = kept.numpy()
    return masks


def measure(predictor: Predictor, store: Store) -> Arrays:
    """Score the validation split, the test split, and the test split under each of the `conditions`.

    Returns:
        Rows (N,) of the store and scores (N, L) as `valid/rows`, `valid/scores`, `rows`, `scores`,
        `<condition>/rows` and `<condition>/scores`; and `seconds`, the time to score the test split.
    """
    arrays: Arrays = {}
    arrays["valid/rows"], arrays["valid/scores"], _ = predictor.score(store, "valid")
    started = time.perf_counter()
    arrays["rows"], arrays["scores"], _ = predictor.score(store, "test")
    arrays["seconds"] = np.array(time.perf_counter() - started)
    for name, mask in conditions(store, list(predictor.widths)).items():
        arrays[f"{name}/rows"], arrays[f"{name}/scores"], _ = predictor.score(store, "test", mask)
    return arrays
