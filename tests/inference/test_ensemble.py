"""Ensembles of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.store.writer import StoreWriter
from carat.evaluation.thresholds import search_thresholds
from carat.inference.predictor import Predictor
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, ConfigError, DataError, RunError


@pytest.fixture(scope="module")
def members(
    store: Store, tiny: Experiment, trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """CARAT on all modalities, and a linear layer on text and audio."""
    linear = load_experiment(
        overrides={
            "method": {"name": "linear"},
            "data": {"modalities": ["audio", "text"]},
            "training": {"epochs": 1, "accelerator": "cpu"},
        }
    )
    return [trained.folder, train(linear, store, tmp_path_factory.mktemp("members") / "linear").folder]


@pytest.fixture(scope="module")
def both(members: list[Path], store: Store, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return carat.ensemble(members, store, tmp_path_factory.mktemp("runs") / "both", device="cpu")


def test_scores_are_means_over_members_that_have_a_modality(
    both: Predictor, members: list[Path], store: Store
) -> None:
    rows, scores, _ = both.score(store, "test")
    first, second = (carat.load(run, "cpu").score(store, "test", calibrated=False) for run in members)
    expected = first[1].copy()
    shared = np.isin(rows, second[0])
    assert 0 < (~shared).sum() < len(rows)
    expected[shared] = (first[1][shared] + second[1]) / 2
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert both.labels == store.label_names
    assert list(both.widths) == ["text", "visual", "audio"]


def test_thresholds_are_searched_on_validation(both: Predictor, store: Store) -> None:
    _, scores, labels = both.score(store, "valid")
    assert list(both.card.thresholds.values()) == search_thresholds(scores, labels, "global", 0.01).tolist()
    report = carat.evaluate(both.folder, store, "valid", device="cpu")
    assert report.metrics.micro_f1 == pytest.approx(both.card.validation["micro_f1"])
    assert both.card.calibration is not None
    assert list(both.card.calibration.labels) == both.labels


def test_it_is_a_run_like_others(
    both: Predictor, members: list[Path], store: Store, run: Any, tmp_path: Path
) -> None:
    code, _, err = run("predict", both.folder, "--data", store.folder, "--out", tmp_path / "p.csv")
    assert code == 0, err
    prediction = both.predict({"visual": np.zeros((3, both.widths["visual"])) + 0.5}, raw=False)
    alone = carat.load(members[0], "cpu", calibrated=False)
    assert (
        prediction.scores
        == alone.predict({"visual": np.zeros((3, both.widths["visual"])) + 0.5}, raw=False).scores
    )
    assert set(prediction.attribution.values()) <= {"text", "visual", "audio", ""}
    experiment = carat.load_experiment(both.folder / "experiment.yaml")
    with pytest.raises(ConfigError, match="made of trained runs by `carat ensemble`"):
        train(experiment, store, tmp_path / "no")


def test_what_is_refused(
    both: Predictor, members: list[Path], store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="at least two runs, found 1"):
        carat.ensemble(members[:1], store, tmp_path / "out")
    with pytest.raises(ConfigError, match="is an ensemble; name its members instead"):
        carat.ensemble([both, members[0]], store, tmp_path / "out")
    with pytest.raises(RunError, match="no such run"):
        carat.ensemble([members[0], tmp_path / "none"], store, tmp_path / "out")
    with pytest.raises(CaratError, match="--overwrite"):
        carat.ensemble(members, store, both.folder)
    sources = {m: f"other-{info.source}" for m, info in store.manifest.modalities.items()}
    for name, labels in (("elsewhere", store.label_names), ("fewer", store.label_names[:2])):
        with StoreWriter(tmp_path / name, name, labels, sources, ["train", "valid"]) as writer:
            for sample in (store[i] for i in range(len(store))):
                if sample.split != "test":
                    writer.append(sample.id, sample.split, sample.labels[: len(labels)], sample.features)
        train(tiny, tmp_path / name, tmp_path / f"on-{name}")
    with pytest.raises(DataError, match="text differs in source from that of"):
        carat.ensemble([members[0], tmp_path / "on-elsewhere"], store, tmp_path / "out")
    with pytest.raises(DataError, match="labels happy, sad, but those of"):
        carat.ensemble([members[0], tmp_path / "on-fewer"], store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command(members: list[Path], store: Store, run: Any, tmp_path: Path) -> None:
    code, _, err = run("ensemble", *members, "--data", store.folder, "--out", tmp_path / "both")
    assert code == 0, err
    assert "mean of the scores of" in err
    assert "validation micro-F1" in err
    code, _, err = run("ensemble", members[0], "--data", store.folder, "--out", tmp_path / "one")
    assert code == 2
    assert "at least two runs" in err
