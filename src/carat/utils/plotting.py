"""Shared matplotlib helpers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from carat.utils.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#3b6fb6", "#d9822b", "#3a9a5b", "#b04a9a", "#8c6d46", "#5f6b7a", "#c9b037")
"""Colors of modalities and labels, in order; they repeat after the last one."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of a size in inches, with constrained layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a figure as SVG, reproducibly: equal figures give equal bytes. Files are written atomically."""
    import matplotlib

    if isinstance(file, Path):
        with write_file(file) as opened:
            save(figure, opened)
        return
    with matplotlib.rc_context({"svg.hashsalt": "carat"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def heat_map(
    axes: Axes,
    values: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    highest: float | None = 1.0,
    number_format: str | None = "{:.2f}",
) -> Any:
    """Draw a matrix of non-negative numbers as an annotated heat map. NaN is left empty.

    Args:
        axes: axes to draw on.
        values: matrix (R, C).
        rows: R row names.
        columns: C column names.
        highest: value of the darkest color; defaults to the maximum if None.
        number_format: format of the annotations; None for no annotations.

    Returns:
        The image, for a color bar.
    """
    top = highest if highest is not None else float(np.nanmax(values, initial=0)) or 1.0
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    if number_format:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = "white" if value > 0.6 * top else "#222"
                axes.text(
                    j, i, number_format.format(value), ha="center", va="center", color=color, fontsize=8
                )
    return image
