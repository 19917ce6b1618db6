"""The process that decodes a media file for `carat.features.media`.

It reads requests from standard input, one JSON object per line, and answers on standard output with messages:
a JSON object on one line, whose key `bytes` is the length of the content that follows.
"""

from __future__ import annotations

import json
import math
import os
import sys
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

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
SIZED = {"mov", "matroska", "avi", "wav", "w64", "flac", "asf", "caf", "aiff", "au", "nut"}
"""Containers whose header says how long they are."""
MAX_SECONDS = 24 * 3600
"""Limit of what is decoded."""
MAX_HOLD = 10
"""Seconds for which a picture is shown at most if none follows."""
MAX_GAP = Fraction(1, 10)
"""Seconds that may be missing between two pieces of sound without silence being put between them."""
MAX_SILENCE = 3600
"""Seconds that may be missing at all."""
MAX_LOST = Fraction(1, 5)
"""Fraction of the sound that may be missing in gaps of more than a second."""
MAX_DAMAGE = 0.05
"""Fraction of packets that may be damaged."""
UNKNOWN_SIZE = 0x7FFF0000
"""Size in a WAV header from which it only means that the recorder did not know it."""
BLOCK = 1 << 16
"""Samples per message."""
AHEAD = 32
"""Packets that are read ahead; codecs reorder at most 16 frames."""


class MediaError(Exception):
    """The file cannot be decoded; the message is shown to the user."""


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
        else:
            _video(container, Fraction(request["rate"]), request["size"], output)


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


class Decoding:
    """Decoded frames of one stream with their times in seconds from the start of the file.

    Args:
        container: opened file.
        stream: stream to decode.
        others: other streams, whose packets show where the file ends.
        rate: pictures per second that are wanted; frames that are not shown at multiples of 1 / rate may be left
            out, if no other frame depends on them.
    """

    def __init__(self, container: Any, stream: Any, others: list[Any], rate: Fraction | None = None) -> None:
        self._container, self.stream, self._others, self._rate = container, stream, others, rate
        self._start = Fraction(container.start_time or 0, 1_000_000)
        self._packets = self._damaged = self._frames = 0
        self._end = Fraction(0)

    def __iter__(self) -> Iterator[tuple[Fraction | None, Any]]:
        """Yield times and frames.

        Raises:
            MediaError: damaged, truncated, longer than the limit, or without any frame.
        """
        import av

        self.stream.codec_context.thread_count = 1
        for packet, is_needed in self._ahead():
            if self._rate is not None:
                self.stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            self._packets += 1
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._damaged += packet.size > 0
                continue
            for frame in frames:
                self._frames += 1
                time = None if frame.pts is None else frame.pts * frame.time_base - self._start
                if time is not None and time > MAX_SECONDS:
                    raise MediaError(f"has times beyond {MAX_SECONDS // 3600} hours")
                yield time, frame
        self._check()

    def _ahead(self) -> Iterator[tuple[Any, bool]]:
        """Packets of the stream, and whether their frames are needed, which later packets show."""
        held: deque[Any] = deque()
        times: list[int] = []
        for packet in self._container.demux([self.stream, *self._others]):
            self._note_end(packet)
            if packet.stream is not self.stream:
                continue
            held.append(packet)
            if packet.pts is not None:
                insort(times, packet.pts)
            if len(held) > AHEAD:
                first = held.popleft()
                yield first, self._is_needed(first, times)
                if len(times) > 4 * AHEAD:  # frames of before do not come anymore
                    del times[:AHEAD]
        for packet in held:
            yield packet, self._is_needed(packet, times)

    def _is_needed(self, packet: Any, times: list[int]) -> bool:
        """Whether the frame of a packet is shown at a multiple of 1 / rate, as far as is known."""
        after = bisect_right(times, packet.pts) if packet.pts is not None else len(times)
        if self._rate is None or after == len(times):
            return True
        start, end = (pts * packet.time_base - self._start for pts in (packet.pts, times[after]))
        return math.ceil(start * self._rate) < end * self._rate

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base - self._start
            self._end = max(self._end, end)

    def _check(self) -> None:
        kind = {"audio": "sound", "video": "pictures"}[self.stream.type]
        if not self._frames:
            raise MediaError(f"has no {kind} that can be decoded: the file is damaged or truncated")
        if self._damaged > max(2, MAX_DAMAGE * self._packets):
            raise MediaError(f"is damaged: {self._damaged} of {self._packets} packets of {kind} are invalid")
        duration = Fraction(self._container.duration or 0, 1_000_000)
        sized = SIZED & set(self._container.format.name.split(","))
        tolerance = duration / 20 if duration > 20 else Fraction(1)
        if sized and self._end < duration - tolerance:
            raise MediaError(
                f"ends at {float(self._end):.1f} s, but its header says {float(duration):.1f} s: "
                "the file is truncated"
            )


def _decode(container: Any, kind: str, rate: Fraction | None = None) -> Decoding:
    audio, video = _streams(container)
    stream, other = (audio, video) if kind == "audio" else (video, audio)
    if stream is None:
        raise MediaError(f"has no {'sound' if kind == 'audio' else 'pictures'}")
    return Decoding(container, stream, [other] if other is not None else [], rate)


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
    index = 0
    decoding = _decode(container, "video", rate)
    aspect = decoding.stream.codec_context.sample_aspect_ratio or 1
    for frame, start, end in _shown(decoding):
        content: bytes | None = None
        index = max(index, math.ceil(start * rate))
        while index < end * rate:
            shape = _shape(frame, size, aspect)
            content = _pixels(frame, shape["width"], shape["height"]) if content is None else b""
            _send(output, {"kind": "picture", "index": index, **shape}, content)
            index += 1
    _send(output, {"kind": "end"})


def _shown(decoding: Decoding) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """Frames with the times from which and until which each is shown; frames out of order are left out."""
    usual = 1 / Fraction(decoding.stream.average_rate or 25)
    shown, since = None, Fraction(0)
    for time, frame in decoding:
        time = since + usual if time is None else time
        if shown is not None:
            if time <= since:
                continue
            yield shown, since, min(time, since + MAX_HOLD)
        shown, since = frame, time
    if shown is not None:
        duration = Fraction(shown.duration or 0) * Fraction(shown.time_base or 0) or usual
        yield shown, since, since + (duration if duration < MAX_HOLD else MAX_HOLD)


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
