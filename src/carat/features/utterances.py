"""Utterances: what one person says in a stretch of time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from carat.features.words import Word

CLOSING = r"[\"'”’»›)\]}」』）】〉》]*$"
SENTENCE_END = re.compile(rf"[.!?…‼‽⁇⁈⁉\u037e。．｡！？؟۔।॥։።፧។။]{CLOSING}")
"""Punctuation that ends a sentence in Latin, Greek, CJK, Arabic, Indian, Armenian, Amharic, Khmer and Burmese
script, and what closes after it."""
ELLIPSIS = re.compile(rf"(?:\.\.|…){CLOSING}")
ABBREVIATION = re.compile(
    r"\W*(?:(?:mr|mrs|ms|dr|prof|st|mt|jr|sr|vs|fig|approx|bzw|ca|nr|hr|fr|mme|mlle)\."
    r"|(?-i:[A-HJ-ZÀ-Þ])\.|(?:\w\.){2,})",
    re.IGNORECASE,
)
"""Words whose period does not end a sentence, such as titles, initials (not "I.") and "e.g."."""

SHORT = 0.1
"""Share of the greatest length; no shorter part is divided off, if there is another pause."""


@dataclass(frozen=True)
class Utterance:
    """What is said in a stretch of time.

    Args:
        text: what is said; may have several lines.
        start: seconds from the start of the file; None if the transcript has no times.
        end: likewise.
        speaker: who says it; empty if unknown.
    """

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str = ""


def group_words(words: Sequence[Word], *, pause: float = 0.8, max_seconds: float = 28.0) -> list[Utterance]:
    """Group words into utterances of one speaker each.

    An utterance ends after the punctuation that ends a sentence, and at a pause. One that is too long is
    divided at its longest pause, or else in the middle.

    Args:
        words: words, sorted by time; those of several speakers may overlap.
        pause: seconds of silence between two words that divide them.
        max_seconds: length of an utterance at most, unless it is a single word.

    Returns:
        Utterances, sorted by time.

    >>> said = [Word("So?", 0, 1), Word("Yes,", 1, 2), Word("Mr.", 2, 3), Word("Li", 3, 4), Word("it", 6, 7)]
    >>> [utterance.text for utterance in group_words(said)]
    ['So?', 'Yes, Mr. Li', 'it']
    """
    by_speaker: dict[str, list[Word]] = {}
    for word in words:
        if word.text.strip():
            by_speaker.setdefault(word.speaker, []).append(word)
    utterances = [
        Utterance(" ".join(word.text for word in group), group[0].start, _end(group), speaker)
        for speaker, spoken in by_speaker.items()
        for sentence in _sentences(spoken, pause)
        for group in _divide(sentence, max_seconds)
    ]
    return sorted(utterances, key=lambda utterance: utterance.start or 0.0)


def _sentences(words: Sequence[Word], pause: float) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in words:
        if group and (_gap(group[-1], word) >= pause or _ends_sentence(group[-1].text, word.text)):
            yield group
            group = []
        group.append(word)
    yield group


def _ends_sentence(text: str, following: str) -> bool:
    if not SENTENCE_END.search(text) or ABBREVIATION.fullmatch(text):
        return False
    return not (ELLIPSIS.search(text) and following[:1].islower())  # a hesitation


def _divide(words: Sequence[Word], max_seconds: float) -> Iterator[Sequence[Word]]:
    """Divide at the longest pause, of equal ones at that nearest to the middle, until nothing is too long.

    Pauses near the start and the end do not count, if there are others.
    """
    starts, ends = np.array([word.start for word in words]), np.array([word.end for word in words])
    pauses = np.array([_gap(a, b) for a, b in pairwise(words)])
    rest = [(0, len(words))]
    while rest:
        first, last = rest.pop()
        start, end = starts[first], ends[first:last].max()
        if last - first == 1 or end - start <= max_seconds:
            yield words[first:last]
            continue
        at = np.arange(first + 1, last)
        inside = at[np.minimum(starts[at] - start, end - starts[at]) >= SHORT * max_seconds]
        at = inside if len(inside) else at
        at = at[pauses[at - 1] == pauses[at - 1].max()]
        chosen = at[np.abs(starts[at] - (start + end) / 2).argmin()]
        rest += [(chosen, last), (first, chosen)]


def _gap(word: Word, following: Word) -> float:
    return max(round(following.start - word.end, 3), 0.0)


def _end(words: Sequence[Word]) -> float:
    return max(word.end for word in words)
