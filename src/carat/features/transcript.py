"""Words and their times by faster-whisper from a local folder (extra `clip`); nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.features.description import TranscriptSettings
from carat.features.media import Media
from carat.features.models import MODELS, find_model, hash_folder
from carat.features.speech import Segment, SpeechDetector
from carat.features.windows import cut
from carat.features.words import Word
from carat.utils.errors import DataError, shorten

SAMPLE_RATE = 16_000
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


class Transcriber:
    """Recognizes the words of a file; one instance serves many files.

    Args:
        settings: parameters.

    Raises:
        DataError: faster-whisper or the model is not installed, or the model cannot be read.
    """

    def __init__(self, settings: TranscriptSettings) -> None:
        model = find_whisper(settings.model)
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DataError("transcripts need the extra: pip install 'carat-emotion[clip]'") from error
        self._settings = settings
        self._speech = SpeechDetector(settings.speech)
        try:
            self._model: Any = WhisperModel(
                str(model.folder),
                device="cpu",
                compute_type=settings.compute_type,
                cpu_threads=1,  # files are transcribed side by side, and sums do not depend on the machine
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{model.folder}: cannot be read ({shorten(str(error), 120)})") from error

    def words(self, media: Media, segments: Sequence[Segment] | None = None) -> list[Word]:
        """Words of a file, sorted by time; none if nobody speaks.

        Args:
            media: file.
            segments: speech segments, found if None.
        """
        if media.info.audio is None:
            return []
        segments = self._speech.segments(media) if segments is None else segments
        spans = pack(segments, self._settings.speech.max_seconds)
        words: list[Word] = []
        for start, samples in cut(media.audio(SAMPLE_RATE), SAMPLE_RATE, spans):
            recognized, _ = self._model.transcribe(
                samples,
                language=self._settings.language,
                beam_size=self._settings.beam_size,
                word_timestamps=True,
                condition_on_previous_text=False,
            )
            limit = start + len(samples) / SAMPLE_RATE
            words += [
                Word(
                    word.word.strip(),
                    round(min(start + float(word.start), limit), 3),
                    round(min(start + float(word.end), limit), 3),
                    confidence=float(word.probability),
                )
                for part in recognized
                for word in part.words or []
                if word.word.strip()
            ]
        return words


def pack(segments: Sequence[Segment], seconds: float) -> list[tuple[float, float]]:
    """Join neighboring segments to spans of at most `seconds`, since Whisper reads 30 s at once anyway.

    >>> pack([Segment(0, 2), Segment(3, 9), Segment(20, 31)], 28)
    [(0, 9), (20, 31)]
    """
    spans: list[tuple[float, float]] = []
    for segment in segments:
        if spans and segment.end - spans[-1][0] <= seconds:
            spans[-1] = (spans[-1][0], segment.end)
        else:
            spans.append((segment.start, segment.end))
    return spans
