"""Voice features of tones whose pitch and loudness are known, and of windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.features.description import VoiceSettings, describe
from carat.features.extractor import Extractor, open_extractor
from carat.features.media import Media
from carat.features.windows import MARGIN, WINDOW, by_window, cut
from tests.features.files import flat, tone, write_media


def harmonics(seconds: float, hertz: float, rate: int = 16_000) -> np.ndarray:
    """A tone with overtones, as voices have."""
    return sum(tone(seconds, rate, hertz * k) / k for k in range(1, 9)).astype(np.float32) / 2  # type: ignore[union-attr]


def column(extractor: Extractor, values: np.ndarray, name: str) -> np.ndarray:
    return values[:, extractor.names.index(name)]


@pytest.mark.parametrize("hertz", [110.0, 233.0])
def test_pitch_and_voicing(tmp_path: Path, voice: Extractor, hertz: float) -> None:
    noise = 0.001 * np.random.default_rng(0).standard_normal(16_000)
    sound = np.concatenate([harmonics(1, hertz), noise]).astype(np.float32)
    file = write_media(tmp_path / "a.wav", sound=sound, audio_codec="pcm_s16le")
    with Media(file) as media:
        sequence = voice.extract(media)
    assert sequence is not None
    assert sequence.values.shape == (100, len(voice.names))
    assert sequence.values.dtype == np.float32
    voiced, quiet = slice(5, 45), slice(55, 95)
    f0 = np.exp(column(voice, sequence.values, "log_f0"))
    assert f0[voiced] == pytest.approx(hertz, rel=0.03)
    voicing = column(voice, sequence.values, "voicing")
    assert voicing[voiced].min() > 0.9 > 0.6 > voicing[quiet].mean()
    energy = column(voice, sequence.values, "log_energy")
    assert energy[voiced].mean() - energy[quiet].mean() > 8


def test_times_are_the_middles_of_steps(tmp_path: Path, voice: Extractor) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(1, 16_000), audio_codec="pcm_s16le")
    with Media(file) as media:
        sequence = voice.extract(media)
    assert sequence is not None
    assert sequence.times[[0, -1]] == pytest.approx([0.01, 0.99])
    part = sequence.between(0.2, 0.5)
    assert part.times == pytest.approx(np.arange(0.21, 0.5, 0.02))
    assert (part.values == sequence.values[10:25]).all()
    assert part.steps == 15


def test_a_rate_of_100(tmp_path: Path, voice: Extractor) -> None:
    fine = open_extractor(describe(VoiceSettings(rate=100, mel_bins=23)))
    file = write_media(tmp_path / "a.wav", sound=tone(1, 16_000), audio_codec="pcm_s16le")
    with Media(file) as media:
        sequence = fine.extract(media)
    assert sequence is not None
    assert sequence.values.shape == (100, 26)


@pytest.mark.parametrize("seconds", [0.0101, 0.05, 0.5])
def test_short_sounds(tmp_path: Path, voice: Extractor, seconds: float) -> None:
    file = write_media(tmp_path / "a.wav", sound=tone(seconds, 16_000), audio_codec="pcm_s16le")
    with Media(file) as media:
        sequence = voice.extract(media)
    assert sequence is not None
    assert len(sequence.values) == int(seconds * 50)
    assert np.isfinite(sequence.values).all()


def test_silence_has_finite_features(tmp_path: Path, voice: Extractor) -> None:
    file = write_media(tmp_path / "a.wav", sound=np.zeros(16_000, np.float32), audio_codec="pcm_s16le")
    with Media(file) as media:
        sequence = voice.extract(media)
    assert sequence is not None
    assert np.isfinite(sequence.values).all()
    assert np.ptp(column(voice, sequence.values, "log_energy")) == 0


def test_no_sound(tmp_path: Path, voice: Extractor) -> None:
    file = write_media(tmp_path / "a.mp4", pictures=[(i / 10, flat((9, 9, 9))) for i in range(5)])
    with Media(file) as media:
        assert voice.extract(media) is None


@pytest.mark.parametrize("seconds", [1.0, 59.99, 60.0, 62.0, 64.0, 131.13, 185.0])
def test_windows_join_without_a_seam(seconds: float) -> None:
    """Features that look at two seconds around every step are the same as those of the whole sound."""
    rate, step = 100, 4

    def features(samples: np.ndarray) -> np.ndarray:
        kernel = np.hanning(2 * MARGIN * rate - 1)
        smooth = np.convolve(samples, kernel, "same") if len(samples) > len(kernel) else samples
        return smooth[: len(samples) // step * step : step, None].astype(np.float32)

    samples = np.random.default_rng(1).standard_normal(round(seconds * rate)).astype(np.float32)
    blocks = np.split(samples, range(700, len(samples), 700))
    joined = np.concatenate(list(by_window(blocks, rate, step, features)))
    assert len(joined) == len(samples) // step
    if seconds > WINDOW + MARGIN:
        whole = features(samples)
        assert joined == pytest.approx(whole, abs=1e-4)


def test_windows_hold_little() -> None:
    longest = 0

    def features(samples: np.ndarray) -> np.ndarray:
        nonlocal longest
        longest = max(longest, len(samples))
        return samples[::10, None][: len(samples) // 10]

    blocks = (np.zeros(640, np.float32) for _ in range(1000))
    assert sum(map(len, by_window(blocks, 100, 10, features))) == 64_000
    assert longest <= (WINDOW + 2 * MARGIN) * 100


def test_spans_are_cut_out_of_a_stream() -> None:
    samples = np.arange(1000, dtype=np.float32)
    blocks = np.split(samples, [130, 131, 500, 990])
    spans = [(0.0, 0.5), (0.5, 1.4), (4.9, 5.2), (9.0, 12.0)]
    found = list(cut(blocks, 100, spans))
    assert [start for start, _ in found] == [0.0, 0.5, 4.9, 9.0]
    for (start, end), (_, part) in zip(spans, found, strict=True):
        assert (part == samples[round(start * 100) : round(end * 100)]).all()
