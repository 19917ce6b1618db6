"""Cleaning of a modality's features while a store is made: rules, statistics of training, and counts.

Import, recipes and prediction apply the same `Transform`, which is kept in the manifest of the store and in
the card of every run trained on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from carat.config.base import Section
from carat.data.store.transform import Cleaned, Padding, Transform
from carat.utils.errors import DataError

ABSENCES = {
    "missing": "they have no features",
    "empty": "they are empty",
    "zeros": "all values are zero",
    "inf or NaN": "all values are inf or NaN",
}
"""Reasons for an absent modality, for reports."""


class Cleaning(Section):
    """Changes to a modality's features, applied in this order."""

    drop_columns: list[Annotated[int, Field(ge=0)]] = []
    """Columns to drop, counted from 0 in the source."""
    padding: Padding = "strip"
    """What steps of zeros are: padding to remove before and after a sequence (`strip`), padding to keep
    unless the whole sequence consists of it (`keep`), or values (`none`)."""
    non_finite: Literal["zero", "error", "as-released"] = "zero"
    """Replace inf and NaN by 0 (counted in the manifest), raise an error, or do what the authors' released
    code does to audio: replace only -inf, which makes training diverge."""
    standardise: bool = False
    """Subtract the mean of each column and divide by its standard deviation, over the training split."""


class FeatureCleaner:
    """Clean the features of a modality by rules, and count the changes.

    Args:
        modality: name of the modality.
        rules: changes to make.
        dtype: precision of the stored features, "float16" or "float32".
    """

    def __init__(
        self, modality: str, rules: Cleaning, dtype: Literal["float16", "float32"] = "float32"
    ) -> None:
        self.modality, self.rules, self.dtype = modality, rules, dtype
        self.transform: Transform | None = None
        """Transform of every sample; set by the first one with features."""
        self.samples = 0
        """Samples that have the modality."""
        self.absent: Counter[str] = Counter()
        """Samples that lack the modality, by reason, a key of `ABSENCES`."""
        self._stripped = self._replaced = 0
        self._columns = ColumnStatistics()

    def fit(self, arrays: Iterable[tuple[str, NDArray[Any] | None]]) -> None:
        """Learn mean and standard deviation of each column from the training samples, without padding.

        Args:
            arrays: name for error messages and raw features (T, d) of each sample.

        Raises:
            DataError: no sample has a finite value, or see `clean`.
        """
        count: Any = 0
        total: Any = 0
        squares: Any = 0
        shift: Any = None
        for what, array in arrays:
            if array is None or not len(array):
                continue
            kept, usable, _ = self._transform_for(array, what).select(array, what)
            if not len(kept):
                continue
            values = kept.astype(np.float64)
            finite = usable & np.isfinite(values)
            if shift is None:  # subtracting a first value avoids cancellation in the variance
                shift = np.where(finite[0], values[0], 0)
            shifted = np.where(finite, values - shift, 0)
            count = count + finite.sum(0)
            total = total + shifted.sum(0)
            squares = squares + (shifted**2).sum(0)
        if shift is None or self.transform is None:
            raise DataError(
                f"modality '{self.modality}': no sample of the split 'train' has it, so that it cannot be "
                "standardised"
            )
        count = np.maximum(count, 1)
        mean = shift + total / count
        deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
        is_constant = deviation <= 1e-8 * np.maximum(np.abs(mean), 1)
        fitted = {"mean": mean.tolist(), "deviation": np.where(is_constant, 1.0, deviation).tolist()}
        self.transform = self.transform.model_copy(update=fitted)

    def clean(self, array: NDArray[Any] | None, what: str) -> NDArray[np.float32] | None:
        """Clean the features of a sample.

        Args:
            array: raw features (T, d); None where the source has none.
            what: name of the features in error messages.

        Returns:
            Features (T', d); None where the modality is absent.

        Raises:
            DataError: not a numeric array (T, d), another width than before, or inf or NaN that the rules
                refuse.
        """
        if array is None:
            self.absent["missing"] += 1
            return None
        if not len(array):
            self.absent["empty"] += 1
            return None
        cleaned = self._transform_for(array, what).clean(array, what)
        self._refuse_non_finite(cleaned, array, what)
        if cleaned.absence:
            self.absent[cleaned.absence] += 1
            return None
        self.samples += 1
        self._stripped += cleaned.stripped
        self._replaced += cleaned.replaced
        self._columns.update(cleaned.features)
        return cleaned.features

    def report(self) -> list[str]:
        """Describe the changes and suspicious columns, one line each.

        The lines are stored in the manifest and hashed into the fingerprint: changing their wording changes
        the fingerprint of every new store.
        """
        lines = []
        if self.rules.drop_columns:
            lines.append(f"columns dropped: {', '.join(map(str, self.rules.drop_columns))}")
        if self._stripped:
            lines.append(f"{self._stripped} steps of zeros before or after sequences stripped")
        lines += [f"absent from {n} samples: {ABSENCES[why]}" for why, n in sorted(self.absent.items())]
        if self._replaced:
            what = "-inf" if self.rules.non_finite == "as-released" else "inf or NaN"
            lines.append(f"{self._replaced} values that were {what} set to 0")
        if self.rules.standardise:
            lines.append("standardised by mean and standard deviation of the training split")
        return lines + self._columns.report()

    def _refuse_non_finite(self, cleaned: Cleaned, array: NDArray[Any], what: str) -> None:
        """Raise DataError where the rules do not allow inf or NaN."""
        if self.rules.non_finite == "error" and (cleaned.replaced or cleaned.absence == "inf or NaN"):
            kept = np.delete(array, self.rules.drop_columns, axis=1)
            column = int(np.flatnonzero(~np.isfinite(kept).all(0))[0])
            raise DataError(f"{what}: inf or NaN in column {column}")

    def _transform_for(self, array: NDArray[Any], what: str) -> Transform:
        """Return the transform; the first array determines the expected width."""
        if self.transform is None:
            if array.ndim != 2:
                raise DataError(f"{what}: expected a numeric array (T, d), found {array.dtype} {array.shape}")
            dropped, width = self.rules.drop_columns, array.shape[1]
            out_of_range = [column for column in dropped if column >= width]
            if out_of_range:
                raise DataError(
                    f"modality '{self.modality}': drop_columns has column {out_of_range[0]}, but the source "
                    f"has {width} columns, counted from 0"
                )
            self.transform = Transform(
                width=width,
                drop_columns=dropped,
                padding=self.rules.padding,
                leave_non_finite=self.rules.non_finite == "as-released",
                dtype=self.dtype,
            )
        return self.transform


class ColumnStatistics:
    """Columns of a modality that are constant, or only rise like time stamps."""

    def __init__(self) -> None:
        self._lowest: NDArray[Any] | None = None
        self._highest: NDArray[Any] | None = None
        self._rising: Any = 0
        self._long_sequences = 0

    def update(self, x: NDArray[Any]) -> None:
        """Add a sequence (T, d) with T > 0."""
        low, high = x.min(0), x.max(0)
        if self._lowest is None or self._highest is None:
            self._lowest, self._highest, self._rising = low, high, np.zeros(x.shape[1], dtype=np.int64)
        self._lowest, self._highest = np.minimum(self._lowest, low), np.maximum(self._highest, high)
        if len(x) >= 3:
            self._long_sequences += 1
            candidates = np.flatnonzero(x[0] < x[-1])  # few columns, so that the test below is fast
            never_falls = (np.diff(x[:, candidates], axis=0) >= 0).all(0)
            self._rising[candidates[never_falls]] += 1

    def report(self) -> list[str]:
        """Name suspicious columns, in at most two lines."""
        lines = []
        if self._lowest is not None and self._highest is not None:
            constant = np.flatnonzero(self._lowest == self._highest).tolist()
            if constant:
                lines.append(f"constant columns: {_format_columns(constant)}")
            if self._long_sequences >= 3:
                time_stamps = np.flatnonzero(self._rising >= 0.99 * self._long_sequences).tolist()
                if time_stamps:
                    lines.append(f"columns that only rise, like time stamps: {_format_columns(time_stamps)}")
        return lines


def _format_columns(columns: list[int]) -> str:
    listed = ", ".join(map(str, columns[:20]))
    return listed + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
