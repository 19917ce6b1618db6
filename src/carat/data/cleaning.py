"""Cleaning of one modality, as a recipe says; what was changed is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from carat.config import Section
from carat.errors import DataError

CHUNK = 512
"""Samples read at once."""


class Cleaning(Section):
    """What is changed in a modality's features, in this order."""

    drop_columns: list[Annotated[int, Field(ge=0)]] = []
    """Columns to leave out, counted from 0 in the source."""
    non_finite: Literal["zero", "error"] = "zero"
    """Set inf and NaN to 0 (they are counted in the manifest), or refuse them."""
    standardise: bool = False
    """Subtract the mean and divide by the standard deviation of each column over the training split."""


class Source(Protocol):
    """Where features come from."""

    id: str

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]: ...


class Cleaner:
    """Reads one modality and cleans it as the recipe says; counts what it changed.

    Args:
        name: of the modality.
        rules: what to change.
        source: where the features come from.
        keys: key of every table row.
        splits: split of every table row; standardisation looks at training rows only.
    """

    def __init__(
        self, name: str, rules: Cleaning, source: Source, keys: Sequence[str], splits: Sequence[str]
    ) -> None:
        self.name, self.rules, self.source, self.keys = name, rules, source, keys
        self.found = self.finite = self.replaced = 0
        self._width: int | None = None
        self._mean: NDArray[np.float64] | None = None
        self._deviation: NDArray[np.float64] | None = None
        if rules.standardise:
            self._learn([key for key, split in zip(keys, splits, strict=True) if split == "train"])

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Cleaned features of some table rows; None where the modality is absent."""
        out: list[NDArray[Any] | None] = []
        for key, array in zip(self.keys[start:stop], self.source.read(self.keys[start:stop]), strict=True):
            if array is None or not len(array):
                out.append(None)
                continue
            cleaned = self._drop(array, key)
            finite = np.isfinite(cleaned)
            self.found += 1
            self.finite += int(finite.sum())
            self.replaced += int((~finite).sum())
            if self.rules.non_finite == "error" and not finite.all():
                raise DataError(
                    f"modality '{self.name}', key '{key}': inf or NaN in column {_column(finite)}"
                )
            cleaned = np.where(finite, cleaned, 0)
            if self._mean is not None and self._deviation is not None:
                cleaned = np.where(finite, (cleaned - self._mean) / self._deviation, 0)
            out.append(cleaned.astype(np.float32))
        return out

    def report(self) -> list[str]:
        """What was changed, in words.

        Raises:
            DataError: nothing was found, or nothing of it is a finite number.
        """
        if not self.found:
            raise DataError(
                f"modality '{self.name}': no key of the table occurs in its source, e.g. '{self.keys[0]}'"
            )
        if not self.finite:
            raise DataError(f"modality '{self.name}': all values are inf or NaN")
        done = []
        if self.rules.drop_columns:
            done.append(f"columns dropped: {', '.join(map(str, self.rules.drop_columns))}")
        if self.replaced:
            done.append(f"{self.replaced} values that were inf or NaN set to 0")
        if self.rules.standardise:
            done.append("standardised by mean and standard deviation of the training split")
        return done

    def _drop(self, array: NDArray[Any], key: str) -> NDArray[Any]:
        self._width = self._width or array.shape[1]
        if array.shape[1] != self._width:
            raise DataError(
                f"modality '{self.name}', key '{key}': width {array.shape[1]}, "
                f"earlier ones have {self._width}"
            )
        if not self.rules.drop_columns:
            return array
        outside = [column for column in self.rules.drop_columns if column >= array.shape[1]]
        if outside:
            raise DataError(
                f"modality '{self.name}': no column {outside[0]} to drop, the source has {array.shape[1]}"
            )
        return np.delete(array, self.rules.drop_columns, axis=1)

    def _learn(self, keys: Sequence[str]) -> None:
        """Mean and deviation of the training rows' finite values, in two passes' worth of sums."""
        count: Any = 0
        total: Any = 0
        squares: Any = 0
        shift: Any = None
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            for key, array in zip(chunk, self.source.read(chunk), strict=True):
                if array is None or not len(array):
                    continue
                values = self._drop(array, key).astype(np.float64)
                values[~np.isfinite(values)] = np.nan
                if shift is None:  # sums of differences from a first guess lose no digits
                    shift = np.nan_to_num(values[0])
                finite = np.isfinite(values)
                moved = np.where(finite, values - shift, 0)
                count = count + finite.sum(0)
                total = total + moved.sum(0)
                squares = squares + (moved**2).sum(0)
        if shift is None:
            raise DataError(f"modality '{self.name}': absent from the training split, cannot be standardised")
        seen = np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(squares / seen - (total / seen) ** 2, 0))
        self._mean = shift + total / seen
        self._deviation = np.where(deviation > 1e-8 * np.maximum(np.abs(self._mean), 1), deviation, 1.0)


def _column(finite: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(~finite.all(0))[0])
