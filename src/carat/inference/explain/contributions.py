"""Contributions of modalities to labels, and co-occurrence of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.inference.explain.collect import SplitOutputs
from carat.utils.plotting import heat_map, new_figure, save
from carat.utils.tables import Table


def modality_contributions(outputs: SplitOutputs) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Compute how much each modality contributes to each label, over the samples with all modalities.

    Returns:
        Fraction of samples attributed to the modality (M, L), mean softmax weight (M, L), and the number of
        samples; NaN if there are none.
    """
    complete = outputs.modality_mask.all(1)
    if not complete.any():
        undefined = np.full((len(outputs.modalities), len(outputs.labels)), np.nan)
        return undefined, undefined, 0
    attribution = outputs.attribution[complete]  # (N, L)
    wins = np.stack([(attribution == m).mean(0) for m in range(len(outputs.modalities))])
    return wins, outputs.weights[complete].mean(0), int(complete.sum())


def draw_contributions(outputs: SplitOutputs, out: Path) -> list[Path]:
    """Write `contributions.svg` and `.csv`, unless there is one modality or no sample has all of them."""
    wins, weights, samples = modality_contributions(outputs)
    if not samples or len(outputs.modalities) < 2:
        return []
    size = (3.2 + 1.5 * len(outputs.labels), 1.8 + 0.5 * len(outputs.modalities))
    figure = new_figure(*size)
    figure.suptitle(
        f"Contributions of modalities to labels ({samples} samples with all modalities, {outputs.split})"
    )
    titles = ("fraction of samples attributed to the modality", "mean softmax weight over the modalities")
    for axes, values, title in zip(figure.subplots(1, 2), (wins, weights), titles, strict=True):
        heat_map(axes, values, outputs.modalities, outputs.labels)
        axes.set_title(title, fontsize=10)
    save(figure, out / "contributions.svg")
    rows = [
        [outputs.modalities[m], outputs.labels[label], fraction, weights[m, label], samples]
        for (m, label), fraction in np.ndenumerate(wins)
    ]
    columns = ["modality", "label", "share_of_wins", "mean_weight", "samples"]
    Table(columns, rows).to_csv(out / "contributions.csv")
    return [out / "contributions.svg", out / "contributions.csv"]


def draw_co_occurrence(outputs: SplitOutputs, out: Path) -> list[Path]:
    """Write `co_occurrence.svg` and `.csv`: fraction of the samples with one label that have another.

    Samples in which the other label is unknown do not count.
    """
    labels = outputs.labels
    figure = new_figure(3.4 + 1.4 * len(labels), 2.2 + 0.5 * len(labels))
    figure.suptitle(
        f"Co-occurrence of labels ({len(outputs.truth)} samples, {outputs.split}): fraction of the samples "
        f"with the label of the row that have the label of the column"
    )
    counts = {}
    panels = {
        "truth": (outputs.truth, outputs.known),
        "prediction": (outputs.predicted, np.ones_like(outputs.known)),
    }
    for axes, (name, (present, known)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        co_occurrences = present.T.astype(np.int64) @ present.astype(np.int64)  # (L, L)
        counts[name] = co_occurrences
        totals = present.T.astype(np.int64) @ known.astype(np.int64)  # (L, L)
        fractions = np.divide(
            co_occurrences, totals, out=np.full(co_occurrences.shape, np.nan), where=totals > 0
        )
        np.fill_diagonal(fractions, np.nan)
        row_names = [f"{label} ({n})" for label, n in zip(labels, totals.diagonal(), strict=True)]
        heat_map(axes, fractions, row_names, labels)
        axes.set_title(name, fontsize=10)
    save(figure, out / "co_occurrence.svg")
    rows = [
        [first, second, *(int(co_occurrences[i, j]) for co_occurrences in counts.values())]
        for i, first in enumerate(labels)
        for j, second in enumerate(labels)
    ]
    Table(["label", "other", *counts], rows).to_csv(out / "co_occurrence.csv")
    return [out / "co_occurrence.svg", out / "co_occurrence.csv"]
