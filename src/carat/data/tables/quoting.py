"""Recognition of rows that were swallowed by a stray quotation mark."""

from __future__ import annotations

import re
from collections.abc import Sequence

PROFILE_ROWS = 1000
"""Rows from which the form of cells is learnt."""
MAX_FORMS = 4
"""Number of different forms up to which a column counts as regular, such as numbers or names."""

MAX_FORM = 200
"""Characters of a cell that make up its form."""


class RowShape:
    """What the rows of a table look like: the form of the cells in its regular columns.

    Args:
        separator: separator of cells.
        quote: quotation mark.

    >>> shape = RowShape(",", '"')
    >>> for row in (["c1", "Hi, you!", "1"], ["c2", "What now?", "0"]):
    ...     shape.learn(row)
    >>> shape.find(["c3", "so,1\\nc4,oh", "0"], ['c3,"so,1\\n', 'c4,oh",0\\n'])
    0
    >>> shape.find(["c3", "so, he,\\nsaid", "0"], ['c3,"so, he,\\n', 'said",0\\n'])
    """

    def __init__(self, separator: str, quote: str) -> None:
        self._separator, self._quote = separator, quote
        self._forms: list[set[str]] = []

    def learn(self, cells: Sequence[str]) -> None:
        """Learn the forms of a row that is known to be one."""
        self._forms = self._forms or [set() for _ in cells]
        for forms, cell in zip(self._forms, cells, strict=True):
            if len(forms) <= MAX_FORMS:
                forms.add(_form(cell))

    def find(self, cells: Sequence[str], lines: Sequence[str]) -> int | None:
        """Find a line that looks like a row of its own among those that a row spans.

        The first line always does if it is the last cell that spans lines, and the last line if it is the
        first cell; they prove nothing. In a table of one column, nothing tells lines from rows.

        Args:
            cells: cells of the row.
            lines: lines that it spans.

        Returns:
            Position in `lines`, or None.
        """
        if len(lines) < 2:
            return None
        spanning = {i for i, cell in enumerate(cells) if "\n" in cell or "\r" in cell}
        first = 1 if len(cells) - 1 in spanning and len(cells) > 1 else 0
        last = len(lines) - 1 if 0 in spanning and len(cells) > 1 else len(lines)
        return next((i for i in range(first, last) if self._fits(lines[i], len(cells), spanning)), None)

    def _fits(self, line: str, width: int, free: set[int]) -> bool:
        """Whether a line, read without quotes, has the cells of a row; those of some columns are free."""
        cells = line.rstrip("\r\n").split(self._separator)
        if len(cells) != width:
            return False
        return all(
            i in free or len(forms) > MAX_FORMS or _form(cells[i].strip(self._quote)) in forms
            for i, forms in enumerate(self._forms)
        )


def _form(cell: str) -> str:
    """Reduce a cell to its form: runs of letters, numbers, and all other characters as they are."""
    numbers = re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "9", cell[:MAX_FORM])
    return re.sub(r"[^\W\d_]+", "a", numbers)
