"""Unusual inputs in predictions, and reports of drift."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

import carat
from carat.data.store import Store
from carat.evaluation.drift import (
    QUANTILES,
    Reference,
    distribution_shift,
    fit_features,
    mean_by_group,
    mean_over_time,
    quantiles_of,
)
from carat.inference.writers import write_predictions
from carat.runs.card import write_card
from carat.training.train import TrainedRun
from carat.utils.errors import RunError


def test_distance_is_mahalanobis_and_one_on_average() -> None:
    random = np.random.default_rng(0)
    mix = random.normal(size=(5, 5))
    x = random.normal(size=(4001, 5)) @ mix + 3
    reference = fit_features(x, 1.0)
    sequences = x[:, None, :]
    found = reference.distances(sequences, np.ones((len(x), 1), bool))
    centered = x - x.mean(0)
    exact = np.sqrt(np.einsum("nd,de,ne->n", centered, np.linalg.inv(np.cov(x.T)), centered) / 5)
    np.testing.assert_allclose(found, exact, rtol=0.03)
    assert np.square(found).mean() == pytest.approx(1, abs=0.02)
    far = reference.distances(sequences[:3] + 50, np.ones((3, 1), bool))
    assert (far > found.max()).all()


def test_means_are_over_valid_steps_and_absent_samples_have_none() -> None:
    features = np.arange(12.0).reshape(2, 3, 2)
    mask = np.array([[True, True, False], [False] * 3])
    np.testing.assert_allclose(mean_over_time(features, mask), [[1, 2], [0, 0]])
    reference = fit_features(np.random.default_rng(0).normal(size=(20, 2)), 0.5)
    assert np.isnan(reference.distances(features, mask)).tolist() == [False, True]
    constant = fit_features(np.ones((20, 3)), 1.0)
    assert np.isfinite(constant.distances(np.ones((1, 2, 3)), np.ones((1, 2), bool))).all()
    wide = fit_features(np.random.default_rng(0).normal(size=(7, 2500)), 1.0)
    assert len(wide.factor) == 0


def test_tokens_that_do_not_occur_in_training() -> None:
    nothing = np.zeros(0)
    seen = np.array([True, True, False, False])
    reference = Reference(quantiles_of(nothing), 1.0, nothing, nothing, np.zeros((0, 0)), seen)
    ids = np.array([[0, 1, 2, 3], [0, 1, 99, 0]])
    mask = np.array([[True] * 4, [True, True, True, False]])
    np.testing.assert_allclose(reference.distances(ids, mask), [0.5, 1 / 3])
    with_context = np.stack([ids, np.zeros_like(ids)], axis=2)
    np.testing.assert_allclose(reference.distances(with_context, mask), [0.5, 1 / 3])


def test_shift_is_that_of_kolmogorov_and_smirnov() -> None:
    random = np.random.default_rng(0)
    old, new = random.normal(size=5000), random.normal(size=997) + 0.4
    assert distribution_shift(new, quantiles_of(old)) == pytest.approx(
        ks_2samp(old, new).statistic, abs=0.012
    )
    assert distribution_shift(old, quantiles_of(old)) < 0.011
    ties = np.repeat([0.0, 1.0], [70, 30])
    assert distribution_shift(ties, quantiles_of(ties)) < 0.02
    assert np.isnan(distribution_shift(np.array([np.nan]), QUANTILES))


def test_mean_by_group_leaves_missing_values_out() -> None:
    values, groups = np.array([1.0, 0, np.nan, 1, 1]), np.array([0, 0, 1, 2, 2])
    mean, (low, high) = mean_by_group(values, groups)
    assert mean == 0.75
    assert 0.5 <= low <= mean <= high <= 1
    assert np.isnan(mean_by_group(values * np.nan, groups)[0])


def test_predictions_note_unusual_inputs(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    predictor = carat.load(trained, "cpu")
    noted = [x.notes for _, x in predictor.predict_store(store, "test")]
    assert all(x is not None for x in noted)
    assert sum(map(bool, noted)) < len(noted) / 2
    sample = {m: np.asarray(x) for m, x in store[0].features.items()}
    far = predictor.predict(sample | {"text": sample["text"] + 40})
    assert far.notes is not None
    (note,) = [x for x in far.notes if x.startswith("text: ")]
    assert "text: unlike the training data, distance " in note
    assert "(usually at most " in note
    write_predictions([("a", far)], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert "unlike the training data" in next(csv.DictReader(file))["notes"]


def test_drift(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    same = carat.monitor(trained, store, "valid", device="cpu")
    assert same.samples == len(store.indices("valid"))
    for modality in same.modalities.values():
        assert modality.unusual < 0.2
        assert modality.shift < 0.25  # training samples are among the reference
    for label in same.labels.values():
        assert label.shift < 0.04  # 32 samples, and quantiles between them
        assert label.predicted == pytest.approx(label.predicted_before)
        assert not label.is_shifted
    other = carat.make_synthetic(tmp_path / "other", samples=200, seed=11, missing=0.6)
    report = carat.monitor(trained, other, device="cpu")
    assert report.samples == 200
    for m, modality in report.modalities.items():
        train = store.lengths(m)[store.indices("train")] > 0
        assert modality.presence_before == pytest.approx(train.mean())
        assert modality.presence == pytest.approx((other.lengths(m) > 0).mean())
    assert report.labels["sad"].rate == pytest.approx(np.asarray(other.labels)[:, 1].mean())
    json.dumps(report.to_json(), allow_nan=False)


def test_runs_without_reference(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    (folder / "reference.safetensors").unlink()
    write_card(folder, trained.card)
    assert carat.load(folder, "cpu").predict(store[0].features).notes is None
    with pytest.raises(RunError, match="has no reference of its training data"):
        carat.monitor(folder, store, device="cpu")
    folder = Path(shutil.copytree(trained.folder, tmp_path / "altered"))
    content = (folder / "reference.safetensors").read_bytes()
    (folder / "reference.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RunError, match=r"reference\.safetensors: modified after training"):
        carat.load(folder, "cpu")


def test_on_the_command_line(run: Any, trained: TrainedRun, store: Store) -> None:
    code, out, _ = run("monitor", trained.folder, "--data", store.folder, "--split", "test")
    assert (code, "unusual" in out, "score shift" in out) == (0, True, True)
    code, out, _ = run("monitor", trained.folder, "--data", store.folder, "--json")
    assert (code, set(json.loads(out))) == (0, {"samples", "groups", "modalities", "labels"})
