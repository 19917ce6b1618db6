"""The parts of a clip that are scored one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from carat.features.clip import Clip
from carat.features.extractor import FeatureSequence
from carat.features.words import Word, words_between
from carat.utils.errors import DataError

MIN_SECONDS, MAX_SECONDS = 0.1, 24 * 3600.0
"""Limits of `seconds=N`."""
FALLBACK_SECONDS = 5.0
"""Length of the parts of a clip in which nobody speaks."""


@dataclass(frozen=True)
class Part:
    """A part of a clip.

    Args:
        start: seconds from the start of the file.
        end: likewise.
        words: words that are spoken in it, with times.
        speaker: who speaks; empty if unknown.
        whole: whether it is the whole clip.
    """

    start: float
    end: float
    words: Sequence[Word]
    speaker: str = ""
    whole: bool = False

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(word.text for word in self.words)

    def of(self, features: FeatureSequence) -> FeatureSequence:
        """The part's time steps of a feature sequence."""
        return features if self.whole else features.between(self.start, self.end)


@dataclass(frozen=True)
class Segmentation:
    """How a clip is divided.

    Args:
        by: speech segments, utterances of the transcript, the whole clip, or parts of equal length. "auto"
            takes utterances if the transcript was given with times, otherwise speech segments, or parts of
            5 s if nobody speaks.
        seconds: length of parts of equal length.
    """

    by: Literal["auto", "vad", "transcript", "whole", "seconds"] = "auto"
    seconds: float = FALLBACK_SECONDS


def parse_segmentation(text: str) -> Segmentation:
    """Parse `auto`, `vad`, `transcript`, `whole` or `seconds=N`.

    Raises:
        DataError: anything else.

    >>> parse_segmentation("seconds=2.5")
    Segmentation(by='seconds', seconds=2.5)
    """
    name, equals, value = text.partition("=")
    if not equals and name in ("auto", "vad", "transcript", "whole"):
        return Segmentation(name)  # type: ignore[arg-type]  # just checked
    try:
        seconds = float(value) if name == "seconds" else inf
    except ValueError:
        seconds = inf
    if not isfinite(seconds) or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise DataError(
            f"segments '{text}': expected vad, transcript, whole, or seconds=N, N from {MIN_SECONDS:g} to "
            f"{MAX_SECONDS:g}"
        )
    return Segmentation("seconds", seconds)


def divide(clip: Clip, segmentation: Segmentation, *, has_given_times: bool = False) -> list[Part]:
    """Divide a clip into parts, sorted by time.

    Args:
        clip: clip.
        segmentation: how to divide it.
        has_given_times: whether the transcript was given, with times.
    """
    by = segmentation.by
    if by == "auto":
        by = "transcript" if has_given_times else "vad" if clip.speech else "seconds"
    if by == "whole":
        return [Part(0.0, clip.duration, list(clip.words), whole=True)]
    if by == "transcript":
        return list(_utterances(clip))
    if by == "vad":
        spans = [(segment.start, segment.end) for segment in clip.speech]
    else:
        spans = _equal_spans(clip.duration, segmentation.seconds)
    return [
        Part(start, end, words) for (start, end), words in zip(spans, _assign(clip.words, spans), strict=True)
    ]


def _utterances(clip: Clip) -> Iterator[Part]:
    """The utterances that start within the clip, with the words of their speaker."""
    for utterance in clip.utterances:
        start, end = utterance.start, utterance.end
        if start is None or end is None or start >= clip.duration:
            continue
        words = [x for x in words_between(clip.words, start, end) if x.speaker == utterance.speaker]
        yield Part(start, min(end, clip.duration), words, utterance.speaker)


def _equal_spans(duration: float, seconds: float) -> list[tuple[float, float]]:
    """Spans of equal length; a rest of less than half of it belongs to the last one.

    >>> _equal_spans(11, 5), _equal_spans(2, 5)
    ([(0, 5), (5, 11)], [(0, 2)])
    """
    count = max(int(duration / seconds + 0.5), 1)
    return [(i * seconds, (i + 1) * seconds if i + 1 < count else duration) for i in range(count)]


def _assign(words: Sequence[Word], spans: Sequence[tuple[float, float]]) -> list[list[Word]]:
    """Assign each word to the span with its middle, or else to the nearest one."""
    assigned: list[list[Word]] = [[] for _ in spans]
    index = 0
    for word in words if spans else ():
        middle = (word.start + word.end) / 2
        for span in spans[index + 1 :]:
            if _distance(middle, span) >= _distance(middle, spans[index]):
                break
            index += 1
        assigned[index].append(word)
    return assigned


def _distance(time: float, span: tuple[float, float]) -> float:
    return max(span[0] - time, time - span[1], 0.0)
