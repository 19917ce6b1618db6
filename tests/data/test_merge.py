"""Merging of stores: labels and modalities by maps, unknown labels, corpora, and samples in two splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import carat
from carat.data.merge.merging import merge_stores
from carat.data.store import Store, open_store
from carat.data.store.transform import Transform
from carat.data.store.writer import StoreWriter
from carat.utils.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")
Command = Callable[..., tuple[int, str, str]]


def write_store(
    folder: Path,
    labels: list[str],
    modalities: dict[str, int],
    seed: int,
    *,
    samples: int = 9,
    transcripts: bool = False,
    transform: bool = False,
) -> Store:
    rng = np.random.default_rng(seed)
    sources = {m: f"source-{m}" for m in modalities}
    with StoreWriter(folder, folder.name, labels, sources, SPLITS) as writer:
        for i in range(samples):
            writer.append(
                f"s{i}",
                SPLITS[i % 3],
                [(i + j) % 2 for j in range(len(labels))],
                {m: rng.normal(size=(3, width)) for m, width in modalities.items()},
                group=f"g{i // 3}",
                transcript=f"number {seed} and number {i}" if transcripts else "",
            )
        if transform:
            for m, width in modalities.items():
                mean, deviation = [float(seed)] * width, [1.0] * width
                writer.transforms[m] = Transform(width=width, mean=mean, deviation=deviation)
    return open_store(folder)


def merge(folder: Path, **plan: Any) -> Store:
    (folder / "plan.yaml").write_text(yaml.safe_dump({"name": "all", **plan}, sort_keys=False))
    return merge_stores(folder / "plan.yaml", folder / "merged", overwrite=True)


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """`faces` with joy, fear and faces; `texts` with happy, afraid, calm, and text."""
    write_store(tmp_path / "faces", ["joy", "fear"], {"face": 4}, 1)
    write_store(tmp_path / "texts", ["happy", "afraid", "calm"], {"text": 5, "face": 4}, 2, transcripts=True)
    return tmp_path


def test_labels_of_other_corpora_are_unknown(stores: Path) -> None:
    store = merge(stores, corpora={"a": {"store": "faces"}, "b": {"store": "texts"}})
    assert store.label_names == ["joy", "fear", "happy", "afraid", "calm"]
    assert store.modalities == ["face", "text"]
    assert store.corpora is not None
    assert store.corpora.tolist() == ["a"] * 9 + ["b"] * 9
    assert store.ids[0] == "a/s0"
    assert store.groups[17] == "b/g2"
    assert store.manifest.splits == {"train": 6, "valid": 6, "test": 6}
    targets = store.targets()
    np.testing.assert_array_equal(targets[1], [1, 0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(targets[10], [np.nan, np.nan, 1, 0, 1])
    own = open_store(stores / "texts")
    np.testing.assert_array_equal(store.features("text", 10), own.features("text", 1))
    assert store.lengths("text")[1] == 0
    assert store.transcript(10) == own.transcript(1)


def test_maps_of_labels_and_modalities(stores: Path) -> None:
    corpora = {
        "a": {"store": "faces", "labels": {"happy": "joy", "bad": "fear"}},
        "b": {
            "store": "texts",
            "labels": {"happy": ["happy", "calm"], "bad": "afraid"},
            "modalities": {"words": "text"},
            "splits": ["train"],
        },
    }
    store = merge(stores, labels=["happy", "bad", "other"], modalities=["words", "face"], corpora=corpora)
    assert store.label_names == ["happy", "bad", "other"]
    assert store.modalities == ["words", "face"]
    assert store.manifest.splits == {"train": 6, "valid": 3, "test": 3}
    targets = store.targets()
    np.testing.assert_array_equal(targets[1], [1, 0, np.nan])
    np.testing.assert_array_equal(targets[9], [0, 1, np.nan])  # s0: neither happy nor calm, but afraid
    assert store.lengths("face")[9] == 0


def test_unknown_labels_stay_unknown(stores: Path) -> None:
    with StoreWriter(stores / "some", "some", ["joy", "glad"], {"face": "x"}, ["train"]) as writer:
        for i, labels in enumerate([[1, None], [0, None], [0, 0], [None, 1]]):
            writer.append(f"s{i}", "train", labels, {"face": np.full((1, 4), i + 1.0)})
    corpora = {"some": {"store": "some", "labels": {"happy": ["joy", "glad"]}}, "faces": {"store": "faces"}}
    corpora["faces"]["labels"] = {"happy": "joy"}
    store = merge(stores, corpora=corpora)
    np.testing.assert_array_equal(store.targets()[:4, 0], [1, np.nan, 0, 1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"corpora": {"a": {"store": "faces", "labels": {"x": "joi"}}}}, "has no 'joi'; did you mean 'joy'"),
        ({"corpora": {"a": {"store": "faces", "modalities": {"x": "text"}}}}, "has no 'text'"),
        ({"corpora": {"a": {"store": "faces", "splits": ["dev"]}}}, "splits"),
        ({"labels": ["anger"], "corpora": {"a": {"store": "faces"}}}, "has none of the labels anger"),
        ({"labels": ["x"], "corpora": {"a": {"store": "faces", "labels": {"y": "joy"}}}}, "'y' is no label"),
        ({"modalities": ["voice"], "corpora": {"a": {"store": "faces"}}}, "has none of the modalities voice"),
        ({"corpora": {"a": {"store": "nowhere"}}}, "no such store"),
        ({"corpora": {"a": {}}}, "needs either `store`"),
        ({"corpora": {}}, "corpora"),
        ({"corpora": {"a/b": {"store": "faces"}}}, "has no '/'"),
        ({"corpora": {"a": {"store": "faces", "weight": 2}}}, "weight"),
    ],
)
def test_mistakes_in_plans(stores: Path, plan: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        merge(stores, **plan)
    assert not (stores / "merged").exists()


def test_modalities_must_agree(stores: Path) -> None:
    write_store(stores / "wide", ["joy"], {"face": 6}, 3)
    with pytest.raises(DataError, match="modality 'face' of a and b differs in width: 4 and 6"):
        merge(stores, corpora={"a": {"store": "faces"}, "b": {"store": "wide"}})
    write_store(stores / "scaled", ["joy"], {"face": 4}, 4, transform=True)
    with pytest.raises(DataError, match="was cleaned in different ways"):
        merge(stores, corpora={"a": {"store": "faces"}, "b": {"store": "scaled"}})
    store = merge(stores, corpora={"b": {"store": "scaled"}})
    assert (
        store.manifest.modalities["face"].transform
        == open_store(stores / "scaled").manifest.modalities["face"].transform
    )


def test_a_sample_in_two_splits_is_refused(stores: Path) -> None:
    with StoreWriter(stores / "copy", "copy", ["joy"], {"face": "source-face"}, ["test"]) as writer:
        writer.append("x", "test", [1], {"face": open_store(stores / "faces").features("face", 0)})
    with pytest.raises(DataError, match=r"sample 's0' of a \(train\) is sample 'x' of b \(test\)"):
        merge(stores, corpora={"a": {"store": "faces"}, "b": {"store": "copy"}})
    with StoreWriter(stores / "said", "said", ["joy"], {"text": "other"}, ["valid"]) as writer:
        writer.append("x", "valid", [1], {"text": np.ones((2, 5))}, transcript="Number 2, and NUMBER 3!")
    with pytest.raises(DataError, match=r"sample 's3' of a \(train\) is sample 'x' of b \(valid\)"):
        merge(stores, corpora={"a": {"store": "texts"}, "b": {"store": "said"}})
    dropped = merge(stores, corpora={"a": {"store": "texts"}, "b": {"store": "said"}}, leaks="drop")
    assert len(dropped) == 9
    assert {"a/s3", "b/x"} & set(dropped.ids) == {"b/x"}
    assert "1 samples left out, which another corpus has in a later split" in dropped.manifest.notes
    both = merge(stores, corpora={"a": {"store": "faces"}, "b": {"store": "faces"}})
    assert "9 samples occur in two corpora, in the same split" in both.manifest.notes


def test_a_recipe_is_built(stores: Path) -> None:
    (stores / "table.csv").write_text(
        "id,fold,joy,v1\n" + "\n".join(f"r{i},{SPLITS[i % 3]},{i % 2},{i}.5" for i in range(6))
    )
    (stores / "recipe.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "tabular",
                "table": "table.csv",
                "id": "id",
                "split": "fold",
                "labels": {"columns": ["joy"]},
                "modalities": {"voice": {"source": "columns", "columns": ["v1"]}},
            }
        )
    )
    store = merge(stores, corpora={"a": {"store": "faces"}, "t": {"recipe": "recipe.yaml"}})
    assert store.corpora is not None
    assert store.corpora.tolist() == ["a"] * 9 + ["t"] * 6
    assert sorted(x.name for x in stores.iterdir() if x.name.startswith("tmp")) == []


def test_command(stores: Path, run: Command) -> None:
    plan = {"name": "all", "corpora": {"a": {"store": "faces"}, "b": {"store": "texts"}}}
    (stores / "plan.yaml").write_text(yaml.safe_dump(plan))
    code, _, err = run("data", "merge", stores / "plan.yaml", stores / "merged")
    assert code == 0, err
    assert "18 samples" in err
    code, out, _ = run("data", "info", stores / "merged")
    assert code == 0
    assert "corpus" in out
    code, _, err = run("data", "merge", stores / "plan.yaml", stores / "merged")
    assert code == 2
    assert "--overwrite replaces it" in err


def test_every_corpus_is_evaluated(stores: Path, run: Command) -> None:
    corpora = {"a": {"store": "faces"}, "b": {"store": "texts", "labels": {"joy": "happy", "fear": "afraid"}}}
    store = merge(stores, corpora=corpora)
    experiment = {"method": "prior", "training": {"epochs": 1, "accelerator": "cpu"}}
    report = carat.evaluate(carat.train(experiment, store, stores / "run").folder, store)
    assert list(report.corpora) == ["a", "b"]
    assert [report.corpora[name].samples for name in "ab"] == [3, 3]
    alone = report.corpora["a"].metrics
    assert alone.labels["joy"].known == 3
    assert report.metrics.labels["joy"].known == 6
    plain = report.to_json()
    assert list(plain["corpora"]) == ["a", "b"]
    assert "corpora" not in plain["corpora"]["a"]
    code, out, err = run("evaluate", stores / "run", "--data", store.folder)
    assert code == 0, err
    assert "Corpora" in out
