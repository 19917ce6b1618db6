"""Words and their times by faster-whisper from a local folder (extra `clip`); nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.features.description import TranscriptSettings
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.speech import Segment, SpeechDetector
from carat.features.whisper import WINDOW, one_thread, open_whisper
from carat.features.windows import cut
from carat.features.words import Word
from carat.utils.errors import DataError

SAMPLE_RATE = 16_000
MARGIN = 5.0
"""Seconds of silence that are read after what is said."""
MAX_COMPRESSION = 2.4
"""Ratio by which a text can be compressed, above which it repeats itself."""
MIN_LOG_PROBABILITY = -1.0
"""Mean log probability of tokens below which a window is read again, with more silence."""


class Transcriber:
    """Recognizes the words of a file; one instance serves many files.

    As an extractor, it makes one step per word; see `read_words`.

    Args:
        settings: parameters.

    Raises:
        DataError: faster-whisper or the model is not installed, or the model cannot be read.
    """

    def __init__(self, settings: TranscriptSettings) -> None:
        self._settings = settings
        self._model = open_whisper(settings.model, settings.compute_type)
        if settings.language != "en" and not self._model.model.is_multilingual:
            raise DataError(
                f"{settings.model}: knows only English, not '{settings.language}'; name a multilingual "
                "model, or give transcripts"
            )
        self._speech = SpeechDetector(settings.speech)

    names = ("confidence",)
    rate = 50.0
    """Resolution of the times of words, per second."""

    def extract(self, media: Media) -> FeatureSequence | None:
        """Words as a sequence of their confidence (N, 1); None if there is no sound."""
        if media.info.audio is None:
            return None
        words = self.words(media)
        return FeatureSequence(
            np.array([[word.confidence] for word in words], np.float32).reshape(len(words), 1),
            np.array([word.start for word in words], np.float64),
            self.rate,
            len(words),
            {
                "end": np.array([word.end for word in words]),
                "text": np.array([word.text for word in words], "U"),
            },
        )

    def words(self, media: Media, segments: Sequence[Segment] | None = None) -> list[Word]:
        """Words of a file, sorted by time; none if nobody speaks.

        Args:
            media: file.
            segments: speech segments, found if None.
        """
        if media.info.audio is None:
            return []
        segments = self._speech.segments(media) if segments is None else segments
        spans = pack(segments, self._settings.speech.max_seconds)
        words: list[Word] = []
        for start, samples in cut(media.audio(SAMPLE_RATE), SAMPLE_RATE, spans):
            words += self._recognize(start, samples)
        return words

    def _recognize(self, start: float, samples: NDArray[np.float32]) -> list[Word]:
        """Words of a span that starts at `start` seconds."""
        seconds = len(samples) / SAMPLE_RATE
        window = min(max(self._settings.min_window, seconds + MARGIN), WINDOW)
        parts = self._transcribe(samples, window)
        if window < WINDOW and not all(map(_is_plausible, parts)):
            parts = self._transcribe(samples, WINDOW)
        limit = start + seconds
        return [
            Word(
                word.word.strip(),
                round(min(start + float(word.start), limit), 3),
                round(min(start + float(word.end), limit), 3),
                confidence=float(word.probability),
            )
            for part in parts
            for word in part.words or []
            if word.word.strip()
        ]

    def _transcribe(self, samples: NDArray[np.float32], window: float) -> list[Any]:
        """Parts of a span, read in windows of some seconds, without sampling: words are equal twice."""
        self._model.window = window
        try:
            with one_thread():
                parts, _ = self._model.transcribe(
                    samples,
                    language=self._settings.language,
                    beam_size=self._settings.beam_size,
                    temperature=0.0,
                    word_timestamps=True,
                    condition_on_previous_text=False,
                )
                return list(parts)
        finally:
            self._model.window = WINDOW


def _is_plausible(part: Any) -> bool:
    """Whether the model is sure of a part, and does not repeat itself; the limits are those of Whisper."""
    return bool(part.compression_ratio <= MAX_COMPRESSION and part.avg_logprob >= MIN_LOG_PROBABILITY)


def read_words(features: FeatureSequence | None) -> list[Word]:
    """Words from what `Transcriber.extract` returned; none if there was no sound."""
    if features is None:
        return []
    columns = features.extra["text"], features.times, features.extra["end"], features.values[:, 0]
    return [
        Word(str(text), float(start), float(end), float(p))
        for text, start, end, p in zip(*columns, strict=True)
    ]


def pack(segments: Sequence[Segment], seconds: float) -> list[tuple[float, float]]:
    """Join neighboring segments to spans of at most `seconds`, since Whisper reads 30 s at once anyway.

    >>> pack([Segment(0, 2), Segment(3, 9), Segment(20, 31)], 28)
    [(0, 9), (20, 31)]
    """
    spans: list[tuple[float, float]] = []
    for segment in segments:
        if spans and segment.end - spans[-1][0] <= seconds:
            spans[-1] = (spans[-1][0], segment.end)
        else:
            spans.append((segment.start, segment.end))
    return spans
