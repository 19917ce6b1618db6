"""Sensitivity of validation micro-F1 to settings, from the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from carat.runs.card import read_run
from carat.runs.folder import CARD
from carat.utils.errors import CaratError, RunError
from carat.utils.plotting import COLORS, new_figure, save
from carat.utils.tables import Table

Results = dict[str, dict[float, list[float]]]
"""Validation micro-F1 of runs, by setting and its value."""


def read_sweep(folder: Path, fingerprint: str) -> Results:
    """Read validation micro-F1 by setting from all finished runs below a folder.

    Args:
        folder: folder of runs, searched recursively.
        fingerprint: fingerprint of the training store; runs on other data are skipped.

    Returns:
        Results of the numeric settings that differ between runs.

    Raises:
        RunError: there is no folder, or no setting differs.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder of runs")
    runs = []
    for card_file in sorted(folder.rglob(CARD)):
        try:
            card, experiment = read_run(card_file.parent)
        except CaratError:
            continue  # unfinished or corrupt
        score = card.validation.get("micro_f1")
        if score is not None and card.fingerprint == fingerprint:
            runs.append((_flatten_numbers(experiment.model_dump(include={"method", "training"})), score))
    settings = sorted({name for values, _ in runs for name in values})
    results: Results = {}
    for name in settings:
        by_value: dict[float, list[float]] = {}
        for values, score in runs:
            if name in values:
                by_value.setdefault(values[name], []).append(score)
        if len(by_value) > 1:
            results[name] = dict(sorted(by_value.items()))
    if not results:
        raise RunError(
            f"{folder}: {len(runs)} finished runs on the same data; expected at least two with different "
            f"settings"
        )
    return results


def draw_sensitivity(results: Results, out: Path) -> list[Path]:
    """Write `sensitivity.svg` and `.csv`, with a curve for each setting; see `read_sweep`."""
    from matplotlib.ticker import LogFormatter, NullFormatter

    columns = min(3, len(results))
    num_rows = -(-len(results) // columns)
    figure = new_figure(4.2 * columns, 0.6 + 3 * num_rows)
    figure.suptitle("Validation micro-F1 by setting; points are runs, the line is their mean")
    grid = figure.subplots(num_rows, columns, squeeze=False).ravel()
    for axes, (name, by_value) in zip(grid, results.items(), strict=False):
        for value, scores in by_value.items():
            axes.plot([value] * len(scores), scores, "o", color=COLORS[0], alpha=0.4, markersize=4)
        axes.plot(list(by_value), [np.mean(scores) for scores in by_value.values()], color=COLORS[0])
        positive = [value for value in by_value if value > 0]
        if len(positive) == len(by_value) and max(positive) >= 10 * min(positive):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatter())  # the usual one writes formulas, see `save`
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(title=name, xlabel=name.rpartition(".")[2], ylabel="validation micro-F1")
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    for axes in grid[len(results) :]:
        axes.remove()
    save(figure, out / "sensitivity.svg")
    rows = [
        [name, value, len(scores), np.mean(scores), np.std(scores, ddof=1) if len(scores) > 1 else None]
        for name, by_value in results.items()
        for value, scores in by_value.items()
    ]
    Table(["setting", "value", "runs", "mean_validation_micro_f1", "standard_deviation"], rows).to_csv(
        out / "sensitivity.csv"
    )
    return [out / "sensitivity.svg", out / "sensitivity.csv"]


def _flatten_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Collect the numbers of a nested mapping by dotted name."""
    numbers: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            numbers |= _flatten_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[f"{prefix}{key}"] = float(value)
    return numbers
