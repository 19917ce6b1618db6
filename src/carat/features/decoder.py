"""The process that decodes a media file for `carat.features.media`.

It reads requests from standard input, one JSON object per line, and answers on standard output with messages:
a JSON object on one line, whose key `bytes` is the length of the content that follows.
"""

from __future__ import annotations

import json
import math
import os
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from carat.features.decoding import MAX_DAMAGE, MAX_SECONDS, Decoding, IsWanted, MediaError, shown_frames
from carat.utils.limits import limit_resources

CPU_SECONDS = 60
"""CPU time allowed for an empty file."""
BYTES_PER_SECOND = 1 << 16
"""Minimum speed of decoding, which extends the CPU time."""
MEMORY = 3 << 30
"""Address space in bytes; decoders of 8K video need about half."""
FORMATS = (
    "3dostr,aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,mpegvideo,h264,hevc,nut,ogg,opus,tta,w64,wav,wv"
)
"""Containers that are decoded; others, such as playlists, refer to further files or to the network."""
MAX_GAP = Fraction(1, 10)
"""Seconds that may be missing between two pieces of sound without silence being put between them."""
MAX_SILENCE = 3600
"""Seconds that may be missing at all."""
MAX_LOST = Fraction(1, 5)
"""Fraction of the sound that may be missing in gaps of more than a second."""
UNKNOWN_SIZE = 0x7FFF0000
"""Size in a WAV header from which it only means that the recorder did not know it."""
BLOCK = 1 << 16
"""Samples per message."""
SEEK_FROM = 10
"""Seconds between two wanted pictures from which the file is searched for the second one."""


def main() -> None:
    """Answer requests about one file until standard input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    first = json.loads(sys.stdin.readline())
    file = first["file"]
    seconds = first["cpu_seconds"] + Path(file).stat().st_size / BYTES_PER_SECOND
    import av

    av.logging.set_level(None)
    limit_resources(seconds, first["memory"])
    for line in sys.stdin:
        try:
            _answer(file, json.loads(line), output)
        except BrokenPipeError:
            return
        except MediaError as error:
            _send(output, {"kind": "error", "message": str(error)})
        except MemoryError:
            _send(output, {"kind": "error", "message": "cannot be decoded (needs too much memory)"})
        except (av.FFmpegError, ValueError, OSError, LookupError, ArithmeticError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            _send(output, {"kind": "error", "message": f"cannot be decoded ({reason})"})


def _check_wav(file: str) -> None:
    """Compare the size of a WAV file with its header, which FFmpeg does not.

    Raises:
        MediaError: the file is shorter.
    """
    with Path(file).open("rb") as opened:
        head = opened.read(1 << 16)
    at = head.find(b"data", 12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE" or at < 0:
        return
    declared, present = int.from_bytes(head[at + 4 : at + 8], "little"), Path(file).stat().st_size - at - 8
    if declared < UNKNOWN_SIZE and present < declared * (1 - MAX_DAMAGE):
        raise MediaError(f"has {present} of {declared} bytes of sound: the file is truncated")


def _answer(file: str, request: dict[str, Any], output: BinaryIO) -> None:
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    with av.open("file:" + file, container_options=options, metadata_errors="replace") as container:
        if request["do"] == "probe":
            _check_wav(file)
            _send(output, {"kind": "end", **_probe(container)})
        elif request["do"] == "audio":
            _audio(container, request["rate"], output)
        elif request["wanted"] is None:
            _video(container, Fraction(request["rate"]), request["size"], output)
        else:
            _some_pictures(container, Fraction(request["rate"]), request["size"], request["wanted"], output)


def _send(output: BinaryIO, header: dict[str, Any], content: bytes | memoryview = b"") -> None:
    output.write(json.dumps({**header, "bytes": len(content)}).encode() + b"\n")
    output.write(content)
    output.flush()


def _streams(container: Any) -> tuple[Any, Any]:
    """The audio and the video stream that are decoded: FFmpeg's choice among those with a known codec."""
    chosen: list[Any] = []
    for kind, streams in (("audio", container.streams.audio), ("video", container.streams.video)):
        usable = [stream for stream in streams if _is_usable(stream)]
        best = container.streams.best(kind) if usable else None
        chosen.append(best if best in usable else usable[0] if usable else None)
    return chosen[0], chosen[1]


def _is_usable(stream: Any) -> bool:
    """Whether a stream has a decoder and is no cover picture."""
    from av.stream import Disposition

    context = stream.codec_context
    if context is None or stream.disposition & Disposition.attached_pic:
        return False
    if stream.type == "audio":
        return bool(context.sample_rate)
    return bool(context.width and context.height)


def _probe(container: Any) -> dict[str, Any]:
    audio, video = _streams(container)
    return {
        "format": container.format.name,
        "duration": container.duration / 1_000_000 if container.duration and container.duration > 0 else None,
        "audio": audio
        and {
            "codec": audio.codec_context.name,
            "rate": audio.codec_context.sample_rate,
            "channels": audio.codec_context.layout.nb_channels,
        },
        "video": video
        and {
            "codec": video.codec_context.name,
            "width": video.codec_context.width,
            "height": video.codec_context.height,
            "rate": float(video.average_rate) if video.average_rate else None,
        },
    }


def _decode(container: Any, kind: str, is_wanted: IsWanted | None = None) -> Decoding:
    audio, video = _streams(container)
    stream, other = (audio, video) if kind == "audio" else (video, audio)
    if stream is None:
        raise MediaError(f"has no {'sound' if kind == 'audio' else 'pictures'}")
    return Decoding(container, stream, [other] if other is not None else [], is_wanted)


def _audio(container: Any, rate: int, output: BinaryIO) -> None:
    """Send mono sound as float32, with silence where the file has gaps."""
    held: list[bytes] = []
    length = total = 0
    for part in _resampled(_decode(container, "audio"), rate):
        held.append(part)
        length += len(part) // 4
        total += len(part) // 4
        if total > MAX_SECONDS * rate:
            raise MediaError(f"has more than {MAX_SECONDS // 3600} hours of sound")
        if length >= BLOCK:
            _send(output, {"kind": "samples"}, b"".join(held))
            held, length = [], 0
    _send(output, {"kind": "samples"}, b"".join(held))
    _send(output, {"kind": "end"})


def _resampled(frames: Decoding, rate: int) -> Iterator[bytes]:
    resampler = None
    expected = lost = Fraction(0)
    for time, frame in frames:
        late = Fraction(0) if time is None else time - expected
        if late > (MAX_GAP if resampler is not None else 0):
            if late > MAX_SILENCE:
                raise MediaError(f"has a gap of {float(late):.0f} s in its sound")
            if resampler is not None:
                lost += late if late > 1 else 0
                yield from resampler.feed(None)
                resampler = None
            missing = round(late * rate)
            for start in range(0, missing, BLOCK):
                yield bytes(4 * min(BLOCK, missing - start))
            expected += late
        if resampler is None or not resampler.fits(frame):  # some files change in between
            if resampler is not None:
                yield from resampler.feed(None)
            resampler = _Resampler(frame, rate)
        expected += Fraction(frame.samples, frame.sample_rate)
        yield from resampler.feed(frame)
    if lost > MAX_LOST * expected:
        raise MediaError(f"is damaged: {float(lost):.1f} of {float(expected):.1f} s of sound are missing")
    if resampler is not None:
        yield from resampler.feed(None)


class _Resampler:
    """Resamples frames to mono float32; channels are averaged so that the sum of their weights is one.

    PyAV's own one does not normalize the weights of floating-point channels: stereo would come out louder by
    3 dB from AAC than from 16-bit samples.
    """

    def __init__(self, frame: Any, rate: int) -> None:
        import av.filter

        self._layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        self._graph = av.filter.Graph()
        self._graph.link_nodes(
            self._graph.add_abuffer(
                format=frame.format.name,
                layout=frame.layout.name,
                sample_rate=frame.sample_rate,
                time_base=Fraction(1, frame.sample_rate),
            ),
            self._graph.add("aresample", f"{rate}:rematrix_maxval=1.0:out_chlayout=mono:out_sample_fmt=flt"),
            self._graph.add("aformat", f"sample_fmts=flt:channel_layouts=mono:sample_rates={rate}"),
            self._graph.add("abuffersink"),
        ).configure()

    def fits(self, frame: Any) -> bool:
        """Whether a frame has the format that the first one had."""
        return bool(self._layout == (frame.format.name, frame.layout.name, frame.sample_rate))

    def feed(self, frame: Any) -> Iterator[bytes]:
        """Resample a frame, or what is left if None."""
        import av

        if frame is not None:
            frame.pts = None  # gaps were filled
        self._graph.push(frame)
        while True:
            try:
                resampled = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield bytes(memoryview(resampled.planes[0])[: 4 * resampled.samples])


def _video(container: Any, rate: Fraction, size: int, output: BinaryIO) -> None:
    """Send the picture that is shown at every multiple of 1 / rate seconds, at most `size` pixels long.

    A picture that is shown at several of them is sent once.
    """
    decoding = _decode(container, "video", lambda start, end: math.ceil(start * rate) < end * rate)
    index = 0
    for frame, start, end in shown_frames(decoding):
        indices = range(max(index, math.ceil(start * rate)), math.ceil(end * rate))
        _send_pictures(frame, indices, decoding, size, output)
        index = max(index, indices.stop)
    _send(output, {"kind": "end"})


def _some_pictures(
    container: Any, rate: Fraction, size: int, wanted: Sequence[int], output: BinaryIO
) -> None:
    """Send the pictures that are shown at some multiples of 1 / rate seconds, and skip the others."""
    groups: list[list[int]] = []
    for index in sorted(set(wanted)):
        if groups and index - groups[-1][-1] <= SEEK_FROM * rate:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        decoding = _decode(container, "video", partial(_has_wanted, group, rate))
        decoding.seek(group[0] / rate)
        for frame, start, end in shown_frames(decoding):
            _send_pictures(frame, _within(group, start * rate, end * rate), decoding, size, output)
            if end * rate > group[-1]:
                break
    _send(output, {"kind": "end"})


def _has_wanted(indices: Sequence[int], rate: Fraction, start: Fraction, end: Fraction) -> bool:
    """Whether there is one of the sorted time steps from `start` to before `end`, in seconds."""
    return bool(_within(indices, start * rate, end * rate))


def _within(indices: Sequence[int], start: Fraction, end: Fraction) -> Sequence[int]:
    """The sorted numbers from `start` to before `end`."""
    return indices[bisect_left(indices, start) : bisect_left(indices, end)]


def _send_pictures(
    frame: Any, indices: Sequence[int], decoding: Decoding, size: int, output: BinaryIO
) -> None:
    """Send a picture once, with all time steps at which it is shown."""
    content: bytes | None = None
    aspect = decoding.stream.codec_context.sample_aspect_ratio or 1
    for index in indices:
        shape = _shape(frame, size, aspect)
        content = _pixels(frame, shape["width"], shape["height"]) if content is None else b""
        _send(output, {"kind": "picture", "index": index, **shape}, content)


def _shape(frame: Any, size: int, aspect: Fraction | int) -> dict[str, int]:
    """Width and height of the picture that is sent, and by how many degrees it is turned to the left."""
    width, height = frame.width * aspect, frame.height
    scale = min(1, Fraction(size) / max(width, height))
    return {
        "width": max(1, round(width * scale)),
        "height": max(1, round(height * scale)),
        "rotation": int(frame.rotation or 0),
    }


def _pixels(frame: Any, width: int, height: int) -> bytes:
    plane = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").planes[0]
    pixels = memoryview(plane)
    if plane.line_size == 3 * width:
        return bytes(pixels[: 3 * width * height])
    return b"".join(pixels[y * plane.line_size :][: 3 * width] for y in range(height))
