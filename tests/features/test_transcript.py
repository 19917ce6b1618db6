"""Speech recognition: its models, and files in which nobody speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.features.description import TranscriptSettings, WhisperSettings, describe
from carat.features.extractor import open_extractor
from carat.features.media import Media
from carat.features.transcript import Transcriber
from carat.features.whisper import NEEDED, find_whisper
from carat.utils.errors import DataError
from tests.features.files import flat, tone, write_media


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder and no known speech model \(whisper-tiny\.en\)"):
        find_whisper(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match=r"no Whisper model in CTranslate2's format: model\.bin is missing"):
        find_whisper(str(tmp_path))


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    """faster-whisper would download one."""
    for name in NEEDED[:2]:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"tokenizer\.json is missing"):
        find_whisper(str(tmp_path))


def test_the_hash_of_a_folder_depends_on_its_content(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).write_bytes(b"x")
    first = find_whisper(str(tmp_path)).sha256
    assert find_whisper(str(tmp_path)).sha256 == first
    (tmp_path / NEEDED[2]).write_bytes(b"yy")
    assert find_whisper(str(tmp_path)).sha256 != first


def test_a_damaged_model(tmp_path: Path, transcriber: Transcriber) -> None:
    known = find_whisper("whisper-tiny.en").folder
    for name in NEEDED:
        (tmp_path / name).write_bytes((known / name).read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read"):
        Transcriber(TranscriptSettings(model=str(tmp_path)))


def test_models_are_part_of_the_description(transcriber: Transcriber) -> None:
    assert set(describe(TranscriptSettings()).models) == {"silero-vad", "whisper-tiny.en"}


def test_nobody_speaks(tmp_path: Path, transcriber: Transcriber) -> None:
    noise = (0.01 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)
    with Media(write_media(tmp_path / "a.wav", sound=noise, audio_codec="pcm_s16le")) as media:
        assert transcriber.words(media) == []
    with Media(
        write_media(tmp_path / "a.mp4", pictures=[(0, flat((9, 9, 9))), (1, flat((9, 9, 9)))])
    ) as media:
        assert transcriber.words(media) == []


@pytest.mark.parametrize("rate", [10, 50])
def test_states_of_the_encoder(tmp_path: Path, transcriber: Transcriber, rate: int) -> None:
    """Two windows of 30 s; the second one does not depend on the first."""
    extractor = open_extractor(describe(WhisperSettings(rate=rate)))  # type: ignore[arg-type]
    sound = np.concatenate([tone(30, 16_000, 330), tone(1.25, 16_000)])
    results = []
    for name, part in (("both", sound), ("second", sound[30 * 16_000 :])):
        with Media(write_media(tmp_path / f"{name}.wav", sound=part, audio_codec="pcm_s16le")) as media:
            results.append(extractor.extract(media))
    both, second = results
    assert both is not None
    assert second is not None
    assert both.values.shape == (int(31.25 * rate), 384)
    assert both.times[-1] == pytest.approx((len(both.times) - 0.5) / rate)
    assert (both.values[30 * rate :] == second.values).all()
    assert both.values[:rate].std() > 0.1
