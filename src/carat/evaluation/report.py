"""What a person reads: metrics with intervals as data and text, training curves as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.bootstrap import Interval, intervals
from carat.evaluation.metrics import LabelMetrics, Metrics, compute_metrics
from carat.evaluation.thresholds import apply_thresholds
from carat.utils.plotting import new_figure, save
from carat.utils.rendering import to_frame, to_html

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """Metrics of a split with 95 % intervals resampled by group.

    Args:
        split: which split.
        samples: number of its samples that were scored.
        groups: number of their groups (videos or dialogues).
        thresholds: by label, in [0, 1], searched on validation.
        metrics: of the whole split, and label by label in `metrics.labels`.
        intervals: (low, high) by metric; nan with a single group.

    Example:
        report = carat.evaluate("demo-run", "demo-store")
        report.metrics.micro_f1, report.intervals["micro_f1"]
        report.to_frame(), report.label_frame()
    """

    split: str
    samples: int
    groups: int
    thresholds: dict[str, float]
    """By label; searched on validation."""
    metrics: Metrics
    intervals: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined values are None, since JSON has no nan."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: `metric`, `value`, and its 95 % interval in `low` and `high`.

        Metrics without an interval have None there.

        Raises:
            CaratError: pandas is not installed.
        """
        return to_frame(*self._rows())

    def label_frame(self) -> pd.DataFrame:
        """One row per label: `label`, `threshold`, `positives`, `predicted`, `precision`, `recall`, `f1`, …

        Raises:
            CaratError: pandas is not installed.
        """
        return to_frame(*self._label_rows())

    def _repr_html_(self) -> str:
        title = f"{self.split}: {self.samples} samples in {self.groups} groups"
        labels = to_html(*self._label_rows(), title="Labels", notes=self.metrics.notes)
        return f"{to_html(*self._rows(), title=title)}\n{labels}"

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        values = {name: value for name, value in vars(self.metrics).items() if isinstance(value, float)}
        rows = [[name, value, *self.intervals.get(name, (None, None))] for name, value in values.items()]
        return ["metric", "value", "low", "high"], rows

    def _label_rows(self) -> tuple[list[str], list[list[Any]]]:
        rows = [[name, self.thresholds[name], *astuple(label)] for name, label in self.metrics.labels.items()]
        return ["label", "threshold", *(field.name for field in fields(LabelMetrics))], rows


def make_report(
    split: str,
    scores: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    thresholds: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Report:
    """Evaluate scores (N, L) against labels (N, L) with thresholds by label name."""
    predicted = apply_thresholds(scores, np.array(list(thresholds.values())))
    metrics = compute_metrics(scores, predicted, labels, list(thresholds))
    metrics.notes.extend(notes)
    if len(np.unique(groups)) < 2:
        metrics.notes.append("a single group: there are no intervals")
    return Report(
        split=split,
        samples=len(labels),
        groups=len(np.unique(groups)),
        thresholds=dict(thresholds),
        metrics=metrics,
        intervals=intervals(predicted, labels, groups),
    )


def draw_curves(history: Sequence[Mapping[str, float]], best_epoch: int, file: Path) -> None:
    """Training loss and validation metrics by epoch, the kept epoch marked, as SVG.

    Args:
        history: one mapping per epoch with `epoch`, `train/total`, `valid/micro_f1`, `valid/macro_f1` and
            `valid/accuracy`.
        best_epoch: the epoch that was kept.
        file: where to write.
    """
    epochs = [row["epoch"] for row in history]
    figure = new_figure(9, 3.6)
    loss, score = figure.subplots(1, 2)
    loss.plot(epochs, [row["train/total"] for row in history], marker="o", color="#444")
    loss.set(title="Training", xlabel="epoch", ylabel="objective")
    for key, name in (("micro_f1", "micro-F1"), ("macro_f1", "macro-F1"), ("accuracy", "accuracy (Jaccard)")):
        score.plot(epochs, [row[f"valid/{key}"] for row in history], marker="o", label=name)
    score.axvline(best_epoch, color="#999", linestyle=":", label=f"kept: epoch {best_epoch}")
    score.set(title="Validation", xlabel="epoch", ylim=(0, 1.03))
    score.legend(fontsize=8)
    for axes in (loss, score):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.grid(alpha=0.3)
    save(figure, file)


def draw_differences(differences: Mapping[str, tuple[float, Interval]], file: Path) -> None:
    """Differences of micro-F1 to a base with their 95 % intervals, one line each, as SVG.

    Args:
        differences: difference and interval by name, in the order from top to bottom.
        file: where to write.
    """
    figure = new_figure(8, 1.2 + 0.28 * len(differences))
    axes = figure.subplots()
    for place, (difference, (low, high)) in enumerate(differences.values()):
        sure = low > 0 or high < 0
        colour = "#888" if not sure else "#2a7" if low > 0 else "#c33"
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([difference], [place], "o", color=colour)
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(len(differences) - 0.4, -0.6)
    axes.set(
        title="Difference to the full method (grey: the interval holds 0)",
        xlabel="test micro-F1, 95 % interval (paired bootstrap)",
    )
    axes.grid(alpha=0.3, axis="x")
    save(figure, file)


def mean_and_spread(values: Sequence[float]) -> str:
    """`.123 ± .004`, the standard deviation over the values; no spread for a single one.

    >>> mean_and_spread([0.5, 0.75]), mean_and_spread([-0.25])
    ('.625 ± .177', '-.250')
    """
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return short(f"{np.mean(values):.3f}{spread}")


def in_brackets(interval: Interval, signed: bool = False) -> str:
    """An interval as `.123 – .456`, or signed as `-.012 … +.345`.

    >>> in_brackets((0.25, 1.5)), in_brackets((-0.25, 0.5), signed=True)
    ('.250 – 1.500', '-.250 … +.500')
    """
    form = "{:+.3f} … {:+.3f}" if signed else "{:.3f} – {:.3f}"
    return short(form.format(*interval))


def signed(value: float) -> str:
    """`+.123` or `-.123`."""
    return short(f"{value:+.3f}")


def short(text: str) -> str:
    """Without the zero before the point."""
    return re.sub(r"\b0\.", ".", text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
