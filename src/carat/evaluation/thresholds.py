"""From scores to labels: thresholds, searched on validation and never on test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = np.arange(1, 100) / 100
"""Thresholds that are tried: .01, .02, … .99."""

SHARES = np.arange(11) / 10
"""Of the way from the global threshold to a label's own, that a compromise may go."""
MAX_MICRO_F1_DROP = 0.01
"""Share of the global threshold's micro-F1 that a compromise may give up for macro-F1."""


def apply_thresholds(scores: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.bool_]:
    """Labels present: scores (N, L) strictly above thresholds (L,)."""
    return np.asarray(scores > thresholds)


def f1_from_counts(tp: Any, fp: Any, fn: Any) -> NDArray[np.float64]:
    """F1 from true positives, false positives and false negatives; 0 where nothing is true or predicted."""
    denominator = np.asarray(2 * tp + fp + fn, dtype=np.float64)
    f1 = np.zeros_like(denominator)
    np.divide(2 * tp, denominator, out=f1, where=denominator > 0)
    return f1


def search_thresholds(
    scores: NDArray[Any], labels: NDArray[Any], kind: str, max_micro_f1_drop: float = MAX_MICRO_F1_DROP
) -> NDArray[np.float64]:
    """Best thresholds on a grid; of equally good ones the middle of the first run of them.

    Args:
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1.
        kind: "global", one for all labels by micro-F1; "per-label", by the label's own F1, where a label
            without positives takes the global one; or "interpolated", on the way from the global one to the
            label's own, the same share for all, where macro-F1 is best of all that give up at most the price.
        price: of a compromise, as a share of the global threshold's micro-F1.

    Returns:
        (L,).
    """
    true = labels.astype(bool)
    counts = np.array(
        [[(p & true).sum(0), (p & ~true).sum(0), (~p & true).sum(0)] for p in (scores > t for t in GRID)]
    )  # (grid, 3, L)
    overall = _best(f1_from_counts(*counts.sum(-1).T))
    if kind == "global":
        return np.full(labels.shape[1], overall)
    by_label = f1_from_counts(*counts.transpose(1, 0, 2))  # (grid, L)
    own = np.array(
        [_best(by_label[:, i]) if true[:, i].any() else overall for i in range(labels.shape[1])],
    )
    return own if kind == "per-label" else _interpolated(scores, true, overall, own, max_micro_f1_drop)


def _interpolated(
    scores: NDArray[Any],
    true: NDArray[np.bool_],
    overall: float,
    own: NDArray[np.float64],
    max_micro_f1_drop: float,
) -> NDArray[np.float64]:
    occurring = true.any(0)
    tried = [np.round(overall + share * (own - overall), 4) for share in SHARES]
    micro, macro = [], []
    for thresholds in tried:
        p = apply_thresholds(scores, thresholds)
        counts = (p & true).sum(0), (p & ~true).sum(0), (~p & true).sum(0)
        micro.append(float(f1_from_counts(*(x.sum() for x in counts))))
        macro.append(float(f1_from_counts(*counts)[occurring].mean()) if occurring.any() else 0.0)
    allowed = np.array(micro) >= (1 - max_micro_f1_drop) * micro[0]
    best: NDArray[np.float64] = tried[int(np.argmax(np.where(allowed, macro, -1.0)))]
    return best


def _best(f1: NDArray[np.float64]) -> float:
    best = np.flatnonzero(f1 == f1.max())
    run = best[: int(np.argmax(np.diff(best) > 1)) + 1] if (np.diff(best) > 1).any() else best
    return float(GRID[run[len(run) // 2]])
