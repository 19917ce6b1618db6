"""Waveforms of media files, for encoders that are fine-tuned jointly (extra `media`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store.manifest import Waveform
from carat.utils.errors import DataError

MAX_RATE, MAX_SECONDS = 768_000, 24 * 3600
"""Limits of what is decoded."""
END: Any = object()


class WaveformSource:
    """Decode the first audio track of media files, downmixed to mono, in [-1, 1].

    Args:
        folder: folder of the files.
        rate: sampling rate in Hz to which audio is resampled.
        seconds: duration to which audio is truncated.

    Raises:
        DataError: the folder does not exist, the limits are exceeded, or the extra is not installed.
    """

    tokens = None

    def __init__(self, folder: Path, rate: int, seconds: float) -> None:
        try:
            import av
        except ImportError as error:
            raise DataError(
                "source 'waveform' needs the extra: pip install 'carat-emotion[media]'"
            ) from error
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        if not 0 < rate <= MAX_RATE or not 0 < seconds <= MAX_SECONDS:
            raise DataError(
                f"source 'waveform': rate {rate} Hz and {seconds:g} seconds; expected at most {MAX_RATE} Hz "
                f"and {MAX_SECONDS} seconds"
            )
        self._av, self._folder, self._max_length = av, folder, round(rate * seconds)
        self.waveform = Waveform(rate=rate)
        self.id = f"waveform:{rate}"
        self._truncated = 0

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Decode files to float32 waveforms (T, 1); None for empty names and files without audio.

        Raises:
            DataError: a file is missing or cannot be decoded.
        """
        return [self._decode(self._folder / key) if key else None for key in keys]

    def report(self) -> list[str]:
        """Count truncated waveforms."""
        seconds = self._max_length / self.waveform.rate
        return [f"{self._truncated} sounds cut at {seconds:g} s"]

    def _decode(self, file: Path) -> NDArray[np.float32] | None:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        parts: list[NDArray[np.float32]] = []
        length = 0
        try:
            with self._av.open(str(file)) as container:
                if not container.streams.audio:
                    return None
                resampler = self._av.AudioResampler(format="flt", layout="mono", rate=self.waveform.rate)
                frames = chain(container.decode(audio=0), [None])  # None for what the resampler still holds
                while length <= self._max_length and (frame := next(frames, END)) is not END:
                    new = [part.to_ndarray()[0] for part in resampler.resample(frame)]
                    parts += new
                    length += sum(map(len, new))
        except (
            self._av.FFmpegError,
            ValueError,
            OSError,
            LookupError,
            ArithmeticError,
            MemoryError,
        ) as error:
            raise DataError(f"{file}: audio track cannot be decoded ({error})") from error
        samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
        self._truncated += len(samples) > self._max_length
        return samples[: self._max_length, None].astype(np.float32)
