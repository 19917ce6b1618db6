"""Label tables of MOSEI: one row per segment with intensities, found by id or by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.corpora.base import CorpusSample
from carat.data.corpora.labels import MOSEI
from carat.data.recipes.sources.table import Table
from carat.utils.errors import DataError

NAMES = {
    "video": ("video_id", "video", "vid"),
    "segment": ("segment_id", "segment", "clip_id", "clip"),
    "start": ("start", "start_time", "begin"),
    "end": ("end", "end_time", "stop"),
    "fold": ("fold", "split", "mode"),
    "text": ("text", "transcript"),
    "sentiment": ("sentiment", "label"),
}
"""What columns may be called; `happiness` and `sadness` … stand for the six labels too."""
OTHER = {"happy": "happiness", "sad": "sadness"}
TOLERANCE = 0.1
"""Seconds by which the times of a segment may differ between files."""
FOLDS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True)
class Segment:
    """One row of a label table."""

    video: str
    segment: str
    start: float
    end: float
    """Seconds; nan where the table has no times."""
    fold: str
    """train, valid, test, or empty."""
    text: str
    sentiment: float
    """nan where the table has none."""
    intensities: NDArray[np.float32]
    """(6,), in the order of `MOSEI`."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(6,): present where the intensity is above 0."""
        return (self.intensities > 0).astype(np.uint8)

    def sample(
        self, split: str, features: Mapping[str, NDArray[Any]], transcript: str | None = None
    ) -> CorpusSample:
        """Features from elsewhere with the labels of this segment; its own text where none is given."""
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
    """A label table: CSV (also compressed) or Parquet with video, segment or times, and six emotions.

    Args:
        file: the table.

    Raises:
        DataError: names the column that is missing, or the cell that is wrong.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        table = Table(file)
        found = {what: _find(table, names) for what, names in NAMES.items()}
        video = found["video"]
        if video is None:
            raise DataError(f"{file}: no column for the video, such as {', '.join(NAMES['video'])}")
        if found["segment"] is None and found["start"] is None:
            raise DataError(
                f"{file}: no column for the segment ({NAMES['segment'][0]}) or its times (start, end)"
            )
        columns = [table.numbers(_find(table, (name, OTHER.get(name, name))) or name) for name in MOSEI]
        intensities = np.array(columns, dtype=np.float32).T
        text = {
            what: table.text(found[what] or "") if found[what] else [""] * len(table)
            for what in ("video", "segment", "fold", "text")
        }
        numbers = {
            what: table.numbers(found[what] or "") if found[what] else [float("nan")] * len(table)
            for what in ("start", "end", "sentiment")
        }
        self.segments = [
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
        self._by_segment: dict[tuple[str, str], Segment] = {}
        self._by_video: dict[str, list[Segment]] = {}
        for row, segment in enumerate(self.segments, start=1):
            self._by_video.setdefault(segment.video, []).append(segment)
            if segment.segment:
                key = segment.video, _number(segment.segment)
                if key in self._by_segment:
                    raise DataError(
                        f"{file}: segment '{'/'.join(key)}' occurs twice, again in data row {row}"
                    )
                self._by_segment[key] = segment

    def by_segment(self, video: str, segment: str) -> Segment | None:
        """The row of a segment, None if there is none."""
        return self._by_segment.get((video, _number(segment)))

    def by_time(self, video: str, start: float, end: float) -> Segment | None:
        """The row of the segment with these times, to a tenth of a second; None if there is none."""
        candidates = self._by_video.get(video, [])
        near = [x for x in candidates if abs(x.start - start) <= TOLERANCE and abs(x.end - end) <= TOLERANCE]
        return min(near, key=lambda x: abs(x.start - start) + abs(x.end - end), default=None)


def _find(table: Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.columns), None)


def _number(segment: str) -> str:
    """Segment numbers without leading zeros: 03 is 3."""
    return str(int(segment)) if segment.isdecimal() else segment
