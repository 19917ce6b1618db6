"""Result of a comparison, for notebooks and further analysis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from carat.studies.leaderboard.evaluation import BASE, COMPARED, MethodResult
from carat.studies.leaderboard.tables import METRICS, score_table
from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")
COSTS = ("parameters", "seconds_per_epoch", "epochs", "samples_per_second", "peak_gb")


class Leaderboard(list[MethodResult]):
    """Results of `compare`, one per method, the best mean test micro-F1 first.

    Example:
        board = carat.compare("demo-store", "leaderboard", methods=["prior", "br"], seeds=2)
        board[0].method, board.to_frame()[["method", "micro_f1", "micro_f1_low", "micro_f1_high"]]
    """

    def __repr__(self) -> str:
        methods = ", ".join(f"{x.method} {x.mean('micro_f1'):.3f}" for x in self)
        return f"Leaderboard({methods})"

    def to_frame(self) -> pd.DataFrame:
        """Convert the test results to a data frame with one row per method.

        Returns:
            Columns `method`, `seeds` (their number), for each metric `<metric>` (mean over the seeds),
            `<metric>_std` and, if bootstrapped, `<metric>_low` and `<metric>_high` (95 % interval, by group);
            for micro- and macro-F1 `<metric>_minus_carat` with `_low`, `_high` and `_p` (NaN without CARAT);
            `parameters`, `seconds_per_epoch`, `epochs`, `samples_per_second`, `peak_gb`.

        Raises:
            CaratError: pandas is not installed.
        """
        records = [dict(_cells(result)) for result in self]
        table = Table.from_records(records) if records else Table(["method"], [])
        return table.to_frame()

    def _repr_html_(self) -> str:
        if not self:
            return "<p>no methods</p>"
        return replace(score_table(self), title="Leaderboard, test split").to_html()


def _cells(result: MethodResult) -> Iterator[tuple[str, Any]]:
    yield "method", result.method
    yield "seeds", len(result.seeds)
    for metric in METRICS:
        values = result.values(metric)
        yield metric, float(np.mean(values))
        yield f"{metric}_std", float(np.std(values, ddof=1)) if len(values) > 1 else NAN
        if metric in result.interval:
            yield f"{metric}_low", result.interval[metric][0]
            yield f"{metric}_high", result.interval[metric][1]
    for metric in COMPARED:
        paired, name = result.against.get(metric), f"{metric}_minus_{BASE}"
        yield name, paired.difference if paired else NAN
        yield f"{name}_low", paired.interval[0] if paired else NAN
        yield f"{name}_high", paired.interval[1] if paired else NAN
        yield f"{name}_p", paired.p if paired else NAN
    for name in COSTS:
        yield name, getattr(result, name)
