"""Runs without the published weights of their encoder, and runs that are known by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import carat
from carat.data.store import Store
from carat.features.models import MODELS, ModelFiles
from carat.models.encoders.loading import read_published
from carat.runs import locating
from carat.runs.card import BaseEncoder
from carat.runs.weights import subtract
from carat.training.train import TrainedRun
from carat.utils.errors import DataError, ExportError, RunError
from tests.models.encoders.conftest import text_encoder, text_run, text_store

__all__ = ["text_encoder", "text_run", "text_store"]  # fixtures


@pytest.fixture
def published(text_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The small encoder, published as `tiny`."""
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(text_encoder, folder)
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json", "tokenizer.json")
    }
    monkeypatch.setitem(
        MODELS, "tiny", ModelFiles("tiny", "", "MIT", files, "", "no-such-package", "", "tiny")
    )
    monkeypatch.setenv("CARAT_MODELS", str(folder.parent))
    return "tiny"


def test_a_run_without_its_base_scores_alike(
    text_run: TrainedRun, text_store: Store, published: str, tmp_path: Path, run: Any
) -> None:
    small = tmp_path / "small"
    code, out, err = run("export", text_run.folder, small, "--without-base", "--data", text_store.folder)
    assert code == 0, err
    assert "without tiny for text" in err + out
    weights = load_file(small / "weights.safetensors")
    matrices = [x for name, x in weights.items() if name.endswith(".difference")]
    assert matrices
    assert all(x.dtype == torch.int8 and int(x.abs().max()) == 127 for x in matrices)
    assert str(text_run.folder) not in (small / "experiment.yaml").read_text()
    before, after = carat.load(text_run, "cpu"), carat.load(small, "cpu")
    expected = before.score(text_store, "test", calibrated=False)[1]
    assert np.abs(after.score(text_store, "test", calibrated=False)[1] - expected).max() < 0.005
    assert after.thresholds == before.thresholds
    assert after.predict_text(["so glad"])[0].labels == before.predict_text(["so glad"])[0].labels


def test_the_difference_is_that_of_the_weights(published: str, tmp_path: Path) -> None:
    originals = read_published(tmp_path / "models" / "tiny")
    base = BaseEncoder(model="tiny", sha256=MODELS["tiny"].files["model.safetensors"])
    name = "encoder.layer.0.output.dense.weight"
    changed = originals[name] + torch.linspace(-1, 1, originals[name].numel()).view_as(originals[name])
    state = {f"encoders.text.model.{x}": value for x, value in originals.items()}
    state |= {f"encoders.text.model.{name}": changed, "model.head.weight": torch.ones(2, 3)}
    kept = subtract(state, "text", base)
    assert set(kept) == {
        f"encoders.text.model.{name}.difference",
        f"encoders.text.model.{name}.scale",
        "model.head.weight",
    } | {x for x in state if "pooler" in x}
    restored = (
        originals[name]
        + kept[f"encoders.text.model.{name}.difference"].float()
        * (kept[f"encoders.text.model.{name}.scale"][:, None])
    )
    assert (restored - changed).abs().max() <= 0.5 / 127


def test_lora_runs_keep_their_adapters(
    text_store: Store, text_encoder: Path, published: str, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    settings = {
        "method": {"name": "linear"},
        "training": {"epochs": 1, "accelerator": "cpu"},
        "encoders": {"text": {"folder": str(text_encoder), "lora": {"rank": 2}}},
    }
    trained = carat.train(carat.load_experiment(overrides=settings), text_store, tmp_path / "lora")
    small = carat.export_without_base(trained, tmp_path / "small")
    assert small.size < small.size_before / 2
    scores = [carat.load(x, "cpu").score(text_store, "test")[1] for x in (trained, small.path)]
    np.testing.assert_array_equal(*scores)


def test_problems_are_one_line(
    text_run: TrainedRun, trained: TrainedRun, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="has no fine-tuned encoder that `carat models list` shows"):
        carat.export_without_base(trained, tmp_path / "other")
    small = tmp_path / "small"
    carat.export_without_base(text_run, small)
    with pytest.raises(RunError, match="--overwrite"):
        carat.export_without_base(text_run, small)
    monkeypatch.setenv("CARAT_MODELS", str(tmp_path))
    with pytest.raises(DataError, match="model 'tiny' is not on this machine: run pip install tiny"):
        carat.load(small)
    monkeypatch.delitem(MODELS, "tiny")
    with pytest.raises(RunError, match="was fine-tuned from 'tiny' of another version; upgrade carat"):
        carat.load(small)


def test_damaged_differences_are_refused(text_run: TrainedRun, published: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    carat.export_without_base(text_run, small)
    weights = load_file(small / "weights.safetensors")
    name = next(x for x in weights if x.endswith(".difference"))
    save_file(weights | {name: weights[name][:, :1].contiguous()}, small / "weights.safetensors")
    with pytest.raises(RunError, match="modified after training"):
        carat.load(small)
    content = json.loads((small / "run.json").read_text()) | {"digests": {}}
    (small / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"corrupt, the difference of .* has another shape"):
        carat.load(small)


def test_runs_that_carat_comes_with(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locating, "SHIPPED", tmp_path / "inside")
    shutil.copytree(trained.folder, tmp_path / "inside" / "calls")
    assert locating.locate("calls") == tmp_path / "inside" / "calls"
    assert locating.locate("inside/calls") == Path("inside/calls")
    assert locating.locate("../inside/calls") == Path("../inside/calls")
    assert carat.load("calls", "cpu").labels == trained.card.labels
    code, out, err = run("list", "--json")
    assert code == 0, err
    assert {x["name"] for x in json.loads(out)} == {"inside/calls", "calls"}
    (tmp_path / "calls").mkdir()
    assert locating.locate("calls") == Path("calls")
