"""Media files for tests, written with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def tone(seconds: float, rate: int, hertz: float = 220.0) -> NDArray[np.float32]:
    """A sine at half amplitude."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def flat(color: tuple[int, int, int], width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture of one color."""
    return np.full((height, width, 3), color, np.uint8)


def corners(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A blue picture whose upper left quarter is red."""
    picture = flat(BLUE, width, height)
    picture[: height // 2, : width // 2] = RED
    return picture


def write_media(
    file: Path,
    *,
    sound: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    layout: str = "mono",
    audio_codec: str = "aac",
    audio_start: float = 0.0,
    pictures: list[tuple[float, NDArray[np.uint8]]] | None = None,
    video_codec: str = "mpeg4",
    tracks: int = 1,
) -> Path:
    """Write sound (N,), the same in all channels, and pictures with their times in seconds."""
    import av

    with av.open(str(file), "w") as container:
        audio = None
        if sound is not None:
            audio = [container.add_stream(audio_codec, rate=rate, layout=layout) for _ in range(tracks)]
        video = None
        if pictures is not None:
            video = container.add_stream(video_codec, rate=30)
            video.height, video.width = pictures[0][1].shape[:2]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            video.bit_rate = 2_000_000
        if video is not None and pictures is not None:
            for time, pixels in pictures:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        for stream in audio or []:
            assert sound is not None
            channels = stream.codec_context.layout.nb_channels
            size = stream.codec_context.frame_size or 1024
            resampler = av.AudioResampler(
                format=stream.codec_context.format, layout=layout, rate=stream.codec_context.sample_rate
            )
            for start in range(0, len(sound), size):
                block = sound[start : start + size]
                frame = av.AudioFrame.from_ndarray(np.tile(block, (channels, 1)), "fltp", layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(audio_start * rate)
                for part in resampler.resample(frame):
                    container.mux(stream.encode(part))
            container.mux(stream.encode())
    return file


def rotate(file: Path, clockwise: bool = True) -> Path:
    """Turn an mp4 video by 90°, as phones do: in the matrix of its first track's header."""
    content = bytearray(file.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    one, minus = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    turned = [zero, one, zero, minus, zero, zero] if clockwise else [zero, minus, zero, one, zero, zero]
    content[at : at + 24] = b"".join(turned)
    file.write_bytes(content)
    return file
