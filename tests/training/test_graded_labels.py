"""Training on graded labels, in every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import carat
from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.config.methods import METHODS
from carat.data.store import Store
from carat.runs.folder import WEIGHTS
from carat.training.train import train
from carat.utils.errors import ConfigError
from tests.models.baselines.test_baselines import TRAINED, small
from tests.models.carat.test_model import batch
from tests.training.test_distributed import on
from tests.training.test_resume import killed_at
from tests.unknown import draw_known, rewrite


@pytest.fixture(scope="module")
def graded(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The small store with grades of its labels, some of them unknown."""
    grades = np.random.default_rng(0).uniform(0.2, 1, store.labels.shape) * store.labels
    folder = tmp_path_factory.mktemp("stores") / "graded"
    return rewrite(store, folder, draw_known(store), grades=grades.astype(np.float32))


def with_target(experiment: Experiment, target: str | None) -> Experiment:
    changes = {"data": experiment.data.model_copy(update={"target": target})}
    return experiment.model_copy(update=changes)


@pytest.mark.parametrize("name", TRAINED)
def test_binary_targets_change_nothing_and_others_do(name: str) -> None:
    method = small(name).train()
    features, masks, labels = batch()

    def losses(targets: torch.Tensor | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        outputs = method(features, masks)
        return method.losses(outputs, labels, torch.Generator().manual_seed(0), targets=targets)  # type: ignore[call-arg]

    assert method.takes_targets
    plain, same, half = losses(None), losses(labels), losses(labels / 2)
    assert all(torch.equal(plain[term], same[term]) for term in plain)
    assert not torch.equal(plain["total"], half["total"])
    if "contrast" in plain:
        assert torch.equal(plain["contrast"], half["contrast"])


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(TRAINED)))
def test_fitted_methods_take_binary_labels_only(name: str, graded: Store, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"training": {"accelerator": "cpu"}, "method": {"name": name}}
    experiment = load_experiment(preset="small", overrides=changes)
    trained = train(experiment, graded, tmp_path / "run")
    assert f"{name} takes binary labels only: the graded ones of the store are not used" in trained.card.notes
    with pytest.raises(ConfigError, match=f"method {name} takes binary labels only"):
        train(with_target(experiment, "graded"), graded, tmp_path / "other")


def test_graded_labels_are_used_by_default(
    graded: Store, store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    runs = {
        target: train(with_target(tiny, target), graded, tmp_path / str(target))
        for target in (None, "graded", "binary")
    }
    weights = {target: (run.folder / WEIGHTS).read_bytes() for target, run in runs.items()}
    assert weights[None] == weights["graded"] != weights["binary"]
    report = carat.evaluate(runs[None], graded, device="cpu")
    assert report.graded is not None
    assert report.graded.labels.keys() == report.metrics.labels.keys()
    assert 0 <= report.graded.means["rmse"] <= 1
    with pytest.raises(ConfigError, match=r"data\.target is graded, but .* has binary labels only"):
        train(with_target(tiny, "graded"), store, tmp_path / "no")


def test_command_shows_graded_metrics(graded: Store, tiny: Experiment, tmp_path: Path, run: Any) -> None:
    trained = train(tiny, graded, tmp_path / "run")
    code, out, err = run("evaluate", trained.folder, "--data", graded.folder)
    assert code == 0, err
    assert "rmse (graded)" in out
    assert "F1 at ≥ 2/3" in out


def test_resume(graded: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(overrides=merge(tiny.model_dump(), {"training": {"checkpoint_every": 3}}))
    whole = train(experiment, graded, tmp_path / "whole")
    assert killed_at(7, graded, experiment, tmp_path / "run", monkeypatch)
    resumed = train(experiment, graded, tmp_path / "run")
    assert (resumed.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(graded: Store, tiny: Experiment, tmp_path: Path) -> None:
    changes = {
        "method": {"encoder": {"dropout": 0.0}},
        "data": {"batch_size": 21},
        "training": {"epochs": 1, "modality_dropout": 0.2},
    }
    experiment = load_experiment(overrides=merge(tiny.model_dump(), changes))
    both = train(on(experiment, 2), graded, tmp_path / "two")
    one = train(experiment, graded, tmp_path / "one")
    assert both.card.thresholds == one.card.thresholds
    assert both.card.validation == pytest.approx(one.card.validation, abs=1e-5)
