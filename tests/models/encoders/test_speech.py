"""Speech encoders: stores of waveforms, hidden states and training."""

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
def waveform_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Tones of two pitches."""
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("waveforms")
    lines = ["id,split,file,high,utterance"]
    rng = np.random.default_rng(0)
    for i in range(60):
        high = int(rng.integers(2))
        time = np.arange(int(rng.integers(200, 500))) / RATE
        write_wav(folder / f"{i}.wav", 0.8 * np.sin(2 * np.pi * (220 if high else 40) * time))
        lines.append(f"s{i},{('train', 'train', 'valid', 'test')[i % 4]},{i}.wav,{high},x")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "recipe.yaml").write_text(
        f"""
name: tones
table: table.csv
id: id
split: split
labels: {{columns: [high]}}
modalities:
  audio: {{source: waveform, folder: ., column: file, rate: {RATE}, seconds: 0.4}}
"""
    )
    return build_store(folder / "recipe.yaml", folder / "store")


def test_store_of_waveforms(waveform_store: Store) -> None:
    info = waveform_store.manifest.modalities["audio"]
    assert info.waveform is not None
    assert info.waveform.rate == RATE
    assert info.width == 1
    lengths = waveform_store.lengths("audio")
    assert lengths.max() == 400
    assert lengths.min() < 300
    assert 0.7 < np.abs(waveform_store.features("audio", 0)).max() < 0.9


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_hidden_states_do_not_depend_on_padding(norm: str, tmp_path: Path) -> None:
    folder = make_speech_encoder(tmp_path / "speech", norm)
    encoder = PretrainedEncoder(folder, EncoderChoice(folder=str(folder)), text=False).eval()
    lengths = (311, 0, 97, 6)
    waveforms = torch.randn(len(lengths), 311, 1)
    mask = torch.arange(311) < torch.tensor(lengths)[:, None]
    states, valid = encoder(waveforms, mask)
    assert valid.sum(1).tolist() == [30, 0, 9, 0]  # six audio samples are less than the receptive field
    alone, _ = encoder(waveforms[2:3, :97], mask[2:3, :97])
    torch.testing.assert_close(states[2, :9], alone[0])
    assert not states[2, 9:].any()
    assert encoder.input_length(30) == 305


def test_fine_tuned_run_predicts_the_pitch(
    waveform_store: Store, speech_encoder: Path, tmp_path: Path
) -> None:
    experiment = TRAINING | {
        "method": "linear",
        "encoders": {"audio": {"folder": str(speech_encoder)}},
        "training": TRAINING["training"] | {"epochs": 6},
    }
    run = train(experiment, waveform_store, tmp_path / "run")
    assert carat.load(run.folder).evaluate(waveform_store, "test").metrics.micro_f1 > 0.9


def test_another_sampling_rate_is_rejected(waveform_store: Store, tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    folder = make_speech_encoder(tmp_path / "speech")
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder)
    experiment = {"method": "linear", "encoders": {"audio": {"folder": str(folder)}}}
    with pytest.raises(
        DataError, match="expects a sampling rate of 16000 Hz, but audio was stored at 1000 Hz; build"
    ):
        train(experiment, waveform_store, tmp_path / "run")


def test_unreadable_audio_files_are_rejected(waveform_store: Store, tmp_path: Path) -> None:
    from carat.data.recipes.sources.waveforms import WaveformSource

    source = WaveformSource(tmp_path, RATE, 1.0)
    assert source.read([""]) == [None]
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"text.wav: cannot be decoded"):
        source.read(["text.wav"])
    with pytest.raises(DataError, match=r"none.wav: no such file"):
        source.read(["none.wav"])
    write_wav(tmp_path / "fast.wav", np.ones(800), rate=4 * RATE)
    (waveform,) = source.read(["fast.wav"])
    assert waveform is not None
    assert abs(len(waveform) - 200) <= 20  # resampled
