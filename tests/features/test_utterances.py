"""Utterances from words: sentences, pauses, speakers, and the longest length."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from carat.features.utterances import Utterance, group_words
from carat.features.words import Word, spread


def grouped(text: str) -> list[str]:
    """Utterances of words that follow each other without pauses."""
    return [utterance.text for utterance in group_words(spread(text, 0.0, 20.0))]


def timed(*times: tuple[float, float]) -> list[Word]:
    return [Word(chr(ord("a") + i), start, end) for i, (start, end) in enumerate(times)]


def texts(utterances: Sequence[Utterance]) -> list[str]:
    return [utterance.text for utterance in utterances]


@pytest.mark.parametrize(
    "expected",
    [
        ["How are you?", "No.", "Fine!", "Really?!", "Yes, of course."],
        ['She said "no."', "(It was late.)", "«Bon.»", "„Gut.”", "so"],
        ["I'm fine…", "You?"],
        ["Well... maybe so."],
        ["Mr. Li and Dr. No met J. R. Smith, e.g. here.", "So did I.", "Good"],
        ["你好。", "今天 很 好！", "真的？", "是"],
        ["مرحبا؟", "نعم.", "لا"],
        ["आप कैसे हैं।", "ठीक॥", "हाँ"],
        ["آپ کیسے ہیں۔", "ٹھیک"],
        ["It costs 3.5 euros, i.e. little"],
        ["no punctuation at all"],
    ],
)
def test_sentences(expected: list[str]) -> None:
    assert grouped(" ".join(expected)) == expected


def test_an_utterance_has_the_times_of_its_words() -> None:
    words = [Word("Oh.", 1.0, 1.5), Word("I", 1.5, 1.7), Word("see", 1.7, 2.25)]
    assert group_words(words) == [Utterance("Oh.", 1.0, 1.5), Utterance("I see", 1.5, 2.25)]


def test_pauses() -> None:
    words = timed((0.0, 1.0), (1.7, 2.0), (2.8, 3.0), (2.9, 3.5), (4.4, 5.0))
    assert texts(group_words(words)) == ["a b", "c d", "e"]
    assert texts(group_words(words, pause=0.7)) == ["a", "b", "c d", "e"]
    assert texts(group_words(words, pause=2.0)) == ["a b c d e"]


def test_a_long_utterance_is_divided_at_its_longest_pause() -> None:
    words = timed((0.0, 2.0), (2.1, 4.0), (4.5, 6.0), (6.2, 8.0), (8.0, 9.0))
    assert texts(group_words(words, max_seconds=9.0)) == ["a b c d e"]
    assert texts(group_words(words, max_seconds=8.0)) == ["a b", "c d e"]
    assert texts(group_words(words, max_seconds=3.0)) == ["a", "b", "c", "d e"]
    assert texts(group_words(words, max_seconds=0.5)) == ["a", "b", "c", "d", "e"]


def test_words_without_pauses_are_divided_in_the_middle() -> None:
    words = [Word(str(i), float(i), i + 1.0) for i in range(60)]
    utterances = group_words(words)
    assert [(u.start, u.end) for u in utterances] == [(0, 15), (15, 30), (30, 45), (45, 60)]
    assert " ".join(texts(utterances)) == " ".join(word.text for word in words)


def test_no_single_word_is_divided_off_if_there_is_another_pause() -> None:
    words = timed((0.0, 1.0), (1.7, 14.0), (14.2, 20.0), (20.1, 28.0), (28.1, 29.0))
    assert texts(group_words(words)) == ["a b", "c d e"]
    assert texts(group_words(words[:2], max_seconds=10.0)) == ["a", "b"]


def test_speakers_are_apart_even_if_they_overlap() -> None:
    words = [
        Word("So", 0.0, 0.5, speaker="Ann"),
        Word("Yes", 0.4, 0.8, speaker="Ben"),
        Word("then", 0.5, 1.0, speaker="Ann"),
        Word("what?", 1.0, 1.5),
    ]
    assert group_words(words) == [
        Utterance("So then", 0.0, 1.0, "Ann"),
        Utterance("Yes", 0.4, 0.8, "Ben"),
        Utterance("what?", 1.0, 1.5),
    ]


def test_nothing_said() -> None:
    assert group_words([]) == []
    assert group_words([Word(" ", 0.0, 1.0)]) == []
