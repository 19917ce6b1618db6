"""Segments from probabilities of speech."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from carat.features.description import SpeechSettings
from carat.features.speech import Segment, find_segments
from carat.features.transcript import pack

STEP = 0.032
PLAIN = {"min_speech": 0.0, "min_silence": 0.0, "padding": 0.0}


def segments(probabilities: list[float], **settings: float) -> list[tuple[int, int]]:
    """Segments in windows instead of seconds."""
    array = np.array(probabilities, np.float32)
    found = find_segments(array, 1.0, float(len(array)), SpeechSettings(**{**PLAIN, **settings}))
    return [(round(segment.start), round(segment.end)) for segment in found]


def test_no_speech() -> None:
    assert segments([]) == []
    assert segments([0.1, 0.49, 0.3]) == []


def test_a_segment_ends_only_well_below_the_threshold() -> None:
    assert segments([0, 0.6, 0.4, 0.36, 0.3, 0]) == [(1, 4)]


def test_speech_up_to_the_end() -> None:
    assert segments([0, 0, 0.9, 0.9]) == [(2, 4)]


def test_near_segments_are_joined() -> None:
    p = [0.9, 0, 0, 0.9, 0, 0, 0, 0.9]
    assert segments(p) == [(0, 1), (3, 4), (7, 8)]
    assert segments(p, min_silence=2.5) == [(0, 4), (7, 8)]


def test_short_segments_are_left_out_after_joining() -> None:
    p = [0.9, 0, 0.9, 0, 0, 0, 0.9]
    assert segments(p, min_silence=2, min_speech=3) == [(0, 3)]


def test_padding_stays_inside_and_never_overlaps() -> None:
    array = np.array([0.9, 0, 0.9, 0, 0, 0, 0.9], np.float32)
    found = find_segments(array, 1.0, 6.5, SpeechSettings(**{**PLAIN, "padding": 1.0}))
    assert found == [Segment(0.0, 1.5), Segment(1.5, 4.0), Segment(5.0, 6.5)]


def test_long_segments_are_split_where_speech_is_least_likely() -> None:
    p = np.full(100, 0.9, np.float32)
    p[[17, 33]] = 0.6
    p[45] = 0.5
    found = segments(list(p), max_seconds=20)
    assert found[0] == (0, 17)
    assert found[1] == (17, 33)
    assert found[-1][1] == 100
    assert all(end - start <= 20 for start, end in found)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("seconds", [5.0, 28.0])
def test_packed_spans_hold_all_segments(seconds: float) -> None:
    rng = np.random.default_rng(0)
    edges = np.cumsum(rng.uniform(0.2, 2.4, 60))
    all_segments = [Segment(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    spans = pack(all_segments, seconds)
    assert all(end - start <= seconds for start, end in spans)
    assert all(any(a <= s.start and s.end <= b for a, b in spans) for s in all_segments)
    assert len(spans) < len(all_segments)
