"""The timeline of a clip as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from carat.serve.schemas import PredictionResult

if TYPE_CHECKING:
    from carat.inference.clips.timeline import Timeline
    from carat.inference.prediction import Prediction


class TrackResult(BaseModel):
    """Sound or pictures of a clip, as its file describes them."""

    codec: str
    rate: float | None = None
    channels: int | None = None
    width: int | None = None
    height: int | None = None


class WordResult(BaseModel):
    """A word of the transcript."""

    text: str
    start: float = Field(description="Seconds from the start of the file.")
    end: float
    confidence: float | None = Field(None, description="Of recognized words, in [0, 1].")
    measured: bool = Field(True, description="False if its times are interpolated.")
    speaker: str = ""


class SegmentResult(BaseModel):
    """A part of a clip with its prediction."""

    start: float = Field(description="Seconds from the start of the file.")
    end: float
    text: str
    speaker: str
    prediction: PredictionResult
    words: list[WordResult] = []
    drops: dict[str, list[float]] | None = Field(
        None, description="By label, for each of the words, by how much the score is lower without it."
    )


class TimelineResult(BaseModel):
    """The scored segments of a clip, sorted by start."""

    run: str
    file: str
    format: str
    duration: float = Field(description="Seconds.")
    audio: TrackResult | None
    video: TrackResult | None
    thresholds: dict[str, float]
    modalities: list[str] = Field(description="Modalities of the run that the clip has.")
    transcript: str = Field(description='"given", "recognized" or "none".')
    validation: float | None = Field(None, description="Micro-F1 of the run on validation.")
    segments: list[SegmentResult]
    notes: list[str] = []


def prediction_values(prediction: Prediction, model: type[BaseModel]) -> dict[str, Any]:
    """The fields of a prediction that an answer has, too."""
    names = (field.name for field in fields(prediction))
    return {name: getattr(prediction, name) for name in names if name in model.model_fields}


def to_prediction(values: Mapping[str, Any]) -> Prediction:
    """The prediction of an answer; what else the answer has is ignored."""
    from carat.inference.prediction import Prediction

    known = {field.name for field in fields(Prediction)}
    return Prediction(**{name: value for name, value in values.items() if name in known})


def to_result(timeline: Timeline, name: str, notes: Sequence[str] = ()) -> TimelineResult:
    """Convert a timeline to an answer.

    Args:
        timeline: timeline.
        name: name of the media file for the user.
        notes: its notes, if they are to be replaced.
    """
    info = timeline.clip.info
    segments = [
        SegmentResult(
            start=segment.start,
            end=segment.end,
            text=segment.text,
            speaker=segment.speaker,
            prediction=PredictionResult(**prediction_values(segment.prediction, PredictionResult)),
            words=[WordResult.model_validate(word, from_attributes=True) for word in segment.words],
            drops=None if segment.drops is None else {k: list(x) for k, x in segment.drops.items()},
        )
        for segment in timeline.segments
    ]
    return TimelineResult(
        run=timeline.run,
        file=name,
        format=info.format,
        duration=timeline.clip.duration,
        audio=info.audio and TrackResult.model_validate(info.audio, from_attributes=True),
        video=info.video and TrackResult.model_validate(info.video, from_attributes=True),
        thresholds=dict(timeline.thresholds),
        modalities=list(timeline.modalities),
        transcript=timeline.transcript,
        validation=timeline.validation,
        segments=segments,
        notes=list(notes or timeline.notes),
    )


def to_timeline(result: TimelineResult, file: Path) -> Timeline:
    """Convert an answer to a timeline, whose clip has no features.

    Args:
        result: answer.
        file: the media file.
    """
    from carat.features.clip import Clip
    from carat.features.media import MediaInfo, Track
    from carat.features.words import Word
    from carat.inference.clips.timeline import ScoredSegment, Timeline

    tracks = {
        name: track and Track.model_validate(track.model_dump())
        for name, track in (("audio", result.audio), ("video", result.video))
    }
    info = MediaInfo(format=result.format, duration=result.duration, **tracks)
    segments = [
        ScoredSegment(
            segment.start,
            segment.end,
            segment.text,
            segment.speaker,
            to_prediction(segment.prediction.model_dump() | {"text": segment.text}),
            [Word(**word.model_dump()) for word in segment.words],
            segment.drops,
        )
        for segment in result.segments
    ]
    words = [word for segment in segments for word in segment.words]
    return Timeline(
        Clip(file, info, result.duration, {}, words=words),
        result.run,
        result.thresholds,
        result.modalities,
        segments,
        result.notes,
        result.transcript,
        result.validation,
    )
