"""The parts of a clip that are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carat.features.clip import Clip
from carat.features.extractor import FeatureSequence
from carat.features.media import MediaInfo
from carat.features.segments import Segmentation, divide, parse_segmentation
from carat.features.speech import Segment
from carat.features.utterances import Utterance
from carat.features.words import Word, per_word
from carat.utils.errors import DataError

WORDS = [Word("so", 0.5, 1.0), Word("glad", 1.0, 1.5), Word("Oh", 4.0, 4.4), Word("no.", 4.4, 5.0)]
INFO = MediaInfo(format="wav", duration=12.0, audio=None, video=None)
SEQUENCE = FeatureSequence(np.arange(24, dtype=np.float32)[:, None], np.arange(24) / 2, 2.0, 24)


def clip(speech: list[Segment], utterances: list[Utterance] | None = None) -> Clip:
    return Clip(Path("a.wav"), INFO, 12.0, {"voice": SEQUENCE}, speech, utterances or [], WORDS)


def test_speech_segments_get_the_nearest_words() -> None:
    parts = divide(clip([Segment(0.4, 1.2), Segment(3.0, 3.9)]), Segmentation("vad"))
    assert [(part.start, part.end, part.text) for part in parts] == [
        (0.4, 1.2, "so glad"),
        (3.0, 3.9, "Oh no."),
    ]
    assert parts[1].of(SEQUENCE).times.tolist() == [3.0, 3.5]


def test_utterances_have_speakers() -> None:
    spoken = [
        Utterance("so glad", 0.5, 1.5, "Ann"),
        Utterance("Oh no.", 4.0, 99.0),
        Utterance("?", 20.0, 21.0),
    ]
    words = [replace(word, speaker="Ann") for word in WORDS[:2]]
    also = Word("mhm", 0.8, 1.0, speaker="Ben")  # at the same time
    heard = replace(clip([], spoken), words=[*words, also, *WORDS[2:]])
    parts = divide(heard, Segmentation("auto"), has_given_times=True)
    assert [(x.start, x.end, x.text, x.speaker) for x in parts] == [
        (0.5, 1.5, "so glad", "Ann"),
        (4.0, 12.0, "Oh no.", ""),
    ]


def test_parts_of_equal_length_and_the_whole() -> None:
    parts = divide(clip([]), Segmentation("auto"))
    assert [(part.start, part.end, part.text) for part in parts] == [(0, 5, "so glad Oh no."), (5, 12, "")]
    (whole,) = divide(clip([]), Segmentation("whole"))
    assert whole.of(SEQUENCE) is SEQUENCE
    assert whole.text == "so glad Oh no."
    assert divide(clip([]), Segmentation("vad")) == []
    assert len(divide(clip([]), Segmentation("seconds", 0.5))) == 24


def test_segmentations_are_parsed() -> None:
    assert parse_segmentation("vad") == Segmentation("vad")
    assert parse_segmentation("seconds=7") == Segmentation("seconds", 7.0)
    for wrong in ("", "seconds", "seconds=", "seconds=0", "seconds=nan", "seconds=inf", "seconds=x", "vad=3"):
        with pytest.raises(DataError, match=r"expected vad, transcript, whole, or seconds=N"):
            parse_segmentation(wrong)


def test_words_without_a_step_are_absent() -> None:
    sequence = FeatureSequence(SEQUENCE.values[:3], SEQUENCE.times[:3], 2.0, 24)
    averaged = per_word(sequence, [Word("a", 0.0, 0.9), Word("b", 1.0, 1.4), Word("c", 5.0, 6.0)])
    np.testing.assert_array_equal(averaged.values, [[0.5], [2.0]])
    np.testing.assert_allclose(averaged.times, [0.45, 1.2])
    assert averaged.steps == 3
