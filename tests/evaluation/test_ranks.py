"""Ranks of methods over data sets, the Friedman test, critical differences, and their diagram."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from carat.evaluation.plots import draw_mean_ranks
from carat.evaluation.ranks import (
    RankTest,
    critical_difference,
    friedman_nemenyi,
    indistinct_groups,
    rank,
    why_untested,
)

Q_05 = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
"""Critical values of the two-tailed Nemenyi test for 2 to 10 methods (Demšar 2006, table 5a)."""
Q_10 = [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]


def test_ranks_by_hand() -> None:
    values = np.array([[0.7, 0.9, 0.8], [0.5, 0.5, 0.1], [0.2, 0.2, 0.2], [0.3, 0.2, 0.2], [-1.0, 0.0, 2.0]])
    expected = [[3, 1, 2], [1.5, 1.5, 3], [2, 2, 2], [1, 2.5, 2.5], [3, 2, 1]]
    assert rank(values).tolist() == expected


def test_friedman_by_hand() -> None:
    """Ranks 1, 2, 3 on five data sets but one, where the first two are swapped."""
    values = np.array([[0.9, 0.8, 0.7]] * 4 + [[0.8, 0.9, 0.7]])
    sums, n, k = np.array([6, 9, 15]), 5, 3
    statistic = 12 / (n * k * (k + 1)) * (sums**2).sum() - 3 * n * (k + 1)
    test = friedman_nemenyi(values)
    assert test.statistic == pytest.approx(statistic)
    assert test.p == pytest.approx(math.exp(-statistic / 2))  # chi-squared of two degrees of freedom
    assert test.differ
    assert test.critical_difference == critical_difference(3, 5)


def test_equal_methods_do_not_differ() -> None:
    test = friedman_nemenyi(np.tile([[0.5], [0.25], [0.1], [0.3], [0.7]], 4))
    assert (test.statistic, test.p) == (0, 1)
    assert not test.differ
    assert indistinct_groups([2.5] * 4, test) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("alpha", "table"), [(0.05, Q_05), (0.1, Q_10)])
def test_critical_differences_equal_the_published_table(alpha: float, table: list[float]) -> None:
    for k, q in enumerate(table, start=2):
        for n in (5, 30):
            expected = q * math.sqrt(k * (k + 1) / (6 * n))
            assert critical_difference(k, n, alpha) == pytest.approx(expected, abs=6e-4 * k)
    assert critical_difference(5, 30) == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 30)), abs=3e-4)


def test_bars_are_the_largest_groups() -> None:
    test = RankTest(20.0, 0.001, 1.0)
    assert indistinct_groups([1.0, 1.5, 2.25, 4.0, 4.5], test) == [[0, 1], [1, 2], [3, 4]]
    assert indistinct_groups([4.5, 2.25, 1.5, 1.0, 4.0], test) == [[3, 2], [2, 1], [4, 0]]
    assert indistinct_groups([1.0, 1.25, 1.5, 1.75, 4.0], test) == [[0, 1, 2, 3]]
    assert indistinct_groups([1.0, 2.0, 3.0], test) == []  # at least the critical difference apart
    assert indistinct_groups([1.0, 2.0, 3.0], RankTest(1.0, 0.5, 1.0)) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("stores", "methods", "reason"),
    [
        (5, 3, ""),
        (4, 3, "4 stores are too few to test ranks (at least 5 are needed)"),
        (1, 3, "1 store is too few to test ranks"),
        (9, 2, "needs at least 3 methods, and 2 can be ranked"),
    ],
)
def test_what_a_test_needs(stores: int, methods: int, reason: str) -> None:
    found = why_untested(stores, methods)
    assert reason in found
    assert bool(found) == bool(reason)


def test_diagram_takes_names_as_they_are(tmp_path: Path) -> None:
    ranks = {"b$_1$": 3.0, "<i>a</i>": 1.25, "c": 1.75}
    for name in ("a.svg", "b.svg"):
        draw_mean_ranks(ranks, tmp_path / name, critical=0.75, groups=[["<i>a</i>", "c"]])
    draw_mean_ranks(ranks, tmp_path / "untested.svg", critical=None, groups=[])
    svg = (tmp_path / "a.svg").read_text()
    assert svg == (tmp_path / "b.svg").read_text()
    assert "&lt;i&gt;a&lt;/i&gt;" in svg
    assert "<i>" not in svg
    assert "3.00  b$_1$" in svg
    assert "critical difference 0.75" in svg
    assert "critical difference" not in (tmp_path / "untested.svg").read_text()
