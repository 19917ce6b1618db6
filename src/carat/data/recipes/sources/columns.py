"""Features in the columns of the table itself, such as the shares of raters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.recipes.sources.table import Table


class ColumnSource:
    """Read features by sample ID: one step, with one feature per column.

    Empty cells and the like are NaN; a sample without any number lacks the modality.

    Args:
        table: table of samples.
        columns: d names of columns.
        ids: N sample IDs, one per row.

    Raises:
        DataError: no such column, or a cell is neither a number nor unknown.
    """

    tokens = waveform = None

    def __init__(self, table: Table, columns: Sequence[str], ids: Sequence[str]) -> None:
        values = [table.numbers_or_unknown(column, finite=False) for column in columns]
        self._values = np.stack(values, axis=1)
        self._index = {id: row for row, id in enumerate(ids)}
        self.id = f"columns:{hashlib.sha256(chr(10).join(columns).encode()).hexdigest()[:12]}"

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Return features (1, d) by sample ID."""
        rows = (self._values[self._index[key]] for key in keys)
        return [None if np.isnan(row).all() else row[None] for row in rows]

    def report(self) -> list[str]:
        """Return no remarks."""
        return []
