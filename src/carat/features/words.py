"""Words with times, and features averaged per word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence


@dataclass(frozen=True)
class Word:
    """A word of a transcript.

    Args:
        text: as written, with punctuation.
        start: seconds from the start of the file.
        end: likewise.
        confidence: probability of the word; None if a person wrote it.
        measured: whether start and end are the word's own; otherwise they are interpolated by its length.
        speaker: who says it; empty if unknown.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    measured: bool = True
    speaker: str = ""


def spread(text: str, start: float, end: float) -> list[Word]:
    """Divide a stretch of time among the words of a text, by their numbers of characters.

    >>> [(word.text, word.start, word.end) for word in spread("a bcd", 1.0, 2.0)]
    [('a', 1.0, 1.333), ('bcd', 1.333, 2.0)]
    """
    texts = text.split()
    lengths = [len(re.sub(r"\W", "", word)) + 1 for word in texts]
    ends = np.cumsum([0, *lengths]) / max(sum(lengths), 1) * (end - start) + start
    return [
        Word(word, round(float(ends[i]), 3), round(float(ends[i + 1]), 3), measured=False)
        for i, word in enumerate(texts)
    ]


def spread_over(text: str, spans: Sequence[tuple[float, float]]) -> list[Word]:
    """Divide several stretches of time, such as speech segments, among the words of a text.

    A word is where its middle is; it does not reach beyond its stretch.
    """
    total = sum(end - start for start, end in spans)
    words = []
    for word in spread(text, 0.0, total):
        passed, middle = 0.0, (word.start + word.end) / 2
        for start, end in spans:
            if middle < passed + end - start or (start, end) == spans[-1]:
                low = max(start + word.start - passed, start)
                high = min(start + word.end - passed, end)
                words.append(Word(word.text, round(low, 3), round(high, 3), measured=False))
                break
            passed += end - start
    return words


def average_per_word(features: FeatureSequence, words: Sequence[Word]) -> NDArray[np.float32]:
    """Average features over every word, as the aligned data of CMU-MOSEI has them.

    Args:
        features: features (T, D).
        words: N words.

    Returns:
        means (N, D); NaN for words without any step, such as those at which no face is seen.
    """
    rows = np.full((len(words), features.values.shape[1]), np.nan, np.float32)
    for row, word in zip(rows, words, strict=True):
        first, last = np.searchsorted(features.times, [word.start, word.end])
        if first == last and len(features.times):  # shorter than a step: the nearest one
            nearest = int(np.argmin(np.abs(features.times - (word.start + word.end) / 2)))
            distance = abs(features.times[nearest] - (word.start + word.end) / 2)
            if distance <= 1 / features.rate:
                first, last = nearest, nearest + 1
        if last > first:
            row[:] = features.values[first:last].mean(0)
    return rows


def per_word(features: FeatureSequence, words: Sequence[Word]) -> FeatureSequence:
    """Average features over every word; words without any step are absent.

    Args:
        features: features (T, D).
        words: words, sorted by time.

    Returns:
        One step for every word that has features, at the middle of the word.
    """
    values = average_per_word(features, words)
    present = ~np.isnan(values).all(1)
    middles = np.array([(word.start + word.end) / 2 for word in words], np.float64)
    return FeatureSequence(values[present], middles[present], features.rate, len(words))


def words_between(words: Sequence[Word], start: float, end: float) -> list[Word]:
    """Words whose middle is in a part of the file, from `start` to before `end` in seconds; and words without
    length at its end.

    >>> [word.text for word in words_between([Word("so", 0, 1), Word("glad", 1, 2)], 0.9, 9)]
    ['glad']
    """
    return [
        word
        for word in words
        if start <= (middle := (word.start + word.end) / 2)
        and (middle < end or word.start == word.end == end)
    ]
