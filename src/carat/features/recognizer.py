"""faster-whisper's model with windows that are shorter than 30 s."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.features.whisper import WINDOW

FRAMES = 100
"""Log-mel frames per second."""


@cache
def recognizer_class() -> type[Any]:
    """Return the class of models, after importing faster-whisper.

    Raises:
        ImportError: it is not installed.
    """
    from faster_whisper import WhisperModel

    class Recognizer(WhisperModel):  # type: ignore[misc]  # has no types
        """A Whisper model whose encoder reads only the first seconds of a window.

        Whisper fills what it reads with silence up to 30 s, on which most of the time of a short clip is
        spent. Some seconds of silence are enough for the decoder to see that nothing more is said.
        """

        window: float = WINDOW
        """Seconds that are read."""

        def encode(self, features: NDArray[np.float32]) -> Any:
            """Encode log-mel energies (mels, T) of a window."""
            return super().encode(features[..., : round(self.window * FRAMES)])

    return Recognizer
