"""MMSA's MOSEI files, `aligned_50.pkl` and `unaligned_50.pkl`, with emotion labels from a label table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from carat.data.corpora.base import Corpus, CorpusSample
from carat.data.corpora.label_table import LabelTable, Segment
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import item, length, sequence, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

FEATURES = {"text": "text", "visual": "vision", "audio": "audio"}
LENGTHS = {"visual": "vision_lengths", "audio": "audio_lengths"}
SEPARATOR = "$_$"
"""Between video and segment in an id."""


def open_mmsa(file: Path, labels: Path) -> Corpus:
    """The data set; samples that the table has no row for are left out and counted.

    Args:
        file: a dict of train, valid and test with `vision`, `audio`, `text`, `id` and perhaps `raw_text`,
            `vision_lengths`, `audio_lengths`.
        labels: label table with video and segment.

    Raises:
        DataError: names split and entry, what was found and what was expected.
    """
    table = LabelTable(labels)
    splits = open_splits(file, ["id", *FEATURES.values()], ["raw_text", *LENGTHS.values()])
    pairs: list[tuple[str, int, Segment]] = []
    lost: list[str] = []
    for split, part in splits.items():
        for i in range(length(part["id"], split)):
            name = text(item(part["id"], i), f"{file}, {split}, id, sample {i}")
            video, separator, segment = name.rpartition(SEPARATOR)
            if not separator:
                raise DataError(
                    f"{file}, {split}, id, sample {i}: expected video$_$segment, found '{name[:60]}'"
                )
            row = table.by_segment(video, segment)
            if row is None:
                lost.append(name)
            else:
                pairs.append((split, i, row))
    if len(pairs) < len(lost):
        raise DataError(
            f"{labels}: has a row for {len(pairs)} of {len(pairs) + len(lost)} samples; none for '{lost[0]}'"
        )

    def samples() -> Iterator[CorpusSample]:
        for split, i, row in pairs:
            part = splits[split]
            features = {}
            for m, key in FEATURES.items():
                what = f"{file}, {split}, {key}, sample {i}"
                features[m] = sequence(item(part[key], i), what)
                if LENGTHS.get(m) in part:
                    steps = to_array(item(part[LENGTHS[m]], i), what).reshape(-1)
                    if not len(steps) or steps.dtype.kind not in "iuf" or not steps[0] >= 0:
                        raise DataError(f"{what}: its length in {LENGTHS[m]} is no number of steps")
                    features[m] = features[m][: int(min(steps[0], len(features[m])))]
            said = (
                text(item(part["raw_text"], i), f"{file}, {split}, raw_text") if "raw_text" in part else None
            )
            yield row.sample(split, features, said)

    notes = [f"labels by video and segment from {labels.name}"]
    if lost:
        notes.append(f"{len(lost)} samples without a row in {labels.name} left out, e.g. '{lost[0]}'")
    return Corpus(
        name="mosei-mmsa",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mmsa:{hash_file(file).sha256[:12]}"),
        samples=samples(),
        count=len(pairs),
        notes=notes,
    )
