"""What a page shows of a media file: its waveform, and small pictures of faces."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence
from carat.features.media import Media

RATE = 8000
"""Sampling rate in Hz at which the sound is read for the waveform."""
COLUMNS = (2_000, 20_000)
"""Columns of a waveform: what a wide screen shows at once, and what a zoom into a long recording needs."""
QUALITY = 75
"""Quality of JPEG pictures, in percent."""


@dataclass(frozen=True)
class FacePicture:
    """A picture of a face.

    Args:
        time: seconds from the start of the file.
        box: left, top, width and height of the face, as shares of the picture.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        jpeg: the picture.
    """

    time: float
    box: tuple[float, float, float, float]
    width: int
    height: int
    jpeg: bytes


def waveform(media: Media, duration: float, columns: int | None = None) -> NDArray[np.uint8]:
    """The loudness of a recording over time, in constant memory.

    Args:
        media: file with sound.
        duration: seconds that the columns divide evenly; sound beyond is ignored.
        columns: largest number of columns; by default 10 per second, but at least and at most `COLUMNS`.

    Returns:
        largest amplitude in each column, as a share of the largest of all in 0 to 255.

    Raises:
        DataError: the sound cannot be decoded.
    """
    samples = max(1, round(duration * RATE))
    columns = columns or int(np.clip(10 * duration, *COLUMNS))
    count = min(columns, samples)
    peaks = np.zeros(count, np.float32)
    position = 0
    for block in media.audio(RATE):
        block = block[: samples - position]
        column = (position + np.arange(len(block))) * count // samples
        np.maximum.at(peaks, column, np.abs(block))
        position += len(block)
    return np.round(255 * peaks / max(float(peaks.max()), 1e-6)).astype(np.uint8)


def find_faces(features: Mapping[str, FeatureSequence]) -> FeatureSequence | None:
    """The first features that have the boxes of faces; None if there are none."""
    for sequence in features.values():
        if {"box", "score"} <= set(sequence.extra) and len(sequence.times):
            return sequence
    return None


def face_pictures(
    media: Media,
    faces: FeatureSequence,
    spans: Sequence[tuple[float, float]],
    limit: int = 120,
    size: int = 320,
) -> dict[int, FacePicture]:
    """The clearest face of each of several stretches of time; the file is searched for them.

    Args:
        media: file with pictures.
        faces: features with `box` and `score`.
        spans: start and end in seconds.
        limit: number of pictures at most; if more stretches have faces, they are chosen evenly.
        size: length in pixels of the longer side.

    Returns:
        pictures by index of the stretch; those without a face are absent.

    Raises:
        DataError: the pictures cannot be decoded.
    """
    best = {i: row for i, (start, end) in enumerate(spans) if (row := _best(faces, start, end)) is not None}
    with_face = list(best)
    if len(with_face) > limit:
        with_face = [with_face[round(i)] for i in np.linspace(0, len(with_face) - 1, limit)]
    wanted: dict[int, list[int]] = {}
    for i in with_face:
        wanted.setdefault(round(float(faces.times[best[i]]) * faces.rate), []).append(i)
    found: dict[int, FacePicture] = {}
    if not wanted:
        return found
    for picture in media.pictures(faces.rate, size, sorted(wanted)):
        for i in wanted[picture.index]:
            left, top, width, height = (float(x) for x in faces.extra["box"][best[i]])
            found[i] = FacePicture(
                picture.time,
                (left, top, width, height),
                picture.pixels.shape[1],
                picture.pixels.shape[0],
                _jpeg(picture.pixels),
            )
    return dict(sorted(found.items()))


def _best(faces: FeatureSequence, start: float, end: float) -> int | None:
    """The step with the largest score from `start` to before `end`."""
    first, last = np.searchsorted(faces.times, [start, end])
    return int(first + np.argmax(faces.extra["score"][first:last])) if last > first else None


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image  # comes with matplotlib

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
