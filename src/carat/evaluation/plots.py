"""SVG figures of training curves and of differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from carat.evaluation.bootstrap import Interval
from carat.utils.plotting import brief, new_figure, save


def draw_curves(history: Sequence[Mapping[str, float]], best_epoch: int, file: Path) -> None:
    """Draw training loss and validation metrics by epoch, and mark the best epoch.

    Args:
        history: one mapping per epoch with `epoch`, `train/total`, `valid/micro_f1`, `valid/macro_f1` and
            `valid/accuracy`.
        best_epoch: epoch of the checkpoint that was kept.
        file: SVG file to write.
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
    """Draw differences in micro-F1 from a baseline with their 95 % intervals.

    Args:
        differences: difference and interval by name, in the order from top to bottom.
        file: SVG file to write.
    """
    figure = new_figure(8, 1.2 + 0.28 * len(differences))
    axes = figure.subplots()
    for y, (difference, (low, high)) in enumerate(differences.values()):
        color = "#2a7" if low > 0 else "#c33" if high < 0 else "#888"
        axes.plot([low, high], [y, y], color=color, linewidth=2)
        axes.plot([difference], [y], "o", color=color)
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_yticks(range(len(differences)), [brief(name) for name in differences])
    axes.set_ylim(len(differences) - 0.4, -0.6)
    axes.set(
        title="Difference from the full method (gray: the interval includes 0)",
        xlabel="test micro-F1, 95 % interval (paired bootstrap)",
    )
    axes.grid(alpha=0.3, axis="x")
    save(figure, file)
