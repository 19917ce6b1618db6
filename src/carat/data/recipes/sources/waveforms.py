"""Sound of media files as waveforms, for an encoder that learns along (extra `media`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store.manifest import Waveform
from carat.utils.errors import DataError


class WaveformSource:
    """The first sound track of files that a column names, mono, in [-1, 1].

    Args:
        folder: where the files are.
        rate: samples per second to convert to.
        seconds: longer ones are cut.

    Raises:
        DataError: no such folder, or the extra is not installed.
    """

    tokens = None

    def __init__(self, folder: Path, rate: int, seconds: float) -> None:
        try:
            import av
        except ImportError as error:
            raise DataError("source 'waveform' needs the extra: pip install 'carat[media]'") from error
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        self._av, self._folder, self._longest = av, folder, round(rate * seconds)
        self.waveform = Waveform(rate=rate)
        self.id = f"waveform:{rate}"
        self._cut = 0

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """(samples, 1) float32 for each file; None where the key is empty or the file has no sound."""
        return [self._decode(self._folder / key) if key else None for key in keys]

    def report(self) -> list[str]:
        """Where sounds are cut."""
        seconds = self._longest / self.waveform.rate
        return [f"{self._cut} sounds cut at {seconds:g} s"]

    def _decode(self, file: Path) -> NDArray[np.float32] | None:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        parts: list[NDArray[np.float32]] = []
        try:
            with self._av.open(str(file)) as opened:
                if not opened.streams.audio:
                    return None
                resampler = self._av.AudioResampler(format="flt", layout="mono", rate=self.waveform.rate)
                for frame in opened.decode(audio=0):
                    parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
                parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise DataError(f"{file}: its sound cannot be read ({error})") from error
        samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
        self._cut += len(samples) > self._longest
        return samples[: self._longest, None].astype(np.float32)
