"""Whether an exported file gives PyTorch's numbers, and what its labels are worth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carat.data.store import Store
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.export.files import Flat, Score, draw_inputs, foreign
from carat.inference.predictor import Predictor
from carat.utils.errors import ExportError

TOLERANCE = 1e-5
"""Largest difference of a score from PyTorch's."""
TIES = 0.01
"""Share of `attribution` that may differ: between modalities of equal evidence rounding decides."""
LONGEST = 512
"""Steps up to which the longest sequences are tried."""
PATTERNS = 31
"""How many combinations of present modalities are tried."""

F1 = dict[str, float | None]
"""`micro_f1` and `macro_f1`; None where undefined."""


def random_batches(predictor: Predictor) -> Iterator[list[Tensor]]:
    """Inputs that try what may go wrong: T = 1, the longest T, modalities that samples or a batch lack."""
    modalities = list(predictor.widths)
    longest = {m: min(LONGEST, predictor.model.max_length[m]) for m in modalities}
    generator = torch.Generator().manual_seed(0)

    def draw(modality_mask: list[tuple[bool, ...]], steps: dict[str, int]) -> list[Tensor]:
        inputs = []
        for m, present in zip(modalities, zip(*modality_mask, strict=True), strict=True):
            lengths = torch.randint(1, steps[m] + 1, (len(modality_mask),), generator=generator)
            lengths[0] = steps[m]
            mask = torch.arange(steps[m]) < (lengths * torch.tensor(present))[:, None]
            inputs += [draw_inputs(predictor, m, mask.shape, generator), mask]
        return inputs

    def any_steps() -> dict[str, int]:
        return {m: int(torch.randint(1, n + 1, (), generator=generator)) for m, n in longest.items()}

    everything = (True,) * len(modalities)
    patterns = itertools.product((True, False), repeat=len(modalities))
    yield draw([everything], dict.fromkeys(modalities, 1))
    yield draw([everything] * 2, longest)
    yield draw([p for p in itertools.islice(patterns, PATTERNS) if any(p)], any_steps())
    for absent in modalities if len(modalities) > 1 else ():
        yield draw([tuple(m != absent for m in modalities)] * 3, any_steps() | {absent: 1})


def check(score: Score, predictor: Predictor, *, exact: bool = True) -> float:
    """Largest difference of a score from PyTorch's, over random batches.

    Args:
        score: the exported file.
        predictor: the run in PyTorch.
        exact: refuse a difference above `TOLERANCE`; otherwise only scores that are no numbers.

    Raises:
        ExportError: other numbers, or the file cannot be used.
    """
    flat = Flat(predictor.model, list(predictor.widths))
    difference, moved = 0.0, []
    for inputs in random_batches(predictor):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs[::2])
        with foreign(f"{predictor.folder}: the exported file cannot score {shapes}"):
            scores, attribution = score(inputs)
        with torch.inference_mode():
            expected, carriers = (x.numpy() for x in flat(*inputs))
        difference = float(np.maximum(difference, np.abs(scores - expected).max()))  # nan stays nan
        moved.append(attribution != carriers)
    if not difference <= (TOLERANCE if exact else math.inf):
        raise ExportError(
            f"{predictor.folder}: scores of the exported file differ from PyTorch's by {difference:.1e}, "
            f"more than {TOLERANCE:.0e}"
        )
    share = float(np.concatenate(moved).mean())
    if exact and share > TIES:
        raise ExportError(f"{predictor.folder}: {share:.0%} of the exported file's attribution differ")
    return difference


def compare(
    score: Score,
    predictor: Predictor,
    store: Store,
    split: str,
    expected: NDArray[np.float32],
    labels: NDArray[np.uint8],
    *,
    exact: bool,
) -> dict[str, F1]:
    """F1 on a split with the run's thresholds: of an `exact` file `float`, of another also `int8`.

    Args:
        score: the exported file.
        predictor: the run in PyTorch.
        store: the data.
        split: of the store.
        expected: scores (N, L) of the run, in the order of `Predictor.batches`.
        labels: the true ones (N, L).
        exact: refuse a file that predicts other labels than the run.

    Raises:
        ExportError: it does, or the file cannot be used.
    """
    thresholds = np.array([predictor.card.thresholds[name] for name in predictor.labels])
    parts = []
    for batch in predictor.batches(store, split):
        inputs = [x for m in predictor.widths for x in (batch.features[m], batch.masks[m])]
        with foreign(f"{store.folder}, {split}: the exported file cannot score it"):
            parts.append(score(inputs)[0])
    found = np.concatenate(parts)

    def f1(scores: NDArray[np.float32]) -> F1:
        metrics = compute_metrics(scores, apply_thresholds(scores, thresholds), labels, predictor.labels)
        both = {"micro_f1": metrics.micro_f1, "macro_f1": metrics.macro_f1}
        return {name: x if math.isfinite(x) else None for name, x in both.items()}

    if not exact:
        return {"float": f1(expected), "int8": f1(found)}
    other = apply_thresholds(found, thresholds) != apply_thresholds(expected, thresholds)
    other &= np.abs(expected - thresholds) > TOLERANCE  # at the threshold itself rounding decides
    if other.any():
        raise ExportError(
            f"{store.folder}, {split}: the exported file predicts other labels than the run for "
            f"{int(other.any(1).sum())} of {len(other)} samples"
        )
    return {"float": f1(found)}
