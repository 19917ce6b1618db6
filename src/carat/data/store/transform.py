"""Preprocessing of raw features, stored so that new features are processed the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import Section
from carat.utils.errors import DataError


class Transform(Section):
    """Drop columns, replace inf and NaN by 0, and standardize, in this order."""

    width: int
    """Width of the raw features."""
    drop_columns: list[int] = []
    """Columns to drop, counted from 0."""
    mean: list[float] = []
    """Mean of each remaining column; empty if features are not standardized."""
    deviation: list[float] = []
    """Standard deviation of each remaining column; empty if features are not standardized."""
    leave_non_finite: bool = False
    """Replace only -inf and leave +inf and NaN, as the authors' released code does."""

    @property
    def changes_values(self) -> bool:
        """Whether finite raw features differ from stored ones."""
        return bool(self.drop_columns or self.mean)

    def select_columns(self, array: NDArray[Any], what: str) -> NDArray[Any]:
        """Drop columns.

        Args:
            array: raw features (T, width).
            what: name of the features in error messages.

        Returns:
            Features (T, d).

        Raises:
            DataError: unexpected width.
        """
        if array.shape[1] != self.width:
            raise DataError(f"{what}: width {array.shape[1]}, expected {self.width}")
        return np.delete(array, self.drop_columns, axis=1) if self.drop_columns else array

    def apply(self, array: NDArray[Any], what: str) -> NDArray[np.float32]:
        """Apply all steps.

        Args:
            array: raw features (T, width).
            what: name of the features in error messages.

        Returns:
            Features (T, d), finite unless `leave_non_finite`.

        Raises:
            DataError: unexpected width.

        >>> Transform(width=2, drop_columns=[0], mean=[1.0], deviation=[2.0]).apply(np.array([[9, 5]]), "x")
        array([[2.]], dtype=float32)
        """
        kept = self.select_columns(array, what)
        finite = kept != -np.inf if self.leave_non_finite else np.isfinite(kept)
        values = np.where(finite, kept, 0)
        if self.mean:
            values = np.where(finite, (values - np.array(self.mean)) / np.array(self.deviation), 0)
        return np.asarray(values, dtype=np.float32)
