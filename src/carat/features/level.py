"""Level of the sound: whether a recording is silent or clipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence
from carat.features.media import Media

SAMPLE_RATE = 16_000
RATE = 2
"""Steps per second."""
FULL_SCALE = 0.985
"""Absolute value from which a sample counts as clipped; resampling rounds off the edges."""
SILENT = 1e-3
"""RMS level, of 1 at full scale, below which sound is silent: -60 dB."""
MAX_CLIPPED = 0.01
"""Share of clipped samples from which sound is called clipped; loud speech has less than a tenth of it."""


class LevelExtractor:
    """RMS level and share of clipped samples, in half seconds."""

    names = ("rms", "clipped")
    rate = float(RATE)

    def extract(self, media: Media) -> FeatureSequence | None:
        """Levels of the whole sound (T, 2); None if there is none. Times are the middles of the steps."""
        if media.info.audio is None:
            return None
        step = SAMPLE_RATE // RATE
        rows = [_levels(piece) for piece in _pieces(media.audio(SAMPLE_RATE), step)]
        values = np.array(rows, np.float32).reshape(len(rows), 2)
        return FeatureSequence(values, (np.arange(len(rows)) + 0.5) / RATE, self.rate, len(rows))


def describe_level(levels: FeatureSequence | None) -> list[str]:
    """Describe silent or clipped sound, from what `LevelExtractor` returned or a part of it.

    >>> describe_level(FeatureSequence(np.array([[2e-4, 0], [1e-4, 0]], np.float32), np.arange(2.0), 2.0, 2))
    ['the sound is silent (-76 dB)']
    """
    if levels is None or not len(levels.values):
        return []
    rms, clipped = np.sqrt(np.square(levels.values[:, 0]).mean()), levels.values[:, 1].mean()
    if rms < SILENT:
        return [f"the sound is silent ({20 * np.log10(max(rms, 1e-6)):.0f} dB)"]
    if clipped > MAX_CLIPPED:
        return [f"the sound is clipped ({clipped:.0%} of its samples are at the limit)"]
    return []


def _pieces(blocks: Iterable[NDArray[np.float32]], length: int) -> Iterator[NDArray[np.float32]]:
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= length:
            yield held[:length]
            held = held[length:]
    if len(held):
        yield held


def _levels(samples: NDArray[np.float32]) -> tuple[float, float]:
    rms = np.sqrt(np.square(samples, dtype=np.float64).mean())
    return float(rms), float((np.abs(samples) >= FULL_SCALE).mean())
