"""Transcripts in recipes: given or recognized, as texts and as words over which features are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.config.experiment import load_experiment
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.features.description import SpeechSettings, TranscriptSettings
from carat.training.train import train
from carat.utils.errors import ConfigError, DataError
from tests.features.fakes import describe, use_fakes
from tests.features.files import flat, tone, write_media
from tests.models.encoders.conftest import text_encoder

__all__ = ["text_encoder"]  # fixture

pytest.importorskip("av")
TRAINING = {"training": {"epochs": 1, "accelerator": "cpu"}}


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    return use_fakes(monkeypatch, tmp_path)


@pytest.fixture
def clips(tmp_path: Path, extracted: list[Path]) -> Path:
    """Eight clips: sound from 0.5 to 1.5 s of two seconds."""
    lines = ["clip,fold,start,end,joy,said"]
    for i in range(8):
        sound = np.concatenate([np.zeros(8000), tone(1.0, 16_000, 100.0 + 50 * i), np.zeros(8000)])
        write_media(tmp_path / f"c{i}.wav", sound=sound.astype(np.float32), audio_codec="pcm_s16le")
        lines.append(f"c{i}.wav,{('train', 'train', 'valid', 'test')[i % 4]},0.9,1.6,{i % 2},")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def build(folder: Path, encoder: Path | None = None, transcript: Any = None, **voice: Any) -> Store:
    modalities: dict[str, Any] = {"voice": {"source": "voice", "folder": ".", "column": "clip", **voice}}
    if encoder is not None:
        modalities["text"] = {"source": "tokens", "folder": str(encoder), "column": "transcript"}
    recipe = {
        "name": "clips",
        "table": "table.csv",
        "id": "clip",
        "split": "fold",
        "labels": {"columns": ["joy"]},
        "transcript": {"folder": ".", "column": "clip"} if transcript is None else transcript,
        "modalities": modalities,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return build_store(folder / "recipe.yaml", folder / "store", overwrite=True)


def test_speech_is_recognized(clips: Path, text_encoder: Path) -> None:
    pytest.importorskip("transformers")
    store = build(clips, text_encoder)
    assert [store.transcript(i) for i in range(8)] == ["so glad"] * 8
    assert "the speech of 8 files was recognized" in store.manifest.notes
    text = store.manifest.modalities["text"]
    assert text.tokens is not None
    assert text.extraction == describe(TranscriptSettings())
    overrides = {"method": {"name": "linear"}, "encoders": {"text": {"folder": str(text_encoder)}}}
    run = train(load_experiment(overrides=overrides | TRAINING), store, clips / "run")
    assert run.card.modalities["text"].extraction == text.extraction


def test_given_transcripts_are_used(clips: Path, extracted: list[Path]) -> None:
    (clips / "c2.srt").write_text(
        "1\n00:00:00,500 --> 00:00:00,800\nnever\n\n2\n00:00:01,000 --> 00:00:01,500\nmind\n"
    )
    (clips / "c3.txt").write_text("a whole\nsentence")
    for i, said in enumerate(["well", "oh, no.", "c2.srt", "c3.txt"]):
        replace(clips / "table.csv", f"c{i}.wav,", f"c{i}.wav,")
        lines = (clips / "table.csv").read_text().split("\n")
        lines[i + 1] += f'"{said}"'
        (clips / "table.csv").write_text("\n".join(lines))
    pytest.importorskip("webvtt")
    given = {"folder": ".", "column": "clip", "given": "said"}
    store = build(clips, transcript=given)
    texts = [store.transcript(i) for i in range(8)]
    assert texts == ["well", "oh, no.", "never mind", "a whole sentence", *["so glad"] * 4]
    assert "transcripts of 4 samples were given" in store.manifest.notes
    assert "the speech of 4 files was recognized" in store.manifest.notes
    part = build(clips, transcript=given | {"start": "start", "end": "end"})
    assert part.transcript(2) == "mind"
    assert part.transcript(4) == "glad"  # its middle is at 1.25 s
    assert part.transcript(1) == "oh, no."


def test_features_are_averaged_over_words(clips: Path) -> None:
    whole = np.array(build(clips).features("voice", 1))
    assert whole.shape == (10, 2)
    store = build(clips, align="words")
    words = np.array(store.features("voice", 1))
    np.testing.assert_allclose(words, [whole[:5].mean(0), whole[5:].mean(0)], rtol=1e-6)
    assert store.manifest.modalities["voice"].alignment == describe(TranscriptSettings())
    run = train(load_experiment(overrides={"method": {"name": "prior"}}), store, clips / "run")
    assert run.card.modalities["voice"].alignment == describe(TranscriptSettings())


def test_given_words_are_spread_over_speech(clips: Path) -> None:
    replace(clips / "table.csv", ",0,", ",0,one")
    replace(clips / "table.csv", ",1,", ",1,one two four five")
    given = {"folder": ".", "column": "clip", "given": "said"}
    store = build(clips, transcript=given, align="words")
    assert [store.lengths("voice")[i] for i in (0, 1)] == [1, 4]
    assert store.manifest.modalities["voice"].alignment == describe(SpeechSettings())


def test_mistakes_in_recipes(clips: Path) -> None:
    with pytest.raises(ConfigError, match="align needs `transcript` with the media files"):
        build(clips, transcript="said", align="words")
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        build(clips, transcript={"folder": "nowhere", "column": "clip"})
    replace(clips / "table.csv", "said", "transcript")
    with pytest.raises(DataError, match="has a column 'transcript' already"):
        build(clips)
    given = {"folder": ".", "column": "clip", "given": "transcript"}
    assert build(clips, transcript=given).transcript(0) == "so glad"
    replace(clips / "table.csv", ",0,", ",0,nothing.srt")
    with pytest.raises(DataError, match=r"nothing.srt: no such file"):
        build(clips, transcript=given)


def test_a_bad_file_has_no_transcript(clips: Path) -> None:
    (clips / "c1.wav").write_bytes(b"no sound at all" * 100)
    (clips / "c5.wav").unlink()
    write_media(clips / "c7.mp4", pictures=[(i / 10, flat((9, 9, 9))) for i in range(10)])
    replace(clips / "table.csv", "c7.wav", "c7.mp4")
    store = build(clips)
    assert len(store) == 5
    assert any("2 files could not be read: c5.wav: no such file" in note for note in store.manifest.notes)
