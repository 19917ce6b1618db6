"""Annotation tiers of a scored clip: in milliseconds, without overlaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from carat.inference.clips.timeline import ScoredSegment, Timeline

Kind = Literal["transcript", "words", "emotions", "score"]
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML file may have, such as NUL; no other format is better off with them."""
SPACE = re.compile("[ \t-\r\x1c-\x1f\x85\u2028\u2029]+")
"""Spaces and line breaks, except those that keep words together."""


@dataclass(frozen=True)
class Span:
    """An annotation.

    Args:
        start: milliseconds from the start of the file.
        end: likewise, after the start.
        text: annotation, in one line.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ScoreTier:
    """A tier of a scored clip.

    Args:
        kind: what is in it; tiers of the kinds "emotions" and "score" have the times of the transcript.
        name: "transcript", "words", "emotions" or the name of the label; may have a number to be unique.
        speaker: who is annotated; empty if unknown.
        spans: annotations, sorted, without overlaps.
    """

    kind: Kind
    name: str
    speaker: str
    spans: Sequence[Span]


@dataclass(frozen=True)
class _Placed:
    """A segment with its times in milliseconds."""

    start: int
    end: int
    segment: ScoredSegment


def make_tiers(timeline: Timeline) -> list[list[ScoreTier]]:
    """Make the tiers of a timeline.

    Args:
        timeline: timeline.

    Returns:
        For each speaker, the tiers "transcript", "words" (if there are any), "emotions", and one of each
        label. Segments of a speaker that overlap are on further tiers of the same kinds, since tiers have no
        overlaps.
    """
    speakers: dict[str, list[ScoredSegment]] = {}
    for segment in timeline.segments:
        speakers.setdefault(one_line(segment.speaker), []).append(segment)
    groups = [(name, layer) for name, segments in speakers.items() for layer in _layers(segments)]
    names: set[str] = set()
    return [list(_tiers_of(timeline, speaker, layer, names)) for speaker, layer in groups]


def one_line(text: str) -> str:
    """Return a text in one line, without characters that annotation files cannot have.

    >>> one_line(" a\\n\\nb\\0")
    'a b\ufffd'
    """
    return SPACE.sub(" ", NOT_IN_XML.sub("\ufffd", SPACE.sub(" ", text))).strip(" ")


def elan_name(name: str, speaker: str) -> str:
    """Name of a tier as usual in ELAN, such as "words@Ann"."""
    return f"{name}@{speaker}" if speaker else name


def praat_name(name: str, speaker: str) -> str:
    """Name of a tier as the Montreal Forced Aligner writes it, such as "Ann - words"."""
    return f"{speaker} - {name}" if speaker else name


def milliseconds(start: float, end: float) -> tuple[int, int]:
    """Round times to milliseconds; the end is at least one after the start.

    >>> milliseconds(1.2345, 1.2345), milliseconds(-0.5, 2.0)
    ((1234, 1235), (0, 2000))
    """
    first = max(round(start * 1000), 0)
    return first, max(round(end * 1000), first + 1)


def format_score(score: float) -> str:
    """A score as text with two decimals."""
    return f"{score:.2f}"


def _layers(segments: Sequence[ScoredSegment]) -> list[list[_Placed]]:
    """Divide segments into as few layers as possible in which none overlaps another one."""
    layers: list[list[_Placed]] = []
    for segment in sorted(segments, key=lambda x: (x.start, x.end)):
        start, end = milliseconds(segment.start, segment.end)
        for layer in layers:
            passed = layer[-1].end
            if start >= passed - 1:  # one millisecond is a matter of rounding
                first = max(start, passed)
                layer.append(_Placed(first, max(end, first + 1), segment))
                break
        else:
            layers.append([_Placed(start, end, segment)])
    return layers


def _tiers_of(
    timeline: Timeline, speaker: str, layer: Sequence[_Placed], names: set[str]
) -> Iterator[ScoreTier]:
    def tier(kind: Kind, name: str, spans: Iterable[Span]) -> ScoreTier:
        unique = _unique(one_line(name) or "unnamed", speaker, names)
        return ScoreTier(kind, unique, speaker, list(spans))

    def spans(texts: Iterable[str]) -> Iterator[Span]:
        return (Span(x.start, x.end, one_line(text)) for x, text in zip(layer, texts, strict=True))

    yield tier("transcript", "transcript", spans(x.segment.text for x in layer))
    words = [span for placed in layer for span in _word_spans(placed)]
    if words:
        yield tier("words", "words", words)
    yield tier("emotions", "emotions", spans(", ".join(x.segment.prediction.labels) for x in layer))
    for label in timeline.labels:
        scores = (x.segment.prediction.scores.get(label) for x in layer)
        yield tier("score", label, spans("" if score is None else format_score(score) for score in scores))


def _unique(name: str, speaker: str, names: set[str]) -> str:
    """Number a name that is taken; upper and lower case are the same to some programs."""
    for candidate in (name if i == 1 else f"{name} {i}" for i in count(1)):
        full = {elan_name(candidate, speaker).lower(), praat_name(candidate, speaker).lower()}
        if not full & names:
            names |= full
            return candidate
    raise AssertionError  # never: there are more numbers than names


def _word_spans(placed: _Placed) -> list[Span]:
    """Words of a segment, moved by as little as needed to lie in it one after another."""
    texts, starts, ends = [], [], []
    passed = placed.start
    for word in sorted(placed.segment.words, key=lambda x: (x.start, x.end)):
        if text := one_line(word.text):
            first, last = milliseconds(word.start, word.end)
            first = max(first, passed)
            passed = max(last, first + 1)
            texts.append(text)
            starts.append(first)
            ends.append(passed)
    limit = placed.end
    for i in reversed(range(len(texts))):
        ends[i] = min(ends[i], limit)
        limit = starts[i] = min(starts[i], ends[i] - 1)
    if texts and starts[0] < placed.start:  # more words than milliseconds
        return [Span(placed.start, placed.end, " ".join(texts))]
    return [Span(*span) for span in zip(starts, ends, texts, strict=True)]
