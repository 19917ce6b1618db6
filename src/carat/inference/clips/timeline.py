"""The timeline of a clip: who said what when, with the scores of every label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carat.features.clip import Clip
from carat.features.words import Word
from carat.inference.prediction import Prediction


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
    """

    clip: Clip
    run: str
    thresholds: Mapping[str, float]
    modalities: Sequence[str]
    segments: Sequence[ScoredSegment]
    notes: Sequence[str] = ()

    @property
    def labels(self) -> list[str]:
        """Label names."""
        return list(self.thresholds)
