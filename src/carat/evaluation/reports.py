"""What a person reads: metrics with intervals as data and text, training curves as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.confidence import Interval, intervals
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.evaluation.thresholds import apply_thresholds


@dataclass(frozen=True)
class Report:
    """Metrics of a split with 95 % intervals resampled by group."""

    split: str
    samples: int
    groups: int
    thresholds: dict[str, float]
    """By label; found on validation."""
    metrics: Metrics
    intervals: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined values are None, since JSON has no nan."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain


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
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
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
    figure.savefig(file, format="svg", metadata={"Date": None})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
