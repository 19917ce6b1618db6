"""Silent and clipped sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.features.level import LevelExtractor, describe_level
from carat.features.media import Media
from tests.features.files import tone, write_media


def levels_of(file: Path, sound: np.ndarray) -> tuple[list[str], int]:
    codec = "pcm_s16le" if file.suffix == ".wav" else "aac"
    write_media(file, sound=sound.astype(np.float32), audio_codec=codec)
    with Media(file) as media:
        levels = LevelExtractor().extract(media)
    assert levels is not None
    return describe_level(levels), len(levels.values)


@pytest.mark.parametrize("ending", [".wav", ".mp4"])
def test_silent_and_clipped_sound_are_described(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    sound = tone(2.0, 16_000, 220.0)
    sound /= np.abs(sound).max()
    assert levels_of(tmp_path / f"fine{ending}", 0.5 * sound)[0] == []
    assert levels_of(tmp_path / f"loud{ending}", 0.9 * sound)[0] == []
    (silent,), steps = levels_of(tmp_path / f"silent{ending}", np.zeros(32_000))
    assert silent == "the sound is silent (-120 dB)"
    assert 4 <= steps <= 5
    (quiet,), _ = levels_of(tmp_path / f"quiet{ending}", 5e-4 * sound)
    assert quiet in {"the sound is silent (-69 dB)", "the sound is silent (-70 dB)"}
    (clipped,), _ = levels_of(tmp_path / f"clipped{ending}", np.clip(4 * sound, -1, 1))
    assert clipped.startswith("the sound is clipped (")


def test_pictures_alone_have_no_level(tmp_path: Path) -> None:
    pytest.importorskip("av")
    picture = np.zeros((32, 32, 3), np.uint8)
    write_media(tmp_path / "a.mp4", pictures=[(i / 10, picture) for i in range(10)])
    with Media(tmp_path / "a.mp4") as media:
        assert LevelExtractor().extract(media) is None
    assert describe_level(None) == []
