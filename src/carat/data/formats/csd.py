"""Computational sequences of the CMU-MultimodalSDK: `.csd` files, which are HDF5 (extra `csd`).

A file holds one root group with `data/<video>/features` (T, d) and `data/<video>/intervals` (T, 2), start and
end in seconds. Its `metadata` is never read.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.foreign import Foreign, ForeignSample
from carat.data.formats.label_table import FOLDS, MOSEI
from carat.data.formats.table import Table
from carat.data.manifest import hash_file
from carat.errors import DataError

TEXT = "text"
SILENCE = "sp"
TOLERANCE = 1e-3
"""Seconds by which a word and its vector may differ."""
SMALL = 64 << 20
"""Bytes that any dataset may take in memory."""
RATIO = 8
"""Times the size of the file that a dataset may take beyond that; more means that it is forged."""
MOST_OVERLAPS = 1 << 26
"""Pairs of words and frames in one segment; more means that the intervals are forged."""
HEAP = b"GCOL\x01"
GROWTH = {"gzip": 1032, "lzf": 88}
"""Times its size to which compressed data can grow at most."""
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""The only filters that are run, by their number in HDF5."""


def open_csd(
    words: Path,
    labels: Path,
    folds: Path,
    modalities: Mapping[str, Path],
    *,
    aligned: bool = True,
    text: Path | None = None,
) -> Foreign:
    """Segments of videos, cut out of sequences over time.

    A sample is one row of the label file, `<video>/<row>`; a label is present where its intensity is above 0.
    Words belong to the segment in which their middle lies; silence (`sp`) is dropped. Ids with a suffix, such
    as `video[3]`, belong to the group `video`, and to that entry of a file that has none for `video[3]`.

    Args:
        words: words (T, 1); the pivot, and the transcript.
        labels: (S, 7), sentiment and the six intensities of `MOSEI`.
        folds: which videos are train, valid (or dev) and test: JSON, ids by fold; or a table with the columns
            `video_id` and `fold`.
        modalities: sequence by modality, without text.
        aligned: one step per word, the mean of the frames that overlap it, and zeros where none does; or
            else all frames whose middle lies in the segment. Inf and NaN are left out of means.
        text: word vectors, with the intervals of the words.

    Returns:
        The data set; its files are open only while a video is read. `count` is what the label file has, and
        the notes say at the end how many segments were left out because nothing was found for them.

    Raises:
        DataError: names the file, the place inside, what was found and what was expected; also while the
            samples are read.
    """
    if TEXT in modalities:
        raise DataError(f"{modalities[TEXT]}: word vectors are given as text, not as another modality")
    files = dict(modalities) if text is None else {TEXT: text, **modalities}
    if not files:
        raise DataError("word vectors or another modality are needed beside the words")
    fold = _folds(folds)
    segments, without = _segments(labels, fold)
    for file in (words, *files.values()):
        with _opened(file):
            pass
    _check_heaps(words)
    notes = []
    if without:
        notes.append(f"{len(without)} videos without a fold left out, e.g. '{without[0]}'")
    return Foreign(
        name=labels.stem,
        labels=MOSEI,
        sources={m: f"csd:{hash_file(f).sha256[:12]}{':aligned' * aligned}" for m, f in files.items()},
        samples=_samples(segments, words, files, aligned, notes),
        count=sum(len(video.intervals) for video in segments),
        notes=notes,
    )


@dataclass(frozen=True)
class _Steps:
    """What a file holds for one video."""

    place: str
    features: NDArray[Any]
    """(T, d) numbers, or (T, 1) text."""
    intervals: NDArray[np.float64]
    """(T, 2) start and end in seconds, finite."""

    def __getitem__(self, chosen: NDArray[Any]) -> _Steps:
        return replace(self, features=self.features[chosen], intervals=self.intervals[chosen])

    def within(self, start: float, end: float) -> _Steps:
        """The steps whose middle lies in [start, end)."""
        middle = self.intervals.mean(1)
        return self[(start <= middle) & (middle < end)]


@dataclass(frozen=True)
class _Video:
    """The segments of one entry of the label file."""

    id: str
    split: str
    intervals: NDArray[np.float64]
    """(S, 2)."""
    intensities: NDArray[np.float32]
    """(S, 6)."""

    @property
    def group(self) -> str:
        return _group(self.id)


def _group(id: str) -> str:
    """The video without the number of a segment: `video` of `video[3]`."""
    return id.partition("[")[0] or id


# Folds and labels


def _folds(file: Path) -> dict[str, str]:
    """Split by video."""
    pairs = _json_folds(file) if file.suffix == ".json" else _table_folds(file)
    found: dict[str, str] = {}
    for id, fold in pairs:
        if not fold:
            continue
        if fold not in FOLDS:
            raise DataError(f"{file}, video '{id}': fold '{fold}' is none of {', '.join(FOLDS)}")
        split = found.setdefault(_group(id), FOLDS[fold])
        if split != FOLDS[fold]:
            raise DataError(f"{file}: video '{_group(id)}' is in two folds, {split} and {FOLDS[fold]}")
    return found


def _json_folds(file: Path) -> list[tuple[str, str]]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        folds = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({_line(error)})") from error
    if not isinstance(folds, dict) or not all(isinstance(ids, list) for ids in folds.values()):
        raise DataError(f'{file}: expected lists of ids by fold, such as {{"train": [...]}}')
    pairs = [(id, fold) for fold, ids in folds.items() for id in ids]
    for id, fold in pairs:
        if not isinstance(id, str):
            raise DataError(f"{file}, {_clean(fold)}: expected ids that are text, found {type(id).__name__}")
    return [(_clean(id), _clean(fold)) for id, fold in pairs]


def _table_folds(file: Path) -> list[tuple[str, str]]:
    table = Table(file)
    video = "video" if "video" in table.columns and "video_id" not in table.columns else "video_id"
    fold = "split" if "split" in table.columns and "fold" not in table.columns else "fold"
    return list(zip(map(_clean, table.text(video)), map(_clean, table.text(fold)), strict=True))


def _segments(file: Path, folds: Mapping[str, str]) -> tuple[list[_Video], list[str]]:
    """Videos of the label file that have a fold, and the ids of those that have none."""
    videos, without = [], []
    with _opened(file) as data:
        for id in data.entries():
            split = folds.get(_group(id))
            if split is None:
                without.append(id)
                continue
            steps = data.read(id)
            if steps is None:
                continue
            if steps.features.shape[1] != 1 + len(MOSEI):
                raise DataError(
                    f"{steps.place}/features: width {steps.features.shape[1]}, expected {1 + len(MOSEI)}: "
                    f"sentiment, {', '.join(MOSEI)}"
                )
            with np.errstate(all="ignore"):
                intensities = steps.features[:, 1:].astype(np.float32)
            if not np.isfinite(intensities).all():
                raise DataError(f"{steps.place}/features: inf or NaN among the intensities")
            videos.append(_Video(id, split, steps.intervals, intensities))
    if not videos:
        raise DataError(f"{file}: none of its videos has a fold and a segment")
    return videos, without


# Samples


def _samples(
    videos: Sequence[_Video], words: Path, files: Mapping[str, Path], aligned: bool, notes: list[str]
) -> Iterator[ForeignSample]:
    """Reads video by video; says in `notes`, when through, what was left out."""
    empty: list[str] = []
    absent: Counter[str] = Counter()
    for video in videos:
        spoken = _read(words, video, text=True)
        steps = {m: _read(file, video) for m, file in files.items()}
        if TEXT in steps:
            steps[TEXT] = _fit(steps[TEXT], spoken)
        if spoken is not None:
            spoken = spoken[_sounds(spoken)]
        absent.update(m for m, of_video in steps.items() if of_video is None)
        for k, (start, end) in enumerate(video.intervals):
            said = None if spoken is None else spoken.within(start, end)
            features = {}
            for m, of_video in steps.items():
                if of_video is None:
                    continue
                if m == TEXT or not aligned:
                    rows = of_video.within(start, end).features
                else:
                    rows = of_video.features[:0] if said is None else _average(of_video, said.intervals)
                if len(rows):
                    features[m] = rows
            id = f"{video.id}/{k}"
            if not features:
                empty.append(id)
                continue
            yield ForeignSample(
                id,
                video.split,
                (video.intensities[k] > 0).astype(np.uint8),
                features,
                group=video.group,
                transcript="" if said is None else " ".join(said.features[:, 0]),
                intensities=video.intensities[k],
            )
    notes.extend(f"{m}: {absent[m]} videos without a sequence" for m in files if absent[m])
    if empty:
        notes.append(f"{len(empty)} segments without words or frames left out, e.g. '{empty[0]}'")


def _read(file: Path, video: _Video, *, text: bool = False) -> _Steps | None:
    """The steps of a video in order of time, None where the file has none."""
    with _opened(file) as data:
        id = video.id if data.has(video.id) else video.group
        steps = data.read(id, text=text) if data.has(id) else None
    if steps is None:
        return None
    return steps[np.argsort(steps.intervals[:, 0], kind="stable")]


def _sounds(words: _Steps) -> NDArray[np.bool_]:
    """(T,), False for silence."""
    return np.array(words.features[:, 0] != SILENCE, dtype=bool)


def _fit(vectors: _Steps | None, words: _Steps | None) -> _Steps | None:
    """The word vectors without those of silence, which some files have and others have not.

    Raises:
        DataError: the vectors are not those of the words.
    """
    if vectors is None or words is None:
        return None
    sounds = _sounds(words)
    if len(vectors.intervals) == len(words.intervals):
        vectors = vectors[sounds]
    expected = words.intervals[sounds]
    if len(vectors.intervals) != len(expected):
        raise DataError(
            f"{vectors.place}/intervals: {len(vectors.intervals)} vectors for the {len(words.intervals)} "
            f"words of {words.place}, {len(expected)} of them without silence"
        )
    apart = np.flatnonzero(np.abs(vectors.intervals - expected).max(1, initial=0) > TOLERANCE)
    if len(apart):
        found, wanted = vectors.intervals[apart[0]].tolist(), expected[apart[0]].tolist()
        raise DataError(
            f"{vectors.place}/intervals: vector {apart[0]} (without silence) has {found}, "
            f"but its word in {words.place} has {wanted}"
        )
    return vectors


def _average(frames: _Steps, intervals: NDArray[np.float64]) -> NDArray[Any]:
    """(W, d): mean of the frames that overlap each interval, zeros where none does.

    Args:
        frames: sorted by their start.
        intervals: (W, 2).
    """
    starts, ends = frames.intervals.T
    # candidates of each word: frames that start before it ends, from the first that may end after its start
    first = np.searchsorted(np.maximum.accumulate(ends), intervals[:, 0], side="right")
    last = np.searchsorted(starts, intervals[:, 1], side="left")
    if np.maximum(last - first, 0).sum() > MOST_OVERLAPS:
        raise DataError(f"{frames.place}/intervals: more than {MOST_OVERLAPS} overlaps with words")
    means = np.zeros(
        (len(intervals), frames.features.shape[1]), dtype=np.result_type(frames.features, np.float32)
    )
    with np.errstate(all="ignore"):
        for word, ((start, end), a, b) in enumerate(zip(intervals, first, last, strict=True)):
            overlap = np.minimum(ends[a:b], end) - np.maximum(starts[a:b], start)
            rows = frames.features[a:b][overlap > 0]
            finite = np.isfinite(rows)
            total = np.where(finite, rows, 0).sum(0, dtype=np.float64)
            means[word] = total / np.maximum(finite.sum(0), 1)
    return means


# Files, which are not trusted


@contextmanager
def _opened(file: Path) -> Iterator[_Data]:
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
            yield _Data(file, opened, names[0])
    except DataError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise DataError(f"{file}: cannot be read as HDF5 ({_line(error)})") from error


class _Data:
    """The `data` group of an open file.

    Only hard links are followed, only what a sequence needs is read, and nothing that is declared too large.
    """

    def __init__(self, file: Path, opened: Any, name: str) -> None:
        import h5py

        self.limit = SMALL + RATIO * file.stat().st_size
        self.block = max(1, self.limit // max(1, file.stat().st_size))
        """Rows of text that take no more than the limit, were each as large as the file."""
        self.place = f"{file}, {_clean(name)}/data"
        root = _child(opened, name, f"{file}, {_clean(name)}", h5py.Group)
        self._group = _child(root, "data", self.place, h5py.Group)

    def entries(self) -> list[str]:
        """Ids of the videos.

        Raises:
            DataError: an id with line breaks or the like, or one that is a path.
        """
        ids = list(self._group)
        for id in ids:
            if not id.isprintable() or "/" in id:
                raise DataError(f"{self.place}: {id!a} is refused as an id")
        return ids

    def has(self, id: str) -> bool:
        """Whether there is an entry for a video."""
        return self._group.get(id, getlink=True) is not None

    def read(self, id: str, *, text: bool = False) -> _Steps | None:
        """Features and intervals of a video, None where it has no steps.

        Raises:
            DataError: says what is missing, refused, or of the wrong shape.
        """
        import h5py

        place = f"{self.place}/{_clean(id)}"
        entry = _child(self._group, id, place, h5py.Group)
        features = self._array(entry, "features", f"{place}/features", text)
        intervals = self._array(entry, "intervals", f"{place}/intervals", False)
        if intervals.shape[1] != 2:
            raise DataError(f"{place}/intervals: width {intervals.shape[1]}, expected 2: start and end")
        if len(features) != len(intervals):
            raise DataError(f"{place}: {len(features)} features, but {len(intervals)} intervals")
        if text and features.shape[1] != 1:
            raise DataError(f"{place}/features: width {features.shape[1]}, expected 1 word")
        if not np.isfinite(intervals).all():
            raise DataError(f"{place}/intervals: inf or NaN")
        return _Steps(place, features, intervals.astype(np.float64)) if len(features) else None

    def _array(self, entry: Any, name: str, place: str, text: bool) -> NDArray[Any]:
        """(T, d), numbers in the order of this machine's bytes, or `str` objects."""
        import h5py

        dataset = _child(entry, name, place, h5py.Dataset)
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None or len(shape) != 2:
            raise DataError(f"{place}: expected two axes, found {shape}")
        if text and h5py.check_string_dtype(dtype) is None:
            raise DataError(f"{place}: expected words, found {dtype}")
        if not text and (dtype.kind not in "fiu" or dtype.itemsize > 8):
            raise DataError(f"{place}: expected numbers, found {dtype}")
        if dataset.external is not None:
            raise DataError(f"{place}: external storage is refused")
        if dataset.is_virtual:
            raise DataError(f"{place}: virtual datasets are refused")
        for what, sizes in (("data", shape), ("chunks", dataset.chunks or ())):
            needed = math.prod(sizes) * dtype.itemsize
            if needed > self.limit:
                raise DataError(
                    f"{place}: {what} of {sizes} would take {needed} bytes, which a file of this size cannot "
                    f"hold (at most {self.limit})"
                )
        self._check_filters(dataset, place)
        if text:
            return self._words(dataset, place)
        array: NDArray[Any] = dataset[()]
        return array.astype(dtype.newbyteorder("="))

    def _check_filters(self, dataset: Any, place: str) -> None:
        """Only known filters, one compression, and no chunk that grows far beyond its declared size."""
        settings = dataset.id.get_create_plist()
        filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
        unknown = [str(number) for number in filters if number not in FILTERS]
        if unknown:
            allowed = ", ".join(FILTERS.values())
            raise DataError(f"{place}: filter {unknown[0]} is refused, allowed are {allowed}")
        names = [FILTERS[number] for number in filters]
        if len(set(names)) < len(names) or {"gzip", "lzf"} <= set(names):
            raise DataError(f"{place}: filters {', '.join(names)}: one compression at most, each once")
        compression = next((name for name in names if name in GROWTH), None)
        if compression is None:
            return
        place_of_it = names.index(compression)
        if "shuffle" in names[place_of_it:]:
            raise DataError(f"{place}: filters {', '.join(names)}: shuffle must come before {compression}")
        declared = math.prod(dataset.chunks) * dataset.dtype.itemsize
        chunks: list[Any] = []
        dataset.id.chunk_iter(chunks.append)
        for chunk in chunks:
            skipped = chunk.filter_mask >> place_of_it & 1
            if skipped or chunk.size * GROWTH[compression] <= self.limit:
                continue
            if compression == "lzf":
                raise DataError(f"{place}: lzf chunk of {chunk.size} bytes, which may be any size in memory")
            raw = dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
            # with the checksum that may have been added before
            if len(zlib.decompressobj().decompress(raw, declared + 5)) > declared + 4:
                raise DataError(f"{place}: a chunk grows beyond the {declared} bytes of its shape")

    def _words(self, dataset: Any, place: str) -> NDArray[Any]:
        """(T, d) `str` objects; read in blocks, since many words may point to the same long text."""
        words = np.empty(dataset.shape, dtype=object)
        size = 0
        for begin in range(0, len(words), self.block):
            rows = slice(begin, begin + self.block)
            for place_in, raw in np.ndenumerate(dataset[rows]):
                size += len(raw)
                try:
                    words[rows][place_in] = raw.decode()
                except UnicodeDecodeError as error:
                    raise DataError(f"{place}, row {begin + place_in[0]}: not UTF-8") from error
            if size > self.limit:
                raise DataError(f"{place}: words of more than {self.limit} bytes")
        return words


def _check_heaps(file: Path) -> None:
    """Refuses what makes libhdf5 2.0 loop for ever: objects without size where texts of any length are kept.

    Only words are ever read from there. A heap is `GCOL`, version 1, its size, and objects: number, uses,
    size, and as many bytes, filled up to a multiple of 8; number 0 is free space, whose size includes this.
    """
    with file.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
        last = len(content) - 11  # of a signature, so that the size is there too
        begin = content.find(HEAP, 0, last)
        objects = 0
        while begin >= 0:
            (size,) = struct.unpack_from("<Q", content, begin + 8)
            at, end = begin + 16, min(begin + size, len(content))
            while at + 16 <= end:
                number, size = struct.unpack_from("<H6xQ", content, at)
                taken = size if number == 0 else 16 + -(-size // 8) * 8
                objects += 1
                if taken % 2**64 == 0 or 16 * objects > len(content):
                    raise DataError(f"{file}: cannot be read as HDF5 (damaged text at byte {at})")
                at += taken
            begin = content.find(HEAP, begin + 1, last)


def _child(parent: Any, name: str, place: str, kind: Any) -> Any:
    """A group or dataset below another one, reached by a hard link."""
    import h5py

    link = None if "/" in name else parent.get(name, getlink=True)
    if link is None:
        raise DataError(f"{place}: missing")
    if type(link) is not h5py.HardLink:
        raise DataError(f"{place}: a {type(link).__name__} is refused, only hard links are followed")
    child = parent[name]
    if type(child) is not kind:
        raise DataError(f"{place}: expected a {kind.__name__}, found a {type(child).__name__}")
    return child


def _line(error: Exception) -> str:
    """First line of an error's message."""
    return _clean((str(error).splitlines() or [type(error).__name__])[0])


def _clean(text: str) -> str:
    """Without line breaks and the like, to be shown."""
    return "".join(c if c.isprintable() else "?" for c in text)
