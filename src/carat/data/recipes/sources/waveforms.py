"""Waveforms of media files, for encoders that are fine-tuned jointly (extra `media`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store.manifest import Waveform
from carat.features.media import MAX_RATE, Media, require_av
from carat.utils.errors import DataError

MAX_SECONDS = 24 * 3600


class WaveformSource:
    """Decode the sound of media files, mixed to mono, see `Media.audio`.

    Args:
        folder: folder of the files.
        rate: sampling rate in Hz to which audio is resampled.
        seconds: duration to which audio is truncated.

    Raises:
        DataError: the folder does not exist, the limits are exceeded, or the extra is not installed.
    """

    tokens = None

    def __init__(self, folder: Path, rate: int, seconds: float) -> None:
        require_av()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        if not 0 < rate <= MAX_RATE or not 0 < seconds <= MAX_SECONDS:
            raise DataError(
                f"source 'waveform': rate {rate} Hz and {seconds:g} seconds; expected at most {MAX_RATE} Hz "
                f"and {MAX_SECONDS} seconds"
            )
        self._folder, self._max_length = folder, round(rate * seconds)
        self.waveform = Waveform(rate=rate)
        self.id = f"waveform:{rate}"
        self._truncated = 0

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Decode files to waveforms (T, 1); None if a key is empty or a file has no sound.

        Raises:
            DataError: a file is missing or cannot be decoded.
        """
        return [self._decode(self._folder / key) if key else None for key in keys]

    def report(self) -> list[str]:
        """Count truncated waveforms."""
        seconds = self._max_length / self.waveform.rate
        return [f"{self._truncated} sounds cut at {seconds:g} s"]

    def _decode(self, file: Path) -> NDArray[np.float32] | None:
        with Media(file) as media:
            if media.info.audio is None:
                return None
            parts: list[NDArray[np.float32]] = []
            length = 0
            for block in media.audio(self.waveform.rate):
                parts.append(block)
                length += len(block)
                if length > self._max_length:
                    break
        samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
        self._truncated += length > self._max_length
        return samples[: self._max_length, None]
