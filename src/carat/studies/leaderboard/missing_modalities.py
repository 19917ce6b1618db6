"""What is measured of every trained method: validation, test, and test with modalities taken away."""

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

SHARES = tuple(tenths / 10 for tenths in range(1, 10))
"""How often modalities are taken away at random."""
SEED = 0
"""Of what is taken away; the same for every method and training."""


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All that may be left of the modalities but everything and nothing, the largest first."""
    sizes = range(len(modalities) - 1, 0, -1)
    return [chosen for size in sizes for chosen in combinations(modalities, size)]


def conditions(store: Store, modalities: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Which modalities may be seen, (rows of the store, M), by the name of the condition.

    `only text + audio`: what a sample has of these; `30 % away`: each modality that a sample has is taken
    away with this probability, but never the last one.
    """
    found = {}
    for chosen in subsets(modalities):
        found[f"only {' + '.join(chosen)}"] = np.tile([m in chosen for m in modalities], (len(store), 1))
    modality_mask = np.stack([store.lengths(m) > 0 for m in modalities], axis=1)
    drawn = np.random.default_rng(SEED).random(modality_mask.shape)
    for share in SHARES if len(modalities) > 1 else ():
        kept = keep_modalities(torch.from_numpy(modality_mask), torch.from_numpy(drawn), share)
        found[f"{share:.0%} away"] = kept.numpy()
    return found


def measure(predictor: Predictor, store: Store) -> Arrays:
    """Rows (N,) and scores (N, L) of validation, of test, and of test under each of the `conditions`.

    Keys: `valid/rows`, `valid/scores`, `rows`, `scores`, `<condition>/rows`, `<condition>/scores`, and
    `seconds` that scoring the test split has taken.
    """
    found: Arrays = {}
    found["valid/rows"], found["valid/scores"], _ = predictor.score(store, "valid")
    started = time.perf_counter()
    found["rows"], found["scores"], _ = predictor.score(store, "test")
    found["seconds"] = np.array(time.perf_counter() - started)
    for name, seen in conditions(store, list(predictor.widths)).items():
        found[f"{name}/rows"], found[f"{name}/scores"], _ = predictor.score(store, "test", seen)
    return found
