"""Sound and pictures of media files, decoded in a child process with limits of CPU time and memory.

Media are untrusted: a file that makes a decoder crash, loop or fill the memory ends in one `DataError`. Both
sound and pictures come as streams, so that recordings of any length need constant memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from carat.features.decoder_process import Decoder
from carat.utils.errors import DataError, shorten
from carat.utils.reading import check_content, check_regular

MAX_RATE = 192_000
MAX_PICTURES = 120
"""Largest number of pictures per second that are decoded."""
MAX_SIZE = 4096
"""Largest size in pixels to which pictures are decoded."""


class Track(BaseModel):
    """What a file says about its sound or its pictures."""

    model_config = ConfigDict(frozen=True)

    codec: str
    rate: float | None
    """Samples or pictures per second."""
    channels: int | None = None
    width: int | None = None
    height: int | None = None
    """Width and height in pixels as stored, before rotation."""


class MediaInfo(BaseModel):
    """What a file says about itself."""

    model_config = ConfigDict(frozen=True)

    format: str
    """Name of the container."""
    duration: float | None
    """Duration in seconds; None if the file does not say."""
    audio: Track | None
    """The sound that is decoded, None if there is none."""
    video: Track | None
    """The pictures that are decoded, None if there are none; cover pictures do not count."""


@dataclass(frozen=True)
class Picture:
    """A picture of a video.

    Args:
        index: number of the time step at which the picture is shown.
        time: seconds from the start of the file.
        pixels: upright picture (height, width, 3), uint8 RGB, read-only; pictures that are shown for several
            time steps share one array.
    """

    index: int
    time: float
    pixels: NDArray[np.uint8]


class Media:
    """A media file (context manager).

    Args:
        file: audio or video file.

    Raises:
        DataError: the file does not exist, is empty, cannot be decoded, or has neither sound nor pictures.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self.on_time: Callable[[float], None] = lambda seconds: None
        """Called with the time that decoding has reached, for progress."""
        self.memo: dict[str, Any] = {}
        """What extractors of the same file share, such as its speech segments, by description."""
        require_av()
        check_regular(self.file)
        if self.file.stat().st_size == 0:
            raise DataError(f"{self.file}: is empty (0 bytes)")
        check_content(self.file)
        self._decoder: Decoder | None = None
        try:
            self.info = self._probe()
        except BaseException:
            self.close()
            raise

    def _probe(self) -> MediaInfo:
        (header, _), *_ = self._request({"do": "probe"})
        info = MediaInfo.model_validate(header)
        if info.audio is None and info.video is None:
            raise DataError(f"{self.file}: has neither sound nor pictures that can be decoded")
        return info

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder; a further request starts another one."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None

    def audio(self, rate: int, block: int = 1 << 16) -> Iterator[NDArray[np.float32]]:
        """Decode the sound, mixed to mono, with silence where the file has gaps.

        Args:
            rate: sampling rate in Hz to which the sound is resampled.
            block: samples of an array; the last one is shorter.

        Yields:
            float32 (block,), in [-1, 1] except for files that exceed it.

        Raises:
            DataError: there is no sound, or it cannot be decoded, or not to the end.
        """
        if not 0 < rate <= MAX_RATE:
            raise DataError(f"{self.file}: sampling rate {rate} Hz, expected 1 to {MAX_RATE}")
        held, decoded = np.zeros(0, np.float32), 0
        for header, content in self._request({"do": "audio", "rate": rate}):
            if header["kind"] == "end":
                break
            samples = np.frombuffer(content, np.float32)
            if not np.isfinite(samples).all():
                raise DataError(f"{self.file}: has samples that are not finite numbers")
            held = np.concatenate([held, samples])
            decoded += len(samples)
            self.on_time(decoded / rate)
            while len(held) >= block:
                yield held[:block]
                held = held[block:]
        if len(held):
            yield held

    def pictures(
        self, rate: float, size: int = 1280, wanted: Sequence[int] | None = None
    ) -> Iterator[Picture]:
        """Decode the pictures that are shown at 0, 1 / rate, 2 / rate, … seconds.

        Times are those of the file, so that variable frame rates come out right. Steps at which nothing is
        shown are left out: before the first picture, and later than 10 s after one that none follows.

        Args:
            rate: pictures per second.
            size: length in pixels of the longer side to which larger pictures are reduced.
            wanted: numbers of the time steps whose pictures are wanted, found without decoding all others; by
                default all.

        Raises:
            DataError: there are no pictures, or they cannot be decoded, or not to the end.
        """
        if not 0 < rate <= MAX_PICTURES:
            raise DataError(f"{self.file}: {rate:g} pictures per second, expected at most {MAX_PICTURES}")
        if not 0 < size <= MAX_SIZE:
            raise DataError(f"{self.file}: pictures of {size} pixels, expected at most {MAX_SIZE}")
        pixels = np.zeros((0, 0, 3), np.uint8)
        request = {"do": "video", "rate": repr(float(rate)), "size": size, "wanted": wanted}
        for header, content in self._request(request):
            if header["kind"] == "end":
                break
            if content:
                pixels = np.frombuffer(content, np.uint8).reshape(header["height"], header["width"], 3)
                turned = np.rot90(pixels, round(header["rotation"] / 90) % 4)
                pixels = np.ascontiguousarray(turned)
                pixels.flags.writeable = False
            self.on_time(header["index"] / rate)
            yield Picture(header["index"], header["index"] / rate, pixels)

    def _request(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytearray]]:
        """Send a request to the decoder and yield its messages up to the one of the kind `end`."""
        if self._decoder is None:
            self._decoder = Decoder(self.file)
        decoder, complete = self._decoder, False
        try:
            decoder.send(request)
            while True:
                header, content = decoder.receive()
                complete = header["kind"] in ("end", "error")
                if header["kind"] == "error":
                    raise DataError(f"{self.file}: {shorten(header['message'])}")
                yield header, content
                if complete:
                    return
        finally:
            if not complete:  # the decoder failed, or the rest of its answer is not wanted
                self.close()


def require_av() -> None:
    """Check that PyAV is installed, without importing it.

    Raises:
        DataError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("av") is None:
        raise DataError("media files need the extra: pip install 'carat-emotion[media]'")
