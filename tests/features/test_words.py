"""Words whose times are interpolated, and features averaged per word."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from carat.features.extractor import FeatureSequence
from carat.features.words import Word, average_per_word, spread, spread_over


def test_text_is_spread_by_length() -> None:
    words = spread("I can’t believe it!", 2.0, 4.0)
    assert [word.text for word in words] == ["I", "can’t", "believe", "it!"]
    assert words[0].start == 2.0
    assert words[-1].end == 4.0
    assert all(a.end == b.start for a, b in itertools.pairwise(words))
    lengths = [word.end - word.start for word in words]
    assert lengths[2] == max(lengths)
    assert not any(word.measured for word in words)
    assert spread("  ", 0, 1) == []


def test_text_is_spread_over_speech_only() -> None:
    words = spread_over("one two three four five six", [(1.0, 2.0), (10.0, 11.0)])
    assert len(words) == 6
    inside = [(1.0 <= w.start <= w.end <= 2.0) or (10.0 <= w.start <= w.end <= 11.0) for w in words]
    assert all(inside)
    assert [w.start < 5 for w in words] == [True, True, True, False, False, False]


def test_features_are_averaged_per_word() -> None:
    values = np.arange(10, dtype=np.float32)[:, None] * [1, 10]
    times = np.arange(10) / 10 + 0.05
    features = FeatureSequence(values.astype(np.float32), times, 10.0, 10)
    words = [Word("a", 0.0, 0.3), Word("b", 0.3, 0.31), Word("c", 0.5, 1.0), Word("d", 5.0, 6.0)]
    rows = average_per_word(features, words)
    assert rows.dtype == np.float32
    assert rows[:, 0] == pytest.approx([1.0, 3.0, 7.0, np.nan], nan_ok=True)
    assert rows[:, 1] == pytest.approx([10.0, 30.0, 70.0, np.nan], nan_ok=True)


def test_words_without_features() -> None:
    empty = FeatureSequence(np.zeros((0, 3), np.float32), np.zeros(0), 10.0, 7)
    assert np.isnan(average_per_word(empty, [Word("a", 0, 1)])).all()
    assert average_per_word(empty, []).shape == (0, 3)
