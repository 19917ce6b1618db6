"""Shared matplotlib helpers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from carat.utils.errors import shorten
from carat.utils.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#3b6fb6", "#d9822b", "#3a9a5b", "#b04a9a", "#8c6d46", "#5f6b7a", "#c9b037")
"""Colors of modalities and labels, in order; they repeat after the last one."""

MAX_NAME = 60
"""Length in characters beyond which names are shortened in figures."""
NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
"""Control characters, and what is no character; XML does not allow most of them."""


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of a size in inches, with constrained layout."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a figure as SVG, reproducibly: equal figures give equal bytes. Files are written atomically.

    Names of labels, modalities and samples come from data: `$` does not begin a formula, and characters that
    XML does not allow are replaced by question marks.
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    settings = {
        "svg.hashsalt": "carat",
        "text.parse_math": False,
    }  # the latter for what is created now: ticks
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as an empty box
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names leave no room
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    content = NOT_IN_XML.sub("?", buffer.getvalue().decode("utf-8", "replace")).encode()
    if isinstance(file, Path):
        replace_file(file, content)
    else:
        file.write(content)


def brief(name: str) -> str:
    """Shorten a name to the room that a figure has for it."""
    return shorten(name, MAX_NAME)


def legend_name(name: str) -> str:
    """Name for a legend, from which matplotlib leaves out names that are empty or begin with `_`."""
    return brief(name if name[:1] not in ("", "_") else f" {name}")


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
    axes.set_xticks(
        range(len(columns)), [brief(x) for x in columns], rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(rows)), [brief(x) for x in rows])
    if number_format:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = "white" if value > 0.6 * top else "#222"
                axes.text(
                    j, i, number_format.format(value), ha="center", va="center", color=color, fontsize=8
                )
    return image
