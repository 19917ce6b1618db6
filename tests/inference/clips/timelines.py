"""Timelines made by hand, for tests of what writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carat.features.clip import Clip
from carat.features.extractor import FeatureSequence
from carat.features.media import MediaInfo, Track
from carat.features.words import spread
from carat.inference.clips.timeline import ScoredSegment, Timeline
from carat.inference.prediction import Prediction

VIDEO = Track(codec="mpeg4", rate=10, width=64, height=48)
AUDIO = Track(codec="aac", rate=16_000, channels=1)


def segment(
    start: float,
    end: float,
    text: str,
    scores: Mapping[str, float],
    *,
    threshold: float = 0.5,
    speaker: str = "",
    attribution: Mapping[str, str] | None = None,
    drops: bool = True,
) -> ScoredSegment:
    """A segment whose words take turns in raising and lowering the scores."""
    words = spread(text, start, end)
    signs = [(0.3 - 0.05 * i) * (-1) ** i for i in range(len(words))]
    return ScoredSegment(
        start,
        end,
        text,
        speaker,
        Prediction(
            dict(scores),
            [name for name, score in scores.items() if score > threshold],
            dict(attribution or {}),
            text=text,
        ),
        words,
        {name: [round(sign * score, 4) for sign in signs] for name, score in scores.items()}
        if drops
        else None,
    )


def timeline(
    file: Path,
    segments: Sequence[ScoredSegment],
    *,
    duration: float,
    labels: Sequence[str] = ("happy", "sad", "angry"),
    audio: bool = True,
    video: bool = True,
    faces: FeatureSequence | None = None,
    **values: Any,
) -> Timeline:
    """The timeline of a clip."""
    info = MediaInfo(
        format="mp4", duration=duration, audio=AUDIO if audio else None, video=VIDEO if video else None
    )
    clip = Clip(file, info, duration, {"face": faces} if faces is not None else {})
    defaults = {"run": "demo", "modalities": ["text", "voice", "face"]}
    return Timeline(clip, thresholds=dict.fromkeys(labels, 0.5), segments=segments, **{**defaults, **values})


def faces(times: Sequence[float], scores: Sequence[float], boxes: Any, rate: float = 10.0) -> FeatureSequence:
    """Features of faces with their boxes."""
    return FeatureSequence(
        np.zeros((len(times), 2), np.float32),
        np.array(times, np.float64),
        rate,
        len(times),
        {"score": np.array(scores, np.float32), "box": np.array(boxes, np.float32).reshape(len(times), 4)},
    )
