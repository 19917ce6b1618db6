"""Expected calibration error and Brier score with intervals by group, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.bootstrap import Interval, percentiles, resample
from carat.evaluation.known import split_labels
from carat.evaluation.metrics import BINS
from carat.utils.tables import Table


@dataclass(frozen=True)
class Reliability:
    """How far scores are from frequencies, with 95 % intervals resampled by group; NaN where undefined."""

    calibration_error: float
    """Expected calibration error over 15 equal-width bins, see `carat.evaluation.metrics`."""
    calibration_error_interval: Interval
    brier: float
    """Brier score: mean squared difference of score and label."""
    brier_interval: Interval


@dataclass(frozen=True)
class Change:
    """Reliability of raw and of calibrated scores."""

    before: Reliability
    after: Reliability


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration changes, over all labels and by label."""

    kinds: dict[str, str]
    """Kind of map by label."""
    all: Change
    labels: dict[str, Change]

    def table(self, digits: int = 3) -> Table:
        """One row for all labels together, then one per label."""
        rows = [["all", "", *_cells(self.all, digits)]]
        rows += [[name, self.kinds[name], *_cells(x, digits)] for name, x in self.labels.items()]
        columns = ["label", "map", "ECE raw", "ECE calibrated", "Brier raw", "Brier calibrated"]
        return Table(columns, rows, "Calibration, with 95 % intervals")


def compare_reliability(
    raw: NDArray[Any],
    calibrated: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    kinds: Mapping[str, str],
) -> CalibrationReport:
    """Measure raw and calibrated scores (N, L) on the same samples.

    Args:
        raw: (N, L), in [0, 1].
        calibrated: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown; unknown labels are left out.
        groups: (N,) group names.
        kinds: kind of map by label, in the order of the L axis.
    """
    every = list(range(len(kinds)))
    changes = [
        Change(*(measure_reliability(s[:, columns], labels[:, columns], groups) for s in (raw, calibrated)))
        for columns in (every, *([i] for i in every))
    ]
    return CalibrationReport(dict(kinds), changes[0], dict(zip(kinds, changes[1:], strict=True)))


def measure_reliability(scores: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any]) -> Reliability:
    """Measure scores (N, L) over all known labels, with intervals over groups (N,)."""
    true, known = split_labels(labels)
    number, gap, squares = _group_sums(scores, true, known, groups)
    draws = np.vstack([np.ones(len(number)), resample(len(number))])
    with np.errstate(invalid="ignore"):
        total = draws @ number
        error = np.abs(draws @ gap).sum(1) / total
        brier = draws @ squares / total
    if len(number) < 2:
        nothing = (float("nan"), float("nan"))
        return Reliability(float(error[0]), nothing, float(brier[0]), nothing)
    return Reliability(float(error[0]), _centered(error), float(brier[0]), percentiles(brier[1:]))


def _centered(values: NDArray[np.float64]) -> Interval:
    """Interval of a sum of absolute values (0): its resamples (1:) are too large by as much as their mean."""
    excess = np.nanmean(values[1:]) - values[0]
    low, high = percentiles(values[1:] - excess)
    return max(low, 0.0), high


def _group_sums(
    scores: NDArray[Any], true: NDArray[np.bool_], known: NDArray[np.bool_], groups: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums over each group: known labels (G,), score minus label by bin (G, bins), squares of it (G,)."""
    _, code = np.unique(groups, return_inverse=True)
    size = int(code.max()) + 1 if len(code) else 0
    rows, _ = np.nonzero(known)
    s = scores[known].astype(np.float64)
    difference, code = s - true[known], code[rows]
    bins = np.minimum((s * BINS).astype(int), BINS - 1)
    gap = np.bincount(code * BINS + bins, weights=difference, minlength=size * BINS)
    squares = np.bincount(code, weights=difference**2, minlength=size).astype(np.float64)
    number = np.bincount(code, minlength=size)
    return number.astype(np.float64), gap.reshape(size, BINS).astype(np.float64), squares


def reliability_curve(
    scores: NDArray[Any], true: NDArray[np.bool_], bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean score, frequency and number of scores (N,) in each equal-width bin that has any."""
    code = np.minimum((scores.astype(np.float64) * bins).astype(int), bins - 1)
    number = np.bincount(code, minlength=bins)
    used = number > 0
    sums = (np.bincount(code, weights=x, minlength=bins)[used] for x in (scores, true))
    means = [x / number[used] for x in sums]
    return means[0], means[1], number[used]


def _cells(change: Change, digits: int) -> Sequence[str]:
    def cell(value: float, interval: Interval) -> str:
        return f"{value:.{digits}f} ({' – '.join(f'{end:.{digits}f}' for end in interval)})"

    both = (change.before, change.after)
    return [
        *(cell(x.calibration_error, x.calibration_error_interval) for x in both),
        *(cell(x.brier, x.brier_interval) for x in both),
    ]
