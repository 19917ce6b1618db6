"""Cleaning of raw features, stored so that new features are processed as those of the training store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from carat.config.base import Section
from carat.utils.errors import DataError

Padding = Literal["strip", "keep", "none"]
"""Meaning of steps of zeros: `strip`: padding, which is removed before and after a sequence; `keep`: padding
only where the whole sequence consists of it; `none`: values like others."""
Absence = Literal["", "empty", "zeros", "inf or NaN"]
"""Why a modality is absent; empty where it is present."""


@dataclass(frozen=True)
class Cleaned:
    """Features after cleaning, and what was changed."""

    features: NDArray[np.float32]
    """(T, d); T = 0 where the modality is absent."""
    stripped: int = 0
    """Steps of padding that were removed."""
    replaced: int = 0
    """Values that were inf or NaN and are 0."""
    absence: Absence = ""


class Transform(Section):
    """Drop columns, strip padding, replace inf and NaN by 0, and standardize, in this order.

    A modality without any step, or whose values are all zeros (unless `padding` is "none") or all inf or NaN,
    is absent.
    """

    width: Annotated[int, Field(gt=0, le=1 << 20)]
    """Width of the raw features."""
    drop_columns: list[int] = []
    """Columns to drop, counted from 0."""
    padding: Padding = "none"
    """What steps of zeros mean, see `Padding`."""
    mean: list[float] = []
    """Mean of each remaining column; empty if features are not standardized."""
    deviation: list[Annotated[float, Field(gt=0)]] = []
    """Standard deviation of each remaining column; empty if features are not standardized."""
    leave_non_finite: bool = False
    """Replace only -inf and leave +inf and NaN, as the authors' released code does."""
    dtype: Literal["float16", "float32"] = "float32"
    """Precision to which features are rounded."""

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        dropped = set(self.drop_columns)
        if not dropped <= set(range(self.width)):
            raise ValueError(f"drop_columns has columns that are not in 0 to {self.width - 1}")
        remaining = self.width - len(dropped)
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if len(values) != (remaining if self.mean else 0):
                raise ValueError(f"{name} has {len(values)} values for {remaining} columns")
        return self

    @property
    def changes_values(self) -> bool:
        """Whether cleaned features, cleaned again, would change: columns are dropped, or values scaled."""
        return bool(self.drop_columns or self.mean)

    def select(self, array: NDArray[Any], what: str) -> tuple[NDArray[Any], NDArray[np.bool_], Cleaned]:
        """Drop columns and strip padding, without changing values.

        Args:
            array: raw features (T, width).
            what: name of the features in error messages.

        Returns:
            The remaining features (T', d); which of them are numbers to keep (T', d), the others becoming 0;
            and the counts.

        Raises:
            DataError: not a numeric array (T, width).
        """
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(f"{what}: expected a numeric array (T, d), found {array.dtype} {array.shape}")
        if array.shape[1] != self.width:
            raise DataError(f"{what}: width {array.shape[1]}, expected {self.width}")
        kept = np.delete(array, self.drop_columns, axis=1) if self.drop_columns else array
        with np.errstate(invalid="ignore"):  # signaling NaNs
            usable = kept != -np.inf if self.leave_non_finite else np.isfinite(kept)
            content = np.flatnonzero((usable & (kept != 0)).any(1)) if self.padding != "none" else None
        absence: Absence = ""
        if not len(kept):
            absence = "empty"
        elif not usable.any():
            absence = "inf or NaN"
        elif content is not None and not len(content):
            absence = "zeros"
        if absence:
            return kept[:0], usable[:0], Cleaned(np.zeros((0, kept.shape[1]), np.float32), absence=absence)
        if content is not None and self.padding == "strip":
            span = slice(content[0], content[-1] + 1)
            kept, usable = kept[span], usable[span]
        counts = Cleaned(
            np.zeros((0, kept.shape[1]), np.float32), len(array) - len(kept), int(usable.size - usable.sum())
        )
        return kept, usable, counts

    def clean(self, array: NDArray[Any], what: str) -> Cleaned:
        """Apply all steps.

        Args:
            array: raw features (T, width).
            what: name of the features in error messages.

        Returns:
            Features (T', d), finite unless `leave_non_finite`, and what was changed.

        Raises:
            DataError: not a numeric array (T, width).

        >>> transform = Transform(width=2, drop_columns=[0], padding="strip", mean=[1.0], deviation=[2.0])
        >>> transform.clean(np.array([[8, 0], [9, 5], [9, 0]]), "x").features
        array([[2.]], dtype=float32)
        >>> transform.clean(np.array([[8, 0]]), "x").absence
        'zeros'
        """
        kept, usable, counts = self.select(array, what)
        values = kept if usable.all() else np.where(usable, kept, 0)
        if self.mean:
            values = np.where(usable, (values - np.array(self.mean)) / np.array(self.deviation), 0)
        with np.errstate(over="ignore"):  # the store and prediction refuse values beyond the data type
            features = np.asarray(values, dtype=self.dtype).astype(np.float32)
        return Cleaned(features, counts.stripped, counts.replaced, counts.absence)
