"""Checks, attention plots and export for token ids and runs with a text encoder."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from carat.data.checks.store import check_store
from carat.data.store import Store
from carat.inference.explain.attention import draw_attention
from carat.inference.export import export
from carat.inference.loading import load
from carat.training.train import TrainedRun, train
from carat.utils.errors import DataError
from tests.models.encoders.conftest import TRAINING
from tests.models.encoders.folders import KEYWORDS, make_text_store


@pytest.fixture(scope="module")
def carat_run(text_store: Store, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    method = {"hidden": 16, "latent": 6, "encoder": {"layers": {"text": 0}, "heads": 2, "max_length": 20}}
    experiment = TRAINING | {
        "method": method | {"contrast": {"queue": 53}},
        "encoders": {"text": {"folder": str(text_encoder), "learning_rate": 3e-3}},
        "training": TRAINING["training"] | {"epochs": 2},
    }
    return train(experiment, text_store, tmp_path_factory.mktemp("runs") / "carat")


def test_store_checks_do_not_treat_token_ids_as_features(text_store: Store) -> None:
    findings = {finding.check: finding for finding in check_store(text_store)}
    for name in ("content", "non-finite values", "constant columns", "time stamps", "leakage", "padding"):
        assert findings[name].verdict == "ok", findings[name]


def test_attention_over_tokens(carat_run: TrainedRun, text_store: Store, tmp_path: Path) -> None:
    row = int(text_store.indices("test")[0])
    _, table = draw_attention(load(carat_run.folder), text_store, row, tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    words = text_store.transcript(row).split()[:11]
    assert [x["word"] for x in rows] == ["[CLS]", *words, "[SEP]"]
    assert sum(float(x["happy"]) for x in rows) == pytest.approx(1, abs=1e-3)
    assert set(KEYWORDS) < rows[0].keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tracing raises warnings within PyTorch
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_exported_file_includes_the_encoder(
    ending: str, carat_run: TrainedRun, text_store: Store, tmp_path: Path
) -> None:
    exported = export(carat_run.folder, tmp_path / f"model.{ending}", store=text_store.folder)
    assert exported.largest_difference < 1e-5
    assert exported.inputs["text"] == "(B, T ≤ 20, 1) int64"


def test_tokens_of_another_tokenizer_are_rejected(
    text_run: TrainedRun, text_encoder: Path, store: Store, tmp_path: Path
) -> None:
    other = shutil.copytree(text_encoder, tmp_path / "encoder")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    with pytest.raises(
        DataError, match=r"text holds tokens of the tokenizer \w+, but the run .* on tokens of"
    ):
        load(text_run.folder).predict_store(make_text_store(tmp_path, other), "test").__next__()
    with pytest.raises(DataError, match=r"text holds features, but the run .* was trained on tokens of the"):
        load(text_run.folder).predict_store(store, "test").__next__()
