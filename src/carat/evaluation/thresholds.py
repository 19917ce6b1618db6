"""From scores to labels: thresholds, searched on validation and never on test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = np.arange(1, 100) / 100
"""Thresholds that are tried: .01, .02, … .99."""

SHARES = np.arange(11) / 10
"""Of the way from the global threshold to a label's own, that a compromise may go."""


def apply_thresholds(scores: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.bool_]:
    """Labels present: scores (N, L) strictly above thresholds (L,)."""
    return np.asarray(scores > thresholds)


def f1_from_counts(tp: Any, fp: Any, fn: Any) -> NDArray[np.float64]:
    """F1 from true positives, false positives and false negatives; 0 where nothing is true or predicted."""
    denominator = np.asarray(2 * tp + fp + fn, dtype=np.float64)
    f1 = np.zeros_like(denominator)
    np.divide(2 * tp, denominator, out=f1, where=denominator > 0)
    return f1


def search_thresholds(scores: NDArray[Any], labels: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """Best thresholds on a grid; of equally good ones the middle of the first run of them.

    Args:
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1.
        kind: "global", one for all labels by micro-F1; "per-label", by the label's own F1, where a label
            without positives takes the global one; or "compromise", as far from the global one towards the
            label's own as is best for the sum of micro-F1 and macro-F1, the same share of the way for all.

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
    return own if kind == "per-label" else _compromise(scores, true, overall, own)


def _compromise(
    scores: NDArray[Any], true: NDArray[np.bool_], overall: float, own: NDArray[np.float64]
) -> NDArray[np.float64]:
    occurring = true.any(0)
    tried = [np.round(overall + share * (own - overall), 4) for share in SHARES]
    worth = []
    for thresholds in tried:
        p = apply_thresholds(scores, thresholds)
        counts = (p & true).sum(0), (p & ~true).sum(0), (~p & true).sum(0)
        macro = f1_from_counts(*counts)[occurring].mean() if occurring.any() else 0.0
        worth.append(float(f1_from_counts(*(x.sum() for x in counts)) + macro))
    best: NDArray[np.float64] = tried[int(np.argmax(worth))]
    return best


def _best(f1: NDArray[np.float64]) -> float:
    best = np.flatnonzero(f1 == f1.max())
    run = best[: int(np.argmax(np.diff(best) > 1)) + 1] if (np.diff(best) > 1).any() else best
    return float(GRID[run[len(run) // 2]])
