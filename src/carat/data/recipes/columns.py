"""Selection of table columns by name or pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from carat.config.base import Section
from carat.data.recipes.sources.table import Table
from carat.data.tables.format import Column
from carat.utils.errors import DataError, printable, shorten


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


Columns = Annotated[list[Column], BeforeValidator(_to_list), Field(min_length=1)]
"""Names of columns, or patterns in which `*` stands for any characters."""


class Prefix(Section):
    """The first part of each cell of a column, such as the dialogue `dia0` of `dia0_utt3`."""

    column: Column
    """Table column."""
    before: str = Field(min_length=1)
    """Text at whose first occurrence the part ends; cells without it are taken whole."""

    def read(self, table: Table) -> list[str]:
        """Return the parts (N,)."""
        return [cell.partition(self.before)[0] for cell in table.text(self.column)]


def select_columns(table: Table, patterns: Sequence[str]) -> dict[str, str]:
    """Find columns by name or pattern.

    Args:
        table: table.
        patterns: names, or patterns in which `*` stands for any characters.

    Returns:
        By column, its name without the fixed part of the pattern: `share_joy` of `share_*` is `joy`.

    Raises:
        DataError: no column matches, or a column is selected twice.
    """
    selected: dict[str, str] = {}
    for pattern in patterns:
        if "*" not in pattern or pattern in table.columns:
            matches = {pattern: pattern}
        else:
            matches = _match(table, pattern)
        for column, name in matches.items():
            if column in selected:
                raise DataError(f"{table.file}: column '{printable(column)}' is selected twice")
            selected[column] = name
    return selected


def _match(table: Table, pattern: str) -> dict[str, str]:
    matches = {column: name for column in table.columns if (name := match(pattern, column)) is not None}
    if not matches:
        names = printable(shorten(", ".join(table.columns), 150))
        raise DataError(f"{table.file}: no column matches '{pattern}'; available: {names}")
    return {column: name or column for column, name in matches.items()}


def match(pattern: str, column: str) -> str | None:
    """Return what the stars of a pattern stand for, joined by "_", or None if it does not match.

    >>> match("share_*", "share_joy"), match("*_share_*", "both_share_joy"), match("share_*", "level_joy")
    ('joy', 'both_joy', None)
    """
    first, *middle, last = pattern.split("*")
    if not column.startswith(first) or not column[len(first) :].endswith(last):
        return None
    rest = column[len(first) : len(column) - len(last)]
    found = []
    for part in middle:
        before, separator, rest = rest.partition(part) if part else ("", "*", rest)
        if not separator:
            return None
        found.append(before)
    return "_".join(filter(None, [*found, rest]))
