"""The timeline of a clip: who said what when, with the scores of every label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carat.features.clip import Clip
from carat.features.words import Word
from carat.inference.prediction import Prediction
from carat.inference.writers import as_row
from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredSegment:
    """A part of a clip with its prediction.

    Args:
        start: seconds from the start of the file.
        end: likewise.
        text: what is said; empty if nothing is.
        speaker: who says it; empty if unknown.
        prediction: scores, labels, attribution to modalities, and the words with the largest attribution.
        words: words with times; joined by spaces they are `text`.
        drops: by label, for each of the words, by how much the score is lower without it (negative if it is
            higher); empty if it was not computed.
    """

    start: float
    end: float
    text: str
    speaker: str
    prediction: Prediction
    words: Sequence[Word] = ()
    drops: Mapping[str, Sequence[float]] | None = None


@dataclass(frozen=True)
class Timeline:
    """The scored segments of a clip.

    Args:
        clip: the clip with its features.
        run: name of the run.
        thresholds: decision threshold by label, in the order of the labels.
        modalities: modalities of the run that the clip has.
        segments: scored segments, sorted by start; they do not overlap unless speakers do.
        notes: what the user should know.
        transcript: "given", "recognized" or "none".
        validation: micro-F1 of the run on its validation split, in [0, 1], if known.
    """

    clip: Clip
    run: str
    thresholds: Mapping[str, float]
    modalities: Sequence[str]
    segments: Sequence[ScoredSegment]
    notes: Sequence[str] = ()
    transcript: str = "none"
    validation: float | None = None

    @property
    def labels(self) -> list[str]:
        """Label names."""
        return list(self.thresholds)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per segment: `id`, `start`, `end`, `speaker`, `text`, `labels`, then a score and, where the
        run has it, the attribution and the words for each label."""
        for number, segment in enumerate(self.segments, start=1):
            columns = as_row(f"{self.clip.file.name}#{number}", segment.prediction)
            row = {"id": columns.pop("id"), "start": segment.start, "end": segment.end}
            row |= {"speaker": segment.speaker, "text": segment.text}
            words = {f"words_{name}": segment.prediction.words.get(name, []) for name in self.labels}
            yield row | {key: x for key, x in columns.items() if key not in row} | words

    def to_frame(self) -> pd.DataFrame:
        """Table of the segments as a pandas DataFrame, see `rows`.

        Raises:
            CaratError: pandas is not installed.
        """
        return self._table().to_frame()

    def _repr_html_(self) -> str:
        return self._table().to_html()

    def _table(self) -> Table:
        rows = list(self.rows())
        return Table.from_records(rows) if rows else Table(["id", "start", "end", "labels"], [])

    def summary(self) -> dict[str, Any]:
        """What the report on a clip says: its length, faces, speech, words and segments.

        Returns:
            `seconds`; `face_share`, the share of pictures with a face, None without a face extractor or
            pictures; `speech_seconds`; `words`; `transcript`, where they come from;
            `segments`; `modalities` that were used; and `notes`.
        """
        faces = [x for x in self.clip.features.values() if "box" in x.extra]
        steps = sum(x.steps for x in faces)
        return {
            "seconds": round(self.clip.duration, 3),
            "face_share": round(sum(len(x.values) for x in faces) / steps, 4) if steps else None,
            "speech_seconds": round(sum(x.duration for x in self.clip.speech), 3),
            "words": len(self.clip.words),
            "transcript": self.transcript,
            "segments": len(self.segments),
            "modalities": list(self.modalities),
            "notes": list(self.notes),
        }
