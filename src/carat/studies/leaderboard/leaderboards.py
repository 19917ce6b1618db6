"""Result of a comparison over several stores: leaderboards, ranks, and the test of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.formatting import mean_and_spread
from carat.evaluation.ranks import RankTest, friedman_nemenyi, indistinct_groups, rank, why_untested
from carat.studies.leaderboard.result import Leaderboard
from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd

RANKED = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "rarest_f1": "F1 of the rarest label",
    "accuracy": "accuracy (Jaccard)",
}
"""Metrics by which methods can be ranked."""
NAN = float("nan")


@dataclass(frozen=True)
class Leaderboards:
    """Results of `compare` over several stores. Dictionaries of stores are in the given order.

    Example:
        boards = carat.compare(["demo-store", "second-store"], "leaderboards", methods=["prior", "br"])
        boards.mean_ranks, boards.test
        boards.by_store["synthetic"].to_frame(), boards.to_frame()
    """

    by_store: Mapping[str, Leaderboard]
    """Leaderboard of each store; empty if every method failed on it."""
    metric: str
    """Metric that is ranked, a key of `RANKED`: mean over the seeds, at the thresholds of validation."""
    mean_ranks: Mapping[str, float]
    """Mean rank of each method over the stores, the best first; 1 is the best, ties share their mean."""
    ranks: Mapping[str, Mapping[str, float]]
    """Rank by store and method, without stores and methods that are left out; see `notes`."""
    test: RankTest | None
    """Friedman test and Nemenyi's critical difference; None if there are too few stores or methods."""
    untested: str
    """Why there is no test."""
    groups: Sequence[Sequence[str]]
    """Largest groups of methods that do not differ, the best first; empty without a test."""
    failed: Mapping[str, Mapping[str, str]]
    """Reason by store and method that failed."""
    notes: Sequence[str]
    """Why methods or stores are not ranked."""

    def __repr__(self) -> str:
        methods = ", ".join(f"{name} {value:.2f}" for name, value in self.mean_ranks.items())
        return f"Leaderboards({len(self.by_store)} stores, mean ranks: {methods})"

    @property
    def methods(self) -> list[str]:
        """All methods: the ranked ones, the best first, then the others."""
        names = [x.method for board in self.by_store.values() for x in board]
        names += [name for failed in self.failed.values() for name in failed]
        return list(dict.fromkeys([*self.mean_ranks, *names]))

    def values(self, store: str, method: str) -> list[float]:
        """Values of the metric by seed; empty if the method failed on the store."""
        return next((x.values(self.metric) for x in self.by_store[store] if x.method == method), [])

    def to_frame(self) -> pd.DataFrame:
        """Convert to a data frame with one row per store and method.

        Returns:
            Columns `store`, `method`, the metric (mean over the seeds), `<metric>_std`, `rank` on this store,
            and `mean_rank` over the stores; NaN where a method failed or is not ranked.

        Raises:
            CaratError: pandas is not installed.
        """
        columns = ["store", "method", self.metric, f"{self.metric}_std", "rank", "mean_rank"]
        return Table(columns, [self._cells(s, m) for s in self.by_store for m in self.methods]).to_frame()

    def _cells(self, store: str, method: str) -> list[Any]:
        values = self.values(store, method)
        mean = float(np.mean(values)) if values else NAN
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
        own = self.ranks.get(store, {}).get(method, NAN)
        return [store, method, mean, spread, own, self.mean_ranks.get(method, NAN)]

    def table(self, title: str = "") -> Table:
        """Build the table of the metric by method and store, with ranks in brackets."""
        rows = [
            [m, f"{self.mean_ranks[m]:.2f}" if m in self.mean_ranks else "", *self._texts(m)]
            for m in self.methods
        ]
        return Table(["method", "mean rank", *self.by_store], rows, title)

    def _texts(self, method: str) -> list[str]:
        texts = []
        for store in self.by_store:
            values, own = self.values(store, method), self.ranks.get(store, {}).get(method)
            text = mean_and_spread(values) if values else "failed"
            texts.append(text if own is None else f"{text} ({own:g})")
        return texts

    def _repr_html_(self) -> str:
        title = f"Test {RANKED[self.metric]} (rank) on {len(self.by_store)} stores"
        return self.table(title).to_html([self.conclusion(), *self.notes])

    def conclusion(self) -> str:
        """Describe the result of the test, or why there is none."""
        if self.test is None:
            return f"Mean ranks only, without a test: {self.untested}."
        test, stores = self.test, len(self.ranks)
        p = "p < .001" if test.p < 0.001 else f"p = {test.p:.3f}"
        text = (
            f"Friedman test over {stores} stores and {len(self.mean_ranks)} methods: chi-squared "
            f"{test.statistic:.2f}, {p}. "
        )
        if test.differ:
            text += (
                f"Two methods differ (Nemenyi, level 5 %) if their mean ranks are at least "
                f"{test.critical_difference:.2f} apart, the critical difference."
            )
        else:
            text += "No difference between the methods is shown, so that no pair of them is compared."
        if stores <= FEW_STORES or len(self.mean_ranks) <= FEW_METHODS:
            text += (
                f" The p-value is a chi-squared approximation, which is rough for {FEW_STORES} stores or "
                f"fewer and for {FEW_METHODS} methods or fewer."
            )
        return text


FEW_STORES, FEW_METHODS = 10, 6
"""Up to which the p-value of the Friedman test is a rough approximation, as SciPy documents."""


def rank_methods(
    boards: Mapping[str, Leaderboard], failed: Mapping[str, Mapping[str, str]], metric: str
) -> Leaderboards:
    """Rank the methods that have a result on every store.

    Stores are left out on which every method failed or the metric is undefined, and methods that failed on
    one of the other stores.

    Args:
        boards: leaderboard by store.
        failed: reason by store and method that failed.
        metric: a key of `RANKED`.
    """
    means = {store: {x.method: x.mean(metric) for x in board} for store, board in boards.items()}
    notes, stores = [], []
    for store, values in means.items():
        if not values:
            reason = next(iter(failed[store].values()), "")
            notes.append(f"store {store} is not ranked: every method failed, the first one: {reason}")
        elif not np.isfinite(list(values.values())).all():
            notes.append(f"store {store} is not ranked: its {RANKED[metric]} is undefined")
        else:
            stores.append(store)
    names = list(dict.fromkeys(name for store in stores for name in means[store]))
    methods = [name for name in names if all(name in means[store] for store in stores)]
    notes += [
        f"{name} is not ranked: it failed on store {store}: {reason}"
        for store in stores
        for name, reason in failed[store].items()
    ]
    table = np.array([[means[store][name] for name in methods] for store in stores])
    table = table.reshape(len(stores), len(methods))  # also if either is 0
    return _ranked(boards, failed, metric, stores, methods, table, notes)


def _ranked(
    boards: Mapping[str, Leaderboard],
    failed: Mapping[str, Mapping[str, str]],
    metric: str,
    stores: Sequence[str],
    methods: Sequence[str],
    values: NDArray[np.float64],
    notes: Sequence[str],
) -> Leaderboards:
    """Rank values (stores, methods), and test the ranks if there are enough of them."""
    ranks = rank(values) if values.size else values
    mean = ranks.mean(0) if values.size else np.zeros(0)
    untested = why_untested(len(stores), len(methods))
    test = None if untested else friedman_nemenyi(values)
    groups = [] if test is None else indistinct_groups(mean.tolist(), test)
    order = np.argsort(mean, kind="stable")
    return Leaderboards(
        by_store=boards,
        metric=metric,
        mean_ranks={methods[i]: float(mean[i]) for i in order},
        ranks={
            s: dict(zip(methods, row, strict=True)) for s, row in zip(stores, ranks.tolist(), strict=True)
        },
        test=test,
        untested=untested,
        groups=[[methods[i] for i in group] for group in groups],
        failed=failed,
        notes=notes,
    )
