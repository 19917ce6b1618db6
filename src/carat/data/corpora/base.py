"""Data sets of the field, opened by the readers in `formats/`, and their way into a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """One sample as a foreign file holds it."""

    id: str
    split: str
    labels: NDArray[np.uint8]
    """(L,), 0 or 1."""
    features: Mapping[str, NDArray[Any]]
    """(T, d) by modality, perhaps padded with zeros; absent modalities are left out."""
    group: str = ""
    """Video or dialogue; the id itself when empty."""
    transcript: str = ""
    intensities: NDArray[np.float32] | None = None
    """(L,) label strengths."""


@dataclass(frozen=True)
class Corpus:
    """A foreign data set: what it is called, and its samples, which are read as they are asked for."""

    name: str
    labels: Sequence[str]
    """In the order of the L axis."""
    sources: Mapping[str, str]
    """Identifies the extractor of each modality; the order of the modalities."""
    samples: Iterable[CorpusSample]
    count: int
    """How many samples there are."""
    notes: Sequence[str] = ()
    splits: Sequence[str] = SPLITS


def import_corpus(
    foreign: Corpus,
    path: str | os.PathLike[str],
    *,
    keep_padding: bool = False,
    dtype: str = "float32",
    overwrite: bool = False,
) -> Store:
    """Write a foreign data set as a store; padding is stripped and values are cleaned and counted.

    Leading and trailing steps that are zero in all columns are padding. A modality that is nothing else is
    absent; samples without any modality are left out. Inf and NaN become 0.

    Args:
        foreign: opened by a reader.
        path: folder of the store to make.
        keep_padding: leave sequences as long as they are.
        dtype: of the features on disk.
        overwrite: replace an existing store.

    Raises:
        DataError: a sample is wrong; nothing is left behind.
    """
    seen = {m: _Seen() for m in foreign.sources}
    empty: list[str] = []
    with StoreWriter(
        path, foreign.name, foreign.labels, foreign.sources, foreign.splits, dtype=dtype, overwrite=overwrite
    ) as writer:
        for sample in track(foreign.samples, "Importing", total=foreign.count):
            cleaned = {m: seen[m].clean(x, sample.id, m, keep_padding) for m, x in sample.features.items()}
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
        for m, counts in seen.items():
            writer.cleaning[m] = counts.report()
            writer.transforms[m] = Transform(width=counts.width)
        writer.notes.extend(foreign.notes)
        if empty:
            writer.notes.append(f"{len(empty)} samples without any modality left out, e.g. '{empty[0]}'")
    return open_store(path)


@dataclass
class _Seen:
    """What was met and changed in one modality."""

    width: int = 0
    stripped: int = 0
    replaced: int = 0
    absent: int = 0
    lowest: NDArray[Any] | None = None
    highest: NDArray[Any] | None = None
    rising: NDArray[Any] | None = field(default=None)
    """Sequences of three steps at least in which a column never falls and rises."""
    long: int = 0

    def clean(self, x: NDArray[Any], id: str, modality: str, keep_padding: bool) -> NDArray[Any]:
        """Without padding, finite."""
        if x.ndim != 2 or x.dtype.kind not in "fiu":
            raise DataError(f"sample '{id}', {modality}: expected numbers (T, d), found {x.dtype} {x.shape}")
        if len(x) and not self.width:
            self.width = x.shape[1]
        if not keep_padding:
            kept = strip_padding(x)
            self.stripped += len(x) - len(kept)
            x = kept
        elif not len(strip_padding(x)):
            x = x[:0]
        if not len(x):
            self.absent += 1
            return x
        finite = np.isfinite(x)
        if not finite.all():
            self.replaced += int(finite.size - finite.sum())
            x = np.where(finite, x, 0)
        self._watch(x)
        return x

    def report(self) -> list[str]:
        """In words."""
        done = []
        if self.stripped:
            done.append(f"{self.stripped} steps of zeros before or after sequences stripped")
        if self.absent:
            done.append(f"absent from {self.absent} samples, where it was all zeros or empty")
        if self.replaced:
            done.append(f"{self.replaced} values that were inf or NaN set to 0")
        if self.lowest is not None and self.highest is not None:
            constant = np.flatnonzero(self.lowest == self.highest).tolist()
            if constant:
                done.append(f"constant columns: {_some(constant)}")
            if self.rising is not None and self.long >= 3:
                like_time = np.flatnonzero(self.rising >= 0.99 * self.long).tolist()
                if like_time:
                    done.append(f"columns that only rise, like time stamps: {_some(like_time)}")
        return done

    def _watch(self, x: NDArray[Any]) -> None:
        low, high = x.min(0), x.max(0)
        if self.lowest is None or self.highest is None or self.rising is None:
            self.lowest, self.highest, self.rising = low, high, np.zeros(x.shape[1], dtype=np.int64)
        if len(low) != len(self.lowest):
            return  # the writer refuses it
        self.lowest, self.highest = np.minimum(self.lowest, low), np.maximum(self.highest, high)
        if len(x) >= 3:
            self.long += 1
            candidates = np.flatnonzero(x[0] < x[-1])  # few columns rise from end to end: look at those only
            never_falls = (np.diff(x[:, candidates], axis=0) >= 0).all(0)
            self.rising[candidates[never_falls]] += 1


def strip_padding(x: NDArray[Any]) -> NDArray[Any]:
    """Without leading and trailing steps that are zero in all columns.

    >>> strip_padding(np.array([[0, 0], [1, 0], [0, 0], [0, 2], [0, 0]])).tolist()
    [[1, 0], [0, 0], [0, 2]]
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN is no zero, and no reason to warn
        filled = np.flatnonzero(x.any(axis=1))
    return x[filled[0] : filled[-1] + 1] if len(filled) else x[:0]


def _some(columns: list[int]) -> str:
    shown = ", ".join(map(str, columns[:20]))
    return shown + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
