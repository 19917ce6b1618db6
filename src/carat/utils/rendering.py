"""Columns and rows as HTML for notebooks and as pandas data frames."""

from __future__ import annotations

import html
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from carat.utils.errors import CaratError

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Sequence[Any]]
DIGITS = 3
"""Decimals of floats in HTML."""


def to_html(columns: Sequence[str], rows: Rows, title: str = "", notes: Sequence[str] = ()) -> str:
    """A `<table>`, with notes below it; everything is escaped.

    Args:
        columns: headings.
        rows: one cell per column: text, numbers, or None for an empty cell.
        title: shown above the table.
        notes: paragraphs below it.

    >>> to_html(["label", "F1"], [["<b>", 0.5]]).splitlines()[3]
    '<tr><th scope="row">&lt;b&gt;</th><td>0.500</td></tr>'
    """
    lines = ["<table>", f"<caption>{html.escape(title)}</caption>" if title else ""]
    headings = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    lines += [f"<thead><tr>{headings}</tr></thead><tbody>"]
    for row in rows:
        first, *others = (html.escape(_text(cell)) for cell in row)
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table>", *(f"<p>{html.escape(note)}</p>" for note in notes)])


def to_frame(columns: Sequence[str], rows: Rows) -> pd.DataFrame:
    """A pandas data frame.

    Raises:
        CaratError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise CaratError("to_frame needs pandas, which is not installed: pip install pandas") from error
    return pd.DataFrame([list(row) for row in rows], columns=list(columns))


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Real) and not isinstance(cell, Integral):
        return f"{cell:.{DIGITS}f}"
    return str(cell)
