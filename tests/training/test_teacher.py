"""Distillation: the scores of a trained run as targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.store.writer import StoreWriter
from carat.training.targets import choose_targets
from carat.training.train import TrainedRun, train
from carat.utils.errors import ConfigError, RunError
from tests.models.baselines.test_baselines import small
from tests.training.test_resume import killed_at
from tests.unknown import draw_known, rewrite


def taught(tiny: Experiment, teacher: Any, **training: Any) -> Experiment:
    changes = {"training": {"teacher": str(teacher), **training}}
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


def test_targets_are_between_label_and_score(
    store: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    partial = rewrite(store, tmp_path / "partial", draw_known(store))
    targets = choose_targets(
        partial, small("linear"), taught(tiny, trained.folder, teacher_weight=0.25), "cpu"
    )
    assert targets.values is not None
    rows, scores, labels = carat.load(trained.folder, "cpu").score(partial, "train", calibrated=False)
    expected = np.where(np.isnan(labels), scores, 0.75 * labels + 0.25 * scores)
    np.testing.assert_allclose(targets.values[rows], expected, atol=1e-6)
    others = np.setdiff1d(np.arange(len(partial)), rows)
    np.testing.assert_array_equal(targets.values[others], partial.targets(others))
    assert targets.notes[0].startswith(f"0.25 of a target is the score of {trained.folder} (weights ")


def test_training_with_a_teacher(store: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path) -> None:
    alone = train(tiny, store, tmp_path / "alone")
    student = train(taught(tiny, trained.folder), store, tmp_path / "student")
    weights = [(run.folder / "weights.safetensors").read_bytes() for run in (alone, student)]
    assert weights[0] != weights[1]
    assert any("of a target is the score of" in note for note in student.card.notes)


@pytest.mark.slow
def test_resume_needs_the_same_teacher(
    store: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tmp_path / "teacher"
    train(tiny, store, teacher)
    experiment = taught(tiny, teacher, checkpoint_every=3)
    whole = train(experiment, store, tmp_path / "whole")
    assert killed_at(7, store, experiment, tmp_path / "run", monkeypatch)
    resumed = train(experiment, store, tmp_path / "run")
    assert resumed.card.validation == whole.card.validation
    assert killed_at(7, store, experiment, tmp_path / "other", monkeypatch)
    train(load_experiment(overrides=merge(tiny.model_dump(), {"seed": 5})), store, teacher, overwrite=True)
    with pytest.raises(RunError, match=r"training\.teacher has other weights than when this training began"):
        train(experiment, store, tmp_path / "other")


def test_what_is_refused(store: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"training\.teacher: .*no such run"):
        train(taught(tiny, tmp_path / "none"), store, tmp_path / "run")
    fitted = {"method": {"name": "br"}, "training": {"teacher": str(trained.folder), "accelerator": "cpu"}}
    with pytest.raises(ConfigError, match=r"training\.teacher: method br takes binary labels only"):
        train(load_experiment(overrides=fitted), store, tmp_path / "run")
    other = carat.make_synthetic(tmp_path / "other", samples=150, seed=1)
    renamed = tmp_path / "renamed"
    with StoreWriter(
        renamed, "r", ["x"], {m: i.source for m, i in other.manifest.modalities.items()}, ["train", "valid"]
    ) as writer:
        for sample in (other[i] for i in range(len(other))):
            if sample.split != "test":
                writer.append(sample.id, sample.split, sample.labels[:1], sample.features)
    with pytest.raises(ConfigError, match="has none of the labels x"):
        train(taught(tiny, trained.folder), renamed, tmp_path / "run")
    assert not (tmp_path / "run").exists()
