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


def draw_mean_ranks(
    ranks: Mapping[str, float], file: Path, *, critical: float | None, groups: Sequence[Sequence[str]]
) -> None:
    """Draw a critical-difference diagram: mean ranks on an axis, and bars over methods that do not differ.

    Args:
        ranks: mean rank of two or more methods, 1 is the best.
        file: SVG file to write.
        critical: critical difference; None if there is no test, and then no bars either.
        groups: methods of each bar.
    """
    order = sorted(ranks, key=lambda name: ranks[name])
    half = (len(order) + 1) // 2
    top = 0.9 + 0.35 * len(groups)
    figure = new_figure(8, 1.4 + 0.33 * half + 0.15 * len(groups))
    axes = figure.subplots()
    axes.plot([1, len(order)], [0, 0], color="#222", linewidth=1.2)
    for tick in range(1, len(order) + 1):
        axes.plot([tick, tick], [-0.15, 0], color="#222", linewidth=1.2)
        axes.text(tick, -0.25, str(tick), ha="center", va="bottom", fontsize=9)
    reach = 0.04 * (len(order) - 1)
    for i, name in enumerate(order):
        left = i < half
        y = top + 0.8 * (i if left else len(order) - 1 - i)
        edge = 1 - reach if left else len(order) + reach
        axes.plot([ranks[name], ranks[name], edge], [0, y, y], color="#444", linewidth=0.9)
        text = f"{brief(name)}  {ranks[name]:.2f}" if left else f"{ranks[name]:.2f}  {brief(name)}"
        axes.text(edge, y, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center")
    for level, group in enumerate(groups, start=1):
        ends = [ranks[name] for name in group]
        y = 0.1 + 0.35 * level
        axes.plot([min(ends) - reach / 4, max(ends) + reach / 4], [y, y], color="#3b6fb6", linewidth=4)
    if critical is not None:
        axes.plot([1, 1 + critical], [-1.4, -1.4], color="#3b6fb6", linewidth=1.5, marker="|")
        axes.text(1 + critical / 2, -1.5, f"critical difference {critical:.2f}", ha="center", va="bottom")
    axes.set_ylim(top + 0.8 * half, -0.9 if critical is None else -2.2)
    axes.set_title("Mean ranks (1 is the best)" + ("" if critical is None else "; bars: no difference shown"))
    axes.axis("off")
    save(figure, file)
