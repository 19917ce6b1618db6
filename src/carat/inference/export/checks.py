"""Verification of exported files against PyTorch, and their F1 on a store."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carat.data.store import Store
from carat.evaluation.metrics import measure_f1
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.export.files import PositionalModel, Score, external_errors, random_features
from carat.inference.predictor import Predictor
from carat.utils.errors import ExportError

TOLERANCE = 1e-5
"""Maximum absolute difference of a score from PyTorch."""
MAX_TIES = 0.01
"""Maximum fraction of `attribution` that may differ: ties between modalities are decided by rounding."""
MAX_STEPS = 512
"""Maximum number of time steps in the random batches."""
MAX_PATTERNS = 31
"""Maximum number of combinations of present modalities in the random batches."""

F1 = dict[str, float | None]
"""`micro_f1` and `macro_f1`; None where undefined."""


def random_batches(predictor: Predictor) -> Iterator[list[Tensor]]:
    """Generate inputs for edge cases: T = 1, maximum T, modalities absent from samples or a whole batch."""
    modalities = list(predictor.widths)
    max_steps = {m: min(MAX_STEPS, predictor.model.max_length[m]) for m in modalities}
    generator = torch.Generator().manual_seed(0)

    def draw(modality_mask: list[tuple[bool, ...]], steps: dict[str, int]) -> list[Tensor]:
        inputs = []
        for m, present in zip(modalities, zip(*modality_mask, strict=True), strict=True):
            lengths = torch.randint(1, steps[m] + 1, (len(modality_mask),), generator=generator)
            lengths[0] = steps[m]
            mask = torch.arange(steps[m]) < (lengths * torch.tensor(present))[:, None]
            inputs += [random_features(predictor, m, mask.shape, generator), mask]
        return inputs

    def random_steps() -> dict[str, int]:
        return {m: int(torch.randint(1, n + 1, (), generator=generator)) for m, n in max_steps.items()}

    all_present = (True,) * len(modalities)
    patterns = itertools.product((True, False), repeat=len(modalities))
    yield draw([all_present], dict.fromkeys(modalities, 1))
    yield draw([all_present] * 2, max_steps)
    yield draw([p for p in itertools.islice(patterns, MAX_PATTERNS) if any(p)], random_steps())
    for absent in modalities if len(modalities) > 1 else ():
        yield draw([tuple(m != absent for m in modalities)] * 3, random_steps() | {absent: 1})


def check_outputs(score: Score, predictor: Predictor, *, exact: bool = True) -> float:
    """Compare the outputs of an exported file with PyTorch on random batches.

    Args:
        score: function that runs the exported file.
        predictor: predictor of the run.
        exact: require scores within `TOLERANCE` and attribution within `MAX_TIES`; if False, require only
            that the differences are not NaN.

    Returns:
        Maximum absolute difference of a score.

    Raises:
        ExportError: the outputs differ, or the file cannot be run.
    """
    model = PositionalModel(predictor.model, list(predictor.widths))
    difference, changed = 0.0, []
    for inputs in random_batches(predictor):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs[::2])
        with external_errors(f"{predictor.folder}: the exported file cannot score inputs of shapes {shapes}"):
            scores, attribution = score(inputs)
        with torch.inference_mode():
            expected_scores, expected_attribution = (x.numpy() for x in model(*inputs))
        difference = float(np.maximum(difference, np.abs(scores - expected_scores).max()))  # keeps NaN
        changed.append(attribution != expected_attribution)
    if not difference <= (TOLERANCE if exact else math.inf):
        raise ExportError(
            f"{predictor.folder}: scores of the exported file differ from PyTorch by up to {difference:.1e}, "
            f"expected at most {TOLERANCE:.0e}"
        )
    changed_fraction = float(np.concatenate(changed).mean())
    if exact and changed_fraction > MAX_TIES:
        raise ExportError(
            f"{predictor.folder}: {changed_fraction:.0%} of the exported file's attribution differs from "
            f"PyTorch, expected at most {MAX_TIES:.0%}"
        )
    return difference


def compare_f1(
    score: Score,
    predictor: Predictor,
    store: Store,
    split: str,
    expected: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    exact: bool,
) -> dict[str, F1]:
    """Compute F1 of an exported file on a split, with the thresholds of the run.

    Args:
        score: function that runs the exported file.
        predictor: predictor of the run.
        store: store with the labels of the run.
        split: split of the store.
        expected: (N, L) scores of the run, in the order of `Predictor.batches`.
        labels: (N, L) true labels, 0 or 1, NaN where unknown.
        exact: require that the file predicts the same labels as the run; False for a quantized file.

    Returns:
        F1 of `float`; unless `exact`, also of `int8`.

    Raises:
        ExportError: the predicted labels differ, or the file cannot be run.
    """
    thresholds = np.array(list(predictor.card.thresholds.values()))
    parts = []
    for batch in predictor.batches(store, split):
        inputs = [x for m in predictor.widths for x in (batch.features[m], batch.masks[m])]
        with external_errors(f"{store.folder}, {split}: the exported file cannot score the split"):
            parts.append(score(inputs)[0])
    exported = np.concatenate(parts)

    def f1(scores: NDArray[np.float32]) -> F1:
        values = measure_f1(scores, labels, predictor.card.thresholds)
        return {name: x if math.isfinite(x) else None for name, x in values.items()}

    if not exact:
        return {"float": f1(expected), "int8": f1(exported)}
    differs = apply_thresholds(exported, thresholds) != apply_thresholds(expected, thresholds)
    differs &= np.abs(expected - thresholds) > TOLERANCE  # at the threshold, rounding decides
    if differs.any():
        raise ExportError(
            f"{store.folder}, {split}: the exported file predicts other labels than the run for "
            f"{int(differs.any(1).sum())} of {len(differs)} samples"
        )
    return {"float": f1(exported)}
