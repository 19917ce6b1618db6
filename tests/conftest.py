"""What many tests share: a small store, a small trained run, the shared folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from carat import cli
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.training.train import TrainedRun, train
from carat.utils.logging import logger
from carat.utils.parallel import local
from carat.utils.parallel.tasks import TaskResult, attempt

torch.set_num_threads(1)
settings.register_profile("carat", deadline=None, derandomize=True)
settings.load_profile("carat")

TINY = {
    "method": {
        "hidden": 16,
        "latent": 6,
        "encoder": {
            "layers": {"text": 1, "visual": 1, "audio": 1},
            "heads": 2,
            "feedforward": 8,
            "max_length": 64,
        },
        "contrast": {"queue": 101},
    },
    "data": {"batch_size": 37},
    "training": {"epochs": 2, "learning_rate": 1e-3, "accelerator": "cpu"},
}


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    """Every test draws the same numbers, whichever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The built-in benchmark with few samples and missing modalities."""
    return make_synthetic(tmp_path_factory.mktemp("stores") / "small", samples=211, seed=3, missing=0.2)


@pytest.fixture(scope="session")
def tiny() -> Experiment:
    """An experiment that trains in a second."""
    return load_experiment(overrides=TINY)


@pytest.fixture(scope="session")
def trained(store: Store, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run; tests must not change it."""
    return train(tiny, store, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden numbers and real data, which not every machine has."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("CARAT_SHARED") or default)
    if not (folder / "golden").is_dir():
        pytest.skip(f"needs the shared folder (CARAT_SHARED), not found at {folder}")
    return folder


def serially(log: list[Any]) -> Callable[..., Iterator[TaskResult]]:
    """A substitute for `carat.utils.parallel.local.run_tasks` without processes; logs the tasks."""

    def run_tasks(
        prepare: Any, arguments: Any, tasks: Any, workers: int, *, on_report: Any = None, **_: Any
    ) -> Iterator[TaskResult]:
        function = None
        for index in range(len(tasks)):
            task = tasks[index]
            log.append(task)
            function = function or prepare(*arguments)

            def report(content: Any, index: int = index) -> bool:
                return on_report is not None and on_report(index, content)

            level = logger.level
            logger.setLevel(logging.WARNING)  # as in worker processes
            try:
                outcome = attempt(function, task, report)
            finally:
                logger.setLevel(level)
            yield TaskResult(index, *outcome)

    return run_tasks


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Worker processes are replaced by this process; the tasks that were performed."""
    performed: list[Any] = []
    monkeypatch.setattr(local, "run_tasks", serially(performed))
    return performed


class Lines(logging.Handler):
    """Collects the messages of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What carat logs during a test, at its usual level; a test may change the level."""
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def values_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of devices whose values the host does not see, taken on the CPU."""
    for room in (
        "utils.device",
        "models.layers.packing",
        "models.layers.dropout",
        "models.layers.transformer",
        "models.losses.contrastive",
        "models.baselines.label_decoder",
    ):
        monkeypatch.setattr(f"carat.{room}.on_host", lambda x: False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call `carat …` in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["carat", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Environment variables of torchrun."""


def without_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of torchrun and Slurm; what a test or carat sets is forgotten after the test."""
    slurm = (name for name in os.environ if name.startswith("SLURM_"))
    for name in (*TORCHRUN, *slurm, "SLURM_NTASKS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
