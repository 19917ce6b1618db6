"""Label tables of MOSEI: label intensities by segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import CorpusSample
from carat.data.corpora.folds import FOLDS
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.sequence_file import Steps, open_sequence, video_of
from carat.data.pickled.reading import identifier
from carat.data.recipes.sources.table import Table
from carat.utils.errors import DataError, printable
from carat.utils.reading import check_content

NAMES = {
    "video": ("video_id", "video", "vid"),
    "segment": ("segment_id", "segment", "clip_id", "clip"),
    "start": ("start", "start_time", "begin"),
    "end": ("end", "end_time", "stop"),
    "fold": ("fold", "split", "mode"),
    "text": ("text", "transcript"),
    "sentiment": ("sentiment", "label"),
}
"""Accepted column names."""
LABEL_ALIASES = {"happy": "happiness", "sad": "sadness"}
"""Other accepted column names of labels."""
MAX_DIGITS = 20
"""Digits up to which a segment is a number."""
SEQUENCE_SUFFIXES = (".csd", ".h5", ".hdf5")
MIN_AGREEMENT = 0.9
"""Fraction of samples whose sentiment must agree with that of another file."""
TOLERANCE = 0.1
"""Maximum difference in seconds between the times of a segment in two files."""


@dataclass(frozen=True)
class Segment:
    """One row of a label table."""

    video: str
    segment: str
    start: float
    end: float
    """Start and end in seconds; NaN if the table has no times."""
    fold: str
    """"train", "valid", "test" or empty."""
    text: str
    sentiment: float
    """NaN if the table has no sentiment."""
    intensities: NDArray[np.float32]
    """(6,), in the order of `MOSEI`."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(6,), 1 where the intensity is positive."""
        return (self.intensities > 0).astype(np.uint8)

    def sample(
        self, split: str, features: Mapping[str, NDArray[Any]], transcript: str | None = None
    ) -> CorpusSample:
        """Make a sample with the labels of this segment.

        Args:
            split: split of the sample.
            features: (T, d) by modality.
            transcript: defaults to the text of this segment.
        """
        return CorpusSample(
            f"{self.video}/{self.segment or f'{self.start:.2f}'}",
            split,
            self.labels,
            features,
            group=self.video,
            transcript=self.text if transcript is None else transcript,
            intensities=self.intensities,
        )


class LabelTable:
    """Segments of videos, with their times and six emotion intensities.

    Args:
        file: table with columns for the video, the segment or its times, and the intensities, see `Table`;
            or the label sequence of the CMU-MultimodalSDK, a `.csd` file.

    Raises:
        DataError: the file cannot be read, a column is missing, or a value is invalid.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        is_sequence = file.suffix.lower() in SEQUENCE_SUFFIXES
        self.segments = list(_read_sequence(file)) if is_sequence else _read_table(file)
        self._by_segment: dict[tuple[str, str], Segment] = {}
        self._by_video: dict[str, list[Segment]] = {}
        for row, segment in enumerate(self.segments, start=1):
            self._by_video.setdefault(segment.video, []).append(segment)
            if segment.segment:
                key = segment.video, _normalize(segment.segment)
                if key in self._by_segment:
                    raise DataError(
                        f"{file}: duplicate segment '{printable('/'.join(key))}' in data row {row}"
                    )
                self._by_segment[key] = segment

    def by_segment(self, video: str, segment: str) -> Segment | None:
        """Return the row of a segment, or None."""
        return self._by_segment.get((video, _normalize(segment)))

    def by_time(self, video: str, start: float, end: float) -> Segment | None:
        """Return the row of the segment with these times in seconds, within `TOLERANCE`, or None."""
        candidates = self._by_video.get(video, [])
        near = [x for x in candidates if abs(x.start - start) <= TOLERANCE and abs(x.end - end) <= TOLERANCE]
        return min(near, key=lambda x: abs(x.start - start) + abs(x.end - end), default=None)


def check_agreement(file: Path, pairs: Iterable[tuple[float, float]]) -> None:
    """Check that the sentiment of samples agrees in two files; NaN is not compared.

    Raises:
        DataError: it differs for more than one in ten samples.
    """
    finite = [(a, b) for a, b in pairs if np.isfinite(a) and np.isfinite(b)]
    agreeing = sum(abs(a - b) < 0.01 for a, b in finite)
    if agreeing < MIN_AGREEMENT * len(finite):
        raise DataError(
            f"{file}: sentiment agrees for only {agreeing} of {len(finite)} samples; check that it is the "
            "right table"
        )


def _read_table(file: Path) -> list[Segment]:
    """Read the rows of a table."""
    check_content(file)
    table = Table(file)
    columns = {key: _find_column(table, names) for key, names in NAMES.items()}
    if columns["video"] is None:
        raise DataError(f"{file}: no video column, expected one of {', '.join(NAMES['video'])}")
    if columns["segment"] is None and columns["start"] is None:
        raise DataError(
            f"{file}: no segment column, expected one of {', '.join(NAMES['segment'])}, or start and end"
        )
    label_columns = [_find_column(table, (name, LABEL_ALIASES.get(name, name))) or name for name in MOSEI]
    with np.errstate(over="ignore"):
        intensities = np.array([table.numbers(column) for column in label_columns]).astype(np.float32).T
    if not np.isfinite(intensities).all():
        raise DataError(f"{file}: intensities beyond the range of float32, expected 0 to 3")
    text = {
        key: table.text(column) if (column := columns[key]) else [""] * len(table)
        for key in ("video", "segment", "fold", "text")
    }
    for row, parts in enumerate(zip(text["video"], text["segment"], strict=True), start=1):
        for id in filter(None, parts):
            identifier(id, f"{file}, data row {row}")
    numbers = {
        key: table.numbers(column) if (column := columns[key]) else [float("nan")] * len(table)
        for key in ("start", "end", "sentiment")
    }
    return [
        Segment(
            text["video"][i],
            text["segment"][i],
            numbers["start"][i],
            numbers["end"][i],
            FOLDS.get(text["fold"][i], ""),
            text["text"][i],
            numbers["sentiment"][i],
            intensities[i],
        )
        for i in range(len(table))
    ]


def _read_sequence(file: Path) -> Iterator[Segment]:
    """Read the rows of a label sequence; the segment is the number in the ID, or else the row."""
    from carat.data.corpora.hdf5_sandbox import check_readable

    check_content(file)
    check_readable([file])
    with open_sequence(file) as sequence:
        for id in sequence.ids():
            steps = sequence.read(id)
            if steps is None:
                continue
            video, ratings = video_of(id), read_ratings(steps)
            number = id.removeprefix(video).strip("[]")
            for row, ((start, end), values) in enumerate(zip(steps.intervals.tolist(), ratings, strict=True)):
                segment = number if number and len(ratings) == 1 else str(row)
                yield Segment(video, segment, start, end, "", "", float(values[0]), values[1:])


def read_ratings(steps: Steps) -> NDArray[np.float32]:
    """Return sentiment and the six intensities of `MOSEI` of the steps of a label sequence, (S, 7).

    Raises:
        DataError: another width, or inf or NaN.
    """
    width = steps.features.shape[1]
    if width != 1 + len(MOSEI):
        raise DataError(
            f"{steps.path}/features: width {width}, expected {1 + len(MOSEI)}: sentiment, {', '.join(MOSEI)}"
        )
    with np.errstate(all="ignore"):
        ratings: NDArray[np.float32] = steps.features.astype(np.float32)
    if not np.isfinite(ratings[:, 1:]).all():
        raise DataError(f"{steps.path}/features: inf or NaN in the intensities")
    return ratings


def _find_column(table: Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _normalize(segment: str) -> str:
    """Remove leading zeros from a segment number: 03 is 3."""
    return str(int(segment)) if segment.isdecimal() and len(segment) <= MAX_DIGITS else segment
