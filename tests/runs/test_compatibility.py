"""Runs of carat 0.1 (schema 1) still load with the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.runs.compatibility import rename_weight

FOLDER = Path(__file__).with_name("schema1")
"""Trained at commit 3306bee on `make_synthetic(samples=101, seed=3, missing=0.2)`, with their test scores."""


@pytest.fixture(scope="module")
def old_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_synthetic(tmp_path_factory.mktemp("schema1") / "store", samples=101, seed=3, missing=0.2)


@pytest.mark.parametrize("name", ["carat", "late-fusion", "mult", "lddu", "options"])
def test_runs_of_schema_1_keep_their_scores(name: str, old_store: Store) -> None:
    with np.load(FOLDER / "expected.npz") as expected:
        _, scores, _ = carat.load(FOLDER / name, "cpu").score(old_store, "test")
        np.testing.assert_allclose(scores, expected[name], atol=1e-5)


def test_settings_of_schema_1_are_renamed() -> None:
    experiment = carat.load(FOLDER / "options", "cpu").experiment
    assert experiment.data.truncation is True
    assert experiment.training.ema_decay == 0.9
    assert (experiment.threshold.kind, experiment.threshold.max_micro_f1_drop) == ("interpolated", 0.02)
    method = experiment.method.model_dump()
    assert (method["identity_init"], method["contrast"]["average_over_all"]) == (True, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.encoder.text.layers.0.attended.weight", "network.encoder.text.layers.0.out_proj.weight"),
        ("method.queue.rows", "model.memory_bank.rows"),
        ("widen.bias", "linear1.bias"),
        ("encoders.text.model.encoder.layer.0.output.dense.weight",) * 2,
    ],
)
def test_weights_of_schema_1_are_renamed(old: str, new: str) -> None:
    assert rename_weight(old) == new
