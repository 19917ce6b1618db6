"""Cleaning of one modality, as a recipe says; what was changed is counted."""

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
    """What is changed in a modality's features, in this order."""

    drop_columns: list[Annotated[int, Field(ge=0)]] = []
    """Columns to leave out, counted from 0 in the source."""
    non_finite: Literal["zero", "error", "as-released"] = "zero"
    """Set inf and NaN to 0 (they are counted in the manifest), refuse them, or do as the authors' released
    code does to audio: set -inf to 0 and leave the others, with which a training diverges."""
    standardise: bool = False
    """Subtract the mean and divide by the standard deviation of each column over the training split."""


class Source(Protocol):
    """Where features come from."""

    id: str

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """(T, d) for each key; None or T = 0 where there is nothing."""

    def report(self) -> list[str]:
        """What a user should know of what was read so far, in words."""


class Verbatim:
    """Reads one modality that an encoder is to read: nothing of it is changed.

    Args:
        name: of the modality.
        source: where it comes from.
        keys: key of every table row.
        beside: what the source is told of every row beside its key, if it takes that.
    """

    transform = None

    def __init__(
        self, name: str, source: Any, keys: Sequence[str], beside: Sequence[Any] | None = None
    ) -> None:
        self.name, self.source, self.keys, self.beside = name, source, keys, beside
        self._found = False

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """As the source gives some table rows; None where the modality is absent."""
        told = () if self.beside is None else (self.beside[start:stop],)
        read: list[NDArray[Any] | None] = self.source.read(self.keys[start:stop], *told)
        self._found |= any(x is not None and len(x) for x in read)
        return read

    def report(self) -> list[str]:
        """What the source says.

        Raises:
            DataError: nothing was found.
        """
        if not self._found:
            raise nothing_found(self.name, self.keys)
        said: list[str] = self.source.report()
        return said


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
        self.transform: Transform | None = None
        """What is done to every sample; known from the first one on."""
        self._samples = self._finite = self._replaced = 0
        if rules.standardise:
            self._learn([key for key, split in zip(keys, splits, strict=True) if split == "train"])

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Cleaned features of some table rows; None where the modality is absent."""
        keys = self.keys[start:stop]
        return [self._clean(key, x) for key, x in zip(keys, self.source.read(keys), strict=True)]

    def report(self) -> list[str]:
        """What was changed, in words.

        Raises:
            DataError: nothing was found, or nothing of it is a finite number.
        """
        if not self._samples:
            raise nothing_found(self.name, self.keys)
        if not self._finite:
            raise DataError(f"modality '{self.name}': all values are inf or NaN")
        done = list(self.source.report())
        if self.rules.drop_columns:
            done.append(f"columns dropped: {', '.join(map(str, self.rules.drop_columns))}")
        if self._replaced:
            what = "-inf" if self.rules.non_finite == "as-released" else "inf or NaN"
            done.append(f"{self._replaced} values that were {what} set to 0")
        if self.rules.standardise:
            done.append("standardised by mean and standard deviation of the training split")
        return done

    def _clean(self, key: str, array: NDArray[Any] | None) -> NDArray[np.float32] | None:
        if array is None or not len(array):
            return None
        finite = np.isfinite(self._keep(key, array))
        if self.rules.non_finite == "as-released":
            finite = self._keep(key, array) != -np.inf
        self._samples += 1
        self._finite += int(finite.sum())
        self._replaced += int((~finite).sum())
        if self.rules.non_finite == "error" and not finite.all():
            column = int(np.flatnonzero(~finite.all(0))[0])
            raise DataError(f"{self._called(key)}: inf or NaN in column {column}")
        assert self.transform is not None
        return self.transform.apply(array, self._called(key))

    def _keep(self, key: str, array: NDArray[Any]) -> NDArray[Any]:
        """Without the dropped columns; the first array fixes the width."""
        if self.transform is None:
            drop, width = self.rules.drop_columns, array.shape[1]
            outside = [column for column in drop if column >= width]
            if outside:
                raise DataError(
                    f"modality '{self.name}': no column {outside[0]} to drop, the source has {width}"
                )
            left = self.rules.non_finite == "as-released"
            self.transform = Transform(width=width, drop_columns=drop, leave_non_finite=left)
        return self.transform.keep(array, self._called(key))

    def _learn(self, keys: Sequence[str]) -> None:
        """Mean and deviation of the finite values of these keys, from sums."""
        count: Any = 0
        total: Any = 0
        squares: Any = 0
        shift: Any = None
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            for key, array in zip(chunk, self.source.read(chunk), strict=True):
                if array is None or not len(array):
                    continue
                values = self._keep(key, array).astype(np.float64)
                finite = np.isfinite(values)
                if shift is None:  # sums of differences from a first guess lose no digits
                    shift = np.where(finite[0], values[0], 0)
                moved = np.where(finite, values - shift, 0)
                count = count + finite.sum(0)
                total = total + moved.sum(0)
                squares = squares + (moved**2).sum(0)
        if shift is None or self.transform is None:
            raise nothing_found(self.name, keys)
        seen = np.maximum(count, 1)
        mean = shift + total / seen
        deviation = np.sqrt(np.maximum(squares / seen - (total / seen) ** 2, 0))
        constant = deviation <= 1e-8 * np.maximum(np.abs(mean), 1)
        learned = {"mean": mean.tolist(), "deviation": np.where(constant, 1.0, deviation).tolist()}
        self.transform = self.transform.model_copy(update=learned)

    def _called(self, key: str) -> str:
        return f"modality '{self.name}', key '{key}'"


def nothing_found(name: str, keys: Sequence[str]) -> DataError:
    """That a modality's source has none of the table's keys."""
    example = f", e.g. '{keys[0]}'" if keys else ""
    return DataError(f"modality '{name}': no key of the table occurs in its source{example}")
