"""One computational sequence: an HDF5 file, read only where it is what it should be.

Light to import: it is read in processes of their own too (`hdf5_trial`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.utils.errors import DataError

LATEST = 1e9
"""Seconds."""
SMALL, RATIO = 64 << 20, 8
"""A dataset may take as many bytes, and as many times the size of its file beyond; more is forged."""
FILTERS = {2: "shuffle", 1: "gzip", 32000: "lzf", 3: "fletcher32"}
"""The only filters that are run, by their number in HDF5, in the order of writing."""
GROWTH = {"gzip": 1032, "lzf": 88}
"""Times its size to which compressed data can grow at most."""


@dataclass(frozen=True)
class Steps:
    """What a file holds for one video."""

    place: str
    features: NDArray[Any]
    """(T, d) numbers, or (T, 1) text."""
    intervals: NDArray[np.float64]
    """(T, 2) start and end in seconds, finite."""

    def __getitem__(self, chosen: NDArray[Any]) -> Steps:
        return replace(self, features=self.features[chosen], intervals=self.intervals[chosen])

    def within(self, start: float, end: float) -> Steps:
        """The steps whose middle lies in [start, end)."""
        middle = self.intervals.mean(1)
        return self[(start <= middle) & (middle < end)]

    def in_order(self) -> Steps:
        """Sorted by start."""
        return self[np.argsort(self.intervals[:, 0], kind="stable")]


@contextmanager
def opened(file: Path) -> Iterator[Sequence]:
    """The `data` group of a file; whatever goes wrong while it is open becomes a `DataError`."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError("reading .csd files needs the extra: pip install 'carat[csd]'") from error
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with h5py.File(file, "r") as opened:
            names = list(opened)
            if len(names) != 1:
                raise DataError(f"{file}: expected one group at the root, found {len(names)}")
            yield Sequence(file, opened, names[0])
    except DataError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise DataError(f"{file}: cannot be read as HDF5 ({first_line(error)})") from error


class Sequence:
    """The `data` group of an open file: only what is asked for is read, and nothing declared too large."""

    def __init__(self, file: Path, opened: Any, name: str) -> None:
        self._limit = SMALL + RATIO * file.stat().st_size
        self._place = f"{file}, {shown(name)}/data"
        root = _child(opened, name, "Group", f"{file}, {shown(name)}")
        self._group = _child(root, "data", "Group", self._place)

    def ids(self) -> list[str]:
        """Of the videos, checked: they are looked up in other files, and shown."""
        ids = list(self._group)
        for id in ids:
            if not id.isprintable() or "/" in id:
                raise DataError(f"{self._place}: {id!a} is refused as an id")
        return ids

    def read(self, *ids: str, text: bool = False) -> Steps | None:
        """What there is for the first of the ids that is there, None if there is nothing.

        Raises:
            DataError: says what is missing, refused, or of the wrong shape.
        """
        found = [id for id in ids if self._group.get(id, getlink=True) is not None]
        if not found:
            return None
        place = f"{self._place}/{shown(found[0])}"
        entry = _child(self._group, found[0], "Group", place)
        intervals = self._array(entry, "intervals", place, "fiu").astype(np.float64)
        features = self._array(entry, "features", place, "S" if text else "fiu")
        if intervals.shape[1] != 2:
            raise DataError(f"{place}/intervals: width {intervals.shape[1]}, expected 2: start and end")
        if len(features) != len(intervals):
            raise DataError(f"{place}: {len(features)} features, but {len(intervals)} intervals")
        if not (np.abs(intervals) < LATEST).all():
            raise DataError(f"{place}/intervals: expected seconds, found inf, NaN or more than {LATEST:.0e}")
        if text and features.shape[1] != 1:
            raise DataError(f"{place}/features: width {features.shape[1]}, expected 1 word")
        if text:
            try:
                features = np.char.decode(features)
            except UnicodeDecodeError as error:
                raise DataError(f"{place}/features: not UTF-8 ({first_line(error)})") from error
        return Steps(place, features, intervals) if len(features) else None

    def _array(self, entry: Any, name: str, place: str, kinds: str) -> NDArray[Any]:
        """(T, d), in the order of this machine's bytes."""
        place = f"{place}/{name}"
        dataset = _child(entry, name, "Dataset", place)
        dtype = dataset.dtype
        if dataset.shape is None or len(dataset.shape) != 2:
            raise DataError(f"{place}: expected two axes, found {dataset.shape}")
        # text of variable length too: libhdf5 2.0 loops for ever, or takes gigabytes, where it is damaged
        if dtype.kind not in kinds or (dtype.kind == "f" and dtype.itemsize > 8):
            wanted = "text of fixed length" if kinds == "S" else "numbers"
            raise DataError(f"{place}: expected {wanted}, found {dtype}")
        if dataset.external is not None or dataset.is_virtual:
            raise DataError(f"{place}: external storage and virtual datasets are refused")
        needed = max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dtype.itemsize
        if needed > self._limit:
            layout = f"{dataset.shape} in chunks of {dataset.chunks}"
            raise DataError(f"{place}: {layout} takes {needed} bytes, more than expected ({self._limit})")
        self._check_filters(dataset, place)
        array: NDArray[Any] = dataset[()]
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _check_filters(self, dataset: Any, place: str) -> None:
        """Only known filters, and no chunk that grows far beyond its declared size."""
        settings = dataset.id.get_create_plist()
        numbers = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        names = [FILTERS.get(number, str(number)) for number in numbers]
        if names != [name for name in FILTERS.values() if name in names] or {"gzip", "lzf"} <= set(names):
            raise DataError(f"{place}: filters {', '.join(names)}; expected shuffle, gzip or lzf, fletcher32")
        chunks: list[Any] = []
        if names:
            dataset.id.chunk_iter(chunks.append)
        for chunk in chunks:
            run = [name for i, name in enumerate(names) if not chunk.filter_mask >> i & 1]
            if "fletcher32" in run and chunk.size < 4:  # libhdf5 2.0 crashes
                raise DataError(f"{place}: a chunk of {chunk.size} bytes, too short for its checksum")
            if max((GROWTH.get(name, 1) for name in run), default=1) * chunk.size <= self._limit:
                continue
            if "lzf" in run:
                raise DataError(f"{place}: lzf chunk of {chunk.size} bytes, which may be any size in memory")
            raw = dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
            declared = math.prod(dataset.chunks) * dataset.dtype.itemsize
            if "gzip" in run and len(zlib.decompressobj().decompress(raw, declared + 1)) > declared:
                raise DataError(f"{place}: a chunk grows beyond the {declared} bytes of its shape")


def _child(parent: Any, name: str, kind: str, place: str) -> Any:
    """A Group or Dataset below another one, reached by a hard link."""
    link = None if "/" in name else parent.get(name, getlink=True)
    if link is None:
        raise DataError(f"{place}: missing")
    if type(link).__name__ != "HardLink":
        raise DataError(f"{place}: a {type(link).__name__} is refused, only hard links are followed")
    child = parent[name]
    if type(child).__name__ != kind:
        raise DataError(f"{place}: expected a {kind}, found a {type(child).__name__}")
    return child


def first_line(error: Exception) -> str:
    """First line of an error's message."""
    return shown((str(error).splitlines() or [type(error).__name__])[0])


def shown(text: str) -> str:
    """Without line breaks and the like, to be shown."""
    return "".join(c if c.isprintable() else "?" for c in text)
