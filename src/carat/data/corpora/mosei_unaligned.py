"""Unaligned MOSEI: `mosei_senti_data_noalign.pkl`, whose emotion labels come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample, strip_padding
from carat.data.corpora.label_table import LabelTable, Segment
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.mosei_aligned import AlignedFile
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import item, length, sequence, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "text", "visual": "vision", "audio": "audio"}
LOOKED_AT = 400
"""Samples of a split on which a pairing is examined."""
ALIKE = 0.9
"""Share of samples that must agree."""


class UnalignedFile:
    """The file, opened.

    Args:
        file: a dict of splits with `vision`, `audio`, `text` and `id`.

    Raises:
        DataError: names split and entry, what was found and what was expected.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.splits = open_splits(file, list(FEATURES.values()), ["id", "labels"])

    def count(self, split: str) -> int:
        """Samples of a split."""
        return length(self.splits[split]["text"], split)

    def features(self, split: str, i: int) -> dict[str, NDArray[Any]]:
        """(T, d) by modality, padded as the file has it."""
        return {m: self.feature(split, m, i) for m in FEATURES}

    def feature(self, split: str, modality: str, i: int) -> NDArray[Any]:
        """(T, d)."""
        key = FEATURES[modality]
        return sequence(item(self.splits[split][key], i), f"{self.file}, {split}, {key}, sample {i}")

    def sentiment(self, split: str, i: int) -> float:
        """Of the file's own `labels`; nan where there is none."""
        if "labels" not in self.splits[split]:
            return float("nan")
        values = to_array(item(self.splits[split]["labels"], i), f"{self.file}, {split}, labels").reshape(-1)
        return float(values[0]) if len(values) and values.dtype.kind in "iuf" else float("nan")

    def name(self, split: str, i: int) -> tuple[str, float, float]:
        """Video, start and end in seconds."""
        what = f"{self.file}, {split}, id, sample {i}"
        if "id" not in self.splits[split]:
            raise DataError(f"{what}: the file has no 'id'; pair by place with --by-index")
        value = item(self.splits[split]["id"], i)
        parts = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(parts, (list, tuple)) or len(parts) != 3:
            raise DataError(f"{what}: expected video, start and end, found {str(parts)[:60]}")
        video, *times = (text(part, what) for part in parts)
        try:
            start, end = map(float, times)
        except ValueError as error:
            raise DataError(f"{what}: expected times in seconds, found {times}") from error
        return video, start, end


def open_mosei_unaligned(file: Path, labels: Path, by_index: bool = False) -> Corpus:
    """The data set, with emotion labels from a label table or from the aligned file.

    Args:
        file: `mosei_senti_data_noalign.pkl`.
        labels: a label table, paired by video and time; or the aligned file, which names no samples and is
            paired by place.
        by_index: pair by place. Refused where counts, lengths or text features contradict it.

    Raises:
        DataError: the files do not fit.
    """
    opened = UnalignedFile(file)
    aligned = labels.suffix.lower() in (".pt", ".pkl", ".bin")
    if aligned and not by_index:
        raise DataError(
            f"{labels}: names no samples; if it has the same ones in the same order, add --by-index"
        )
    if by_index and not aligned:
        raise DataError(f"{labels}: --by-index pairs with the aligned file (.pt); a table is paired by time")
    notes = []
    if aligned:
        other = AlignedFile(labels)
        for split in opened.splits:
            _examine(opened, other, split)
        samples, count = _by_index(opened, other), sum(map(opened.count, opened.splits))
        notes.append(f"labels by place from {labels.name}; counts, lengths and text features agree")
    else:
        pairs, lost = _by_time(opened, LabelTable(labels))
        samples, count = _from_table(opened, pairs), len(pairs)
        notes.append(f"labels by video and time from {labels.name}")
        if lost:
            notes.append(f"{lost} samples without a row in {labels.name} left out")
    return Corpus(
        name="mosei-unaligned",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mosei-unaligned:{hash_file(file).sha256[:12]}"),
        samples=samples,
        count=count,
        notes=notes,
    )


def _by_index(opened: UnalignedFile, other: AlignedFile) -> Iterator[CorpusSample]:
    for split in opened.splits:
        named = "id" in opened.splits[split]
        for i in range(opened.count(split)):
            group = opened.name(split, i)[0] if named else ""
            yield CorpusSample(
                f"{split}/{i:05d}", split, other.labels(split, i), opened.features(split, i), group=group
            )


def _from_table(opened: UnalignedFile, pairs: list[tuple[str, int, Segment]]) -> Iterator[CorpusSample]:
    for split, i, segment in pairs:
        yield segment.sample(split, opened.features(split, i))


def _by_time(opened: UnalignedFile, table: LabelTable) -> tuple[list[tuple[str, int, Segment]], int]:
    """Split, place and row of every sample that the table has, and how many it lacks."""
    pairs, lost, agree, compared = [], 0, 0, 0
    for split in opened.splits:
        for i in range(opened.count(split)):
            video, start, end = opened.name(split, i)
            segment = table.by_time(video, start, end)
            if segment is None:
                lost += 1
                continue
            pairs.append((split, i, segment))
            own = opened.sentiment(split, i)
            if np.isfinite(own) and np.isfinite(segment.sentiment):
                compared += 1
                agree += abs(own - segment.sentiment) < 0.01
    if len(pairs) < lost:
        raise DataError(
            f"{table.file}: has a row for {len(pairs)} of {len(pairs) + lost} samples only, by video and time"
        )
    if compared and agree < ALIKE * compared:
        raise DataError(
            f"{table.file}: its sentiment agrees for {agree} of {compared} samples only: other labels?"
        )
    return pairs, lost


def _examine(opened: UnalignedFile, other: AlignedFile, split: str) -> None:
    """Refuse a pairing by place that the data contradicts."""
    count = opened.count(split)
    if count != other.count(split):
        raise DataError(
            f"{other.file}: {other.count(split)} samples in {split}, but {opened.file} has {count}: they "
            f"cannot be paired by place"
        )
    looked = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int))
    ours = [strip_padding(opened.feature(split, "text", i)) for i in looked]
    theirs = [strip_padding(other.features(split, i)["text"]) for i in looked]
    if len(looked) < 3:
        return
    shortest = min(max(map(len, ours)), max(map(len, theirs)))
    lengths = [np.minimum([len(x) for x in side], shortest) for side in (ours, theirs)]
    agreeing = float(np.mean(np.abs(lengths[0] - lengths[1]) <= 1 + 0.1 * lengths[0]))
    if agreeing < 0.5:
        raise DataError(
            f"{other.file}, {split}: text lengths agree for {agreeing:.0%} of samples only: another order "
            f"than in {opened.file}"
        )
    if {x.shape[1] for x in ours} != {x.shape[1] for x in theirs}:
        return  # other features: only counts and lengths could be compared
    similar = [_alike(a, b) for a, b in zip(ours, theirs, strict=True)]
    shifted = [_alike(a, b) for a, b in zip(ours[1:], theirs, strict=False)]
    if np.median(similar) < 0.5 or np.median(similar) <= np.median(shifted):
        raise DataError(
            f"{other.file}, {split}: text features are not those of {opened.file} (median cosine "
            f"{np.median(similar):.2f}): another order, or other samples"
        )


def _alike(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of the mean vectors."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    means = [np.nan_to_num(x.astype(np.float64)).mean(0) for x in (a, b)]
    norms = np.linalg.norm(means, axis=1).prod()
    return float(means[0] @ means[1] / norms) if norms else 0.0
