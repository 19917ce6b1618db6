"""Decision thresholds, which are tuned on the validation split only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.known import split_labels

GRID = np.arange(1, 100) / 100
"""Candidate thresholds: 0.01, 0.02, …, 0.99."""

INTERPOLATION_WEIGHTS = np.arange(11) / 10
"""Candidate weights of the per-label thresholds in interpolated thresholds."""
MAX_MICRO_F1_DROP = 0.01
"""Maximum relative drop in micro-F1 of interpolated thresholds, compared with the global threshold."""


def apply_thresholds(scores: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.bool_]:
    """Predict labels (N, L): scores (N, L) strictly above thresholds (L,)."""
    return np.asarray(scores > thresholds)


def f1_from_counts(tp: Any, fp: Any, fn: Any) -> NDArray[np.float64]:
    """Compute F1 from true positives, false positives and false negatives; 0 where all of them are 0."""
    denominator = np.asarray(2 * tp + fp + fn, dtype=np.float64)
    f1 = np.zeros_like(denominator)
    np.divide(2 * tp, denominator, out=f1, where=denominator > 0)
    return f1


def search_thresholds(
    scores: NDArray[Any],
    labels: NDArray[Any],
    kind: str,
    max_micro_f1_drop: float = MAX_MICRO_F1_DROP,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Find the best thresholds on a grid. If several are equally good, the middle of their first run is used.

    Args:
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown; only known labels count.
        kind: "global": one threshold that maximizes micro-F1. "per-label": maximizes the F1 of each label;
            labels without positives get the global threshold. "interpolated": between the global and the
            per-label thresholds, with the weight that maximizes macro-F1 at a limited drop in micro-F1.
        max_micro_f1_drop: maximum relative drop in micro-F1 of interpolated thresholds, compared with the
            global threshold.
        weights: (N,) how much each sample counts; 1 by default.

    Returns:
        Thresholds (L,).
    """
    true, known = split_labels(labels)
    false = known & ~true
    counts = np.array([_count(scores > t, true, false, weights) for t in GRID])  # (grid, 3, L)
    global_threshold = _best(f1_from_counts(*counts.sum(-1).T))
    if kind == "global":
        return np.full(labels.shape[1], global_threshold)
    f1 = f1_from_counts(*counts.transpose(1, 0, 2))  # (grid, L)
    per_label = np.array(
        [_best(f1[:, i]) if true[:, i].any() else global_threshold for i in range(labels.shape[1])]
    )
    if kind == "per-label":
        return per_label
    return _interpolate(scores, true, false, weights, global_threshold, per_label, max_micro_f1_drop)


def _count(
    p: NDArray[np.bool_],
    true: NDArray[np.bool_],
    false: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Count true positives, false positives and false negatives by label, (L,) each."""
    cells = p & true, p & false, ~p & true
    tp, fp, fn = (x.sum(0) if weights is None else weights @ x for x in cells)
    return tp, fp, fn


def _interpolate(
    scores: NDArray[Any],
    true: NDArray[np.bool_],
    false: NDArray[np.bool_],
    weights: NDArray[np.float64] | None,
    global_threshold: float,
    per_label: NDArray[np.float64],
    max_micro_f1_drop: float,
) -> NDArray[np.float64]:
    has_positives = true.any(0)
    candidates = [
        np.round(global_threshold + share * (per_label - global_threshold), 4)
        for share in INTERPOLATION_WEIGHTS
    ]
    micro, macro = [], []
    for thresholds in candidates:
        counts = _count(apply_thresholds(scores, thresholds), true, false, weights)
        micro.append(float(f1_from_counts(*(x.sum() for x in counts))))
        macro.append(float(f1_from_counts(*counts)[has_positives].mean()) if has_positives.any() else 0.0)
    allowed = np.array(micro) >= (1 - max_micro_f1_drop) * micro[0]
    best: NDArray[np.float64] = candidates[int(np.argmax(np.where(allowed, macro, -1.0)))]
    return best


def _best(f1: NDArray[np.float64]) -> float:
    best = np.flatnonzero(f1 == f1.max())
    run = best[: int(np.argmax(np.diff(best) > 1)) + 1] if (np.diff(best) > 1).any() else best
    return float(GRID[run[len(run) // 2]])
