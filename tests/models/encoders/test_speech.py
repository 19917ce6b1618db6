"""Sound read by an encoder: waveforms in a store, hidden states, any method behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import carat
from carat.config.encoders import EncoderChoice
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.training.train import train
from carat.utils.errors import DataError
from tests.models.encoders.conftest import TRAINING
from tests.models.encoders.folders import make_speech_encoder

RATE = 1000


def write_wav(file: Path, samples: np.ndarray, rate: int = RATE) -> None:
    import wave

    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(rate)
        opened.writeframes((samples * 32000).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def speech_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_speech_encoder(tmp_path_factory.mktemp("encoders") / "speech")


@pytest.fixture(scope="module")
def sound_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Tones of two pitches; the last clip is silent in every sense: it has no file."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("sounds")
    lines = ["id,split,file,high,said"]
    random = np.random.default_rng(0)
    for i in range(60):
        high = int(random.integers(2))
        time = np.arange(int(random.integers(200, 500))) / RATE
        write_wav(folder / f"{i}.wav", 0.8 * np.sin(2 * np.pi * (220 if high else 40) * time))
        lines.append(f"s{i},{('train', 'train', 'valid', 'test')[i % 4]},{i}.wav,{high},x")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "recipe.yaml").write_text(
        f"""
name: sounds
table: table.csv
id: id
split: split
labels: {{columns: [high]}}
modalities:
  audio: {{source: waveform, folder: ., column: file, rate: {RATE}, seconds: 0.4}}
"""
    )
    return build_store(folder / "recipe.yaml", folder / "store")


def test_a_store_of_sound(sound_store: Store) -> None:
    info = sound_store.manifest.modalities["audio"]
    assert info.waveform is not None
    assert info.waveform.rate == RATE
    assert info.width == 1
    lengths = sound_store.lengths("audio")
    assert lengths.max() == 400
    assert lengths.min() < 300
    assert 0.7 < np.abs(sound_store.features("audio", 0)).max() < 0.9


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_is_not_heard(norm: str, tmp_path: Path) -> None:
    folder = make_speech_encoder(tmp_path / "speech", norm)
    encoder = PretrainedEncoder(folder, EncoderChoice(folder=str(folder)), text=False).eval()
    lengths = (311, 0, 97, 6)
    wave = torch.randn(len(lengths), 311, 1)
    mask = torch.arange(311) < torch.tensor(lengths)[:, None]
    states, valid = encoder(wave, mask)
    assert valid.sum(1).tolist() == [30, 0, 9, 0]  # six samples are too few to hear anything
    alone, _ = encoder(wave[2:3, :97], mask[2:3, :97])
    torch.testing.assert_close(states[2, :9], alone[0])
    assert not states[2, 9:].any()
    assert encoder.longest(30) == 305  # samples of which 30 states are made


def test_a_method_learns_from_sound(sound_store: Store, speech_encoder: Path, tmp_path: Path) -> None:
    experiment = TRAINING | {
        "method": "linear",
        "encoders": {"audio": {"folder": str(speech_encoder)}},
        "training": TRAINING["training"] | {"epochs": 6},
    }
    made = train(experiment, sound_store, tmp_path / "run")
    assert carat.load(made.folder).evaluate(sound_store, "test").metrics.micro_f1 > 0.9


def test_another_rate_is_refused(sound_store: Store, tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    folder = make_speech_encoder(tmp_path / "speech")
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder)
    experiment = {"method": "linear", "encoders": {"audio": {"folder": str(folder)}}}
    with pytest.raises(
        DataError, match="expects a sampling rate of 16000 Hz, but audio was stored at 1000 Hz; build"
    ):
        train(experiment, sound_store, tmp_path / "run")


def test_files_that_are_no_sound(sound_store: Store, tmp_path: Path) -> None:
    from carat.data.recipes.sources.waveforms import WaveformSource

    source = WaveformSource(tmp_path, RATE, 1.0)
    assert source.read([""]) == [None]
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"text.wav: audio track cannot be decoded"):
        source.read(["text.wav"])
    with pytest.raises(DataError, match=r"none.wav: no such file"):
        source.read(["none.wav"])
    write_wav(tmp_path / "fast.wav", np.ones(800), rate=4 * RATE)
    (found,) = source.read(["fast.wav"])
    assert found is not None
    assert abs(len(found) - 200) <= 20  # resampled
