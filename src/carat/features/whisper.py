"""States of Whisper's encoder as features of voice and words (extra `clip`), and how its models are found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from carat.features.description import WhisperSettings
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.models import MODELS, find_model, hash_folder
from carat.utils.errors import DataError, shorten

SAMPLE_RATE = 16_000
WINDOW = 30
"""Seconds that Whisper reads at once, and on which it was trained."""
RATE = 50
"""States per second."""
NEEDED = ("model.bin", "config.json", "tokenizer.json")
"""Files of a model; without tokenizer.json, faster-whisper would download one."""


@dataclass(frozen=True)
class WhisperFolder:
    """A local Whisper model in CTranslate2's format."""

    folder: Path
    sha256: str


def find_whisper(name: str) -> WhisperFolder:
    """Find a speech recognition model by name or folder, and hash it.

    Raises:
        DataError: not found, or a file is missing.
    """
    if name in MODELS:
        found = find_model(name)
        return WhisperFolder(found.folder, found.model.sha256)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        known = ", ".join(model for model in MODELS if model.startswith("whisper"))
        raise DataError(f"{name}: no such folder and no known speech model ({known})")
    if missing := [file for file in NEEDED if not (folder / file).is_file()]:
        raise DataError(f"{folder}: is no Whisper model in CTranslate2's format: {missing[0]} is missing")
    return WhisperFolder(folder, hash_folder(folder))


def open_whisper(name: str, compute_type: Literal["int8", "float32"]) -> Any:
    """Load a local Whisper model with faster-whisper, on one core.

    Files are processed side by side, and with one thread sums do not depend on the machine's number of cores.

    Raises:
        DataError: faster-whisper or the model is not installed, or the model cannot be read.
    """
    model = find_whisper(name)
    try:
        from carat.features.recognizer import recognizer_class

        recognizer = recognizer_class()
    except ImportError as error:
        raise DataError("Whisper needs the extra: pip install 'carat-emotion[clip]'") from error
    try:
        return recognizer(
            str(model.folder), device="cpu", compute_type=compute_type, cpu_threads=1, local_files_only=True
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{model.folder}: cannot be read ({shorten(str(error), 120)})") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Multiply matrices with one thread inside the block (context manager).

    faster-whisper's log-mel energies are a matrix product of NumPy, whose last bits depend on the number of
    threads: a worker of a pool would get other features than a process that has the machine for itself.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


class WhisperExtractor:
    """States of the encoder, such as 384 numbers of the tiny model, averaged over each time step.

    Whisper reads pieces of 30 s; what is said in one has no influence on the next.

    Args:
        settings: parameters.

    Raises:
        DataError: see `open_whisper`.
    """

    def __init__(self, settings: WhisperSettings) -> None:
        self._model = open_whisper(settings.model, settings.compute_type)
        self._factor = RATE // settings.rate
        self.rate = float(settings.rate)
        self._width = self._states(np.zeros(SAMPLE_RATE, np.float32)).shape[1]
        self.names = tuple(f"whisper_{i}" for i in range(self._width))

    def extract(self, media: Media) -> FeatureSequence | None:
        """States of the whole sound; None if there is none. Times are the middles of the steps."""
        if media.info.audio is None:
            return None
        parts = [self._states(block) for block in media.audio(SAMPLE_RATE, WINDOW * SAMPLE_RATE)]
        values = np.concatenate([np.zeros((0, self._width), np.float32), *parts])
        times = (np.arange(len(values), dtype=np.float64) + 0.5) / self.rate
        return FeatureSequence(values, times, self.rate, len(values))

    def _states(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """States (T, D) of up to 30 s of samples."""
        padded = np.zeros(WINDOW * SAMPLE_RATE, np.float32)
        padded[: len(samples)] = samples
        extractor = self._model.feature_extractor
        with one_thread():
            mel = extractor(padded, padding=0)[:, : extractor.nb_max_frames]
            states = np.asarray(self._model.encode(mel))[0]
        steps = len(samples) * RATE // SAMPLE_RATE // self._factor
        grouped = states[: steps * self._factor].reshape(steps, self._factor, states.shape[1])
        return np.asarray(grouped.mean(1), np.float32)
