"""Cluster bootstrap: groups are resampled, so that the samples of a video or dialogue stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.known import split_labels
from carat.evaluation.metrics import sample_jaccard
from carat.evaluation.thresholds import f1_from_counts

RESAMPLES = 2000
COVERAGE = 0.95

Counts = dict[str, NDArray[np.float64]]
Interval = tuple[float, float]


def group_counts(predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any]) -> Counts:
    """Sum the counts from which metrics are computed over the samples of each group.

    Args:
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1, NaN where unknown; only known labels count, and samples that have any.
        groups: (N,) group names.

    Returns:
        Sums by name, (G, L) or (G, 1).
    """
    true, known = split_labels(labels)
    guess, number = predicted.astype(bool) & known, known.sum(1)
    measured = number > 0
    _, code = np.unique(groups, return_inverse=True)
    by_sample = {
        "tp": guess & true,
        "fp": guess & ~true,
        "fn": ~guess & true,
        "known": number[:, None],
        "accuracy": sample_jaccard(guess, true, empty=0)[:, None],
        "accuracy_empty_1": np.where(measured, sample_jaccard(guess, true, empty=1), 0)[:, None],
        "subset": ((guess == true).all(1) & measured)[:, None],
        "samples": measured[:, None],
    }
    sums = {}
    for name, values in by_sample.items():
        sums[name] = np.zeros((code.max() + 1, values.shape[1]))
        np.add.at(sums[name], code, values.astype(np.float64))
    return sums


def statistics(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Compute metrics (R,) by name from sums (R, …) over resampled groups."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    samples = counts["samples"][:, 0]
    f1 = f1_from_counts(tp, fp, fn)
    positives = tp + fn
    known = counts["known"][:, 0]
    is_known = np.where(known > 0, 1.0, np.nan)
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": counts["accuracy"][:, 0] / samples,
            "accuracy_empty_1": counts["accuracy_empty_1"][:, 0] / samples,
            "micro_f1": f1_from_counts(tp.sum(1), fp.sum(1), fn.sum(1)) * is_known,
            "macro_f1": (f1 * (positives > 0)).sum(1) / (positives > 0).sum(1),
            "weighted_f1": (f1 * positives).sum(1) / positives.sum(1),
            "precision": tp.sum(1) / np.maximum((tp + fp).sum(1), 1) * is_known,
            "recall": tp.sum(1) / np.maximum(positives.sum(1), 1) * is_known,
            "hamming_loss": (fp + fn).sum(1) / known,
            "subset_accuracy": counts["subset"][:, 0] / samples,
        }


def resample(groups: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Draw how often each group occurs in each resample: (R, G), each row sums to G."""
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def intervals(
    predicted: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute 95 % percentile intervals of the metrics.

    Args:
        predicted: (N, L), 0 or 1; or (S, N, L) for several seeds, whose metrics are averaged.
        labels: (N, L), 0 or 1, NaN where unknown.
        groups: (N,) group names.
        resamples: number of resamples R.
        seed: random seed of the resampling.

    Returns:
        Intervals by metric; NaN if there is a single group.
    """
    values = _bootstrap(predicted, labels, groups, resamples, seed)
    if len(np.unique(groups)) < 2:  # no variance between groups
        return dict.fromkeys(values, (float("nan"), float("nan")))
    return {name: percentiles(x[:, 1:].mean(0)) for name, x in values.items()}


def label_intervals(
    predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], names: Sequence[str]
) -> dict[str, Interval]:
    """Compute 95 % percentile intervals of the F1 of each label; see `intervals`."""
    counts = group_counts(predicted, labels, groups)
    number = len(counts["samples"])
    if number < 2:
        return dict.fromkeys(names, (float("nan"), float("nan")))
    draws = resample(number)
    tp, fp, fn = (draws @ counts[name] for name in ("tp", "fp", "fn"))
    f1 = np.where(tp + fn > 0, f1_from_counts(tp, fp, fn), np.nan)
    return {name: percentiles(column) for name, column in zip(names, f1.T, strict=True)}


@dataclass(frozen=True)
class Paired:
    """Difference of a metric between two methods, by paired bootstrap."""

    difference: float
    interval: Interval
    """95 % percentile interval."""
    p: float
    """Two-sided p-value: twice the fraction of resamples of the other sign, at least 1 / R."""


def paired_test(
    predicted: NDArray[Any],
    baseline: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    metric: str,
    *,
    over_seeds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Test the difference of a metric between two predictions of the same samples.

    Args:
        predicted: see `intervals`.
        baseline: predictions to compare with; the number of seeds may differ.
        labels: see `intervals`.
        groups: see `intervals`.
        metric: a key of `statistics`.
        over_seeds: resample seeds too, to include the variance between training runs; in pairs if both have
            the same number of seeds.
        resamples: see `intervals`.
        seed: see `intervals`.

    Returns:
        Difference of the metric, its interval and p-value.
    """
    values, baseline_values = (
        _bootstrap(p, labels, groups, resamples, seed)[metric] for p in (predicted, baseline)
    )
    difference = float(values[:, 0].mean() - baseline_values[:, 0].mean())
    values, baseline_values = values[:, 1:], baseline_values[:, 1:]
    if over_seeds:
        random = np.random.default_rng((seed, 1))
        seeds = random.integers(len(values), size=values.shape)
        is_paired = len(baseline_values) == len(values)
        baseline_seeds = (
            seeds if is_paired else random.integers(len(baseline_values), size=baseline_values.shape)
        )
        values = np.take_along_axis(values, seeds, axis=0)
        baseline_values = np.take_along_axis(baseline_values, baseline_seeds, axis=0)
    differences = values.mean(0) - baseline_values.mean(0)
    differences = differences[np.isfinite(differences)]
    if not len(differences):  # the metric is undefined
        return Paired(difference, (float("nan"), float("nan")), 1.0)
    smaller_tail = min((differences <= 0).mean(), (differences >= 0).mean())
    p = float(np.clip(2 * smaller_tail, 1 / resamples, 1))
    return Paired(difference, percentiles(differences), p)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests (Holm 1979), in the given order.

    SciPy only has corrections for the false discovery rate.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return [float(x) for x in corrected]


def _bootstrap(
    predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Compute metrics (S, 1 + R) by name: of the data itself, then of the resamples."""
    seeds = predicted[None] if predicted.ndim == 2 else predicted
    counts = [group_counts(guess, labels, groups) for guess in seeds]
    number = len(counts[0]["samples"])
    draws = np.vstack([np.ones(number), resample(number, resamples, seed)])
    metrics = [statistics({name: draws @ x for name, x in count.items()}) for count in counts]
    return {name: np.array([values[name] for values in metrics]) for name in metrics[0]}


def percentiles(values: NDArray[np.float64]) -> Interval:
    """95 % percentile interval of the finite values (R,); NaN without any."""
    tail = (1 - COVERAGE) / 2 * 100
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)
