"""The same sample has the same score as part of a store and as extracted, for every way into a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from carat.data.corpora.registry import FORMATS, Sources, import_data
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.inference.loading import load
from carat.training.train import train
from carat.utils.errors import ConfigError, DataError
from carat.utils.logging import logger
from tests.data import field_files as files

LINEAR = {"method": {"name": "linear"}, "training": {"epochs": 1, "accelerator": "cpu"}}
Samples = Mapping[str, Mapping[str, Any]]
WRITERS: dict[str, Callable[[Path], None]] = {
    "mosei-aligned": files.aligned,
    "mosei-unaligned": files.unaligned,
    "mmsa": files.mmsa,
    "m3ed": files.m3ed,
    "erc": files.iemocap,
}


def assert_alike(run: Any, store: Store, raw: Samples, folder: Path) -> None:
    """Train on a store, then compare the scores of its samples with those of the raw samples."""
    trained = train(LINEAR, store, folder / "run")
    np.savez(folder / "raw.npz", **{f"{id}/{m}": x for id, sample in raw.items() for m, x in sample.items()})
    scores = {}
    for name, arguments in {"store": [store.folder], "raw": [folder / "raw.npz", "--raw"]}.items():
        out = folder / f"{name}.jsonl"
        code, _, err = run("predict", trained.folder, "--data", *arguments, "--out", out)
        assert code == 0, err
        rows = map(json.loads, out.read_text().splitlines())
        scores[name] = {row["id"]: [x for key, x in row.items() if key.startswith("score_")] for row in rows}
    assert scores["raw"].keys() == scores["store"].keys()
    for id, expected in scores["store"].items():
        assert scores["raw"][id] == pytest.approx(expected, abs=1e-6), id


@pytest.mark.parametrize(
    ("format", "keep_padding", "dtype"),
    [
        *((format, keep_padding, "float32") for format in WRITERS for keep_padding in (False, True)),
        ("mosei-unaligned", False, "float16"),
    ],
)
def test_imports(
    run: Any, tmp_path: Path, format: str, keep_padding: bool, dtype: Literal["float16", "float32"]
) -> None:
    file = tmp_path / "file"
    WRITERS[format](file)
    files.table(tmp_path / "labels.csv")
    required = FORMATS[format].required
    sources = Sources(labels=tmp_path / "labels.csv" if "labels" in required else None)
    store = import_data(format, file, tmp_path / "store", sources, keep_padding=keep_padding, dtype=dtype)
    raw = {sample.id: sample.features for sample in FORMATS[format].open(file, sources).samples}
    assert_alike(run, store, {str(id): raw[str(id)] for id in store.ids}, tmp_path)


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A table, and raw features with padding, gaps and absent modalities."""
    random = np.random.default_rng(0)
    raw: dict[str, dict[str, Any]] = {}
    lines = ["id,fold,sad,joy"]
    for i in range(40):
        audio, face = random.normal(3, 2, (6, 4)), random.normal(size=(5, 3))
        audio[:1] = 0
        audio[5 - i % 3 :] = 0
        audio[2, 1] = np.nan
        face[:] = {0: 0.0, 1: np.nan}.get(i % 10, 1.0) * face
        raw[f"c{i}"] = {"audio": audio, "face": face}
        lines.append(f"c{i},{('train', 'train', 'valid', 'test')[i % 4]},{i // 4 % 2},{i // 8 % 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    for m in ("audio", "face"):
        np.savez(tmp_path / f"{m}.npz", **{id: sample[m] for id, sample in raw.items()})
    return raw


def make_recipe(folder: Path, **audio: Any) -> Path:
    recipe = {
        "name": "clips",
        "table": "table.csv",
        "id": "id",
        "split": "fold",
        "labels": {"columns": ["sad", "joy"]},
        "modalities": {
            "audio": {"source": "array", "file": "audio.npz", "column": "id", **audio},
            "face": {"source": "array", "file": "face.npz", "column": "id"},
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def build(folder: Path, **audio: Any) -> Store:
    return build_store(make_recipe(folder, **audio), folder / "store")


@pytest.mark.parametrize(
    "audio",
    [
        {},
        {"standardise": True},
        {"standardise": True, "drop_columns": [1]},
        {"padding": "keep"},
        {"padding": "none", "standardise": True},
    ],
)
def test_recipes(run: Any, tmp_path: Path, clips: Samples, audio: dict[str, Any]) -> None:
    store = build(tmp_path, **audio)
    absent = {str(store.ids[row]) for row in np.flatnonzero(store.lengths("face") == 0)}
    assert absent == {f"c{i}" for i in range(40) if i % 10 in (0, 1)}
    assert_alike(run, store, clips, tmp_path)


def test_python_gives_the_scores_of_the_store(tmp_path: Path, clips: Samples) -> None:
    store = build(tmp_path)
    predictor = load(train(LINEAR, store, tmp_path / "run"))
    expected = dict(predictor.predict_store(store))
    for id, sample in clips.items():
        assert predictor.predict(sample).scores == pytest.approx(expected[id].scores, abs=1e-6)
        held = store[list(store.ids).index(id)].features
        assert predictor.predict(held).scores == pytest.approx(expected[id].scores, abs=1e-6)


def test_another_cleaning_is_said(tmp_path: Path, clips: Samples) -> None:
    store = build(tmp_path, standardise=True)
    predictor = load(train(LINEAR, store, tmp_path / "run"))
    assert predictor.notes(store, ["test"]) == []
    (tmp_path / "other").mkdir()
    for name in ("table.csv", "face.npz"):
        (tmp_path / "other" / name).write_bytes((tmp_path / name).read_bytes())
    np.savez(tmp_path / "other" / "audio.npz", **{id: 2 * sample["audio"] for id, sample in clips.items()})
    other = build(tmp_path / "other", standardise=True)
    assert any(
        "audio was cleaned by other rules or statistics" in x for x in predictor.notes(other, ["test"])
    )


def test_a_modality_that_no_training_sample_has(
    run: Any, tmp_path: Path, clips: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (tmp_path / "table.csv").read_text().splitlines()
    training = {line.split(",")[0] for line in lines if ",train," in line}
    np.savez(tmp_path / "face.npz", **{id: x["face"] for id, x in clips.items() if id not in training})
    logger.addHandler(caplog.handler)
    try:
        store = build(tmp_path)
        assert "no training sample has face, so that models are trained without it" in caplog.text
        caplog.clear()
        trained = train(LINEAR, store, tmp_path / "run")
    finally:
        logger.removeHandler(caplog.handler)
    assert list(trained.card.modalities) == ["audio"]
    assert "no training sample has face, so that models are trained without it" in trained.card.notes
    code, out, _ = run("data", "check", store.folder)
    assert code == 1
    assert "no training sample has face" in " ".join(out.split())
    for command in (
        ["data", "build", tmp_path / "recipe.yaml", tmp_path / "other", "--strict"],
        ["train", "--data", store.folder, "--out", tmp_path / "strict", "--method", "linear", "--strict"],
    ):
        code, _, err = run(*command)
        assert code == 2
        assert "no training sample has face" in err
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "strict").exists()
    named = {**LINEAR, "data": {"modalities": ["audio", "face"]}}
    with pytest.raises(ConfigError, match=r"data.modalities: no training sample of the store has face"):
        train(named, store, tmp_path / "named")


def test_a_label_without_a_positive_sample(run: Any, tmp_path: Path, clips: Samples) -> None:
    lines = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "table.csv").write_text(
        "\n".join(line[:-1] + "0" if ",test," in line else line for line in lines)
    )
    code, _, err = run("data", "build", make_recipe(tmp_path), tmp_path / "store")
    assert code == 0
    assert "split 'test' has no positive sample of: joy" in err
    code, out, _ = run("data", "check", tmp_path / "store")
    assert "test never has 'joy'" in " ".join(out.split())
    with pytest.raises(DataError, match=r"split 'test' has no positive sample of: joy \(--strict\)"):
        build_store(tmp_path / "recipe.yaml", tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()
