"""Computational sequences of the CMU-MultimodalSDK: `.csd` files, which are HDF5 (extra `csd`).

A file holds one root group with `data/<video>/features` (T, d) and `data/<video>/intervals` (T, 2), start and
end in seconds. Its `metadata` is never read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.label_table import FOLDS
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.sequence_file import Steps, first_line, opened, shown
from carat.data.recipes.sources.table import Table
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

TEXT = "text"
SILENCE = "sp"
TOLERANCE = 1e-3
"""Seconds by which a word and its vector may differ."""
MOST = 1 << 26
"""Pairs of words and frames in one segment, and values that come of them; more is forged."""


def open_csd(
    words: Path,
    labels: Path,
    folds: Path,
    modalities: Mapping[str, Path],
    *,
    aligned: bool = True,
    text: Path | None = None,
) -> Corpus:
    """Segments of videos, cut out of sequences over time.

    A sample is one row of the label file, `<video>/<row>`; a label is present where its intensity is above 0.
    Words belong to the segment in which their middle lies; silence (`sp`) is dropped. Ids with a suffix, such
    as `video[3]`, belong to the group `video`; a file without `video[3]` is asked for `video`.

    Args:
        words: words (T, 1); the pivot, and the transcript.
        labels: (S, 7), sentiment and the six intensities of `MOSEI`.
        folds: which videos are train, valid (or dev) and test: JSON, ids by fold; or a table with the columns
            `video_id` (or `video`) and `fold` (or `split`).
        modalities: sequence by modality, without text.
        aligned: one step per word, the mean of the frames that overlap it, and zeros where none does; or
            else all frames whose middle lies in the segment. Inf and NaN are left out of means.
        text: word vectors, with the intervals of the words.

    Returns:
        The data set; its files are open only while a video is read. `count` is what the label file has; how
        many segments were left out because nothing was found for them is in the notes at the end.

    Raises:
        DataError: names the file, the place inside, what was found and what was expected; also while the
            samples are read.
    """
    if TEXT in modalities:
        raise DataError(f"{modalities[TEXT]}: word vectors are given as text, not as another modality")
    files = dict(modalities) if text is None else {TEXT: text, **modalities}
    if not files:
        raise DataError("word vectors or another modality are needed beside the words")
    videos, without = _labels(labels, _folds(folds))
    for file in (words, *files.values()):
        with opened(file):
            pass
    notes = [f"{len(without)} videos without a fold left out, e.g. '{without[0]}'"] if without else []
    return Corpus(
        name=labels.stem,
        labels=MOSEI,
        sources={m: f"csd:{hash_file(f).sha256[:12]}{':aligned' * aligned}" for m, f in files.items()},
        samples=_samples(videos, words, files, aligned, notes),
        count=sum(len(segments.intervals) for _, _, segments in videos),
        notes=notes,
    )


NOTHING = Steps("", np.empty((0, 1), dtype=str), np.empty((0, 2)))
_Video = tuple[str, str, Steps]
"""Id, split, and intensities (S, 6) of its segments."""


def _group(id: str) -> str:
    """The video without the number of a segment: `video` of `video[3]`."""
    return id.partition("[")[0] or id


def _folds(file: Path) -> dict[str, str]:
    """Split by video."""
    if file.suffix == ".json":
        pairs = _json_pairs(file)
    else:
        table = Table(file)
        video = "video" if "video" in table.columns and "video_id" not in table.columns else "video_id"
        fold = "split" if "split" in table.columns and "fold" not in table.columns else "fold"
        pairs = list(zip(table.text(video), table.text(fold), strict=True))
    found: dict[str, str] = {}
    for id, fold in pairs:
        if fold and fold not in FOLDS:
            raise DataError(f"{file}: fold '{shown(fold)}' is none of {', '.join(FOLDS)}")
        split = found.setdefault(_group(id), FOLDS[fold]) if fold else ""
        if fold and split != FOLDS[fold]:
            video = shown(_group(id))
            raise DataError(f"{file}: video '{video}' is in two folds, {split} and {FOLDS[fold]}")
    return found


def _json_pairs(file: Path) -> list[tuple[str, str]]:
    try:
        folds = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({first_line(error)})") from error
    lists = folds.values() if isinstance(folds, dict) else [None]
    if not all(isinstance(ids, list) and all(isinstance(id, str) for id in ids) for ids in lists):
        raise DataError(f'{file}: expected lists of ids by fold, such as {{"train": ["video"]}}')
    return [(id, fold) for fold, ids in folds.items() for id in ids]


def _labels(file: Path, folds: Mapping[str, str]) -> tuple[list[_Video], list[str]]:
    """The videos that have a fold, and the ids of those that have none."""
    videos, without = [], []
    with opened(file) as data:
        for id in data.ids():
            if _group(id) not in folds:
                without.append(id)
            elif (steps := data.read(id)) is not None:
                width = steps.features.shape[1]
                if width != 1 + len(MOSEI):
                    wanted = f"{1 + len(MOSEI)}: sentiment, {', '.join(MOSEI)}"
                    raise DataError(f"{steps.place}/features: width {width}, expected {wanted}")
                with np.errstate(all="ignore"):
                    intensities = steps.features[:, 1:].astype(np.float32)
                if not np.isfinite(intensities).all():
                    raise DataError(f"{steps.place}/features: inf or NaN among the intensities")
                videos.append((id, folds[_group(id)], replace(steps, features=intensities)))
    if not videos:
        raise DataError(f"{file}: none of its videos has a fold and a segment")
    return videos, without


def _samples(
    videos: list[_Video], words: Path, files: Mapping[str, Path], aligned: bool, notes: list[str]
) -> Iterator[CorpusSample]:
    """Reads video by video; says in `notes`, when through, what was left out."""
    empty: list[str] = []
    absent: Counter[str] = Counter()
    for id, split, segments in videos:
        spoken = _read(words, id, text=True)
        found = {m: steps for m, file in files.items() if (steps := _read(file, id)) is not None}
        if spoken is None:
            spoken = NOTHING
            found.pop(TEXT, None)
        sounds = spoken.features[:, 0] != SILENCE
        found = {m: _fit(x, spoken, sounds) if m == TEXT else x.in_order() for m, x in found.items()}
        absent.update(set(files) - set(found))
        spoken = spoken[sounds]
        for k, (start, end) in enumerate(segments.intervals):
            said = spoken.within(start, end)
            rows = {
                m: _average(x, said.intervals) if aligned and m != TEXT else x.within(start, end).features
                for m, x in found.items()
            }
            features = {m: x for m, x in rows.items() if len(x)}
            if not features:
                empty.append(f"{id}/{k}")
                continue
            yield CorpusSample(
                f"{id}/{k}",
                split,
                (segments.features[k] > 0).astype(np.uint8),
                features,
                group=_group(id),
                transcript=" ".join(said.features[:, 0]),
                intensities=segments.features[k],
            )
    notes.extend(f"{m}: {absent[m]} videos without a sequence" for m in files if absent[m])
    if empty:
        notes.append(f"{len(empty)} segments without words or frames left out, e.g. '{empty[0]}'")


def _read(file: Path, id: str, *, text: bool = False) -> Steps | None:
    with opened(file) as data:
        return data.read(id, _group(id), text=text)


def _fit(vectors: Steps, words: Steps, sounds: NDArray[np.bool_]) -> Steps:
    """The word vectors without those of silence, which some files have and others have not.

    Raises:
        DataError: the vectors are not those of the words.
    """
    if len(vectors.intervals) == len(words.intervals):
        vectors = vectors[sounds]
    place, expected = f"{vectors.place}/intervals", words.intervals[sounds]
    if len(vectors.intervals) != len(expected):
        raise DataError(
            f"{place}: {len(vectors.intervals)} vectors for the {len(words.intervals)} words of "
            f"{words.place}, {len(expected)} of them without silence"
        )
    apart = np.abs(vectors.intervals - expected).max(initial=0)
    if apart > TOLERANCE:
        raise DataError(f"{place}: up to {apart:.3f} s from the words of {words.place}, expected {TOLERANCE}")
    return vectors


def _average(frames: Steps, intervals: NDArray[np.float64]) -> NDArray[Any]:
    """(W, d): mean of the frames, in order, that overlap each interval (W, 2); zeros where none does."""
    starts, ends = frames.intervals.T
    # candidates of each word: frames that start before it ends, from the first that may end after its start
    first = np.searchsorted(np.maximum.accumulate(ends), intervals[:, 0], side="right")
    last = np.searchsorted(starts, intervals[:, 1], side="left")
    shape = len(intervals), frames.features.shape[1]
    if max(math.prod(shape), np.maximum(last - first, 0).sum()) > MOST:
        raise DataError(f"{frames.place}: more than {MOST} overlaps with {len(intervals)} words, or values")
    means = np.zeros(shape, dtype=np.result_type(frames.features.dtype, np.float32))
    with np.errstate(all="ignore"):
        for word, ((start, end), a, b) in enumerate(zip(intervals, first, last, strict=True)):
            overlap = np.minimum(ends[a:b], end) - np.maximum(starts[a:b], start)
            rows = frames.features[a:b][overlap > 0]
            finite = np.isfinite(rows)
            total = np.where(finite, rows, 0).sum(0, dtype=np.float64)
            means[word] = total / np.maximum(finite.sum(0), 1)
    return means
