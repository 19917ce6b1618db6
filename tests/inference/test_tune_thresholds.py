"""New thresholds for a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.evaluation.thresholds import search_thresholds
from carat.training.train import TrainedRun
from carat.utils.errors import DataError


@pytest.fixture
def copied(trained: TrainedRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "copied"))


def test_thresholds_are_searched_and_kept(copied: Path, store: Store) -> None:
    before = carat.load(copied, "cpu")
    _, scores, labels = before.score(store, "valid", calibrated=False)
    done = carat.tune_thresholds(copied, store, kind="per-label", device="cpu")
    expected = search_thresholds(scores, labels, "per-label")
    assert list(done.after.values()) == expected.tolist() != list(done.before.values())
    assert done.f1["after"]["macro_f1"] > done.f1["before"]["macro_f1"]
    after = carat.load(copied, "cpu")
    assert after.card.thresholds == done.after
    assert after.card.calibration == before.card.calibration
    assert any(x.startswith("thresholds were tuned on synthetic, valid") for x in after.card.notes)
    report = carat.evaluate(copied, store, "valid", device="cpu")
    assert report.metrics.macro_f1 == pytest.approx(done.f1["after"]["macro_f1"])
    carat.tune_thresholds(copied, store, device="cpu")
    assert carat.load(copied, "cpu").card.thresholds == done.before


def test_weights_are_as_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((60, 3)), rng.integers(0, 2, (60, 3)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    times = rng.integers(1, 4, 60)
    for kind in ("global", "per-label", "interpolated"):
        repeated = search_thresholds(scores.repeat(times, 0), labels.repeat(times, 0), kind)
        weighted = search_thresholds(scores, labels, kind, weights=times.astype(np.float64))
        np.testing.assert_array_equal(repeated, weighted)


def test_command(copied: Path, store: Store, run: Any) -> None:
    code, out, err = run("threshold", copied, "--data", store.folder, "--kind", "per-label")
    assert code == 0, err
    assert "macro-F1, valid" in out
    code, _, err = run("threshold", copied, "--data", store.folder, "--balance-corpora")
    assert code == 2
    assert "there is a single corpus, so there is nothing to balance" in err
    with pytest.raises(DataError, match="single corpus"):
        carat.tune_thresholds(copied, store, balance_corpora=True)


def test_corpora_count_alike(copied: Path, store: Store, tmp_path: Path) -> None:
    part = f"{{store: {store.folder}, splits: [train]}}"
    (tmp_path / "plan.yaml").write_text(f"name: both\ncorpora:\n  a: {part}\n  b: {part}\n")
    merged = carat.merge_stores(tmp_path / "plan.yaml", tmp_path / "both")
    done = carat.tune_thresholds(copied, merged, "train", balance_corpora=True, device="cpu")
    assert done.after == carat.tune_thresholds(copied, store, "train", device="cpu").after
