"""Cleaning of a modality's features by the rules of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from carat.config.base import Section
from carat.data.store.transform import Transform
from carat.utils.errors import DataError

CHUNK = 512
"""Samples read at once."""


class Cleaning(Section):
    """Changes to a modality's features, applied in this order."""

    drop_columns: list[Annotated[int, Field(ge=0)]] = []
    """Columns to drop, counted from 0 in the source."""
    non_finite: Literal["zero", "error", "as-released"] = "zero"
    """Replace inf and NaN by 0 (counted in the manifest), raise an error, or do what the authors' released
    code does to audio: replace only -inf, which makes training diverge."""
    standardise: bool = False
    """Subtract the mean of each column and divide by its standard deviation, over the training split."""


class Source(Protocol):
    """A source of raw features.

    The lines of `report` are stored in the manifest and hashed into the fingerprint: changing their wording
    changes the fingerprint of every store built from the source.
    """

    id: str

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Read features (T, d) by key; None or T = 0 where the source has none."""

    def report(self) -> list[str]:
        """Describe what was read so far, one line per remark."""


class UncleanedReader:
    """Read the input of an encoder, which is stored as the source returns it.

    Args:
        name: modality.
        source: source of tokens or waveforms.
        keys: key of each table row.
        contexts: second argument of `source.read` for each table row, if it takes one.
    """

    transform = None

    def __init__(
        self, name: str, source: Any, keys: Sequence[str], contexts: Sequence[Any] | None = None
    ) -> None:
        self.name, self.source, self.keys, self.contexts = name, source, keys, contexts
        self._is_present = False

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Read table rows `start` to `stop`; None where the modality is absent."""
        contexts = () if self.contexts is None else (self.contexts[start:stop],)
        arrays: list[NDArray[Any] | None] = self.source.read(self.keys[start:stop], *contexts)
        self._is_present |= any(x is not None and len(x) for x in arrays)
        return arrays

    def report(self) -> list[str]:
        """Return the report of the source.

        Raises:
            DataError: the modality is absent from every sample.
        """
        if not self._is_present:
            raise no_matching_key(self.name, self.keys)
        lines: list[str] = self.source.report()
        return lines


class CleaningReader:
    """Read features, clean them by the rules of a recipe, and count the changes.

    Args:
        name: modality.
        rules: changes to make.
        source: source of the features.
        keys: key of each table row.
        splits: split of each table row; standardization uses training rows only.

    Raises:
        DataError: features are missing or invalid; raised here too if they are standardized.
    """

    def __init__(
        self, name: str, rules: Cleaning, source: Source, keys: Sequence[str], splits: Sequence[str]
    ) -> None:
        self.name, self.rules, self.source, self.keys = name, rules, source, keys
        self.transform: Transform | None = None
        """Transform applied to every sample; set by the first one read."""
        self._samples = self._finite = self._replaced = 0
        if rules.standardise:
            self._fit([key for key, split in zip(keys, splits, strict=True) if split == "train"])

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Read and clean table rows `start` to `stop`; None where the modality is absent."""
        keys = self.keys[start:stop]
        return [self._clean(key, x) for key, x in zip(keys, self.source.read(keys), strict=True)]

    def report(self) -> list[str]:
        """Describe the changes, one line each, after the report of the source.

        Raises:
            DataError: the modality is absent from every sample, or has no finite value.
        """
        if not self._samples:
            raise no_matching_key(self.name, self.keys)
        if not self._finite:
            raise DataError(f"modality '{self.name}': all values are inf or NaN")
        lines = list(self.source.report())
        if self.rules.drop_columns:
            lines.append(f"columns dropped: {', '.join(map(str, self.rules.drop_columns))}")
        if self._replaced:
            what = "-inf" if self.rules.non_finite == "as-released" else "inf or NaN"
            lines.append(f"{self._replaced} values that were {what} set to 0")
        if self.rules.standardise:
            lines.append("standardised by mean and standard deviation of the training split")
        return lines

    def _clean(self, key: str, array: NDArray[Any] | None) -> NDArray[np.float32] | None:
        if array is None or not len(array):
            return None
        kept = self._select_columns(key, array)
        finite = kept != -np.inf if self.rules.non_finite == "as-released" else np.isfinite(kept)
        self._samples += 1
        self._finite += int(finite.sum())
        self._replaced += int((~finite).sum())
        if self.rules.non_finite == "error" and not finite.all():
            column = int(np.flatnonzero(~finite.all(0))[0])
            raise DataError(f"{self._describe(key)}: inf or NaN in column {column}")
        assert self.transform is not None
        return self.transform.apply(array, self._describe(key))

    def _select_columns(self, key: str, array: NDArray[Any]) -> NDArray[Any]:
        """Drop columns. The first array determines the expected width."""
        if self.transform is None:
            dropped, width = self.rules.drop_columns, array.shape[1]
            out_of_range = [column for column in dropped if column >= width]
            if out_of_range:
                raise DataError(
                    f"modality '{self.name}': drop_columns has column {out_of_range[0]}, but the source has "
                    f"{width} columns, counted from 0"
                )
            leave_non_finite = self.rules.non_finite == "as-released"
            self.transform = Transform(width=width, drop_columns=dropped, leave_non_finite=leave_non_finite)
        return self.transform.select_columns(array, self._describe(key))

    def _fit(self, keys: Sequence[str]) -> None:
        """Compute mean and standard deviation of the finite values in each column."""
        count: Any = 0
        total: Any = 0
        squares: Any = 0
        shift: Any = None
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            for key, array in zip(chunk, self.source.read(chunk), strict=True):
                if array is None or not len(array):
                    continue
                values = self._select_columns(key, array).astype(np.float64)
                finite = np.isfinite(values)
                if shift is None:  # subtracting a first value avoids cancellation in the variance
                    shift = np.where(finite[0], values[0], 0)
                shifted = np.where(finite, values - shift, 0)
                count = count + finite.sum(0)
                total = total + shifted.sum(0)
                squares = squares + (shifted**2).sum(0)
        if shift is None or self.transform is None:
            raise no_matching_key(self.name, keys)
        count = np.maximum(count, 1)
        mean = shift + total / count
        deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
        is_constant = deviation <= 1e-8 * np.maximum(np.abs(mean), 1)
        fitted = {"mean": mean.tolist(), "deviation": np.where(is_constant, 1.0, deviation).tolist()}
        self.transform = self.transform.model_copy(update=fitted)

    def _describe(self, key: str) -> str:
        return f"modality '{self.name}', key '{key}'"


def no_matching_key(name: str, keys: Sequence[str]) -> DataError:
    """Make the error for a modality whose source has none of the keys of the table."""
    example = f", e.g. '{keys[0]}'" if keys else ""
    return DataError(
        f"modality '{name}': its source has none of the {len(keys)} keys in the table{example}; check the "
        "recipe's column and keys"
    )
