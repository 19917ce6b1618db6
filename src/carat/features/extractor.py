"""The interface of extractors, which turn a media file into a sequence of features."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carat.features.description import Description, describe
from carat.features.media import Media
from carat.utils.errors import DataError
from carat.utils.logging import logger


@dataclass(frozen=True)
class FeatureSequence:
    """Features of one media file.

    Args:
        values: float32 (T, D).
        times: seconds from the start of the file (T,), increasing; steps at which there is nothing to see or
            to hear are absent.
        rate: time steps per second.
        steps: number of time steps that were looked at, of which T are present.
        extra: further arrays (T, …) by name that are no features, such as scores of detection.
    """

    values: NDArray[np.float32]
    times: NDArray[np.float64]
    rate: float
    steps: int
    extra: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def between(self, start: float, end: float) -> FeatureSequence:
        """The part from `start` to before `end`, in seconds; its times stay those of the file."""
        first, last = np.searchsorted(self.times, [start, end])
        part = slice(int(first), int(last))
        extra = {name: array[part] for name, array in self.extra.items()}
        steps = max(len(self.times[part]), round((end - start) * self.rate))
        return FeatureSequence(self.values[part], self.times[part], self.rate, steps, extra)


class Extractor(Protocol):
    """Makes features from media files; one instance serves many files."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D features."""

    @property
    def rate(self) -> float:
        """Time steps per second."""

    def extract(self, media: Media) -> FeatureSequence | None:
        """Make the features of a file; None if it has no sound, or no pictures.

        Raises:
            DataError: the file cannot be decoded.
        """


def match_installed(description: Description) -> Description:
    """Return the description of the same extractor with what is installed on this machine.

    A package of another version than described is logged as a warning, since features may differ slightly.

    Raises:
        DataError: a package or a model is not installed, or a model or carat's own part is another one.
    """
    installed, name = describe(description.settings), description.extractor
    for difference in description.differences(installed):
        if not difference.startswith("packages."):
            raise DataError(f"features of '{name}' cannot be made as described: {difference}")
        logger.warning(f"features of '{name}' may differ: described and installed {difference}")
    return installed


def open_extractor(description: Description) -> Extractor:
    """Load the extractor that a description names; its packages and models are imported here.

    A thread that opens it again gets the same instance.

    Raises:
        DataError: see `match_installed`.
    """
    return _load(description.model_dump_json(), threading.get_ident())


@lru_cache(maxsize=8)
def _load(description: str, thread: int) -> Extractor:
    """Load the extractor of a description in JSON, for one thread: instances have a state while they work."""
    settings = match_installed(Description.model_validate_json(description)).settings
    if settings.extractor == "face":
        from carat.features.face import FaceExtractor

        return FaceExtractor(settings)
    if settings.extractor == "voice":
        from carat.features.voice import VoiceExtractor

        return VoiceExtractor(settings)
    if settings.extractor == "whisper":
        from carat.features.whisper import WhisperExtractor

        return WhisperExtractor(settings)
    if settings.extractor == "level":
        from carat.features.level import LevelExtractor

        return LevelExtractor()
    if settings.extractor == "speech":
        from carat.features.speech import SpeechDetector

        return SpeechDetector(settings)
    if settings.extractor == "transcript":
        from carat.features.transcript import Transcriber

        return Transcriber(settings)
    from carat.features.opensmile import OpenSmileExtractor

    return OpenSmileExtractor()
