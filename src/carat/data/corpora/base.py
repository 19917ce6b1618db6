"""Published datasets: the interface of their readers, and writing them as stores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.cleaning import Cleaning, FeatureCleaner
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
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
    dtype: Literal["float16", "float32"] = "float32",
    overwrite: bool = False,
    strict: bool = False,
) -> Store:
    """Write a published dataset as a store.

    Padding, that is, leading and trailing steps of zeros, is stripped, and inf and NaN are replaced by 0. A
    modality whose values are all zeros, inf or NaN is absent; samples without any modality are excluded. All
    changes are counted in the manifest, see `carat.data.cleaning`.

    Args:
        corpus: dataset opened by a reader.
        path: folder of the store.
        keep_padding: do not strip padding.
        dtype: data type of the features on disk, "float16" or "float32".
        overwrite: replace an existing store.
        strict: see `StoreWriter`.

    Raises:
        DataError: a sample is invalid, or the target exists. No store is written.
    """
    rules = Cleaning(padding="keep" if keep_padding else "strip")
    cleaners = {m: FeatureCleaner(m, rules, dtype) for m in corpus.sources}
    empty: list[str] = []
    with StoreWriter(
        path,
        corpus.name,
        corpus.labels,
        corpus.sources,
        corpus.splits,
        dtype=dtype,
        overwrite=overwrite,
        strict=strict,
    ) as writer:
        for sample in track(corpus.samples, "Importing", total=corpus.count):
            cleaned = {
                m: cleaner.clean(sample.features.get(m), f"sample '{sample.id}', {m}")
                for m, cleaner in cleaners.items()
            }
            features = {m: x for m, x in cleaned.items() if x is not None}
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
            if cleaner.transform is not None:
                writer.transforms[m] = cleaner.transform
        writer.notes.extend(corpus.notes)
        if empty:
            writer.notes.append(f"{len(empty)} samples without any modality excluded, e.g. '{empty[0]}'")
    return open_store(path)


def strip_padding(x: NDArray[Any]) -> NDArray[Any]:
    """Remove leading and trailing steps of zeros from (T, d).

    >>> strip_padding(np.array([[0, 0], [1, 0], [0, 0], [0, 2], [0, 0]])).tolist()
    [[1, 0], [0, 0], [0, 2]]
    """
    with np.errstate(invalid="ignore"):  # signaling NaNs are nonzero; do not warn about them
        nonzero = np.flatnonzero(x.any(axis=1))
    return x[nonzero[0] : nonzero[-1] + 1] if len(nonzero) else x[:0]
