"""Callbacks and loggers of the caller: they see the training, and do not change it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.runs import folder as run
from carat.training.lightning_module import TrainingModule
from carat.training.train import TrainedRun, train
from carat.training.trainer import LOG_EVERY, Extras
from carat.utils.errors import ConfigError, RunError
from tests.training.test_resume import KilledError, die


@pytest.fixture(scope="module")
def experiment(tiny: Experiment) -> Experiment:
    """Three epochs of ten batches, with a running mean, and states saved within epochs."""
    changes = {
        "data": {"batch_size": 16},
        "training": {"epochs": 3, "checkpoint_every": 3, "ema_decay": 0.9, "modality_dropout": 0.2},
    }
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


@pytest.fixture(scope="module")
def whole(store: Store, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The training without any callback."""
    return train(experiment, store, tmp_path_factory.mktemp("whole") / "run")


class Gambler(Callback):
    """Draws random numbers from every generator there is, at every occasion."""

    def on_train_start(self, *_: Any) -> None:
        self._draw()

    def on_train_epoch_start(self, *_: Any) -> None:
        self._draw()

    def on_train_batch_start(self, *_: Any) -> None:
        self._draw()

    def on_train_batch_end(self, *_: Any) -> None:
        self._draw()

    def on_validation_start(self, *_: Any) -> None:
        self._draw()

    def on_validation_batch_start(self, *_: Any) -> None:
        self._draw()

    def _draw(self) -> None:
        torch.rand(7)
        np.random.rand(7)
        random.random()


class Counter(Callback):
    """Counts batches and epochs, and knows so after a resumption."""

    def __init__(self) -> None:
        self.batches, self.epochs, self.histories = 0, 0, []  # type: ignore[var-annotated]

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.epochs += 1
        self.histories.append([row["epoch"] for row in module.history])

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "epochs": self.epochs, "mean": torch.tensor(0.5)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches, self.epochs = state["batches"], state["epochs"]


class Notes(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, float]] = []
        self.settings: Any = None

    @property
    def name(self) -> str:
        return "notes"

    @property
    def version(self) -> str:
        return "0"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append(dict(metrics))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.settings = params


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (run.WEIGHTS, run.METRICS, run.CARD)}


def test_callbacks_do_not_change_the_run(
    store: Store, experiment: Experiment, whole: TrainedRun, tmp_path: Path
) -> None:
    counter, notes = Counter(), Notes()
    made = train(experiment, store, tmp_path / "run", callbacks=[Gambler(), counter], loggers=[notes])
    assert contents(made.folder) == contents(whole.folder)
    batches = -(-len(store.indices("train")) // 16)
    assert (counter.batches, counter.epochs) == (3 * batches, 3)
    assert counter.histories == [[1.0], [1.0, 2.0], [1.0, 2.0, 3.0]]  # complete when an epoch ends


@pytest.mark.parametrize("at", [8, 17])
def test_their_state_is_resumed(
    at: int,
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        die(patched, TrainingModule, "training_step", at, KilledError())
        with pytest.raises(KilledError):
            train(experiment, store, tmp_path / "run", callbacks=[Counter()])
    resumed = Counter()
    made = train(experiment, store, tmp_path / "run", callbacks=[resumed])
    batches = -(-len(store.indices("train")) // 16)
    assert (resumed.batches, resumed.epochs) == (3 * batches, 3)
    assert contents(made.folder) == contents(whole.folder)


class Hoarder(Callback):
    """Has a state of any kind."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}


@pytest.mark.parametrize(
    ("kept", "problem"), [(Path("x"), r"it holds pathlib\.PosixPath"), (lambda: 0, r"Can't pickle .*lambda")]
)
def test_a_state_that_could_not_be_loaded_is_not_saved(
    kept: Any, problem: str, store: Store, experiment: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=rf"a callback's state cannot be saved: {problem}.*; state_dict\(\)"):
        train(experiment, store, tmp_path / "run", callbacks=[Hoarder(kept)])
    assert not list((tmp_path / "run" / run.CHECKPOINTS).glob("*"))


def test_a_callback_may_stop_the_training(store: Store, experiment: Experiment, tmp_path: Path) -> None:
    slow = load_experiment(overrides=merge(experiment.model_dump(), {"training": {"learning_rate": 1e-9}}))
    stop = EarlyStopping("valid/macro_f1", mode="max", patience=1)
    made = train(slow, store, tmp_path / "run", callbacks=[stop])
    assert len((made.folder / run.METRICS).read_text().splitlines()) < 1 + 3


def test_loggers_replace_tensorboard(
    store: Store, experiment: Experiment, whole: TrainedRun, tmp_path: Path
) -> None:
    assert list((whole.folder / run.LOGS).glob("events.*"))
    notes, table = Notes(), CSVLogger(tmp_path / "tables", name="t", version="v")
    made = train(
        experiment,
        store,
        tmp_path / "run",
        loggers=[notes, table],
        callbacks=[LearningRateMonitor(logging_interval="step")],
    )
    assert not list(made.folder.rglob("events.*"))
    logged = [row for row in notes.metrics if "valid/micro_f1" in row]
    assert [row["valid/micro_f1"] for row in logged] == pytest.approx(
        [float(row["valid/micro_f1"]) for row in rows_of(made)]
    )
    assert {"train/total"} < {key for row in notes.metrics for key in row}
    batches = -(-len(store.indices("train")) // 16)
    rates = [row for row in notes.metrics if any(key.startswith("lr-") for key in row)]
    assert len(rates) == 3 * batches // min(batches, LOG_EVERY)
    assert notes.settings == experiment.model_dump(mode="json")
    written = yaml.safe_load((tmp_path / "tables" / "t" / "v" / "hparams.yaml").read_text())
    assert written["training"]["epochs"] == 3
    silent = train(experiment, store, tmp_path / "silent", loggers=[])
    assert not (silent.folder / run.LOGS).exists()
    assert contents(silent.folder) == contents(made.folder) == contents(whole.folder)


def rows_of(made: TrainedRun) -> list[dict[str, str]]:
    import csv

    return list(csv.DictReader((made.folder / run.METRICS).read_text().splitlines()))


class Foreign(pytorch_lightning.Callback):
    pass


class Unsendable(Callback):
    def __init__(self) -> None:
        self.function = lambda: 0


@pytest.mark.parametrize(
    ("given", "devices", "message"),
    [
        (
            {"callbacks": [Foreign()]},
            1,
            r"callbacks: expected objects of lightning.pytorch's Callback, found tests\..*Foreign",
        ),
        ({"loggers": ["wandb"]}, 1, r"loggers: expected objects of .* Logger, found builtins.str"),
        ({"callbacks": [ProgressBar(), ProgressBar()]}, 1, "callbacks: more than one progress bar"),
        (
            {"callbacks": [Unsendable()]},
            2,
            r"callbacks: Unsendable cannot be sent to the 2 processes of training.devices \(.*lambda.*torchrun",  # noqa: E501
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    given: dict[str, Any], devices: int, message: str, store: Store, experiment: Experiment, tmp_path: Path
) -> None:
    values = merge(experiment.model_dump(), {"training": {"devices": devices}})
    with pytest.raises(ConfigError, match=message):
        train(load_experiment(overrides=values), store, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_what_need_not_be_sent_may_hold_anything() -> None:
    Extras([Unsendable()]).check(1)


class Signature(Callback):
    """Writes a file from its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Any, module: Any) -> None:
        (self.folder / f"rank{trainer.global_rank}").write_text(str(len(module.history)))


@pytest.mark.slow
def test_every_process_has_its_own(store: Store, experiment: Experiment, tmp_path: Path) -> None:
    values = merge(experiment.model_dump(), {"training": {"devices": 2, "epochs": 1}})
    made = train(
        load_experiment(overrides=values),
        store,
        tmp_path / "run",
        callbacks=[Signature(tmp_path), LearningRateMonitor()],
        loggers=[CSVLogger(tmp_path / "tables", name="t", version="v")],
    )
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0", "rank1"}
    assert (tmp_path / "rank1").read_text() == "1"
    lines = (tmp_path / "tables" / "t" / "v" / "metrics.csv").read_text().splitlines()
    assert sum(1 for line in lines[1:] if line.split(",")[lines[0].split(",").index("valid/micro_f1")]) == 1
    assert not (made.folder / run.LOGS).exists()
