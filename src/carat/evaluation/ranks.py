"""Comparison of methods over several data sets by their ranks.

Source: J. Demšar, "Statistical comparisons of classifiers over multiple data sets", Journal of Machine
Learning Research 7 (2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Level of significance of all tests."""
MIN_DATA_SETS = 5
"""Data sets below which there is no test: too few to reject anything, however different the methods are."""
MIN_METHODS = 3
"""Methods below which there is no Friedman test."""


@dataclass(frozen=True)
class RankTest:
    """Friedman test of ranks and Nemenyi's post-hoc test."""

    statistic: float
    """Friedman's chi-squared."""
    p: float
    """p-value of equal methods."""
    critical_difference: float
    """Difference of mean ranks from which two methods differ, at the level `ALPHA`."""

    @property
    def differ(self) -> bool:
        """Whether any methods differ; otherwise pairs of them are not to be compared."""
        return self.p < ALPHA


def rank(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rank methods on every data set: 1 is the highest value, and ties get their mean rank.

    Args:
        values: finite values (N, K) of K methods on N data sets; higher is better.

    Returns:
        (N, K), in [1, K].

    >>> rank(np.array([[0.5, 0.7, 0.5]])).tolist()
    [[2.5, 1.0, 2.5]]
    """
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(-values, method="average", axis=1)
    return ranks


def friedman_nemenyi(values: NDArray[Any]) -> RankTest:
    """Test whether methods differ over data sets; see `why_untested` for what it needs.

    Args:
        values: see `rank`; N ≥ `MIN_DATA_SETS` and K ≥ `MIN_METHODS`.
    """
    from scipy.stats import friedmanchisquare

    number, methods = values.shape
    if (values == values[:, :1]).all():  # SciPy divides by zero
        statistic, p = 0.0, 1.0
    else:
        statistic, p = map(float, friedmanchisquare(*values.T))
    return RankTest(statistic, p, critical_difference(methods, number))


def why_untested(data_sets: int, methods: int) -> str:
    """Return the reason why ranks cannot be tested; empty if they can."""
    if methods < MIN_METHODS:
        return f"the Friedman test needs at least {MIN_METHODS} methods, and {methods} can be ranked"
    if data_sets < MIN_DATA_SETS:
        few = "1 store is" if data_sets == 1 else f"{data_sets} stores are"
        return (
            f"{few} too few to test ranks (at least {MIN_DATA_SETS} are needed): the test would "
            "miss most differences, and its p-value is no good approximation"
        )
    return ""


def critical_difference(methods: int, data_sets: int, alpha: float = ALPHA) -> float:
    """Compute Nemenyi's critical difference of mean ranks, q √(K (K + 1) / 6 N).

    q is the upper quantile of the studentized range of K groups with infinite degrees of freedom, over √2.

    Args:
        methods: K ≥ 2.
        data_sets: N ≥ 1.
        alpha: level of significance.

    >>> round(critical_difference(4, 14, alpha=0.1), 2)
    1.12
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * data_sets)))


def indistinct_groups(mean_ranks: Sequence[float], test: RankTest) -> list[list[int]]:
    """Find the largest groups of methods that do not differ, as the bars of a critical-difference diagram.

    Args:
        mean_ranks: mean ranks (K,) of the methods.
        test: test of the same ranks. If no methods differ, all of them are one group.

    Returns:
        Indices of the methods of each group, of two or more, the best first.
    """
    order = [int(i) for i in np.argsort(mean_ranks, kind="stable")]
    if not test.differ:
        return [order]
    groups: list[list[int]] = []
    for start, first in enumerate(order):
        near = [i for i in order[start:] if mean_ranks[i] - mean_ranks[first] < test.critical_difference]
        if len(near) > 1 and not (groups and near[-1] == groups[-1][-1]):
            groups.append(near)
    return groups
