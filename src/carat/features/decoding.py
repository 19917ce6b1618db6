"""Decoded frames of a stream of a media file, with their times."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import floor
from typing import Any

SIZED = {"mov", "matroska", "avi", "wav", "w64", "flac", "asf", "caf", "aiff", "au", "nut"}
"""Containers whose header says how long they are."""
MAX_SECONDS = 24 * 3600
"""Limit of what is decoded."""
MAX_HOLD = 10
"""Seconds for which a picture is shown at most if none follows."""
MAX_DAMAGE = 0.05
"""Fraction of packets that may be damaged."""
AHEAD = 32
"""Packets that are read ahead; codecs reorder at most 16 frames."""


class MediaError(Exception):
    """The file cannot be decoded; the message is shown to the user."""


IsWanted = Callable[[Fraction, Fraction], bool]


class Decoding:
    """Decoded frames of one stream with their times in seconds from the start of the file.

    Args:
        container: opened file.
        stream: stream to decode.
        others: other streams, whose packets show where the file ends.
        is_wanted: whether something is wanted of what is shown between two times; other frames may be left
            out, if no frame depends on them.
    """

    def __init__(
        self, container: Any, stream: Any, others: list[Any], is_wanted: IsWanted | None = None
    ) -> None:
        self._container, self.stream, self._others, self._is_wanted = container, stream, others, is_wanted
        self._start = Fraction(container.start_time or 0, 1_000_000)
        self._sought = False
        self._packets = self._damaged = self._frames = 0
        self._end = Fraction(0)

    def __iter__(self) -> Iterator[tuple[Fraction | None, Any]]:
        """Yield times and frames.

        Raises:
            MediaError: damaged, truncated, longer than the limit, or without any frame.
        """
        import av

        if not self.stream.codec_context.is_open:
            self.stream.codec_context.thread_count = 1
        for packet, is_needed in self._ahead():
            if self._is_wanted is not None:
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
        if not self._sought:
            self._check()

    def seek(self, time: Fraction) -> None:
        """Start at the last key frame before a time; whether the file is complete is not checked then."""
        self._sought = True
        self._container.seek(floor((time + self._start) * 1_000_000))

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
        """Whether the frame of a packet is shown when something is wanted, as far as is known."""
        after = bisect_right(times, packet.pts) if packet.pts is not None else len(times)
        if self._is_wanted is None or after == len(times):
            return True
        start, end = (pts * packet.time_base - self._start for pts in (packet.pts, times[after]))
        return self._is_wanted(start, end)

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


def shown_frames(decoding: Decoding) -> Iterator[tuple[Any, Fraction, Fraction]]:
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
