"""What all pictures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3b6fb6", "#d9822b", "#3a9a5b", "#b04a9a", "#8c6d46", "#5f6b7a", "#c9b037")
"""For modalities and labels, in their order; further ones repeat."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that arranges itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write SVG; the same picture gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "carat"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def heat_map(
    axes: Axes,
    values: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    highest: float | None = 1.0,
    form: str | None = "{:.2f}",
) -> Any:
    """Draw a matrix (rows, columns) of non-negative numbers with its numbers in it; nan stays empty.

    Args:
        axes: where.
        values: the matrix.
        rows, columns: what its lines are called.
        highest: value of the darkest colour; the largest value when None.
        form: how a number is written; None writes none.
    """
    top = highest if highest is not None else float(np.nanmax(values, initial=0)) or 1.0
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    if form:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > 0.6 * top else "#222"
                axes.text(j, i, form.format(value), ha="center", va="center", color=colour, fontsize=8)
    return image
