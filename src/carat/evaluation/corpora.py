"""Metrics of each corpus, in stores of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.formatting import mean_and_spread
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.utils.tables import Table

SHOWN = ("micro_f1", "macro_f1")
"""Metrics of the tables by corpus."""
CAPTION = "Micro-F1 / macro-F1 of the samples of each corpus, at the thresholds of all corpora together."

ByCorpus = Mapping[str, Sequence[Metrics]]
"""Metrics by corpus, one for each seed."""


def metrics_by_corpus(
    scores: NDArray[Any],
    predicted: NDArray[Any],
    labels: NDArray[Any],
    names: Sequence[str],
    corpora: NDArray[np.str_] | None,
) -> dict[str, Metrics]:
    """Compute the metrics of the samples of each corpus.

    Args:
        scores: (N, L), in [0, 1].
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1, NaN where unknown.
        names: L label names.
        corpora: (N,) corpus of each sample; None if the store has a single one.

    Returns:
        Metrics by corpus, in the order of the samples; empty for a single corpus.
    """
    metrics = {}
    for name in [] if corpora is None else dict.fromkeys(corpora.tolist()):
        rows = corpora == name
        metrics[name] = compute_metrics(scores[rows], predicted[rows], labels[rows], names)
    return metrics


def over_seeds(by_seed: Sequence[Mapping[str, Metrics]]) -> dict[str, list[Metrics]]:
    """Turn metrics by seed and corpus into metrics by corpus and seed; all seeds have the same corpora."""
    return {name: [metrics[name] for metrics in by_seed] for name in by_seed[0]}


def corpus_table(heading: str, rows: Mapping[str, ByCorpus]) -> Table:
    """Build the table of `SHOWN` by corpus, mean and standard deviation over the seeds.

    Args:
        heading: heading of the first column.
        rows: metrics by name of the row; a corpus that a row lacks is an empty cell.
    """
    corpora = list(dict.fromkeys(corpus for row in rows.values() for corpus in row))
    return Table(
        [heading, *corpora], [[name, *(_cell(row.get(c)) for c in corpora)] for name, row in rows.items()]
    )


def corpus_cells(by_corpus: ByCorpus, seed: int) -> dict[str, float]:
    """Cells of a table of seeds: `corpus <name> micro_f1` and so on, for the seed at an index."""
    return {
        f"corpus {corpus} {metric}": float(getattr(metrics[seed], metric))
        for corpus, metrics in by_corpus.items()
        for metric in SHOWN
    }


def _cell(metrics: Sequence[Metrics] | None) -> str | None:
    if metrics is None:
        return None
    return " / ".join(mean_and_spread([float(getattr(m, name)) for m in metrics]) for name in SHOWN)
