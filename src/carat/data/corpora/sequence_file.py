"""Reading computational sequences, the HDF5 files of the CMU-MultimodalSDK, with every access validated.

Imports are few because each trial read (`hdf5_sandbox`) imports this module in a new process.
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

from carat.utils.errors import DataError, first_line, printable
from carat.utils.reading import check_content

MAX_TIME = 1e9
"""Upper bound of valid times in seconds."""
BASE_SIZE, SIZE_RATIO = 64 << 20, 8
"""A dataset may have this many bytes, and this many times the size of its file in addition."""
FILTERS = {2: "shuffle", 1: "gzip", 32000: "lzf", 3: "fletcher32"}
"""Allowed filters by HDF5 filter number, in the order in which they are applied on writing."""
MAX_EXPANSION = {"gzip": 1032, "lzf": 88}
"""Maximum ratio of decompressed to compressed size."""


@dataclass(frozen=True)
class Steps:
    """The steps of one video: features and their intervals in time."""

    path: str
    """File and path inside it, for error messages."""
    features: NDArray[Any]
    """(T, d) numbers, or (T, 1) text."""
    intervals: NDArray[np.float64]
    """(T, 2) start and end in seconds, finite."""

    def __getitem__(self, index: NDArray[Any]) -> Steps:
        return replace(self, features=self.features[index], intervals=self.intervals[index])

    def within(self, start: float, end: float) -> Steps:
        """Select the steps whose midpoint is in [start, end)."""
        midpoint = self.intervals.mean(1)
        return self[(start <= midpoint) & (midpoint < end)]

    def sort(self) -> Steps:
        """Sort the steps by start, stably."""
        return self[np.argsort(self.intervals[:, 0], kind="stable")]


@contextmanager
def open_sequence(file: Path) -> Iterator[Sequence]:
    """Open a computational sequence. Errors inside the block are raised as `DataError`.

    Raises:
        DataError: the file cannot be read, is not a computational sequence, or the extra is not installed.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError("reading .csd files needs the extra: pip install 'carat-emotion[csd]'") from error
    check_content(file)
    try:
        with h5py.File(file, "r") as hdf5:
            names = list(hdf5)
            if len(names) != 1:
                raise DataError(f"{file}: expected one group at the root, found {len(names)}")
            yield Sequence(file, hdf5, names[0])
    except DataError:
        raise
    except Exception as error:  # corrupt files make h5py raise errors of many types
        raise DataError(f"{file}: cannot be read as HDF5 ({first_line(error)})") from error


class Sequence:
    """The `data` group of an open computational sequence, from which entries are read one by one.

    Links, filters and declared sizes are checked before any data is read.
    """

    def __init__(self, file: Path, hdf5: Any, root_name: str) -> None:
        self._max_bytes = BASE_SIZE + SIZE_RATIO * file.stat().st_size
        self._path = f"{file}, {printable(root_name)}/data"
        root = _child(hdf5, root_name, "Group", f"{file}, {printable(root_name)}")
        self._group = _child(root, "data", "Group", self._path)

    def ids(self) -> list[str]:
        """Return the video IDs.

        Raises:
            DataError: an ID is not printable or contains a slash.
        """
        ids = list(self._group)
        for id in ids:
            if not id.isprintable() or "/" in id:
                raise DataError(f"{self._path}: invalid video ID {id!a}")
        return ids

    def read(self, *ids: str, text: bool = False) -> Steps | None:
        """Read the entry of a video.

        Args:
            ids: IDs to try in turn.
            text: whether features are words.

        Returns:
            Steps of the first ID in the file; None if there is none, or it has no steps.

        Raises:
            DataError: the entry is incomplete, refused, or has an unexpected shape or type.
        """
        id = next((id for id in ids if self._group.get(id, getlink=True) is not None), None)
        if id is None:
            return None
        path = f"{self._path}/{printable(id)}"
        entry = _child(self._group, id, "Group", path)
        intervals = self._read_array(entry, "intervals", path, "fiu").astype(np.float64)
        features = self._read_array(entry, "features", path, "S" if text else "fiu")
        if intervals.shape[1] != 2:
            raise DataError(f"{path}/intervals: width {intervals.shape[1]}, expected 2: start and end")
        if len(features) != len(intervals):
            raise DataError(f"{path}: {len(features)} features, but {len(intervals)} intervals")
        if not (np.abs(intervals) < MAX_TIME).all():
            raise DataError(
                f"{path}/intervals: expected times in seconds, found inf, NaN or values over {MAX_TIME:.0e}"
            )
        if text and features.shape[1] != 1:
            raise DataError(f"{path}/features: width {features.shape[1]}, expected 1 word per step")
        if text:
            try:
                features = np.char.decode(features)
            except UnicodeDecodeError as error:
                raise DataError(f"{path}/features: not UTF-8 ({first_line(error)})") from error
        return Steps(path, features, intervals) if len(features) else None

    def _read_array(self, entry: Any, name: str, path: str, kinds: str) -> NDArray[Any]:
        """Read a dataset of two axes and an allowed kind of dtype, in native byte order."""
        path = f"{path}/{name}"
        dataset = _child(entry, name, "Dataset", path)
        dtype = dataset.dtype
        if dataset.shape is None or len(dataset.shape) != 2:
            raise DataError(f"{path}: expected two axes, found {dataset.shape}")
        # variable-length text is refused too: libhdf5 2.0 loops or allocates gigabytes if it is corrupt
        if dtype.kind not in kinds or (dtype.kind == "f" and dtype.itemsize > 8):
            expected = "fixed-length text" if kinds == "S" else "numbers"
            raise DataError(f"{path}: expected {expected}, found {dtype}")
        if dataset.external is not None or dataset.is_virtual:
            raise DataError(f"{path}: external storage and virtual datasets are refused")
        size = max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dtype.itemsize
        if size > self._max_bytes:
            raise DataError(
                f"{path}: shape {dataset.shape} in chunks of {dataset.chunks} takes {size} bytes, "
                f"expected at most {self._max_bytes}"
            )
        self._check_filters(dataset, path)
        array: NDArray[Any] = dataset[()]
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _check_filters(self, dataset: Any, path: str) -> None:
        """Refuse unknown filters, and chunks that decompress to more than their declared size."""
        properties = dataset.id.get_create_plist()
        numbers = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        names = [FILTERS.get(number, str(number)) for number in numbers]
        if names != [name for name in FILTERS.values() if name in names] or {"gzip", "lzf"} <= set(names):
            raise DataError(f"{path}: filters {', '.join(names)}; expected shuffle, gzip or lzf, fletcher32")
        chunks: list[Any] = []
        if names:
            dataset.id.chunk_iter(chunks.append)
        for chunk in chunks:
            applied = [name for i, name in enumerate(names) if not chunk.filter_mask >> i & 1]
            if "fletcher32" in applied and chunk.size < 4:  # crashes libhdf5 2.0
                raise DataError(f"{path}: chunk of {chunk.size} bytes is too short for its checksum")
            if (
                max((MAX_EXPANSION.get(name, 1) for name in applied), default=1) * chunk.size
                <= self._max_bytes
            ):
                continue
            if "lzf" in applied:
                raise DataError(f"{path}: lzf chunk of {chunk.size} bytes may decompress to any size")
            compressed = dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
            declared = math.prod(dataset.chunks) * dataset.dtype.itemsize
            if (
                "gzip" in applied
                and len(zlib.decompressobj().decompress(compressed, declared + 1)) > declared
            ):
                raise DataError(f"{path}: chunk decompresses to more than the {declared} bytes of its shape")


def video_of(id: str) -> str:
    """Remove the number of a segment from an ID: `video[3]` is `video`."""
    return id.partition("[")[0] or id


def _child(parent: Any, name: str, kind: str, path: str) -> Any:
    """Return the child of a group, a "Group" or a "Dataset", which must be a hard link."""
    link = None if "/" in name else parent.get(name, getlink=True)
    if link is None:
        raise DataError(f"{path}: missing")
    if type(link).__name__ != "HardLink":
        raise DataError(f"{path}: {type(link).__name__} refused; only hard links are followed")
    child = parent[name]
    if type(child).__name__ != kind:
        raise DataError(f"{path}: expected a {kind}, found a {type(child).__name__}")
    return child
