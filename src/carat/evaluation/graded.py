"""Metrics against graded labels, such as shares of votes or intensities divided by the largest one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from carat.evaluation.bootstrap import Interval, percentiles, resample
from carat.evaluation.thresholds import f1_from_counts
from carat.utils.tables import Table

STRONG = 2 / 3
"""Grade and score from which a label counts as strong."""
ROUNDING = 1e-6
"""Tolerance of grades in float32."""


@dataclass(frozen=True)
class GradedMetrics:
    """Metrics of scores against graded labels over the known ones; NaN where undefined."""

    spearman: float
    """Rank correlation of score and grade, in [−1, 1]."""
    rmse: float
    """Root mean squared difference of score and grade, in [0, 1]."""
    strong_f1: float
    """F1 of scores from 2/3 on against grades from 2/3 on, in [0, 1]."""
    strong: int
    """Number of grades from 2/3 on."""


METRICS = tuple(field.name for field in fields(GradedMetrics) if field.name != "strong")


@dataclass(frozen=True)
class GradedReport:
    """Metrics against graded labels: of each label, and their means with 95 % intervals resampled by group.

    Means are over the labels for which a metric is defined. Intervals of the rank correlation resample the
    ranks in the whole split instead of ranking each resample.
    """

    means: dict[str, float]
    """By metric: `spearman`, `rmse`, `strong_f1`."""
    intervals: dict[str, Interval]
    """(low, high) by metric; NaN if there is a single group."""
    labels: dict[str, GradedMetrics]

    def to_table(self, digits: int = 4) -> Table:
        """One row per label."""
        rows = [[name, *astuple(label)] for name, label in self.labels.items()]
        columns = ["label", "Spearman", "RMSE", "F1 at ≥ 2/3", "grades ≥ 2/3"]
        return Table(columns, rows, "Graded labels", digits)


def grade_scores(
    scores: NDArray[Any], grades: NDArray[Any], groups: NDArray[Any], names: Sequence[str]
) -> GradedReport:
    """Compare scores with graded labels.

    Args:
        scores: (N, L), in [0, 1].
        grades: (N, L), in [0, 1], NaN where unknown.
        groups: (N,) group names.
        names: L label names.
    """
    known = ~np.isnan(grades)
    labels = {
        name: _of_label(scores[rows, i].astype(float), grades[rows, i].astype(float))
        for i, (name, rows) in enumerate(zip(names, known.T, strict=True))
    }
    means = {name: _mean(np.array([getattr(x, name) for x in labels.values()])) for name in METRICS}
    return GradedReport(means, _intervals(scores, grades, groups), labels)


def _of_label(scores: NDArray[np.float64], grades: NDArray[np.float64]) -> GradedMetrics:
    guess, true = scores >= STRONG, is_strong(grades)
    hits, strong = int((guess & true).sum()), int(true.sum())
    is_constant = not len(grades) or np.ptp(grades) == 0 or np.ptp(scores) == 0
    return GradedMetrics(
        spearman=float("nan") if is_constant else float(spearmanr(scores, grades).statistic),
        rmse=float(np.sqrt(np.square(scores - grades).mean())) if len(grades) else float("nan"),
        strong_f1=2 * hits / (int(guess.sum()) + strong) if strong else float("nan"),
        strong=strong,
    )


def is_strong(grades: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether grades are at least 2/3; NaN is not."""
    return np.asarray(grades >= STRONG - ROUNDING)


def _intervals(scores: NDArray[Any], grades: NDArray[Any], groups: NDArray[Any]) -> dict[str, Interval]:
    """95 % percentile intervals of the means, from sums over resampled groups."""
    _, code = np.unique(groups, return_inverse=True)
    number = int(code.max(initial=-1)) + 1
    if number < 2:
        return dict.fromkeys(METRICS, (float("nan"), float("nan")))
    known = ~np.isnan(grades)
    target, guess = np.where(known, grades, 0.0), np.where(known, scores, 0.0).astype(float)
    a, b = _standard_ranks(guess, known), _standard_ranks(target, known)
    true, predicted = is_strong(grades) & known, (scores >= STRONG) & known
    values = (
        known, a, b, a * a, b * b, a * b, np.square(guess - target),
        true & predicted, predicted & ~true, true & ~predicted,
    )  # fmt: skip
    draws = resample(number)
    sums = []
    for x in values:
        by_group = np.zeros((number, x.shape[1]))
        np.add.at(by_group, code, x.astype(float))
        sums.append(draws @ by_group)  # (R, L)
    n, a, b, aa, bb, ab, errors, tp, fp, fn = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (ab - a * b / n) / np.sqrt((aa - a * a / n) * (bb - b * b / n))
        rmse = np.sqrt(errors / n)
        f1 = np.where(tp + fn > 0, f1_from_counts(tp, fp, fn), np.nan)
    resampled = {"spearman": rho, "rmse": rmse, "strong_f1": f1}
    return {name: percentiles(np.array([_mean(row) for row in x])) for name, x in resampled.items()}


def _standard_ranks(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ranks (N, L) of the known values of each label, with mean 0 and variance 1; 0 where unknown."""
    ranks = np.zeros(values.shape)
    for i, rows in enumerate(known.T):
        rank = rankdata(values[rows, i])
        spread = rank.std() if len(rank) else 0.0
        ranks[rows, i] = (rank - rank.mean()) / spread if spread else 0.0
    return ranks


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite values, NaN without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
