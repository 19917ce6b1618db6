"""Long recordings in overlapping windows, so that their features need constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence
from carat.features.media import Media

WINDOW = 60
"""Seconds of new sound per window."""
MARGIN = 2
"""Seconds before and after, in which features settle."""


def by_window(
    blocks: Iterable[NDArray[np.float32]],
    rate: int,
    step: int,
    features: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Iterator[NDArray[np.float32]]:
    """Make features of sound piece by piece.

    Args:
        blocks: consecutive samples (N,).
        rate: samples per second.
        step: samples per time step; a divisor of `rate`.
        features: makes features (T, D) of samples (N,), with T = N // step, or the last row missing or extra.

    Yields:
        features of consecutive pieces, together (N // step, D).
    """
    window, margin = WINDOW * rate, MARGIN * rate
    held = np.zeros(0, np.float32)
    before = 0  # samples of the held ones that belong to the last piece
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= before + window + margin:
            values = features(held[: before + window + margin])
            yield values[before // step : (before + window) // step]
            held = held[before + window - margin :]
            before = margin
    rest = (len(held) - before) // step
    if rest > 0:
        yield _fit(features(held), before // step + rest)[before // step :]


def features_of_sound(
    media: Media,
    sample_rate: int,
    rate: int,
    width: int,
    features: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> FeatureSequence | None:
    """Make features of the whole sound of a file; None if it has none. Times are the middles of the steps.

    Args:
        media: file.
        sample_rate: samples per second that `features` expects.
        rate: time steps per second; a divisor of `sample_rate`.
        width: number of features D.
        features: see `by_window`.
    """
    if media.info.audio is None:
        return None
    parts = list(by_window(media.audio(sample_rate), sample_rate, sample_rate // rate, features))
    values = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
    times = (np.arange(len(values), dtype=np.float64) + 0.5) / rate
    return FeatureSequence(values, times, float(rate), len(values))


def _fit(values: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut features to a length, or repeat the last row up to it."""
    if len(values) < length:
        values = np.concatenate([values, np.repeat(values[-1:], length - len(values), 0)])
    return values[:length]


def cut(
    blocks: Iterable[NDArray[np.float32]], rate: int, spans: Sequence[tuple[float, float]]
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Cut spans out of a stream of samples, holding one span at a time.

    Args:
        blocks: consecutive samples (N,).
        rate: samples per second.
        spans: starts and ends in seconds, sorted, without overlap.

    Yields:
        start in seconds, and samples (N,).
    """
    limits = [(round(start * rate), round(end * rate)) for start, end in spans]
    held: list[NDArray[np.float32]] = []
    position = index = 0
    for block in blocks:
        begin, position = position, position + len(block)
        while index < len(limits):
            start, end = limits[index]
            held.append(block[max(start - begin, 0) : max(end - begin, 0)])
            if end > position:
                break
            yield start / rate, np.concatenate(held)
            held, index = [], index + 1
        else:
            return
    if held and sum(map(len, held)):
        yield limits[index][0] / rate, np.concatenate(held)
