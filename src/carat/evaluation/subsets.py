"""Metrics of parts of a split: by corpus, speaker, gender or any other attribute, and the largest gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.bootstrap import Interval, group_counts, percentiles, resample, statistics
from carat.evaluation.formatting import decimal
from carat.utils.tables import Table

METRICS = ("micro_f1", "macro_f1", "recall", "precision")
FEW = 20
"""Groups below which intervals are marked: a bootstrap over so few is too narrow."""
NAN = float("nan")


@dataclass(frozen=True)
class Subset:
    """Metrics of the samples with one value; NaN where undefined."""

    samples: int
    groups: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Subsets:
    """Metrics by value of an attribute.

    Args:
        attribute: its name.
        values: by value, in alphabetical order.
        highest: value with the highest micro-F1.
        lowest: value with the lowest micro-F1.
        gap: difference of the two, in micro-F1.
        gap_interval: its 95 % interval, by resampling groups; NaN if either has fewer than two groups. The
            two were chosen for their difference, so it is too far from 0.
    """

    attribute: str
    values: dict[str, Subset]
    highest: str
    lowest: str
    gap: float
    gap_interval: Interval

    def table(self) -> Table:
        """One row per value; `~` marks intervals from few groups."""
        rows = []
        for value, x in self.values.items():
            mark = "~" if x.groups < FEW else ""
            cells = [f"{decimal(x.metrics[m])} {_format(x.intervals[m])}{mark}" for m in METRICS]
            rows.append([value, x.samples, x.groups, *cells])
        names = [m.replace("_f1", "-F1") for m in METRICS]
        title = f"By {self.attribute}, with 95 % intervals (~: fewer than {FEW} groups)"
        return Table([self.attribute, "samples", "groups", *names], rows, title)

    def summary(self) -> str:
        """The largest gap, in one line."""
        return (
            f"largest gap by {self.attribute}: micro-F1 of '{self.highest}' minus '{self.lowest}' "
            f"{decimal(self.gap)} {_format(self.gap_interval)}"
        )


def measure_subsets(
    attribute: str,
    values: NDArray[np.str_],
    predicted: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
) -> Subsets:
    """Measure the samples of each value.

    Args:
        attribute: its name.
        values: (N,); samples with "" are left out.
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1, NaN where unknown.
        groups: (N,) group names; one may have samples of several values.
    """
    names = sorted(set(values.tolist()) - {""})
    number = len(np.unique(groups))
    draws = np.vstack([np.ones(number), resample(number)])
    subsets, resampled = {}, {}
    for name in names:
        rows = values == name
        own = np.where(rows[:, None], labels.astype(np.float64), np.nan)  # counted over all groups
        counts = {k: draws @ x for k, x in group_counts(predicted, own, groups).items()}
        statistic = statistics(counts)
        several = len(np.unique(groups[rows])) > 1
        resampled[name] = statistic["micro_f1"]
        subsets[name] = Subset(
            int(rows.sum()),
            len(np.unique(groups[rows])),
            {m: float(statistic[m][0]) for m in METRICS},
            {m: percentiles(statistic[m][1:]) if several else (NAN, NAN) for m in METRICS},
        )
    defined = [x for x in names if np.isfinite(subsets[x].metrics["micro_f1"])]
    if not defined:
        return Subsets(attribute, subsets, "", "", NAN, (NAN, NAN))
    ranked = sorted(defined, key=lambda x: subsets[x].metrics["micro_f1"])
    low, high = ranked[0], ranked[-1]
    differences = resampled[high] - resampled[low]
    several = min(subsets[low].groups, subsets[high].groups) > 1
    interval = percentiles(differences[1:]) if several else (NAN, NAN)
    return Subsets(attribute, subsets, high, low, float(differences[0]), interval)


def _format(interval: Interval) -> str:
    return f"({' – '.join(decimal(x) for x in interval)})" if np.isfinite(interval).all() else "(–)"
