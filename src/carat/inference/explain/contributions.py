"""Which modality carries which label, and which labels go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.inference.explain.collect import Gathered
from carat.utils.plotting import heat_map, new_figure, save
from carat.utils.tables import Table


def contributions(gathered: Gathered) -> tuple[NDArray[Any], NDArray[Any], int]:
    """How often each modality wins the max, its mean softmax weight, (M, L) each, and of how many samples.

    Only samples that have all modalities count: elsewhere some could not win.
    """
    whole = gathered.modality_mask.all(1)
    if not whole.any():
        nothing = np.full((len(gathered.modalities), len(gathered.labels)), np.nan)
        return nothing, nothing, 0
    winners = gathered.attribution[whole]  # (N, L)
    wins = np.stack([(winners == m).mean(0) for m in range(len(gathered.modalities))])
    return wins, gathered.weights[whole].mean(0), int(whole.sum())


def draw_contributions(gathered: Gathered, out: Path) -> list[Path]:
    """Write `contributions.svg` and `.csv`; nothing for a single modality or where no sample has all."""
    wins, weights, samples = contributions(gathered)
    if not samples or len(gathered.modalities) < 2:
        return []
    size = (3.2 + 1.5 * len(gathered.labels), 1.8 + 0.5 * len(gathered.modalities))
    figure = new_figure(*size)
    figure.suptitle(
        f"Which modality carries which label ({samples} samples with all modalities, {gathered.split})"
    )
    titles = ("share of samples in which it wins the max", "mean softmax weight over the modalities")
    for axes, values, title in zip(figure.subplots(1, 2), (wins, weights), titles, strict=True):
        heat_map(axes, values, gathered.modalities, gathered.labels)
        axes.set_title(title, fontsize=10)
    save(figure, out / "contributions.svg")
    rows = [
        [gathered.modalities[m], gathered.labels[label], share, weights[m, label], samples]
        for (m, label), share in np.ndenumerate(wins)
    ]
    columns = ["modality", "label", "share_of_wins", "mean_weight", "samples"]
    Table(columns, rows).to_csv(out / "contributions.csv")
    return [out / "contributions.svg", out / "contributions.csv"]


def draw_co_occurrence(gathered: Gathered, out: Path) -> list[Path]:
    """Write `co_occurrence.svg` and `.csv`: of the samples with one label, which share has another."""
    labels = gathered.labels
    figure = new_figure(3.4 + 1.4 * len(labels), 2.2 + 0.5 * len(labels))
    figure.suptitle(
        f"Labels that go together ({len(gathered.truth)} samples, {gathered.split}): of the samples with the "
        f"label of the row, the share that has that of the column"
    )
    counts = {}
    for axes, (what, marked) in zip(
        figure.subplots(1, 2),
        {"truth": gathered.truth, "prediction": gathered.predicted}.items(),
        strict=True,
    ):
        together = marked.T.astype(np.int64) @ marked.astype(np.int64)  # (L, L)
        counts[what] = together
        own = together.diagonal().astype(float)
        shares = np.divide(
            together, own[:, None], out=np.full(together.shape, np.nan), where=own[:, None] > 0
        )
        np.fill_diagonal(shares, np.nan)
        named = [f"{name} ({n:.0f})" for name, n in zip(labels, own, strict=True)]
        heat_map(axes, shares, named, labels)
        axes.set_title(what, fontsize=10)
    save(figure, out / "co_occurrence.svg")
    rows = [
        [first, second, *(int(together[i, j]) for together in counts.values())]
        for i, first in enumerate(labels)
        for j, second in enumerate(labels)
    ]
    Table(["label", "other", *counts], rows).to_csv(out / "co_occurrence.csv")
    return [out / "co_occurrence.svg", out / "co_occurrence.csv"]
