"""Tables for reports in Markdown, CSV, HTML, pandas and the terminal."""

from __future__ import annotations

import csv
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carat.utils.errors import CaratError, printable
from carat.utils.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

MARKUP = re.compile(r"[\\|]|<(?=[A-Za-z/!?])")
"""Characters with a meaning in Markdown tables: cell border, escape, start of an HTML tag."""


@dataclass(frozen=True)
class Table:
    """Columns and rows, rendered the same way in every report.

    Args:
        columns: column headings.
        rows: cells of each row, one per column: text, numbers, or None for an empty cell.
        title: title above the table; not written to CSV.
        digits: decimals of floats in Markdown, HTML and on the terminal; None for full precision, which CSV
            and pandas always have.

    Raises:
        ValueError: no columns, or a row has more or fewer cells than there are columns.

    >>> print(Table(["label", "F1"], [["happy", 0.5], ["sad", 0.25]], digits=3).to_markdown())
    | label | F1 |
    |---|---|
    | happy | 0.500 |
    | sad | 0.250 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    digits: int | None = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a table needs columns")
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells, expected {len(self.columns)}")

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]], title: str = "") -> Table:
        """Create a table with a column for every key, in order of first appearance.

        Args:
            records: cells by column, one mapping per row; missing keys become empty cells.
            title: see `Table`.

        Raises:
            ValueError: there are no keys.
        """
        columns = list(dict.fromkeys(key for record in records for key in record))
        return cls(columns, [[record.get(key) for key in columns] for record in records], title)

    def to_markdown(self, *, aligned: bool = False) -> str:
        """Format as a GitHub table without a final newline; `|`, `\\`, tags and line breaks are escaped.

        Args:
            aligned: pad cells so that columns are aligned in plain text.
        """
        lines = [[_markdown(cell) for cell in row] for row in (self.columns, *self._texts())]
        rule = ["---"] * len(self.columns)
        if aligned:
            widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
            lines = [[x.ljust(width) for x, width in zip(row, widths, strict=True)] for row in lines]
            rule = ["-" * (width + 2) for width in widths]
        text = [f"| {' | '.join(row)} |" for row in lines]
        text.insert(1, f"|{'|'.join(rule)}|")
        return "\n".join([f"**{_markdown(self.title)}**", "", *text] if self.title else text)

    def to_csv(self, file: str | os.PathLike[str] | None = None) -> str:
        """Format columns and rows as CSV (RFC 4180).

        Args:
            file: file to write as well, atomically and in UTF-8.
        """
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([self.columns, *self.rows])
        text = buffer.getvalue()
        if file is not None:
            write_atomically(Path(file), text)
        return text

    def to_html(self, notes: Sequence[str] = ()) -> str:
        """Format as an escaped `<table>`; the first cell of each row is its heading.

        Args:
            notes: paragraphs below the table, which are escaped as well.
        """
        lines = ["<table>"]
        if self.title:
            lines.append(f"<caption>{html.escape(self.title)}</caption>")
        headings = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in self.columns)
        lines += [f"<thead><tr>{headings}</tr></thead>", "<tbody>"]
        for row in self._texts():
            cells = [f"<td>{html.escape(cell)}</td>" for cell in row]
            cells[:1] = [f'<th scope="row">{html.escape(cell)}</th>' for cell in row[:1]]
            lines.append(f"<tr>{''.join(cells)}</tr>")
        paragraphs = [f"<p>{html.escape(note)}</p>" for note in notes]
        return "\n".join([*lines, "</tbody>", "</table>", *paragraphs])

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_frame(self) -> pd.DataFrame:
        """Convert to a pandas data frame.

        Raises:
            CaratError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise CaratError("to_frame needs pandas, which is not installed: pip install pandas") from error
        return pd.DataFrame([list(row) for row in self.rows], columns=list(self.columns))

    def show(
        self,
        *,
        align: Literal["left", "right"] = "right",
        bare: bool = False,
        styles: Mapping[str, str] | None = None,
    ) -> None:
        """Print the table on the terminal.

        Args:
            align: alignment of all columns except the first, which is left-aligned.
            bare: omit headings and lines.
            styles: rich styles of cells by text, e.g. `{"fail": "red"}`.
        """
        from rich.box import HEAVY_HEAD
        from rich.console import Console
        from rich.table import Table as Terminal
        from rich.text import Text

        table = Terminal(  # as Text, so that brackets are not parsed as markup
            title=Text(_terminal(self.title), style="bold") if self.title else None,
            title_justify="left",
            box=None if bare else HEAVY_HEAD,
            show_header=not bare,
            pad_edge=not bare,
        )
        for i, column in enumerate(self.columns):
            table.add_column(Text(_terminal(column)), justify=align if i else "left")
        for row in self._texts():
            table.add_row(*(Text(_terminal(cell), style=(styles or {}).get(cell, "")) for cell in row))
        Console().print(table)

    def _texts(self) -> list[list[str]]:
        return [[self._text(cell) for cell in row] for row in self.rows]

    def _text(self, cell: Any) -> str:
        if cell is None:
            return ""
        if self.digits is not None and isinstance(cell, Real) and not isinstance(cell, Integral):
            return f"{cell:.{self.digits}f}"
        return str(cell)


def _terminal(cell: str) -> str:
    """Text for the terminal, which may have several lines but no control characters."""
    return "\n".join(map(printable, cell.splitlines()))


def _markdown(cell: str) -> str:
    return "<br>".join(MARKUP.sub(r"\\\g<0>", cell).splitlines())
