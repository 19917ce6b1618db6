"""Multi-label metrics.

AUROC and average precision are computed by scikit-learn. Count-based metrics are implemented here, because
scikit-learn's validation of arguments takes a millisecond per call, and some metrics are computed for every
label in every epoch. Tests compare them with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from carat.evaluation.known import split_labels
from carat.evaluation.thresholds import apply_thresholds

NAN = float("nan")
BINS = 15
"""Equal-width bins of the calibration error."""


@dataclass(frozen=True)
class LabelMetrics:
    """Metrics of one label over the samples in which it is known; NaN where undefined."""

    positives: int
    predicted: int
    precision: float
    recall: float
    f1: float
    auroc: float
    average_precision: float
    known: int
    """Samples in which the label is known."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of a split. Higher is better, except for `hamming_loss` and `calibration_error`.

    Unknown labels are left out: metrics of labels and micro averages are over the known ones, those of
    samples over the samples with known labels, compared by these.
    """

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
    """Expected calibration error of the scores of all samples and known labels."""
    labels: dict[str, LabelMetrics]
    notes: list[str]
    """Reasons for NaN values, and how many labels are unknown."""


def compute_metrics(
    scores: NDArray[Any], predicted: NDArray[Any], labels: NDArray[Any], names: Sequence[str]
) -> Metrics:
    """Compute all metrics of a split.

    Args:
        scores: (N, L), in [0, 1].
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1, NaN where unknown.
        names: L label names.
    """
    true, known = split_labels(labels)
    guess, measured = predicted.astype(bool) & known, known.any(1)
    by_label = {
        name: label_metrics(scores[rows, i], guess[rows, i], true[rows, i])
        for i, (name, rows) in enumerate(zip(names, known.T, strict=True))
    }
    notes = _unknown_notes(known)
    for name, m in by_label.items():
        if not m.positives:
            reason = "does not occur" if m.known else "is unknown in every sample"
            notes.append(f"label '{name}' {reason}: its metrics are nan")
    always = [name for name, m in by_label.items() if 0 < m.known == m.positives]
    notes += [f"label '{name}' always occurs: its AUROC is nan" for name in always]
    occurring = [m for m in by_label.values() if m.positives]
    f1 = np.array([m.f1 for m in occurring])
    positives = np.array([m.positives for m in occurring])
    hits, guesses, total = (true & guess).sum(), guess.sum(), true.sum()
    if not len(f1):
        notes.append("no label occurs: macro and weighted F1 are nan")
    return Metrics(
        accuracy=_mean(sample_jaccard(guess, true, empty=0)[measured]),
        accuracy_empty_1=_mean(sample_jaccard(guess, true, empty=1)[measured]),
        micro_f1=_ratio(2 * hits, guesses + total) if known.any() else NAN,
        macro_f1=float(f1.mean()) if len(f1) else NAN,
        weighted_f1=float(np.average(f1, weights=positives)) if len(f1) else NAN,
        precision=_ratio(hits, guesses) if known.any() else NAN,
        recall=_ratio(hits, total) if known.any() else NAN,
        hamming_loss=_mean((true != guess)[known]),
        subset_accuracy=_mean((true == guess).all(1)[measured]),
        lrap=ranking_precision(scores[measured], true[measured], known[measured]),
        calibration_error=calibration_error(scores[known], true[known]),
        labels=by_label,
        notes=notes,
    )


def measure_f1(
    scores: NDArray[Any], labels: NDArray[Any], thresholds: Mapping[str, float]
) -> dict[str, float]:
    """Compute `micro_f1` and `macro_f1` of scores (N, L) at thresholds by label, in the order of labels."""
    predicted = apply_thresholds(scores, np.array(list(thresholds.values())))
    metrics = compute_metrics(scores, predicted, labels, list(thresholds))
    return {"micro_f1": metrics.micro_f1, "macro_f1": metrics.macro_f1}


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


def ranking_precision(
    scores: NDArray[Any], true: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
) -> float:
    """Label ranking average precision, vectorized; scikit-learn loops over samples in Python.

    For each true label, the fraction of true labels among those with at least its score, averaged over the
    true labels of a sample, then over samples. It is 1 for samples without labels and with all labels.

    Args:
        scores: (N, L).
        true: true labels (N, L).
        known: which of them are known (N, L), with at least one in each sample; None: all.

    Returns:
        In [0, 1]; NaN without samples.
    """
    known = np.ones(true.shape, dtype=bool) if known is None else known
    as_high = (
        scores[:, None, :] >= scores[:, :, None]
    )  # (N, L, L): [:, i, j] if label j is ranked with or above i
    as_high &= known[:, None, :]
    precision = (as_high & true[:, None, :]).sum(2) / np.maximum(as_high.sum(2), 1)
    number = true.sum(1)
    ranked = (precision * true).sum(1) / np.maximum(number, 1)
    return _mean(np.where((number == 0) | (number == known.sum(1)), 1.0, ranked))


def label_metrics(scores: NDArray[Any], guess: NDArray[np.bool_], true: NDArray[np.bool_]) -> LabelMetrics:
    """Compute the metrics of one label from its scores, predictions and true labels, (N,) each."""
    positives, predicted, hits = int(true.sum()), int(guess.sum()), int((guess & true).sum())
    if not positives:
        return LabelMetrics(0, predicted, NAN, NAN, NAN, NAN, NAN, len(true))
    return LabelMetrics(
        positives=positives,
        predicted=predicted,
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, positives),
        f1=_ratio(2 * hits, positives + predicted),
        auroc=float(sk.roc_auc_score(true, scores)) if positives < len(true) else NAN,
        average_precision=float(sk.average_precision_score(true, scores)),
        known=len(true),
    )


def calibration_error(scores: NDArray[Any], true: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean difference of score and frequency over equal-width bins.

    Bins are weighted by their number of scores. scikit-learn has the curve (`calibration_curve`) only.

    Args:
        scores: (N, L) or (N,), in [0, 1].
        true: true labels of this shape.
    """
    flat, hit = scores.ravel().astype(np.float64), true.ravel()
    bins = np.minimum((flat * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, weights=flat - hit, minlength=BINS)
    return float(np.abs(gap).sum() / len(flat)) if len(flat) else NAN


def _unknown_notes(known: NDArray[np.bool_]) -> list[str]:
    """Describe unknown labels (N, L), in at most two lines."""
    if known.all():
        return []
    notes = [f"{known.sum()} of {known.size} labels are known: metrics are over these"]
    if nothing := int((~known.any(1)).sum()):
        notes.append(
            f"{nothing} of {len(known)} samples have no known label: left out of accuracy, subset accuracy "
            "and lrap"
        )
    return notes


def _mean(values: NDArray[Any]) -> float:
    """Mean, NaN without values."""
    return float(values.mean()) if values.size else NAN


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
