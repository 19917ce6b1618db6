"""Descriptions of extraction: stable names, and what differs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from carat.features import description as description_module
from carat.features import extractor as extractor_module
from carat.features.description import (
    PACKAGES,
    VERSIONS,
    Description,
    FaceSettings,
    OpenSmileSettings,
    SpeechSettings,
    TranscriptSettings,
    VoiceSettings,
    WhisperSettings,
    describe,
)
from carat.features.extractor import open_extractor
from carat.utils.errors import DataError


def fixed(**settings: object) -> Description:
    """A description of a machine that does not exist."""
    return Description(
        settings=VoiceSettings(**settings),  # type: ignore[arg-type]
        version=1,
        packages={"av": "18.0.0", "kaldi-native-fbank": "1.23.0"},
        models={},
    )


def test_the_name_is_stable() -> None:
    assert fixed().id == "voice:2fbc05b6499e"


def test_everything_changes_the_name() -> None:
    one = fixed()
    others = [
        fixed(mel_bins=41),
        one.model_copy(update={"version": 2}),
        one.model_copy(update={"packages": {**one.packages, "av": "18.1.0"}}),
        one.model_copy(update={"models": {"m": "0"}}),
    ]
    assert len({one.id, *(other.id for other in others)}) == 5
    assert all(len(one.differences(other)) == 1 for other in others)
    assert one.differences(others[0]) == ["settings.mel_bins is 40 and 41"]
    assert one.differences(others[3]) == ["models.m is missing and 0"]


@pytest.mark.parametrize(
    "settings",
    [
        FaceSettings(rate=5),
        VoiceSettings(),
        OpenSmileSettings(),
        SpeechSettings(),
        TranscriptSettings(),
        WhisperSettings(),
    ],
)
def test_descriptions_survive_files(settings: object) -> None:
    name = settings.extractor  # type: ignore[attr-defined]
    one = Description(
        settings=settings,  # type: ignore[arg-type]
        version=1,
        packages=dict.fromkeys(PACKAGES[name], "1"),
        models={},
    )
    again = Description.model_validate_json(one.model_dump_json())
    assert again == one
    assert again.id == one.id
    assert one.id.startswith(f"{name}:")
    assert name in VERSIONS


def test_invalid_settings() -> None:
    with pytest.raises(ValidationError):
        VoiceSettings(rate=7)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="packages of 'voice' are av, kaldi-native-fbank"):
        Description(settings=VoiceSettings(), version=1, packages={"av": "1"}, models={})


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "voice", ("no-such-package",))
    with pytest.raises(
        DataError, match=r"'voice' needs no-such-package: pip install 'carat-emotion\[clip\]'"
    ):
        describe(VoiceSettings())
    monkeypatch.setitem(PACKAGES, "opensmile", ("no-such-package",))
    with pytest.raises(DataError, match=r"carat-emotion\[opensmile\]"):
        describe(OpenSmileSettings())


def test_another_version_is_said(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    pytest.importorskip("kaldi_native_fbank")
    installed = describe(VoiceSettings())
    open_extractor(installed)
    assert not logged
    older = installed.model_copy(update={"packages": {**installed.packages, "av": "1.0"}})
    open_extractor(older)
    assert logged == [
        f"features of 'voice' may differ: described and installed packages.av is 1.0 and "
        f"{installed.packages['av']}"
    ]
    with pytest.raises(DataError, match="cannot be made as described: version is 2 and 1"):
        open_extractor(installed.model_copy(update={"version": 2}))


def test_modules_are_imported_late() -> None:
    import subprocess
    import sys

    heavy = ["av", "mediapipe", "faster_whisper", "ctranslate2", "torch", "kaldi_native_fbank", "webvtt"]
    names = [module.__name__ for module in (description_module, extractor_module)]
    names += [
        f"carat.features.{name}" for name in ("face", "voice", "transcript", "transcript_files", "media")
    ]
    code = f"import sys, {', '.join(names)}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
