"""Reading of a modality's features for the rows of a table, cleaned by the rules of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from carat.data.cleaning import Cleaning, FeatureCleaner
from carat.data.store.transform import Transform
from carat.utils.errors import DataError
from carat.utils.logging import logger

CHUNK = 512
"""Samples read at once."""


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
            raise no_matching_key(self.name, self.keys, self.source)
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
        dtype: precision of the stored features.

    Raises:
        DataError: features are missing or invalid; raised here too if they are standardized.
    """

    def __init__(
        self,
        name: str,
        rules: Cleaning,
        source: Source,
        keys: Sequence[str],
        splits: Sequence[str],
        dtype: Literal["float16", "float32"] = "float32",
    ) -> None:
        self.name, self.source, self.keys = name, source, keys
        self._cleaner = FeatureCleaner(name, rules, dtype)
        if rules.standardise:
            training = [key for key, split in zip(keys, splits, strict=True) if split == "train"]
            self._cleaner.fit(self._read(training))

    @property
    def transform(self) -> Transform | None:
        """Transform applied to every sample; set by the first one read."""
        return self._cleaner.transform

    def read(self, start: int, stop: int) -> list[NDArray[Any] | None]:
        """Read and clean table rows `start` to `stop`; None where the modality is absent."""
        return [self._cleaner.clean(array, what) for what, array in self._read(self.keys[start:stop])]

    def report(self) -> list[str]:
        """Describe the changes, one line each, after the report of the source.

        Raises:
            DataError: the modality is absent from every sample.
        """
        absent = self._cleaner.absent
        if not self._cleaner.samples:
            if absent["inf or NaN"]:
                raise DataError(f"modality '{self.name}': all values are inf or NaN")
            if absent["zeros"]:
                raise DataError(f"modality '{self.name}': all values are zero")
            raise no_matching_key(self.name, self.keys, self.source)
        if missing := source_gaps(self.source):
            logger.warning(f"note: modality '{self.name}': {missing}")
        return [*self.source.report(), *self._cleaner.report()]

    def _read(self, keys: Sequence[str]) -> Iterator[tuple[str, NDArray[Any] | None]]:
        """Yield the name for error messages and the raw features of each key."""
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            for key, array in zip(chunk, self.source.read(chunk), strict=True):
                yield f"modality '{self.name}', key '{key}'", array


def source_gaps(source: Any) -> str:
    """Describe the keys that a source does not have; empty if it has all, or has no keys of its own."""
    return str(source.describe_missing()) if hasattr(source, "describe_missing") else ""


def no_matching_key(name: str, keys: Sequence[str], source: Any) -> DataError:
    """Make the error for a modality whose source has none of the keys of the table."""
    example = f", e.g. '{keys[0]}'" if keys else ""
    missing = source_gaps(source)
    return DataError(
        f"modality '{name}': its source has none of the {len(keys)} keys in the table{example}; check the "
        f"recipe's column and keys{f' ({missing})' if missing else ''}"
    )
