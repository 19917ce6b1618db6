"""Reliability diagrams as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carat.evaluation.calibration.reliability import reliability_curve
from carat.evaluation.known import split_labels
from carat.utils.plotting import COLORS, brief, new_figure, save

COLUMNS = 4


def draw_reliability(
    raw: NDArray[Any], calibrated: NDArray[Any], labels: NDArray[Any], names: Sequence[str], file: Path
) -> None:
    """Draw a reliability diagram for each label: frequency over mean score, raw and calibrated.

    Marks are as large as their bins are full.

    Args:
        raw: (N, L), in [0, 1].
        calibrated: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown; unknown labels are left out.
        names: L label names.
        file: SVG file to write.
    """
    true, known = split_labels(labels)
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = new_figure(2.6 * columns, 2.7 * lines + 0.3)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for i, (axes, name) in enumerate(zip(panels, names, strict=False)):
        rows = known[:, i]
        axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle=":")
        for scores, title, color in ((raw, "raw", COLORS[5]), (calibrated, "calibrated", COLORS[0])):
            mean, frequency, number = reliability_curve(scores[rows, i], true[rows, i])
            axes.plot(mean, frequency, color=color, linewidth=1, alpha=0.6)
            axes.scatter(mean, frequency, s=4 + 80 * number / max(number.sum(), 1), color=color, label=title)
        axes.set(title=brief(name), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=7)
    figure.supxlabel("mean score", fontsize=9)
    figure.supylabel("frequency of the label", fontsize=9)
    save(figure, file)
