"""Reader of computational sequences of the CMU-MultimodalSDK, `.csd` files in HDF5 format (extra `csd`).

A file has one root group with `data/<video>/features` (T, d) and `data/<video>/intervals` (T, 2), start and
end in seconds. Its `metadata` is not read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.folds import read_folds
from carat.data.corpora.label_table import read_ratings
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.sequence_file import Steps, open_sequence, video_of
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

TEXT = "text"
SILENCE = "sp"
TOLERANCE = 1e-3
"""Maximum difference in seconds between a word and its vector."""
MAX_OVERLAPS = 1 << 26
"""Maximum number of overlaps of words and frames, and of resulting values, in a segment."""


def open_csd(
    words: Path,
    labels: Path,
    folds: Path,
    modalities: Mapping[str, Path],
    *,
    aligned: bool = True,
    text: Path | None = None,
) -> Corpus:
    """Open a dataset of video segments.

    A sample is a row of the label file, `<video>/<row>`; a label is present where its intensity is positive.
    Words belong to the segment that contains their midpoint; silence (`sp`) is dropped. IDs with a suffix,
    such as `video[3]`, belong to the group `video`, whose entry is used in files that have none for
    `video[3]`.

    Args:
        words: words (T, 1), to which other modalities are aligned, and the source of transcripts.
        labels: sentiment and the six intensities of `MOSEI`, (S, 7).
        folds: assignment of videos to train, valid and test, see `read_folds`.
        modalities: sequences by modality, except text.
        aligned: average the frames that overlap each word, without inf and NaN; zeros where none does.
            Otherwise, keep all frames whose midpoint is in the segment.
        text: word vectors, with the same intervals as the words.

    Returns:
        The dataset. Files are open only while a video is read. `count` is the number of rows in the label
        file; segments without features are excluded and counted in the notes.

    Raises:
        DataError: a file cannot be read, is refused or does not match the others; also raised while samples
            are read.
    """
    if TEXT in modalities:
        raise DataError(f"{modalities[TEXT]}: pass word vectors as text, not as a modality")
    files = dict(modalities) if text is None else {TEXT: text, **modalities}
    if not files:
        raise DataError(f"{words}: words are not features; add word vectors (text) or another modality")
    videos, without_fold = _read_labels(labels, read_folds(folds))
    for file in (words, *files.values()):
        with open_sequence(file):
            pass
    notes = []
    if without_fold:
        notes.append(f"{len(without_fold)} videos without a fold excluded, e.g. '{without_fold[0]}'")
    return Corpus(
        name=labels.stem,
        labels=MOSEI,
        sources={
            m: f"csd:{hash_file(file).sha256[:12]}" + (":aligned" if aligned else "")
            for m, file in files.items()
        },
        samples=_read_samples(videos, words, files, aligned, notes),
        count=sum(len(segments.intervals) for _, _, segments in videos),
        notes=notes,
    )


NO_WORDS = Steps("", np.empty((0, 1), dtype=str), np.empty((0, 2)))
_Video = tuple[str, str, Steps]
"""ID, split, and intensities (S, 6) of the segments."""


def _read_labels(file: Path, splits: Mapping[str, str]) -> tuple[list[_Video], list[str]]:
    """Read the labels of the videos that have a split; also return the IDs of those that have none."""
    videos, without_split = [], []
    with open_sequence(file) as sequence:
        for id in sequence.ids():
            if video_of(id) not in splits:
                without_split.append(id)
            elif (steps := sequence.read(id)) is not None:
                intensities = read_ratings(steps)[:, 1:]
                videos.append((id, splits[video_of(id)], replace(steps, features=intensities)))
    if not videos:
        raise DataError(f"{file}: no video has both a fold and a segment")
    return videos, without_split


def _read_samples(
    videos: list[_Video], words: Path, files: Mapping[str, Path], aligned: bool, notes: list[str]
) -> Iterator[CorpusSample]:
    """Yield samples, video by video; at the end, append to `notes` what is missing."""
    empty: list[str] = []
    absent: Counter[str] = Counter()
    for id, split, segments in videos:
        spoken = _read_video(words, id, text=True)
        sequences = {m: x for m, file in files.items() if (x := _read_video(file, id)) is not None}
        if spoken is None:
            spoken = NO_WORDS
            sequences.pop(TEXT, None)
        is_word = spoken.features[:, 0] != SILENCE
        for m, x in sequences.items():
            sequences[m] = _drop_silence(x, spoken, is_word) if m == TEXT else x.sort()
        absent.update(set(files) - set(sequences))
        spoken = spoken[is_word]
        for k, (start, end) in enumerate(segments.intervals):
            segment_words = spoken.within(start, end)
            features = {}
            for m, x in sequences.items():
                if aligned and m != TEXT:
                    features[m] = _average(x, segment_words.intervals)
                else:
                    features[m] = x.within(start, end).features
            features = {m: x for m, x in features.items() if len(x)}
            if not features:
                empty.append(f"{id}/{k}")
                continue
            yield CorpusSample(
                f"{id}/{k}",
                split,
                (segments.features[k] > 0).astype(np.uint8),
                features,
                group=video_of(id),
                transcript=" ".join(segment_words.features[:, 0]),
                intensities=segments.features[k],
            )
    notes.extend(f"{m}: {absent[m]} videos without a sequence" for m in files if absent[m])
    if empty:
        notes.append(f"{len(empty)} segments without words or frames excluded, e.g. '{empty[0]}'")


def _read_video(file: Path, id: str, *, text: bool = False) -> Steps | None:
    with open_sequence(file) as sequence:
        return sequence.read(id, video_of(id), text=text)


def _drop_silence(vectors: Steps, words: Steps, is_word: NDArray[np.bool_]) -> Steps:
    """Drop the vectors of silence, which only some files have.

    Args:
        vectors: word vectors, with or without silence.
        words: words with silence.
        is_word: (T,) False for silence.

    Raises:
        DataError: the intervals of vectors and words disagree.
    """
    if len(vectors.intervals) == len(words.intervals):
        vectors = vectors[is_word]
    path, expected = f"{vectors.path}/intervals", words.intervals[is_word]
    if len(vectors.intervals) != len(expected):
        raise DataError(
            f"{path}: {len(vectors.intervals)} vectors for the {len(words.intervals)} words of "
            f"{words.path}, {len(expected)} of them without silence"
        )
    difference = np.abs(vectors.intervals - expected).max(initial=0)
    if difference > TOLERANCE:
        raise DataError(
            f"{path}: intervals differ from the words of {words.path} by up to {difference:.3f} s, expected "
            f"at most {TOLERANCE} s"
        )
    return vectors


def _average(frames: Steps, intervals: NDArray[np.float64]) -> NDArray[Any]:
    """Average the frames that overlap each word.

    Args:
        frames: frames (T, d), sorted by start.
        intervals: start and end of the words, (W, 2).

    Returns:
        Means (W, d), ignoring inf and NaN; zeros for words that no frame overlaps.
    """
    starts, ends = frames.intervals.T
    # candidates for each word: from the first frame that may end after its start, to the last that starts
    # before its end
    first = np.searchsorted(np.maximum.accumulate(ends), intervals[:, 0], side="right")
    last = np.searchsorted(starts, intervals[:, 1], side="left")
    shape = len(intervals), frames.features.shape[1]
    if max(math.prod(shape), np.maximum(last - first, 0).sum()) > MAX_OVERLAPS:
        raise DataError(
            f"{frames.path}: more than {MAX_OVERLAPS} overlaps with {len(intervals)} words, or values"
        )
    means = np.zeros(shape, dtype=np.result_type(frames.features.dtype, np.float32))
    with np.errstate(all="ignore"):
        for word, ((start, end), a, b) in enumerate(zip(intervals, first, last, strict=True)):
            overlap = np.minimum(ends[a:b], end) - np.maximum(starts[a:b], start)
            rows = frames.features[a:b][overlap > 0]
            finite = np.isfinite(rows)
            total = np.where(finite, rows, 0).sum(0, dtype=np.float64)
            means[word] = total / np.maximum(finite.sum(0), 1)
    return means
