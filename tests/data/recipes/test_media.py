"""Recipes that extract features from media files: cached, in parts, and not stopped by a bad file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.config.experiment import load_experiment
from carat.data.recipes.build import build_store
from carat.data.recipes.sources import media as source_module
from carat.data.store import Store
from carat.features import extraction
from carat.features.cache import FeatureCache
from carat.features.description import Description, FaceSettings, VoiceSettings
from carat.features.extraction import FileTask
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.training.train import train
from carat.utils.errors import ConfigError, DataError
from carat.utils.parallel import local
from tests.conftest import serially
from tests.features.files import flat, tone, write_media

pytest.importorskip("av")
DESCRIPTION = Description(
    settings=VoiceSettings(),
    version=1,
    packages={"av": "1", "kaldi-native-fbank": "1"},
    models={},
)


class Loudness:
    """An extractor without models: two numbers for every tenth of a second."""

    names, rate = ("mean", "peak"), 10.0

    def extract(self, media: Media) -> FeatureSequence | None:
        if media.info.audio is None:
            return None
        samples = np.concatenate(list(media.audio(16_000)))
        steps = len(samples) // 1600
        frames = np.abs(samples[: steps * 1600].reshape(steps, 1600))
        values = np.stack([frames.mean(1), frames.max(1)], 1).astype(np.float32) + 1
        return FeatureSequence(values, np.arange(steps) / 10, 10.0, steps)


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FileTask]:
    """Use the extractor above, in this process; returns the tasks that were performed."""
    tasks: list[FileTask] = []
    monkeypatch.setenv("CARAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source_module, "describe", lambda settings: DESCRIPTION)
    monkeypatch.setattr(extraction, "open_extractor", lambda description: Loudness())
    monkeypatch.setattr(local, "run_tasks", serially(tasks))
    return tasks


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A table of eight clips, and their files."""
    lines = ["clip,fold,start,end,joy"]
    for i in range(8):
        write_media(tmp_path / f"c{i}.wav", sound=tone(1.0, 16_000, 100.0 + 50 * i), audio_codec="pcm_s16le")
        lines.append(f"c{i}.wav,{('train', 'train', 'valid', 'test')[i % 4]},0.2,0.7,{i % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path


def build(folder: Path, **modality: Any) -> Store:
    recipe = {
        "name": "clips",
        "table": "table.csv",
        "id": "clip",
        "split": "fold",
        "labels": {"columns": ["joy"]},
        "modalities": {"voice": {"source": "voice", "folder": ".", "column": "clip", **modality}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return build_store(folder / "recipe.yaml", folder / "store", overwrite=True)


def test_features_are_extracted_once_and_described(clips: Path, extracted: list[FileTask]) -> None:
    store = build(clips, standardise=True)
    assert len(extracted) == 8
    assert store.features("voice", 0).shape == (10, 2)
    info = store.manifest.modalities["voice"]
    assert info.source == DESCRIPTION.id
    assert info.extraction == DESCRIPTION
    assert info.cleaning[0] == "80 of 80 steps of 8 clips have features"
    again = build(clips, standardise=True)
    assert len(extracted) == 8
    assert again.manifest.fingerprint == store.manifest.fingerprint
    run = train(load_experiment(overrides={"method": {"name": "prior"}}), store, clips / "run")
    assert run.card.modalities["voice"].extraction == DESCRIPTION


def test_a_changed_file_is_extracted_again(clips: Path, extracted: list[FileTask]) -> None:
    first = np.array(build(clips).features("voice", 0))
    write_media(clips / "c0.wav", sound=tone(1.0, 16_000) / 4, audio_codec="pcm_s16le")
    second = np.array(build(clips).features("voice", 0))
    assert [task.file.name for task in extracted] == [*(f"c{i}.wav" for i in range(8)), "c0.wav"]
    assert not np.allclose(first, second)


def test_parts_of_files(clips: Path, extracted: list[FileTask]) -> None:
    whole = np.array(build(clips).features("voice", 0))
    part = np.array(build(clips, start="start", end="end").features("voice", 0))
    np.testing.assert_array_equal(part, whole[2:7])
    assert len(extracted) == 8
    with pytest.raises(ConfigError, match="start and end belong together"):
        build(clips, start="start")
    with pytest.raises(DataError, match=r"data row 1 runs from 0.7 to 0.2 s"):
        build(clips, start="end", end="start")


def test_a_bad_file_does_not_stop_the_others(clips: Path, extracted: list[FileTask]) -> None:
    (clips / "c2.wav").write_bytes(b"no sound at all" * 100)
    (clips / "c5.wav").unlink()
    write_media(clips / "c7.mp4", pictures=[(i / 10, flat((9, 9, 9))) for i in range(10)])
    (clips / "table.csv").write_text((clips / "table.csv").read_text().replace("c7.wav", "c7.mp4"))
    store = build(clips)
    assert len(store) == 5
    cleaning = store.manifest.modalities["voice"].cleaning
    assert cleaning[0] == "50 of 50 steps of 5 clips have features"
    assert cleaning[1].startswith("2 files could not be read: c5.wav: no such file; c2.wav: ")
    assert store.manifest.notes[-1].startswith("3 rows without any modality excluded, first data row 3")


def test_a_damaged_cache_is_renewed(clips: Path, extracted: list[FileTask]) -> None:
    fingerprint = build(clips).manifest.fingerprint
    for file in (clips / "cache").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert build(clips).manifest.fingerprint == fingerprint
    assert len(extracted) == 16


def test_features_in_the_cache_are_bit_equal(clips: Path, extracted: list[FileTask]) -> None:
    cache = FeatureCache(DESCRIPTION)
    now = cache.extract(Loudness(), clips / "c0.wav")
    later = cache.read(clips / "c0.wav")
    assert now is not None
    assert later is not None
    np.testing.assert_array_equal(now.values, later.values)
    np.testing.assert_array_equal(now.times, later.times)
    assert (now.rate, now.steps) == (later.rate, later.steps)
    with pytest.raises(KeyError):
        cache.read(clips / "c1.wav")


class Brightness(Loudness):
    """An extractor that cannot make features of some files."""

    def extract(self, media: Media) -> FeatureSequence | None:
        if media.file.name == "c3.wav":
            raise DataError(f"{media.file}: has no faces")
        return super().extract(media)


def test_all_features_of_a_file_are_one_task(
    clips: Path, extracted: list[FileTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that fails for one extractor has the features of the others."""
    face = DESCRIPTION.model_copy(
        update={"settings": FaceSettings(), "packages": {"av": "1", "mediapipe": "1"}}
    )
    chosen = {"face": face, "voice": DESCRIPTION}
    monkeypatch.setattr(source_module, "describe", lambda settings: chosen[settings.extractor])
    extractors = {"face": Brightness(), "voice": Loudness()}
    monkeypatch.setattr(extraction, "open_extractor", lambda description: extractors[description.extractor])
    recipe = {
        "name": "clips",
        "table": "table.csv",
        "id": "clip",
        "split": "fold",
        "labels": {"columns": ["joy"]},
        "modalities": {m: {"source": m, "folder": ".", "column": "clip"} for m in ("face", "voice")},
    }
    (clips / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    store = build_store(clips / "recipe.yaml", clips / "store", overwrite=True)
    assert [task.descriptions for task in extracted] == [(face.id, DESCRIPTION.id)] * 8
    assert set(store[3].features) == {"voice"}
    cleaning = store.manifest.modalities["face"].cleaning
    assert list(cleaning[:2]) == [
        "70 of 70 steps of 7 clips have features",
        "1 file could not be read: c3.wav: has no faces",
    ]
