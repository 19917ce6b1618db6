"""A finished run is extended to more epochs."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

import carat
from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.runs.card import read_run
from carat.runs.folder import CARD, CHECKPOINTS, EXPERIMENT, METRICS, WEIGHTS
from carat.training.lightning_module import TrainingModule
from carat.training.optimizer import linear_schedule
from carat.training.train import train
from carat.utils.errors import RunError
from tests.training.test_resume import KilledError, die


def longer(experiment: Experiment, epochs: int, **training: Any) -> Experiment:
    changes = {"training": {"epochs": epochs} | training}
    return load_experiment(overrides=merge(experiment.model_dump(), changes))


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def finished(store: Store, tiny: Experiment, tmp_path: Path) -> Path:
    """A finished run of two epochs."""
    return train(longer(tiny, 2, ema_decay=0.9), store, tmp_path / "run").folder


class LearningRates(Callback):
    """Records the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_extension_continues_with_the_longer_schedule(store: Store, tiny: Experiment, finished: Path) -> None:
    before, recorder = history(finished), LearningRates()
    run = train(longer(tiny, 4, ema_decay=0.9), store, finished, resume=True, callbacks=[recorder])
    after = history(finished)
    assert after[:2] == before
    assert [int(row["epoch"]) for row in after] == [1, 2, 3, 4]
    best = max(after, key=lambda row: float(row["valid/micro_f1"]))
    assert run.card.epoch == int(best["epoch"])
    assert read_run(finished)[1].training.epochs == 4
    factor = linear_schedule(2 * len(recorder.rates), tiny.training.warmup)
    steps = range(len(recorder.rates), 2 * len(recorder.rates))
    assert recorder.rates == [pytest.approx(tiny.training.learning_rate * factor(step)) for step in steps]
    assert len(list((finished / CHECKPOINTS).iterdir())) == 1


def test_interrupted_extension_is_resumed_identically(
    store: Store, tiny: Experiment, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = longer(tiny, 3, ema_decay=0.9)
    whole = Path(shutil.copytree(finished, tmp_path / "whole"))
    train(more, store, whole, resume=True)
    with monkeypatch.context() as patched:
        die(patched, TrainingModule, "training_step", 2, KilledError())
        with pytest.raises(KilledError):
            train(more, store, finished, resume=True)
    assert not (finished / CARD).exists()
    train(more, store, finished)
    for name in (WEIGHTS, METRICS, CARD):
        assert (finished / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_or_equal_epochs_are_no_extension(
    epochs: int, store: Store, tiny: Experiment, finished: Path
) -> None:
    card = (finished / CARD).read_bytes()
    same = longer(tiny, epochs, ema_decay=0.9)
    if epochs == 2:
        assert train(same, store, finished, resume=True).folder == finished
    else:
        with pytest.raises(RunError, match=r"holds a run with another training\.epochs already"):
            train(same, store, finished, resume=True)
    assert (finished / CARD).read_bytes() == card


def test_without_resume_a_finished_run_is_refused(store: Store, tiny: Experiment, finished: Path) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        train(longer(tiny, 3, ema_decay=0.9), store, finished)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"training": {"keep_checkpoint": False}}, "has no checkpoint to continue from"),
        ({"method": {"name": "prior"}}, "this method is not trained in epochs"),
    ],
)
def test_run_that_cannot_be_extended_is_left_as_it_is(
    changes: dict[str, Any], problem: str, store: Store, tmp_path: Path
) -> None:
    settings = merge(
        {"preset": "small", "method": {"name": "linear"}, "training": {"epochs": 1, "accelerator": "cpu"}},
        changes,
    )
    train(settings, store, tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (CARD, EXPERIMENT, WEIGHTS)}
    with pytest.raises(RunError, match=problem):
        train(merge(settings, {"training": {"epochs": 2}}), store, tmp_path / "run", resume=True)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before
    carat.load(tmp_path / "run")
