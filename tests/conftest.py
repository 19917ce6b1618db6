"""What many tests share: a small store, a small trained run, the shared folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from carat import cli
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.studies import jobs
from carat.training.train import TrainedRun, train

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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Do jobs in this process; the names of those that were done."""
    done = []

    def serially(todo, out, workers):  # type: ignore[no-untyped-def]
        for job in todo:
            done.append(job.called)
            yield job, jobs._work(job, out)

    monkeypatch.setattr(jobs, "_in_parallel", serially)
    return done


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
