"""A run trained on word vectors reads texts, given the file of the vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.data.recipes.build import build_store
from carat.inference.loading import load
from carat.training.train import train
from carat.utils.errors import RunError

WORDS = ["so", "glad", "sad", "not", "it", "is", "."]
TEXTS = ["so glad.", "it is sad", "not glad", "unknown words only", "it is so sad."]


@pytest.fixture(params=[False, True], ids=["raw", "standardised"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "glove.npz", words=WORDS, vectors=random.normal(3, 1, (len(WORDS), 5)))
    lines = ["id,fold,text,joy"]
    lines += [f"{i},{('train', 'train', 'valid')[i % 3]},{TEXTS[i % 5]},{i % 2}" for i in range(30)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    recipe = {
        "name": "texts",
        "table": "table.csv",
        "id": "id",
        "split": "fold",
        "splits": {"train": "train", "valid": "valid"},
        "labels": {"columns": ["joy"]},
        "modalities": {
            "words": {"source": "glove", "file": "glove.npz", "column": "text", "standardise": request.param}
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    store = build_store(tmp_path / "recipe.yaml", tmp_path / "store")
    train({"method": {"name": "linear"}, "training": {"epochs": 2}}, store, tmp_path / "run")
    return tmp_path


def test_texts_score_as_in_the_store(trained: Path) -> None:
    from carat.data.store import open_store

    predictor = load(trained / "run", vectors=trained / "glove.npz")
    expected = dict(predictor.predict_store(open_store(trained / "store")))
    for i, prediction in enumerate(predictor.predict_text(TEXTS)):
        row = next(row for row in range(i, 30, 5) if str(row) in expected)
        assert prediction.scores == pytest.approx(expected[str(row)].scores, abs=1e-6)
        assert prediction.text == TEXTS[i]
    assert predictor.predict_text("!")[0].scores
    assert set(predictor.predict_text("so glad", words=2)[0].words["joy"]) <= {"so", "glad"}


def test_texts_without_vectors_are_said(run: Any, trained: Path) -> None:
    command = ("predict", trained / "run", "--vectors", trained / "glove.npz", "--text")
    code, _, err = run(*command, "so glad")
    assert (code, "no word with a vector" in err) == (0, False)
    code, _, err = run(*command, "so glad", "unknown words only")
    assert code == 0
    assert "note: some texts have no word with a vector" in err


def test_the_command(run: Any, trained: Path) -> None:
    out = trained / "scores.jsonl"
    given = ["--vectors", trained / "glove.npz", "--out", out]
    code, _, err = run("predict", trained / "run", "--text", "so glad", *given)
    assert code == 0, err
    assert json.loads(out.read_text())["text"] == "so glad"
    code, _, err = run("predict", trained / "run", "--text", "so glad")
    assert code == 2
    assert "words are word vectors; name their file to read texts: --vectors FILE" in err


def test_other_vectors_are_refused(trained: Path) -> None:
    np.savez(trained / "other.npz", words=WORDS, vectors=np.ones((len(WORDS), 5)))
    with pytest.raises(RunError, match=r"other.npz: is glove:\w+, but the run was trained on glove:\w+"):
        load(trained / "run", vectors=trained / "other.npz").predict_text("so glad")
