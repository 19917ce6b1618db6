"""What a recipe does to a modality's raw features, kept so that new features can be treated the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import Section
from carat.utils.errors import DataError


class Transform(Section):
    """Drop columns, set inf and NaN to 0, standardise."""

    width: int
    """Of the raw features."""
    drop_columns: list[int] = []
    mean: list[float] = []
    """By remaining column; empty when not standardised."""
    deviation: list[float] = []
    leave_non_finite: bool = False
    """Set only -inf to 0 and leave +inf and NaN, as the authors' released code does."""

    @property
    def changes_values(self) -> bool:
        """Whether raw and stored features differ, inf and NaN aside."""
        return bool(self.drop_columns or self.mean)

    def keep(self, array: NDArray[Any], what: str) -> NDArray[Any]:
        """Raw (T, width) without the dropped columns.

        Args:
            array: raw features.
            what: how errors call them.

        Raises:
            DataError: another width.
        """
        if array.shape[1] != self.width:
            raise DataError(f"{what}: width {array.shape[1]}, expected {self.width}")
        return np.delete(array, self.drop_columns, axis=1) if self.drop_columns else array

    def apply(self, array: NDArray[Any], what: str) -> NDArray[np.float32]:
        """Raw (T, width) → what a store holds (T, d), finite unless others are to be left.

        >>> Transform(width=2, drop_columns=[0], mean=[1.0], deviation=[2.0]).apply(np.array([[9, 5]]), "x")
        array([[2.]], dtype=float32)
        """
        kept = self.keep(array, what)
        finite = kept != -np.inf if self.leave_non_finite else np.isfinite(kept)
        values = np.where(finite, kept, 0)
        if self.mean:
            values = np.where(finite, (values - np.array(self.mean)) / np.array(self.deviation), 0)
        return np.asarray(values, dtype=np.float32)
