"""Attributes of samples by which results are divided: group, corpus, or a column of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store
from carat.data.tables.delimited import Delimited
from carat.data.tables.format import TableFormat
from carat.utils.errors import DataError, did_you_mean, printable, shorten

VALUES = 50
"""Most values of an attribute."""


def read_attribute(store: Store, by: str) -> tuple[str, NDArray[np.str_]]:
    """Read the values of an attribute for every sample of a store.

    Args:
        store: the store.
        by: "group", "corpus", or `FILE:COLUMN`: a table with a header and a column `id` of the ids of samples
            or groups.

    Returns:
        Name of the attribute, and its values (N,), "" where the table has none.

    Raises:
        DataError: the store has no such attribute, or the table cannot be read or fits no sample.
    """
    if by == "group":
        return by, store.groups
    if by == "corpus":
        if store.corpora is None:
            raise DataError(f"{store.folder}: is of one corpus; use group or FILE:COLUMN")
        return by, store.corpora
    name, _, column = by.rpartition(":")
    if not name or not column:
        raise DataError(f"unknown attribute '{shorten(by, 60)}'; use group, corpus or FILE:COLUMN")
    by_id = _read_column(Path(name), column)
    ids, groups = store.ids.tolist(), store.groups.tolist()
    values = [by_id.get(id, by_id.get(group, "")) for id, group in zip(ids, groups, strict=True)]
    if not any(values):
        raise DataError(
            f"{name}: column 'id' has no id or group of {store.folder}, e.g. {ids[0]}, {groups[0]}"
        )
    return column, np.array(values)


def check_values(attribute: str, values: NDArray[np.str_]) -> None:
    """Raise DataError if an attribute has too many values, or none."""
    number = len(set(values.tolist()) - {""})
    if not 0 < number <= VALUES:
        raise DataError(f"{attribute} has {number} values in this split, expected 1 to {VALUES}")


def _read_column(file: Path, column: str) -> dict[str, str]:
    table = Delimited(file, TableFormat())
    for name in ("id", column):
        if name not in table.names:
            hint = did_you_mean(name, map(printable, table.names))
            shown = printable(shorten(", ".join(table.names), 150))
            raise DataError(f"{file}: no column '{name}'{hint or f'; the columns are: {shown}'}")
    at, value = table.names.index("id"), table.names.index(column)
    found: dict[str, str] = {}
    for row in table:
        id, text = row.cells[at], row.cells[value].strip()
        if found.setdefault(id, text) != text:
            raise DataError(f"{file}: id '{shorten(id, 60)}' has two values, '{found[id]}' and '{text}'")
    return found
