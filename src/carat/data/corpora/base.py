"""Published datasets: the interface of their readers, and writing them as stores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store, open_store
from carat.data.store.transform import Transform
from carat.data.store.writer import StoreWriter
from carat.utils.errors import DataError
from carat.utils.progress import track

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class CorpusSample:
    """One sample of a published dataset, before cleaning."""

    id: str
    split: str
    labels: NDArray[np.uint8]
    """(L,), 0 or 1."""
    features: Mapping[str, NDArray[Any]]
    """(T, d) by modality, possibly padded with zeros, without absent modalities."""
    group: str = ""
    """Video or dialogue; defaults to the ID."""
    transcript: str = ""
    intensities: NDArray[np.float32] | None = None
    """(L,) label intensities."""


@dataclass(frozen=True)
class Corpus:
    """A published dataset, opened by a reader. Samples are read lazily."""

    name: str
    labels: Sequence[str]
    """Label names, in the order of the L axis."""
    sources: Mapping[str, str]
    """Identifier of the extractor by modality, in the order of the modalities."""
    samples: Iterable[CorpusSample]
    count: int
    """Number of samples, for progress bars."""
    notes: Sequence[str] = ()
    """Remarks for the manifest; complete when all samples were read."""
    splits: Sequence[str] = SPLITS


def write_corpus(
    corpus: Corpus,
    path: str | os.PathLike[str],
    *,
    keep_padding: bool = False,
    dtype: str = "float32",
    overwrite: bool = False,
) -> Store:
    """Write a published dataset as a store.

    Padding, that is, leading and trailing steps of zeros, is stripped, and inf and NaN are replaced by 0. A
    modality that consists of padding is absent; samples without any modality are excluded. All changes are
    counted in the manifest.

    Args:
        corpus: dataset opened by a reader.
        path: folder of the store.
        keep_padding: do not strip padding.
        dtype: data type of the features on disk, "float16" or "float32".
        overwrite: replace an existing store.

    Raises:
        DataError: a sample is invalid, or the target exists. No store is written.
    """
    cleaners = {m: FeatureCleaner(m) for m in corpus.sources}
    empty: list[str] = []
    with StoreWriter(
        path, corpus.name, corpus.labels, corpus.sources, corpus.splits, dtype=dtype, overwrite=overwrite
    ) as writer:
        for sample in track(corpus.samples, "Importing", total=corpus.count):
            cleaned = {m: cleaners[m].clean(x, sample.id, keep_padding) for m, x in sample.features.items()}
            features = {m: x for m, x in cleaned.items() if len(x)}
            if not features:
                empty.append(sample.id)
                continue
            writer.append(
                sample.id,
                sample.split,
                sample.labels,
                features,
                group=sample.group,
                transcript=sample.transcript,
                intensities=sample.intensities,
            )
        for m, cleaner in cleaners.items():
            writer.cleaning[m] = cleaner.report()
            writer.transforms[m] = Transform(width=cleaner.width)
        writer.notes.extend(corpus.notes)
        if empty:
            writer.notes.append(f"{len(empty)} samples without any modality excluded, e.g. '{empty[0]}'")
    return open_store(path)


@dataclass
class FeatureCleaner:
    """Strips padding and non-finite values from the features of a modality, and counts the changes."""

    modality: str
    width: int = 0
    stripped_steps: int = 0
    replaced_values: int = 0
    absent: int = 0
    """Samples that lack the modality."""
    lowest: NDArray[Any] | None = None
    """(d,) minimum of each column."""
    highest: NDArray[Any] | None = None
    """(d,) maximum of each column."""
    long_sequences: int = 0
    """Sequences of at least three steps."""
    rising: NDArray[Any] | None = None
    """(d,) long sequences in which a column rises and never falls."""

    def clean(self, x: NDArray[Any], id: str, keep_padding: bool) -> NDArray[Any]:
        """Clean the features of a sample.

        Args:
            x: features (T, d).
            id: sample ID, for error messages.
            keep_padding: do not strip padding, unless it is the whole sequence.

        Returns:
            Finite features; T = 0 where the modality is absent.

        Raises:
            DataError: the features are not a numeric array (T, d).
        """
        if x.ndim != 2 or x.dtype.kind not in "fiu":
            raise DataError(
                f"sample '{id}', {self.modality}: expected a numeric array (T, d), found {x.dtype} {x.shape}"
            )
        if len(x) and not self.width:
            self.width = x.shape[1]
        if not keep_padding:
            stripped = strip_padding(x)
            self.stripped_steps += len(x) - len(stripped)
            x = stripped
        elif not len(strip_padding(x)):
            x = x[:0]
        if not len(x):
            self.absent += 1
            return x
        finite = np.isfinite(x)
        if not finite.all():
            self.replaced_values += int(finite.size - finite.sum())
            x = np.where(finite, x, 0)
        self._update_statistics(x)
        return x

    def report(self) -> list[str]:
        """Describe changes and suspicious columns, one line each.

        As in `Source.report`, the wording is part of the fingerprint.
        """
        lines = []
        if self.stripped_steps:
            lines.append(f"{self.stripped_steps} steps of zeros before or after sequences stripped")
        if self.absent:
            lines.append(f"absent from {self.absent} samples, where it was all zeros or empty")
        if self.replaced_values:
            lines.append(f"{self.replaced_values} values that were inf or NaN set to 0")
        if self.lowest is not None and self.highest is not None:
            constant = np.flatnonzero(self.lowest == self.highest).tolist()
            if constant:
                lines.append(f"constant columns: {_format_columns(constant)}")
            if self.rising is not None and self.long_sequences >= 3:
                time_stamps = np.flatnonzero(self.rising >= 0.99 * self.long_sequences).tolist()
                if time_stamps:
                    lines.append(f"columns that only rise, like time stamps: {_format_columns(time_stamps)}")
        return lines

    def _update_statistics(self, x: NDArray[Any]) -> None:
        low, high = x.min(0), x.max(0)
        if self.lowest is None or self.highest is None or self.rising is None:
            self.lowest, self.highest, self.rising = low, high, np.zeros(x.shape[1], dtype=np.int64)
        if len(low) != len(self.lowest):
            return  # the store writer raises an error for it
        self.lowest, self.highest = np.minimum(self.lowest, low), np.maximum(self.highest, high)
        if len(x) >= 3:
            self.long_sequences += 1
            candidates = np.flatnonzero(x[0] < x[-1])  # few columns, so that the test below is fast
            never_falls = (np.diff(x[:, candidates], axis=0) >= 0).all(0)
            self.rising[candidates[never_falls]] += 1


def strip_padding(x: NDArray[Any]) -> NDArray[Any]:
    """Remove leading and trailing steps of zeros from (T, d).

    >>> strip_padding(np.array([[0, 0], [1, 0], [0, 0], [0, 2], [0, 0]])).tolist()
    [[1, 0], [0, 0], [0, 2]]
    """
    with np.errstate(invalid="ignore"):  # signaling NaNs are nonzero; do not warn about them
        nonzero = np.flatnonzero(x.any(axis=1))
    return x[nonzero[0] : nonzero[-1] + 1] if len(nonzero) else x[:0]


def _format_columns(columns: list[int]) -> str:
    listed = ", ".join(map(str, columns[:20]))
    return listed + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
