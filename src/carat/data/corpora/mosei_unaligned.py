"""Reader of unaligned MOSEI, `mosei_senti_data_noalign.pkl`, with emotion labels from another file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import Corpus, CorpusSample, strip_padding
from carat.data.corpora.label_table import LabelTable, Segment, check_agreement
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.mosei_aligned import AlignedFile
from carat.data.corpora.splits import open_splits
from carat.data.pickled.reading import identifier, length, sequence, text, to_array
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError, printable

FEATURES = {"text": "text", "visual": "vision", "audio": "audio"}
CHECKED_SAMPLES = 400
"""Samples of a split on which a pairing by index is checked."""


class UnalignedFile:
    """Features, IDs and sentiment by split.

    Args:
        file: a dict of train, valid and test, each with `vision`, `audio`, `text` and optionally `id` and
            `labels`.

    Raises:
        DataError: the file cannot be read, or splits or entries are missing or invalid.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.splits = open_splits(file, list(FEATURES.values()), ["id", "labels"])

    def count(self, split: str) -> int:
        """Return the number of samples of a split."""
        return length(self.splits[split]["text"], split)

    def features(self, split: str, i: int) -> dict[str, NDArray[Any]]:
        """Return the features of a sample, padded as in the file: (T, d) by modality."""
        return {m: self.feature(split, m, i) for m in FEATURES}

    def feature(self, split: str, modality: str, i: int) -> NDArray[Any]:
        """Return the features (T, d) of one modality of a sample."""
        key = FEATURES[modality]
        return sequence(self.splits[split][key][i], f"{self.file}, {split}, {key}, sample {i}")

    def sentiment(self, split: str, i: int) -> float:
        """Return the sentiment of a sample from the entry `labels`; NaN if there is none."""
        if "labels" not in self.splits[split]:
            return float("nan")
        values = to_array(self.splits[split]["labels"][i], f"{self.file}, {split}, labels").reshape(-1)
        return float(values[0]) if len(values) and values.dtype.kind in "iuf" else float("nan")

    def segment(self, split: str, i: int) -> tuple[str, float, float]:
        """Return the video, and the start and end in seconds, of a sample.

        Raises:
            DataError: the entry `id` is missing or invalid.
        """
        what = f"{self.file}, {split}, id, sample {i}"
        if "id" not in self.splits[split]:
            raise DataError(f"{what}: the file has no entry 'id'; pair by index with --by-index")
        value = self.splits[split]["id"][i]
        parts = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(parts, (list, tuple)) or len(parts) != 3:
            raise DataError(f"{what}: expected video, start and end, found {type(value).__name__}")
        video, *times = identifier(parts[0], what), *(text(part, what) for part in parts[1:])
        try:
            start, end = map(float, times)
        except ValueError as error:
            raise DataError(
                f"{what}: expected times in seconds, found {printable(str(times)[:60])}"
            ) from error
        return video, start, end


def open_mosei_unaligned(file: Path, labels: Path, by_index: bool = False) -> Corpus:
    """Open the dataset, with emotion labels from a label table or from the word-aligned file.

    Args:
        file: see `UnalignedFile`.
        labels: a label table or sequence, whose rows are matched by video and time; or the word-aligned
            file, which has no IDs and is matched by index.
        by_index: match by index, for the word-aligned file only. Refused if counts, lengths or text features
            disagree.

    Raises:
        DataError: a file cannot be read, or the files do not match.
    """
    unaligned = UnalignedFile(file)
    from_aligned_file = labels.suffix.lower() in (".pt", ".pkl", ".bin")
    if from_aligned_file and not by_index:
        raise DataError(
            f"{labels}: has no sample IDs; if it has the same samples in the same order, add --by-index"
        )
    if by_index and not from_aligned_file:
        raise DataError(f"{labels}: --by-index needs the word-aligned file (.pt); tables are matched by time")
    notes = []
    if from_aligned_file:
        aligned = AlignedFile(labels)
        for split in unaligned.splits:
            _check_pairing(unaligned, aligned, split)
        samples = _samples_by_index(unaligned, aligned)
        count = sum(map(unaligned.count, unaligned.splits))
        notes.append(f"labels by index from {labels.name}; counts, lengths and text features agree")
    else:
        matches, unmatched = _match_by_time(unaligned, LabelTable(labels))
        samples, count = _samples_by_time(unaligned, matches), len(matches)
        notes.append(f"labels by video and time from {labels.name}")
        if unmatched:
            notes.append(f"{unmatched} samples without a row in {labels.name} excluded")
    return Corpus(
        name="mosei-unaligned",
        labels=MOSEI,
        sources=dict.fromkeys(FEATURES, f"mosei-unaligned:{hash_file(file).sha256[:12]}"),
        samples=samples,
        count=count,
        notes=notes,
    )


def _samples_by_index(unaligned: UnalignedFile, aligned: AlignedFile) -> Iterator[CorpusSample]:
    for split in unaligned.splits:
        has_ids = "id" in unaligned.splits[split]
        for i in range(unaligned.count(split)):
            group = unaligned.segment(split, i)[0] if has_ids else ""
            yield CorpusSample(
                f"{split}/{i:05d}",
                split,
                aligned.labels(split, i),
                unaligned.features(split, i),
                group=group,
            )


def _samples_by_time(
    unaligned: UnalignedFile, matches: list[tuple[str, int, Segment]]
) -> Iterator[CorpusSample]:
    for split, i, segment in matches:
        yield segment.sample(split, unaligned.features(split, i))


def _match_by_time(unaligned: UnalignedFile, table: LabelTable) -> tuple[list[tuple[str, int, Segment]], int]:
    """Match samples with the rows of a label table.

    Returns:
        Split, index and table row of each match, and the number of samples without a match.

    Raises:
        DataError: most samples have no row, or their sentiment differs from the table's.
    """
    matches, unmatched, sentiments = [], 0, []
    for split in unaligned.splits:
        for i in range(unaligned.count(split)):
            video, start, end = unaligned.segment(split, i)
            segment = table.by_time(video, start, end)
            if segment is None:
                unmatched += 1
                continue
            matches.append((split, i, segment))
            sentiments.append((unaligned.sentiment(split, i), segment.sentiment))
    if len(matches) < unmatched:
        raise DataError(
            f"{table.file}: only {len(matches)} of {len(matches) + unmatched} samples have a row, by video "
            "and time; check that it is the right table"
        )
    check_agreement(table.file, sentiments)
    return matches, unmatched


def _check_pairing(unaligned: UnalignedFile, aligned: AlignedFile, split: str) -> None:
    """Check that two files have the same samples in the same order.

    Raises:
        DataError: counts, text lengths or text features disagree.
    """
    count = unaligned.count(split)
    if count != aligned.count(split):
        raise DataError(
            f"{aligned.file}, {split}: {aligned.count(split)} samples, but {unaligned.file} has {count}; the "
            "files cannot be matched by index"
        )
    indices = np.unique(np.linspace(0, count - 1, min(count, CHECKED_SAMPLES)).astype(int))
    ours = [strip_padding(unaligned.feature(split, "text", i)) for i in indices]
    theirs = [strip_padding(aligned.features(split, i)["text"]) for i in indices]
    if len(indices) < 3:
        return
    max_length = min(max(map(len, ours)), max(map(len, theirs)))
    our_lengths, their_lengths = (np.minimum([len(x) for x in texts], max_length) for texts in (ours, theirs))
    agreeing = float(np.mean(np.abs(our_lengths - their_lengths) <= 1 + 0.1 * our_lengths))
    if agreeing < 0.5:
        raise DataError(
            f"{aligned.file}, {split}: text lengths agree with {unaligned.file} for only {agreeing:.0%} of "
            "samples; their order differs"
        )
    if {x.shape[1] for x in ours} != {x.shape[1] for x in theirs}:
        return  # features from different extractors cannot be compared
    similarity = float(np.median([_cosine(a, b) for a, b in zip(ours, theirs, strict=True)]))
    shifted = float(np.median([_cosine(a, b) for a, b in zip(ours[1:], theirs, strict=False)]))
    if similarity < 0.5 or similarity <= shifted:
        raise DataError(
            f"{aligned.file}, {split}: text features disagree with {unaligned.file} (median cosine "
            f"{similarity:.2f}); the samples or their order differ"
        )


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine similarity of the mean vectors of two sequences."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    means = [np.nan_to_num(x.astype(np.float64)).mean(0) for x in (a, b)]
    norms = np.linalg.norm(means, axis=1).prod()
    return float(means[0] @ means[1] / norms) if norms else 0.0
