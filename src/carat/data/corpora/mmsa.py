"""Reader of MMSA's MOSEI files, `aligned_50.pkl` and `unaligned_50.pkl`, with labels from a label table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.label_table import LabelTable, Segment, check_agreement
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import identifier, length, sequence, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "text", "visual": "vision", "audio": "audio"}
LENGTHS = {"visual": "vision_lengths", "audio": "audio_lengths"}
SENTIMENT = "regression_labels"
SEPARATOR = "$_$"
"""Between video and segment in an ID."""


def open_mmsa(file: Path, labels: Path) -> Corpus:
    """Open the dataset. Samples without a row in the label table are excluded and counted.

    Args:
        file: a dict of train, valid and test, each with `vision`, `audio`, `text`, `id` and optionally
            `raw_text`, `vision_lengths` and `audio_lengths`.
        labels: label table with video and segment, or label sequence.

    Raises:
        DataError: a file cannot be read, or the files do not match.
    """
    table = LabelTable(labels)
    splits = open_splits(file, ["id", *FEATURES.values()], ["raw_text", SENTIMENT, *LENGTHS.values()])
    matches: list[tuple[str, int, Segment]] = []
    unmatched: list[str] = []
    for split, part in splits.items():
        for i in range(length(part["id"], split)):
            id = identifier(part["id"][i], f"{file}, {split}, id, sample {i}")
            video, separator, segment = id.rpartition(SEPARATOR)
            if not separator:
                raise DataError(
                    f"{file}, {split}, id, sample {i}: expected video$_$segment, found '{id[:60]}'"
                )
            row = table.by_segment(video, segment)
            if row is None:
                unmatched.append(id)
            else:
                matches.append((split, i, row))
    if len(matches) < len(unmatched):
        raise DataError(
            f"{labels}: only {len(matches)} of {len(matches) + len(unmatched)} samples have a row, not e.g. "
            f"'{unmatched[0][:60]}'; check that it is the right table"
        )
    _check_sentiment(labels, splits, matches)

    def samples() -> Iterator[CorpusSample]:
        for split, i, row in matches:
            part = splits[split]
            features = {}
            for m, key in FEATURES.items():
                what = f"{file}, {split}, {key}, sample {i}"
                features[m] = sequence(part[key][i], what)
                if LENGTHS.get(m) in part:
                    steps = to_array(part[LENGTHS[m]][i], what).reshape(-1)
                    if not len(steps) or steps.dtype.kind not in "iuf" or not steps[0] >= 0:
                        raise DataError(f"{what}: invalid length in {LENGTHS[m]}, expected a number of steps")
                    features[m] = features[m][: int(min(steps[0], len(features[m])))]
            transcript = None
            if "raw_text" in part:
                transcript = text(part["raw_text"][i], f"{file}, {split}, raw_text")
            yield row.sample(split, features, transcript)

    notes = [f"labels by video and segment from {labels.name}"]
    if unmatched:
        notes.append(
            f"{len(unmatched)} samples without a row in {labels.name} excluded, e.g. '{unmatched[0]}'"
        )
    return Corpus(
        name="mosei-mmsa",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mmsa:{hash_file(file).sha256[:12]}"),
        samples=samples(),
        count=len(matches),
        notes=notes,
    )


def _check_sentiment(
    labels: Path, splits: Mapping[str, Mapping[str, Any]], matches: Sequence[tuple[str, int, Segment]]
) -> None:
    """Check the sentiment of the matched rows against that of the file, if both have it.

    Raises:
        DataError: they differ, so segments are numbered differently.
    """
    pairs = []
    for split, i, row in matches:
        if SENTIMENT in splits[split]:
            value = to_array(splits[split][SENTIMENT][i], f"{split}, {SENTIMENT}, sample {i}").reshape(-1)
            if value.size == 1 and value.dtype.kind in "iuf":
                pairs.append((float(value[0]), row.sentiment))
    if any(ours for ours, _ in pairs):  # a file without sentiment has zeros
        check_agreement(labels, pairs)
