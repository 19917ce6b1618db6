"""The recipes of published corpora in `recipes/`: short, and what they build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.data.recipes.build import build_store
from carat.data.store import Store
from tests.models.encoders.conftest import text_encoder

__all__ = ["text_encoder"]  # fixture

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
SHORT = ["meld", "goemotions", "semeval2018", "crema_d_votes", "msp_face", "brighter"]
MELD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    '1,"also on my company’s transition from the KL-5, to GR-6.",Chandler,neutral,neutral,0,0,8,21,'
    '"00:16:16,059","00:16:21,731"\n'
    "2,You must’ve had your hands full.,The Interviewer,{0},neutral,0,1,8,21,"
    '"00:16:21,940","00:16:23,442"\n'
    '3,"""No,"" don’t I beg of you!",Phoebe,fear,negative,1,0,8,21,"00:16:48,800","00:16:54,514"\n'
)
"""A file in MELD's published format."""
EMOTIONS = yaml.safe_load(
    "[anger, anticipation, disgust, fear, joy, love, optimism, pessimism, sadness, surprise, trust]"
)


def build(name: str, out: Path, **changes: Any) -> Store:
    """Build a recipe of the repository, with some of its values changed."""
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")) | changes
    file = out / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return build_store(file, out / "store")


def positives(store: Store) -> dict[str, int]:
    return dict(zip(store.label_names, np.asarray(store.labels).sum(0).tolist(), strict=True))


@pytest.mark.parametrize("name", SHORT)
def test_recipes_are_short(name: str) -> None:
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 12


def test_meld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELD", str(tmp_path))
    np.savez(tmp_path / "g.npz", words=np.array(["full", "no"]), vectors=np.eye(2, 3))
    for split, emotion in (("train", "joy"), ("dev", "joy"), ("test", "surprise")):
        (tmp_path / f"{split}_sent_emo.csv").write_bytes(MELD.format(emotion).encode("cp1252"))
    modality = {"source": "glove", "file": "g.npz", "column": "Utterance"}
    store = build("meld", tmp_path, modalities={"text": modality})
    assert store.manifest.splits == {"train": 3, "valid": 3, "test": 3}
    assert [store.ids[i] for i in (0, 4, 8)] == ["train/0/0", "valid/0/1", "test/1/0"]
    assert [store.groups[i] for i in (0, 2, 8)] == ["train/0", "train/1", "test/1"]
    assert positives(store) == {"fear": 3, "joy": 2, "neutral": 3, "surprise": 1}
    assert store.transcript(0) == "also on my company’s transition from the KL-5, to GR-6."
    assert store.transcript(5) == '"No," don’t I beg of you!'
    assert sum("read as cp1252" in note for note in store.manifest.notes) == 3


def test_semeval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_encoder: Path) -> None:
    monkeypatch.setenv("SEMEVAL2018", str(tmp_path))
    monkeypatch.setenv("CARAT_TEXT_ENCODER", str(text_encoder))
    tweets = ['"so glad', 'tears 5" deep', 'lost" #hate', "happy \U0001f600"]
    for split in ("train", "dev", "test-gold"):
        rows = [
            "\t".join([f"2018-En-{split}-{i}", tweet, *("1" if i == j % 4 else "0" for j in range(11))])
            for i, tweet in enumerate(tweets)
        ]
        header = "\t".join(["ID", "Tweet", *EMOTIONS])
        (tmp_path / f"2018-E-c-En-{split}.txt").write_text("\r\n".join([header, *rows, ""]), newline="")
    store = build("semeval2018", tmp_path)
    assert store.manifest.splits == {"train": 4, "valid": 4, "test": 4}
    assert [store.transcript(i) for i in range(4)] == tweets
    assert positives(store) == dict.fromkeys(EMOTIONS, 3)
    assert store.ids[11] == "2018-En-test-gold-3"


def test_goemotions(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_SHARED", str(shared))
    store = build("goemotions", tmp_path, rows=600)
    assert store.manifest.splits == {"train": 480, "valid": 60, "test": 60}
    names = (shared / "data" / "text" / "goemotions_labels.txt").read_text().split()
    assert store.label_names == names
    assert store.ids[0] == "eebbqej"
    assert store.labels[0].tolist() == [name == "neutral" for name in names]
    assert np.asarray(store.labels).sum(1).max() > 1


@pytest.mark.parametrize("language", ["eng", "deu", "esp"])
def test_brighter(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, text_encoder: Path, language: str
) -> None:
    monkeypatch.setenv("CARAT_SHARED", str(shared))
    monkeypatch.setenv("CARAT_TEXT_ENCODER", str(text_encoder))
    monkeypatch.setenv("BRIGHTER", language)
    store = build("brighter", tmp_path, rows=300)
    assert len(store) == 300
    assert set(store.manifest.splits) == {"train", "valid", "test"}
    assert store.intensities is not None
    assert set(np.unique(store.intensities).tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(store.labels, np.asarray(store.intensities) > 0)


def test_crema_d(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_SHARED", str(shared))
    store = build("crema_d_votes", tmp_path)
    assert store.manifest.splits == {"train": 4748, "valid": 1060, "test": 1634}
    assert positives(store) == {
        "anger": 1630, "disgust": 2299, "fear": 2221, "happy": 1334, "neutral": 3250, "sad": 1641,
    }  # fmt: skip
    actors = [set(np.asarray(store.groups)[store.indices(s)].tolist()) for s in store.manifest.splits]
    assert [len(group) for group in actors] == [58, 13, 20]
    assert {m: info.width for m, info in store.manifest.modalities.items()} == {"voice": 12, "face": 12}
    train = np.stack([store.features("voice", i)[0] for i in store.indices("train")])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-3)


def test_msp_face(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_SHARED", str(shared))
    store = build("msp_face", tmp_path, rows=900)
    assert {m: info.width for m, info in store.manifest.modalities.items()} == {"audio": 256, "visual": 383}
    assert np.asarray(store.labels).sum(1).tolist() == [1] * len(store)
    assert 500 < len(store) < 700
    (left_out,) = [note for note in store.manifest.notes if "unknown labels" in note]
    assert left_out.startswith(f"{900 - len(store)} of 900 rows have unknown labels, e.g. data row ")
    assert left_out.endswith(": left out")
