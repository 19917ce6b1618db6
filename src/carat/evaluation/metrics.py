"""Multi-label metrics.

AUROC and average precision are computed by scikit-learn. Count-based metrics are implemented here, because
scikit-learn's validation of arguments takes a millisecond per call, and some metrics are computed for every
label in every epoch. Tests compare them with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

NAN = float("nan")
BINS = 15
"""Equal-width bins of the calibration error."""


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one label; NaN where undefined."""

    positives: int
    predicted: int
    precision: float
    recall: float
    f1: float
    auroc: float
    average_precision: float


@dataclass(frozen=True)
class Metrics:
    """Metrics of a split. Higher is better, except for `hamming_loss` and `calibration_error`."""

    accuracy: float
    """Mean Jaccard index of the samples, |true ∩ predicted| / |true ∪ predicted|. As is usual in this task,
    it is 0 for samples where both sets are empty."""
    accuracy_empty_1: float
    """As `accuracy`, with 1 for samples where both sets are empty."""
    micro_f1: float
    macro_f1: float
    """Mean over the labels that have positives."""
    weighted_f1: float
    """Mean over the labels that have positives, weighted by their number."""
    precision: float
    """Micro-averaged."""
    recall: float
    """Micro-averaged."""
    hamming_loss: float
    subset_accuracy: float
    lrap: float
    """Label ranking average precision."""
    calibration_error: float
    """Expected calibration error of the scores of all samples and labels."""
    labels: dict[str, LabelMetrics]
    notes: list[str]
    """Reasons for NaN values."""


def compute_metrics(
    scores: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any], names: Sequence[str]
) -> Metrics:
    """Compute all metrics of a split.

    Args:
        scores: (N, L), in [0, 1].
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1.
        names: L label names.
    """
    true, guess = labels.astype(bool), predicted.astype(bool)
    by_label = {name: label_metrics(scores[:, i], guess[:, i], true[:, i]) for i, name in enumerate(names)}
    never = [name for name, m in by_label.items() if not m.positives]
    always = [name for name, m in by_label.items() if m.positives == len(true)]
    notes = [f"label '{name}' does not occur: its metrics are nan" for name in never]
    notes += [f"label '{name}' always occurs: its AUROC is nan" for name in always]
    occurring = [m for m in by_label.values() if m.positives]
    f1 = np.array([m.f1 for m in occurring])
    positives = np.array([m.positives for m in occurring])
    hits, guesses, total = (true & guess).sum(), guess.sum(), true.sum()
    if not len(f1):
        notes.append("no label occurs: macro and weighted F1 are nan")
    return Metrics(
        accuracy=float(sample_jaccard(guess, true, empty=0).mean()),
        accuracy_empty_1=float(sample_jaccard(guess, true, empty=1).mean()),
        micro_f1=_ratio(2 * hits, guesses + total),
        macro_f1=float(f1.mean()) if len(f1) else NAN,
        weighted_f1=float(np.average(f1, weights=positives)) if len(f1) else NAN,
        precision=_ratio(hits, guesses),
        recall=_ratio(hits, total),
        hamming_loss=float((true != guess).mean()),
        subset_accuracy=float((true == guess).all(1).mean()),
        lrap=ranking_precision(scores, true),
        calibration_error=calibration_error(scores, true),
        labels=by_label,
        notes=notes,
    )


def sample_jaccard(guess: NDArray[np.bool_], true: NDArray[np.bool_], empty: float) -> NDArray[np.float64]:
    """Compute the Jaccard index of each sample.

    Args:
        guess: predicted labels (N, L).
        true: true labels (N, L).
        empty: value for samples where both sets are empty.

    Returns:
        (N,) in [0, 1].
    """
    union = (guess | true).sum(1)
    both = (guess & true).sum(1).astype(np.float64)
    jaccard = np.full(len(union), float(empty))
    np.divide(both, union, out=jaccard, where=union > 0)
    return jaccard


def ranking_precision(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Label ranking average precision, vectorized; scikit-learn loops over samples in Python.

    For each true label, the fraction of true labels among those with at least its score, averaged over the
    true labels of a sample, then over samples. It is 1 for samples without labels and with all labels.

    Args:
        scores: (N, L).
        true: true labels (N, L).
    """
    as_high = (
        scores[:, None, :] >= scores[:, :, None]
    )  # (N, L, L): [:, i, j] if label j is ranked with or above i
    precision = (as_high & true[:, None, :]).sum(2) / as_high.sum(2)
    number = true.sum(1)
    ranked = (precision * true).sum(1) / np.maximum(number, 1)
    return float(np.where((number == 0) | (number == true.shape[1]), 1.0, ranked).mean())


def label_metrics(scores: NDArray[Any], guess: NDArray[np.bool_], true: NDArray[np.bool_]) -> LabelMetrics:
    """Compute the metrics of one label from its scores, predictions and true labels, (N,) each."""
    positives, predicted, hits = int(true.sum()), int(guess.sum()), int((guess & true).sum())
    if not positives:
        return LabelMetrics(0, predicted, NAN, NAN, NAN, NAN, NAN)
    return LabelMetrics(
        positives=positives,
        predicted=predicted,
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, positives),
        f1=_ratio(2 * hits, positives + predicted),
        auroc=float(sk.roc_auc_score(true, scores)) if positives < len(true) else NAN,
        average_precision=float(sk.average_precision_score(true, scores)),
    )


def calibration_error(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean difference of score and frequency over equal-width bins.

    Bins are weighted by their number of scores. scikit-learn has the curve (`calibration_curve`) only.

    Args:
        scores: (N, L), in [0, 1].
        true: true labels (N, L).
    """
    flat, hit = scores.ravel().astype(np.float64), true.ravel()
    bins = np.minimum((flat * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, weights=flat - hit, minlength=BINS)
    return float(np.abs(gap).sum() / max(len(flat), 1))


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
